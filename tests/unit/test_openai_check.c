/* openai_check: each status and each shape of an error body. */
#include "config.h"

#include "module/openai/mask.h"
#include "module/openai/openai.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static struct error e;

static enum code check_of(const char *method, const char *path, long status,
                          const char *body, uint32_t retry_ms)
{
    struct openai_request r = {.method = method, .path = strdup(path)};
    struct openai_reply reply = {.status = status,
                                 .body = body,
                                 .body_len = body ? strlen(body) : 0,
                                 .request_id = "req_42",
                                 .retry_after_ms = retry_ms};
    memset(&e, 0, sizeof e);
    enum code rc = openai_check(&r, &reply, &e);
    assert_int_equal(rc, openai_check(&r, &reply, NULL));
    openai_request_clear(&r);
    if (rc)
        assert_string_equal(e.service_request_id, "req_42");
    return rc;
}

static enum code check(long status, const char *body)
{
    return check_of("POST", "/organization/admin_api_keys", status, body, 0);
}

static void says(const char *part)
{
    if (!strstr(e.text, part))
        fail_msg("\"%s\" is not in \"%s\"", part, e.text);
}

static void says_not(const char *part)
{
    if (strstr(e.text, part))
        fail_msg("\"%s\" is in \"%s\"", part, e.text);
}

#define OBJECT(message, code)                                                  \
    "{\"error\":{\"message\":\"" message "\",\"type\":\"t\",\"param\":null,"   \
    "\"code\":" code "}}"

static void success(void **state)
{
    (void)state;
    assert_int_equal(check(200, "{}"), OK);
    assert_int_equal(check(200, ""), OK); /* the decoder will say */
}

static void refused_key(void **state)
{
    (void)state;
    assert_int_equal(check(401, OBJECT("Incorrect API key provided: "
                                       "sk-admin********abcd.",
                                       "\"invalid_api_key\"")),
                     ERR_SERVICE_AUTH);
    says("HTTP 401");
    says("invalid_api_key");
    says("hsmint config set admin_api_key=-");
    says("POST /organization/admin_api_keys");
    says_not("abcd");
}

static void bare_string(void **state)
{
    (void)state;
    assert_int_equal(
        check(403, "{\"error\":\"You have insufficient permissions for this "
                   "operation. Missing scopes: api.management.write\"}"),
        ERR_SERVICE_FORBIDDEN);
    says("HTTP 403");
    says("Missing scopes: api.management.write");
}

static void not_found(void **state)
{
    (void)state;
    static const char gone[] = OBJECT("no such thing", "null");
    static const char project[] = OBJECT("no", "\"project_not_found\"");
    assert_int_equal(check_of("GET", "/organization/x", 404, gone, 0),
                     ERR_NOT_FOUND);
    assert_int_equal(check_of("GET", "/organization/x", 404, project, 0),
                     ERR_PROJECT);
    assert_int_equal(check_of("DELETE", "/organization/x", 404, gone, 0), OK);
    assert_int_equal(check_of("DELETE", "/organization/x", 404, "", 0), OK);
    assert_int_equal(check_of("DELETE", "/organization/x", 404, "<html>", 0),
                     OK);
    /* Of another organisation: there is nothing that it could have deleted. */
    assert_int_equal(check_of("DELETE", "/organization/x", 404, project, 0),
                     ERR_PROJECT);
    assert_int_equal(check_of("DELETE", "/organization/x", 400, gone, 0),
                     ERR_SERVICE_REFUSED);
}

static void deleted(void **state)
{
    (void)state;
    static const struct {
        const char *body;
        enum code code;
    } cases[] = {
        {"{\"id\":\"x\",\"deleted\":true}", OK},
        {"{\"deleted\":true}", OK},
        {"{\"id\":\"y\",\"deleted\":true}", ERR_SERVICE_REPLY},
        {"{\"id\":\"x\",\"deleted\":false}", ERR_SERVICE_REPLY},
        {"{}", ERR_SERVICE_REPLY},
        {"", ERR_SERVICE_REPLY},
        {"<html>Access denied</html>", ERR_SERVICE_REPLY},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++)
        assert_int_equal(check_of("DELETE", "/organization/x", 200,
                                  cases[i].body, 0),
                         cases[i].code);
}

static void says_gone(void **state)
{
    (void)state;
    static const struct {
        const char *body;
        bool says;
    } cases[] = {
        {"{\"error\":{\"message\":\"no\"}}", true},
        {"{\"error\":\"no\"}", true},
        {"{}", false},
        {"", false},
        {"<html>Not found</html>", false},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        const struct openai_reply r = {.status = 404,
                                       .body = cases[i].body,
                                       .body_len = strlen(cases[i].body)};
        assert_int_equal(openai_says_gone(&r), cases[i].says);
    }
}

static void rate(void **state)
{
    (void)state;
    static const struct {
        const char *body;
        uint32_t header, least, most;
    } cases[] = {
        {OBJECT("please try again after 6.937 seconds.",
                "\"rate_limit_exceeded\""),
         0, 6937, 6938},
        {OBJECT("try again after 6.937 seconds", "null"), 2000, 2000, 2000},
        {OBJECT("Please try again in 20s.", "null"), 0, 20000, 20001},
        {OBJECT("Please try again in 350ms.", "null"), 0, 350, 351},
        {OBJECT("Please try again in 2m.", "null"), 0, 120000, 120001},
        {OBJECT("try again after 1e300 seconds", "null"), 0, 86400000,
         86400000},
        {OBJECT("try again after -5 seconds", "null"), 0, 0, 0},
        {OBJECT("try again after nan seconds", "null"), 0, 0, 0},
        {OBJECT("try again after ever", "null"), 0, 0, 0},
        {OBJECT("slow down", "null"), 0, 0, 0},
        {"", 0, 0, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        assert_int_equal(
            check_of("POST", "/x", 429, cases[i].body, cases[i].header),
            ERR_SERVICE_RATE);
        assert_in_range(e.retry_after_ms, cases[i].least, cases[i].most);
        says("HTTP 429");
    }
}

static void money(void **state)
{
    (void)state;
    static const char *const bodies[] = {
        OBJECT("try again after 9 seconds", "\"project_spend_limit_exceeded\""),
        OBJECT("m", "\"organization_spend_limit_exceeded\""),
        OBJECT("m", "\"insufficient_quota\"")};
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(check_of("POST", "/x", 429, bodies[i], 7000),
                         ERR_SERVICE_REFUSED);
        assert_int_equal(e.retry_after_ms, 0);
        says("spend limit");
    }
}

static void other_statuses(void **state)
{
    (void)state;
    static const struct {
        long status;
        enum code code;
    } cases[] = {{500, ERR_SERVICE_FAILED},  {502, ERR_SERVICE_FAILED},
                 {503, ERR_SERVICE_FAILED},  {599, ERR_SERVICE_FAILED},
                 {408, ERR_SERVICE_FAILED},  {400, ERR_SERVICE_REFUSED},
                 {409, ERR_SERVICE_REFUSED}, {418, ERR_SERVICE_REFUSED},
                 {301, ERR_SERVICE_REFUSED}, {307, ERR_SERVICE_REFUSED},
                 {201, ERR_SERVICE_REPLY},   {204, ERR_SERVICE_REPLY},
                 {100, ERR_SERVICE_REPLY},   {0, ERR_SERVICE_REPLY},
                 {-1, ERR_SERVICE_REPLY},    {600, ERR_SERVICE_REPLY},
                 {99999, ERR_SERVICE_REPLY}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        assert_int_equal(check(cases[i].status, OBJECT("m", "null")),
                         cases[i].code);
    assert_int_equal(check(302, ""), ERR_SERVICE_REFUSED);
    says("redirects are not followed");
    check_of("GET", "/x", 503, "", 4000);
    assert_int_equal(e.retry_after_ms, 4000);
}

static void strange_bodies(void **state)
{
    (void)state;
    static const char *const bodies[] = {
        "<html>sk-admin-secretsecretsecret 502</html>",
        "[]",
        "null",
        "\"sk-admin-secretsecretsecret\"",
        "{}",
        "{\"error\":null}",
        "{\"error\":7}",
        "{\"error\":[]}",
        "{\"error\":{}}",
        "{\"error\":{\"message\":7,\"code\":[]}}",
        "{\"error\":{\"message\":\"\"}}",
        "{\"error\":\"\"}",
        "{\"message\":\"not where it belongs\"}",
        "{\"error\":{\"message\":\"cut off",
        "\xff\xfe",
    };
    for (size_t i = 0; i < sizeof bodies / sizeof bodies[0]; i++) {
        assert_int_equal(check(500, bodies[i]), ERR_SERVICE_FAILED);
        says("HTTP 500");
        says_not("secretsecret");
    }
    char *deep = malloc(200001);
    memset(deep, '[', 100000);
    memset(deep + 100000, ']', 100000);
    deep[200000] = '\0';
    assert_int_equal(check(500, deep), ERR_SERVICE_FAILED);
    free(deep);
}

static void masks(void **state)
{
    (void)state;
    static const struct {
        const char *in, *out;
    } cases[] = {
        {"key sk-admin-abcdefgh.", "key sk-***"},
        {"sk-svcacct-1_2-3456, sk-proj-abcdef!", "sk-***, sk-***!"},
        {"SK-ADMIN-ABCDEFGH x", "sk-*** x"},
        {"keysk-admin-abcdefgh", "keysk-***"},
        {"risk-free", "risk-free"},
        {"sk-", "sk-"},
        {"sk-sk-sk-sk-", "sk-***"},
        {"sk", "sk"},
        {"", ""},
    };
    char out[64];
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        mask_keys(out, sizeof out, cases[i].in);
        assert_string_equal(out, cases[i].out);
    }
    for (size_t cap = 1; cap < 16; cap++) {
        mask_keys(out, cap, "ab sk-admin-abcdefgh cd");
        assert_in_range(strlen(out), 0, cap - 1);
        assert_null(strstr(out, "admin"));
    }
}

static void long_and_hostile_messages(void **state)
{
    (void)state;
    char body[4096] = "{\"error\":{\"message\":\"";
    memset(body + strlen(body), 'm', 3000);
    strcat(body, " sk-admin-abcdefghijkl\\r\\n\\u001b[31m\"}}");
    assert_int_equal(check(400, body), ERR_SERVICE_REFUSED);
    says_not("abcdefgh");
    assert_int_equal(check(400, OBJECT("a\\r\\n\\u001b[31mb", "\"x\\ny\"")),
                     ERR_SERVICE_REFUSED);
    says_not("\r");
    says_not("\n");
    says_not("\x1b");
    assert_int_equal(check(400, OBJECT("m", "\"sk-admin-abcdefgh\"")),
                     ERR_SERVICE_REFUSED);
    says_not("abcdefgh");
}

static void pages_that_stand_still(void **state)
{
    (void)state;
    static const char path[] = "/organization/x?limit=100&after=key_%2F9";
#define PAGE(more, last, id)                                                   \
    "{\"data\":[{\"id\":\"" id "\"}],\"has_more\":" more ",\"last_id\":" last  \
    "}"
    assert_int_equal(
        check_of("GET", path, 200, PAGE("true", "\"key_/9\"", "a"), 0),
        ERR_SERVICE_REPLY);
    says("this same one");
    assert_int_equal(
        check_of("GET", path, 200, PAGE("true", "null", "key_/9"), 0),
        ERR_SERVICE_REPLY);
    assert_int_equal(
        check_of("GET", path, 200, PAGE("true", "\"key_/\"", "a"), 0), OK);
    assert_int_equal(
        check_of("GET", path, 200, PAGE("true", "\"key_/99\"", "a"), 0), OK);
    assert_int_equal(
        check_of("GET", path, 200, PAGE("false", "\"key_/9\"", "a"), 0), OK);
    assert_int_equal(check_of("GET", path, 200, "{", 0), ERR_SERVICE_REPLY);
    assert_int_equal(check_of("GET", path, 200, "{\"has_more\":true}", 0),
                     ERR_SERVICE_REPLY);
    assert_int_equal(check_of("GET", "/x?limit=100", 200,
                              PAGE("true", "\"key_/9\"", "a"), 0),
                     OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(success),
        cmocka_unit_test(refused_key),
        cmocka_unit_test(bare_string),
        cmocka_unit_test(not_found),
        cmocka_unit_test(deleted),
        cmocka_unit_test(says_gone),
        cmocka_unit_test(rate),
        cmocka_unit_test(money),
        cmocka_unit_test(other_statuses),
        cmocka_unit_test(strange_bodies),
        cmocka_unit_test(masks),
        cmocka_unit_test(long_and_hostile_messages),
        cmocka_unit_test(pages_that_stand_still)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
