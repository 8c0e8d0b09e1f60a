/* One request from its arrival to its answer: the fault meant for it, the
 * latency, the service itself, the counters. */
#include "config.h"

#include "tests/adminsim/counter.h"
#include "tests/adminsim/fault.h"
#include "tests/adminsim/history.h"
#include "tests/adminsim/http.h"
#include "tests/adminsim/settings.h"

#include <stdlib.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

enum { HOLD_MS = 60000 };

static void sleep_ms(long long ms)
{
    struct timespec t = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000};
    while (ms > 0 && nanosleep(&t, &t) < 0)
        ;
}

static long long latency(void)
{
    world_lock();
    long long ms = settings.latency_ms;
    if (settings.latency_jitter_ms)
        ms += rand() % settings.latency_jitter_ms;
    world_unlock();
    return ms;
}

static void raw_reply(struct reply *r, int status, char *raw, size_t len)
{
    json_t *headers = json_incref(r->headers);
    reply_clear(r);
    r->status = status;
    r->raw = raw;
    r->raw_len = len;
    r->headers = headers;
}

static void take_headers(struct reply *r, const struct fault *f)
{
    if (!r->headers)
        r->headers = json_object();
    json_object_update(r->headers, json_object_get(f->spec, "headers"));
}

/* ---- the kinds: each makes of *r what the client gets ---- */

static void fault_status(struct reply *r, const struct fault *f)
{
    json_t *body = json_object_get(f->spec, "body");
    char *raw = json_is_string(body) ? strdup(json_string_value(body))
                : body               ? json_dumps(body, JSON_ENCODE_ANY)
                       : strdup("{\"error\":{\"message\":\"The server had an "
                                "error while processing your request.\","
                                "\"type\":\"server_error\",\"param\":null,"
                                "\"code\":null}}");
    raw_reply(r, (int)fault_number(f, "status", 500), must(raw), strlen(raw));
}

static void fault_drop(struct reply *r, const struct fault *f)
{
    (void)f;
    r->drop = true;
}

static void fault_reset(struct reply *r, const struct fault *f)
{
    (void)f;
    r->drop = r->reset = true;
}

static void fault_truncate(struct reply *r, const struct fault *f)
{
    char *raw = must(r->raw ? strdup(r->raw) : json_dumps(r->json, 0));
    size_t len = strlen(raw);
    raw_reply(r, r->status, raw, len);
    r->announced_len = len;
    r->raw_len = (size_t)fault_number(f, "bytes", (long long)len / 2);
    if (r->raw_len >= len)
        r->raw_len = len - 1;
}

static void fault_oversize(struct reply *r, const struct fault *f)
{
    size_t len = (size_t)fault_number(f, "bytes", 64LL << 20);
    char *raw =
        must(r->json ? json_dumps(r->json, JSON_COMPACT) : strdup("{}"));
    size_t own = strlen(raw);
    static const char member[] = ",\"padding\":\"";
    if (own < 3 || len < own + sizeof member + 2)
        len = own + sizeof member + 2;
    raw = must(realloc(raw, len + 1));
    memcpy(raw + own - 1, member, sizeof member - 1);
    memset(raw + own + sizeof member - 2, 'x', len - own - sizeof member);
    memcpy(raw + len - 2, "\"}", 3);
    raw_reply(r, r->status, raw, len);
}

static void fault_not_json(struct reply *r, const struct fault *f)
{
    static const char page[] = "<html><head><title>502 Bad Gateway</title>"
                               "</head><body>cloudflare</body></html>\n";
    json_t *body = json_object_get(f->spec, "body");
    char *raw = must(strdup(body ? json_string_value(body) : page));
    raw_reply(r, (int)fault_number(f, "status", r->status), raw, strlen(raw));
    if (!r->headers)
        r->headers = json_object();
    json_object_set_new(r->headers, "Content-Type", json_string("text/html"));
}

static void fault_deep(struct reply *r, const struct fault *f)
{
    size_t depth = (size_t)fault_number(f, "depth", 100000);
    char *raw = must(malloc(2 * depth + 1));
    memset(raw, '[', depth);
    memset(raw + depth, ']', depth);
    raw[2 * depth] = '\0';
    raw_reply(r, r->status, raw, 2 * depth);
}

/* Walk "api_key.value" or "data.0.id" to the last step's parent. */
static json_t *parent_of(json_t *j, char *path, const char **last)
{
    char *dot;
    while ((dot = strchr(path, '.'))) {
        *dot = '\0';
        j = json_is_array(j) ? json_array_get(j, strtoul(path, NULL, 10))
                             : json_object_get(j, path);
        path = dot + 1;
    }
    *last = path;
    return j;
}

static void fault_omit(struct reply *r, const struct fault *f)
{
    size_t i;
    json_t *field;
    json_array_foreach(json_object_get(f->spec, "fields"), i, field)
    {
        const char *last = "", *text = json_string_value(field);
        char *path = must(strdup(text ? text : ""));
        json_t *parent = parent_of(r->json, path, &last);
        json_object_del(parent, last);
        free(path);
    }
}

static void fault_set(struct reply *r, const struct fault *f)
{
    const char *name;
    json_t *value;
    json_object_foreach(json_object_get(f->spec, "fields"), name, value)
    {
        const char *last = "";
        char *path = must(strdup(name));
        json_t *parent = parent_of(r->json, path, &last);
        json_object_set(parent, last, value);
        free(path);
    }
}

static void fault_redirect(struct reply *r, const struct fault *f)
{
    json_t *to = json_object_get(f->spec, "location");
    raw_reply(r, (int)fault_number(f, "status", 307), must(strdup("{}")), 2);
    if (!r->headers)
        r->headers = json_object();
    json_object_set_new(r->headers, "Location",
                        to ? json_incref(to)
                           : json_string("https://evil.example/v1"));
}

typedef void fault_fn(struct reply *, const struct fault *);
static fault_fn *const apply[FAULT_KINDS] = {
    [FAULT_STATUS] = fault_status,     [FAULT_DROP] = fault_drop,
    [FAULT_TRUNCATE] = fault_truncate, [FAULT_OVERSIZE] = fault_oversize,
    [FAULT_NOT_JSON] = fault_not_json, [FAULT_DEEP] = fault_deep,
    [FAULT_OMIT] = fault_omit,         [FAULT_SET] = fault_set,
    [FAULT_REDIRECT] = fault_redirect, [FAULT_RESET] = fault_reset};

/* ---- one exchange ---- */

static void serve(struct request *q, struct reply *r, const char **pattern,
                  const struct fault *f)
{
    world_lock();
    int64_t expiry = settings.expiry;
    if (f && f->kind == FAULT_IGNORE_EXPIRY)
        settings.expiry = EXPIRY_IGNORE;
    if (f && f->kind == FAULT_REFUSE_EXPIRY)
        settings.expiry = EXPIRY_REFUSE;
    api_serve(q, r, pattern);
    settings.expiry = expiry;
    world_unlock();
    const char *id = json_string_value(json_object_get(r->json, "id"));
    snprintf(q->made, sizeof q->made, "%s",
             id && !strcmp(q->method, "POST") ? id : "");
    q->served++;
}

/* "reply": whose the client gets. */
static void serve_twice(struct request *q, struct reply *r,
                        const char **pattern, const struct fault *f)
{
    struct reply other = {0};
    const char *want = json_string_value(json_object_get(f->spec, "reply"));
    bool first = want && !strcmp(want, "first");
    serve(q, first ? r : &other, pattern, f);
    serve(q, first ? &other : r, pattern, f);
    reply_clear(&other);
}

static void with_fault(struct request *q, struct reply *r, const char **pattern,
                       const struct fault *f)
{
    fault_fn *fn = apply[f->kind];
    bool hold = f->kind == FAULT_HOLD;
    if (f->before) {
        sleep_ms(hold ? 0 : fault_number(f, "ms", 0));
        if (fn) {
            /* What works on a reply has one to work on. */
            *r = (struct reply){.status = 200, .json = json_object()};
            *pattern = api_pattern(q);
        }
    }
    if (f->before && hold)
        fault_hold(fault_number(f, "ms", HOLD_MS));
    if (f->kind == FAULT_TWICE)
        serve_twice(q, r, pattern, f);
    else if (!f->before || !fn)
        serve(q, r, pattern, f);
    if (!f->before && hold)
        fault_hold(fault_number(f, "ms", HOLD_MS));
    if (!f->before)
        sleep_ms(hold ? 0 : fault_number(f, "ms", 0));
    if (fn)
        fn(r, f);
    take_headers(r, f);
}

void exchange_serve(struct request *q, struct reply *r)
{
    const char *pattern = "unknown";
    char request_id[4 + 32 + 1] = "req_";
    struct fault f = {0};
    counter_begin();
    random_text(request_id + 4, 32);
    sleep_ms(latency());
    if (fault_take(q->method, q->path, &f))
        with_fault(q, r, &pattern, &f);
    else
        serve(q, r, &pattern, NULL);
    fault_clear(&f);
    if (!r->headers)
        r->headers = json_object();
    if (!json_object_get(r->headers, "x-request-id"))
        json_object_set_new(r->headers, "x-request-id",
                            json_string(request_id));
    history_add(q, r->drop ? 0 : r->status, request_id);
    counter_end(q, pattern, r->drop ? 0 : r->status, request_id);
}
