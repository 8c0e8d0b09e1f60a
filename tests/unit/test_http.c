/* One request, sent once, over TLS, against a server that misbehaves. */
#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "hsm/http.h"
#include "tests/unit/httpd.h"

#define KEY "sk-admin-test-0123456789"
#define PATIENCE_MS 60000 /* a handshake under valgrind, on a busy machine */

struct bench {
    struct httpd server;
    struct settings settings;
    struct http *http;
    struct secret *key;
    struct error e;
    struct http_reply reply;
};

static int setup(void **state)
{
    struct bench *b = calloc(1, sizeof(*b));
    assert_non_null(b);
    httpd_start(&b->server, true);
    b->settings = (struct settings){.ca_file = b->server.ca_file,
                                    .connect_ms = PATIENCE_MS,
                                    .call_ms = PATIENCE_MS,
                                    .reply_max = 100000};
    assert_int_equal(http_new(&b->http, &b->settings, NULL), OK);
    assert_int_equal(secret_dup(&b->key, KEY, strlen(KEY), NULL), OK);
    *state = b;
    return 0;
}

static int teardown(void **state)
{
    struct bench *b = *state;
    http_reply_clear(&b->reply);
    http_free(b->http);
    secret_free(b->key);
    httpd_stop(&b->server);
    free(b);
    return 0;
}

static enum code send_to(struct bench *b, const char *method, const char *body,
                         const char *host)
{
    char url[128];
    snprintf(url, sizeof(url), "https://%s:%d/v1/x", host, b->server.port);
    struct http_request q = {.method = method,
                             .url = url,
                             .body = (const uint8_t *)body,
                             .body_len = body ? strlen(body) : 0,
                             .bearer = b->key,
                             .organization_id = "org-1"};
    http_reply_clear(&b->reply);
    error_clear(&b->e);
    return http_send(b->http, &q, &b->reply, &b->e);
}

static enum code post(struct bench *b)
{
    return send_to(b, "POST", "{\"name\":\"x\"}", "127.0.0.1");
}

static enum code get(struct bench *b)
{
    return send_to(b, "GET", NULL, "127.0.0.1");
}

static void next(struct bench *b, enum httpd_act act)
{
    httpd_next(&b->server, (struct httpd_step){.act = act});
}

static void headers_are_right(void **state)
{
    struct bench *b = *state;
    httpd_next(&b->server,
               (struct httpd_step){.headers = "X-Request-Id: req_7\r\n",
                                   .body = "{\"a\":1}"});
    assert_int_equal(post(b), OK);
    assert_int_equal(b->reply.status, 200);
    assert_string_equal(b->reply.request_id, "req_7");
    assert_int_equal(b->reply.body_len, 7);
    assert_memory_equal(b->reply.body, "{\"a\":1}", 7);
    assert_true(b->reply.duration_us > 0);
    assert_true(httpd_saw(&b->server, "POST /v1/x HTTP/1.1\r\n"));
    assert_true(httpd_saw(&b->server, "\r\nAuthorization: Bearer " KEY "\r\n"));
    assert_true(httpd_saw(&b->server, "\r\nOpenAI-Organization: org-1\r\n"));
    assert_true(httpd_saw(&b->server, "\r\nUser-Agent: hsmint/"));
    assert_true(
        httpd_saw(&b->server, "\r\nContent-Type: application/json\r\n"));
    assert_true(httpd_saw(&b->server, "\r\n\r\n{\"name\":\"x\"}"));
    assert_false(httpd_saw(&b->server, "Expect:"));
    assert_int_equal(send_to(b, "POST", NULL, "127.0.0.1"), OK);
    assert_false(httpd_saw(&b->server, "Content-Type"));
    assert_int_equal(send_to(b, "DELETE", NULL, "127.0.0.1"), OK);
    assert_true(httpd_saw(&b->server, "DELETE /v1/x HTTP/1.1\r\n"));
    assert_false(httpd_saw(&b->server, "Content-Type"));
}

static void connections_are_kept(void **state)
{
    struct bench *b = *state;
    for (int i = 0; i < 20; i++)
        assert_int_equal(post(b), OK);
    assert_int_equal(b->server.requests, 20);
    assert_int_equal(b->server.connections, 1);
}

/* libcurl would send the POST again and say OK. */
static void one_signature_one_send(void **state)
{
    struct bench *b = *state;
    assert_int_equal(post(b), OK);
    next(b, HTTPD_DROP);
    assert_int_equal(post(b), ERR_SERVICE_UNKNOWN);
    assert_int_equal(b->server.requests, 2);
    next(b, HTTPD_DROP);
    assert_int_equal(get(b), ERR_SERVICE_UNKNOWN);
    assert_int_equal(b->server.requests, 3);
    assert_int_equal(send_to(b, "DELETE", NULL, "127.0.0.1"), OK);
    next(b, HTTPD_DROP);
    assert_int_equal(send_to(b, "DELETE", NULL, "127.0.0.1"),
                     ERR_SERVICE_UNKNOWN);
    assert_int_equal(b->server.requests, 5);
    assert_int_equal(post(b), OK);
}

/* A connection that ended while idle costs nothing but a new one. */
static void idle_end_is_seen(void **state)
{
    struct bench *b = *state;
    for (int i = 0; i < 5; i++) {
        next(b, HTTPD_CLOSE);
        assert_int_equal(post(b), OK);
        usleep(20000);
    }
    assert_int_equal(b->server.requests, 5);
    assert_int_equal(b->server.connections, 5);
}

static void redirects_are_replies(void **state)
{
    struct bench *b = *state;
    httpd_next(
        &b->server,
        (struct httpd_step){.status = 307,
                            .headers = "Location: https://127.0.0.1:1/\r\n"});
    assert_int_equal(post(b), OK);
    assert_int_equal(b->reply.status, 307);
    assert_int_equal(b->server.requests, 1);
}

static void oversized(void **state)
{
    struct bench *b = *state;
    next(b, HTTPD_OVERSIZE);
    assert_int_equal(post(b), ERR_SERVICE_UNKNOWN);
    next(b, HTTPD_OVERSIZE);
    assert_int_equal(get(b), ERR_SERVICE_REPLY);
    assert_null(b->reply.body);
    assert_int_equal(get(b), OK);
}

static void truncated(void **state)
{
    struct bench *b = *state;
    httpd_next(&b->server,
               (struct httpd_step){.act = HTTPD_TRUNCATE,
                                   .headers = "X-Request-Id: req_8\r\n"});
    assert_int_equal(post(b), ERR_SERVICE_UNKNOWN);
    assert_string_equal(b->e.service_request_id, "req_8");
}

static void hanging(void **state)
{
    struct bench *b = *state;
    assert_int_equal(post(b), OK); /* the handshake would be part of the call */
    b->settings.call_ms = 1500;
    next(b, HTTPD_HANG);
    assert_int_equal(post(b), ERR_SERVICE_UNKNOWN);
    for (int i = 0; i < PATIENCE_MS && b->server.requests < 2; i++)
        usleep(1000);
    assert_int_equal(b->server.requests, 2);
    httpd_release(&b->server);
    b->settings.call_ms = PATIENCE_MS;
    assert_int_equal(post(b), OK);
}

static void waits_as_told(void **state)
{
    struct bench *b = *state;
    static const char message[] =
        "{\"error\":{\"message\":\"try again after 6.937 seconds\"}}";
    httpd_next(&b->server, (struct httpd_step){.status = 429,
                                               .headers = "Retry-After: 3\r\n",
                                               .body = message});
    assert_int_equal(post(b), OK);
    assert_int_equal(b->reply.status, 429);
    assert_int_equal(b->reply.retry_after_ms, 3000);
    httpd_next(&b->server, (struct httpd_step){.status = 429, .body = message});
    assert_int_equal(post(b), OK);
    assert_int_equal(b->reply.retry_after_ms, 6937);
}

static void nothing_was_sent(void **state)
{
    struct bench *b = *state;
    int port = b->server.port;
    b->server.port = 1; /* nobody listens */
    assert_int_equal(post(b), ERR_SERVICE_DOWN);
    b->server.port = port;
    assert_int_equal(send_to(b, "POST", "{}", "name.invalid"),
                     ERR_SERVICE_DOWN);
    assert_int_equal(send_to(b, "POST", "{}", "127.0.0.2"), /* other name */
                     ERR_SERVICE_DOWN);
    b->settings.ca_file = NULL; /* the system does not trust it */
    assert_int_equal(post(b), ERR_SERVICE_DOWN);
    assert_int_equal(b->server.requests, 0);
    b->settings.ca_file = b->server.ca_file;
    assert_int_equal(post(b), OK);
}

static void proxy_only_from_settings(void **state)
{
    struct bench *b = *state;
    char proxy[] = "http://127.0.0.1:1";
    setenv("https_proxy", proxy, 1);
    setenv("ALL_PROXY", proxy, 1);
    assert_int_equal(post(b), OK);
    unsetenv("https_proxy");
    unsetenv("ALL_PROXY");
    b->settings.proxy = proxy;
    http_free(b->http); /* its connection would be used again */
    assert_int_equal(http_new(&b->http, &b->settings, NULL), OK);
    assert_int_equal(post(b), ERR_SERVICE_DOWN);
    b->settings.no_proxy = (char[]){"127.0.0.1"};
    assert_int_equal(post(b), OK);
}

static void plain_http_is_refused(void **state)
{
    struct bench *b = *state;
    struct http_request q = {
        .method = "GET", .url = "http://127.0.0.1:1/", .bearer = b->key};
    assert_int_equal(http_send(b->http, &q, &b->reply, &b->e),
                     ERR_SERVICE_DOWN);
}

/* Plain http goes to this machine; a proxy would take the key elsewhere. */
static void plain_http_takes_no_proxy(void **state)
{
    struct bench *b = *state;
    struct httpd plain, proxy;
    char url[64], way[64];
    httpd_start(&plain, false);
    httpd_start(&proxy, false);
    snprintf(url, sizeof(url), "HTTP://127.0.0.1:%d/v1/x", plain.port);
    snprintf(way, sizeof(way), "http://127.0.0.1:%d", proxy.port);
    b->settings.allow_http_loopback = true;
    b->settings.proxy = way;
    struct http_request q = {.method = "GET", .url = url, .bearer = b->key};
    assert_int_equal(http_send(b->http, &q, &b->reply, &b->e), OK);
    assert_int_equal(proxy.connections, 0);
    assert_int_equal(plain.requests, 1);
    http_free(b->http); /* its connections, before their server */
    b->http = NULL;
    httpd_stop(&plain);
    httpd_stop(&proxy);
}

static void bearer_is_checked(void **state)
{
    struct bench *b = *state;
    static const char *const bad[] = {"short", "sk-admin-with space",
                                      "sk-admin-\r\nX-Evil: 1",
                                      "sk-admin-\xc3\xa9xyz"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        secret_free(b->key);
        assert_int_equal(secret_dup(&b->key, bad[i], strlen(bad[i]), NULL), OK);
        assert_int_equal(post(b), ERR_INVALID);
    }
    assert_int_equal(b->server.connections, 0);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(headers_are_right),
        TEST(connections_are_kept),
        TEST(one_signature_one_send),
        TEST(idle_end_is_seen),
        TEST(redirects_are_replies),
        TEST(oversized),
        TEST(truncated),
        TEST(hanging),
        TEST(waits_as_told),
        TEST(nothing_was_sent),
        TEST(proxy_only_from_settings),
        TEST(plain_http_is_refused),
        TEST(plain_http_takes_no_proxy),
        TEST(bearer_is_checked),
    };
    struct error e;
    if (http_global_init(&e))
        return 1;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
