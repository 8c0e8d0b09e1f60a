/* What the keeper reads in a reply; markers; redacted forms of a key. */
#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "common/file.h"
#include "hsm/endpoint.h"
#include "hsm/http.h"
#include "hsm/marker.h"
#include "hsm/orgkey.h"
#include "hsm/reply.h"

#include <string.h>

static uint32_t header(const char *value)
{
    /* Sat, 21 Nov 2026 09:26:15 GMT */
    return reply_retry_after(value, strlen(value), 1795253175000);
}

static void retry_after_header(void **state)
{
    (void)state;
    assert_int_equal(header("7"), 7000);
    assert_int_equal(header("0"), 0);
    assert_int_equal(header("Sat, 21 Nov 2026 09:26:20 GMT"), 5000);
    assert_int_equal(header("Sat, 21 Nov 2026 09:26:10 GMT"), 0);
    assert_int_equal(header("99999999999999999"), REPLY_WAIT_MAX_MS);
    assert_int_equal(header("-1"), 0);
    assert_int_equal(header("1.5"), 0);
    assert_int_equal(header(""), 0);
    assert_int_equal(header("soon"), 0);
    assert_int_equal(header("Sat, 21 Nov 2026 09:26:20 GMT x"), 0);
}

static uint32_t message(const char *body)
{
    return reply_message_wait(body, strlen(body));
}

static void rate_limit_headers(void **state)
{
    (void)state;
    assert_int_equal(reply_rate_count("500", 3), 500);
    assert_int_equal(reply_rate_count("0", 1), 0);
    assert_int_equal(reply_rate_count("", 0), -1);
    assert_int_equal(reply_rate_count("-1", 2), -1);
    assert_int_equal(reply_rate_count("5 0", 3), -1);
    assert_int_equal(reply_rate_count("1234567890123456", 16), -1);
    assert_int_equal(reply_rate_reset("6m0s", 4), 360000);
    assert_int_equal(reply_rate_reset("20ms", 4), 20);
    assert_int_equal(reply_rate_reset("1.5", 3), 1500);
    assert_int_equal(reply_rate_reset("soon", 4), 0);
    assert_int_equal(reply_rate_reset("999999h", 7), REPLY_WAIT_MAX_MS);
}

static void retry_after_message(void **state)
{
    (void)state;
    assert_int_equal(message("{\"error\":{\"message\":\"Rate limit reached. "
                             "Please try again after 6.937 seconds.\"}}"),
                     6937);
    assert_int_equal(message("{\"error\":{\"message\":\"try again in 6.9s\"}}"),
                     6900);
    assert_int_equal(
        message("{\"error\":{\"message\":\"try again in 170ms.\"}}"), 170);
    assert_int_equal(
        message("{\"error\":{\"message\":\"Try again in 1m2.5s, or\"}}"),
        62500);
    assert_int_equal(message("{\"error\":\"try again in 2 minutes\"}"), 120000);
    assert_int_equal(message("{\"error\":{\"message\":\"try again later\"}}"),
                     0);
    assert_int_equal(message("{\"error\":{\"message\":\"try again in\"}}"), 0);
    assert_int_equal(message("{\"error\":{\"message\":7}}"), 0);
    assert_int_equal(message("{\"error\":[]}"), 0);
    assert_int_equal(message("try again in 5s"), 0);
    assert_int_equal(message(""), 0);
    assert_int_equal(message("{\"error\":\"try again in 999999999999999h\"}"),
                     REPLY_WAIT_MAX_MS);
}

static void request_ids(void **state)
{
    char id[ERROR_REQUEST_ID_MAX], longest[200];
    (void)state;
    reply_request_id(id, "req_0a-1.B", 10);
    assert_string_equal(id, "req_0a-1.B");
    reply_request_id(id, "req\nfake", 8);
    assert_string_equal(id, "");
    reply_request_id(id, "", 0);
    assert_string_equal(id, "");
    memset(longest, 'a', sizeof(longest));
    reply_request_id(id, longest, sizeof(longest));
    assert_int_equal(strlen(id), ERROR_REQUEST_ID_MAX - 1);
}

static void error_codes(void **state)
{
    static const char body[] = "{\"error\":{\"code\":\"incorrect_hostname\"}}";
    char code[REPLY_CODE_MAX];
    (void)state;
    reply_error_code(code, body, sizeof(body) - 1);
    assert_string_equal(code, "incorrect_hostname");
    reply_error_code(code, "{\"error\":\"x\"}", 13);
    assert_string_equal(code, "");
    reply_error_code(code, "<html>", 6);
    assert_string_equal(code, "");
}

static void admin_key_is_taken_out(void **state)
{
    static const char body[] =
        "{\"object\":\"organization.admin_api_key\",\"id\":\"key_1\","
        "\"name\":\"n\",\"value\":\"sk-admin-SECRET\","
        "\"more\":{\"copy\":\"sk-admin-SECRET\"}}";
    JSON rest = NULL;
    SECRET value = NULL;
    FREE char *id = NULL;
    (void)state;
    assert_int_equal(
        reply_take_admin_key(body, sizeof(body) - 1, &rest, &value, &id, NULL),
        OK);
    assert_string_equal(id, "key_1");
    assert_int_equal(secret_len(value), 15);
    assert_memory_equal(secret_data(value), "sk-admin-SECRET", 15);
    FREE char *text = json_dumps(rest, JSON_COMPACT | JSON_SORT_KEYS);
    assert_string_equal(text, "{\"id\":\"key_1\",\"name\":\"n\",\"object\":"
                              "\"organization.admin_api_key\"}");
}

static void admin_key_missing(void **state)
{
    JSON rest = NULL;
    SECRET value = NULL;
    FREE char *id = NULL;
    (void)state;
    assert_int_equal(
        reply_take_admin_key("{\"value\":7}", 11, &rest, &value, &id, NULL),
        OK);
    assert_null(value);
    assert_null(id);
    json_freep(&rest);
    assert_int_equal(
        reply_take_admin_key("sk-admin-x", 10, &rest, &value, &id, NULL),
        ERR_SERVICE_REPLY);
    assert_int_equal(reply_take_admin_key("[]", 2, &rest, &value, &id, NULL),
                     ERR_SERVICE_REPLY);
}

static void redacted_forms(void **state)
{
    static const char key[] = "sk-admin-0123456789abcdefghijklmnopqrstuvxyz";
    static const char *const good[] = {
        "sk-admin-*...xyz", "sk-admin...xyz",          "sk-admin-****vxyz",
        "...xyz",           "sk-admin\xe2\x80\xa6xyz", "sk-admin-*.*.*xyz"};
    static const char *const bad[] = {
        "sk-admin-*...xy", "sk-admin-*...abc", "sk-proj-*...xyz", "sk-admin",
        "sk-admin...", "", "...",
        /* no mask; a guess of more than is ever shown; no room between */
        "sk-admin-0123456789abcdefghijklmnopqrstuvxyz",
        "sk-admin-01234567...xyz", "sk-admin...pqrstuvxyz",
        "sk-admin-0123456789abcdefghijklmnopqrstuv...vxyz"};
    const uint8_t *k = (const uint8_t *)key;
    (void)state;
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
        if (!orgkey_redacted_matches(good[i], k, sizeof(key) - 1))
            fail_msg("%s does not match", good[i]);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        if (orgkey_redacted_matches(bad[i], k, sizeof(key) - 1))
            fail_msg("%s matches", bad[i]);
    assert_false(
        orgkey_redacted_matches("abc...xyz", (const uint8_t *)"abcxyz", 6));
}

static void markers(void **state)
{
    char out[11];
    (void)state;
    marker_base32(out, 8, (const uint8_t *)"\0\0\0\0\0");
    assert_string_equal(out, "aaaaaaaa");
    marker_base32(out, 8, (const uint8_t *)"fooba"); /* RFC 4648: MZXW6YTB */
    assert_string_equal(out, "mzxw6ytb");
    assert_string_equal(marker_find("role-abcdefghijklmnop23"),
                        "abcdefghijklmnop23");
    assert_null(marker_find("abcdefghijklmnop23"));
    assert_null(marker_find("-abcdefghijklmnop23"));
    assert_null(marker_find("role-abcdefghijklmnop19"));
    assert_null(marker_find("role_abcdefghijklmnop23"));
    assert_null(marker_find(""));
}

static void endpoints(void **state)
{
    static const char *const bad[] = {"http://api.openai.com/v1",
                                      "https://",
                                      "https:///v1",
                                      "https://u:p@h/v1",
                                      "https://h/v1?x=1",
                                      "https://h/v1#x",
                                      "ftp://h/",
                                      "api.openai.com/v1",
                                      "https://h/v1 x",
                                      "https://h/\r\nv1",
                                      "https://h/../v1",
                                      "https://h//v1",
                                      "http://127.0.0.1.evil.com/",
                                      "http://1270.0.0.1/",
                                      "http://localhost.evil.com/",
                                      "file:///etc/passwd",
                                      "https://h/%2e%2e/v1",
                                      ""};
    struct settings s = {.allow_http_loopback = true};
    char base[ENDPOINT_MAX];
    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        if (endpoint_check(&s, "endpoint", bad[i], base, NULL) != ERR_INVALID)
            fail_msg("%s was accepted", bad[i]);
    assert_int_equal(endpoint_check(&s, "endpoint",
                                    "https://api.openai.com/v1/", base, NULL),
                     OK);
    assert_string_equal(base, "https://api.openai.com/v1");
    assert_int_equal(
        endpoint_check(&s, "endpoint", "http://127.0.0.1:8080/v1", base, NULL),
        OK);
    assert_int_equal(
        endpoint_check(&s, "endpoint", "http://[::1]:1/v1", base, NULL), OK);
    s.allow_http_loopback = false;
    assert_int_equal(
        endpoint_check(&s, "endpoint", "http://127.0.0.1:8080/v1", base, NULL),
        ERR_INVALID);
}

/* A label is matched whole, and never the name's beginning. */
static void endpoints_are_on_listed_hosts(void **state)
{
    static const struct {
        const char *hosts, *url;
        bool good;
    } cases[] = {
        {"api.openai.com", "https://api.openai.com/v1", true},
        {"api.openai.com", "https://API.OpenAI.com:443/v1", true},
        {"api.openai.com", "https://us.api.openai.com/v1", false},
        {"api.openai.com", "https://api.openai.com.evil.com/v1", false},
        {"api.openai.com", "https://api.openai.co/v1", false},
        {"api.openai.com", "https://api.openai.com./v1", false},
        {"*.api.openai.com", "https://api.openai.com/v1", false},
        {"*.api.openai.com", "https://us.api.openai.com/v1", true},
        {"*.api.openai.com", "https://a.b.api.openai.com/v1", true},
        {"*.api.openai.com", "https://evilapi.openai.com/v1", false},
        {"*.api.openai.com", "https://.api.openai.com/v1", false},
        {"a.example  [::1] *.b", "https://[::1]:8443/v1", true},
        {"a.example  [::1] *.b", "https://a.example", true},
        {"a.example  [::1] *.b", "https://b", false},
        {"a.example  [::1] *.b", "https://x.b", true},
        {"127.0.0.1", "http://127.0.0.1:8080/v1", true},
        {"127.0.0.1", "http://127.0.0.10/v1", false},
    };
    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct error e = {.code = OK};
        struct settings s = {.hosts = (char *)(uintptr_t)cases[i].hosts};
        enum code rc = endpoint_listed(&s, "endpoint", cases[i].url, &e);
        if ((rc == OK) != cases[i].good)
            fail_msg("%s and %s: %d", cases[i].hosts, cases[i].url, (int)rc);
        if (rc == ERR_CONFIG && !strstr(e.text, "[service] hosts"))
            fail_msg("\"%s\" does not say where to look", e.text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(retry_after_header),
        cmocka_unit_test(rate_limit_headers),
        cmocka_unit_test(retry_after_message),
        cmocka_unit_test(request_ids),
        cmocka_unit_test(error_codes),
        cmocka_unit_test(admin_key_is_taken_out),
        cmocka_unit_test(admin_key_missing),
        cmocka_unit_test(redacted_forms),
        cmocka_unit_test(markers),
        cmocka_unit_test(endpoints),
        cmocka_unit_test(endpoints_are_on_listed_hosts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
