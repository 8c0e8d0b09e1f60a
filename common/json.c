#include "config.h"

#include "common/json.h"

#include "common/buffer.h"

#include <stdint.h>
#include <string.h>

void json_freep(json_t **j)
{
    json_decref(*j);
    *j = NULL;
}

static const char *kind_names[] = {
    [FIELD_STRING] = "a string",    [FIELD_INT] = "a whole number",
    [FIELD_BOOL] = "true or false", [FIELD_OBJECT] = "an object",
    [FIELD_ARRAY] = "an array",     [FIELD_ANY] = "a value",
};

static bool take_string(const json_t *value, const char **out)
{
    const char *s = json_string_value(value);
    if (!s || strlen(s) != json_string_length(value))
        return false;
    *out = s;
    return true;
}

static bool take_container(json_t *value, bool fits, json_t **out)
{
    if (fits)
        *out = value;
    return fits;
}

static bool take(const struct json_field *f, json_t *value)
{
    switch (f->kind) {
    case FIELD_STRING:
        return take_string(value, f->out);
    case FIELD_INT:
        if (json_is_integer(value))
            *(json_int_t *)f->out = json_integer_value(value);
        return json_is_integer(value);
    case FIELD_BOOL:
        if (json_is_boolean(value))
            *(bool *)f->out = json_is_true(value);
        return json_is_boolean(value);
    case FIELD_OBJECT:
        return take_container(value, json_is_object(value), f->out);
    case FIELD_ARRAY:
        return take_container(value, json_is_array(value), f->out);
    case FIELD_ANY:
        return take_container(value, true, f->out);
    }
    return false;
}

static enum code check_unknown(json_t *object, const struct json_field *fields,
                               size_t n, const char *what, struct error *e)
{
    const char *key;
    json_t *value;
    json_object_foreach(object, key, value)
    {
        size_t i = 0;
        while (i < n && strcmp(fields[i].name, key) != 0)
            i++;
        if (i == n)
            return error_set(e, ERR_INVALID, "%s: unknown field \"%.64s\"",
                             what, key);
    }
    return OK;
}

enum code json_decode(json_t *object, const struct json_field *fields, size_t n,
                      bool allow_unknown, const char *what, struct error *e)
{
    if (!json_is_object(object))
        return error_set(e, ERR_INVALID, "%s: not a JSON object", what);
    if (!allow_unknown) {
        enum code rc = check_unknown(object, fields, n, what, e);
        if (rc)
            return rc;
    }
    for (size_t i = 0; i < n; i++) {
        const struct json_field *f = &fields[i];
        json_t *value = json_object_get(object, f->name);
        bool present = value && !json_is_null(value);
        if (f->present)
            *f->present = present;
        if (!present && f->required)
            return error_set(e, ERR_INVALID, "%s: field \"%s\" is missing",
                             what, f->name);
        if (present && !take(f, value))
            return error_set(e, ERR_INVALID, "%s: field \"%s\" must be %s",
                             what, f->name, kind_names[f->kind]);
    }
    return OK;
}

/* Jansson's own text quotes the input, which may be a secret. */
static const char *reason(const json_error_t *je)
{
    switch (json_error_code(je)) {
    case json_error_stack_overflow:
        return "nested too deep";
    case json_error_premature_end_of_input:
        return "ends too early";
    case json_error_end_of_input_expected:
        return "text after its end";
    case json_error_invalid_utf8:
        return "invalid UTF-8";
    case json_error_duplicate_key:
        return "a name comes twice";
    case json_error_numeric_overflow:
        return "a number is too large";
    case json_error_null_character:
    case json_error_null_byte_in_key:
        return "a NUL character";
    default:
        return "not JSON";
    }
}

/* Jansson parses, prints, copies and frees by recursion, on whatever stack its
 * caller has; at its own bound of 2048 that is more than half a mebibyte. */
static bool is_too_deep(const char *text, size_t len)
{
    int depth = 0;
    bool quoted = false;
    for (size_t i = 0; i < len; i++) {
        if (quoted && text[i] == '\\')
            i++;
        else if (text[i] == '"')
            quoted = !quoted;
        else if (!quoted && (text[i] == '[' || text[i] == '{'))
            depth++;
        else if (!quoted && (text[i] == ']' || text[i] == '}'))
            depth--;
        if (depth > JSON_DEPTH_MAX)
            return true;
    }
    return false;
}

size_t json_values(const char *text, size_t len)
{
    size_t n = 1;
    bool quoted = false;
    for (size_t i = 0; i < len; i++) {
        char c = text[i];
        if (quoted && c == '\\')
            i++;
        else if (c == '"')
            quoted = !quoted;
        else if (!quoted && (c == ',' || c == '[' || c == '{'))
            n++;
    }
    return n;
}

enum code json_parse(const char *text, size_t len, const char *what,
                     json_t **out, struct error *e)
{
    json_error_t je;
    *out = NULL;
    if (is_too_deep(text, len))
        return error_set(e, ERR_INVALID,
                         "%s: nested too deep, more than %d levels", what,
                         JSON_DEPTH_MAX);
    *out = json_loadb(text, len, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &je);
    if (*out)
        return OK;
    if (json_error_code(&je) == json_error_out_of_memory)
        return error_set(e, ERR_NOMEM, "%s: out of memory", what);
    return error_set(e, ERR_INVALID, "%s:%d:%d: %s", what, je.line, je.column,
                     reason(&je));
}

char *json_text(const json_t *json, size_t flags)
{
    BUFFER text = BUFFER_INIT(SIZE_MAX / 4);
    if (!json || buffer_append_json(&text, json, flags, NULL) ||
        buffer_append(&text, "", 1, NULL))
        return NULL;
    char *taken = text.data;
    text.data = NULL;
    return taken;
}
