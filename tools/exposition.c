/* exposition - see exposition.h. */
#include "config.h"

#include "tools/exposition.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

#define LETTERS "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_"
#define DIGITS "0123456789"

/* ---- names and texts ---- */

static bool is_name(const char *s, const char *also)
{
    if (!*s || strchr(DIGITS, *s))
        return false;
    for (; *s; s++)
        if (!strchr(LETTERS DIGITS, *s) && !strchr(also, *s))
            return false;
    return true;
}

static void write_escaped(FILE *out, const char *text, bool quoted)
{
    for (; *text; text++) {
        if (*text == '\\')
            fputs("\\\\", out);
        else if (*text == '\n')
            fputs("\\n", out);
        else if (*text == '"' && quoted)
            fputs("\\\"", out);
        else
            fputc(*text, out);
    }
}

/* As short as it can be and still be the same number. */
static void write_value(FILE *out, double value)
{
    char text[32];
    snprintf(text, sizeof text, "%.15g", value);
    if (strtod(text, NULL) != value)
        snprintf(text, sizeof text, "%.17g", value);
    fprintf(out, " %s\n", text);
}

static void write_label(FILE *out, const char *name, const char *text,
                        bool first)
{
    fprintf(out, "%c%s=\"", first ? '{' : ',', name);
    write_escaped(out, text, true);
    fputc('"', out);
}

static void write_head(FILE *out, const char *name, const char *type,
                       const char *help)
{
    fprintf(out, "# HELP %s ", name);
    write_escaped(out, help, false);
    fprintf(out, "\n# TYPE %s %s\n", name, type);
}

void exposition_one(FILE *out, const char *name, const char *type,
                    const char *help, const char *label, const char *text,
                    double value)
{
    write_head(out, name, type, help);
    fputs(name, out);
    if (label) {
        write_label(out, label, text, true);
        fputc('}', out);
    }
    write_value(out, value);
}

/* ---- the daemon's ---- */

struct family {
    const char *name, *type, *help;
    json_t *samples;
};

struct sample {
    const char *suffix;
    json_t *labels, *value;
};

static enum code check_suffix(const struct family *f, const char *suffix,
                              struct error *e)
{
    static const char *const known[] = {"_bucket", "_sum", "_count"};
    bool ok = false;
    if (strcmp(f->type, "histogram"))
        ok = !*suffix;
    for (size_t i = 0; !strcmp(f->type, "histogram") && i < 3; i++)
        ok |= !strcmp(known[i], suffix);
    return ok ? OK
              : error_set(e, ERR_PROTOCOL, "metric %s: a %s has no \"%s\"",
                          f->name, f->type, suffix);
}

static enum code check_labels(const struct family *f, json_t *labels,
                              struct error *e)
{
    const char *name;
    json_t *text;
    json_object_foreach(labels, name, text) {
        if (!is_name(name, "") || !strncmp(name, "__", 2))
            return error_set(e, ERR_PROTOCOL, "metric %s: label \"%s\"",
                             f->name, name);
        if (!json_is_string(text) ||
            strlen(json_string_value(text)) != json_string_length(text))
            return error_set(e, ERR_PROTOCOL,
                             "metric %s: label %s: has to be a text", f->name,
                             name);
    }
    return OK;
}

static enum code decode_sample(const struct family *f, json_t *j,
                               struct sample *s, struct error *e)
{
    const struct json_field fields[] = {
        {"suffix", FIELD_STRING, false, &s->suffix, NULL},
        {"labels", FIELD_OBJECT, false, &s->labels, NULL},
        {"value", FIELD_ANY, true, &s->value, NULL},
    };
    *s = (struct sample){.suffix = ""};
    enum code rc = json_decode(j, JSON_FIELDS(fields), true, f->name, e);
    if (rc == OK && !json_is_number(s->value))
        rc = error_set(e, ERR_PROTOCOL, "metric %s: value: has to be a number",
                       f->name);
    if (rc == OK)
        rc = check_suffix(f, s->suffix, e);
    return rc == OK ? check_labels(f, s->labels, e) : rc;
}

static enum code write_sample(FILE *out, const struct family *f, json_t *j,
                              struct error *e)
{
    struct sample s;
    const char *name;
    json_t *text;
    bool first = true;
    enum code rc = decode_sample(f, j, &s, e);
    if (rc)
        return rc;
    fprintf(out, "%s%s", f->name, s.suffix);
    json_object_foreach(s.labels, name, text) {
        write_label(out, name, json_string_value(text), first);
        first = false;
    }
    if (!first)
        fputc('}', out);
    write_value(out, json_number_value(s.value));
    return OK;
}

static bool is_type(const char *type)
{
    return !strcmp(type, "counter") || !strcmp(type, "gauge") ||
           !strcmp(type, "histogram");
}

static enum code write_family(FILE *out, json_t *j, struct error *e)
{
    struct family f = {.help = ""};
    const struct json_field fields[] = {
        {"name", FIELD_STRING, true, &f.name, NULL},
        {"type", FIELD_STRING, true, &f.type, NULL},
        {"help", FIELD_STRING, false, &f.help, NULL},
        {"samples", FIELD_ARRAY, true, &f.samples, NULL},
    };
    enum code rc = json_decode(j, JSON_FIELDS(fields), true, "metric", e);
    if (rc == OK && !is_name(f.name, ":"))
        rc = error_set(e, ERR_PROTOCOL, "metric \"%s\": is no name", f.name);
    if (rc == OK && !is_type(f.type))
        rc = error_set(e, ERR_PROTOCOL, "metric %s: type \"%s\"", f.name,
                       f.type);
    if (rc)
        return rc;
    write_head(out, f.name, f.type, f.help);
    for (size_t i = 0; rc == OK && i < json_array_size(f.samples); i++)
        rc = write_sample(out, &f, json_array_get(f.samples, i), e);
    return rc;
}

/* The format takes each name once. */
static enum code check_once(json_t *seen, json_t *family, struct error *e)
{
    const char *name = json_string_value(json_object_get(family, "name"));
    if (!name)
        return OK;
    if (json_object_get(seen, name))
        return error_set(e, ERR_PROTOCOL, "metric %s: comes twice", name);
    if (json_object_set_new(seen, name, json_true()))
        return error_set(e, ERR_NOMEM, "no memory for metrics");
    return OK;
}

enum code exposition_write(FILE *out, json_t *families, struct error *e)
{
    JSON seen = json_object();
    enum code rc = OK;
    if (!json_is_array(families))
        return error_set(e, ERR_PROTOCOL, "the daemon told no metrics");
    for (size_t i = 0; rc == OK && i < json_array_size(families); i++) {
        json_t *one = json_array_get(families, i);
        rc = check_once(seen, one, e);
        if (rc == OK)
            rc = write_family(out, one, e);
    }
    return rc;
}
