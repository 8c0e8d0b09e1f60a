/* The HSM and the keys on it: show, rotate, destroy. */
#include "config.h"

#include "tools/hsmint.h"

#include "common/clock.h"
#include "common/text.h"

#include <string.h>

/* ---- show ---- */

static const char *text_of(const json_t *object, const char *member)
{
    const char *text = json_string_value(json_object_get(object, member));
    return text ? text : "";
}

/* As it is shown; good until the next but three. */
static const char *shown(const json_t *object, const char *member)
{
    static char texts[4][OUTPUT_TEXT_MAX];
    static unsigned next;
    char *text = texts[next++ % 4];
    output_text(member, json_object_get(object, member), text);
    return text;
}

static const char *minute(json_int_t ms, char text[CLOCK_TEXT_MAX])
{
    if (ms <= 0)
        return "-";
    clock_text(ms, text); /* 2026-11-21T20:15:00.000Z */
    text[10] = ' ';
    text[16] = '\0';
    return text;
}

/* SP 800-57's states in which the key has to be on the HSM. */
static bool is_gone(const json_t *key)
{
    return strncmp(text_of(key, "state"), "destroyed", 9) == 0;
}

static const struct {
    const char *member, *name;
    bool wanted;
} attributes[] = {{"local", "LOCAL", true},
                  {"never_extractable", "NEVER_EXTRACTABLE", true},
                  {"always_sensitive", "ALWAYS_SENSITIVE", true},
                  {"extractable", "EXTRACTABLE", false}};
#define ATTRIBUTES (sizeof attributes / sizeof attributes[0])

/* Is it there, and is it one that was made in the HSM and never left? */
static const char *verdict_of(const json_t *key)
{
    json_t *told = json_object_get(key, "attributes");
    json_t *missing = json_object_get(key, "missing");
    if (is_gone(key))
        return json_is_false(missing) ? "yes" : "-";
    if (json_is_true(missing))
        return "no";
    if (!json_is_object(told))
        return "?";
    for (size_t i = 0; i < ATTRIBUTES; i++) {
        json_t *value = json_object_get(told, attributes[i].member);
        if (json_is_true(value) != attributes[i].wanted)
            return "bad";
    }
    return strcmp(text_of(told, "id"), text_of(key, "id")) == 0 ? "ok" : "bad";
}

static void print_keys(json_t *keys)
{
    static const struct column columns[] = {{"KEY", "label"},
                                            {"STATE", "state"},
                                            {"SINCE (UTC)", "since"},
                                            {"FOR", "purpose"},
                                            {"HSM", "hsm"}};
    char since[CLOCK_TEXT_MAX];
    size_t i;
    json_t *key;
    json_array_foreach(keys, i, key)
    {
        (void)json_object_set_new(
            key, "since",
            json_string(minute(
                json_integer_value(json_object_get(key, "since_ms")), since)));
        (void)json_object_set_new(key, "hsm", json_string(verdict_of(key)));
    }
    (void)fputc('\n', stdout);
    output_table(keys, columns, sizeof columns / sizeof columns[0]);
}

static void print_attributes(const json_t *key)
{
    json_t *told = json_object_get(key, "attributes");
    if (is_gone(key))
        return;
    if (!json_is_object(told)) {
        printf("  %s\n", json_is_true(json_object_get(key, "missing"))
                             ? "is missing on the HSM"
                             : "attributes were not read: the HSM was not "
                               "asked yet");
        return;
    }
    printf("  says");
    for (size_t i = 0; i < ATTRIBUTES; i++) {
        json_t *value = json_object_get(told, attributes[i].member);
        printf(" %s%s", json_is_true(value)    ? ""
                        : json_is_false(value) ? "not "
                                               : "?",
               attributes[i].name);
    }
    if (strcmp(text_of(told, "id"), text_of(key, "id")) != 0)
        printf(" another CKA_ID: it was replaced");
    (void)fputc('\n', stdout);
}

static void print_dates(const json_t *key)
{
    json_t *dates = json_object_get(key, "dates");
    json_int_t declared =
        json_integer_value(json_object_get(key, "declared_ms"));
    char text[CLOCK_TEXT_MAX];
    size_t i;
    json_t *date;
    json_array_foreach(dates, i, date)
    {
        printf("  %s%s %s (%s)\n",
               minute(json_integer_value(json_object_get(date, "at_ms")), text),
               json_is_false(json_object_get(date, "exact")) ? " or before:"
                                                             : "",
               shown(date, "state"), shown(date, "reason"));
    }
    if (declared)
        printf("  %s declared compromised\n", minute(declared, text));
}

static void print_details(json_t *keys)
{
    size_t i;
    json_t *key;
    json_array_foreach(keys, i, key)
    {
        printf("\n%s  version %s, CKA_ID %s\n", shown(key, "label"),
               shown(key, "version"), shown(key, "id"));
        printf("  fingerprint %s\n", shown(key, "fingerprint"));
        print_attributes(key);
        print_dates(key);
    }
}

static void print_admin_keys(json_t *keys)
{
    static const struct column columns[] = {{"ADMIN KEY", "id"},
                                            {"ORG", "org"},
                                            {"STATE", "state"},
                                            {"SINCE (UTC)", "since"},
                                            {"STEP", "rotation"}};
    char since[CLOCK_TEXT_MAX];
    size_t i;
    json_t *key;
    if (json_array_size(keys) == 0)
        return;
    json_array_foreach(keys, i, key)
        (void)json_object_set_new(
            key, "since",
            json_string(minute(
                json_integer_value(json_object_get(key, "since_ms")), since)));
    (void)fputc('\n', stdout);
    output_table(keys, columns, sizeof columns / sizeof columns[0]);
}

static void print_periods(json_t *periods)
{
    const char *name;
    json_t *one;
    char next[CLOCK_TEXT_MAX], label[OUTPUT_TEXT_MAX];
    json_object_foreach(periods, name, one)
    {
        (void)text_escape(label, sizeof label, name, strlen(name));
        printf("%s key: next rotation %s\n", label,
               minute(json_integer_value(json_object_get(one, "next_ms")),
                      next));
    }
}

static void print_rotation(const json_t *hsm)
{
    const json_t *r = json_object_get(hsm, "rotation");
    if (!json_is_object(r))
        return;
    printf("rotation of the %s key is under way: %s", shown(r, "key"),
           shown(r, "state"));
    if (json_object_get(r, "sealed_anew"))
        printf(", %s looked at of %s, %s sealed anew", shown(r, "looked_at"),
               shown(r, "of"), shown(r, "sealed_anew"));
    if (*text_of(r, "error"))
        printf("\nit cannot go on: %s", shown(r, "error"));
    (void)fputc('\n', stdout);
}

enum code command_hsm_show(struct cli *c, struct error *e)
{
    JSON reply = NULL;
    enum code code = cli_call(c, "Hsm", cli_parameters(c, CLI_PLAIN, e), NULL,
                              &reply, NULL, e);
    if (code)
        return code;
    json_t *hsm = json_object_get(reply, "hsm");
    json_t *keys = json_object_get(hsm, "keys");
    if (!json_is_object(hsm))
        return error_set(e, ERR_PROTOCOL, "the daemon told nothing of the HSM");
    if (c->args->json) {
        output_json(hsm);
        return OK;
    }
    hsm_print(hsm);
    print_rotation(hsm);
    print_periods(json_object_get(hsm, "periods"));
    if (json_array_size(keys) > 0)
        print_keys(keys);
    print_admin_keys(json_object_get(hsm, "admin_keys"));
    print_details(keys);
    return OK;
}

/* ---- what changes them ---- */

static enum code change_key(struct cli *c, const char *method, struct error *e)
{
    JSON reply = NULL;
    json_t *p = cli_named(c, CLI_CHANGE, e);
    if (p && c->args->abandon &&
        json_object_set_new(p, "abandon", json_true()))
        json_freep(&p);
    enum code code = cli_call(c, method, p, NULL, &reply, NULL, e);
    if (code)
        return code;
    if (c->args->json)
        output_json(json_object_get(reply, "rotation"));
    else
        output_fields(json_object_get(reply, "rotation"));
    return OK;
}

enum code command_hsm_rotate(struct cli *c, struct error *e)
{
    return change_key(c, "RotateHsm", e);
}

enum code command_hsm_compromised(struct cli *c, struct error *e)
{
    return change_key(c, "CompromisedHsmKey", e);
}

enum code command_hsm_destroy(struct cli *c, struct error *e)
{
    return change_key(c, "DestroyHsmKey", e);
}
