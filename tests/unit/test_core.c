/* Login, setup, roles, what happens to leases later, and who may do what. */
#include "config.h"

#include "common/log.h"
#include "tests/unit/core_fixture.h"

static json_t *status_of(struct core_fixture *f)
{
    json_t *j = NULL;

    SUCCEEDS(core_status(f->core, &j, e));
    return j;
}

/* ---- setup ---- */

static void test_init_once(void **state)
{
    struct core_fixture *f = *state;
    JSON out = NULL;
    JSON slots = NULL;
    JSON again = NULL;

    FAILS(ERR_EXISTS, core_init(f->core, &administrator, "default", &out, e));
    FAILS(ERR_INVALID, core_init(f->core, &administrator, "a/b", &out, e));
    SUCCEEDS(core_init(f->core, &administrator, "eu", &out, e));
    SUCCEEDS(core_slots(f->core, &slots, e));
    assert_int_equal(2, json_array_size(slots));
    assert_string_equal("hsmint-eu", json_string_value(json_object_get(
                                         json_array_get(slots, 1), "label")));
    assert_int_equal(16, json_string_length(json_object_get(
                             json_array_get(slots, 0), "serial")));
    close_core(f);
    open_core(f);
    SUCCEEDS(core_slots(f->core, &again, e));
    assert_true(json_equal(slots, again));
}

static void test_config(void **state)
{
    struct core_fixture *f = *state;
    JSON out = NULL;
    JSON person = NULL;

    SUCCEEDS(core_config_get(f->core, &somebody, NULL, &out, e));
    assert_string_equal("key_admin", json_string_value(json_object_get(
                                         out, "admin_api_key_id")));
    assert_true(json_is_true(json_object_get(out, "configured")));
    /* What is bound into the blob changes with the key only. */
    FAILS(ERR_INVALID, config_set(f, "{\"api_endpoint\":\"https://other/v1\"}",
                                  false, NULL, e));
    FAILS(ERR_INVALID, config_set(f, "{\"admin_api_key_id\":\"key_other\"}",
                                  false, NULL, e));
    FAILS(ERR_INVALID,
          config_set(f, "{\"admin_api_key_id\":\"key_other\"}", true, NULL, e));
    f->fake.person = true;
    SUCCEEDS(config_set(f, "{\"rotation_period\":\"30d\"}", true, &person, e));
    assert_int_equal(1, json_array_size(json_object_get(person, "warnings")));
}

/* Nothing is stored before the service has accepted the key. */
static void test_config_keeps_the_old_key(void **state)
{
    struct core_fixture *f = *state;
    CLEANUP(store_org_clear) struct store_org before = {0};
    CLEANUP(store_org_clear) struct store_org after = {0};
    MINTED m = {.key = NULL};

    SUCCEEDS(store_org_get(f->store, "default", &before, e));
    f->fake.status = 401;
    fake_set(&f->fake, FAKE_STATUS, 1, "GET");
    FAILS(ERR_SERVICE_AUTH, config_set(f, "{}", true, NULL, e));
    fake_set(&f->fake, FAKE_UNSENT, 1, "GET");
    FAILS(ERR_SERVICE_UNKNOWN, config_set(f, "{}", true, NULL, e));
    fake_set(&f->fake, FAKE_GARBAGE, 1, "GET");
    FAILS(ERR_SERVICE_REPLY, config_set(f, "{}", true, NULL, e));
    SUCCEEDS(store_org_get(f->store, "default", &after, e));
    assert_string_equal(before.config, after.config);
    assert_int_equal(before.admin_blob_len, after.admin_blob_len);
    assert_int_equal(OK, mint(f, &m));
}

static void test_config_delete(void **state)
{
    struct core_fixture *f = *state;
    MINTED m = {.key = NULL};
    JSON deleted = NULL;
    JSON out = NULL;

    assert_int_equal(OK, mint(f, &m));
    FAILS(ERR_EXISTS, core_config_delete(f->core, &administrator, NULL, false,
                                         &deleted, e));
    SUCCEEDS(core_revoke(f->core, &administrator, m.lease.id, NULL, NULL, e));
    SUCCEEDS(core_config_delete(f->core, &administrator, NULL, false, &deleted,
                                e));
    SUCCEEDS(core_config_get(f->core, &somebody, NULL, &out, e));
    assert_true(json_is_false(json_object_get(out, "configured")));
}

/* ---- login ---- */

static void test_locked(void **state)
{
    struct core_fixture *f = *state;
    MINTED m = {.key = NULL};
    FD pin = pipe_of("1234");

    f->fake.needs_pin = true;
    assert_false(core_locked(f->core));
    SUCCEEDS(core_lock(f->core, &administrator, e));
    assert_true(core_locked(f->core));
    assert_int_equal(ERR_LOCKED, mint(f, &m));
    SUCCEEDS(core_login(f->core, &somebody, pin, false, e));
    assert_false(core_locked(f->core));
    assert_int_equal(OK, mint(f, &m));
}

/* A keeper that died gets the PIN from the escrow. */
static void test_escrow(void **state)
{
    struct core_fixture *f = *state;
    MINTED m = {.key = NULL}, next = {.key = NULL};
    FD pin = pipe_of("1234");

    f->fake.needs_pin = true;
    SUCCEEDS(core_lock(f->core, &administrator, e));
    SUCCEEDS(core_login(f->core, &administrator, pin, false, e));
    fake_set(&f->fake, FAKE_DIES, 1, "POST");
    assert_int_equal(ERR_KEEPER, mint(f, &m));
    assert_int_equal(OK, mint(f, &next));
    assert_int_equal(2, f->fake.starts);
    EVENTUALLY(fake_alive(&f->fake) == 1);
}

static void test_hsm_is_absent(void **state)
{
    struct core_fixture *f = *state;
    MINTED m = {.key = NULL};

    close_core(f);
    f->fake.no_hsm = true;
    open_core(f); /* no failure */
    assert_int_equal(ERR_HSM_ABSENT, mint(f, &m));
    JSON s = status_of(f);
    assert_string_equal("no token", json_string_value(json_object_get(
                                        json_object_get(s, "hsm"), "error")));
    f->fake.no_hsm = false;
    move_on(f, 2);
    assert_int_equal(OK, mint(f, &m));
}

static void test_status(void **state)
{
    struct core_fixture *f = *state;
    MINTED m = {.key = NULL};

    assert_false(core_busy(f->core));
    assert_int_equal(OK, mint(f, &m));
    assert_true(core_busy(f->core));
    JSON s = status_of(f);
    assert_string_equal("user", json_string_value(json_object_get(s, "mode")));
    assert_string_equal("test-instance",
                        json_string_value(json_object_get(s, "instance")));
    assert_int_equal(1, json_integer_value(json_object_get(
                            json_object_get(s, "leases"), "active")));
    assert_int_equal(1, json_array_size(json_object_get(s, "orgs")));
    assert_int_equal(0, json_array_size(json_object_get(s, "alarms")));
}

/* ---- roles ---- */

static void test_roles(void **state)
{
    struct core_fixture *f = *state;
    JSON list = NULL;
    JSON one = NULL;
    JSON none = json_object();
    MINTED m = {.key = NULL};
    int executed = f->fake.executed;

    /* The project is known by now. */
    SUCCEEDS(role_set(f, "my-app", "{\"ttl\":60,\"default\":true}", e));
    assert_int_equal(executed, f->fake.executed);
    SUCCEEDS(
        role_set(f, "two", "{\"project_id\":\"proj_2\",\"default\":true}", e));
    assert_int_equal(executed + 1, f->fake.executed);
    SUCCEEDS(core_role_get(f->core, &somebody, NULL, "my-app", &one, e));
    assert_true(json_is_false(json_object_get(one, "default")));
    assert_string_equal(
        "My Project", json_string_value(json_object_get(one, "project_name")));
    SUCCEEDS(core_role_list(f->core, &administrator, NULL, &list, e));
    assert_int_equal(2, json_array_size(list));
    FAILS(ERR_INVALID, role_set(f, "admin-key", "{}", e));
    FAILS(ERR_INVALID,
          role_set(f, "my-app",
                   "{\"service_account_name_template\":\"{{.Nobody}}\"}", e));
    assert_int_equal(OK, mint(f, &m));
    FAILS(ERR_EXISTS,
          core_role_delete(f->core, &administrator, NULL, "my-app", false, e));
    SUCCEEDS(core_revoke(f->core, &administrator, m.lease.id, NULL, NULL, e));
    SUCCEEDS(core_role_delete(f->core, &administrator, NULL, "my-app", false, e));
    FAILS(ERR_ROLE_UNKNOWN,
          core_role_delete(f->core, &administrator, NULL, "my-app", false, e));
}

static void test_projects(void **state)
{
    struct core_fixture *f = *state;

    f->fake.project_archived = true;
    FAILS(ERR_PROJECT, role_set(f, "x", "{\"project_id\":\"proj_old\"}", e));
    f->fake.project_archived = false;
    f->fake.status = 404;
    fake_set(&f->fake, FAKE_STATUS, 1, "GET");
    FAILS(ERR_PROJECT, role_set(f, "x", "{\"project_id\":\"proj_no\"}", e));
}

/* ---- renewal ---- */

static void test_renew(void **state)
{
    struct core_fixture *f = *state;
    MINTED m = {.key = NULL};
    LEASE l = {0};
    LEASE again = {0};
    LEASE none = {0};

    assert_int_equal(OK, mint(f, &m));
    FAILS(ERR_TTL, core_renew(f->core, &administrator, m.lease.id, 90000, NULL,
                              &none, e));
    FAILS(ERR_TTL,
          core_renew(f->core, &administrator, m.lease.id, -1, NULL, &none, e));
    SUCCEEDS(
        core_renew(f->core, &administrator, m.lease.id, 7200, "r1", &l, e));
    assert_true(l.expires_ms - m.lease.expires_ms > 3590 * 1000);
    assert_true(l.provider_expires_ms >= l.expires_ms);
    /* A retry: the same answer, no call. */
    int executed = f->fake.executed;
    SUCCEEDS(
        core_renew(f->core, &administrator, m.lease.id, 7200, "r1", &again, e));
    assert_int_equal(l.expires_ms, again.expires_ms);
    assert_int_equal(executed, f->fake.executed);
    SUCCEEDS(core_revoke(f->core, &administrator, m.lease.id, NULL, NULL, e));
    FAILS(ERR_NOT_FOUND,
          core_renew(f->core, &administrator, m.lease.id, 60, NULL, &none, e));
}

/* The default is the role's ttl, and never beyond max_ttl from issue. */
static void test_renew_by_default(void **state)
{
    struct core_fixture *f = *state;
    MINTED m = {.key = NULL};
    LEASE l = {0};

    SUCCEEDS(role_set(f, "my-app", "{\"ttl\":3600,\"max_ttl\":5000}", e));
    assert_int_equal(OK, mint(f, &m));
    move_on(f, 3000);
    SUCCEEDS(core_renew(f->core, &administrator, m.lease.id, 0, NULL, &l, e));
    assert_true(l.expires_ms <= m.lease.issued_ms + 5000 * 1000);
    assert_true(l.expires_ms > m.lease.issued_ms + 4990 * 1000);
}

static void test_renew_is_refused(void **state)
{
    struct core_fixture *f = *state;
    MINTED m = {.key = NULL};
    LEASE none = {0};
    LEASE l = {0};

    assert_int_equal(OK, mint(f, &m));
    f->fake.status = 400;
    fake_set(&f->fake, FAKE_STATUS, 1, "POST");
    FAILS(ERR_SERVICE_REFUSED, core_renew(f->core, &administrator, m.lease.id,
                                          7200, NULL, &none, e));
    fake_set(&f->fake, FAKE_UNSENT, 1, "POST");
    FAILS(ERR_SERVICE_UNKNOWN, core_renew(f->core, &administrator, m.lease.id,
                                          7200, NULL, &none, e));
    SUCCEEDS(core_lease_get(f->core, &administrator, m.lease.id, &l, e));
    assert_int_equal(m.lease.expires_ms, l.expires_ms);
    assert_int_equal(LEASE_ACTIVE, l.state);
}

/* A service that expires nothing cannot hinder a renewal; it is told. */
static void test_renew_without_expiry(void **state)
{
    struct core_fixture *f = *state;
    MINTED m = {.key = NULL};
    LEASE l = {0};

    f->fake.ignores_expiry = true;
    assert_int_equal(OK, mint(f, &m));
    SUCCEEDS(
        core_renew(f->core, &administrator, m.lease.id, 7200, NULL, &l, e));
    assert_true(l.expires_ms > m.lease.expires_ms);
    assert_int_equal(0, l.provider_expires_ms);
    JSON s = status_of(f);
    assert_int_equal(1, json_array_size(json_object_get(s, "alarms")));
}

/* ---- the end ---- */

static void test_expiry(void **state)
{
    struct core_fixture *f = *state;
    MINTED m = {.key = NULL};
    LEASE l = {0};

    assert_int_equal(OK, mint(f, &m));
    move_on(f, 3599);
    nanosleep(&(struct timespec){.tv_nsec = 50000000}, NULL);
    assert_int_equal(1, fake_alive(&f->fake));
    move_on(f, 2);
    EVENTUALLY(settled(f));
    SUCCEEDS(core_lease_get(f->core, &administrator, m.lease.id, &l, e));
    assert_string_equal("expired", l.reason);
    assert_true(l.revoked_ms > 0);
}

static bool has_warning(struct core_fixture *f, const char *id)
{
    JSON s = status_of(f);
    JSON all = json_incref(json_object_get(s, "alarms"));
    json_t *w;
    size_t i;

    json_array_foreach(all, i, w)
    {
        if (strcmp(json_string_value(json_object_get(w, "id")), id) == 0)
            return true;
    }
    return false;
}

/* However long the service is away, the key goes when it is back. */
static void test_outage(void **state)
{
    static const struct {
        enum fake_fault fault;
        int status;
        enum code code;
    } rows[] = {{FAKE_DOWN, 0, ERR_SERVICE_DOWN},
                {FAKE_UNSENT, 0, ERR_SERVICE_UNKNOWN},
                {FAKE_STATUS, 429, ERR_SERVICE_RATE},
                {FAKE_STATUS, 503, ERR_SERVICE_FAILED},
                {FAKE_STATUS, 401, ERR_SERVICE_AUTH}};
    struct core_fixture *f = *state;

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        MINTED m = {.key = NULL};

        assert_int_equal(OK, mint(f, &m));
        f->fake.status = rows[i].status;
        fake_set(&f->fake, rows[i].fault, 1000000, "DELETE");
        FAILS(rows[i].code,
              core_revoke(f->core, &administrator, m.lease.id, NULL, NULL, e));
        assert_int_equal(LEASE_REVOKING, state_of(f, m.lease.id));
        move_on(f, 86400);
        EVENTUALLY(has_warning(f, "revocation-waits"));
        assert_int_equal(LEASE_REVOKING, state_of(f, m.lease.id));
        fake_set(&f->fake, FAKE_NONE, 0, NULL);
        move_on(f, 2);
        EVENTUALLY(settled(f));
        EVENTUALLY(!has_warning(f, "revocation-waits"));
    }
}

static void test_gone_is_success(void **state)
{
    struct core_fixture *f = *state;
    MINTED m = {.key = NULL};

    assert_int_equal(OK, mint(f, &m));
    f->fake.status = 404;
    f->fake.body = "{\"error\":{\"message\":\"No such account\"}}";
    fake_set(&f->fake, FAKE_STATUS, 1, "DELETE");
    move_on(f, 100);
    SUCCEEDS(core_revoke(f->core, &administrator, m.lease.id, NULL, NULL, e));
    assert_int_equal(LEASE_REVOKED, state_of(f, m.lease.id));
}

/* A new account reads 404 for a moment. */
static void test_gone_too_early(void **state)
{
    struct core_fixture *f = *state;
    MINTED m = {.key = NULL};

    assert_int_equal(OK, mint(f, &m));
    f->fake.status = 404;
    f->fake.body = "{\"error\":{\"message\":\"No such account\"}}";
    fake_set(&f->fake, FAKE_STATUS, 1, "DELETE");
    FAILS(ERR_SERVICE_UNKNOWN,
          core_revoke(f->core, &administrator, m.lease.id, NULL, NULL, e));
    assert_int_equal(LEASE_REVOKING, state_of(f, m.lease.id));
    assert_int_equal(1, fake_alive(&f->fake));
    move_on(f, 3);
    EVENTUALLY(settled(f));
}

/* A proxy's 404 says nothing of the account. */
static void test_gone_says_a_proxy(void **state)
{
    struct core_fixture *f = *state;
    MINTED m = {.key = NULL};

    assert_int_equal(OK, mint(f, &m));
    f->fake.status = 404;
    f->fake.body = "<html>Not found</html>";
    fake_set(&f->fake, FAKE_STATUS, 1, "DELETE");
    move_on(f, 100);
    FAILS(ERR_SERVICE_REPLY,
          core_revoke(f->core, &administrator, m.lease.id, NULL, NULL, e));
    assert_int_equal(LEASE_REVOKING, state_of(f, m.lease.id));
    EVENTUALLY(settled(f));
    assert_int_equal(0, fake_alive(&f->fake));
}

/* Locked: the wish is kept and carried out after the next login. */
static void test_revoke_while_locked(void **state)
{
    struct core_fixture *f = *state;
    MINTED m = {.key = NULL};

    assert_int_equal(OK, mint(f, &m));
    SUCCEEDS(core_lock(f->core, &administrator, e));
    FAILS(ERR_LOCKED,
          core_revoke(f->core, &administrator, m.lease.id, NULL, NULL, e));
    assert_int_equal(LEASE_REVOKING, state_of(f, m.lease.id));
    SUCCEEDS(core_login(f->core, &administrator, -1, false, e));
    EVENTUALLY(settled(f));
}

static void test_restart(void **state)
{
    struct core_fixture *f = *state;
    MINTED m = {.key = NULL};

    assert_int_equal(OK, mint(f, &m));
    close_core(f);
    open_core(f);
    assert_int_equal(LEASE_ACTIVE, state_of(f, m.lease.id));
    move_on(f, 3700);
    EVENTUALLY(settled(f));
}

/* ---- values, labels, rights ---- */

static void test_value(void **state)
{
    struct core_fixture *f = *state;
    MINTED m = {.key = NULL}, kept = {.key = NULL};
    SECRET value = NULL;

    assert_int_equal(OK, mint(f, &m));
    FAILS(ERR_SENSITIVE,
          core_lease_value(f->core, &administrator, m.lease.id, &value, e));
    SUCCEEDS(role_set(f, "my-app", "{\"keep_value\":true}", e));
    assert_int_equal(
        OK, mint_as(f, &neighbour, &(struct mint_request){.ttl_s = 0}, &kept));
    FAILS(ERR_DENIED,
          core_lease_value(f->core, &administrator, kept.lease.id, &value, e));
    SUCCEEDS(core_lease_value(f->core, &neighbour, kept.lease.id, &value, e));
    assert_true(secret_equal(value, kept.key));
    SUCCEEDS(core_revoke(f->core, &neighbour, kept.lease.id, NULL, NULL, e));
    FAILS(ERR_SENSITIVE,
          core_lease_value(f->core, &neighbour, kept.lease.id, &value, e));
}

static enum code count(const struct store_lease *l, void *ctx, struct error *e)
{
    (void)l;
    (void)e;
    ++*(int *)ctx;
    return OK;
}

static void test_rights(void **state)
{
    struct core_fixture *f = *state;
    MINTED m = {.key = NULL};
    LEASE l = {0};
    struct store_lease_query q = {.live_only = true};
    const char *id;
    int n = 0;

    assert_int_equal(OK, mint(f, &m));
    id = m.lease.id;
    /* Whether there is a lease is nothing that a stranger learns. */
    FAILS(ERR_NOT_FOUND, core_lease_get(f->core, &somebody, id, &l, e));
    FAILS(ERR_NOT_FOUND, core_renew(f->core, &somebody, id, 60, NULL, &l, e));
    FAILS(ERR_NOT_FOUND, core_revoke(f->core, &somebody, id, NULL, NULL, e));
    FAILS(ERR_NOT_FOUND,
          core_lease_label(f->core, &somebody, id, "x", NULL, 0, e));
    FAILS(ERR_DENIED, core_lease_each(f->core, &somebody, &q, count, &n, e));
    /* Who sees them all may still not use them. */
    FAILS(ERR_DENIED, core_renew(f->core, &neighbour, id, 60, NULL, &l, e));
    FAILS(ERR_DENIED,
          core_lease_label(f->core, &neighbour, id, "x", NULL, 0, e));
    SUCCEEDS(core_lease_each(f->core, &administrator, &q, count, &n, e));
    assert_int_equal(1, n);
    FAILS(ERR_NOT_FOUND,
          core_lease_get(f->core, &administrator, "../../x", &l, e));
    FAILS(ERR_NOT_FOUND, core_lease_get(f->core, &administrator,
                                        "01m7ystyxz25y5b3t5grqay39s", &l, e));
}

static void test_label(void **state)
{
    struct core_fixture *f = *state;
    const uint8_t cka_id[] = {1, 2, 255};
    MINTED m = {.key = NULL};
    LEASE l = {0};

    assert_int_equal(OK, mint(f, &m));
    SUCCEEDS(core_lease_label(f->core, &administrator, m.lease.id, "mine",
                              cka_id, sizeof(cka_id), e));
    SUCCEEDS(core_lease_get(f->core, &administrator, m.lease.id, &l, e));
    JSON j = core_lease_json(f->core, &l);
    assert_string_equal("mine", json_string_value(json_object_get(j, "label")));
    assert_string_equal("0102ff", json_string_value(json_object_get(j, "id")));
    assert_string_equal("default",
                        json_string_value(json_object_get(j, "org")));
    assert_int_equal(3600,
                     json_integer_value(json_object_get(j, "lease_duration")));
}

int main(void)
{
#define TEST(fn)                                                               \
    cmocka_unit_test_setup_teardown(fn, core_set_up, core_tear_down)
    const struct CMUnitTest tests[] = {
        TEST(test_init_once),
        TEST(test_config),
        TEST(test_config_keeps_the_old_key),
        TEST(test_config_delete),
        TEST(test_locked),
        TEST(test_escrow),
        TEST(test_hsm_is_absent),
        TEST(test_status),
        TEST(test_roles),
        TEST(test_projects),
        TEST(test_renew),
        TEST(test_renew_by_default),
        TEST(test_renew_is_refused),
        TEST(test_renew_without_expiry),
        TEST(test_expiry),
        TEST(test_outage),
        TEST(test_gone_is_success),
        TEST(test_gone_too_early),
        TEST(test_gone_says_a_proxy),
        TEST(test_revoke_while_locked),
        TEST(test_restart),
        TEST(test_value),
        TEST(test_rights),
        TEST(test_label),
    };

    log_open("test", LOG_SINK_NONE, LOG_LEVEL_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
