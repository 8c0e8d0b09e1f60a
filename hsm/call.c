/* call - see call.h. */
#include "config.h"

#include "hsm/call.h"

#include "common/clock.h"
#include "common/json.h"
#include "common/text.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- the table ---- */

#define ORG "/organization/"
enum queries { OF_LISTS = 1, OF_EVENTS = 2 };
static const struct allowed {
    const char *path; /* "*": one id */
    unsigned methods;
    unsigned queries;
} allowed[] = {
    {ORG "projects", CALL_GET, OF_LISTS},
    {ORG "projects/*", CALL_GET, OF_LISTS},
    {ORG "projects/*/service_accounts", CALL_GET | CALL_POST, OF_LISTS},
    {ORG "projects/*/service_accounts/*", CALL_GET | CALL_DELETE, OF_LISTS},
    {ORG "projects/*/service_accounts/*/api_keys", CALL_POST, OF_LISTS},
    {ORG "projects/*/api_keys", CALL_GET, OF_LISTS},
    {ORG "projects/*/api_keys/*", CALL_GET | CALL_POST, OF_LISTS},
    {ORG "admin_api_keys", CALL_GET | CALL_POST, OF_LISTS},
    {ORG "admin_api_keys/*", CALL_GET | CALL_DELETE, OF_LISTS},
    {ORG "audit_logs", CALL_GET, OF_EVENTS},
};

static const struct {
    const char *name;
    unsigned bit;
} methods[] = {{"GET", CALL_GET}, {"POST", CALL_POST}, {"DELETE", CALL_DELETE}};

static const struct {
    const char *name;
    unsigned queries; /* of which it may be */
} parameters[] = {{"after", OF_LISTS | OF_EVENTS},
                  {"limit", OF_LISTS | OF_EVENTS},
                  {"order", OF_LISTS},
                  {"include_archived", OF_LISTS},
                  {"owner_project_access", OF_LISTS},
                  {"effective_at%5Bgte%5D", OF_EVENTS},
                  {"tenant_only", OF_EVENTS}};

#define UNRESERVED                                                             \
    "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-"
#define ID_MAX 128

/* The id at the start of `p`: its length, 0 if there is none. What begins with
 * a dot could be taken for a step. */
static size_t id_length(const char *p)
{
    size_t n = strspn(p, UNRESERVED);
    return n > ID_MAX || *p == '.' ? 0 : n;
}

/* `path` ends at `end`. */
static bool path_matches(const char *pattern, const char *path, const char *end)
{
    if (memmem(path, (size_t)(end - path), "..", 2))
        return false;
    while (*pattern && path < end) {
        if (*pattern == '*') {
            size_t n = id_length(path);
            if (n == 0)
                return false;
            path += n;
            pattern++;
        } else if (*pattern++ != *path++) {
            return false;
        }
    }
    return !*pattern && path == end;
}

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1; /* one spelling only */
}

/* The length of a percent-encoded value without control characters, or -1. */
static long value_length(const char *p)
{
    const char *start = p;
    while (*p && *p != '&') {
        size_t n = strspn(p, UNRESERVED "~");
        p += n;
        if (n > 0)
            continue;
        int high = *p == '%' ? hex_digit(p[1]) : -1;
        int low = high >= 0 ? hex_digit(p[2]) : -1;
        if (low < 0 || high < 2 || (high == 7 && low == 15))
            return -1;
        p += 3;
    }
    return p - start;
}

static bool query_allowed(const char *p, unsigned queries)
{
    unsigned seen = 0;
    for (;;) {
        size_t n = strcspn(p, "="), i = 0, count;
        count = sizeof(parameters) / sizeof(parameters[0]);
        while (i < count && (!(parameters[i].queries & queries) ||
                             strlen(parameters[i].name) != n ||
                             strncmp(parameters[i].name, p, n) != 0))
            i++;
        if (i == count || p[n] != '=' || (seen & (1u << i)))
            return false;
        seen |= 1u << i;
        p += n + 1;
        long len = value_length(p);
        if (len <= 0)
            return false;
        p += len;
        if (*p == '\0')
            return true;
        p++; /* the & */
    }
}

static enum code check_body(unsigned method, const void *body, size_t len,
                            struct error *e)
{
    JSON j = NULL;
    if (len == 0)
        return OK;
    if (method != CALL_POST)
        return error_set(e, ERR_INVALID, "only a POST has a body");
    if (len > CALL_BODY_MAX)
        return error_set(e, ERR_INVALID, "a call's body is at most %d bytes",
                         CALL_BODY_MAX);
    enum code rc = json_parse(body, len, "a call's body", &j, e);
    if (rc)
        return rc;
    return json_is_object(j)
               ? OK
               : error_set(e, ERR_INVALID, "a call's body must be an object");
}

enum code call_check(const char *method, const char *path, const void *body,
                     size_t body_len, const char **name, struct error *e)
{
    unsigned bit = 0;
    for (size_t i = 0; i < sizeof(methods) / sizeof(methods[0]); i++) {
        if (strcmp(methods[i].name, method) == 0) {
            *name = methods[i].name;
            bit = methods[i].bit;
        }
    }
    size_t len = strlen(path), i = 0, n = sizeof(allowed) / sizeof(allowed[0]);
    const char *end = path + strcspn(path, "?");
    while (len <= CALL_PATH_MAX && i < n &&
           (!(allowed[i].methods & bit) ||
            !path_matches(allowed[i].path, path, end)))
        i++;
    if (len > CALL_PATH_MAX || i == n)
        return error_set(e, ERR_INVALID,
                         "%s %.200s is no call that may be signed", method,
                         path);
    if (*end &&
        (bit != CALL_GET || !query_allowed(end + 1, allowed[i].queries)))
        return error_set(e, ERR_INVALID,
                         "%s %.200s: this query may not be signed", method,
                         path);
    return check_body(bit, body, body_len, e);
}

/* ---- those that were signed ---- */

struct slot {
    char id[CALL_ID_LEN + 1]; /* "": free */
    int64_t since_ms;
    struct call *call; /* NULL while it is being signed */
};

struct calls {
    pthread_mutex_t lock;
    unsigned next;
    struct slot slots[CALL_TABLE];
};

void call_free(struct call *c)
{
    if (!c)
        return;
    if (c->body)
        wipe(c->body, c->body_len);
    free(c->body);
    free(c->url);
    free(c->signature_input);
    free(c->signature);
    free(c->content_digest);
    orgkey_unref(c->key);
    free(c);
}

void call_freep(struct call **c)
{
    call_free(*c);
}

enum code calls_new(struct calls **out, struct error *e)
{
    struct calls *t = calloc(1, sizeof(*t));
    if (!t)
        return error_set(e, ERR_NOMEM, "no memory for the table of calls");
    pthread_mutex_init(&t->lock, NULL);
    *out = t;
    return OK;
}

void calls_free(struct calls *t)
{
    if (!t)
        return;
    for (size_t i = 0; i < CALL_TABLE; i++)
        call_free(t->slots[i].call);
    pthread_mutex_destroy(&t->lock);
    free(t);
}

static bool stale(const struct slot *s, int64_t now_ms)
{
    return now_ms - s->since_ms > CALL_FRESH_MS || now_ms < s->since_ms;
}

/* The id's first four digits are its slot. NULL: not in the table. */
static struct slot *find(struct calls *t, const char *id)
{
    unsigned i = 0;
    if (strlen(id) != CALL_ID_LEN || sscanf(id, "%4x", &i) != 1 ||
        i >= CALL_TABLE || strcmp(t->slots[i].id, id) != 0)
        return NULL;
    return &t->slots[i];
}

enum code calls_reserve(struct calls *t, char id[CALL_ID_LEN + 1],
                        struct error *e)
{
    uint8_t random[CALL_ID_LEN / 2];
    struct call *old = NULL;
    enum code rc = text_random(random, sizeof(random), e);
    if (rc)
        return rc;
    int64_t now = clock_boot_ms();
    pthread_mutex_lock(&t->lock);
    unsigned i = t->next, tried = 0;
    while (tried < CALL_TABLE && t->slots[i].id[0] && !stale(&t->slots[i], now))
        i = (i + 1) % CALL_TABLE, tried++;
    struct slot *s = &t->slots[i];
    if (tried < CALL_TABLE) {
        random[0] = (uint8_t)(i >> 8);
        random[1] = (uint8_t)i;
        text_hex(s->id, random, sizeof(random));
        memcpy(id, s->id, sizeof(s->id));
        s->since_ms = now;
        old = s->call;
        s->call = NULL;
        t->next = (i + 1) % CALL_TABLE;
    }
    pthread_mutex_unlock(&t->lock);
    call_free(old);
    return tried < CALL_TABLE
               ? OK
               : error_set(e, ERR_LIMIT,
                           "%d signed calls wait to be executed; no more are "
                           "signed until some are, or are a minute old",
                           CALL_TABLE);
}

static struct call *empty(struct calls *t, const char *id, struct call *put)
{
    struct call *c = NULL;
    pthread_mutex_lock(&t->lock);
    struct slot *s = find(t, id);
    if (s) {
        c = s->call;
        s->call = put;
        if (put)
            s->since_ms = put->signed_at_ms;
        else
            s->id[0] = '\0';
    } else {
        c = put; /* its slot went to another: it took a minute to sign */
    }
    pthread_mutex_unlock(&t->lock);
    return c;
}

void calls_release(struct calls *t, const char *id)
{
    call_free(empty(t, id, NULL));
}

void calls_put(struct calls *t, struct call *c)
{
    call_free(empty(t, c->id, c));
}

enum code calls_take(struct calls *t, const char *id, struct call **out,
                     struct error *e)
{
    struct call *c = empty(t, id, NULL);
    int64_t now = clock_boot_ms();
    if (!c)
        return error_set(e, ERR_NOT_SIGNED,
                         "no signed call of this id waits: it was never "
                         "signed, or was executed");
    if (now - c->signed_at_ms > CALL_FRESH_MS || now < c->signed_at_ms) {
        call_free(c);
        return error_set(e, ERR_NOT_SIGNED,
                         "the call's signature is older than %d seconds",
                         CALL_FRESH_MS / 1000);
    }
    *out = c;
    return OK;
}
