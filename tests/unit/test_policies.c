/* Who may do what: decisions over real policies, what is recorded of them, and what
 * changes while everybody asks. */
#include "config.h"

#include "module/core/decide.h"
#include "tests/unit/policies_fixture.h"

#include <pthread.h>

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

int main(void)
{
    const struct CMUnitTest tests[] = {
        POLICIES_TEST(test_nothing_by_default),
        POLICIES_TEST(test_unknown_callers_are_refused),
        POLICIES_TEST(test_deny_wins),
        POLICIES_TEST(test_logins),
        POLICIES_TEST(test_roles_are_not_told),
        POLICIES_TEST(test_changes_are_recorded),
        POLICIES_TEST(test_refusals_are_bounded),
        POLICIES_TEST(test_tests_agree),
        POLICIES_TEST(test_tests_explain),
        POLICIES_TEST(test_names),
        POLICIES_TEST(test_warnings),
        POLICIES_TEST(test_sets_are_replaced_under_load),
    };

    return cmocka_run_group_tests_name("policies", tests, NULL, NULL);
}
