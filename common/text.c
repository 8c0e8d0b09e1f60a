#include "config.h"

#include "common/clock.h"
#include "common/text.h"

#include <errno.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <sys/random.h>

#define DURATION_LIMIT ((int64_t)10 * 365 * 86400)

static const struct unit {
    char letter;
    int64_t seconds;
} units[] = {{'d', 86400}, {'h', 3600}, {'m', 60}, {'s', 1}};
#define UNITS (sizeof units / sizeof units[0])

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static bool is_alnum(char c)
{
    return is_digit(c) || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

/* Digits at *s; false when there are none or they go beyond the limit. */
static bool take_number(const char **s, int64_t *value)
{
    const char *p = *s;
    int64_t v = 0;
    while (is_digit(*p) && v < DURATION_LIMIT)
        v = v * 10 + (*p++ - '0');
    bool some = p != *s && !is_digit(*p);
    *s = p;
    *value = v;
    return some;
}

/* Units from the largest down, each at most once. */
static bool parse_duration(const char *s, int64_t *seconds)
{
    int64_t total = 0;
    size_t unit = 0;
    if (!*s)
        return false;
    while (*s) {
        bool first = unit == 0 && total == 0;
        int64_t v;
        if (!take_number(&s, &v))
            return false;
        if (!*s && first) {
            total = v;
            break;
        }
        while (unit < UNITS && units[unit].letter != *s)
            unit++;
        if (unit == UNITS)
            return false;
        total += v * units[unit++].seconds; /* below 2^29 * 2^17 a step */
        s++;
    }
    *seconds = total;
    return total > 0 && total < DURATION_LIMIT;
}

enum code text_duration(const char *s, int64_t *seconds, struct error *e)
{
    if (s && parse_duration(s, seconds))
        return OK;
    return error_set(e, ERR_INVALID,
                     "\"%.40s\" is no duration: write 90s, 15m, 1h, 7d, 1h30m "
                     "or seconds, positive and below 10 years",
                     s ? s : "");
}

char *text_duration_format(int64_t seconds, char buf[TEXT_DURATION_MAX])
{
    char *p = buf;
    size_t room = TEXT_DURATION_MAX;
    uint64_t left = seconds < 0 ? 0 - (uint64_t)seconds : (uint64_t)seconds;
    if (left == 0)
        return memcpy(buf, "0s", 3);
    if (seconds < 0) {
        *p++ = '-';
        room--;
    }
    for (size_t i = 0; i < UNITS; i++) {
        uint64_t unit = (uint64_t)units[i].seconds;
        if (left < unit)
            continue;
        int n =
            snprintf(p, room, "%" PRIu64 "%c", left / unit, units[i].letter);
        p += n;
        room -= (size_t)n;
        left %= unit;
    }
    return buf;
}

/* The character at s (RFC 3629: no surrogate, no overlong form), 0 bytes long
 * when there is none. */
static size_t utf8_char(const uint8_t *s, size_t len, uint32_t *out)
{
    static const struct {
        uint8_t mask, lead;
        uint32_t least;
    } forms[] = {{0x80, 0x00, 0},
                 {0xe0, 0xc0, 0x80},
                 {0xf0, 0xe0, 0x800},
                 {0xf8, 0xf0, 0x10000}};
    for (size_t n = 0; n < 4 && n < len; n++) {
        if ((s[0] & forms[n].mask) != forms[n].lead)
            continue;
        uint32_t c = s[0] & (uint8_t)~forms[n].mask;
        for (size_t i = 1; i <= n; i++) {
            if ((s[i] & 0xc0) != 0x80)
                return 0;
            c = c << 6 | (s[i] & 0x3f);
        }
        if (c < forms[n].least || c > 0x10ffff || (c >= 0xd800 && c < 0xe000))
            return 0;
        *out = c;
        return n + 1;
    }
    return 0;
}

bool text_utf8_valid(const char *s, size_t len)
{
    const uint8_t *p = (const uint8_t *)s;
    uint32_t c;
    while (len) {
        size_t n = utf8_char(p, len, &c);
        if (n == 0)
            return false;
        p += n;
        len -= n;
    }
    return true;
}

/* What moves the cursor, starts an escape, ends the line or turns the reading
 * direction (Unicode's Bidi_Control and its two separators). */
static bool is_harmful(uint32_t c)
{
    return c < 0x20 || (c >= 0x7f && c < 0xa0) || c == 0x061c || c == 0x200e ||
           c == 0x200f || (c >= 0x2028 && c <= 0x202e) ||
           (c >= 0x2066 && c <= 0x2069);
}

static size_t escape(char *dst, size_t cap, const char *src, size_t len,
                     bool backslash)
{
    static const char digits[] = "0123456789abcdef";
    const uint8_t *p = (const uint8_t *)src;
    size_t at = 0;
    if (cap == 0)
        return 0;
    while (len) {
        uint32_t c;
        size_t n = utf8_char(p, len, &c);
        bool plain = n && !is_harmful(c) && !(backslash && c == '\\');
        if (n == 0)
            n = 1;
        size_t wanted = plain ? n : 4 * n;
        if (wanted >= cap - at)
            break;
        for (size_t i = 0; i < n; i++) {
            if (plain) {
                dst[at++] = (char)p[i];
                continue;
            }
            dst[at++] = '\\';
            dst[at++] = 'x';
            dst[at++] = digits[p[i] >> 4];
            dst[at++] = digits[p[i] & 15];
        }
        p += n;
        len -= n;
    }
    dst[at] = '\0';
    return at;
}

size_t text_escape(char *dst, size_t cap, const char *src, size_t len)
{
    return escape(dst, cap, src, len, false);
}

size_t text_quote(char *dst, size_t cap, const char *src, size_t len)
{
    return escape(dst, cap, src, len, true);
}

/* Whether all of s is letters, digits, '.', '_' and '-'. */
static bool is_name(const char *s, size_t max)
{
    size_t n = 0;
    while (n <= max && (is_alnum(s[n]) || (s[n] && strchr("._-", s[n]))))
        n++;
    return n > 0 && n <= max && s[n] == '\0';
}

enum code text_check_name(const char *what, const char *s, struct error *e)
{
    if (!s || !is_name(s, 63) || !is_alnum(s[0]))
        return error_set(e, ERR_INVALID,
                         "%s \"%.80s\": a name is 1 to 63 letters, digits, "
                         "'.', '_' or '-' and begins with a letter or digit",
                         what, s ? s : "");
    if (strcmp(s, "admin-key") == 0)
        return error_set(e, ERR_INVALID,
                         "%s \"admin-key\": this name is the sealed admin "
                         "key's; choose another",
                         what);
    return OK;
}

enum code text_check_service_id(const char *what, const char *s,
                                struct error *e)
{
    /* "." and ".." would change the path that the id goes into. */
    if (s && is_name(s, 128) && strspn(s, ".") != strlen(s))
        return OK;
    return error_set(e, ERR_INVALID,
                     "%s \"%.140s\": an id is 1 to 128 letters, digits, '.', "
                     "'_' or '-'",
                     what, s ? s : "");
}

enum code text_random(void *buf, size_t len, struct error *e)
{
    uint8_t *p = buf;
    while (len) {
        ssize_t n = getrandom(p, len, 0);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return error_errno(e, errno, "getrandom");
        p += n;
        len -= (size_t)n;
    }
    return OK;
}

static const char crockford[] = "0123456789abcdefghjkmnpqrstvwxyz";

/* The first 64 bits of the last id: 48 of time and 16 that grow within a
 * millisecond. One atomic, no lock: a child forked in the middle of a call
 * finds nothing held. */
static _Atomic uint64_t last_id;

static uint64_t next_prefix(uint64_t now_ms, uint16_t random)
{
    uint64_t fresh = now_ms << 16 | (random & 0x7fffu);
    uint64_t last = atomic_load(&last_id);
    uint64_t next;
    do {
        next = fresh > last ? fresh : last + 1;
    } while (!atomic_compare_exchange_weak(&last_id, &last, next));
    return next;
}

enum code text_id(char id[TEXT_ID_LEN + 1], struct error *e)
{
    struct {
        uint64_t tail;
        uint16_t start;
    } random;
    enum code rc = text_random(&random, sizeof random, e);
    if (rc)
        return rc;
    unsigned __int128 bits =
        (unsigned __int128)next_prefix((uint64_t)clock_wall_ms(), random.start)
            << 64 |
        random.tail;
    for (int i = TEXT_ID_LEN - 1; i >= 0; i--, bits >>= 5)
        id[i] = crockford[(unsigned)bits & 31];
    id[TEXT_ID_LEN] = '\0';
    return OK;
}

bool text_is_id(const char *s)
{
    return s && strlen(s) == TEXT_ID_LEN &&
           strspn(s, crockford) == TEXT_ID_LEN && s[0] <= '7';
}

enum code text_random_suffix(char *buf, size_t len, struct error *e)
{
    static const char letters[] = "abcdefghijklmnopqrstuvwxyz0123456789";
    const unsigned count = sizeof letters - 1;
    size_t at = 0;
    while (at < len) {
        uint8_t bytes[64];
        enum code rc = text_random(bytes, sizeof bytes, e);
        if (rc)
            return rc;
        for (size_t i = 0; i < sizeof bytes && at < len; i++)
            if (bytes[i] < 256 / count * count)
                buf[at++] = letters[bytes[i] % count];
    }
    buf[len] = '\0';
    return OK;
}

void text_hex(char *dst, const uint8_t *src, size_t len)
{
    static const char digits[] = "0123456789abcdef";
    for (size_t i = 0; i < len; i++) {
        *dst++ = digits[src[i] >> 4];
        *dst++ = digits[src[i] & 15];
    }
    *dst = '\0';
}

static int hex_value(char c)
{
    if (is_digit(c))
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

enum code text_unhex(uint8_t *dst, size_t cap, size_t *len, const char *hex,
                     struct error *e)
{
    size_t n = 0;
    while (hex[0]) {
        int high = hex_value(hex[0]);
        int low = high < 0 ? -1 : hex_value(hex[1]);
        if (low < 0)
            return error_set(e, ERR_INVALID,
                             "not hexadecimal: two of [0-9a-fA-F] a byte");
        if (n == cap)
            return error_set(e, ERR_INVALID, "more than %zu bytes", cap);
        dst[n++] = (uint8_t)(high << 4 | low);
        hex += 2;
    }
    *len = n;
    return OK;
}
