/* Which calls may be signed, and that each may be executed once, in time. */
#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "common/clock.h"
#include "hsm/call.h"

#include <stdlib.h>
#include <string.h>

#define P "/organization/projects"

static enum code check(const char *method, const char *path, const char *body)
{
    const char *name = NULL;
    enum code rc = call_check(method, path, body, strlen(body), &name, NULL);
    if (rc == OK)
        assert_string_equal(name, method);
    return rc;
}

static void table_is_allowed(void **state)
{
    static const char *const good[][2] = {
        {"GET", P},
        {"GET", P "/proj_1"},
        {"GET", P "/p/service_accounts?after=svc_acct_9&limit=100"},
        {"POST", P "/p/service_accounts"},
        {"DELETE", P "/p/service_accounts/svc_acct_1"},
        {"POST", P "/p/service_accounts/a/api_keys"},
        {"GET", P "/p/api_keys?owner_project_access=any"},
        {"POST", P "/p/api_keys/key_1"},
        {"GET", "/organization/admin_api_keys?order=desc&limit=20"},
        {"POST", "/organization/admin_api_keys"},
        {"GET", "/organization/admin_api_keys/key_1"},
        {"DELETE", "/organization/admin_api_keys/key_1"},
        {"GET", P "?after=a%20b%C3%A9~"},
        {"GET", "/organization/audit_logs?limit=100&effective_at%5Bgte%5D=1&"
                "tenant_only=true&after=audit_log-1"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
        if (check(good[i][0], good[i][1], "") != OK)
            fail_msg("%s %s was refused", good[i][0], good[i][1]);
    assert_int_equal(check("POST", P "/p/service_accounts", "{\"name\":\"x\"}"),
                     OK);
}

static void all_else_is_refused(void **state)
{
    static const char *const bad[][2] = {
        {"PUT", P},
        {"get", P},
        {"", P},
        {"DELETE", P},
        {"DELETE", P "/proj_1"},
        /* What only a daemon that was taken over would ask for. */
        {"POST", P},
        {"POST", P "/proj_1"},
        {"POST", P "/proj_1/archive"},
        {"POST", P "/p/service_accounts/a"},
        {"DELETE", P "/p/api_keys/key_1"},
        {"GET", P "/"},
        {"GET", P "//"},
        {"GET", P "?tenant_only=true"},
        {"GET", "/organization/audit_logs?order=asc"},
        {"GET", "/organization/audit_logs?effective_at[gte]=1"},
        {"GET", "/organization/audit_logs?actor_emails%5B%5D=a"},
        {"GET", "/organization/audit_logs/audit_log-1"},
        {"POST", "/organization/audit_logs"},
        {"GET", P "/.."},
        {"GET", P "/."},
        {"GET", P "/...a"},
        {"GET", P "/a..b"},
        {"GET", P "/../users"},
        {"GET", P "/a%2fb"},
        {"GET", P "/a b"},
        {"GET", P "/a\r\nX: y"},
        {"GET", P "/a;b"},
        {"GET", P "/a#b"},
        {"GET", P "/p/service_accounts/"},
        {"GET", P "/p/users"},
        {"GET", "/organization/users"},
        {"GET", "/organization"},
        {"GET", "organization/projects"},
        {"GET", "//evil.example/organization/projects"},
        {"GET", "@evil.example/organization/projects"},
        {"GET", ""},
        {"GET", P "?"},
        {"GET", P "?after"},
        {"GET", P "?after="},
        {"GET", P "?after=a&"},
        {"GET", P "?after=a&after=b"},
        {"GET", P "?admin=1"},
        {"GET", P "?after=a b"},
        {"GET", P "?after=%0d%0a"},
        {"GET", P "?after=%0A"},
        {"GET", P "?after=%7F"},
        {"GET", P "?after=%c3"},
        {"GET", P "?after=%C"},
        {"GET", P "?after=a#b"},
        {"GET", P "?after=a?b"},
        {"POST", P "?after=a"},
        {"DELETE", "/organization/admin_api_keys/k?limit=1"},
        {"POST", "/organization/admin_api_keys/k"},
        {"GET", P "/p/service_accounts/a/api_keys"},
    };
    char longest[CALL_PATH_MAX + 64];
    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        if (check(bad[i][0], bad[i][1], "") == OK)
            fail_msg("%s %s was allowed", bad[i][0], bad[i][1]);
    memset(longest, 'a', sizeof(longest) - 1);
    longest[sizeof(longest) - 1] = '\0';
    memcpy(longest, P "?after=", strlen(P "?after="));
    assert_int_equal(check("GET", longest, ""), ERR_INVALID);
    assert_int_equal(check("GET", P, "{}"), ERR_INVALID);
    assert_int_equal(check("DELETE", "/organization/admin_api_keys/k", "{}"),
                     ERR_INVALID);
    assert_int_equal(check("POST", P "/p/service_accounts", "[]"), ERR_INVALID);
    assert_int_equal(check("POST", P "/p/service_accounts", "{"), ERR_INVALID);
}

static int64_t now = 1000;

static int64_t fake_ms(void *ctx)
{
    (void)ctx;
    return now;
}

static struct call *signed_call(struct calls *t)
{
    struct call *c = calloc(1, sizeof(*c));
    assert_non_null(c);
    assert_int_equal(calls_reserve(t, c->id, NULL), OK);
    c->signed_at_ms = clock_boot_ms();
    return c;
}

static enum code take(struct calls *t, const char *id)
{
    CLEANUP(call_freep) struct call *c = NULL;
    return calls_take(t, id, &c, NULL);
}

static void once_and_in_time(void **state)
{
    const struct clock_source fake = {fake_ms, fake_ms, fake_ms, NULL};
    struct calls *t = NULL;
    char id[CALL_ID_LEN + 1];
    (void)state;
    clock_replace(&fake);
    assert_int_equal(calls_new(&t, NULL), OK);
    struct call *c = signed_call(t);
    memcpy(id, c->id, sizeof(id));
    assert_int_equal(take(t, id), ERR_NOT_SIGNED); /* reserved only */
    call_free(c);
    c = signed_call(t);
    memcpy(id, c->id, sizeof(id));
    calls_put(t, c);
    now += CALL_FRESH_MS;
    assert_int_equal(take(t, id), OK);
    assert_int_equal(take(t, id), ERR_NOT_SIGNED); /* twice */
    c = signed_call(t);
    memcpy(id, c->id, sizeof(id));
    calls_put(t, c);
    now += CALL_FRESH_MS + 1;
    assert_int_equal(take(t, id), ERR_NOT_SIGNED); /* late */
    assert_int_equal(take(t, ""), ERR_NOT_SIGNED);
    assert_int_equal(take(t, "00000000000000000000000000000000"),
                     ERR_NOT_SIGNED);
    assert_int_equal(take(t, "ffffffffffffffffffffffffffffffff"),
                     ERR_NOT_SIGNED);
    calls_free(t);
    clock_replace(NULL);
}

static void bounded(void **state)
{
    const struct clock_source fake = {fake_ms, fake_ms, fake_ms, NULL};
    struct calls *t = NULL;
    char first[CALL_ID_LEN + 1] = "", id[CALL_ID_LEN + 1];
    (void)state;
    clock_replace(&fake);
    assert_int_equal(calls_new(&t, NULL), OK);
    for (size_t i = 0; i < CALL_TABLE; i++) {
        struct call *c = signed_call(t);
        if (i == 0)
            memcpy(first, c->id, sizeof(first));
        calls_put(t, c);
    }
    assert_int_equal(calls_reserve(t, id, NULL), ERR_LIMIT);
    assert_int_equal(take(t, first), OK); /* makes room */
    assert_int_equal(calls_reserve(t, id, NULL), OK);
    calls_release(t, id);
    now += CALL_FRESH_MS + 1; /* so does time */
    for (size_t i = 0; i < CALL_TABLE; i++)
        assert_int_equal(calls_reserve(t, id, NULL), OK);
    calls_free(t);
    clock_replace(NULL);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(table_is_allowed),
        cmocka_unit_test(all_else_is_refused),
        cmocka_unit_test(once_and_in_time),
        cmocka_unit_test(bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
