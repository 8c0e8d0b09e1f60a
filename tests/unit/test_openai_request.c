/* Requests: the table says method, path and body of each. */
#include "config.h"

#include "module/openai/openai.h"

#include <jansson.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct openai_request r;
static struct error e;

static void expect(const char *method, const char *path, const char *body)
{
    assert_string_equal(r.method, method);
    assert_string_equal(r.path, path);
    if (body)
        assert_string_equal(r.body, body);
    else
        assert_null(r.body);
    openai_request_clear(&r);
    assert_null(r.path);
}

#define GOOD(call) assert_int_equal((call), OK)
#define BAD(call, code)                                                        \
    do {                                                                       \
        memset(&e, 0, sizeof e);                                               \
        assert_int_equal((call), (code));                                      \
        assert_string_not_equal(e.text, "");                                   \
        assert_null(r.path);                                                   \
        assert_null(r.body);                                                   \
    } while (0)

#define P "/organization/projects"

static void projects(void **state)
{
    (void)state;
    GOOD(openai_project_get(&r, "proj_a", &e));
    expect("GET", P "/proj_a", NULL);
    GOOD(openai_project_list(&r, NULL, false, &e));
    expect("GET", P "?limit=100", NULL);
    GOOD(openai_project_list(&r, "proj_z", true, &e));
    expect("GET", P "?limit=100&include_archived=true&after=proj_z", NULL);
    GOOD(openai_project_create(&r, "my \"app\"", &e));
    expect("POST", P, "{\"name\":\"my \\\"app\\\"\"}");
    GOOD(openai_project_update(&r, "proj_a", "n", &e));
    expect("POST", P "/proj_a", "{\"name\":\"n\"}");
    GOOD(openai_project_archive(&r, "proj_a", &e));
    expect("POST", P "/proj_a/archive", NULL);
}

static void accounts(void **state)
{
    (void)state;
    GOOD(openai_account_create(&r, "proj_a", "lease-1", 600, &e));
    expect("POST", P "/proj_a/service_accounts",
           "{\"name\":\"lease-1\",\"expires_in_seconds\":600}");
    GOOD(openai_account_create(&r, "proj_a", "lease-1", 0, &e));
    expect("POST", P "/proj_a/service_accounts", "{\"name\":\"lease-1\"}");
    GOOD(openai_account_get(&r, "proj_a", "svc_1", &e));
    expect("GET", P "/proj_a/service_accounts/svc_1", NULL);
    GOOD(openai_account_list(&r, "proj_a", NULL, &e));
    expect("GET", P "/proj_a/service_accounts?limit=100", NULL);
    GOOD(openai_account_update(&r, "proj_a", "svc_1", "n", NULL, &e));
    expect("POST", P "/proj_a/service_accounts/svc_1", "{\"name\":\"n\"}");
    GOOD(openai_account_update(&r, "proj_a", "svc_1", NULL, "member", &e));
    expect("POST", P "/proj_a/service_accounts/svc_1", "{\"role\":\"member\"}");
    GOOD(openai_account_delete(&r, "proj_a", "svc_1", &e));
    expect("DELETE", P "/proj_a/service_accounts/svc_1", NULL);
    GOOD(openai_account_key_create(&r, "proj_a", "svc_1", "k", 60, &e));
    expect("POST", P "/proj_a/service_accounts/svc_1/api_keys",
           "{\"name\":\"k\",\"expires_in_seconds\":60}");
    GOOD(openai_account_key_create(&r, "proj_a", "svc_1", NULL, 0, &e));
    expect("POST", P "/proj_a/service_accounts/svc_1/api_keys", "{}");
}

static void keys(void **state)
{
    (void)state;
    GOOD(openai_project_key_list(&r, "proj_a", "key_9", &e));
    expect("GET",
           P "/proj_a/api_keys?limit=100&owner_project_access=any&after=key_9",
           NULL);
    GOOD(openai_project_key_get(&r, "proj_a", "key_1", &e));
    expect("GET", P "/proj_a/api_keys/key_1", NULL);
    GOOD(openai_project_key_update(&r, "proj_a", "key_1", 900, &e));
    expect("POST", P "/proj_a/api_keys/key_1", "{\"expires_in_seconds\":900}");
    GOOD(openai_project_key_delete(&r, "proj_a", "key_1", &e));
    expect("DELETE", P "/proj_a/api_keys/key_1", NULL);
    GOOD(openai_admin_key_list(&r, NULL, &e));
    expect("GET", "/organization/admin_api_keys?limit=100", NULL);
    GOOD(openai_admin_key_get(&r, "key_1", &e));
    expect("GET", "/organization/admin_api_keys/key_1", NULL);
    GOOD(openai_admin_key_create(&r, "n", 31536000, &e));
    expect("POST", "/organization/admin_api_keys",
           "{\"name\":\"n\",\"expires_in_seconds\":31536000}");
    GOOD(openai_admin_key_delete(&r, "key_1", &e));
    expect("DELETE", "/organization/admin_api_keys/key_1", NULL);
}

static void cursors_are_escaped(void **state)
{
    (void)state;
    char longest[513 + 1];
    memset(longest, '&', 513);
    longest[513] = '\0';
    GOOD(openai_admin_key_list(&r, "a/b&c=d e\xc3\xa9%~.-_Z9", &e));
    expect("GET",
           "/organization/admin_api_keys?limit=100&after="
           "a%2Fb%26c%3Dd%20e%C3%A9%25~.-_Z9",
           NULL);
    BAD(openai_admin_key_list(&r, longest, &e), ERR_SERVICE_REPLY);
    BAD(openai_admin_key_list(&r, "", &e), ERR_SERVICE_REPLY);
    longest[512] = '\0';
    GOOD(openai_admin_key_list(&r, longest, &e));
    openai_request_clear(&r);
}

static void bad_ids(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "",    ".",       "..",       "a/b", "../x", "a b",
        "a%2", "a\r\nX:", "\xc3\xa9", "a?b", "a#b",  NULL};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        BAD(openai_project_get(&r, bad[i], &e), ERR_INVALID);
        BAD(openai_project_archive(&r, bad[i], &e), ERR_INVALID);
        BAD(openai_account_create(&r, bad[i], "n", 0, &e), ERR_INVALID);
        BAD(openai_account_list(&r, bad[i], NULL, &e), ERR_INVALID);
        BAD(openai_account_get(&r, "proj_a", bad[i], &e), ERR_INVALID);
        BAD(openai_account_delete(&r, "proj_a", bad[i], &e), ERR_INVALID);
        BAD(openai_account_delete(&r, bad[i], "svc_1", &e), ERR_INVALID);
        BAD(openai_account_key_create(&r, "proj_a", bad[i], NULL, 0, &e),
            ERR_INVALID);
        BAD(openai_project_key_delete(&r, "proj_a", bad[i], &e), ERR_INVALID);
        BAD(openai_admin_key_delete(&r, bad[i], &e), ERR_INVALID);
    }
}

static void bad_names(void **state)
{
    (void)state;
    char huge[65536 + 1];
    memset(huge, 'x', 65536);
    huge[65536] = '\0';
    const char *const bad[] = {"",         huge,   "a\r\nb", "a\x1b[0m",
                               "\xff\xfe", "\x7f", "tab\t"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        BAD(openai_account_create(&r, "proj_a", bad[i], 0, &e), ERR_INVALID);
        BAD(openai_account_update(&r, "proj_a", "s", bad[i], NULL, &e),
            ERR_INVALID);
        BAD(openai_account_update(&r, "proj_a", "s", NULL, bad[i], &e),
            ERR_INVALID);
        BAD(openai_account_key_create(&r, "proj_a", "s", bad[i], 0, &e),
            ERR_INVALID);
        BAD(openai_admin_key_create(&r, bad[i], 0, &e), ERR_INVALID);
        BAD(openai_project_create(&r, bad[i], &e), ERR_INVALID);
        BAD(openai_project_update(&r, "proj_a", bad[i], &e), ERR_INVALID);
    }
    BAD(openai_admin_key_create(&r, NULL, 0, &e), ERR_INVALID);
    BAD(openai_account_update(&r, "proj_a", "s", NULL, NULL, &e), ERR_INVALID);
    huge[512] = '\0';
    GOOD(openai_admin_key_create(&r, huge, 0, &e));
    openai_request_clear(&r);
}

static void bad_expiry(void **state)
{
    (void)state;
    static const int64_t bad[] = {-1, INT64_MIN, 31536001, INT64_MAX};
    for (size_t i = 0; i < 4; i++) {
        BAD(openai_account_create(&r, "p", "n", bad[i], &e), ERR_INVALID);
        BAD(openai_admin_key_create(&r, "n", bad[i], &e), ERR_INVALID);
        BAD(openai_account_key_create(&r, "p", "s", "n", bad[i], &e),
            ERR_INVALID);
        BAD(openai_project_key_update(&r, "p", "k", bad[i], &e), ERR_INVALID);
    }
    BAD(openai_project_key_update(&r, "p", "k", 0, &e), ERR_INVALID);
    GOOD(openai_account_create(&r, "p", "n", 1, NULL));
    openai_request_clear(&r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(projects),  cmocka_unit_test(accounts),
        cmocka_unit_test(keys),      cmocka_unit_test(cursors_are_escaped),
        cmocka_unit_test(bad_ids),   cmocka_unit_test(bad_names),
        cmocka_unit_test(bad_expiry)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
