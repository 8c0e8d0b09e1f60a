#include "config.h"

#include "common/settings_value.h"

#include "common/hosts.h"
#include "common/settings.h"
#include "common/text.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- texts ---- */

static bool in_words(const char *words, const char *value)
{
    char wanted[32];
    int n = snprintf(wanted, sizeof wanted, "|%s|", value);
    return n > 0 && (size_t)n < sizeof wanted && !strchr(value, '|') &&
           strstr(words, wanted);
}

static bool is_absolute(const char *value)
{
    return value[0] == '/';
}

static bool is_uri(const char *value)
{
    return strncmp(value, "pkcs11:", 7) == 0;
}

static bool are_syscalls(const char *value)
{
    return !value[strspn(value, "abcdefghijklmnopqrstuvwxyz0123456789_ ")];
}

/* As the name of a signed note's key (c2sp.org/signed-note), and safe in a
 * path. A number at its end would be an epoch of the log. */
static bool is_origin(const char *value)
{
    const char *slash = strrchr(value, '/');
    const char *last = slash ? slash + 1 : value;
    static const char good[] = "abcdefghijklmnopqrstuvwxyz"
                               "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~/";
    size_t len = strlen(value);
    return len <= SETTINGS_ORIGIN_MAX && strspn(value, good) == len &&
           value[0] != '/' && last[strspn(last, "0123456789")] != '\0';
}

static bool is_pin_source(const char *value)
{
    return value[0] == '/' || (strncmp(value, "credential:", 11) == 0 &&
                               value[11] != '\0' && !strchr(value, '/'));
}

static const struct {
    bool (*good)(const char *value);
    const char *write; /* what to write */
} texts[] = {
    [PATH] = {is_absolute, "write an absolute path"},
    [URI] = {is_uri, "write a pkcs11: URI (RFC 7512)"},
    [SYSCALLS] = {are_syscalls, "write names of system calls with blanks "
                                "between them"},
    [HOSTS] = {hosts_valid, "write host names with blanks between them, "
                            "without ports; *.NAME stands for all below NAME"},
    [ORIGIN] = {is_origin, "write a name such as log.example/hsmint, of "
                           "letters, digits and -._~/, with no number at its "
                           "end"},
    [PIN_SOURCE] = {is_pin_source, "write an absolute path or "
                                   "credential:NAME"},
};

enum code value_check_text(enum value_kind kind, const char *name,
                           const char *value, const char *words,
                           struct error *e)
{
    if (kind == WORD && words && !in_words(words, value))
        return error_set(e, ERR_CONFIG, "%s = %.64s: choose one of %s", name,
                         value, words);
    if (kind == URI && strstr(value, "pin-value"))
        return error_set(e, ERR_CONFIG,
                         "%s: holds a PIN (pin-value): use pin_source", name);
    if (kind == WORD || texts[kind].good(value))
        return OK;
    if (kind == PIN_SOURCE) /* it may be a PIN */
        return error_set(e, ERR_CONFIG, "%s: %s", name, texts[kind].write);
    return error_set(e, ERR_CONFIG, "%s = %.64s: %s", name, value,
                     texts[kind].write);
}

/* ---- numbers ---- */

static bool parse_bool(const char *value, int64_t *out)
{
    *out = in_words("|yes|true|on|1|", value);
    return *out || in_words("|no|false|off|0|", value);
}

/* Digits and, for sizes, K, M or G (powers of 1024). */
static bool parse_number(const char *value, bool size, int64_t *out)
{
    static const char suffixes[] = "KMG";
    char *end;
    if (value[0] < '0' || value[0] > '9')
        return false;
    errno = 0;
    long long n = strtoll(value, &end, 10);
    if (errno)
        return false;
    const char *suffix = *end && size ? strchr(suffixes, *end) : NULL;
    int shift = suffix ? 10 * (int)(suffix - suffixes + 1) : 0;
    if (end[suffix ? 1 : 0] != '\0' || n > INT64_MAX >> shift)
        return false;
    *out = (int64_t)n << shift;
    return true;
}

static bool parse_duration(const char *value, int64_t *out)
{
    return strcmp(value, "0") == 0 || text_duration(value, out, NULL) == OK;
}

static const struct {
    const char *write, *unit;
} numbers[] = {
    [BOOLEAN] = {"yes or no", ""},
    [NUMBER] = {"a number", ""},
    [SIZE] = {"bytes, or a number with K, M or G", " bytes"},
    [SECONDS] = {"a duration such as 30s or 5m", " seconds"},
    [PERIOD] = {"0 (never), or a duration such as 8760h", " seconds"},
    [MS] = {"a duration such as 30s or 5m", " milliseconds"},
};

enum code value_number(enum value_kind kind, const char *name,
                       const char *value, int64_t min, int64_t max, int64_t *n,
                       struct error *e)
{
    *n = 0;
    bool good = kind == BOOLEAN ? parse_bool(value, n)
                : kind == SECONDS || kind == PERIOD || kind == MS
                    ? parse_duration(value, n)
                    : parse_number(value, kind == SIZE, n);
    if (!good)
        return error_set(e, ERR_CONFIG, "%s = %.64s: write %s", name, value,
                         numbers[kind].write);
    if (kind == MS)
        *n *= 1000;
    if (kind == PERIOD && *n == 0)
        return OK;
    if (kind != BOOLEAN && (*n < min || *n > max))
        return error_set(e, ERR_CONFIG,
                         "%s = %.64s: allowed are %s%lld to %lld%s", name,
                         value, kind == PERIOD ? "0 (never) and " : "",
                         (long long)min, (long long)max, numbers[kind].unit);
    return OK;
}
