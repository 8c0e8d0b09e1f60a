/* orgconfig - see orgconfig.h. */
#include "config.h"

#include "module/core/orgconfig.h"

#include "common/clock.h"
#include "common/text.h"
#include "module/core/field.h"
#include "module/core/schedule.h"

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
                                          "rotation_slack",
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
        (code = field_duration(f, "rotation_slack", true, &c->rotation_slack,
                               e)) ||
        (code = field_bool(f, "disable_automated_rotation",
                           &c->disable_automated_rotation, e)))
        return code;
    return OK;
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
    return code ? code : schedule_check(c, e);
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
        "{ss ss ss sI ss sI sI sb}", "api_endpoint", c->api_endpoint,
        "organization_id", c->organization_id, "admin_api_key_id",
        c->admin_api_key_id, "rotation_period", (json_int_t)c->rotation_period,
        "rotation_schedule", c->rotation_schedule, "rotation_window",
        (json_int_t)c->rotation_window, "rotation_slack",
        (json_int_t)c->rotation_slack, "disable_automated_rotation",
        c->disable_automated_rotation);
}

static enum code read_told(struct config *c, json_t *stored, struct error *e)
{
    json_t *owner = json_object_get(stored, "owner");
    const char *wanted =
        json_string_value(json_object_get(stored, "rotation_wanted"));
    enum code code;

    c->by_hand = json_is_true(json_object_get(stored, "by_hand"));
    c->wanted_ms = json_integer_value(json_object_get(stored, "wanted_ms"));
    snprintf(c->rotation_wanted, sizeof(c->rotation_wanted), "%s",
             wanted ? wanted : "");
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

static json_t *told_json(const struct config *c)
{
    return json_pack("{so sI sI sb ss sI}", "owner", owner_json(c),
                     "last_rotated_ms", (json_int_t)c->last_rotated_ms,
                     "admin_api_key_expires_ms", (json_int_t)c->key_expires_ms,
                     "by_hand", c->by_hand, "rotation_wanted",
                     c->rotation_wanted, "wanted_ms",
                     (json_int_t)c->wanted_ms);
}

enum code config_text(const struct config *c, char **text, struct error *e)
{
    JSON j = pack(c);
    JSON told = told_json(c);

    *text = NULL;
    if (j && told && json_object_update(j, told) == 0)
        *text = json_text(j, JSON_COMPACT);
    return *text ? OK
                 : error_set(e, ERR_NOMEM, "no memory for a configuration");
}

/* A time, or null for one that never comes. */
static json_t *time_json(int64_t ms)
{
    char when[CLOCK_TEXT_MAX];

    return ms <= 0 || ms == SCHEDULE_NEVER ? json_null()
                                           : json_string(clock_text(ms, when));
}

static const char *key_state(const struct config *c, bool configured,
                             int64_t now_ms)
{
    if (!configured)
        return "none";
    return c->key_expires_ms && c->key_expires_ms <= now_ms ? "expired"
                                                            : "current";
}

static json_t *shown_json(const struct config *c, bool configured)
{
    int64_t now = clock_wall_ms();
    struct schedule next = schedule_next(c, now);
    bool planned = configured && next.due_ms != SCHEDULE_NEVER;

    return json_pack(
        "{sb ss sb sI so so so ss}", "configured", configured,
        "admin_api_key_state", key_state(c, configured, now),
        "admin_api_key_by_hand", configured && c->by_hand,
        "admin_api_key_expires_ms", (json_int_t)c->key_expires_ms, "owner",
        *c->owner_type ? owner_json(c) : json_null(), "last_rotated",
        time_json(c->last_rotated_ms), "next_rotation",
        time_json(planned ? next.due_ms : SCHEDULE_NEVER), "rotation_cause",
        planned ? next.cause : "");
}

enum code config_json(const struct config *c, const char *org, bool configured,
                      json_t **out, struct error *e)
{
    JSON shown = shown_json(c, configured);

    *out = pack(c);
    if (!*out || !shown || json_object_update(*out, shown) != 0 ||
        json_object_set_new(*out, "org", json_string(org)) != 0)
        return error_set(e, ERR_NOMEM, "no memory for a configuration");
    return OK;
}
