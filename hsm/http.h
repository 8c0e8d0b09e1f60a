/* http - one request to the service, over TLS, sent at most once.
 *
 * One `struct http` a thread; it keeps its connections between calls (HTTP/1.1
 * unless settings->http2). Proxy, CA and limits come from the settings alone.
 * No redirect is followed: any status is a reply.
 *
 * Errors tell the caller whether the service may have acted:
 *   ERR_SERVICE_DOWN     nothing was sent (name, connection, TLS, proxy)
 *   ERR_SERVICE_UNKNOWN  sent, and no whole reply came
 *   ERR_SERVICE_REPLY    a GET's reply beyond settings->reply_max
 *   any other            refused before anything was sent
 */
#ifndef HSMINT_HTTP_H
#define HSMINT_HTTP_H

#include "common/secret.h"
#include "common/settings.h"

#include <stdbool.h>

struct http;

MUST_CHECK enum code http_global_init(struct error *e); /* before threads */
MUST_CHECK enum code http_new(struct http **out, const struct settings *s,
                              struct error *e);
void http_free(struct http *h); /* takes NULL; closes the connections */

struct http_request {
    const char *method; /* "GET", "POST", "DELETE" */
    const char *url;
    const uint8_t *body; /* JSON; POST only */
    size_t body_len;
    const struct secret *bearer; /* NULL: none, no key is sent */
    const char *organization_id; /* NULL or "": no such header */
    const char *const *headers;  /* further ones, NULL-ended; or NULL */
};
struct http_rate { /* x-ratelimit-…-requests; limit 0: not told */
    int64_t limit, remaining;
    uint32_t reset_ms;
};
struct http_reply {
    long status;
    struct http_rate rate;
    char request_id[ERROR_REQUEST_ID_MAX];
    uint32_t retry_after_ms; /* from header or message; 0: not told */
    int64_t duration_us;
    uint8_t *body; /* owned, malloc */
    size_t body_len;
};
void http_reply_clear(struct http_reply *r); /* wipes */
#define HTTP_REPLY CLEANUP(http_reply_clear) struct http_reply

/* What the service, or a proxy on the way, quotes of the bearer key is starred
 * in the body, and a request id that holds it is dropped. */
MUST_CHECK enum code http_send(struct http *h, const struct http_request *q,
                               struct http_reply *r, struct error *e);

/* Star each place where `key`, or a long beginning of it, is in the text. */
void http_hide_key(const struct secret *key, void *text, size_t len);
/* Could this be a bearer key: visible ASCII, no space? */
bool http_bearer_valid(const struct secret *key);

#endif
