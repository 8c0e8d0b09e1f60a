/* reply - see reply.h. */
#include "config.h"

#include "hsm/reply.h"

#include "common/file.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

static uint32_t clamp_ms(double ms)
{
    if (!(ms > 0))
        return 0;
    if (ms >= (double)REPLY_WAIT_MAX_MS)
        return REPLY_WAIT_MAX_MS;
    return ms < 1 ? 1 : (uint32_t)ms;
}

uint32_t reply_retry_after(const char *value, size_t len, int64_t wall_ms)
{
    char text[40];
    struct tm tm = {0};
    if (len == 0 || len >= sizeof(text))
        return 0;
    memcpy(text, value, len);
    text[len] = '\0';
    if (strspn(text, "0123456789") == len)
        return clamp_ms(strtod(text, NULL) * 1000);
    const char *end = strptime(text, "%a, %d %b %Y %H:%M:%S GMT", &tm);
    if (!end || *end)
        return 0;
    return clamp_ms((double)timegm(&tm) * 1000 - (double)wall_ms);
}

/* "1m2.5s", "6.937 seconds": numbers with their units, until something else
 * follows. */
static double parse_wait(const char *p)
{
    static const struct {
        const char *name;
        double ms;
    } units[] = {
        {"milliseconds", 1}, {"millisecond", 1}, {"ms", 1},
        {"seconds", 1000},   {"second", 1000},   {"sec", 1000},
        {"s", 1000},         {"minutes", 60000}, {"minute", 60000},
        {"min", 60000},      {"m", 60000},       {"hours", 3600000},
        {"hour", 3600000},   {"h", 3600000},
    };
    double total = 0;
    for (;;) {
        size_t digits = strspn(p, "0123456789."), i = 0;
        char number[24];
        if (digits == 0 || digits >= sizeof(number) || *p == '.')
            return total;
        memcpy(number, p, digits);
        number[digits] = '\0';
        p += digits;
        p += strspn(p, " ");
        while (i < sizeof(units) / sizeof(units[0]) &&
               strncmp(p, units[i].name, strlen(units[i].name)) != 0)
            i++;
        if (i == sizeof(units) / sizeof(units[0]))
            return total;
        total += strtod(number, NULL) * units[i].ms;
        p += strlen(units[i].name);
        p += strspn(p, " ");
    }
}

/* Borrowed from *j, which the caller frees; NULL where there is none. */
static json_t *parse_error(const char *body, size_t len, json_t **j)
{
    if (len == 0 || json_parse(body, len, "the reply", j, NULL))
        return NULL;
    return json_object_get(*j, "error");
}

uint32_t reply_message_wait(const char *body, size_t len)
{
    JSON j = NULL;
    json_t *error = parse_error(body, len, &j);
    const char *text =
        json_is_string(error)
            ? json_string_value(error)
            : json_string_value(json_object_get(error, "message"));
    const char *p = text ? strcasestr(text, "try again ") : NULL;
    if (!p)
        return 0;
    p += strlen("try again ");
    if (strncmp(p, "after ", 6) == 0)
        return clamp_ms(parse_wait(p + 6));
    if (strncmp(p, "in ", 3) == 0)
        return clamp_ms(parse_wait(p + 3));
    return 0;
}

#define RATE_DIGITS 15 /* no limit has more */

int64_t reply_rate_count(const char *value, size_t len)
{
    char text[RATE_DIGITS + 1];
    if (len == 0 || len >= sizeof(text))
        return -1;
    memcpy(text, value, len);
    text[len] = '\0';
    return strspn(text, "0123456789") == len ? strtoll(text, NULL, 10) : -1;
}

uint32_t reply_rate_reset(const char *value, size_t len)
{
    char text[40];
    if (len == 0 || len >= sizeof(text))
        return 0;
    memcpy(text, value, len);
    text[len] = '\0';
    if (strspn(text, "0123456789.") == len)
        return clamp_ms(strtod(text, NULL) * 1000);
    return clamp_ms(parse_wait(text));
}

static void copy_token(char *out, size_t cap, const char *value, size_t len)
{
    size_t n = 0;
    while (n < len && n < cap - 1 &&
           memchr("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
                  "0123456789._-",
                  value[n], 65)) {
        out[n] = value[n];
        n++;
    }
    out[n < len && n < cap - 1 ? 0 : n] = '\0'; /* foreign bytes: nothing */
}

void reply_request_id(char out[ERROR_REQUEST_ID_MAX], const char *value,
                      size_t len)
{
    copy_token(out, ERROR_REQUEST_ID_MAX, value, len);
}

void reply_error_code(char out[REPLY_CODE_MAX], const char *body, size_t len)
{
    JSON j = NULL;
    json_t *code = json_object_get(parse_error(body, len, &j), "code");
    const char *text = json_string_value(code);
    out[0] = '\0';
    if (text)
        copy_token(out, REPLY_CODE_MAX, text, strlen(text));
}

enum code reply_take_admin_key(const char *body, size_t len, json_t **rest,
                               struct secret **value, char **key_id,
                               struct error *e)
{
    static const char *const known[] = {
        "object",     "id",           "name",  "redacted_value", "created_at",
        "expires_at", "last_used_at", "owner", "error"};
    JSON all = NULL;
    JSON kept = json_object();
    FREE char *id = NULL;
    enum code rc = json_parse(body, len, "the reply", &all, e);
    if (rc || !json_is_object(all))
        return error_set(e, ERR_SERVICE_REPLY,
                         "the reply to the new admin key is no JSON object");
    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++) {
        json_t *member = json_object_get(all, known[i]);
        if (member && json_object_set(kept, known[i], member))
            return error_set(e, ERR_NOMEM, "no memory for a reply");
    }
    const json_t *key = json_object_get(all, "value");
    const char *text = json_string_value(json_object_get(all, "id"));
    if (text && !(id = strdup(text)))
        return error_set(e, ERR_NOMEM, "no memory for a reply");
    if (json_is_string(key) && json_string_length(key) > 0) {
        rc = secret_dup(value, json_string_value(key), json_string_length(key),
                        e);
        if (rc)
            return rc;
    }
    *rest = kept;
    kept = NULL;
    *key_id = id;
    id = NULL;
    return OK;
}

enum code reply_minted_key(const char *body, size_t len, struct secret **value,
                           struct error *e)
{
    JSON all = NULL;
    enum code rc = json_parse(body, len, "the reply", &all, e);
    if (rc)
        return rc;
    const json_t *made = json_object_get(all, "api_key");
    const json_t *key = json_object_get(made ? made : all, "value");
    size_t n = json_string_length(key);
    if (n == 0 || n > SECRET_MAX - 5)
        return OK;
    return secret_dup(value, json_string_value(key), n, e);
}
