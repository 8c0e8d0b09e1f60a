/* Leases that are given again: who mints, who holds, who ends them; and how
 * much a role gives away. */
#include "config.h"

#include "tests/unit/core_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const struct caller app_a = {
    .owner = "user:1000", .uid = 1000, .application = "app-a"};
static const struct caller app_b = {
    .owner = "user:1000", .uid = 1000, .application = "app-b"};
static const struct mint_request ask = {.ttl_s = 0};

static void reuse_on(struct core_fixture *f)
{
    SUCCEEDS(role_set(f, "my-app", "{\"reuse\":true}", e));
}

/* ---- reuse ---- */

static void test_one_key_for_all_calls(void **state)
{
    struct core_fixture *f = *state;
    MINTED first = {.key = NULL};

    reuse_on(f);
    assert_int_equal(OK, mint_as(f, &app_a, &ask, &first));
    for (int i = 0; i < 100; i++) {
        MINTED m = {.key = NULL};

        assert_int_equal(OK, mint_as(f, i % 2 ? &app_a : &app_b, &ask, &m));
        assert_string_equal(first.lease.id, m.lease.id);
        assert_true(secret_equal(first.key, m.key));
    }
    assert_int_equal(1, f->fake.made);
}

enum { THREADS = 32 };
struct worker {
    pthread_t thread;
    struct core_fixture *f;
    const struct caller *by;
    enum code code;
};

static void *mint_once(void *arg)
{
    struct worker *w = arg;
    MINTED m = {.key = NULL};

    w->code = mint_as(w->f, w->by, &ask, &m);
    return NULL;
}

static int mint_at_once(struct core_fixture *f)
{
    struct worker w[THREADS];
    int good = 0;

    for (int i = 0; i < THREADS; i++) {
        w[i] = (struct worker){.f = f, .by = i % 2 ? &app_a : &app_b};
        assert_int_equal(0, pthread_create(&w[i].thread, NULL, mint_once, &w[i]));
    }
    for (int i = 0; i < THREADS; i++) {
        pthread_join(w[i].thread, NULL);
        assert_true(w[i].code == OK || w[i].code == ERR_LIMIT);
        good += w[i].code == OK;
    }
    return good;
}

static void test_at_once(void **state)
{
    struct core_fixture *f = *state;

    reuse_on(f);
    assert_int_equal(THREADS, mint_at_once(f));
    assert_int_equal(1, f->fake.made);
}

static void test_refreshed_at_half_its_life(void **state)
{
    struct core_fixture *f = *state;
    MINTED one = {.key = NULL}, two = {.key = NULL}, three = {.key = NULL};

    reuse_on(f);
    assert_int_equal(OK, mint_as(f, &app_a, &ask, &one));
    move_on(f, 1700);
    assert_int_equal(OK, mint_as(f, &app_a, &ask, &two));
    assert_string_equal(one.lease.id, two.lease.id);
    move_on(f, 200);
    assert_int_equal(OK, mint_as(f, &app_a, &ask, &three));
    assert_string_not_equal(one.lease.id, three.lease.id);
    /* Whoever has the old one goes on with it. */
    assert_int_equal(LEASE_ACTIVE, state_of(f, one.lease.id));
}

static void test_never_of_others(void **state)
{
    struct core_fixture *f = *state;
    MINTED mine = {.key = NULL}, theirs = {.key = NULL}, bound = {.key = NULL};

    reuse_on(f);
    assert_int_equal(OK, mint_as(f, &app_a, &ask, &mine));
    assert_int_equal(OK, mint_as(f, &neighbour, &ask, &theirs));
    assert_string_not_equal(mine.lease.id, theirs.lease.id);
    /* What dies with a session is nobody else's. */
    const struct mint_request session = {.bound = true, .session = 1};
    assert_int_equal(OK, mint_as(f, &app_a, &session, &bound));
    assert_string_not_equal(mine.lease.id, bound.lease.id);
    assert_false(bound.lease.reusable);
    assert_int_equal(3, f->fake.made);
}

/* ---- holders ---- */

static void revoke_by(struct core_fixture *f, const struct caller *by,
                      const char *id)
{
    SUCCEEDS(core_revoke(f->core, by, id, NULL, NULL, e));
}

static void test_the_last_holder_revokes(void **state)
{
    struct core_fixture *f = *state;
    MINTED a = {.key = NULL}, b = {.key = NULL};

    reuse_on(f);
    assert_int_equal(OK, mint_as(f, &app_a, &ask, &a));
    assert_int_equal(OK, mint_as(f, &app_a, &ask, &b)); /* twice is once */
    minted_clear(&b);
    assert_int_equal(OK, mint_as(f, &app_b, &ask, &b));
    revoke_by(f, &app_a, a.lease.id);
    assert_int_equal(LEASE_ACTIVE, state_of(f, a.lease.id));
    assert_int_equal(1, fake_alive(&f->fake));
    revoke_by(f, &app_b, a.lease.id);
    assert_int_equal(LEASE_REVOKED, state_of(f, a.lease.id));
    assert_int_equal(0, fake_alive(&f->fake));
    /* The next one gets a new key. */
    minted_clear(&b);
    assert_int_equal(OK, mint_as(f, &app_a, &ask, &b));
    assert_string_not_equal(a.lease.id, b.lease.id);
}

/* Who never had it means what he says: the command line, an operator. */
static void test_others_revoke_at_once(void **state)
{
    struct core_fixture *f = *state;
    MINTED a = {.key = NULL}, b = {.key = NULL};

    reuse_on(f);
    assert_int_equal(OK, mint_as(f, &app_a, &ask, &a));
    assert_int_equal(OK, mint_as(f, &app_b, &ask, &b));
    revoke_by(f, &administrator, a.lease.id);
    assert_int_equal(LEASE_REVOKED, state_of(f, a.lease.id));
}

static enum code seen(const char *application, const char *owner, void *ctx,
                      struct error *e)
{
    (void)application, (void)owner, (void)e;
    *(bool *)ctx = true;
    return OK;
}

static bool holds(struct core_fixture *f, const char *application)
{
    bool found = false;

    SUCCEEDS(store_holder_each(f->store, application, seen, &found, e));
    return found;
}

/* An application that ends lets go of what it held, and does not end it. */
static void test_holders_end(void **state)
{
    struct core_fixture *f = *state;
    MINTED a = {.key = NULL}, b = {.key = NULL};

    reuse_on(f);
    assert_int_equal(OK, mint_as(f, &app_a, &ask, &a));
    assert_int_equal(OK, mint_as(f, &app_b, &ask, &b));
    assert_true(holds(f, "app-a"));
    core_end_session(f->core, "app-a", 0);
    EVENTUALLY(!holds(f, "app-a"));
    assert_int_equal(LEASE_ACTIVE, state_of(f, a.lease.id));
    /* What is left is the last one's. */
    close_core(f);
    open_core(f);
    assert_true(holds(f, "app-b"));
    revoke_by(f, &app_b, a.lease.id);
    assert_int_equal(LEASE_REVOKED, state_of(f, a.lease.id));
}

/* `hsmint key` of a role that does not say reuse: as before. */
static void test_a_helper_is_no_holder(void **state)
{
    struct core_fixture *f = *state;
    const struct mint_request key = {.reuse = true};
    MINTED a = {.key = NULL}, b = {.key = NULL};

    assert_int_equal(OK, mint_as(f, &app_a, &key, &a));
    assert_int_equal(OK, mint_as(f, &app_b, &key, &b));
    assert_string_equal(a.lease.id, b.lease.id);
    assert_false(holds(f, "app-a"));
    revoke_by(f, &app_a, a.lease.id);
    assert_int_equal(LEASE_REVOKED, state_of(f, a.lease.id));
}

/* ---- guards ---- */

/* The number that follows the text, if any. */
static long refused(struct core_fixture *f, const struct caller *by,
                    const char *field)
{
    int executed = f->fake.executed;
    MINTED m = {.key = NULL};

    assert_int_equal(ERR_LIMIT, mint_as(f, by, &ask, &m));
    const char *at = strstr(m.error.text, field);
    if (!at)
        fail_msg("no %s in: %s", field, m.error.text);
    assert_int_equal(executed, f->fake.executed);
    return at ? strtol(at + strlen(field), NULL, 10) : 0;
}

static void test_live_leases(void **state)
{
    struct core_fixture *f = *state;
    struct minted m[4] = {{.key = NULL}};

    SUCCEEDS(role_set(f, "my-app",
                      "{\"max_live\":3,\"max_live_per_identity\":2}", e));
    assert_int_equal(OK, mint_as(f, &app_a, &ask, &m[0]));
    assert_int_equal(OK, mint_as(f, &app_b, &ask, &m[1]));
    refused(f, &app_a, "max_live_per_identity allows (2): revoke what");
    assert_int_equal(OK, mint_as(f, &neighbour, &ask, &m[2]));
    refused(f, &neighbour, "max_live allows (3)");
    revoke_by(f, &app_a, m[0].lease.id);
    assert_int_equal(OK, mint_as(f, &app_a, &ask, &m[3]));
    for (int i = 0; i < 4; i++)
        minted_clear(&m[i]);
}

static void test_mints_a_minute(void **state)
{
    struct core_fixture *f = *state;
    struct minted m[4] = {{.key = NULL}};

    SUCCEEDS(role_set(f, "my-app",
                      "{\"max_mints_per_minute\":3,"
                      "\"max_mints_per_minute_per_identity\":2}",
                      e));
    assert_int_equal(OK, mint_as(f, &app_a, &ask, &m[0]));
    revoke_by(f, &app_a, m[0].lease.id); /* a dead one counts */
    move_on(f, 20);
    assert_int_equal(OK, mint_as(f, &app_a, &ask, &m[1]));
    refused(f, &app_a, "max_mints_per_minute_per_identity allows (2)");
    assert_int_equal(OK, mint_as(f, &neighbour, &ask, &m[2]));
    /* 40 s are left, without those that went by in truth. */
    assert_in_range(refused(f, &neighbour,
                            "max_mints_per_minute allows (3): try again in "),
                    20, 41);
    move_on(f, 41);
    assert_int_equal(OK, mint_as(f, &app_a, &ask, &m[3]));
    for (int i = 0; i < 4; i++)
        minted_clear(&m[i]);
}

/* Counted in the transaction: of many at once no more get through. */
static void test_no_race(void **state)
{
    struct core_fixture *f = *state;

    SUCCEEDS(role_set(f, "my-app", "{\"max_live\":5}", e));
    assert_int_equal(5, mint_at_once(f));
    assert_int_equal(5, f->fake.made);
    assert_int_equal(5, live(f));
}

/* The same caller's live lease is none more. */
static void test_reuse_is_no_mint(void **state)
{
    struct core_fixture *f = *state;
    MINTED a = {.key = NULL}, b = {.key = NULL};

    SUCCEEDS(role_set(f, "my-app",
                      "{\"reuse\":true,\"max_live\":1,"
                      "\"max_mints_per_minute\":1}",
                      e));
    assert_int_equal(OK, mint_as(f, &app_a, &ask, &a));
    assert_int_equal(OK, mint_as(f, &app_b, &ask, &b));
    assert_string_equal(a.lease.id, b.lease.id);
}

static void delete_role(void *ctx)
{
    struct core_fixture *f = ctx;

    f->fake.hook = NULL;
    FAILS(ERR_EXISTS,
          core_role_delete(f->core, &administrator, NULL, "my-app", false, e));
}

/* While a mint is under way its lease is there: the role stays. */
static void test_role_deleted_meanwhile(void **state)
{
    struct core_fixture *f = *state;
    MINTED m = {.key = NULL};

    f->fake.hook = delete_role;
    f->fake.hook_ctx = f;
    assert_int_equal(OK, mint(f, &m));
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, core_set_up, core_tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_one_key_for_all_calls),
        TEST(test_at_once),
        TEST(test_refreshed_at_half_its_life),
        TEST(test_never_of_others),
        TEST(test_the_last_holder_revokes),
        TEST(test_others_revoke_at_once),
        TEST(test_holders_end),
        TEST(test_a_helper_is_no_holder),
        TEST(test_live_leases),
        TEST(test_mints_a_minute),
        TEST(test_no_race),
        TEST(test_reuse_is_no_mint),
        TEST(test_role_deleted_meanwhile),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
