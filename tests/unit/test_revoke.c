/* Many leases at once: by filter, with their role or configuration, all. */
#include "config.h"

#include "module/core/revoke_all.h"
#include "tests/unit/core_fixture.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static void mint_in(struct core_fixture *f, const struct caller *by,
                    const char *role, char id[32])
{
    MINTED m = {.key = NULL};

    assert_int_equal(
        OK, mint_as(f, by, &(struct mint_request){.role = role}, &m));
    if (id)
        strcpy(id, m.lease.id);
}

static void two_roles(struct core_fixture *f)
{
    SUCCEEDS(role_set(f, "my-api", "{\"project_id\":\"proj_abc\"}", e));
    mint_in(f, &administrator, "my-app", NULL);
    mint_in(f, &administrator, "my-app", NULL);
    mint_in(f, &neighbour, "my-app", NULL);
    mint_in(f, &administrator, "my-api", NULL);
}

static void many(struct core_fixture *f, struct revoke_filter filter, int n)
{
    struct revoke_counts counts;

    filter.dry_run = true;
    SUCCEEDS(core_revoke_many(f->core, &administrator, &filter, &counts, e));
    assert_int_equal(n, counts.matched);
    assert_int_equal(0, counts.revoked + counts.waiting);
    filter.dry_run = false;
    int64_t before = live(f);
    SUCCEEDS(core_revoke_many(f->core, &administrator, &filter, &counts, e));
    assert_int_equal(n, counts.matched);
    assert_int_equal(n, counts.revoked);
    assert_int_equal(0, counts.waiting);
    assert_int_equal(before - n, live(f));
    assert_int_equal(live(f), fake_alive(&f->fake));
}

static void test_filters(void **state)
{
    struct core_fixture *f = *state;
    struct revoke_counts n;
    char id[32], prefix[64];

    two_roles(f);
    FAILS(ERR_INVALID, core_revoke_many(f->core, &administrator,
                                        &(struct revoke_filter){.dry_run = true},
                                        &n, e));
    many(f, (struct revoke_filter){.role = "none"}, 0);
    many(f, (struct revoke_filter){.project = "proj_other"}, 0);
    many(f, (struct revoke_filter){.prefix = "my-app/0000"}, 0);
    many(f, (struct revoke_filter){.owner = neighbour.owner}, 1);
    many(f, (struct revoke_filter){.role = "my-api"}, 1);
    mint_in(f, &administrator, "my-api", id);
    snprintf(prefix, sizeof(prefix), "my-api/%s", id);
    many(f, (struct revoke_filter){.prefix = prefix}, 1);
    many(f, (struct revoke_filter){.prefix = "my-a", .role = "my-app"}, 2);
    mint_in(f, &administrator, "my-api", NULL);
    mint_in(f, &administrator, "my-app", NULL);
    many(f, (struct revoke_filter){.prefix = "my-", .project = "proj_abc"}, 2);
    assert_true(settled(f));
}

static void test_role_with_leases(void **state)
{
    struct core_fixture *f = *state;

    two_roles(f);
    FAILS(ERR_EXISTS,
          core_role_delete(f->core, &administrator, NULL, "my-app", false, e));
    SUCCEEDS(core_role_delete(f->core, &administrator, NULL, "my-app", true, e));
    assert_int_equal(1, live(f));
    FAILS(ERR_ROLE_UNKNOWN,
          core_role_delete(f->core, &administrator, NULL, "my-app", true, e));
}

static void test_configuration_with_leases(void **state)
{
    struct core_fixture *f = *state;
    JSON deleted = NULL;
    JSON out = NULL;

    two_roles(f);
    FAILS(ERR_EXISTS, core_config_delete(f->core, &administrator, NULL, false,
                                         &deleted, e));
    SUCCEEDS(core_config_delete(f->core, &administrator, NULL, true, &deleted,
                                e));
    assert_true(settled(f));
    SUCCEEDS(core_config_get(f->core, &administrator, NULL, &out, e));
    assert_false(json_is_true(json_object_get(out, "configured")));
    mint_in(f, &administrator, "my-app", NULL); /* not halted any more */
}

/* ---- all ---- */

static json_t *status(struct core_fixture *f)
{
    json_t *job = NULL;

    SUCCEEDS(core_revoke_all_status(f->core, &job, e));
    return job;
}

static bool is(struct core_fixture *f, const char *state)
{
    JSON job = status(f);

    return strcmp(json_string_value(json_object_get(job, "state")), state) == 0;
}

static int64_t number(json_t *job, const char *name)
{
    return json_integer_value(json_object_get(job, name));
}

static void begin(struct core_fixture *f)
{
    JSON job = NULL;

    SUCCEEDS(core_revoke_all(f->core, &administrator, "a leak", false, &job, e));
}

static void test_all(void **state)
{
    struct core_fixture *f = *state;
    JSON dry = NULL;
    JSON none = NULL;

    FAILS(ERR_NOT_FOUND, core_revoke_all_status(f->core, &none, e));
    two_roles(f);
    SUCCEEDS(core_revoke_all(f->core, &administrator, "drill", true, &dry, e));
    assert_int_equal(4, number(dry, "leases"));
    assert_int_equal(4, live(f));
    begin(f);
    EVENTUALLY(is(f, "done"));
    JSON job = status(f);
    assert_int_equal(4, number(job, "leases"));
    assert_int_equal(4, number(job, "dead"));
    assert_int_equal(4, number(job, "proven"));
    assert_true(settled(f));
    /* Then life goes on, and it can be done again. */
    mint_in(f, &administrator, "my-app", NULL);
    begin(f);
    EVENTUALLY(is(f, "done"));
    assert_true(settled(f));
}

/* A daemon that is ended in the middle goes on where it is started anew. */
static void test_all_is_resumed(void **state)
{
    struct core_fixture *f = *state;
    MINTED m = {.key = NULL};

    two_roles(f);
    fake_set(&f->fake, FAKE_DOWN, 1000, "DELETE");
    begin(f);
    EVENTUALLY(is(f, "revoking"));
    assert_int_equal(ERR_LIMIT, mint(f, &m));
    assert_non_null(strstr(m.error.text, "revoke-all is under way"));
    close_core(f);
    open_core(f);
    assert_int_equal(ERR_LIMIT, mint(f, &m));
    begin(f); /* is the one that runs */
    fake_set(&f->fake, FAKE_NONE, 0, NULL);
    move_on(f, 60);
    EVENTUALLY(is(f, "done"));
    JSON job = status(f);
    assert_int_equal(4, number(job, "proven"));
    assert_true(settled(f));
    assert_int_equal(OK, mint(f, &m));
}

/* The service said that it deleted it, and lists it all the same. */
static void test_all_is_proven(void **state)
{
    struct core_fixture *f = *state;
    char id[32];
    LEASE l = {0};

    mint_in(f, &administrator, "my-app", id);
    move_on(f, 100); /* a 404 is believed */
    f->fake.status = 404;
    f->fake.body = "{\"error\":{\"message\":\"No such account\"}}";
    fake_set(&f->fake, FAKE_STATUS, 2, "DELETE");
    begin(f);
    EVENTUALLY(is(f, "done"));
    assert_true(settled(f));
    assert_true(f->fake.deleted == 1);
    SUCCEEDS(store_lease_get(f->store, id, &l, e));
    assert_string_equal("revoke-all", l.reason);
}

static void test_nothing_to_do(void **state)
{
    struct core_fixture *f = *state;

    begin(f);
    EVENTUALLY(is(f, "done"));
}

#define TEST(fn) cmocka_unit_test_setup_teardown(fn, core_set_up, core_tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(test_filters),
        TEST(test_role_with_leases),
        TEST(test_configuration_with_leases),
        TEST(test_all),
        TEST(test_all_is_resumed),
        TEST(test_all_is_proven),
        TEST(test_nothing_to_do),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
