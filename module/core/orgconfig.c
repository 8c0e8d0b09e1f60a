/* orgconfig - see orgconfig.h. */
#include "config.h"

#include "module/core/orgconfig.h"

#include "common/clock.h"
#include "common/text.h"
#include "module/core/field.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const field_names[] = {"api_endpoint",
                                          "organization_id",
                                          "admin_api_key_id",
                                          "rotation_period",
                                          "rotation_schedule",
                                          "rotation_window",
                                          "disable_automated_rotation",
                                          NULL};

void config_clear(struct config *c)
{
    free(c->api_endpoint);
    free(c->organization_id);
    free(c->admin_api_key_id);
    free(c->rotation_schedule);
    free(c->owner_type);
    free(c->owner_name);
    free(c->owner_role);
    *c = (struct config){0};
}

enum code config_init(struct config *c, struct error *e)
{
    *c = (struct config){.api_endpoint = strdup(CONFIG_ENDPOINT_DEFAULT),
                         .organization_id = strdup(""),
                         .admin_api_key_id = strdup(""),
                         .rotation_schedule = strdup(""),
                         .owner_type = strdup(""),
                         .owner_name = strdup(""),
                         .owner_role = strdup("")};
    if (!c->api_endpoint || !c->organization_id || !c->admin_api_key_id ||
        !c->rotation_schedule || !c->owner_type || !c->owner_name ||
        !c->owner_role)
        return error_set(e, ERR_NOMEM, "no memory for a configuration");
    return OK;
}

/* ---- cron ---- */

struct cron_field {
    const char *name;
    int min, max;
    const char *names; /* three letters each, from `min` on; NULL: none */
};

static const struct cron_field cron_fields[] = {
    {"minute", 0, 59, NULL},
    {"hour", 0, 23, NULL},
    {"day of month", 1, 31, NULL},
    {"month", 1, 12, "JANFEBMARAPRMAYJUNJULAUGSEPOCTNOVDEC"},
    {"day of week", 0, 7, "SUNMONTUEWEDTHUFRISAT"},
};

/* A number or a name; NULL when it is neither or out of bounds. */
static const char *cron_value(const struct cron_field *f, const char *p,
                              int *value)
{
    size_t digits = strspn(p, "0123456789");

    if (digits > 0 && digits <= 2) {
        *value = atoi(p);
        return *value >= f->min && *value <= f->max ? p + digits : NULL;
    }
    for (const char *n = f->names; n && *n; n += 3) {
        if (strncasecmp(n, p, 3) == 0) {
            *value = f->min + (int)((n - f->names) / 3);
            return p + 3;
        }
    }
    return NULL;
}

/* "*", "5", "1-5", each with "/2" behind. */
static const char *cron_item(const struct cron_field *f, const char *p)
{
    int from, to;
    size_t digits;

    if (*p == '*') {
        p++;
    } else {
        p = cron_value(f, p, &from);
        if (p && *p == '-') {
            p = cron_value(f, p + 1, &to);
            if (p && to < from)
                return NULL;
        }
    }
    if (!p || *p != '/')
        return p;
    digits = strspn(p + 1, "0123456789");
    return digits > 0 && digits <= 2 && atoi(p + 1) > 0 ? p + 1 + digits : NULL;
}

enum code config_check_cron(const char *text, struct error *e)
{
    const char *p = text;

    for (size_t i = 0; i < sizeof(cron_fields) / sizeof(cron_fields[0]); i++) {
        const struct cron_field *f = &cron_fields[i];

        p += strspn(p, " ");
        p = cron_item(f, p);
        while (p && *p == ',')
            p = cron_item(f, p + 1);
        if (!p || (*p && *p != ' '))
            return error_set(
                e, ERR_INVALID,
                "rotation_schedule: its %s is not understood; "
                "cron's five fields are needed, like \"0 3 * * SUN\"",
                f->name);
    }
    if (p[strspn(p, " ")])
        return error_set(e, ERR_INVALID,
                         "rotation_schedule: there is text behind its five "
                         "fields");
    return OK;
}

/* ---- fields ---- */

static enum code read_fields(struct config *c, json_t *f, struct error *e)
{
    enum code code;

    if ((code = field_text(f, "api_endpoint", 255, &c->api_endpoint, e)) ||
        (code =
             field_text(f, "organization_id", 128, &c->organization_id, e)) ||
        (code =
             field_text(f, "admin_api_key_id", 128, &c->admin_api_key_id, e)) ||
        (code = field_duration(f, "rotation_period", true, &c->rotation_period,
                               e)) ||
        (code = field_text(f, "rotation_schedule", 128, &c->rotation_schedule,
                           e)) ||
        (code = field_duration(f, "rotation_window", true, &c->rotation_window,
                               e)) ||
        (code = field_bool(f, "disable_automated_rotation",
                           &c->disable_automated_rotation, e)))
        return code;
    return OK;
}

static enum code check_rotation(const struct config *c, struct error *e)
{
    if (c->rotation_period && *c->rotation_schedule)
        return error_set(e, ERR_INVALID,
                         "rotation_period and rotation_schedule exclude each "
                         "other; set one of them to \"\"");
    if (c->rotation_window && !*c->rotation_schedule)
        return error_set(e, ERR_INVALID,
                         "rotation_window goes with rotation_schedule only");
    return *c->rotation_schedule ? config_check_cron(c->rotation_schedule, e)
                                 : OK;
}

static enum code check(struct config *c, bool http_loopback, struct error *e)
{
    enum code code =
        field_check_url("api_endpoint", c->api_endpoint, http_loopback, e);

    if (!code && *c->organization_id)
        code = text_check_service_id("organization_id", c->organization_id, e);
    if (!code && *c->admin_api_key_id)
        code =
            text_check_service_id("admin_api_key_id", c->admin_api_key_id, e);
    return code ? code : check_rotation(c, e);
}

enum code config_apply(struct config *c, json_t *fields, bool http_loopback,
                       struct error *e)
{
    enum code code;

    if (json_object_get(fields, "admin_api_key"))
        return error_set(e, ERR_INVALID,
                         "admin_api_key: a secret is given by descriptor, as "
                         "admin_api_key=- or admin_api_key=@file");
    code = field_check_names(fields, field_names, "config", e);
    if (!code)
        code = read_fields(c, fields, e);
    return code ? code : check(c, http_loopback, e);
}

/* ---- stored text ---- */

static json_t *pack(const struct config *c)
{
    return json_pack(
        "{ss ss ss sI ss sI sb}", "api_endpoint", c->api_endpoint,
        "organization_id", c->organization_id, "admin_api_key_id",
        c->admin_api_key_id, "rotation_period", (json_int_t)c->rotation_period,
        "rotation_schedule", c->rotation_schedule, "rotation_window",
        (json_int_t)c->rotation_window, "disable_automated_rotation",
        c->disable_automated_rotation);
}

static enum code read_told(struct config *c, json_t *stored, struct error *e)
{
    json_t *owner = json_object_get(stored, "owner");
    enum code code;

    c->last_rotated_ms =
        json_integer_value(json_object_get(stored, "last_rotated_ms"));
    c->key_expires_ms =
        json_integer_value(json_object_get(stored, "admin_api_key_expires_ms"));
    if ((code = field_text(owner, "type", 128, &c->owner_type, e)) ||
        (code = field_text(owner, "name", 1024, &c->owner_name, e)) ||
        (code = field_text(owner, "role", 128, &c->owner_role, e)))
        return code;
    return OK;
}

enum code config_parse(struct config *c, const char *text, struct error *e)
{
    JSON stored = NULL;
    enum code code = config_init(c, e);

    if (!code)
        code =
            json_parse(text, strlen(text), "stored configuration", &stored, e);
    if (!code)
        code = read_fields(c, stored, e);
    if (!code)
        code = read_told(c, stored, e);
    return code ? code : check(c, true, e);
}

static json_t *owner_json(const struct config *c)
{
    return json_pack("{ss ss ss}", "type", c->owner_type, "name", c->owner_name,
                     "role", c->owner_role);
}

enum code config_text(const struct config *c, char **text, struct error *e)
{
    JSON j = pack(c);

    *text = NULL;
    if (j && json_object_set_new(j, "owner", owner_json(c)) == 0 &&
        json_object_set_new(j, "last_rotated_ms",
                            json_integer(c->last_rotated_ms)) == 0 &&
        json_object_set_new(j, "admin_api_key_expires_ms",
                            json_integer(c->key_expires_ms)) == 0)
        *text = json_dumps(j, JSON_COMPACT);
    return *text ? OK
                 : error_set(e, ERR_NOMEM, "no memory for a configuration");
}

enum code config_json(const struct config *c, const char *org, bool configured,
                      json_t **out, struct error *e)
{
    char when[CLOCK_TEXT_MAX];
    json_t *rotated = c->last_rotated_ms
                          ? json_string(clock_text(c->last_rotated_ms, when))
                          : json_null();

    *out = pack(c);
    if (!*out || json_object_set_new(*out, "org", json_string(org)) != 0 ||
        json_object_set_new(*out, "admin_api_key_expires_ms",
                            json_integer(c->key_expires_ms)) != 0 ||
        json_object_set_new(*out, "configured", json_boolean(configured)) !=
            0 ||
        json_object_set_new(
            *out, "owner", *c->owner_type ? owner_json(c) : json_null()) != 0 ||
        json_object_set(*out, "last_rotated", rotated) != 0) {
        json_decref(rotated);
        return error_set(e, ERR_NOMEM, "no memory for a configuration");
    }
    json_decref(rotated);
    return OK;
}
