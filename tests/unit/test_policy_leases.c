/* Leases under policies: limits under load, policies that go, leases of others. */
#include "config.h"

#include "module/core/decide.h"
#include "tests/unit/policies_fixture.h"

#include <pthread.h>

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

int main(void)
{
    const struct CMUnitTest tests[] = {
        POLICIES_TEST(test_first_whose_limits_are_kept),
        POLICIES_TEST(test_renewals_keep_to_the_policy),
        POLICIES_TEST(test_reuse_keeps_to_the_policy),
        POLICIES_TEST(test_policy_goes_while_it_waits),
        POLICIES_TEST(test_live_leases_race),
        POLICIES_TEST(test_mints_per_minute),
        POLICIES_TEST(test_hours),
        POLICIES_TEST(test_policy_is_gone),
        POLICIES_TEST(test_policy_goes_while_it_mints),
        POLICIES_TEST(test_leases_of_others),
        POLICIES_TEST(test_lists),
    };

    return cmocka_run_group_tests_name("policy leases", tests, NULL, NULL);
}
