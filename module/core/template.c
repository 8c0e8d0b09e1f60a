/* template - see template.h. A recursive descent that evaluates as it reads:
 * texts are short and each is read once a mint. */
#include "config.h"

#include "module/core/template.h"

#include "common/text.h"
#include "module/core/golayout.h"

#include <ctype.h>
#include <openssl/evp.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { VALUE_MAX = 700, ARGS_MAX = 3, DEPTH_MAX = 8, RANDOM_MAX = 64 };
#define SUFFIX_LEN 8
/* Wednesday, 30 September 2026 22:59:59.999: no layout gives more. */
#define LONGEST_DAY_MS INT64_C(1790809199999)

struct value {
    bool is_number;
    int64_t number;
    size_t len;
    char text[VALUE_MAX + 1];
};

struct reader {
    const char *at;
    const struct template_input *in;
    size_t name_max; /* RoleName and ProjectName are cut to this */
    char suffix[SUFFIX_LEN + 1];
    int depth;
    struct error *e;
};

static enum code put(struct reader *r, struct value *v, const char *s,
                     size_t len)
{
    if (len > VALUE_MAX)
        return error_set(r->e, ERR_INVALID,
                         "template: a value is longer than %d characters",
                         VALUE_MAX);
    v->is_number = false;
    memmove(v->text, s, len);
    v->text[len] = '\0';
    v->len = len;
    return OK;
}

static enum code put_text(struct reader *r, struct value *v, const char *s)
{
    return put(r, v, s, strlen(s));
}

/* ---- functions: args are checked; the result goes into *out ---- */

static enum code do_random(struct reader *r, const struct value *a,
                           struct value *out)
{
    char text[RANDOM_MAX + 1];
    enum code code;

    if (a[0].number < 1 || a[0].number > RANDOM_MAX)
        return error_set(r->e, ERR_INVALID,
                         "template: random takes 1 to %d, not %lld", RANDOM_MAX,
                         (long long)a[0].number);
    code = text_random_suffix(text, (size_t)a[0].number, r->e);
    return code ? code : put(r, out, text, (size_t)a[0].number);
}

static enum code do_truncate(struct reader *r, const struct value *a,
                             struct value *out)
{
    size_t len = a[1].len;

    if (a[0].number < 1)
        return error_set(r->e, ERR_INVALID,
                         "template: truncate takes 1 or more, not %lld",
                         (long long)a[0].number);
    if ((uint64_t)a[0].number < len)
        len = (size_t)a[0].number;
    return put(r, out, a[1].text, len);
}

static enum code do_uppercase(struct reader *r, const struct value *a,
                              struct value *out)
{
    enum code code = put(r, out, a[0].text, a[0].len);

    for (size_t i = 0; i < out->len; i++)
        out->text[i] = (char)toupper((unsigned char)out->text[i]);
    return code;
}

static enum code do_lowercase(struct reader *r, const struct value *a,
                              struct value *out)
{
    enum code code = put(r, out, a[0].text, a[0].len);

    for (size_t i = 0; i < out->len; i++)
        out->text[i] = (char)tolower((unsigned char)out->text[i]);
    return code;
}

static enum code do_replace(struct reader *r, const struct value *a,
                            struct value *out)
{
    struct value result = {.len = 0};
    const char *p = a[2].text;

    if (a[0].len == 0)
        return error_set(r->e, ERR_INVALID,
                         "template: replace needs a text to look for");
    while (*p) {
        bool hit = strncmp(p, a[0].text, a[0].len) == 0;
        const char *from = hit ? a[1].text : p;
        size_t len = hit ? a[1].len : 1;

        if (result.len + len > VALUE_MAX)
            return error_set(r->e, ERR_INVALID,
                             "template: replace gives too long a text");
        memcpy(result.text + result.len, from, len);
        result.len += len;
        p += hit ? a[0].len : 1;
    }
    return put(r, out, result.text, result.len);
}

static enum code do_sha256(struct reader *r, const struct value *a,
                           struct value *out)
{
    uint8_t digest[32];
    char hex[65];

    if (EVP_Digest(a[0].text, a[0].len, digest, NULL, EVP_sha256(), NULL) != 1)
        return error_set(r->e, ERR_INTERNAL, "template: SHA-256 failed");
    text_hex(hex, digest, sizeof(digest));
    return put_text(r, out, hex);
}

static enum code do_base64(struct reader *r, const struct value *a,
                           struct value *out)
{
    char text[(VALUE_MAX + 2) / 3 * 4 + 1];
    int n = EVP_EncodeBlock((uint8_t *)text, (const uint8_t *)a[0].text,
                            (int)a[0].len);

    return put(r, out, text, (size_t)n);
}

static enum code do_unix_time(struct reader *r, const struct value *a,
                              struct value *out)
{
    char text[24];

    (void)a;
    snprintf(text, sizeof(text), "%lld", (long long)(r->in->wall_ms / 1000));
    return put_text(r, out, text);
}

static enum code do_timestamp(struct reader *r, const struct value *a,
                              struct value *out)
{
    char text[VALUE_MAX + 2];
    size_t n = golayout_format(text, sizeof(text), a[0].text, r->in->wall_ms);

    return put(r, out, text, n);
}

static enum code do_uuid(struct reader *r, const struct value *a,
                         struct value *out)
{
    uint8_t b[16];
    char hex[33], text[37];
    enum code code = text_random(b, sizeof(b), r->e);

    (void)a;
    if (code)
        return code;
    b[6] = (uint8_t)((b[6] & 0x0f) | 0x40);
    b[8] = (uint8_t)((b[8] & 0x3f) | 0x80);
    text_hex(hex, b, sizeof(b));
    snprintf(text, sizeof(text), "%.8s-%.4s-%.4s-%.4s-%.12s", hex, hex + 8,
             hex + 12, hex + 16, hex + 20);
    return put_text(r, out, text);
}

static const struct function {
    const char *name;
    const char *args; /* one letter each: n number, s text */
    enum code (*run)(struct reader *r, const struct value *args,
                     struct value *out);
} functions[] = {
    {"random", "n", do_random},       {"truncate", "ns", do_truncate},
    {"uppercase", "s", do_uppercase}, {"lowercase", "s", do_lowercase},
    {"replace", "sss", do_replace},   {"sha256", "s", do_sha256},
    {"base64", "s", do_base64},       {"unix_time", "", do_unix_time},
    {"timestamp", "s", do_timestamp}, {"uuid", "", do_uuid},
};

/* ---- reading ---- */

static void skip_spaces(struct reader *r)
{
    r->at += strspn(r->at, " \t\r\n");
}

static size_t word_len(const char *p)
{
    size_t n = 0;

    while (isalnum((unsigned char)p[n]) || p[n] == '_')
        n++;
    return n;
}

static enum code read_variable(struct reader *r, struct value *v)
{
    const char *name = r->at + 1;
    size_t len = word_len(name);
    const char *text = NULL;
    size_t max = r->name_max;

    r->at = name + len;
    if (len == 8 && memcmp(name, "RoleName", len) == 0)
        text = r->in->role;
    else if (len == 11 && memcmp(name, "ProjectName", len) == 0)
        text = r->in->project;
    else if (len == 12 && memcmp(name, "RandomSuffix", len) == 0)
        text = r->suffix, max = SUFFIX_LEN;
    if (!text || *r->at == '.')
        return error_set(r->e, ERR_INVALID,
                         "template: unknown variable .%.*s; there are "
                         ".RoleName, .RandomSuffix and .ProjectName",
                         len > 64 ? 64 : (int)len, name);
    return put(r, v, text, strnlen(text, max));
}

static enum code read_raw(struct reader *r, struct value *v)
{
    const char *end = strchr(r->at + 1, '`');
    enum code code;

    if (!end)
        return error_set(r->e, ERR_INVALID, "template: ` is not closed");
    code = put(r, v, r->at + 1, (size_t)(end - r->at - 1));
    r->at = end + 1;
    return code;
}

static enum code read_quoted(struct reader *r, struct value *v)
{
    char text[VALUE_MAX + 1];
    size_t n = 0;

    for (r->at++; *r->at && *r->at != '"'; r->at++) {
        if (*r->at == '\\' && (r->at[1] == '"' || r->at[1] == '\\'))
            r->at++;
        else if (*r->at == '\\')
            return error_set(
                r->e, ERR_INVALID,
                "template: in quotes only \\\" and \\\\ are known");
        if (n == VALUE_MAX)
            return error_set(r->e, ERR_INVALID, "template: text too long");
        text[n++] = *r->at;
    }
    if (*r->at != '"')
        return error_set(r->e, ERR_INVALID, "template: \" is not closed");
    r->at++;
    return put(r, v, text, n);
}

static enum code read_number(struct reader *r, struct value *v)
{
    int64_t n = 0;
    enum code code;
    const char *began = r->at;

    for (; isdigit((unsigned char)*r->at); r->at++) {
        if (n < 1000000)
            n = n * 10 + (*r->at - '0');
    }
    code = put(r, v, began, strnlen(began, (size_t)(r->at - began)));
    v->is_number = true;
    v->number = n;
    return code;
}

static enum code read_pipeline(struct reader *r, struct value *out);

static enum code read_group(struct reader *r, struct value *v)
{
    enum code code;

    if (++r->depth > DEPTH_MAX)
        return error_set(r->e, ERR_INVALID, "template: nested too deep");
    r->at++;
    code = read_pipeline(r, v);
    if (code)
        return code;
    if (*r->at != ')')
        return error_set(r->e, ERR_INVALID, "template: ) is missing");
    r->at++;
    r->depth--;
    return OK;
}

static enum code read_operand(struct reader *r, struct value *v)
{
    if (*r->at == '.')
        return read_variable(r, v);
    if (*r->at == '"')
        return read_quoted(r, v);
    if (*r->at == '`')
        return read_raw(r, v);
    if (*r->at == '(')
        return read_group(r, v);
    if (isdigit((unsigned char)*r->at))
        return read_number(r, v);
    return error_set(r->e, ERR_INVALID,
                     "template: unexpected text at \"%.20s\"",
                     *r->at ? r->at : "its end");
}

static bool at_command_end(const struct reader *r)
{
    return *r->at == '\0' || *r->at == '|' || *r->at == ')' ||
           strncmp(r->at, "}}", 2) == 0 || strncmp(r->at, "-}}", 3) == 0;
}

static enum code find_function(struct reader *r, const struct function **f)
{
    size_t len = word_len(r->at);

    for (size_t i = 0; i < sizeof(functions) / sizeof(functions[0]); i++) {
        *f = &functions[i];
        if (strlen((*f)->name) == len && memcmp((*f)->name, r->at, len) == 0) {
            r->at += len;
            return OK;
        }
    }
    return error_set(r->e, ERR_INVALID,
                     "template: unknown function \"%.*s\"; there are random, "
                     "truncate, uppercase, lowercase, replace, sha256, base64, "
                     "unix_time, timestamp and uuid",
                     len > 64 ? 64 : (int)len, r->at);
}

static enum code check_args(struct reader *r, const struct function *f,
                            const struct value *args, size_t n)
{
    if (n != strlen(f->args))
        return error_set(r->e, ERR_INVALID,
                         "template: %s takes %zu arguments, not %zu", f->name,
                         strlen(f->args), n);
    for (size_t i = 0; i < n; i++) {
        if ((f->args[i] == 'n') != args[i].is_number)
            return error_set(
                r->e, ERR_INVALID, "template: argument %zu of %s is to be a %s",
                i + 1, f->name, f->args[i] == 'n' ? "number" : "text");
    }
    return OK;
}

/* One command of a pipeline; `piped` (or NULL) is its last argument. */
static enum code read_command(struct reader *r, const struct value *piped,
                              struct value *out)
{
    struct value args[ARGS_MAX];
    const struct function *f;
    size_t n = 0;
    enum code code;

    skip_spaces(r);
    if (!isalpha((unsigned char)*r->at)) {
        if (piped)
            return error_set(r->e, ERR_INVALID,
                             "template: behind | comes a function");
        return read_operand(r, out);
    }
    code = find_function(r, &f);
    for (skip_spaces(r); !code && !at_command_end(r); skip_spaces(r)) {
        if (n == ARGS_MAX)
            return check_args(r, f, args, ARGS_MAX + 1);
        code = read_operand(r, &args[n++]);
    }
    if (!code && piped && n < ARGS_MAX)
        args[n++] = *piped;
    else if (!code && piped)
        return check_args(r, f, args, ARGS_MAX + 1);
    if (!code)
        code = check_args(r, f, args, n);
    return code ? code : f->run(r, args, out);
}

static enum code read_pipeline(struct reader *r, struct value *out)
{
    enum code code = read_command(r, NULL, out);

    for (skip_spaces(r); !code && *r->at == '|'; skip_spaces(r)) {
        struct value piped = *out;

        r->at++;
        code = read_command(r, &piped, out);
    }
    return code;
}

/* ---- the whole text ---- */

static enum code append(struct reader *r, struct value *whole, const char *s,
                        size_t len)
{
    if (whole->len + len > VALUE_MAX)
        return error_set(r->e, ERR_INVALID, "template: the name is too long");
    memcpy(whole->text + whole->len, s, len);
    whole->len += len;
    return OK;
}

static enum code read_action(struct reader *r, struct value *whole)
{
    struct value v = {.len = 0};
    enum code code;

    r->at += 2;
    if (r->at[0] == '-' && isspace((unsigned char)r->at[1])) {
        r->at++;
        while (whole->len > 0 &&
               isspace((unsigned char)whole->text[whole->len - 1]))
            whole->len--;
    }
    code = read_pipeline(r, &v);
    if (code)
        return code;
    if (strncmp(r->at, "-}}", 3) == 0) {
        r->at += 3;
        skip_spaces(r);
    } else if (strncmp(r->at, "}}", 2) == 0) {
        r->at += 2;
    } else {
        return error_set(r->e, ERR_INVALID,
                         "template: }} is missing before \"%.20s\"", r->at);
    }
    return append(r, whole, v.text, v.len);
}

static enum code read_all(struct reader *r, const char *text,
                          struct value *whole)
{
    enum code code = OK;

    r->at = text;
    r->depth = 0;
    whole->len = 0;
    while (!code && *r->at) {
        if (strncmp(r->at, "{{", 2) == 0) {
            code = read_action(r, whole);
        } else {
            const char *action = strstr(r->at, "{{");
            size_t len = action ? (size_t)(action - r->at) : strlen(r->at);

            code = append(r, whole, r->at, len);
            r->at += len;
        }
    }
    return code;
}

/* Bytes that continue a character go; the first became "-". */
static void make_plain(struct value *v)
{
    size_t n = 0;

    for (size_t i = 0; i < v->len; i++) {
        unsigned char c = (unsigned char)v->text[i];

        if (c < 0x80 && (isalnum(c) || strchr("._-", c)) && c != '\0')
            v->text[n++] = (char)c;
        else if (c < 0x80 || c >= 0xc0)
            v->text[n++] = '-';
    }
    v->text[n] = '\0';
    v->len = n;
}

static enum code check_text(const char *text, struct error *e)
{
    size_t len = strlen(text);

    if (len == 0 || len > TEMPLATE_TEXT_MAX)
        return error_set(e, ERR_INVALID,
                         "template: 1 to %d characters are allowed, not %zu",
                         TEMPLATE_TEXT_MAX, len);
    if (!text_utf8_valid(text, len))
        return error_set(e, ERR_INVALID, "template: it is not valid UTF-8");
    return OK;
}

enum code template_render(const char *text, const struct template_input *in,
                          char out[TEMPLATE_ROOM + 1], struct error *e)
{
    struct reader r = {.in = in, .e = e};
    struct value whole;
    size_t role = strlen(in->role), project = strlen(in->project);
    enum code code = check_text(text, e);

    if (!code)
        code = text_random_suffix(r.suffix, SUFFIX_LEN, e);
    r.suffix[SUFFIX_LEN] = '\0';
    r.name_max = role > project ? role : project;
    while (!code) {
        size_t excess;

        code = read_all(&r, text, &whole);
        if (code)
            break;
        make_plain(&whole);
        if (whole.len <= TEMPLATE_ROOM)
            break;
        if (r.name_max <= 1)
            return error_set(e, ERR_INVALID,
                             "template: it gives %zu characters even with "
                             "RoleName and ProjectName cut to one; %d are left "
                             "beside hsmint's marker",
                             whole.len, TEMPLATE_ROOM);
        excess = (whole.len - TEMPLATE_ROOM) / 4;
        r.name_max -= excess > 1 && excess < r.name_max ? excess : 1;
    }
    if (code)
        return code;
    if (whole.len == 0)
        return error_set(e, ERR_INVALID, "template: the name is empty");
    memcpy(out, whole.text, whole.len + 1);
    return OK;
}

enum code template_check(const char *text, const struct template_input *in,
                         struct error *e)
{
    struct template_input longest = *in;
    char out[TEMPLATE_ROOM + 1];
    enum code code = template_render(text, in, out, e);

    longest.wall_ms = LONGEST_DAY_MS;
    return code ? code : template_render(text, &longest, out, e);
}
