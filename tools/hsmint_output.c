#include "config.h"

#include "tools/hsmint.h"

#include "common/clock.h"
#include "common/text.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* ---- values ---- */

static bool ends_with(const char *s, const char *end)
{
    size_t n = strlen(s), m = strlen(end);
    return n >= m && strcmp(s + n - m, end) == 0;
}

static bool is_duration(const char *name)
{
    static const char *const names[] = {"ttl", "max_ttl", "lease_duration", "life",
                                        "rotation_period", "rotation_window"};
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        if (strcmp(name, names[i]) == 0)
            return true;
    return false;
}

static void integer_text(const char *name, json_int_t n,
                         char text[OUTPUT_TEXT_MAX])
{
    char buf[CLOCK_TEXT_MAX > TEXT_DURATION_MAX ? CLOCK_TEXT_MAX
                                                : TEXT_DURATION_MAX];
    if (ends_with(name, "_ms") && n > 0)
        (void)snprintf(text, OUTPUT_TEXT_MAX, "%s", clock_text(n, buf));
    else if (ends_with(name, "_ms"))
        (void)snprintf(text, OUTPUT_TEXT_MAX, "-");
    else if (is_duration(name) && n > 0)
        (void)snprintf(text, OUTPUT_TEXT_MAX, "%s",
                       text_duration_format(n, buf));
    else
        (void)snprintf(text, OUTPUT_TEXT_MAX, "%lld", (long long)n);
}

void output_text(const char *name, const json_t *value,
                 char text[OUTPUT_TEXT_MAX])
{
    switch (value ? json_typeof(value) : JSON_NULL) {
    case JSON_STRING:
        (void)text_escape(text, OUTPUT_TEXT_MAX, json_string_value(value),
                          json_string_length(value));
        break;
    case JSON_INTEGER:
        integer_text(name, json_integer_value(value), text);
        break;
    case JSON_REAL:
        (void)snprintf(text, OUTPUT_TEXT_MAX, "%g", json_real_value(value));
        break;
    case JSON_TRUE:
        (void)snprintf(text, OUTPUT_TEXT_MAX, "true");
        break;
    case JSON_FALSE:
        (void)snprintf(text, OUTPUT_TEXT_MAX, "false");
        break;
    default:
        (void)snprintf(text, OUTPUT_TEXT_MAX, "-");
    }
    if (!*text)
        (void)snprintf(text, OUTPUT_TEXT_MAX, "-");
}

/* ---- one object ---- */

#define DEPTH_MAX 8

static int longest_name(json_t *object)
{
    int longest = 0;
    const char *name;
    json_t *value;
    json_object_foreach(object, name, value)
    {
        int len = (int)strlen(name);
        longest = len > longest ? len : longest;
    }
    return longest;
}

static void print_value(const char *name, json_t *value, int indent, int width);

static void print_object(json_t *object, int indent)
{
    int width = longest_name(object);
    const char *name;
    json_t *value;
    json_object_foreach(object, name, value)
        print_value(name, value, indent, width);
}

static void print_list(const char *name, json_t *list, int indent, int width)
{
    size_t i;
    json_t *value;
    json_array_foreach(list, i, value)
    {
        print_value(i == 0 ? name : "", value, indent, width);
    }
    if (json_array_size(list) == 0)
        print_value(name, NULL, indent, width);
}

/* Names are the daemon's: escaped as values are. */
static void print_value(const char *name, json_t *value, int indent, int width)
{
    char label[128], text[OUTPUT_TEXT_MAX];
    (void)text_escape(label, sizeof(label), name, strlen(name));
    if (indent / 2 < DEPTH_MAX && json_is_object(value)) {
        printf("%*s%s\n", indent, "", *label ? label : "-");
        print_object(value, indent + 2);
    } else if (indent / 2 < DEPTH_MAX && json_is_array(value)) {
        print_list(name, value, indent, width);
    } else {
        output_text(name, value, text);
        printf("%*s%-*s  %s\n", indent, "", width, label, text);
    }
}

void output_fields(json_t *object)
{
    print_object(object, 0);
}

void output_json(const json_t *value)
{
    (void)json_dumpf(value, stdout, JSON_INDENT(2) | JSON_ENCODE_ANY);
    (void)fputc('\n', stdout);
}

void output_join(json_t *object, const char *member)
{
    char text[OUTPUT_TEXT_MAX] = "";
    json_t *list = json_object_get(object, member), *item;
    size_t i, len = 0;
    if (!json_is_array(list))
        return;
    json_array_foreach(list, i, item)
    {
        char one[OUTPUT_TEXT_MAX];
        output_text(member, item, one);
        int n = snprintf(text + len, sizeof(text) - len, "%s%s",
                         i > 0 ? ", " : "", one);
        if (n < 0 || (size_t)n >= sizeof(text) - len)
            break; /* cut, as longer texts are */
        len += (size_t)n;
    }
    (void)json_object_set_new(object, member, json_string(text));
}

/* ---- tables ---- */

#define COLUMNS_MAX 12

/* Characters, as a terminal counts them: UTF-8's continuation bytes are none.
 */
static int width_of(const char *text)
{
    int n = 0;
    for (; *text; text++)
        n += ((unsigned char)*text & 0xc0) != 0x80;
    return n;
}

static void print_row(const json_t *row, const struct column *columns, size_t n,
                      const int *widths)
{
    char text[OUTPUT_TEXT_MAX];
    for (size_t i = 0; i < n; i++) {
        if (row)
            output_text(columns[i].field,
                        json_object_get(row, columns[i].field), text);
        else
            (void)snprintf(text, sizeof(text), "%s", columns[i].heading);
        int pad = i + 1 < n ? widths[i] - width_of(text) + 2 : 0;
        printf("%s%*s", text, pad, "");
    }
    (void)fputc('\n', stdout);
}

void output_table(const json_t *rows, const struct column *columns, size_t n)
{
    int widths[COLUMNS_MAX] = {0};
    char text[OUTPUT_TEXT_MAX];
    for (size_t c = 0; c < n && c < COLUMNS_MAX; c++) {
        widths[c] = width_of(columns[c].heading);
        for (size_t r = 0; r < json_array_size(rows); r++) {
            output_text(
                columns[c].field,
                json_object_get(json_array_get(rows, r), columns[c].field),
                text);
            int w = width_of(text);
            widths[c] = w > widths[c] ? w : widths[c];
        }
    }
    print_row(NULL, columns, n, widths);
    for (size_t r = 0; r < json_array_size(rows); r++)
        print_row(json_array_get(rows, r), columns, n, widths);
}

/* ---- keys ---- */

static enum code write_all(const void *data, size_t len, struct error *e)
{
    const char *p = data;
    while (len > 0) {
        ssize_t n = write(STDOUT_FILENO, p, len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return error_errno(e, errno, "cannot write the key");
        p += n;
        len -= (size_t)n;
    }
    return OK;
}

static bool is_plain(uint8_t c)
{
    return c >= 0x20 && c != 0x7f && c != '"' && c != '\\';
}

/* As a JSON string's inside, without a second copy of the key. */
static enum code write_json_text(const struct secret *s, struct error *e)
{
    const uint8_t *p = secret_data(s), *end = p + secret_len(s);
    enum code code = OK;
    while (p < end && code == OK) {
        const uint8_t *from = p;
        while (p < end && is_plain(*p))
            p++;
        code = write_all(from, (size_t)(p - from), e);
        if (code == OK && p < end) {
            char escape[8];
            (void)snprintf(escape, sizeof(escape), "\\u%04x", *p++);
            code = write_all(escape, 6, e);
            wipe(escape, sizeof(escape));
        }
    }
    return code;
}

/* What stdio holds goes first, and it never holds the key. */
static enum code write_key(const struct secret *key, bool json, struct error *e)
{
    enum code code = output_flush(e);
    if (code == OK && json)
        code = write_json_text(key, e);
    else if (code == OK)
        code = write_all(secret_data(key), secret_len(key), e);
    secret_clear_registers();
    return code;
}

enum code output_secret(const struct secret *key, struct error *e)
{
    enum code code = write_key(key, false, e);
    if (code == OK)
        (void)fputc('\n', stdout);
    return code;
}

static void print_json_member(const char *name, const json_t *value)
{
    printf("  \"%s\": ", name);
    (void)json_dumpf(value, stdout, JSON_ENCODE_ANY);
}

enum code output_secret_json(const char *name, const struct secret *value,
                             json_t *rest, struct error *e)
{
    printf("{\n  \"%s\": \"", name);
    enum code code = write_key(value, true, e);
    if (code)
        return code;
    printf("\"");
    const char *key;
    json_t *member;
    json_object_foreach(rest, key, member)
    {
        printf(",\n");
        print_json_member(key, member);
    }
    printf("\n}\n");
    return OK;
}

/* In this order, under the Vault plugin's names. */
static const char *const minted[] = {
    "lease_id",   "lease_duration",  "lease_renewable",    "api_key",
    "api_key_id", "service_account", "service_account_id", "api_base"};
#define MINTED (sizeof(minted) / sizeof(minted[0]))

static enum code minted_json(const json_t *lease, const json_t *warnings,
                             const struct secret *key, struct error *e)
{
    printf("{\n");
    for (size_t i = 0; i < MINTED; i++) {
        if (strcmp(minted[i], "api_key") == 0) {
            printf("  \"api_key\": \"");
            enum code code = write_key(key, true, e);
            if (code)
                return code;
            printf("\"");
        } else {
            const json_t *value = json_object_get(lease, minted[i]);
            print_json_member(minted[i], value ? value : json_null());
        }
        printf(",\n");
    }
    JSON none = json_array();
    print_json_member("warnings", warnings ? warnings : none);
    printf("\n}\n");
    return OK;
}

enum code output_minted(const json_t *lease, const json_t *warnings,
                        const struct secret *key, bool json, struct error *e)
{
    if (json)
        return minted_json(lease, warnings, key, e);
    for (size_t i = 0; i < MINTED; i++) {
        char text[OUTPUT_TEXT_MAX];
        printf("%-18s  ", minted[i]);
        if (strcmp(minted[i], "api_key") == 0) {
            enum code code = output_secret(key, e);
            if (code)
                return code;
            continue;
        }
        output_text(minted[i], json_object_get(lease, minted[i]), text);
        printf("%s\n", text);
    }
    output_warnings(warnings);
    return OK;
}

/* ---- standard error ---- */

void output_warnings(const json_t *warnings)
{
    for (size_t i = 0; i < json_array_size(warnings); i++) {
        char text[OUTPUT_TEXT_MAX];
        output_text("", json_array_get(warnings, i), text);
        (void)fprintf(stderr, "hsmint: warning: %s\n", text);
    }
}

void output_error(const struct error *e, int exit_status, bool json)
{
    const char *text = *e->text ? e->text : error_default_text(e->code);
    if (json) {
        JSON j = json_pack(
            "{s:s, s:s, s:s, s:I, s:i}", "error", error_name(e->code), "text",
            text, "service_request_id", e->service_request_id, "retry_after_ms",
            (json_int_t)e->retry_after_ms, "exit", exit_status);
        if (j) {
            (void)json_dumpf(j, stderr, JSON_COMPACT);
            (void)fputc('\n', stderr);
            return;
        }
    }
    (void)fprintf(stderr, "hsmint: %s", text);
    if (*e->service_request_id)
        (void)fprintf(stderr, " (x-request-id %s)", e->service_request_id);
    (void)fputc('\n', stderr);
}

enum code output_flush(struct error *e)
{
    if (fflush(stdout) != 0 || ferror(stdout))
        return error_errno(e, errno, "cannot write to standard output");
    return OK;
}
