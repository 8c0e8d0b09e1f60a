/* http - see http.h.
 *
 * Each call has an easy handle of its own (libcurl keeps received bytes in the
 * handle's buffers until it is freed), on a multi handle of the thread that
 * keeps the connections. The bearer header is wiped here; libcurl's and
 * OpenSSL's copies go by the wiping free() of the whole program
 * (common/wipefree.c) and by SSL_OP_CLEANSE_PLAINTEXT.
 *
 * One send: libcurl repeats a request by itself when a kept connection turns
 * out to be closed, and a POST that is sent twice makes two accounts. The
 * pre-request hook refuses the second. So that this stays rare, a connection is
 * used again only within KEEP_S, and all are dropped when one of their sockets
 * has something to say while idle (an end, or a TLS close_notify, which
 * libcurl's own look at the socket takes for life). What is left is a server
 * that closes in the very moment: ERR_SERVICE_UNKNOWN, and the daemon searches.
 */
#include "config.h"

#include "hsm/http.h"

#include "common/clock.h"
#include "common/frame.h"
#include "hsm/hsm.h"
#include "hsm/reply.h"

#include <curl/curl.h>
#include <openssl/ssl.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define KEEP_S 30L
#define SOCKETS 8
#define HEADERS_MAX (256 * 1024)
#define BEARER_MAX 4096

struct http {
    const struct settings *settings;
    CURLM *multi;
    int sockets[SOCKETS]; /* open now; -1 free */
    bool untracked;       /* more than SOCKETS were open */
};

struct transfer { /* one call */
    const struct http_request *request;
    struct http_reply *reply;
    uint64_t reply_max;
    size_t capacity, headers;
    int sends; /* how often libcurl wanted to send the request */
    bool oversized, refused;
    CURL *easy;
    struct curl_slist *list;
    struct secret *header;
    char why[CURL_ERROR_SIZE];
};

enum code http_global_init(struct error *e)
{
    if (curl_global_init(CURL_GLOBAL_DEFAULT))
        return error_set(e, ERR_INTERNAL, "libcurl does not start");
    const curl_version_info_data *v = curl_version_info(CURLVERSION_NOW);
    if (!v->ssl_version || strncmp(v->ssl_version, "OpenSSL/", 8) != 0)
        return error_set(e, ERR_INTERNAL,
                         "libcurl was built on another TLS library than "
                         "OpenSSL, whose buffers could not be wiped");
    return OK;
}

enum code http_new(struct http **out, const struct settings *s, struct error *e)
{
    struct http *h = calloc(1, sizeof(*h));
    if (!h)
        return error_set(e, ERR_NOMEM, "no memory for a connection");
    h->settings = s;
    for (size_t i = 0; i < SOCKETS; i++)
        h->sockets[i] = -1;
    *out = h;
    return OK;
}

void http_free(struct http *h)
{
    if (!h)
        return;
    if (h->multi)
        curl_multi_cleanup(h->multi);
    free(h);
}

void http_reply_clear(struct http_reply *r)
{
    if (r->body)
        wipe(r->body, r->body_len);
    free(r->body);
    *r = (struct http_reply){.status = 0};
}

bool http_bearer_valid(const struct secret *key)
{
    size_t len = secret_len(key);
    const uint8_t *p = secret_data(key);
    if (len < 8 || len > BEARER_MAX)
        return false;
    unsigned bad = 0;
    for (size_t i = 0; i < len; i++)
        bad |= (p[i] < 0x21) | (p[i] > 0x7e);
    return bad == 0;
}

/* ---- sockets, watched while idle ---- */

static curl_socket_t open_socket(void *ctx, curlsocktype purpose,
                                 struct curl_sockaddr *a)
{
    struct http *h = ctx;
    (void)purpose;
    int fd = socket(a->family, a->socktype | SOCK_CLOEXEC, a->protocol);
    if (fd < 0)
        return CURL_SOCKET_BAD;
    for (size_t i = 0; i < SOCKETS; i++) {
        if (h->sockets[i] < 0) {
            h->sockets[i] = fd;
            return fd;
        }
    }
    h->untracked = true;
    return fd;
}

static int close_socket(void *ctx, curl_socket_t fd)
{
    struct http *h = ctx;
    for (size_t i = 0; i < SOCKETS; i++)
        if (h->sockets[i] == fd)
            h->sockets[i] = -1;
    return close(fd);
}

/* HTTP/2 servers may speak on an idle connection, HTTP/1.1 ones only end it. */
static bool idle_disturbed(const struct http *h)
{
    struct pollfd p[SOCKETS];
    short ends = POLLRDHUP | POLLHUP | POLLERR | POLLNVAL;
    for (size_t i = 0; i < SOCKETS; i++)
        p[i] = (struct pollfd){.fd = h->sockets[i],
                               .events = POLLRDHUP |
                                         (h->settings->http2 ? 0 : POLLIN)};
    if (h->untracked)
        return true;
    if (poll(p, SOCKETS, 0) == 0)
        return false;
    for (size_t i = 0; i < SOCKETS; i++)
        if (p[i].fd >= 0 && (p[i].revents & (ends | POLLIN)))
            return true;
    return false;
}

static enum code fresh_multi(struct http *h, struct error *e)
{
    if (h->multi && idle_disturbed(h)) {
        curl_multi_cleanup(h->multi);
        h->multi = NULL;
        h->untracked = false;
    }
    if (!h->multi) {
        h->multi = curl_multi_init();
        if (!h->multi ||
            curl_multi_setopt(h->multi, CURLMOPT_MAXCONNECTS, SOCKETS / 2L))
            return error_set(e, ERR_NOMEM, "no memory for a connection");
    }
    return OK;
}

/* ---- what libcurl calls ---- */

static int before_send(void *ctx, char *to, char *from, int to_port,
                       int from_port)
{
    struct transfer *t = ctx;
    (void)to, (void)from, (void)to_port, (void)from_port;
    if (t->sends++ == 0)
        return CURL_PREREQFUNC_OK;
    t->refused = true;
    return CURL_PREREQFUNC_ABORT;
}

static size_t on_body(char *data, size_t one, size_t n, void *ctx)
{
    struct transfer *t = ctx;
    struct http_reply *r = t->reply;
    (void)one;
    if (n > t->reply_max - r->body_len) {
        t->oversized = true;
        return CURL_WRITEFUNC_ERROR;
    }
    if (r->body_len + n > t->capacity) {
        size_t cap = t->capacity ? t->capacity * 2 : 4096;
        while (cap < r->body_len + n)
            cap *= 2;
        uint8_t *grown = malloc(cap);
        if (!grown)
            return CURL_WRITEFUNC_ERROR;
        if (r->body_len > 0)
            memcpy(grown, r->body, r->body_len);
        if (r->body)
            wipe(r->body, r->body_len);
        free(r->body);
        r->body = grown;
        t->capacity = cap;
    }
    memcpy(r->body + r->body_len, data, n);
    r->body_len += n;
    return n;
}

static bool header_is(const char *line, size_t len, const char *name,
                      const char **value, size_t *value_len)
{
    size_t n = strlen(name);
    if (len <= n || line[n] != ':' || strncasecmp(line, name, n) != 0)
        return false;
    const char *v = line + n + 1, *end = line + len;
    while (v < end && (*v == ' ' || *v == '\t'))
        v++;
    while (end > v && strchr(" \t\r\n", end[-1]))
        end--;
    *value = v;
    *value_len = (size_t)(end - v);
    return true;
}

static void on_rate(struct http_rate *rate, const char *line, size_t n)
{
    const char *value;
    size_t len;
    if (header_is(line, n, "x-ratelimit-limit-requests", &value, &len))
        rate->limit = reply_rate_count(value, len);
    else if (header_is(line, n, "x-ratelimit-remaining-requests", &value, &len))
        rate->remaining = reply_rate_count(value, len);
    else if (header_is(line, n, "x-ratelimit-reset-requests", &value, &len))
        rate->reset_ms = reply_rate_reset(value, len);
}

static size_t on_header(char *line, size_t one, size_t n, void *ctx)
{
    struct transfer *t = ctx;
    struct http_reply *r = t->reply;
    const char *value;
    size_t len;
    (void)one;
    t->headers += n;
    if (t->headers > HEADERS_MAX) {
        t->oversized = true;
        return CURL_WRITEFUNC_ERROR;
    }
    if (n > 5 && strncmp(line, "HTTP/", 5) == 0) { /* an interim one before */
        r->retry_after_ms = 0;
        r->request_id[0] = '\0';
        r->rate = (struct http_rate){.remaining = -1};
    } else if (header_is(line, n, "retry-after", &value, &len)) {
        r->retry_after_ms = reply_retry_after(value, len, clock_wall_ms());
    } else if (header_is(line, n, "x-request-id", &value, &len)) {
        reply_request_id(r->request_id, value, len);
    } else {
        on_rate(&r->rate, line, n);
    }
    return n;
}

static CURLcode on_tls(CURL *easy, void *context, void *ctx)
{
    (void)easy, (void)ctx;
    SSL_CTX_set_options(context, SSL_OP_CLEANSE_PLAINTEXT);
    SSL_CTX_set_mode(context, SSL_MODE_RELEASE_BUFFERS);
    SSL_CTX_set_keylog_callback(context, NULL);
    return CURLE_OK;
}

/* ---- one call ---- */

static void transfer_clear(struct transfer *t)
{
    for (struct curl_slist *l = t->list; l; l = l->next)
        wipe(l->data, strlen(l->data));
    curl_slist_free_all(t->list);
    curl_easy_cleanup(t->easy);
    secret_free(t->header);
    secret_clear_registers();
}

static int64_t now_us(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000 + t.tv_nsec / 1000;
}

static bool add_header(struct transfer *t, const char *line)
{
    struct curl_slist *l = curl_slist_append(t->list, line);
    if (l)
        t->list = l;
    return l;
}

static enum code set_headers(struct transfer *t, struct error *e)
{
    static const char bearer[] = "Authorization: Bearer ";
    const struct http_request *q = t->request;
    size_t n = sizeof(bearer) - 1, len = q->bearer ? secret_len(q->bearer) : 0;
    enum code rc = q->bearer ? secret_new(&t->header, n + len + 1, e) : OK;
    if (rc)
        return rc;
    uint8_t *line = q->bearer ? secret_bytes(t->header) : NULL;
    if (line) {
        memcpy(line, bearer, n);
        memcpy(line + n, secret_data(q->bearer), len);
    }
    char org[SEAL_TEXT_MAX + 32];
    bool ok = (!line || add_header(t, (const char *)line)) &&
              add_header(t, "Expect:") &&
              add_header(t, "Accept: application/json") &&
              add_header(t, q->body_len ? "Content-Type: application/json"
                                        : "Content-Type:");
    if (ok && q->organization_id && *q->organization_id) {
        snprintf(org, sizeof(org), "OpenAI-Organization: %s",
                 q->organization_id);
        ok = add_header(t, org);
    }
    for (const char *const *h = q->headers; ok && h && *h; h++)
        ok = add_header(t, *h);
    return ok ? OK : error_set(e, ERR_NOMEM, "no memory for a request");
}

#define SET(option, value)                                                     \
    do {                                                                       \
        if (curl_easy_setopt(t->easy, option, value))                          \
            return #option;                                                    \
    } while (0)

/* Nothing of this comes from the environment. Plain http is for this machine:
 * a proxy would get the key in the clear. NULL, or what failed. */
static const char *set_way(struct http *h, struct transfer *t)
{
    const struct settings *s = h->settings;
    bool tls = strncasecmp(t->request->url, "https:", 6) == 0;
    SET(CURLOPT_PROXY, s->proxy && tls ? s->proxy : "");
    SET(CURLOPT_NOPROXY, s->no_proxy ? s->no_proxy : "");
    if (s->ca_file) {
        SET(CURLOPT_CAINFO, s->ca_file);
        SET(CURLOPT_CAPATH, NULL);
    }
    SET(CURLOPT_PROTOCOLS_STR, s->allow_http_loopback ? "http,https" : "https");
    SET(CURLOPT_SSL_VERIFYPEER, 1L);
    SET(CURLOPT_SSL_VERIFYHOST, 2L);
    SET(CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
    SET(CURLOPT_SSL_CTX_FUNCTION, on_tls);
    SET(CURLOPT_HTTP_VERSION,
        s->http2 ? (long)CURL_HTTP_VERSION_2TLS : (long)CURL_HTTP_VERSION_1_1);
    SET(CURLOPT_NOSIGNAL, 1L);
    SET(CURLOPT_NETRC, (long)CURL_NETRC_IGNORED);
    SET(CURLOPT_FOLLOWLOCATION, 0L);
    SET(CURLOPT_CONNECTTIMEOUT_MS, (long)s->connect_ms);
    SET(CURLOPT_TIMEOUT_MS, (long)s->call_ms);
    SET(CURLOPT_MAXAGE_CONN, KEEP_S);
    SET(CURLOPT_TCP_NODELAY, 1L);
    SET(CURLOPT_SUPPRESS_CONNECT_HEADERS, 1L);
    SET(CURLOPT_OPENSOCKETFUNCTION, open_socket);
    SET(CURLOPT_OPENSOCKETDATA, h);
    SET(CURLOPT_CLOSESOCKETFUNCTION, close_socket);
    SET(CURLOPT_CLOSESOCKETDATA, h);
    return NULL;
}

static const char *set_request(struct transfer *t)
{
    const struct http_request *q = t->request;
    SET(CURLOPT_ERRORBUFFER, t->why);
    SET(CURLOPT_URL, q->url);
    SET(CURLOPT_HTTPHEADER, t->list);
    SET(CURLOPT_USERAGENT, "hsmint/" PACKAGE_VERSION);
    SET(CURLOPT_PREREQFUNCTION, before_send);
    SET(CURLOPT_PREREQDATA, t);
    SET(CURLOPT_WRITEFUNCTION, on_body);
    SET(CURLOPT_WRITEDATA, t);
    SET(CURLOPT_HEADERFUNCTION, on_header);
    SET(CURLOPT_HEADERDATA, t);
    if (strcmp(q->method, "POST") == 0) {
        SET(CURLOPT_POST, 1L);
        SET(CURLOPT_POSTFIELDSIZE, (long)q->body_len);
        SET(CURLOPT_POSTFIELDS, q->body_len ? (const char *)q->body : "");
    } else if (strcmp(q->method, "GET") != 0) {
        SET(CURLOPT_CUSTOMREQUEST, q->method);
    }
    return NULL;
}

static enum code perform(struct http *h, struct transfer *t, CURLcode *result,
                         struct error *e)
{
    int running = 1, left;
    CURLMcode m = curl_multi_add_handle(h->multi, t->easy);
    while (!m && running) {
        m = curl_multi_perform(h->multi, &running);
        if (!m && running)
            m = curl_multi_poll(h->multi, NULL, 0, 1000, NULL);
    }
    *result = CURLE_FAILED_INIT;
    const CURLMsg *msg = curl_multi_info_read(h->multi, &left);
    if (msg && msg->msg == CURLMSG_DONE)
        *result = msg->data.result;
    curl_easy_getinfo(t->easy, CURLINFO_RESPONSE_CODE, &t->reply->status);
    curl_multi_remove_handle(h->multi, t->easy);
    if (m)
        snprintf(t->why, sizeof(t->why), "%s", curl_multi_strerror(m));
    return m && t->sends == 0 ? error_set(e, ERR_SERVICE_DOWN, "%s: %s",
                                          t->request->method, t->why)
                              : OK;
}

/* What a failed transfer means for the caller. */
static enum code outcome(const struct transfer *t, CURLcode result,
                         struct error *e)
{
    const struct http_request *q = t->request;
    const char *why = t->why[0] ? t->why : curl_easy_strerror(result);
    enum code rc;
    if (result == CURLE_OK)
        return OK;
    if (t->sends == 0)
        return error_set(e, ERR_SERVICE_DOWN,
                         "%s %s was not sent: %s (check the network, proxy and "
                         "ca_file in hsmint.conf)",
                         q->method, q->url, why);
    if (t->oversized) {
        rc = strcmp(q->method, "GET") == 0 ? ERR_SERVICE_REPLY
                                           : ERR_SERVICE_UNKNOWN;
        error_set(e, rc, "the reply to %s %s is larger than reply_max allows",
                  q->method, q->url);
    } else if (t->refused) {
        rc = error_set(e, ERR_SERVICE_UNKNOWN,
                       "the service closed the connection on %s %s without a "
                       "reply; it was sent once and is not repeated",
                       q->method, q->url);
    } else {
        rc = error_set(e, ERR_SERVICE_UNKNOWN,
                       "%s %s was sent and no whole reply came: %s", q->method,
                       q->url, why);
    }
    if (e)
        memcpy(e->service_request_id, t->reply->request_id,
               sizeof(e->service_request_id));
    return rc;
}

/* The first characters are enough: who quotes a key may cut it. Longer than
 * what a service shows of a key in short (orgkey.h). */
#define ECHO_HEAD 24

static size_t echo_head(const struct secret *key)
{
    return secret_len(key) < ECHO_HEAD ? secret_len(key) : ECHO_HEAD;
}

void http_hide_key(const struct secret *key, void *text, size_t len)
{
    const uint8_t *k = secret_data(key);
    uint8_t *p = text, *end = p + len;
    size_t head = echo_head(key);
    while (head > 0 && p < end && (p = memmem(p, (size_t)(end - p), k, head))) {
        size_t n = head;
        while (n < secret_len(key) && p + n < end && p[n] == k[n])
            n++;
        memset(p, '*', n);
        p += n;
    }
}

static void hide_echo(const struct secret *key, struct http_reply *r)
{
    char *id = r->request_id;
    if (r->body)
        http_hide_key(key, r->body, r->body_len);
    if (memmem(id, strlen(id), secret_data(key), echo_head(key)))
        wipe(id, sizeof(r->request_id));
}

enum code http_send(struct http *h, const struct http_request *q,
                    struct http_reply *r, struct error *e)
{
    CLEANUP(transfer_clear)
    struct transfer t = {
        .request = q, .reply = r, .reply_max = h->settings->reply_max};
    if (t.reply_max > FRAME_BODY_MAX)
        t.reply_max = FRAME_BODY_MAX;
    if (q->bearer && !http_bearer_valid(q->bearer))
        return error_set(e, ERR_INVALID, "the key is no bearer key");
    enum code rc = fresh_multi(h, e);
    if (rc || (rc = set_headers(&t, e)))
        return rc;
    if (!(t.easy = curl_easy_init()))
        return error_set(e, ERR_NOMEM, "no memory for a request");
    const char *failed = set_way(h, &t);
    if (!failed)
        failed = set_request(&t);
    if (failed)
        return error_set(e, ERR_INTERNAL, "libcurl refused %s", failed);
    int64_t start = now_us();
    CURLcode result;
    rc = perform(h, &t, &result, e);
    r->duration_us = now_us() - start;
    if (q->bearer)
        hide_echo(q->bearer, r);
    if (rc || (rc = outcome(&t, result, e))) {
        http_reply_clear(r);
        return rc;
    }
    if (r->status >= 400 && r->retry_after_ms == 0 && r->body)
        r->retry_after_ms =
            reply_message_wait((const char *)r->body, r->body_len);
    return OK;
}
