/* Every way that a mint can go, and what is left of it: in the end no account
 * that the store does not know. */
#include "config.h"

#include "common/log.h"
#include "tests/unit/core_fixture.h"

#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>

static void test_mint_and_revoke(void **state)
{
    struct core_fixture *f = *state;
    MINTED m = {.key = NULL};

    assert_int_equal(OK, mint(f, &m));
    assert_int_equal(LEASE_ACTIVE, m.lease.state);
    assert_int_equal(strlen("sk-svcacct-") + 32, secret_len(m.key));
    assert_true(fake_has(&f->fake, m.lease.account_id));
    assert_string_equal("key_1", m.lease.key_id);
    assert_memory_equal("vault-my-app-", m.lease.account_name, 13);
    assert_int_equal(3600 * 1000, m.lease.expires_ms - m.lease.issued_ms);
    assert_int_equal(3660 * 1000,
                     m.lease.provider_expires_ms - m.lease.issued_ms);
    assert_string_equal("https://api.openai.com/v1", m.lease.api_base);
    assert_null(m.warnings);
    SUCCEEDS(core_revoke(f->core, &administrator, m.lease.id, NULL, NULL, e));
    assert_int_equal(LEASE_REVOKED, state_of(f, m.lease.id));
    assert_true(settled(f));
    /* Again: the same answer, and no call. */
    int executed = f->fake.executed;
    SUCCEEDS(core_revoke(f->core, &administrator, m.lease.id, NULL, NULL, e));
    assert_int_equal(executed, f->fake.executed);
}

struct scan {
    int calls, outcomes;
    bool secret;
};

static enum code scan_record(int64_t sequence, const char *line, void *ctx,
                             struct error *e)
{
    struct scan *s = ctx;

    (void)sequence;
    (void)e;
    s->calls += strstr(line, "\"kind\":\"call\"") != NULL;
    s->outcomes += strstr(line, "\"kind\":\"outcome\"") != NULL;
    s->secret = s->secret || strstr(line, "sk-") != NULL;
    return OK;
}

static void test_each_call_is_recorded(void **state)
{
    struct core_fixture *f = *state;
    MINTED m = {.key = NULL};
    struct scan s = {0};

    assert_int_equal(OK, mint(f, &m));
    SUCCEEDS(core_revoke(f->core, &administrator, m.lease.id, NULL, NULL, e));
    SUCCEEDS(store_record_each(f->store, 1, 1000, scan_record, &s, e));
    assert_int_equal(f->fake.executed, s.calls);
    assert_int_equal(f->fake.executed, s.outcomes);
    assert_false(s.secret);
}

static void test_ttl(void **state)
{
    struct core_fixture *f = *state;
    MINTED m = {.key = NULL};
    int executed = f->fake.executed;

    assert_int_equal(
        ERR_TTL,
        mint_as(f, &administrator, &(struct mint_request){.ttl_s = 86401}, &m));
    assert_int_equal(ERR_TTL, mint_as(f, &administrator,
                                      &(struct mint_request){.ttl_s = -1}, &m));
    assert_int_equal(executed, f->fake.executed);
    assert_int_equal(OK, mint_as(f, &administrator,
                                 &(struct mint_request){.ttl_s = 86400}, &m));
    assert_int_equal(86460, f->fake.expires_s);
}

static void test_unknown_role(void **state)
{
    struct core_fixture *f = *state;
    MINTED m = {.key = NULL};

    assert_int_equal(ERR_ROLE_UNKNOWN,
                     mint_as(f, &administrator,
                             &(struct mint_request){.role = "other"}, &m));
    assert_int_equal(
        ERR_NOT_FOUND,
        mint_as(f, &administrator, &(struct mint_request){.org = "other"}, &m));
    assert_int_equal(
        ERR_ROLE_UNKNOWN,
        mint_as(f, &administrator, &(struct mint_request){.role = ""}, &m));
    SUCCEEDS(role_set(f, "my-app", "{\"default\":\"true\"}", e));
    assert_int_equal(
        OK, mint_as(f, &administrator, &(struct mint_request){.role = ""}, &m));
    assert_string_equal("my-app", m.lease.role);
}

/* What goes wrong, what the caller hears, and whether the lease is closed in
 * the same breath. */
static const struct {
    enum fake_fault fault;
    int status;
    enum code code;
    bool closed;
} faults[] = {
    {FAKE_DOWN, 0, ERR_SERVICE_DOWN, true},
    {FAKE_STATUS, 401, ERR_SERVICE_AUTH, true},
    {FAKE_STATUS, 403, ERR_SERVICE_FORBIDDEN, true},
    {FAKE_STATUS, 429, ERR_SERVICE_RATE, true},
    {FAKE_STATUS, 400, ERR_SERVICE_REFUSED, true},
    {FAKE_STATUS, 302, ERR_SERVICE_REFUSED, true},
    {FAKE_STATUS, 500, ERR_SERVICE_FAILED, false},
    {FAKE_UNSENT, 0, ERR_SERVICE_UNKNOWN, false},
    {FAKE_LOST, 0, ERR_SERVICE_UNKNOWN, false},
    {FAKE_LATE_500, 0, ERR_SERVICE_FAILED, false},
    {FAKE_NO_KEY, 0, ERR_SERVICE_REPLY, false},
    {FAKE_GARBAGE, 0, ERR_SERVICE_REPLY, false},
    {FAKE_DIES, 0, ERR_KEEPER, false},
};

static void test_every_fault(void **state)
{
    struct core_fixture *f = *state;

    for (size_t i = 0; i < sizeof(faults) / sizeof(faults[0]); i++) {
        MINTED m = {.key = NULL};

        f->fake.status = faults[i].status;
        fake_set(&f->fake, faults[i].fault, 1, "POST");
        assert_int_equal(faults[i].code, mint(f, &m));
        assert_true(*m.error.text);
        assert_null(m.key);
        if (faults[i].closed)
            assert_true(settled(f));
        EVENTUALLY(fake_alive(&f->fake) == 0);
        move_on(f, 100); /* beyond the window of looking for it */
        EVENTUALLY(settled(f));
        /* And the next one is fine. */
        assert_int_equal(OK, mint(f, &m));
        SUCCEEDS(
            core_revoke(f->core, &administrator, m.lease.id, NULL, NULL, e));
    }
}

/* Where the service has answered no call is under way: the lease is closed as
 * soon as a new account would show itself, not after the whole window. */
static void test_an_answered_500_is_over_soon(void **state)
{
    struct core_fixture *f = *state;
    MINTED m = {.key = NULL};

    f->fake.status = 500;
    fake_set(&f->fake, FAKE_STATUS, 1, "POST");
    assert_int_equal(ERR_SERVICE_FAILED, mint(f, &m));
    assert_int_equal(1, live(f));
    move_on(f, 16);
    EVENTUALLY(settled(f));
    /* A proxy's 502 leaves it under way. */
    f->fake.status = 502;
    fake_set(&f->fake, FAKE_STATUS, 1, "POST");
    assert_int_equal(ERR_SERVICE_FAILED, mint(f, &m));
    move_on(f, 16);
    nanosleep(&(struct timespec){.tv_nsec = 300000000}, NULL);
    assert_int_equal(1, live(f));
    move_on(f, 60);
    EVENTUALLY(settled(f));
}

static void test_retry_after_is_told(void **state)
{
    struct core_fixture *f = *state;
    MINTED m = {.key = NULL};

    f->fake.status = 429;
    fake_set(&f->fake, FAKE_STATUS, 1, "POST");
    assert_int_equal(ERR_SERVICE_RATE, mint(f, &m));
    assert_int_equal(700, m.error.retry_after_ms);
    assert_string_equal("req_1", m.error.service_request_id);
}

static enum code name_into(const struct store_lease *l, void *ctx,
                           struct error *e)
{
    (void)e;
    strcpy(ctx, l->account_name);
    return OK;
}

static void test_foreign_accounts_stay(void **state)
{
    struct core_fixture *f = *state;
    MINTED m = {.key = NULL};

    fake_add(&f->fake, "somebody-else");
    fake_set(&f->fake, FAKE_LOST, 1, "POST");
    assert_int_equal(ERR_SERVICE_UNKNOWN, mint(f, &m));
    EVENTUALLY(fake_alive(&f->fake) == 1);
    move_on(f, 100);
    EVENTUALLY(live(f) == 0);
    assert_int_equal(1, fake_alive(&f->fake));
}

static void serve_once_more(void *ctx)
{
    struct core_fixture *f = ctx;
    struct store_lease_query q = {.live_only = true};
    char name[256];

    f->fake.hook = NULL;
    SUCCEEDS(store_lease_each(f->store, &q, name_into, name, e));
    fake_add(&f->fake, name);
}

/* A proxy sends a POST twice: both accounts have the name, neither its key. */
static void test_post_served_twice(void **state)
{
    struct core_fixture *f = *state;
    MINTED m = {.key = NULL};

    f->fake.hook = serve_once_more;
    f->fake.hook_ctx = f;
    fake_set(&f->fake, FAKE_LOST, 1, "POST");
    assert_int_equal(ERR_SERVICE_UNKNOWN, mint(f, &m));
    EVENTUALLY(f->fake.deleted == 2);
    assert_int_equal(1, live(f)); /* one more could turn up */
    move_on(f, 100);
    EVENTUALLY(settled(f));
}

/* The reply of the second one came back: our own account has the name. */
static void test_name_is_taken(void **state)
{
    struct core_fixture *f = *state;
    MINTED m = {.key = NULL};

    f->fake.status = 409;
    fake_set(&f->fake, FAKE_STATUS, 1, "POST");
    assert_int_not_equal(OK, mint(f, &m));
    assert_int_equal(1, live(f));
    move_on(f, 100);
    EVENTUALLY(live(f) == 0);
}

/* A cache or a proxy that mixes replies up must not have us give away, and
 * later delete, what is somebody else's. */
static void test_reply_of_another(void **state)
{
    struct core_fixture *f = *state;
    MINTED m = {.key = NULL};
    char body[256];

    fake_add(&f->fake, "somebody-else");
    snprintf(body, sizeof(body),
             "{\"id\": \"%s\", \"name\": \"somebody-else\", \"api_key\": "
             "{\"id\": \"key_9\", \"value\": \"sk-svcacct-foreign\"}}",
             f->fake.accounts[0].id);
    f->fake.status = 200;
    f->fake.body = body;
    fake_set(&f->fake, FAKE_STATUS, 1, "POST");
    assert_int_equal(ERR_SERVICE_REPLY, mint(f, &m));
    assert_null(m.key);
    move_on(f, 100);
    EVENTUALLY(live(f) == 0);
    assert_int_equal(1, fake_alive(&f->fake));
    f->fake.body = NULL;
}

static void test_keeper_hangs(void **state)
{
    struct core_fixture *f = *state;
    MINTED m = {.key = NULL};

    f->settings.hsm_deadline_ms = 200;
    f->settings.connect_ms = f->settings.call_ms = 10;
    fake_set(&f->fake, FAKE_HANGS, 1, "POST");
    assert_int_equal(ERR_KEEPER, mint(f, &m));
    assert_int_equal(OK, mint(f, &m));
    assert_int_equal(2, f->fake.starts);
    assert_int_equal(1, fake_alive(&f->fake));
}

/* ---- the outcome cannot be written ---- */

static void fill_disk(void *ctx)
{
    struct rlimit none = {.rlim_cur = 0, .rlim_max = RLIM_INFINITY};

    (void)ctx;
    setrlimit(RLIMIT_FSIZE, &none);
}

static void free_disk(void)
{
    struct rlimit all = {RLIM_INFINITY, RLIM_INFINITY};

    setrlimit(RLIMIT_FSIZE, &all);
}

static void test_outcome_is_not_written(void **state)
{
    struct core_fixture *f = *state;
    MINTED m = {.key = NULL};

    signal(SIGXFSZ, SIG_IGN);
    f->fake.hook = fill_disk;
    enum code code = mint(f, &m);
    f->fake.hook = NULL;
    free_disk();
    assert_int_not_equal(OK, code);
    assert_null(m.key);
    assert_int_equal(1, f->fake.made);
    move_on(f, 5);
    EVENTUALLY(fake_alive(&f->fake) == 0);
    move_on(f, 100);
    EVENTUALLY(settled(f));
}

/* ---- the daemon dies in the middle ---- */

struct crash {
    int fd;
};

static void die(void *ctx)
{
    struct crash *c = ctx;

    (void)!write(c->fd, "x", 1);
    _exit(0);
}

static enum code id_into(const struct store_lease *l, void *ctx,
                         struct error *e)
{
    (void)e;
    strcpy(ctx, l->id);
    return OK;
}

static void test_crash_after_the_effect(void **state)
{
    struct core_fixture *f = *state;
    struct crash c;
    int ends[2];
    char x;

    close_core(f);
    assert_int_equal(0, pipe(ends));
    c.fd = ends[1];
    pid_t pid = fork();
    if (pid == 0) { /* its threads are its own: a daemon of its own */
        MINTED m = {.key = NULL};

        open_core(f);
        f->fake.hook = die;
        f->fake.hook_ctx = &c;
        _exit(mint(f, &m));
    }
    close(ends[1]);
    assert_int_equal(1, read(ends[0], &x, 1));
    close(ends[0]);
    assert_int_equal(pid, waitpid(pid, NULL, 0));
    open_core(f);
    assert_int_equal(1, live(f));
    /* The service that the child saw is not ours: give ours the account. */
    struct store_lease_query q = {.live_only = true};
    LEASE l = {0};
    char id[32];
    SUCCEEDS(store_lease_each(f->store, &q, id_into, id, e));
    SUCCEEDS(store_lease_get(f->store, id, &l, e));
    assert_int_equal(LEASE_PENDING, l.state);
    fake_add(&f->fake, l.account_name);
    move_on(f, 5);
    EVENTUALLY(f->fake.deleted == 1);
    move_on(f, 100);
    EVENTUALLY(settled(f));
    assert_int_equal(1, f->fake.deleted);
}

/* ---- sessions ---- */

static void test_session_ends(void **state)
{
    struct core_fixture *f = *state;
    MINTED one = {.key = NULL}, two = {.key = NULL}, free_one = {.key = NULL};
    const struct mint_request first = {.bound = true, .session = 1};
    const struct mint_request second = {.bound = true, .session = 2};

    assert_int_equal(OK, mint_as(f, &administrator, &first, &one));
    assert_int_equal(OK, mint_as(f, &administrator, &second, &two));
    assert_int_equal(OK, mint(f, &free_one));
    core_end_session(f->core, "app-1", 1);
    EVENTUALLY(fake_alive(&f->fake) == 2);
    EVENTUALLY(state_of(f, one.lease.id) == LEASE_REVOKED);
    core_end_session(f->core, "app-1", 0);
    EVENTUALLY(fake_alive(&f->fake) == 1);
    assert_int_equal(LEASE_ACTIVE, state_of(f, free_one.lease.id));
    assert_true(fake_has(&f->fake, free_one.lease.account_id));
}

static void end_it(void *ctx)
{
    core_end_session(ctx, "app-1", 7);
}

static void test_session_ends_while_minting(void **state)
{
    struct core_fixture *f = *state;
    MINTED m = {.key = NULL};

    f->fake.hook = end_it;
    f->fake.hook_ctx = f->core;
    assert_int_equal(
        ERR_DENIED,
        mint_as(f, &administrator,
                &(struct mint_request){.bound = true, .session = 7}, &m));
    f->fake.hook = NULL;
    assert_null(m.key);
    EVENTUALLY(settled(f));
}

/* ---- retries and the live one again ---- */

static void test_retry_of_a_kept_key(void **state)
{
    struct core_fixture *f = *state;
    const struct mint_request again = {.request_id = "req-1"};
    MINTED one = {.key = NULL}, two = {.key = NULL};

    SUCCEEDS(role_set(f, "my-app", "{\"keep_value\":true}", e));
    assert_int_equal(OK, mint_as(f, &administrator, &again, &one));
    assert_int_equal(OK, mint_as(f, &administrator, &again, &two));
    assert_string_equal(one.lease.id, two.lease.id);
    assert_true(secret_equal(one.key, two.key));
    assert_int_equal(1, f->fake.made);
    /* Another owner's request of that name is another one. */
    MINTED three = {.key = NULL};
    assert_int_equal(OK, mint_as(f, &neighbour, &again, &three));
    assert_string_not_equal(one.lease.id, three.lease.id);
}

static void test_retry_of_a_lost_key(void **state)
{
    struct core_fixture *f = *state;
    const struct mint_request again = {.request_id = "req-1"};
    MINTED one = {.key = NULL}, two = {.key = NULL}, three = {.key = NULL};

    assert_int_equal(OK, mint_as(f, &administrator, &again, &one));
    assert_int_equal(OK, mint_as(f, &administrator, &again, &two));
    assert_int_equal(OK, mint_as(f, &administrator, &again, &three));
    EVENTUALLY(fake_alive(&f->fake) == 1);
    assert_true(fake_has(&f->fake, three.lease.account_id));
    EVENTUALLY(live(f) == 1);
}

static void test_reuse(void **state)
{
    struct core_fixture *f = *state;
    const struct mint_request reuse = {.reuse = true};
    MINTED one = {.key = NULL}, two = {.key = NULL}, three = {.key = NULL},
           four = {.key = NULL};

    assert_int_equal(OK, mint_as(f, &administrator, &reuse, &one));
    assert_int_equal(OK, mint_as(f, &administrator, &reuse, &two));
    assert_string_equal(one.lease.id, two.lease.id);
    assert_true(secret_equal(one.key, two.key));
    assert_int_equal(OK, mint_as(f, &neighbour, &reuse, &three));
    assert_string_not_equal(one.lease.id, three.lease.id);
    move_on(f, 2000); /* more than half of its life */
    assert_int_equal(OK, mint_as(f, &administrator, &reuse, &four));
    assert_string_not_equal(one.lease.id, four.lease.id);
}

/* What the caller would get now differs from what it has. */
static void test_reuse_gives_no_other(void **state)
{
    struct core_fixture *f = *state;
    const struct mint_request reuse = {.reuse = true};
    const struct mint_request longer = {.reuse = true, .ttl_s = 7200};
    const struct mint_request shorter = {.reuse = true, .ttl_s = 60};
    MINTED one = {.key = NULL}, two = {.key = NULL}, three = {.key = NULL},
           four = {.key = NULL};

    assert_int_equal(OK, mint_as(f, &administrator, &reuse, &one));
    assert_int_equal(OK, mint_as(f, &administrator, &shorter, &two));
    assert_string_equal(one.lease.id, two.lease.id);
    assert_int_equal(OK, mint_as(f, &administrator, &longer, &three));
    assert_string_not_equal(one.lease.id, three.lease.id);
    SUCCEEDS(role_set(f, "my-app", "{\"project_id\":\"proj_2\"}", e));
    assert_int_equal(OK, mint_as(f, &administrator, &reuse, &four));
    assert_string_equal("proj_2", four.lease.project);
}

/* One key for each: in the second half of its life, too, as no other may be. */
static void test_reuse_within_a_guard(void **state)
{
    struct core_fixture *f = *state;
    const struct mint_request reuse = {.reuse = true};
    MINTED one = {.key = NULL}, two = {.key = NULL}, three = {.key = NULL};

    SUCCEEDS(role_set(f, "my-app", "{\"max_live_per_identity\":1}", e));
    assert_int_equal(OK, mint_as(f, &administrator, &reuse, &one));
    move_on(f, 2000); /* more than half of its life */
    assert_int_equal(OK, mint_as(f, &administrator, &reuse, &two));
    assert_string_equal(one.lease.id, two.lease.id);
    assert_true(secret_equal(one.key, two.key));
    move_on(f, 1597); /* too little to be of use */
    assert_int_equal(ERR_LIMIT, mint_as(f, &administrator, &reuse, &three));
}

static void *reuse_thread(void *ctx)
{
    MINTED m = {.key = NULL};
    struct core_fixture *f = ctx;

    return (void *)(intptr_t)mint_as(f, &administrator,
                                     &(struct mint_request){.reuse = true}, &m);
}

static void test_reuse_mints_once(void **state)
{
    struct core_fixture *f = *state;
    pthread_t threads[16];

    for (int i = 0; i < 16; i++)
        pthread_create(&threads[i], NULL, reuse_thread, f);
    for (int i = 0; i < 16; i++) {
        void *code;
        pthread_join(threads[i], &code);
        assert_int_equal(OK, (intptr_t)code);
    }
    assert_int_equal(1, f->fake.made);
}

static void *mint_thread(void *ctx)
{
    intptr_t failures = 0;

    for (int i = 0; i < 3; i++) {
        MINTED m = {.key = NULL};
        failures += mint(ctx, &m) != OK;
    }
    return (void *)failures;
}

static void test_many_at_once(void **state)
{
    struct core_fixture *f = *state;
    pthread_t threads[16];
    void *failures;

    for (int i = 0; i < 16; i++)
        pthread_create(&threads[i], NULL, mint_thread, f);
    for (int i = 0; i < 16; i++) {
        pthread_join(threads[i], &failures);
        assert_null(failures);
    }
    assert_int_equal(48, fake_alive(&f->fake));
    assert_int_equal(48, live(f));
    move_on(f, 3601);
    EVENTUALLY(settled(f));
}

/* ---- the service and the key's expiry ---- */

static void test_expiry_is_ignored(void **state)
{
    struct core_fixture *f = *state;
    MINTED m = {.key = NULL};
    JSON status = NULL;

    f->fake.ignores_expiry = true;
    assert_int_equal(OK, mint(f, &m));
    assert_int_equal(0, m.lease.provider_expires_ms);
    assert_int_equal(1, json_array_size(m.warnings));
    SUCCEEDS(core_status(f->core, &status, e));
    assert_int_equal(1, json_array_size(json_object_get(status, "alarms")));
}

static void test_expiry_is_refused(void **state)
{
    struct core_fixture *f = *state;
    MINTED m = {.key = NULL}, next = {.key = NULL};
    int executed = f->fake.executed;

    f->fake.refuses_expiry = true;
    assert_int_equal(OK, mint(f, &m));
    assert_int_equal(executed + 2, f->fake.executed);
    assert_int_equal(0, m.lease.provider_expires_ms);
    assert_int_equal(1, json_array_size(m.warnings));
    /* Remembered: not asked again. */
    assert_int_equal(OK, mint(f, &next));
    assert_int_equal(executed + 3, f->fake.executed);
    assert_int_equal(2, fake_alive(&f->fake));
    /* Nor after a restart, which tells it at once … */
    close_core(f);
    open_core(f);
    assert_true(
        warnings_has(&f->core->warnings, ALARM_EXPIRY_REFUSED, "default"));
    executed = f->fake.executed;
    minted_clear(&next);
    assert_int_equal(OK, mint(f, &next));
    assert_int_equal(executed + 1, f->fake.executed);
    /* … but once an hour: the service may have learnt it. */
    f->fake.refuses_expiry = false;
    move_on(f, 3601);
    minted_clear(&next);
    assert_int_equal(OK, mint(f, &next));
    assert_true(next.lease.provider_expires_ms > 0);
    assert_false(
        warnings_has(&f->core->warnings, ALARM_EXPIRY_REFUSED, "default"));
}

/* A policy that caps it demands it: that is no reason to go without. */
static void test_expiry_is_capped(void **state)
{
    struct core_fixture *f = *state;
    MINTED m = {.key = NULL};
    JSON status = NULL;

    f->fake.demands_expiry = true;
    assert_int_equal(ERR_SERVICE_REFUSED, mint(f, &m));
    assert_non_null(strstr(m.error.text, "is too long"));
    SUCCEEDS(core_status(f->core, &status, e));
    assert_int_equal(0, json_array_size(json_object_get(status, "alarms")));
    f->fake.demands_expiry = false;
    assert_int_equal(OK, mint(f, &m));
    assert_true(m.lease.provider_expires_ms > 0);
}

int main(void)
{
#define TEST(fn)                                                               \
    cmocka_unit_test_setup_teardown(fn, core_set_up, core_tear_down)
    const struct CMUnitTest tests[] = {
        TEST(test_mint_and_revoke),
        TEST(test_each_call_is_recorded),
        TEST(test_ttl),
        TEST(test_unknown_role),
        TEST(test_every_fault),
        TEST(test_an_answered_500_is_over_soon),
        TEST(test_retry_after_is_told),
        TEST(test_post_served_twice),
        TEST(test_name_is_taken),
        TEST(test_foreign_accounts_stay),
        TEST(test_reply_of_another),
        TEST(test_keeper_hangs),
        TEST(test_outcome_is_not_written),
        TEST(test_crash_after_the_effect),
        TEST(test_session_ends),
        TEST(test_session_ends_while_minting),
        TEST(test_retry_of_a_kept_key),
        TEST(test_retry_of_a_lost_key),
        TEST(test_reuse),
        TEST(test_reuse_gives_no_other),
        TEST(test_reuse_within_a_guard),
        TEST(test_reuse_mints_once),
        TEST(test_many_at_once),
        TEST(test_expiry_is_ignored),
        TEST(test_expiry_is_refused),
        TEST(test_expiry_is_capped),
    };

    log_open("test", LOG_SINK_NONE, LOG_LEVEL_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
