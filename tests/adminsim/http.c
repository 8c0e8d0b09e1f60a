#include "config.h"

#include "tests/adminsim/http.h"

#include "tests/adminsim/counter.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <microhttpd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define BODY_MAX (4 * 1024 * 1024)
#define CONNECTIONS_MAX 2000

/* One request while it comes in. */
struct incoming {
    struct request q;
    char *body;
    char *path;
};

static size_t keep_escapes(void *cls, struct MHD_Connection *c, char *s)
{
    (void)cls;
    (void)c;
    return strlen(s);
}

static int hex(char c)
{
    static const char digits[] = "0123456789abcdef";
    const char *at = c ? strchr(digits, tolower((unsigned char)c)) : NULL;
    return at ? (int)(at - digits) : -1;
}

/* In place; %00 is left as it is. */
static void unescape(char *s, bool plus)
{
    char *to = s;
    for (; *s; s++) {
        int hi = *s == '%' ? hex(s[1]) : -1;
        int lo = hi >= 0 ? hex(s[2]) : -1;
        if (lo >= 0 && hi + lo) {
            *to++ = (char)(hi << 4 | lo);
            s += 2;
        } else {
            *to++ = plus && *s == '+' ? ' ' : *s;
        }
    }
    *to = '\0';
}

static enum MHD_Result take_query(void *cls, enum MHD_ValueKind kind,
                                  const char *name, const char *value)
{
    struct request *q = cls;
    (void)kind;
    char *n = must(strdup(name)), *v = must(strdup(value ? value : ""));
    unescape(n, true);
    unescape(v, true);
    size_t len = strlen(n);
    if (len > 2 && !strcmp(n + len - 2, "[]"))
        n[len - 2] = '\0';
    json_t *all = json_object_get(q->query, n);
    if (!all) {
        all = json_array();
        json_object_set_new(q->query, n, all);
    }
    json_array_append_new(all, json_string(v));
    free(n);
    free(v);
    return MHD_YES;
}

static enum MHD_Result take_header(void *cls, enum MHD_ValueKind kind,
                                   const char *name, const char *value)
{
    struct request *q = cls;
    (void)kind;
    char *lower = must(strdup(name));
    for (char *c = lower; *c; c++)
        *c = (char)tolower((unsigned char)*c);
    if (!strcmp(lower, "authorization")) {
        if (value && !strncmp(value, "Bearer ", 7) && value[7])
            q->bearer = value + 7;
    } else {
        json_object_set_new(q->headers, lower, json_string(value));
    }
    free(lower);
    return MHD_YES;
}

static struct incoming *begin(struct MHD_Connection *c, const char *url,
                              const char *method)
{
    struct incoming *in = must(calloc(1, sizeof *in));
    struct request *q = &in->q;
    q->method = method;
    q->path = url;
    q->query = json_object();
    q->headers = json_object();
    in->path = must(strdup(url));
    char *rest = in->path, *segment;
    while ((segment = strsep(&rest, "/")))
        if (*segment && q->n_segments < API_SEGMENTS) {
            unescape(segment, false);
            q->segments[q->n_segments++] = segment;
        }
    MHD_get_connection_values(c, MHD_GET_ARGUMENT_KIND, take_query, q);
    MHD_get_connection_values(c, MHD_HEADER_KIND, take_header, q);
    return in;
}

static void finished(void *cls, struct MHD_Connection *c, void **ctx,
                     enum MHD_RequestTerminationCode why)
{
    struct incoming *in = *ctx;
    (void)cls;
    (void)c;
    (void)why;
    if (!in)
        return;
    json_decref(in->q.query);
    json_decref(in->q.headers);
    json_decref(in->q.json);
    free(in->body);
    free(in->path);
    free(in);
    *ctx = NULL;
}

static bool take_body(struct incoming *in, const char *data, size_t len)
{
    if (in->q.body_len + len > BODY_MAX)
        return false;
    in->body = must(realloc(in->body, in->q.body_len + len + 1));
    memcpy(in->body + in->q.body_len, data, len);
    in->q.body_len += len;
    in->q.body = in->body;
    return true;
}

/* ---- replies ---- */

struct cut {
    char *raw;
    size_t len;
};

static ssize_t read_cut(void *cls, uint64_t at, char *buf, size_t max)
{
    const struct cut *c = cls;
    if (at >= c->len)
        return MHD_CONTENT_READER_END_WITH_ERROR;
    size_t n = c->len - at < max ? c->len - at : max;
    memcpy(buf, c->raw + at, n);
    return (ssize_t)n;
}

static void free_cut(void *cls)
{
    struct cut *c = cls;
    free(c->raw);
    free(c);
}

/* Takes r->raw. */
static struct MHD_Response *response_of(struct reply *r)
{
    char *raw = r->raw;
    r->raw = NULL;
    if (r->announced_len <= r->raw_len)
        return MHD_create_response_from_buffer(r->raw_len, raw,
                                               MHD_RESPMEM_MUST_FREE);
    struct cut *c = must(calloc(1, sizeof *c));
    *c = (struct cut){.raw = raw, .len = r->raw_len};
    return MHD_create_response_from_callback(r->announced_len, 4096, read_cut,
                                             c, free_cut);
}

/* Linux: this sends a RST, whatever was still to be said. */
static void reset_connection(struct MHD_Connection *c)
{
    const union MHD_ConnectionInfo *fd =
        MHD_get_connection_info(c, MHD_CONNECTION_INFO_CONNECTION_FD);
    struct sockaddr nobody = {.sa_family = AF_UNSPEC};
    if (fd)
        (void)!connect(fd->connect_fd, &nobody, sizeof nobody);
}

static enum MHD_Result send_reply(struct MHD_Connection *c, struct reply *r)
{
    if (r->reset)
        reset_connection(c);
    if (r->drop)
        return MHD_NO;
    if (!r->raw) {
        r->raw = must(json_dumps(r->json, JSON_COMPACT));
        r->raw_len = strlen(r->raw);
    }
    struct MHD_Response *m = must(response_of(r));
    const char *name;
    json_t *value;
    if (!json_object_get(r->headers, "Content-Type"))
        MHD_add_response_header(m, "Content-Type", "application/json");
    json_object_foreach(r->headers, name, value)
        MHD_add_response_header(m, name, json_string_value(value));
    enum MHD_Result ok = MHD_queue_response(c, (unsigned int)r->status, m);
    MHD_destroy_response(m);
    return ok;
}

static enum MHD_Result handle(void *cls, struct MHD_Connection *c,
                              const char *url, const char *method,
                              const char *version, const char *data,
                              size_t *len, void **ctx)
{
    http_serve_fn *serve = *(http_serve_fn **)cls;
    struct incoming *in = *ctx;
    (void)version;
    if (!in) {
        *ctx = begin(c, url, method);
        return MHD_YES;
    }
    if (*len) {
        bool ok = take_body(in, data, *len);
        *len = 0;
        return ok ? MHD_YES : MHD_NO;
    }
    if (in->q.body_len)
        in->q.json =
            json_loadb(in->body, in->q.body_len, JSON_DECODE_ANY, NULL);
    struct reply r = {0};
    serve(&in->q, &r);
    enum MHD_Result result = send_reply(c, &r);
    reply_clear(&r);
    return result;
}

static void connection(void *cls, struct MHD_Connection *c, void **ctx,
                       enum MHD_ConnectionNotificationCode what)
{
    (void)cls;
    (void)c;
    (void)ctx;
    counter_connection(what == MHD_CONNECTION_NOTIFY_STARTED ? 1 : -1);
}

static void uncounted(void *cls, struct MHD_Connection *c, void **ctx,
                      enum MHD_ConnectionNotificationCode what)
{
    (void)cls;
    (void)c;
    (void)ctx;
    (void)what;
}

uint16_t http_start(const struct http_options *o)
{
    struct sockaddr_in at = {.sin_family = AF_INET,
                             .sin_port = htons(o->port),
                             .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    http_serve_fn **serve = must(malloc(sizeof *serve)); /* for ever */
    *serve = o->serve;
    struct MHD_OptionItem tls[] = {
        {MHD_OPTION_HTTPS_MEM_KEY, 0, (void *)(uintptr_t)o->key},
        {MHD_OPTION_HTTPS_MEM_CERT, 0, (void *)(uintptr_t)o->cert},
        {MHD_OPTION_END, 0, NULL}};
    if (!o->key)
        tls[0] = tls[2];
    struct MHD_Daemon *d = MHD_start_daemon(
        MHD_USE_INTERNAL_POLLING_THREAD | MHD_USE_THREAD_PER_CONNECTION |
            MHD_USE_POLL | MHD_USE_ERROR_LOG | (o->key ? MHD_USE_TLS : 0),
        o->port, NULL, NULL, handle, serve, MHD_OPTION_SOCK_ADDR, &at,
        MHD_OPTION_CONNECTION_LIMIT, (unsigned int)CONNECTIONS_MAX,
        MHD_OPTION_NOTIFY_COMPLETED, finished, NULL,
        MHD_OPTION_NOTIFY_CONNECTION, o->counted ? connection : uncounted,
        NULL, MHD_OPTION_UNESCAPE_CALLBACK, keep_escapes, NULL,
        MHD_OPTION_THREAD_STACK_SIZE, (size_t)512 * 1024,
        MHD_OPTION_LISTEN_BACKLOG_SIZE, 512u, MHD_OPTION_ARRAY, tls,
        MHD_OPTION_END);
    if (!d) {
        perror("hsmint-adminsim: cannot listen on 127.0.0.1");
        return 0;
    }
    const union MHD_DaemonInfo *port =
        MHD_get_daemon_info(d, MHD_DAEMON_INFO_BIND_PORT);
    return port ? port->port : 0;
}
