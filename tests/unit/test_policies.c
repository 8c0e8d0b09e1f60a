/* Who may do what: decisions over real policies in store and files, limits
 * under load, and what is recorded. */
#include "config.h"

#include "module/core/decide.h"
#include "tests/unit/core_fixture.h"

#include <pthread.h>

struct world {
    struct core_fixture *f;
    char dir[256]; /* policies.d */
};

static struct identity alice_id = {.uid = 1000}, bob_id = {.uid = 1001},
                       admin_id = {.uid = 1002}, batch_id = {.uid = 1000};
static const struct caller alice = {.owner = "user:1000",
                                    .id = &alice_id,
                                    .uid = 1000,
                                    .application = "app-a"};
static const struct caller bob = {
    .owner = "user:1001", .id = &bob_id, .uid = 1001, .application = "app-b"};
static const struct caller admin = {
    .owner = "user:1002", .id = &admin_id, .uid = 1002};
static const struct caller batch = {
    .owner = "login:batch", .id = &batch_id, .uid = 1000};

/* ---- the world ---- */

static int policies_set_up(void **state)
{
    struct world *w = calloc(1, sizeof(*w));
    void *fixture = NULL;

    assert_non_null(w);
    snprintf(batch_id.login, sizeof(batch_id.login), "batch");
    assert_int_equal(0, core_set_up(&fixture));
    w->f = fixture;
    make_dir(w->dir, sizeof(w->dir));
    w->f->settings.mode = MODE_SYSTEM;
    w->f->settings.policies_dir = strdup(w->dir);
    SUCCEEDS(core_reload(w->f->core, e));
    *state = w;
    return 0;
}

static int policies_tear_down(void **state)
{
    struct world *w = *state;
    void *fixture = w->f;

    remove_dir(w->dir);
    free(w);
    return core_tear_down(&fixture);
}

static enum code set_policy(struct world *w, const char *name, const char *json,
                            json_t **warnings, struct error *e)
{
    JSON fields = json_loads(json, 0, NULL);
    JSON out = NULL;
    JSON ignored = NULL;

    assert_non_null(fields);
    return core_policy_set(w->f->core, &admin, name, fields, &out,
                           warnings ? warnings : &ignored, e);
}

static void put_file(struct world *w, const char *name, const char *text,
                     mode_t mode)
{
    char path[512];
    FILE *file;

    snprintf(path, sizeof(path), "%s/%s", w->dir, name);
    file = fopen(path, "w");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
    assert_int_equal(0, chmod(path, mode));
}

static void drop_file(struct world *w, const char *name)
{
    char path[512];

    snprintf(path, sizeof(path), "%s/%s", w->dir, name);
    assert_int_equal(0, unlink(path));
}

#define ALLOW(who, what, more)                                                 \
    "{\"subjects\":[\"" who "\"],\"roles\":[\"my-app\"],\"capabilities\":["    \
    "\"" what "\"]" more "}"
#define CALLER(who) ALLOW(who, "caller", "")
#define LIMITS(limits) ",\"limits\":{" limits "}"

static enum code mint_ttl(struct world *w, const struct caller *by,
                          int64_t ttl_s, struct minted *m)
{
    return mint_as(w->f, by, &(struct mint_request){.ttl_s = ttl_s}, m);
}

static enum code mint_once(struct world *w, const struct caller *by,
                           char text[ERROR_TEXT_MAX])
{
    MINTED m = {.key = NULL};
    enum code code = mint_ttl(w, by, 0, &m);

    snprintf(text, ERROR_TEXT_MAX, "%s", m.error.text);
    return code;
}

struct records {
    const char *kind, *action; /* action NULL: any */
    int n;
    json_t *last;
};

static enum code collect(int64_t sequence, const char *line, void *ctx,
                         struct error *e)
{
    struct records *r = ctx;
    json_t *record = json_loads(line, 0, NULL);

    (void)sequence, (void)e;
    assert_non_null(record);
    const char *action = json_string_value(json_object_get(record, "action"));

    if (strcmp(json_string_value(json_object_get(record, "kind")), r->kind) ||
        (r->action && (!action || strcmp(action, r->action)))) {
        json_decref(record);
        return OK;
    }
    r->n++;
    json_decref(r->last);
    r->last = record;
    return OK;
}

/* How many there are; *last is the newest, to be given back. */
static int records(struct world *w, const char *kind, const char *action,
                   json_t **last)
{
    struct records r = {.kind = kind, .action = action};

    SUCCEEDS(store_record_each(w->f->store, 0, 0, collect, &r, e));
    if (last)
        *last = json_incref(r.last);
    json_decref(r.last);
    return r.n;
}

static const char *text_of(json_t *object, const char *name)
{
    const char *s = json_string_value(json_object_get(object, name));

    return s ? s : "";
}

/* ---- decisions ---- */

static void test_nothing_by_default(void **state)
{
    struct world *w = *state;
    JSON last = NULL;
    char text[ERROR_TEXT_MAX];

    for (unsigned cap = 0; cap < CAPABILITIES; cap++) {
        FAILS(ERR_DENIED, core_permit(w->f->core, &alice, cap, "default",
                                      "my-app", e));
        assert_false(core_may(w->f->core, &admin, CAPABILITY_BIT(cap), NULL,
                              NULL));
        move_on(w->f, 1);
    }
    assert_int_equal(ERR_DENIED, mint_once(w, &alice, text));
    assert_non_null(strstr(text, "no policy is about user:1000"));
    assert_int_equal(CAPABILITIES + 1, records(w, "refusal", NULL, &last));
    assert_string_equal("Denied", text_of(last, "code"));
    assert_string_equal("my-app", text_of(last, "role"));
    assert_string_equal("mint", json_string_value(json_array_get(
                                    json_object_get(last, "capability"), 0)));
    assert_non_null(strstr(text_of(last, "reason"), "no policy"));
    /* Not even root, nor the daemon's own uid. */
    w->f->core->uid = 1000;
    assert_int_equal(ERR_DENIED, mint_once(w, &alice, text));
    assert_int_equal(0, w->f->fake.made);
}

static void test_unknown_callers_are_refused(void **state)
{
    struct world *w = *state;
    static const struct caller nobody = {.owner = "user:1000", .uid = 1000};

    SUCCEEDS(set_policy(w, "all", CALLER("user:*"), NULL, e));
    FAILS(ERR_DENIED,
          core_permit(w->f->core, &nobody, CAP_MINT, "default", "my-app", e));
    SUCCEEDS(
        core_permit(w->f->core, &alice, CAP_MINT, "default", "my-app", e));
}

static void test_deny_wins(void **state)
{
    struct world *w = *state;
    char text[ERROR_TEXT_MAX];

    SUCCEEDS(set_policy(w, "b-allow", CALLER("user:*"), NULL, e));
    assert_int_equal(OK, mint_once(w, &alice, text));
    SUCCEEDS(set_policy(w, "z-deny",
                        "{\"effect\":\"deny\",\"subjects\":[\"user:1000\"],"
                        "\"roles\":[\"my-*\"],\"capabilities\":[\"mint\"]}",
                        NULL, e));
    assert_int_equal(ERR_DENIED, mint_once(w, &alice, text));
    assert_non_null(strstr(text, "policy z-deny denies it"));
    assert_int_equal(OK, mint_once(w, &bob, text));
    SUCCEEDS(core_policy_delete(w->f->core, &admin, "z-deny", e));
    assert_int_equal(OK, mint_once(w, &alice, text));
}

/* A login grants alone, and has leases of its own. */
static void test_logins(void **state)
{
    struct world *w = *state;
    char text[ERROR_TEXT_MAX];

    SUCCEEDS(set_policy(w, "alice", CALLER("user:1000"), NULL, e));
    assert_int_equal(OK, mint_once(w, &alice, text));
    assert_int_equal(ERR_DENIED, mint_once(w, &batch, text));
    SUCCEEDS(set_policy(w, "batch", CALLER("login:batch"), NULL, e));
    assert_int_equal(OK, mint_once(w, &batch, text));
}

static void test_roles_are_not_told(void **state)
{
    struct world *w = *state;
    JSON roles = NULL;
    MINTED m = {.key = NULL}, n = {.key = NULL};

    SUCCEEDS(role_set(w->f, "other", "{\"project_id\":\"proj_abc\"}", e));
    SUCCEEDS(set_policy(w, "alice", CALLER("user:1000"), NULL, e));
    SUCCEEDS(core_role_list(w->f->core, &alice, NULL, &roles, e));
    assert_int_equal(1, json_array_size(roles));
    assert_string_equal("my-app", text_of(json_array_get(roles, 0), "name"));
    /* One that is there and one that is not answer alike. */
    assert_int_equal(ERR_DENIED,
                     mint_as(w->f, &alice,
                             &(struct mint_request){.role = "other"}, &m));
    assert_int_equal(ERR_DENIED,
                     mint_as(w->f, &alice,
                             &(struct mint_request){.role = "othex"}, &n));
    json_decref(roles);
    roles = NULL;
    SUCCEEDS(core_role_list(w->f->core, &bob, NULL, &roles, e));
    assert_int_equal(0, json_array_size(roles));
}

/* ---- limits ---- */

static void test_first_whose_limits_are_kept(void **state)
{
    struct world *w = *state;
    MINTED a = {.key = NULL}, b = {.key = NULL}, c = {.key = NULL};

    SUCCEEDS(set_policy(
        w, "a", ALLOW("user:1000", "mint", LIMITS("\"max_ttl\":\"10m\"")), NULL,
        e));
    assert_int_equal(ERR_TTL, mint_ttl(w, &alice, 1800, &a));
    assert_non_null(strstr(a.error.text, "policy a allows a life of at most"));
    SUCCEEDS(set_policy(
        w, "b", ALLOW("user:1000", "mint", LIMITS("\"max_ttl\":\"1h\"")), NULL,
        e));
    assert_int_equal(OK, mint_ttl(w, &alice, 1800, &b));
    assert_int_equal(3600 * 1000,
                     b.lease.max_expires_ms - b.lease.issued_ms);
    /* Who names no ttl gets what the first allows. */
    assert_int_equal(OK, mint_ttl(w, &alice, 0, &c));
    assert_int_equal(600 * 1000, c.lease.expires_ms - c.lease.issued_ms);
}

static void test_renewals_keep_to_the_policy(void **state)
{
    struct world *w = *state;
    MINTED m = {.key = NULL};
    LEASE l = {0}, k = {0};

    SUCCEEDS(set_policy(w, "a", CALLER("user:1000"), NULL, e));
    assert_int_equal(OK, mint_ttl(w, &alice, 1200, &m));
    SUCCEEDS(set_policy(
        w, "a", ALLOW("user:1000", "caller", LIMITS("\"max_ttl\":\"30m\"")),
        NULL, e));
    move_on(w->f, 600);
    FAILS(ERR_TTL,
          core_renew(w->f->core, &alice, m.lease.id, 1201, NULL, &l, e));
    SUCCEEDS(core_renew(w->f->core, &alice, m.lease.id, 1190, NULL, &l, e));
    SUCCEEDS(core_renew(w->f->core, &alice, m.lease.id, 0, NULL, &k, e));
    assert_true(k.expires_ms <= m.lease.issued_ms + 1800 * 1000);
    assert_true(k.expires_ms >= m.lease.issued_ms + 1795 * 1000);
}

/* A key that is there is given again only to who may have one like it now. */
static void test_reuse_keeps_to_the_policy(void **state)
{
    struct world *w = *state;
    const struct mint_request ask = {.reuse = true};
    MINTED one = {.key = NULL}, two = {.key = NULL}, other = {.key = NULL},
           shorter = {.key = NULL}, none = {.key = NULL};

    SUCCEEDS(set_policy(w, "all", CALLER("user:*"), NULL, e));
    assert_int_equal(OK, mint_as(w->f, &alice, &ask, &one));
    assert_int_equal(OK, mint_as(w->f, &alice, &ask, &two));
    assert_string_equal(one.lease.id, two.lease.id);
    assert_int_equal(OK, mint_as(w->f, &bob, &ask, &other));
    assert_string_not_equal(one.lease.id, other.lease.id);
    SUCCEEDS(set_policy(
        w, "all", ALLOW("user:*", "caller", LIMITS("\"max_ttl\":\"10m\"")),
        NULL, e));
    assert_int_equal(OK, mint_as(w->f, &alice, &ask, &shorter));
    assert_string_not_equal(one.lease.id, shorter.lease.id);
    assert_true(shorter.lease.expires_ms - shorter.lease.issued_ms <= 600000);
    SUCCEEDS(core_policy_delete(w->f->core, &admin, "all", e));
    assert_int_equal(ERR_DENIED, mint_as(w->f, &alice, &ask, &none));
    assert_null(none.key);
    assert_int_equal(3, w->f->fake.made);
}

struct waiting {
    struct world *w;
    pthread_t thread;
    enum code code;
};

static void *wait_for_a_key(void *arg)
{
    struct waiting *x = arg;
    MINTED m = {.key = NULL};

    x->code =
        mint_as(x->w->f, &alice, &(struct mint_request){.reuse = true}, &m);
    assert_true(x->code ? !m.key : m.key != NULL);
    return NULL;
}

static void take_policy_away(void *ctx)
{
    struct waiting *x = ctx;

    x->w->f->fake.hook = NULL;
    assert_int_equal(0,
                     pthread_create(&x->thread, NULL, wait_for_a_key, x));
    nanosleep(&(struct timespec){.tv_nsec = 200 * 1000000}, NULL);
    SUCCEEDS(core_policy_delete(x->w->f->core, &admin, "all", e));
}

/* While the first one mints, the others wait for its key. */
static void test_policy_goes_while_it_waits(void **state)
{
    struct waiting x = {.w = *state};
    MINTED m = {.key = NULL};

    SUCCEEDS(set_policy(x.w, "all", CALLER("user:*"), NULL, e));
    x.w->f->fake.hook_ctx = &x;
    x.w->f->fake.hook = take_policy_away;
    assert_int_equal(OK, mint_as(x.w->f, &alice,
                                 &(struct mint_request){.reuse = true}, &m));
    assert_int_equal(0, pthread_join(x.thread, NULL));
    assert_int_equal(ERR_DENIED, x.code);
    assert_int_equal(1, x.w->f->fake.made);
}

struct racing {
    struct world *w;
    atomic_int made, limited, other;
};

static void *race(void *ctx)
{
    struct racing *r = ctx;
    char text[ERROR_TEXT_MAX];
    enum code code = mint_once(r->w, &alice, text);

    if (code == OK)
        r->made++;
    else if (code == ERR_LIMIT)
        r->limited++;
    else
        r->other++;
    return NULL;
}

#define RACERS 50

static void test_live_leases_race(void **state)
{
    struct world *w = *state;
    struct racing r = {.w = w};
    pthread_t threads[RACERS];
    char text[ERROR_TEXT_MAX];

    SUCCEEDS(set_policy(
        w, "a", ALLOW("user:*", "mint", LIMITS("\"live_leases\":10")), NULL,
        e));
    assert_int_equal(OK, mint_once(w, &bob, text)); /* is not counted */
    for (int i = 0; i < RACERS; i++)
        assert_int_equal(0, pthread_create(&threads[i], NULL, race, &r));
    for (int i = 0; i < RACERS; i++)
        pthread_join(threads[i], NULL);
    assert_int_equal(0, r.other);
    assert_int_equal(10, r.made);
    assert_int_equal(RACERS - 10, r.limited);
    assert_int_equal(11, live(w->f));
    assert_int_equal(11, w->f->fake.made);
    assert_int_equal(ERR_LIMIT, mint_once(w, &alice, text));
    assert_non_null(strstr(text, "allows 10 live leases, and 10 live"));
    assert_true(records(w, "refusal", NULL, NULL) > 0);
}

static void test_mints_per_minute(void **state)
{
    struct world *w = *state;
    char text[ERROR_TEXT_MAX];

    SUCCEEDS(set_policy(
        w, "a", ALLOW("user:*", "caller", LIMITS("\"mints_per_minute\":3")),
        NULL, e));
    for (int i = 0; i < 3; i++) {
        MINTED m = {.key = NULL};

        assert_int_equal(OK, mint_ttl(w, &alice, 0, &m));
        SUCCEEDS(core_revoke(w->f->core, &alice, m.lease.id, NULL, NULL, e));
    }
    assert_int_equal(ERR_LIMIT, mint_once(w, &alice, text));
    assert_non_null(strstr(text, "3 mints a minute, and there were 3"));
    /* A restart forgets nothing. */
    close_core(w->f);
    open_core(w->f);
    assert_int_equal(ERR_LIMIT, mint_once(w, &alice, text));
    assert_int_equal(OK, mint_once(w, &bob, text));
    move_on(w->f, 61);
    assert_int_equal(OK, mint_once(w, &alice, text));
}

static void test_hours(void **state)
{
    struct world *w = *state;
    int64_t minutes = clock_wall_ms() / 60000 % 1440;
    int begin = (int)((minutes + 120) % 1440), end = (begin + 60) % 1440;
    char json[256], text[ERROR_TEXT_MAX];

    snprintf(json, sizeof(json),
             "{\"subjects\":[\"user:1000\"],\"roles\":[\"*\"],"
             "\"capabilities\":[\"mint\"],\"limits\":{\"hours\":[\"daily "
             "%02d:%02d-%02d:%02d\"]}}",
             begin / 60, begin % 60, end / 60, end % 60);
    SUCCEEDS(set_policy(w, "a", json, NULL, e));
    assert_int_equal(ERR_LIMIT, mint_once(w, &alice, text));
    assert_non_null(strstr(text, "other hours"));
    move_on(w->f, 150 * 60);
    assert_int_equal(OK, mint_once(w, &alice, text));
    move_on(w->f, 60 * 60);
    assert_int_equal(ERR_LIMIT, mint_once(w, &alice, text));
}

/* ---- leases of those whose policy is gone ---- */

static void test_policy_is_gone(void **state)
{
    struct world *w = *state;
    struct mint_request asked = {.request_id = "01m7ystyxz25y5b3t5grqay39s"};
    struct mint_request reuse = {.reuse = true};
    MINTED m = {.key = NULL}, n = {.key = NULL}, k = {.key = NULL};
    LEASE l = {0};
    SECRET value = NULL;

    SUCCEEDS(role_set(w->f, "my-app", "{\"keep_value\":true}", e));
    SUCCEEDS(set_policy(w, "a", CALLER("user:1000"), NULL, e));
    assert_int_equal(OK, mint_as(w->f, &alice, &asked, &m));
    SUCCEEDS(core_lease_value(w->f->core, &alice, m.lease.id, &value, e));
    SUCCEEDS(core_policy_delete(w->f->core, &admin, "a", e));
    FAILS(ERR_DENIED,
          core_renew(w->f->core, &alice, m.lease.id, 60, NULL, &l, e));
    FAILS(ERR_DENIED,
          core_lease_value(w->f->core, &alice, m.lease.id, &value, e));
    FAILS(ERR_DENIED,
          core_revoke(w->f->core, &alice, m.lease.id, NULL, NULL, e));
    FAILS(ERR_DENIED, core_lease_get(w->f->core, &alice, m.lease.id, &l, e));
    FAILS(ERR_DENIED,
          core_lease_label(w->f->core, &alice, m.lease.id, "x", NULL, 0, e));
    /* Neither by what was answered before. */
    assert_int_equal(ERR_DENIED, mint_as(w->f, &alice, &asked, &n));
    assert_int_equal(ERR_DENIED, mint_as(w->f, &alice, &reuse, &k));
    assert_int_equal(LEASE_ACTIVE, state_of(w->f, m.lease.id));
    move_on(w->f, 24 * 3600 + 60);
    EVENTUALLY(settled(w->f));
}

static struct world *hooked;

static void drop_policy(void *ctx)
{
    (void)ctx;
    SUCCEEDS(core_policy_delete(hooked->f->core, &admin, "a", e));
}

/* A mint that has begun ends; the next one is refused. */
static void test_policy_goes_while_it_mints(void **state)
{
    struct world *w = *state;
    char text[ERROR_TEXT_MAX];

    SUCCEEDS(set_policy(w, "a", CALLER("user:1000"), NULL, e));
    hooked = w;
    w->f->fake.hook = drop_policy;
    assert_int_equal(OK, mint_once(w, &alice, text));
    w->f->fake.hook = NULL;
    assert_int_equal(ERR_DENIED, mint_once(w, &alice, text));
    assert_int_equal(1, live(w->f));
}

/* ---- others' leases ---- */

static enum code count(const struct store_lease *l, void *ctx, struct error *e)
{
    (void)l, (void)e;
    ++*(int *)ctx;
    return OK;
}

static void test_leases_of_others(void **state)
{
    struct world *w = *state;
    MINTED m = {.key = NULL};
    LEASE l = {0};
    struct error there = {0}, absent = {0};
    const char *none = "01m7ystyxz25y5b3t5grqay39s";
    char *at;

    SUCCEEDS(set_policy(w, "a", CALLER("user:1000"), NULL, e));
    SUCCEEDS(set_policy(w, "b", CALLER("user:1001"), NULL, e));
    assert_int_equal(OK, mint_ttl(w, &alice, 0, &m));
    /* One that is another's and one that there is not read alike. */
    assert_int_equal(ERR_NOT_FOUND, core_lease_get(w->f->core, &bob, m.lease.id,
                                                   &l, &there));
    assert_int_equal(ERR_NOT_FOUND,
                     core_lease_get(w->f->core, &bob, none, &l, &absent));
    at = strstr(there.text, m.lease.id);
    assert_non_null(at);
    memcpy(at, none, strlen(none));
    assert_string_equal(absent.text, there.text);
    FAILS(ERR_NOT_FOUND,
          core_revoke(w->f->core, &bob, m.lease.id, NULL, NULL, e));
    assert_true(records(w, "refusal", NULL, NULL) >= 2);
    /* An operator sees it and ends it, and uses it not. */
    SUCCEEDS(set_policy(w, "b", ALLOW("user:1001", "operator", ""), NULL, e));
    SUCCEEDS(core_lease_get(w->f->core, &bob, m.lease.id, &l, e));
    FAILS(ERR_DENIED, core_lease_value(w->f->core, &bob, m.lease.id,
                                       &(struct secret *){NULL}, e));
    store_lease_clear(&l);
    FAILS(ERR_DENIED,
          core_renew(w->f->core, &bob, m.lease.id, 60, NULL, &l, e));
    SUCCEEDS(core_revoke(w->f->core, &bob, m.lease.id, NULL, NULL, e));
    EVENTUALLY(settled(w->f));
}

static int listed(struct world *w, const struct caller *by, bool all,
                  enum code expected)
{
    struct store_lease_query q = {.live_only = true, .limit = 3};
    int n = 0;

    if (!all)
        q.owner = by->owner;
    assert_int_equal(expected,
                     core_lease_each(w->f->core, by, &q, count, &n, NULL));
    return n;
}

static void test_lists(void **state)
{
    struct world *w = *state;
    struct minted m[6];

    memset(m, 0, sizeof(m));
    SUCCEEDS(role_set(w->f, "other", "{\"project_id\":\"proj_abc\"}", e));
    SUCCEEDS(set_policy(w, "a",
                        "{\"subjects\":[\"user:1000\"],\"roles\":[\"*\"],"
                        "\"capabilities\":[\"caller\"]}",
                        NULL, e));
    for (int i = 0; i < 6; i++)
        assert_int_equal(
            OK,
            mint_as(w->f, &alice,
                    &(struct mint_request){.role = i < 4 ? "other" : NULL},
                    &m[i]));
    for (int i = 0; i < 6; i++)
        minted_clear(&m[i]);
    assert_int_equal(3, listed(w, &alice, false, OK)); /* the limit */
    assert_int_equal(0, listed(w, &alice, true, ERR_DENIED));
    assert_int_equal(0, listed(w, &bob, false, ERR_DENIED));
    /* What may not be seen does not count against the limit. */
    SUCCEEDS(set_policy(w, "a", CALLER("user:1000"), NULL, e));
    assert_int_equal(2, listed(w, &alice, false, OK));
    SUCCEEDS(set_policy(w, "b",
                        "{\"subjects\":[\"user:1001\"],\"roles\":[\"other\"],"
                        "\"capabilities\":[\"list-any\"]}",
                        NULL, e));
    assert_int_equal(3, listed(w, &bob, true, OK));
    assert_int_equal(0, listed(w, &bob, false, OK)); /* it has none */
}

/* ---- files ---- */

static bool alarmed(struct world *w, char text[512])
{
    JSON list = warnings_json(&w->f->core->warnings);
    size_t i;
    json_t *one;

    json_array_foreach(list, i, one)
    {
        if (strcmp(text_of(one, "id"), "policy-files") == 0) {
            snprintf(text, 512, "%s", text_of(one, "text"));
            return true;
        }
    }
    return false;
}

static void test_files(void **state)
{
    struct world *w = *state;
    char text[ERROR_TEXT_MAX];
    struct error why = {0};
    JSON got = NULL;
    JSON record = NULL;

    SUCCEEDS(set_policy(w, "pay", CALLER("user:1001"), NULL, e));
    put_file(w, "pay.json", CALLER("user:1000"), 0644);
    put_file(w, "README", "not a policy", 0644);
    put_file(w, ".hidden.json", "not a policy", 0644);
    assert_int_equal(OK, mint_once(w, &bob, text)); /* not read yet */
    SUCCEEDS(core_reload(w->f->core, e));
    assert_int_equal(OK, mint_once(w, &alice, text));
    assert_int_equal(ERR_DENIED, mint_once(w, &bob, text)); /* the file wins */
    SUCCEEDS(core_policy_get(w->f->core, "pay", &got, e));
    assert_string_equal("file", text_of(got, "source"));
    assert_int_equal(ERR_EXISTS,
                     set_policy(w, "pay", CALLER("user:1001"), NULL, &why));
    assert_non_null(strstr(why.text, "pay.json"));
    FAILS(ERR_EXISTS, core_policy_delete(w->f->core, &admin, "pay", e));
    assert_true(records(w, "policy", "reload", &record) >= 2);
    assert_int_equal(44, strlen(text_of(json_object_get(record, "files"),
                                        "pay")));
    drop_file(w, "pay.json");
    SUCCEEDS(core_reload(w->f->core, e));
    assert_int_equal(OK, mint_once(w, &bob, text));
}

static void test_wrong_files_at_reload(void **state)
{
    static const struct {
        const char *name, *text;
        mode_t mode;
        const char *says;
    } wrong[] = {
        {"x.json", "{\n  \"subjects\": [\"user:a\"],\n  \"rols\": []\n}", 0644,
         "x.json:3:3: rols: there is no such member"},
        {"x.json", "{\n \"subjects\": [\"user:a\",\n  \"user:0\"]}", 0644,
         "x.json:3:3: subjects[1]"},
        {"x.json", "{\n \"subjects\": }", 0644, "x.json:2:"},
        {"x.json", "{\"subjects\":[\"user:a\"],\"subjects\":[]}", 0644,
         "comes twice"},
        {"x.json", "", 0644, "x.json"},
        {"x.json", CALLER("user:*"), 0664, "x.json"},
        {"x.json", CALLER("user:*"), 0666, "x.json"},
        {"a b.json", CALLER("user:*"), 0644, "no name of a policy"},
    };
    struct world *w = *state;
    char text[ERROR_TEXT_MAX], alarm[512];

    put_file(w, "a.json", CALLER("user:1000"), 0600);
    SUCCEEDS(core_reload(w->f->core, e));
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        struct error why = {0};

        put_file(w, wrong[i].name, wrong[i].text, wrong[i].mode);
        assert_int_not_equal(OK, core_reload(w->f->core, &why));
        if (!strstr(why.text, wrong[i].says))
            fail_msg("%s: %s", wrong[i].says, why.text);
        assert_true(alarmed(w, alarm));
        assert_non_null(strstr(alarm, wrong[i].says));
        drop_file(w, wrong[i].name);
        /* The old set stays, and what the store has can still change. */
        assert_int_equal(OK, mint_once(w, &alice, text));
        assert_int_equal(ERR_DENIED, mint_once(w, &bob, text));
    }
    SUCCEEDS(set_policy(w, "b", CALLER("user:1001"), NULL, e));
    assert_int_equal(OK, mint_once(w, &bob, text));
    SUCCEEDS(core_reload(w->f->core, e));
    assert_false(alarmed(w, alarm));
}

static void test_folders_that_others_may_write(void **state)
{
    struct world *w = *state;

    put_file(w, "a.json", CALLER("user:1000"), 0600);
    assert_int_equal(0, chmod(w->dir, 0777));
    FAILS(ERR_DENIED, core_reload(w->f->core, e));
    assert_int_equal(0, chmod(w->dir, 0755));
    SUCCEEDS(core_reload(w->f->core, e));
}

static void test_wrong_files_at_start(void **state)
{
    struct world *w = *state;
    MINTED m = {.key = NULL};
    char text[ERROR_TEXT_MAX], alarm[512];

    SUCCEEDS(set_policy(w, "a", CALLER("user:1000"), NULL, e));
    assert_int_equal(OK, mint_ttl(w, &alice, 60, &m));
    put_file(w, "deny.json", "{", 0644);
    close_core(w->f);
    open_core(w->f);
    assert_true(alarmed(w, alarm));
    assert_int_equal(ERR_DENIED, mint_once(w, &alice, text));
    assert_non_null(strstr(text, "policy-files"));
    /* Leases end on time all the same. */
    move_on(w->f, 61);
    EVENTUALLY(settled(w->f));
    /* Setting one opens nothing: what the file denies is not known. */
    SUCCEEDS(set_policy(w, "b", CALLER("user:1000"), NULL, e));
    assert_int_equal(ERR_DENIED, mint_once(w, &alice, text));
    drop_file(w, "deny.json");
    SUCCEEDS(core_reload(w->f->core, e));
    assert_int_equal(OK, mint_once(w, &alice, text));
    assert_false(alarmed(w, alarm));
}

static enum code put_garbage(struct store_tx *tx, void *ctx, struct error *e)
{
    (void)ctx;
    return store_document_put(tx, POLICIES_KIND, "bad", "{\"x\":1}", 1, e);
}

/* A stored one that this version does not understand may have been a deny. A
 * file of its name mends it. */
static void test_wrong_documents(void **state)
{
    struct world *w = *state;
    char text[ERROR_TEXT_MAX], alarm[512];

    SUCCEEDS(set_policy(w, "a", CALLER("user:1000"), NULL, e));
    SUCCEEDS(store_commit(w->f->store, STORE_NORMAL, put_garbage, NULL, e));
    close_core(w->f);
    open_core(w->f);
    assert_int_equal(ERR_DENIED, mint_once(w, &alice, text));
    assert_true(alarmed(w, alarm));
    assert_non_null(strstr(alarm, "stored policy bad"));
    put_file(w, "bad.json", CALLER("user:1001"), 0644);
    SUCCEEDS(core_reload(w->f->core, e));
    assert_int_equal(OK, mint_once(w, &alice, text));
}

/* ---- records ---- */

static void test_changes_are_recorded(void **state)
{
    struct world *w = *state;
    JSON first = NULL;
    JSON second = NULL;
    JSON gone = NULL;

    SUCCEEDS(set_policy(w, "a", CALLER("user:1000"), NULL, e));
    assert_int_equal(1, records(w, "policy", "set", &first));
    assert_true(json_is_null(json_object_get(first, "old")));
    SUCCEEDS(set_policy(w, "a", CALLER("user:1001"), NULL, e));
    assert_int_equal(2, records(w, "policy", "set", &second));
    assert_string_equal(text_of(first, "new"), text_of(second, "old"));
    assert_int_equal(44, strlen(text_of(second, "new")));
    assert_string_equal("user:1002", text_of(json_object_get(second, "actor"),
                                             "owner"));
    assert_non_null(strstr(text_of(second, "document"), "user:1001"));
    SUCCEEDS(core_policy_delete(w->f->core, &admin, "a", e));
    assert_int_equal(1, records(w, "policy", "delete", &gone));
    assert_string_equal(text_of(second, "new"), text_of(gone, "old"));
    FAILS(ERR_NOT_FOUND, core_policy_delete(w->f->core, &admin, "a", e));
}

/* One who is refused again and again fills no store; what was left out is
 * counted. */
static void test_refusals_are_bounded(void **state)
{
    struct world *w = *state;
    JSON last = NULL;
    int n;

    for (int i = 0; i < 500; i++)
        FAILS(ERR_DENIED,
              core_permit(w->f->core, &alice, CAP_STATUS, NULL, NULL, e));
    n = records(w, "refusal", NULL, NULL);
    assert_in_range(n, 1, 40);
    /* Others are recorded all the same. */
    FAILS(ERR_DENIED,
          core_permit(w->f->core, &bob, CAP_STATUS, NULL, NULL, e));
    assert_int_equal(n + 1, records(w, "refusal", NULL, NULL));
    move_on(w->f, 2);
    FAILS(ERR_DENIED,
          core_permit(w->f->core, &alice, CAP_STATUS, NULL, NULL, e));
    assert_int_equal(n + 2, records(w, "refusal", NULL, &last));
    assert_int_equal(500 - n,
                     json_integer_value(json_object_get(last, "omitted")));
    /* What was left out at the end is counted, too. */
    for (int i = 0; i < 20; i++)
        FAILS(ERR_DENIED,
              core_permit(w->f->core, &alice, CAP_STATUS, NULL, NULL, e));
    close_core(w->f);
    open_core(w->f);
    json_decref(last);
    last = NULL;
    n = records(w, "refusal", NULL, &last);
    assert_true(
        json_integer_value(json_object_get(last, "omitted_others")) > 0);
}

/* ---- asking without doing ---- */

static json_t *test_as(struct world *w, const char *who, const char *role,
                       const char *capability, int64_t ttl_s)
{
    JSON fields = json_loads(who, 0, NULL);
    struct policy_test t = {
        .who = fields, .role = role, .capability = capability, .ttl_s = ttl_s};
    json_t *out = NULL;

    assert_non_null(fields);
    SUCCEEDS(core_policy_test(w->f->core, &t, &out, e));
    return out;
}

static void compare(struct world *w, const char *who, const struct caller *by)
{
    JSON verdicts = test_as(w, who, NULL, NULL, 0);
    size_t i;
    json_t *v;

    assert_int_equal(7 * 2 + 4, json_array_size(verdicts));
    json_array_foreach(verdicts, i, v)
    {
        enum capability cap = CAPABILITIES;
        const char *role = text_of(v, "role");
        bool may;

        SUCCEEDS(capability_parse(text_of(v, "capability"), &cap, e));
        may = core_may(w->f->core, by, CAPABILITY_BIT(cap), "default",
                       *role ? role : NULL);
        if (may != json_is_true(json_object_get(v, "allowed")))
            fail_msg("%s: %s %s: %s", who, capability_name(cap), role,
                     text_of(v, "reason"));
        assert_true(*text_of(v, "reason"));
    }
}

static void test_tests_agree(void **state)
{
    struct world *w = *state;

    SUCCEEDS(role_set(w->f, "other", "{\"project_id\":\"proj_abc\"}", e));
    SUCCEEDS(set_policy(w, "a", CALLER("user:1000"), NULL, e));
    SUCCEEDS(set_policy(w, "b",
                        "{\"effect\":\"deny\",\"subjects\":[\"user:1000\"],"
                        "\"roles\":[\"*\"],\"capabilities\":[\"read\"]}",
                        NULL, e));
    SUCCEEDS(set_policy(w, "c",
                        "{\"subjects\":[\"login:b*\"],\"roles\":[\"other\"],"
                        "\"capabilities\":[\"operator\",\"audit\"]}",
                        NULL, e));
    SUCCEEDS(set_policy(w, "d",
                        "{\"subjects\":[\"user:1002\"],"
                        "\"capabilities\":[\"administrator\"]}",
                        NULL, e));
    compare(w, "{\"user\":\"1000\"}", &alice);
    compare(w, "{\"user\":\"1001\"}", &bob);
    compare(w, "{\"user\":\"1002\"}", &admin);
    compare(w, "{\"user\":\"1000\",\"login\":\"batch\"}", &batch);
}

static void test_tests_explain(void **state)
{
    struct world *w = *state;
    JSON v = NULL;
    JSON later = NULL;
    struct error why = {0};
    JSON wrong = json_loads("{\"users\":\"x\"}", 0, NULL);
    struct policy_test bad = {.who = wrong};
    json_t *one, *out = NULL;
    char text[ERROR_TEXT_MAX];

    SUCCEEDS(set_policy(
        w, "a",
        ALLOW("user:1000", "mint",
              LIMITS("\"max_ttl\":\"10m\",\"live_leases\":1")),
        NULL, e));
    SUCCEEDS(set_policy(w, "b", CALLER("user:1001"), NULL, e));
    v = test_as(w, "{\"user\":\"1000\"}", "my-app", "mint", 1800);
    assert_int_equal(1, json_array_size(v));
    one = json_array_get(v, 0);
    assert_false(json_is_true(json_object_get(one, "allowed")));
    assert_string_equal("a", text_of(one, "policy"));
    assert_int_equal(2, json_array_size(json_object_get(one, "considered")));
    one = json_array_get(json_object_get(one, "considered"), 0);
    assert_string_equal("limit", text_of(one, "result"));
    /* It counts what there is, and makes nothing. */
    assert_int_equal(0, live(w->f));
    assert_int_equal(OK, mint_once(w, &alice, text));
    later = test_as(w, "{\"user\":\"1000\"}", "my-app", "mint", 60);
    assert_non_null(
        strstr(text_of(json_array_get(later, 0), "reason"), "1 live leases"));
    assert_int_equal(ERR_INVALID,
                     core_policy_test(w->f->core, &bad, &out, &why));
    assert_non_null(strstr(why.text, "who.users"));
}

/* Names of the host: daemon is uid 1 on every Debian. */
static void test_names(void **state)
{
    struct world *w = *state;
    struct identity id = {.uid = 1};
    const struct caller daemon = {.owner = "user:1", .id = &id, .uid = 1};
    JSON me = NULL;
    JSON warnings = NULL;
    JSON v = NULL;

    SUCCEEDS(set_policy(w, "a", CALLER("user:daemon"), &warnings, e));
    assert_int_equal(1, json_array_size(warnings)); /* nobody administers */
    assert_true(core_may(w->f->core, &daemon, CAPABILITY_BIT(CAP_MINT),
                         "default", "my-app"));
    assert_false(core_may(w->f->core, &alice, CAPABILITY_BIT(CAP_MINT),
                          "default", "my-app"));
    v = test_as(w, "{\"user\":\"daemon\"}", "my-app", "mint", 0);
    assert_true(
        json_is_true(json_object_get(json_array_get(v, 0), "allowed")));
    SUCCEEDS(core_whoami(w->f->core, &daemon, &me, e));
    assert_string_equal("user:daemon", json_string_value(json_array_get(
                                           json_object_get(me, "subjects"), 0)));
    assert_int_equal(5, json_array_size(json_object_get(me, "capabilities")));
    id.borrowed = true;
    assert_false(core_may(w->f->core, &daemon, CAPABILITY_BIT(CAP_MINT),
                          "default", "my-app"));
}

static bool warns(json_t *warnings, const char *part)
{
    size_t i;
    json_t *one;

    json_array_foreach(warnings, i, one)
    {
        if (strstr(json_string_value(one), part))
            return true;
    }
    return false;
}

static void test_warnings(void **state)
{
    struct world *w = *state;
    JSON a = NULL;
    JSON all = NULL;
    JSON list = NULL;

    SUCCEEDS(set_policy(w, "a",
                        "{\"subjects\":[\"group:no-such-group\",\"user:1000\"],"
                        "\"roles\":[\"no-such-*\",\"my-app\"],"
                        "\"capabilities\":[\"caller\",\"administer\"]}",
                        &a, e));
    assert_true(warns(a, "there is no group no-such-group"));
    assert_true(warns(a, "no role is called no-such-*"));
    assert_int_equal(2, json_array_size(a));
    SUCCEEDS(set_policy(w, "b",
                        "{\"subjects\":[\"user:1000\"],"
                        "\"capabilities\":[\"auditor\"]}",
                        NULL, e));
    SUCCEEDS(set_policy(w, "c", CALLER("user:1001"), NULL, e));
    SUCCEEDS(set_policy(w, "d",
                        "{\"effect\":\"deny\",\"subjects\":[\"user:*\"],"
                        "\"roles\":[\"*\"],\"capabilities\":[\"caller\"]}",
                        NULL, e));
    SUCCEEDS(core_policy_list(w->f->core, &list, &all, e));
    assert_int_equal(4, json_array_size(list));
    assert_true(warns(all, "user:1000 may both administer (policy a)"));
    assert_true(warns(all, "policy c allows nothing: policy d"));
    assert_false(warns(all, "policy a allows nothing"));
}

/* Policies change while everybody asks. */
struct churn {
    struct world *w;
    atomic_bool stop;
    atomic_int asked;
};

static void *ask_on(void *ctx)
{
    struct churn *c = ctx;

    while (!c->stop) {
        (void)core_may(c->w->f->core, &alice, CAPABILITY_ALL, "default",
                       "my-app");
        c->asked++;
    }
    return NULL;
}

static void test_sets_are_replaced_under_load(void **state)
{
    struct world *w = *state;
    struct churn c = {.w = w};
    pthread_t threads[4];

    for (int i = 0; i < 4; i++)
        assert_int_equal(0, pthread_create(&threads[i], NULL, ask_on, &c));
    for (int i = 0; i < 50; i++) {
        SUCCEEDS(set_policy(w, "a", CALLER("user:daemon"), NULL, e));
        SUCCEEDS(core_reload(w->f->core, e));
        SUCCEEDS(core_policy_delete(w->f->core, &admin, "a", e));
    }
    c.stop = true;
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    assert_true(c.asked > 0);
}

#define TEST(name)                                                             \
    cmocka_unit_test_setup_teardown(name, policies_set_up, policies_tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_nothing_by_default),
        TEST(test_unknown_callers_are_refused),
        TEST(test_deny_wins),
        TEST(test_logins),
        TEST(test_roles_are_not_told),
        TEST(test_first_whose_limits_are_kept),
        TEST(test_renewals_keep_to_the_policy),
        TEST(test_reuse_keeps_to_the_policy),
        TEST(test_policy_goes_while_it_waits),
        TEST(test_live_leases_race),
        TEST(test_mints_per_minute),
        TEST(test_hours),
        TEST(test_policy_is_gone),
        TEST(test_policy_goes_while_it_mints),
        TEST(test_leases_of_others),
        TEST(test_lists),
        TEST(test_files),
        TEST(test_wrong_files_at_reload),
        TEST(test_folders_that_others_may_write),
        TEST(test_wrong_files_at_start),
        TEST(test_wrong_documents),
        TEST(test_changes_are_recorded),
        TEST(test_refusals_are_bounded),
        TEST(test_tests_agree),
        TEST(test_tests_explain),
        TEST(test_names),
        TEST(test_warnings),
        TEST(test_sets_are_replaced_under_load),
    };

    return cmocka_run_group_tests_name("policies", tests, NULL, NULL);
}
