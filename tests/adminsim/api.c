#include "config.h"

#include "tests/adminsim/api.h"

#include "tests/adminsim/settings.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const struct route *const tables[] = {admin_routes, key_routes,
                                             audit_routes, inference_routes};

void reply_clear(struct reply *r)
{
    json_decref(r->json);
    json_decref(r->headers);
    free(r->raw);
    *r = (struct reply){0};
}

static void reply_header(struct reply *r, const char *name, json_t *value)
{
    if (!r->headers)
        r->headers = json_object();
    json_object_set_new(r->headers, name, value);
}

static json_t *text_or_null(const char *s)
{
    return s ? json_string(s) : json_null();
}

void reply_error(struct reply *r, int status, const char *type,
                 const char *code, const char *param, const char *fmt, ...)
{
    va_list ap;
    va_start(ap, fmt);
    json_t *message = json_vsprintf(fmt, ap);
    va_end(ap);
    reply_clear(r);
    r->status = status;
    r->json = json_pack("{s{so, ss, so, so}}", "error", "message", message,
                        "type", type, "param", text_or_null(param), "code",
                        text_or_null(code));
}

bool api_match(const char *pattern, const struct request *q, size_t skip,
               const char *ids[4])
{
    size_t n = 0, i = skip;
    while (*pattern) {
        size_t len = strcspn(pattern, "/");
        if (i >= q->n_segments)
            return false;
        const char *s = q->segments[i++];
        if (len == 2 && pattern[0] == '{')
            ids[n++] = s;
        else if (strlen(s) != len || strncmp(s, pattern, len) != 0)
            return false;
        pattern += len + (pattern[len] == '/');
    }
    return i == q->n_segments;
}

/* *known: the path exists, whatever the method. */
static const struct route *find(const struct request *q, const char *ids[4],
                                bool *known)
{
    *known = false;
    if (q->n_segments < 1 || strcmp(q->segments[0], "v1") != 0)
        return NULL;
    for (size_t t = 0; t < sizeof tables / sizeof tables[0]; t++)
        for (const struct route *r = tables[t]; r->method; r++) {
            if (!api_match(r->pattern, q, 1, ids))
                continue;
            *known = true;
            if (!strcmp(r->method, q->method))
                return r;
        }
    return NULL;
}

const char *api_pattern(const struct request *q)
{
    const char *ids[4];
    bool known;
    const struct route *r = find(q, ids, &known);
    return r ? r->pattern : "unknown";
}

/* ---- who may come in ---- */

static int64_t window_start_ms;
static int64_t window_count;

void api_reset_rate(void)
{
    window_start_ms = window_count = 0;
}

static void tell_rate(struct reply *r, int64_t left, int64_t wait_ms)
{
    reply_header(r, "x-ratelimit-limit-requests",
                 json_sprintf("%lld", (long long)settings.rate_limit));
    reply_header(r, "x-ratelimit-remaining-requests",
                 json_sprintf("%lld", (long long)left));
    reply_header(r, "x-ratelimit-reset-requests",
                 json_sprintf("%lldms", (long long)wait_ms));
}

static bool within_rate(struct reply *r)
{
    if (!settings.rate_limit)
        return true;
    int64_t now = world_now_ms();
    if (now - window_start_ms >= settings.rate_window_ms ||
        now < window_start_ms) {
        window_start_ms = now;
        window_count = 0;
    }
    int64_t wait_ms = window_start_ms + settings.rate_window_ms - now;
    bool within = window_count++ < settings.rate_limit;
    if (settings.rate_headers)
        tell_rate(r, within ? settings.rate_limit - window_count : 0, wait_ms);
    if (within)
        return true;
    reply_error(r, 429, "requests", "rate_limit_exceeded", NULL,
                "Rate limit reached for organization. Limit: %lld, please try "
                "again after %lld.%03lld seconds.",
                (long long)settings.rate_limit, (long long)wait_ms / 1000,
                (long long)wait_ms % 1000);
    if (settings.retry_after)
        reply_header(r, "Retry-After",
                     json_sprintf("%lld", (long long)(wait_ms + 999) / 1000));
    return false;
}

static void refuse_key(struct reply *r, const char *bearer)
{
    size_t len = strlen(bearer);
    const char *tail = len > 16 ? bearer + len - 4 : "";
    reply_error(r, 401, "invalid_request_error", "invalid_api_key", NULL,
                "Incorrect API key provided: %.8s********%s. You can find "
                "your API key at "
                "https://platform.openai.com/account/api-keys.",
                len > 16 ? bearer : "", tail);
}

static bool right_organization(struct request *q, struct reply *r)
{
    const char *org =
        json_string_value(json_object_get(q->headers, "openai-organization"));
    if (!settings.check_organization || !org || !strcmp(org, "org-adminsim"))
        return true;
    reply_error(r, 401, "invalid_request_error", "mismatched_organization",
                NULL,
                "OpenAI-Organization header should match organization "
                "for API key");
    return false;
}

static bool authenticate(struct request *q, struct reply *r)
{
    if (!q->bearer) {
        reply_error(r, 401, "invalid_request_error", NULL, NULL,
                    "You didn't provide an API key. You need to provide your "
                    "API key in an Authorization header using Bearer auth.");
        return false;
    }
    q->key = world_key_by_value(q->bearer);
    if (!q->key || !key_accepted(q->key, world_now_ms())) {
        refuse_key(r, q->bearer);
        return false;
    }
    q->key->last_used_s = world_now_s();
    snprintf(q->key_id, sizeof q->key_id, "%s", q->key->o.id);
    return right_organization(q, r);
}

static bool permitted(const struct request *q, const struct route *route,
                      struct reply *r)
{
    if (route->admin == !q->key->project)
        return true;
    const char *scope = !route->admin       ? "model.request"
                        : *q->method == 'G' ? "api.management.read"
                                            : "api.management.write";
    reply_clear(r);
    r->status = 403;
    r->json = json_pack(
        "{so}", "error",
        json_sprintf("You have insufficient permissions for this operation. "
                     "Missing scopes: %s. Check that you have the correct "
                     "role in your organization.",
                     scope));
    return false;
}

void api_serve(struct request *q, struct reply *r, const char **pattern)
{
    bool known;
    const struct route *route = find(q, q->ids, &known);
    *pattern = route ? route->pattern : "unknown";
    if (!authenticate(q, r) || !within_rate(r))
        return;
    if (!route) {
        reply_error(r, known ? 405 : 404, "invalid_request_error",
                    known ? "method_not_supported" : "unknown_url", NULL,
                    known ? "Not allowed to %s on %s." : "Invalid URL (%s %s)",
                    q->method, q->path);
        return;
    }
    if (!permitted(q, route, r))
        return;
    if (*q->method == 'P' && q->body_len && !json_is_object(q->json)) {
        reply_error(r, 400, "invalid_request_error", NULL, NULL,
                    "We could not parse the JSON body of your request.");
        return;
    }
    route->handle(q, r);
}

/* ---- for handlers ---- */

const char *query_value(const struct request *q, const char *name)
{
    return json_string_value(
        json_array_get(json_object_get(q->query, name), 0));
}

bool query_admits(const struct request *q, const char *name, const char *value)
{
    json_t *all = json_object_get(q->query, name);
    for (size_t i = 0; i < json_array_size(all); i++)
        if (!strcmp(json_string_value(json_array_get(all, i)), value))
            return true;
    return !all;
}

struct project *request_project(struct request *q, struct reply *r)
{
    struct object *o = world_find(KIND_PROJECT, q->ids[0]);
    if (!o)
        reply_error(r, 404, "invalid_request_error", "project_not_found", NULL,
                    "Project with ID: '%s' not found.", q->ids[0]);
    return (struct project *)o;
}

const char *request_name(struct request *q, struct reply *r)
{
    const char *name = json_string_value(json_object_get(q->json, "name"));
    if (!name || !*name) {
        reply_error(r, 400, "invalid_request_error",
                    "missing_required_parameter", "name",
                    "Missing required parameter: 'name'.");
        return NULL;
    }
    size_t characters = 0;
    for (const char *c = name; *c; c++)
        characters += (*c & 0xc0) != 0x80;
    if ((int64_t)characters > settings.max_name) {
        reply_error(r, 400, "invalid_request_error", "string_above_max_length",
                    "name", "Invalid 'name': string too long.");
        return NULL;
    }
    return name;
}

bool request_expiry(struct request *q, struct reply *r, int64_t *expires_s)
{
    json_t *asked = json_object_get(q->json, "expires_in_seconds");
    int64_t seconds = json_integer_value(asked);
    *expires_s = 0;
    if (!asked || json_is_null(asked)) {
        if (!settings.max_expiry_s)
            return true;
        reply_error(r, 400, "invalid_request_error",
                    "missing_required_parameter", "expires_in_seconds",
                    "A policy of this organization requires an expiry.");
        return false;
    }
    int64_t most = settings.max_expiry_s ? settings.max_expiry_s : 31536000;
    if (settings.expiry == EXPIRY_REFUSE) {
        reply_error(r, 400, "invalid_request_error", "unknown_parameter",
                    "expires_in_seconds",
                    "Unknown parameter: 'expires_in_seconds'.");
        return false;
    }
    if (!json_is_integer(asked) || seconds < 1 || seconds > most) {
        reply_error(r, 400, "invalid_request_error", "invalid_value",
                    "expires_in_seconds",
                    "Invalid 'expires_in_seconds': expected an integer from 1 "
                    "to %lld.",
                    (long long)most);
        return false;
    }
    if (settings.expiry == EXPIRY_HONOUR)
        *expires_s = world_now_s() + seconds;
    return true;
}

static bool page_of(struct request *q, struct reply *r, size_t *limit)
{
    const char *text = query_value(q, "limit");
    char *end = NULL;
    long n = text ? strtol(text, &end, 10) : 20;
    if (n < 1 || n > 100 || (end && *end)) {
        reply_error(r, 400, "invalid_request_error", "invalid_value", "limit",
                    "Invalid 'limit': expected an integer from 1 to 100.");
        return false;
    }
    *limit = (size_t)n;
    return true;
}

/* Where the page begins; l->n when nothing is left. */
static bool first_of(struct request *q, struct reply *r, const struct list *l,
                     bool down, size_t *at)
{
    const char *after = query_value(q, "after");
    *at = down ? l->n - 1 : 0; /* down from an empty list: SIZE_MAX, ends */
    if (!after)
        return true;
    for (enum kind k = KIND_PROJECT; k <= KIND_EVENT; k++) {
        struct object *o = world_find(k, after);
        if (o && o->index < l->n && l->items[o->index] == o) {
            *at = down ? o->index - 1 : o->index + 1;
            return true;
        }
    }
    reply_error(r, 400, "invalid_request_error", "invalid_value", "after",
                "Invalid 'after': no such object.");
    return false;
}

void reply_list(struct request *q, struct reply *r, const struct list *l,
                show_fn *show, bool newest_first)
{
    const char *order = query_value(q, "order");
    bool down = order ? !strcmp(order, "desc") : newest_first;
    size_t limit, at;
    if (!page_of(q, r, &limit) || !first_of(q, r, l, down, &at))
        return;
    json_t *data = json_array();
    bool more = false;
    for (; at < l->n && !more; at += down ? (size_t)-1 : 1) {
        json_t *item = show(l->items[at], q);
        if (item && json_array_size(data) == limit) {
            more = true;
            json_decref(item);
        } else if (item) {
            json_array_append_new(data, item);
        }
    }
    size_t n = json_array_size(data);
    json_t *first = json_object_get(json_array_get(data, 0), "id");
    json_t *last = n ? json_object_get(json_array_get(data, n - 1), "id") : 0;
    bool named = n && !settings.null_cursors;
    r->status = 200;
    r->json =
        json_pack("{ss, sO, sO, sb, so}", "object", "list", "first_id",
                  named ? first : json_null(), "last_id",
                  named ? last : json_null(), "has_more", more, "data", data);
}

void reply_deleted(struct reply *r, const char *object, const char *id)
{
    r->status = 200;
    r->json =
        json_pack("{ss, ss, sb}", "object", object, "id", id, "deleted", true);
}
