/* field - see field.h. */
#include "config.h"

#include "module/core/field.h"

#include "common/text.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define URL_MAX 255

static bool is_known(const char *const *names, const char *name)
{
    for (; *names; names++) {
        if (strcmp(*names, name) == 0)
            return true;
    }
    return false;
}

enum code field_check_names(json_t *fields, const char *const *names,
                            const char *what, struct error *e)
{
    char known[512] = "";
    const char *name;
    json_t *value;
    size_t n = 0;

    if (!json_is_object(fields))
        return error_set(e, ERR_INVALID, "%s: an object of fields is needed",
                         what);
    for (const char *const *i = names; *i && n < sizeof(known); i++)
        n += (size_t)snprintf(known + n, sizeof(known) - n, "%s%s",
                              n ? ", " : "", *i);
    json_object_foreach(fields, name, value)
    {
        if (!is_known(names, name))
            return error_set(e, ERR_INVALID,
                             "%s: unknown field \"%.64s\"; there are %s", what,
                             name, known);
    }
    return OK;
}

static bool is_plain(const char *s, size_t len)
{
    for (size_t i = 0; i < len; i++) {
        if ((unsigned char)s[i] < 0x20 || s[i] == 0x7f)
            return false;
    }
    return text_utf8_valid(s, len);
}

enum code field_text(json_t *fields, const char *name, size_t max, char **out,
                     struct error *e)
{
    json_t *value = json_object_get(fields, name);
    const char *text = json_is_null(value) ? "" : json_string_value(value);
    size_t len = json_string_length(value);
    char *copy;

    if (!value)
        return OK;
    if (!text)
        return error_set(e, ERR_INVALID, "%s: a text is needed", name);
    if (len > max)
        return error_set(e, ERR_INVALID,
                         "%s: %zu characters are too many, at most %zu", name,
                         len, max);
    if (!is_plain(text, len))
        return error_set(e, ERR_INVALID,
                         "%s: control characters are not allowed", name);
    copy = strdup(text);
    if (!copy)
        return error_set(e, ERR_NOMEM, "no memory for %s", name);
    free(*out);
    *out = copy;
    return OK;
}

enum code field_bool(json_t *fields, const char *name, bool *out,
                     struct error *e)
{
    static const char *const yes[] = {"true", "yes", "1", NULL};
    static const char *const no[] = {"false", "no", "0", NULL};
    json_t *value = json_object_get(fields, name);
    const char *text = json_string_value(value);

    if (!value || json_is_null(value))
        return OK;
    if (json_is_boolean(value))
        *out = json_is_true(value);
    else if (text && is_known(yes, text))
        *out = true;
    else if (text && is_known(no, text))
        *out = false;
    else
        return error_set(e, ERR_INVALID, "%s: true or false is needed", name);
    return OK;
}

/* -1: none. */
static int64_t count_of(json_t *value)
{
    const char *text = json_string_value(value);
    int64_t n = 0;

    if (json_is_integer(value))
        return json_integer_value(value);
    if (json_is_null(value))
        return 0;
    if (!text || strlen(text) > 18 ||
        strlen(text) != json_string_length(value))
        return -1;
    for (; *text; text++) {
        if (*text < '0' || *text > '9')
            return -1;
        n = n * 10 + (*text - '0');
    }
    return n;
}

enum code field_count(json_t *fields, const char *name, int64_t max,
                      int64_t *out, struct error *e)
{
    json_t *value = json_object_get(fields, name);
    int64_t n = value ? count_of(value) : 0;

    if (!value)
        return OK;
    if (n < 0 || n > max)
        return error_set(e, ERR_INVALID,
                         "%s: a number from 0 (no limit) to %lld is needed",
                         name, (long long)max);
    *out = n;
    return OK;
}

enum code field_duration(json_t *fields, const char *name, bool optional,
                         int64_t *out, struct error *e)
{
    json_t *value = json_object_get(fields, name);
    const char *text = json_string_value(value);
    enum code code = OK;

    if (!value || json_is_null(value))
        return OK;
    if (optional && ((text && !*text) || (text && strcmp(text, "0") == 0) ||
                     (json_is_integer(value) && !json_integer_value(value)))) {
        *out = 0;
        return OK;
    }
    if (json_is_integer(value) && json_integer_value(value) > 0)
        *out = json_integer_value(value);
    else if (text && is_plain(text, json_string_length(value)))
        code = text_duration(text, out, e);
    else
        return error_set(e, ERR_INVALID,
                         "%s: a duration is needed, like 90s, 15m, 1h, 7d or "
                         "seconds",
                         name);
    return code ? error_prefix(e, "%s", name) : OK;
}

/* ---- URLs ---- */

static bool is_loopback(const char *host, size_t len)
{
    static const char *const hosts[] = {"localhost", "127.0.0.1", "[::1]"};

    for (size_t i = 0; i < sizeof(hosts) / sizeof(hosts[0]); i++) {
        if (strlen(hosts[i]) == len && strncasecmp(hosts[i], host, len) == 0)
            return true;
    }
    return false;
}

static size_t host_len(const char *host)
{
    size_t n;

    if (*host == '[') {
        n = 1 + strspn(host + 1, "0123456789abcdefABCDEF:.");
        return host[n] == ']' && n > 1 ? n + 1 : 0;
    }
    for (n = 0; isalnum((unsigned char)host[n]) || strchr("-.", host[n]); n++) {
        if (host[n] == '\0')
            break;
    }
    return *host == '.' || *host == '-' ? 0 : n;
}

static bool is_port(const char *s, size_t len)
{
    char text[6];
    size_t digits = strspn(s, "0123456789");

    if (digits != len || len == 0 || len > 5)
        return false;
    memcpy(text, s, len);
    text[len] = '\0';
    return atoi(text) > 0 && atoi(text) <= 65535;
}

static const char *check_url(const char *url, bool http_loopback)
{
    bool https = strncmp(url, "https://", 8) == 0;
    const char *host = url + (https ? 8 : 7);
    const char *rest;
    size_t len;

    if (!https && strncmp(url, "http://", 7) != 0)
        return "it must begin with https://";
    if (strchr(host, '@'))
        return "it must not hold a user name";
    if (strpbrk(host, "?#"))
        return "it must have neither query nor fragment";
    len = host_len(host);
    if (len == 0)
        return "it names no host";
    if (!https && !(http_loopback && is_loopback(host, len)))
        return "plain http is allowed to a loopback host only, and only with "
               "allow_http_loopback in [service] of hsmint.conf";
    rest = host + len;
    len = *rest == ':' ? strcspn(rest + 1, "/") : 0;
    if (*rest == ':' && !is_port(rest + 1, len))
        return "its port is no number from 1 to 65535";
    rest += *rest == ':' ? len + 1 : 0;
    if (*rest && *rest != '/')
        return "its host holds characters that are not allowed";
    for (; *rest; rest++) {
        if (!isalnum((unsigned char)*rest) && !strchr("/._~-", *rest))
            return "its path holds characters that are not allowed";
    }
    return strstr(host, "/.") || strstr(host, "//")
               ? "its path holds empty or relative steps"
               : NULL;
}

enum code field_check_url(const char *name, char *url, bool http_loopback,
                          struct error *e)
{
    const char *wrong;
    size_t len = strlen(url);

    if (len == 0 || len > URL_MAX)
        return error_set(e, ERR_INVALID, "%s: 1 to %d characters are needed",
                         name, URL_MAX);
    wrong = check_url(url, http_loopback);
    if (wrong)
        return error_set(e, ERR_INVALID, "%s \"%s\": %s", name, url, wrong);
    if (url[len - 1] == '/')
        url[len - 1] = '\0';
    return OK;
}
