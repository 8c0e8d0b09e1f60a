/* The daemon's records: of everything that is done one, in a chain, with who
 * did it, and never a secret. Without a record nothing is done. */
#include "config.h"

#include "module/audit/record.h"
#include "module/core/entrance.h"
#include "module/core/logbook.h"
#include "module/core/logread.h"
#include "tests/unit/core_fixture.h"

#include <errno.h>
#include <sys/syscall.h>

/* ---- a disk that does not sync, in the place of the C library's ---- */

static atomic_bool syncs_fail;
static atomic_int syncs_failed;

static int sync_one(int fd)
{
    if (!atomic_load(&syncs_fail))
        return (int)syscall(SYS_fdatasync, fd);
    atomic_fetch_add(&syncs_failed, 1);
    errno = EIO;
    return -1;
}

__attribute__((visibility("default"))) int fsync(int fd)
{
    return sync_one(fd);
}

__attribute__((visibility("default"))) int fdatasync(int fd)
{
    return sync_one(fd);
}

/* ---- reading ---- */

#define SECRETS_MAX 16

struct log {
    int64_t seq; /* of the last */
    struct merkle_hash last;
    int kinds[RECORD_KINDS];
    json_t *of[RECORD_KINDS]; /* the last of each */
    const char *secrets[SECRETS_MAX];
};

static void log_clear(struct log *l)
{
    for (int i = 0; i < RECORD_KINDS; i++)
        json_decref(l->of[i]);
}
#define LOG CLEANUP(log_clear) struct log

static enum code read_one(int64_t sequence, const char *line, void *ctx,
                          struct error *e)
{
    struct log *l = ctx;
    RECORD r = {.json = NULL};
    enum code code = record_parse(&r, line, strlen(line), e);

    if (code)
        fail_msg("record %d: %s: %s", (int)sequence, e->text, line);
    assert_int_equal(sequence, ++l->seq);
    assert_int_equal(sequence, r.seq);
    assert_memory_equal(r.prev.bytes, l->last.bytes, MERKLE_HASH);
    for (int i = 0; i < SECRETS_MAX && l->secrets[i]; i++)
        if (strstr(line, l->secrets[i]))
            fail_msg("a secret is in record %d: %s", (int)sequence, line);
    l->kinds[r.kind]++;
    json_decref(l->of[r.kind]);
    l->of[r.kind] = json_incref(r.json);
    return merkle_leaf(line, strlen(line), &l->last, e);
}

static void read_log(struct core_fixture *f, struct log *l)
{
    SUCCEEDS(store_record_each(f->store, 0, 0, read_one, l, e));
}

static const char *text_of(const json_t *j, const char *name)
{
    const char *s = json_string_value(json_object_get(j, name));

    return s ? s : "";
}

static json_int_t number_of(const json_t *j, const char *name)
{
    const json_t *n = json_object_get(j, name);

    return json_is_integer(n) ? json_integer_value(n) : -1;
}

/* ---- somebody of whom all is known ---- */

static struct identity known_id = {.uid = 1000,
                                   .pid = 4711,
                                   .unit = (char *)(uintptr_t) "pay.service",
                                   .exe = (char *)(uintptr_t) "/opt/\xff\"pay",
                                   .login_uid = 1001,
                                   .audit_session = 7};
static const struct caller known = {.owner = "user:1000",
                                    .id = &known_id,
                                    .uid = 1000,
                                    .pid = 4711,
                                    .program = "pay \"2\"",
                                    .application = "app-1"};

static char secret_id[128];

static void log_in_by_name(struct core_fixture *f, const char *text,
                           enum code expected)
{
    struct core_login ignored;
    struct error e = {0};
    FD fd = pipe_of(text);

    assert_int_equal(expected,
                     core_login_prove(f->core, &known, NULL, NULL, fd, false,
                                      &ignored, &e));
}

static void use_logins(struct core_fixture *f)
{
    JSON fields = json_object();
    JSON out = NULL;
    FD fd = -1;
    char id[TEXT_ID_LEN + 1];

    SUCCEEDS(text_id(id, e));
    SUCCEEDS(core_login_create(f->core, &known, "batch", fields, id, &out, &fd,
                               e));
    SECRET s = NULL;
    SUCCEEDS(secret_from_fd(&s, fd, sizeof(secret_id) - 1, 1000, true, e));
    memcpy(secret_id, secret_data(s), secret_len(s));
    log_in_by_name(f, secret_id, OK);
    log_in_by_name(f, "batch.wrong", ERR_PIN_WRONG);
    SUCCEEDS(core_login_delete(f->core, &known, "batch", e));
    FD pin = pipe_of("secret-pin-1234");
    SUCCEEDS(core_login(f->core, &known, pin, false, e));
    SUCCEEDS(core_lock(f->core, &known, e));
    FD again = pipe_of("secret-pin-1234");
    SUCCEEDS(core_login(f->core, &known, again, false, e));
}

static void change_things(struct core_fixture *f)
{
    JSON policy = json_pack("{s[s] s[s] s[s]}", "subjects", "user:1", "roles",
                            "*", "capabilities", "caller");
    JSON out = NULL;
    JSON warnings = NULL;

    SUCCEEDS(core_policy_set(f->core, &known, "p", policy, &out, &warnings, e));
    SUCCEEDS(core_policy_delete(f->core, &known, "p", e));
    SUCCEEDS(role_set(f, "other", "{\"project_id\":\"proj_abc\"}", e));
    SUCCEEDS(core_role_delete(f->core, &known, NULL, "other", false, e));
    SUCCEEDS(config_set(f, "{\"rotation_period\":\"30d\"}", false, NULL, e));
    FAILS(ERR_DENIED,
          core_permit(f->core, &somebody, CAP_MINT, "default", "my-app", e));
}

static void use_a_lease(struct core_fixture *f, struct minted *m)
{
    LEASE renewed = {0};

    SUCCEEDS(role_set(f, "my-app",
                      "{\"keep_value\":true,\"ttl\":3600,\"max_ttl\":86400}",
                      e));
    assert_int_equal(OK, mint_as(f, &known, &(struct mint_request){.ttl_s = 60},
                                 m));
    SUCCEEDS(core_renew(f->core, &known, m->lease.id, 120, NULL, &renewed, e));
    SECRET value = NULL;
    SUCCEEDS(core_lease_value(f->core, &known, m->lease.id, &value, e));
    SUCCEEDS(core_revoke(f->core, &known, m->lease.id, "left", NULL, e));
}

static void check_actor(const json_t *record)
{
    const json_t *actor = json_object_get(record, "actor");

    assert_string_equal(text_of(actor, "owner"), "user:1000");
    assert_int_equal(number_of(actor, "uid"), 1000);
    assert_int_equal(number_of(actor, "pid"), 4711);
    assert_int_equal(number_of(actor, "login_uid"), 1001);
    assert_int_equal(number_of(actor, "audit_session"), 7);
    assert_string_equal(text_of(actor, "unit"), "pay.service");
    assert_string_equal(text_of(actor, "exe"), "/opt/\\xff\"pay");
    assert_string_equal(text_of(actor, "program"), "pay \"2\"");
    assert_string_equal(text_of(actor, "application"), "app-1");
    assert_null(json_object_get(actor, "login"));
    assert_null(json_object_get(actor, "borrowed"));
}

static void everything_leaves_a_record(void **state)
{
    static const enum record_kind wanted[] = {
        RECORD_START,        RECORD_KEYS,         RECORD_INIT,
        RECORD_CALL,         RECORD_OUTCOME,      RECORD_MINT,
        RECORD_RELEASE,      RECORD_RENEW,        RECORD_REVOKE,
        RECORD_DEAD,         RECORD_LOGIN,        RECORD_LOGIN_FAILED,
        RECORD_LOGOUT_ALL,   RECORD_REFUSAL,      RECORD_CONFIG,
        RECORD_ROLE,         RECORD_POLICY,       RECORD_LOGIN_CHANGE,
        RECORD_SEAL,         RECORD_STOP};
    struct core_fixture *f = *state;
    MINTED m = {.key = NULL};
    char key[64];
    LOG l = {.seq = 0};

    change_things(f);
    use_a_lease(f, &m);
    use_logins(f);
    close_core(f);
    open_core(f);
    snprintf(key, sizeof(key), "%.*s", (int)secret_len(m.key),
             (const char *)secret_data(m.key));
    l.secrets[0] = key;
    l.secrets[1] = "sk-";
    l.secrets[2] = strchr(secret_id, '.') + 1;
    l.secrets[3] = "secret-pin";
    read_log(f, &l);
    for (size_t i = 0; i < sizeof(wanted) / sizeof(wanted[0]); i++)
        if (l.kinds[wanted[i]] == 0)
            fail_msg("there is no %s", record_kind_name(wanted[i]));
    assert_int_equal(l.kinds[RECORD_START], 2);
    assert_int_equal(l.kinds[RECORD_STOP], 1);
    assert_int_equal(l.kinds[RECORD_CALL], f->fake.executed);
    assert_int_equal(l.kinds[RECORD_OUTCOME], f->fake.executed);
    assert_int_equal(l.kinds[RECORD_RELEASE], 1);
    check_actor(l.of[RECORD_MINT]);
    check_actor(l.of[RECORD_RENEW]);
    check_actor(l.of[RECORD_REVOKE]);
    check_actor(l.of[RECORD_DEAD]);
    check_actor(l.of[RECORD_RELEASE]);
    assert_string_equal(text_of(l.of[RECORD_REVOKE], "reason"), "left");
    assert_string_equal(text_of(l.of[RECORD_MINT], "lease"), m.lease.id);
    assert_string_equal(text_of(l.of[RECORD_MINT], "role"), "my-app");
    assert_string_equal(text_of(l.of[RECORD_MINT], "org"), "default");
    assert_int_equal(number_of(l.of[RECORD_MINT], "ttl"), 60);
    assert_int_equal(strlen(text_of(l.of[RECORD_MINT], "key_hmac")), 64);
    assert_string_equal(text_of(json_object_get(l.of[RECORD_START], "actor"),
                                "owner"),
                        "hsmintd");
}

/* Old and new, of what was there and what is. */
static void changes_say_what_was(void **state)
{
    struct core_fixture *f = *state;
    LOG first = {.seq = 0}, second = {.seq = 0};

    SUCCEEDS(role_set(f, "a", "{\"project_id\":\"proj_abc\",\"ttl\":60}", e));
    read_log(f, &first);
    SUCCEEDS(role_set(f, "a", "{\"ttl\":90}", e));
    read_log(f, &second);
    assert_true(json_is_null(json_object_get(first.of[RECORD_ROLE], "old")));
    assert_string_equal(text_of(first.of[RECORD_ROLE], "new"),
                        text_of(second.of[RECORD_ROLE], "old"));
    assert_string_not_equal(text_of(second.of[RECORD_ROLE], "old"),
                            text_of(second.of[RECORD_ROLE], "new"));
    JSON digest = logbook_digest(text_of(second.of[RECORD_ROLE], "document"));
    assert_string_equal(json_string_value(digest),
                        text_of(second.of[RECORD_ROLE], "new"));
    assert_string_equal(text_of(second.of[RECORD_ROLE], "action"), "set");
}

/* Nothing is sent, given or changed that the log does not hold. */
static void without_a_record_nothing_is_done(void **state)
{
    struct core_fixture *f = *state;
    MINTED kept = {.key = NULL}, none = {.key = NULL};
    SECRET value = NULL;
    LOG l = {.seq = 0};

    SUCCEEDS(role_set(f, "my-app", "{\"keep_value\":true}", e));
    assert_int_equal(OK, mint(f, &kept));
    int executed = f->fake.executed;
    atomic_store(&syncs_fail, true);
    assert_int_equal(ERR_IO, mint(f, &none));
    assert_null(none.key);
    FAILS(ERR_IO, core_lease_value(f->core, &administrator, kept.lease.id,
                                   &value, e));
    assert_null(value);
    FAILS(ERR_IO, role_set(f, "my-app", "{\"ttl\":90}", e));
    FAILS(ERR_IO, core_revoke(f->core, &administrator, kept.lease.id, NULL,
                              NULL, e));
    assert_int_equal(executed, f->fake.executed);
    assert_true(atomic_load(&syncs_failed) >= 4);
    atomic_store(&syncs_fail, false);
    SUCCEEDS(core_lease_value(f->core, &administrator, kept.lease.id, &value,
                              e));
    SUCCEEDS(core_revoke(f->core, &administrator, kept.lease.id, NULL, NULL,
                         e));
    EVENTUALLY(settled(f));
    read_log(f, &l);
    assert_int_equal(l.kinds[RECORD_MINT], 1);
    assert_int_equal(l.kinds[RECORD_RELEASE], 1);
}

static void releases_are_recorded_once(void **state)
{
    struct core_fixture *f = *state;
    struct caller other = known;
    MINTED m = {.key = NULL};
    LOG l = {.seq = 0};

    other.application = "app-2";
    SUCCEEDS(role_set(f, "my-app", "{\"keep_value\":true}", e));
    assert_int_equal(OK, mint_as(f, &known, &(struct mint_request){.ttl_s = 0},
                                 &m));
    for (int i = 0; i < 6; i++) {
        SECRET value = NULL;

        SUCCEEDS(core_lease_value(f->core, i % 2 ? &known : &other, m.lease.id,
                                  &value, e));
    }
    read_log(f, &l);
    assert_int_equal(l.kinds[RECORD_RELEASE], 2);
}

/* ---- whose is a key ---- */

static json_t *whose(struct core_fixture *f, const char *key)
{
    json_t *out = NULL;
    FD fd = pipe_of(key);

    SUCCEEDS(core_whose(f->core, fd, &out, e));
    return out;
}

static void a_leaked_key_leads_to_its_lease(void **state)
{
    struct core_fixture *f = *state;
    MINTED m = {.key = NULL}, second = {.key = NULL};
    char key[64];

    assert_int_equal(OK, mint_as(f, &known, &(struct mint_request){.ttl_s = 60},
                                 &m));
    assert_int_equal(OK, mint(f, &second));
    SUCCEEDS(core_revoke(f->core, &known, m.lease.id, NULL, NULL, e));
    snprintf(key, sizeof(key), "%.*s\n", (int)secret_len(m.key),
             (const char *)secret_data(m.key));
    JSON found = whose(f, key);
    assert_true(json_is_true(json_object_get(found, "found")));
    assert_string_equal(text_of(found, "lease_id"), m.lease.id);
    assert_non_null(strstr(text_of(found, "record"), "\"kind\":\"mint\""));
    assert_non_null(strstr(text_of(found, "record"), m.lease.id));
    assert_string_equal(text_of(json_object_get(found, "lease"), "state"),
                        "revoked");
    JSON none = whose(f, "sk-svcacct-of-somebody-else");
    assert_true(json_is_false(json_object_get(none, "found")));
    FD empty = pipe_of("\n");
    json_t *out = NULL;
    FAILS(ERR_INVALID, core_whose(f->core, empty, &out, e));
}

/* ---- bounds ---- */

static void long_texts_fit(void **state)
{
    struct core_fixture *f = *state;
    char text[9000], shown[LOGBOOK_TEXT_MAX + 1];
    struct identity id = known_id;
    struct caller by = known;
    LOG l = {.seq = 0};

    memset(text, '\x01', sizeof(text) - 1);
    text[sizeof(text) - 1] = '\0';
    id.exe = id.unit = text;
    by.id = &id;
    by.program = by.application = text;
    const struct logbook_entry r = {.kind = RECORD_RELEASE, .by = &by};
    SUCCEEDS(logbook_commit(f->core, STORE_NORMAL, &r, e));
    read_log(f, &l);
    snprintf(shown, sizeof(shown), "%s",
             text_of(json_object_get(l.of[RECORD_RELEASE], "actor"), "exe"));
    assert_in_range(strlen(shown), LOGBOOK_TEXT_MAX - 4, LOGBOOK_TEXT_MAX);
    assert_memory_equal(shown, "\\x01\\x01", 8);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, core_set_up, core_tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(everything_leaves_a_record),
        TEST(changes_say_what_was),
        TEST(without_a_record_nothing_is_done),
        TEST(releases_are_recorded_once),
        TEST(a_leaked_key_leads_to_its_lease),
        TEST(long_texts_fit),
    };
    return cmocka_run_group_tests_name("logbook", tests, NULL, NULL);
}
