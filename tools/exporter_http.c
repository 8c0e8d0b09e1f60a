/* What scrapers see: GET /metrics and GET /, nothing else. */
#include "config.h"

#include "common/file.h"
#include "common/log.h"
#include "common/wire.h"
#include "tools/exporter.h"
#include "tools/exposition.h"

#include <arpa/inet.h>
#include <errno.h>
#include <microhttpd.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    CONNECTIONS_MAX = 64,
    IDLE_S = 10, /* a connection that says nothing */
    CONNECTION_BYTES = 16 * 1024,
    BACKLOG = 64
};
#define UNIX_MODE 0660

struct http {
    struct MHD_Daemon *daemon;
    struct scrape *scrape;
    bool loopback; /* listens there; else on a socket */
};

/* ---- sockets ---- */

struct place {
    union {
        struct sockaddr any;
        struct sockaddr_in in;
        struct sockaddr_in6 in6;
    } at;
    socklen_t len;
};

static bool parse_port(const char *text, in_port_t *port)
{
    char *end;
    long n = strtol(text, &end, 10);
    if (end == text || *end || n < 0 || n > 65535)
        return false;
    *port = htons((in_port_t)n);
    return true;
}

/* Numbers only: a name could be made to mean another machine. */
static bool parse_address(const char *host, in_port_t port, struct place *p)
{
    *p = (struct place){.len = 0};
    if (inet_pton(AF_INET, host, &p->at.in.sin_addr) == 1) {
        p->at.in.sin_family = AF_INET;
        p->at.in.sin_port = port;
        p->len = sizeof p->at.in;
        return true;
    }
    if (inet_pton(AF_INET6, host, &p->at.in6.sin6_addr) != 1)
        return false;
    p->at.in6.sin6_family = AF_INET6;
    p->at.in6.sin6_port = port;
    p->len = sizeof p->at.in6;
    return true;
}

static bool is_loopback(const struct place *p)
{
    if (p->at.any.sa_family == AF_INET)
        return ntohl(p->at.in.sin_addr.s_addr) >> 24 == 127;
    return IN6_IS_ADDR_LOOPBACK(&p->at.in6.sin6_addr);
}

static enum code parse_place(const char *where, struct place *p,
                             struct error *e)
{
    char host[64] = "";
    in_port_t port;
    const char *colon = strrchr(where, ':');
    size_t len = colon ? (size_t)(colon - where) : 0;
    bool bracketed = len >= 2 && *where == '[' && where[len - 1] == ']';
    if (bracketed)
        where++, len -= 2;
    if (colon && len < sizeof host)
        memcpy(host, where, len);
    if (!*host || !parse_port(colon + 1, &port) ||
        !parse_address(host, port, p))
        return error_set(e, ERR_USAGE,
                         "--listen: has to be 127.0.0.1:PORT or [::1]:PORT");
    if (is_loopback(p))
        return OK;
    return error_set(e, ERR_USAGE,
                     "--listen %s: is not this machine itself: there is "
                     "neither TLS nor a login here; put a proxy that has both "
                     "before 127.0.0.1, or let the node exporter carry a "
                     "--textfile",
                     host);
}

enum code http_listen_loopback(const char *where, int *fd, struct error *e)
{
    struct place p;
    char text[INET6_ADDRSTRLEN];
    enum code rc = parse_place(where, &p, e);
    if (rc)
        return rc;
    FD s = socket(p.at.any.sa_family, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (s < 0 || setsockopt(s, SOL_SOCKET, SO_REUSEADDR, &(int){1},
                            sizeof(int)) != 0 ||
        bind(s, &p.at.any, p.len) != 0 || listen(s, BACKLOG) != 0 ||
        getsockname(s, &p.at.any, &p.len) != 0)
        return error_errno(e, errno, "cannot listen on %s", where);
    bool v4 = p.at.any.sa_family == AF_INET;
    inet_ntop(p.at.any.sa_family,
              v4 ? (void *)&p.at.in.sin_addr : (void *)&p.at.in6.sin6_addr,
              text, sizeof text);
    log_info(v4 ? "http://%s:%d/metrics" : "http://[%s]:%d/metrics", text,
             ntohs(v4 ? p.at.in.sin_port : p.at.in6.sin6_port));
    *fd = s;
    s = -1;
    return OK;
}

enum code http_listen_unix(const char *path, int *fd, struct error *e)
{
    FD there = -1;
    if (wire_connect(path, 1000, &there, NULL) == OK)
        return error_set(e, ERR_BUSY, "--unix %s: somebody listens there",
                         path);
    enum code rc = wire_listen(path, UNIX_MODE, fd, e);
    if (rc == OK)
        log_info("socket %s", path);
    return rc;
}

/* ---- requests ---- */

/* `text` is taken, unless it is static. */
static enum MHD_Result reply(struct MHD_Connection *c, unsigned status,
                             const char *type, char *text, size_t len,
                             enum MHD_ResponseMemoryMode mode)
{
    struct MHD_Response *r = MHD_create_response_from_buffer(len, text, mode);
    if (!r) {
        if (mode == MHD_RESPMEM_MUST_FREE)
            free(text);
        return MHD_NO;
    }
    (void)MHD_add_response_header(r, MHD_HTTP_HEADER_CONTENT_TYPE, type);
    (void)MHD_add_response_header(r, MHD_HTTP_HEADER_CACHE_CONTROL, "no-store");
    (void)MHD_add_response_header(r, "X-Content-Type-Options", "nosniff");
    if (status == MHD_HTTP_METHOD_NOT_ALLOWED)
        (void)MHD_add_response_header(r, MHD_HTTP_HEADER_ALLOW, "GET");
    enum MHD_Result done = MHD_queue_response(c, status, r);
    MHD_destroy_response(r);
    return done;
}

static enum MHD_Result say(struct MHD_Connection *c, unsigned status,
                           const char *text)
{
    return reply(c, status, "text/plain; charset=utf-8",
                 (char *)(uintptr_t)text, strlen(text), MHD_RESPMEM_PERSISTENT);
}

/* 200 also while the daemon is down: hsmint_up tells that, and Prometheus' own
 * `up` stays what it is, whether there is an exporter. */
static enum MHD_Result metrics(struct http *h, struct MHD_Connection *c)
{
    struct error e = {.code = OK};
    char *text = NULL;
    size_t len = 0;
    if (scrape_text(h->scrape, &text, &len, NULL, &e)) {
        log_failure(&e, "a scrape");
        return say(c, MHD_HTTP_INTERNAL_SERVER_ERROR, "out of memory\n");
    }
    return reply(c, MHD_HTTP_OK, EXPOSITION_TYPE, text, len,
                 MHD_RESPMEM_MUST_FREE);
}

/* A page in somebody's browser on this machine may have a name of its own lead
 * here (DNS rebinding): who comes by another name than this machine's own is
 * not meant. `host` NULL: HTTP/1.0, which no browser speaks. */
static bool is_own_name(const char *host)
{
    char name[64] = "";
    struct place p;
    bool bracketed = host && *host == '[';
    size_t len = host ? strcspn(host + bracketed, bracketed ? "]" : ":") : 0;
    if (!host)
        return true;
    if (len < sizeof name)
        memcpy(name, host + bracketed, len);
    return !strcasecmp(name, "localhost") ||
           (parse_address(name, 0, &p) && is_loopback(&p));
}

/* A request is answered once its head is there; a body is not read. */
static enum MHD_Result handle(void *ctx, struct MHD_Connection *c,
                              const char *url, const char *method,
                              const char *version, const char *data,
                              size_t *data_len, void **state)
{
    (void)version, (void)data, (void)data_len, (void)state;
    const struct http *h = ctx;
    if (h->loopback && !is_own_name(MHD_lookup_connection_value(
                           c, MHD_HEADER_KIND, MHD_HTTP_HEADER_HOST)))
        return say(c, MHD_HTTP_MISDIRECTED_REQUEST,
                   "Host: has to be a loopback address or localhost: ask "
                   "http://127.0.0.1, or have the proxy say that\n");
    if (strcmp(method, MHD_HTTP_METHOD_GET))
        return say(c, MHD_HTTP_METHOD_NOT_ALLOWED, "GET only\n");
    if (!strcmp(url, "/metrics"))
        return metrics(ctx, c);
    if (!strcmp(url, "/"))
        return say(c, MHD_HTTP_OK, "hsmint-exporter: see /metrics\n");
    return say(c, MHD_HTTP_NOT_FOUND, "not here; see /metrics\n");
}

/* ---- start, stop ---- */

static bool is_local(int fd)
{
    struct sockaddr_storage a = {.ss_family = AF_UNSPEC};
    socklen_t len = sizeof a;
    return getsockname(fd, (struct sockaddr *)&a, &len) == 0 &&
           a.ss_family == AF_UNIX;
}

enum code http_start(struct http **out, int fd, struct scrape *s,
                     struct error *e)
{
    struct http *h = calloc(1, sizeof(*h));
    if (!h) {
        close(fd);
        return error_set(e, ERR_NOMEM, "no memory");
    }
    h->scrape = s;
    h->loopback = !is_local(fd);
    h->daemon = MHD_start_daemon(
        MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_POLL, 0, NULL, NULL, handle,
        h, MHD_OPTION_LISTEN_SOCKET, (MHD_socket)fd,
        MHD_OPTION_CONNECTION_LIMIT, (unsigned)CONNECTIONS_MAX,
        MHD_OPTION_CONNECTION_TIMEOUT, (unsigned)IDLE_S,
        MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)CONNECTION_BYTES,
        MHD_OPTION_END);
    if (!h->daemon) {
        close(fd);
        free(h);
        return error_set(e, ERR_IO, "cannot start the HTTP server");
    }
    *out = h;
    return OK;
}

void http_stop(struct http *h)
{
    if (!h)
        return;
    MHD_stop_daemon(h->daemon); /* closes the socket, ends its thread */
    free(h);
}
