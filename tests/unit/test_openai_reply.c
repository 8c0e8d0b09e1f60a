/* Decoders: the documented examples, and all that can be wrong with them. */
#include "config.h"

#include "module/openai/openai.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct error e;

static struct openai_reply reply(const char *body)
{
    memset(&e, 0, sizeof e);
    return (struct openai_reply){.status = 200,
                                 .body = body,
                                 .body_len = strlen(body),
                                 .request_id = "req_7"};
}

static void value_is(const struct secret *s, const char *text)
{
    assert_non_null(s);
    assert_int_equal(secret_len(s), strlen(text));
    assert_memory_equal(secret_data(s), text, strlen(text));
}

#define KEY                                                                    \
    "{\"object\":\"organization.project.service_account.api_key\","            \
    "\"value\":\"sk-svcacct-xyz\",\"name\":\"Secret Key\",\"created_at\":1,"   \
    "\"id\":\"key_abc\",\"expires_at\":601}"
#define ACCOUNT(key)                                                           \
    "{\"object\":\"organization.project.service_account\","                    \
    "\"id\":\"svc_acct_abc\",\"name\":\"lease-1\",\"role\":\"member\","        \
    "\"created_at\":1,\"new\":[{}],\"api_key\":" key "}"

static void created_account(void **state)
{
    (void)state;
    struct openai_reply r = reply(ACCOUNT(KEY));
    struct openai_account a;
    assert_int_equal(openai_decode_created_account(&r, &a, &e), OK);
    assert_string_equal(a.id, "svc_acct_abc");
    assert_string_equal(a.name, "lease-1");
    assert_string_equal(a.role, "member");
    assert_int_equal(a.created_at, 1);
    assert_true(a.has_key);
    assert_string_equal(a.key.id, "key_abc");
    assert_int_equal(a.key.expires_at, 601);
    value_is(a.key.value, "sk-svcacct-xyz");
    openai_account_clear(&a);
    assert_null(a.key.value);
}

/* The account exists: its id is kept, so that it can be deleted. */
static void created_account_without_key(void **state)
{
    (void)state;
    static const char *const keys[] = {
        "null",
        "7",
        "[]",
        "{}",
        "{\"id\":\"key_abc\"}",
        "{\"id\":\"key_abc\",\"value\":null}",
        "{\"id\":\"key_abc\",\"value\":\"\"}",
        "{\"id\":\"key_abc\",\"value\":7}",
        "{\"id\":\"key_abc\",\"value\":\"sk-a\\r\\nX: y\"}",
        "{\"id\":\"key_abc\",\"value\":\"sk a\"}",
        "{\"id\":\"\",\"value\":\"sk-a\"}",
        "{\"id\":null,\"value\":\"sk-a\"}",
        "{\"id\":\"a/b\",\"value\":\"sk-a\"}",
        "{\"value\":\"sk-a\"}",
    };
    for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++) {
        char body[512];
        snprintf(body, sizeof body, "{\"id\":\"svc_1\",\"api_key\":%s}",
                 keys[i]);
        struct openai_reply r = reply(body);
        struct openai_account a;
        assert_int_equal(openai_decode_created_account(&r, &a, &e),
                         ERR_SERVICE_REPLY);
        assert_string_equal(a.id, "svc_1");
        assert_false(a.has_key);
        assert_null(a.key.value);
        assert_string_equal(e.service_request_id, "req_7");
        assert_null(strstr(e.text, "sk-a"));
        openai_account_clear(&a);
    }
}

static void created_account_without_id(void **state)
{
    (void)state;
    static const char *const bodies[] = {
        "{\"api_key\":" KEY "}",
        "{\"id\":null,\"api_key\":" KEY "}",
        "{\"id\":\"\",\"api_key\":" KEY "}",
        "{\"id\":7,\"api_key\":" KEY "}",
        "{\"id\":\"../x\",\"api_key\":" KEY "}",
    };
    for (size_t i = 0; i < sizeof bodies / sizeof bodies[0]; i++) {
        struct openai_reply r = reply(bodies[i]);
        struct openai_account a;
        assert_int_equal(openai_decode_created_account(&r, &a, &e),
                         ERR_SERVICE_REPLY);
        assert_null(a.id);
        openai_account_clear(&a);
    }
}

static void not_an_object(void **state)
{
    (void)state;
    char *deep = malloc(200001), *huge = malloc(5 << 20);
    memset(deep, '[', 100000);
    memset(deep + 100000, ']', 100000);
    deep[200000] = '\0';
    memset(huge, ' ', (5 << 20) - 1);
    huge[(5 << 20) - 1] = '\0';
    const char *const bodies[] = {"",
                                  "null",
                                  "[]",
                                  "7",
                                  "\"x\"",
                                  "{",
                                  "{\"id\":",
                                  "{}{}",
                                  "<html>",
                                  "\xff",
                                  "{\"id\":\"a\",\"id\":\"b\"}",
                                  "{\"id\":\"a\\u0000b\"}",
                                  deep,
                                  huge};
    for (size_t i = 0; i < sizeof bodies / sizeof bodies[0]; i++) {
        struct openai_reply r = reply(bodies[i]);
        struct openai_account a;
        struct openai_key k;
        struct openai_project p;
        struct openai_admin_key n;
        assert_int_equal(openai_decode_created_account(&r, &a, &e),
                         ERR_SERVICE_REPLY);
        assert_int_equal(openai_decode_account(&r, &a, &e), ERR_SERVICE_REPLY);
        assert_int_equal(openai_decode_account_key(&r, &k, &e),
                         ERR_SERVICE_REPLY);
        assert_int_equal(openai_decode_project_key(&r, &k, &e),
                         ERR_SERVICE_REPLY);
        assert_int_equal(openai_decode_project(&r, &p, &e), ERR_SERVICE_REPLY);
        assert_int_equal(openai_decode_admin_key(&r, &n, &e),
                         ERR_SERVICE_REPLY);
        assert_string_equal(e.service_request_id, "req_7");
        assert_null(a.id);
        assert_null(k.id);
        assert_null(p.id);
        assert_null(n.id);
    }
    free(deep);
    free(huge);
}

static void accounts_and_keys(void **state)
{
    (void)state;
    struct openai_account a;
    struct openai_key k;
    struct openai_reply r = reply("{\"id\":\"svc_1\"}");
    assert_int_equal(openai_decode_account(&r, &a, &e), OK);
    assert_string_equal(a.id, "svc_1");
    assert_null(a.name);
    assert_false(a.has_key);
    openai_account_clear(&a);

    r = reply(KEY);
    assert_int_equal(openai_decode_account_key(&r, &k, &e), OK);
    value_is(k.value, "sk-svcacct-xyz");
    openai_key_clear(&k);
    r = reply("{\"id\":\"key_1\"}");
    assert_int_equal(openai_decode_account_key(&r, &k, &e), ERR_SERVICE_REPLY);
    assert_null(k.id);

    r = reply("{\"id\":\"key_1\",\"redacted_value\":\"sk-a...xyz\","
              "\"expires_at\":9.5,\"created_at\":-1e300,\"name\":7}");
    assert_int_equal(openai_decode_project_key(&r, &k, &e), OK);
    assert_string_equal(k.redacted, "sk-a...xyz");
    assert_int_equal(k.expires_at, 9);
    assert_int_equal(k.created_at, 0);
    assert_null(k.name);
    assert_null(k.value);
    openai_key_clear(&k);
}

static void projects(void **state)
{
    (void)state;
    static const struct {
        const char *body;
        bool archived;
    } cases[] = {
        {"{\"id\":\"p\",\"status\":\"active\",\"archived_at\":null}", false},
        {"{\"id\":\"p\",\"status\":\"archived\",\"archived_at\":5}", true},
        {"{\"id\":\"p\",\"status\":\"suspended\"}", true},
        {"{\"id\":\"p\",\"archived_at\":5}", true},
        {"{\"id\":\"p\"}", false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct openai_reply r = reply(cases[i].body);
        struct openai_project p;
        assert_int_equal(openai_decode_project(&r, &p, &e), OK);
        assert_string_equal(p.id, "p");
        assert_int_equal(p.archived, cases[i].archived);
        openai_project_clear(&p);
    }
}

static void admin_keys(void **state)
{
    (void)state;
    struct openai_reply r =
        reply("{\"object\":\"organization.admin_api_key\",\"id\":\"key_xyz\","
              "\"name\":\"n\",\"redacted_value\":\"sk-admin...xyz\","
              "\"created_at\":1711471533,\"expires_at\":1714063533,"
              "\"last_used_at\":null,\"owner\":{\"type\":\"user\",\"id\":"
              "\"user_123\",\"name\":\"John\",\"role\":\"owner\"}}");
    struct openai_admin_key k;
    assert_int_equal(openai_decode_admin_key(&r, &k, &e), OK);
    assert_string_equal(k.id, "key_xyz");
    assert_string_equal(k.redacted, "sk-admin...xyz");
    assert_int_equal(k.expires_at, 1714063533);
    assert_int_equal(k.last_used_at, 0);
    assert_string_equal(k.owner_type, "user");
    assert_string_equal(k.owner_name, "John");
    assert_string_equal(k.owner_role, "owner");
    openai_admin_key_clear(&k);
    r = reply("{\"id\":\"key_xyz\",\"owner\":\"somebody\"}");
    assert_int_equal(openai_decode_admin_key(&r, &k, &e), OK);
    assert_null(k.owner_type);
    openai_admin_key_clear(&k);
}

/* ---- lists: each callback counts, and stops where *ctx says ---- */

struct seen {
    int n, stop_at;
    char last[16];
};

static enum code see(struct seen *s, const char *id, struct error *err)
{
    snprintf(s->last, sizeof s->last, "%s", id);
    if (++s->n == s->stop_at)
        return error_set(err, ERR_DEADLINE, "stopped");
    return OK;
}

static enum code see_account(const struct openai_account *a, void *ctx,
                             struct error *err)
{
    return see(ctx, a->id, err);
}

static enum code see_key(const struct openai_key *k, void *ctx,
                         struct error *err)
{
    return see(ctx, k->id, err);
}

static enum code see_project(const struct openai_project *p, void *ctx,
                             struct error *err)
{
    return see(ctx, p->id, err);
}

static enum code see_admin_key(const struct openai_admin_key *k, void *ctx,
                               struct error *err)
{
    return see(ctx, k->id, err);
}

static enum code all_lists(const char *body, struct seen *s, char **after)
{
    struct openai_reply r = reply(body);
    struct seen start = *s, t;
    char *other[3] = {NULL};
    enum code rc = openai_decode_account_list(&r, see_account, s, after, &e);
    t = start;
    assert_int_equal(rc,
                     openai_decode_key_list(&r, see_key, &t, &other[0], &e));
    assert_int_equal(t.n, s->n);
    t = start;
    assert_int_equal(
        rc, openai_decode_project_list(&r, see_project, &t, &other[1], &e));
    assert_int_equal(t.n, s->n);
    t = start;
    assert_int_equal(
        rc, openai_decode_admin_key_list(&r, see_admin_key, &t, &other[2], &e));
    assert_int_equal(t.n, s->n);
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(!*after, !other[i]);
        if (*after)
            assert_string_equal(*after, other[i]);
        free(other[i]);
    }
    return rc;
}

#define ITEMS "\"data\":[{\"id\":\"a\"},{\"id\":\"b\"}]"

static void pages(void **state)
{
    (void)state;
    static const struct {
        const char *body, *after;
        int n;
    } cases[] = {
        {"{" ITEMS ",\"has_more\":false,\"last_id\":\"b\"}", NULL, 2},
        {"{" ITEMS ",\"has_more\":true,\"last_id\":\"x\"}", "x", 2},
        {"{" ITEMS ",\"has_more\":true,\"last_id\":null}", "b", 2},
        {"{" ITEMS ",\"has_more\":true,\"last_id\":\"\"}", "b", 2},
        {"{" ITEMS ",\"has_more\":true}", "b", 2},
        {"{" ITEMS "}", NULL, 2},
        {"{\"data\":[],\"first_id\":null,\"last_id\":null}", NULL, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct seen s = {0};
        char *after = NULL;
        assert_int_equal(all_lists(cases[i].body, &s, &after), OK);
        assert_int_equal(s.n, cases[i].n);
        if (cases[i].after)
            assert_string_equal(after, cases[i].after);
        else
            assert_null(after);
        free(after);
    }
}

static void bad_pages(void **state)
{
    (void)state;
    static const char *const bodies[] = {
        "{}",
        "{\"data\":null}",
        "{\"data\":{}}",
        "{\"data\":[],\"has_more\":true,\"last_id\":\"x\"}",
        "{\"data\":[7]}",
        "{\"data\":[{}]}",
        "{\"data\":[{\"id\":\"a b\"}]}",
        "[]",
        "{\"data\":[{\"id\":\"a\"}",
    };
    for (size_t i = 0; i < sizeof bodies / sizeof bodies[0]; i++) {
        struct seen s = {0};
        char *after = NULL;
        assert_int_equal(all_lists(bodies[i], &s, &after), ERR_SERVICE_REPLY);
        assert_null(after);
    }
}

static void a_callback_stops(void **state)
{
    (void)state;
    struct seen s = {.stop_at = 1};
    char *after = NULL;
    assert_int_equal(all_lists("{" ITEMS ",\"has_more\":true}", &s, &after),
                     ERR_DEADLINE);
    assert_int_equal(s.n, 1);
    assert_string_equal(s.last, "a");
    assert_null(after);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(created_account),
        cmocka_unit_test(created_account_without_key),
        cmocka_unit_test(created_account_without_id),
        cmocka_unit_test(not_an_object),
        cmocka_unit_test(accounts_and_keys),
        cmocka_unit_test(projects),
        cmocka_unit_test(admin_keys),
        cmocka_unit_test(pages),
        cmocka_unit_test(bad_pages),
        cmocka_unit_test(a_callback_stops)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
