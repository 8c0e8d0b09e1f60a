/* role - see role.h. */
#include "config.h"

#include "module/core/role.h"

#include "common/text.h"
#include "module/core/field.h"

#include <stdlib.h>
#include <string.h>

static const char *const field_names[] = {"project_id",
                                          "service_account_name_template",
                                          "service_account_description",
                                          "ttl",
                                          "max_ttl",
                                          "keep_value",
                                          "api_base",
                                          "default",
                                          "reuse",
                                          "prove_death",
                                          "max_live",
                                          "max_live_per_identity",
                                          "max_mints_per_minute",
                                          "max_mints_per_minute_per_identity",
                                          NULL};
/* In the stored body also what we were told about the project. */
#define BODY_PROJECT_NAME "project_name"

void role_clear(struct role *r)
{
    free(r->project_id);
    free(r->project_name);
    free(r->name_template);
    free(r->description);
    free(r->api_base);
    *r = (struct role){0};
}

enum code role_init(struct role *r, struct error *e)
{
    *r = (struct role){.project_id = strdup(""),
                       .project_name = strdup(""),
                       .name_template = strdup(TEMPLATE_DEFAULT),
                       .description = strdup(""),
                       .api_base = strdup(""),
                       .ttl = ROLE_TTL_DEFAULT,
                       .max_ttl = ROLE_MAX_TTL_DEFAULT};
    if (!r->project_id || !r->project_name || !r->name_template ||
        !r->description || !r->api_base)
        return error_set(e, ERR_NOMEM, "no memory for a role");
    return OK;
}

static enum code read_guards(struct role *r, json_t *f, struct error *e)
{
    const struct {
        const char *name;
        int64_t *out;
    } guards[] = {
        {"max_live", &r->max_live},
        {"max_live_per_identity", &r->max_live_per_identity},
        {"max_mints_per_minute", &r->max_mints_per_minute},
        {"max_mints_per_minute_per_identity",
         &r->max_mints_per_minute_per_identity},
    };
    enum code code = OK;

    for (size_t i = 0; !code && i < sizeof(guards) / sizeof(guards[0]); i++)
        code = field_count(f, guards[i].name, ROLE_COUNT_MAX, guards[i].out, e);
    return code;
}

static enum code read_fields(struct role *r, json_t *f, struct error *e)
{
    enum code code;

    if ((code = field_text(f, "project_id", 128, &r->project_id, e)) ||
        (code = field_text(f, "service_account_name_template",
                           TEMPLATE_TEXT_MAX, &r->name_template, e)) ||
        (code = field_text(f, "service_account_description",
                           ROLE_DESCRIPTION_MAX, &r->description, e)) ||
        (code =
             field_text(f, "api_base", ROLE_API_BASE_MAX, &r->api_base, e)) ||
        (code = field_duration(f, "ttl", false, &r->ttl, e)) ||
        (code = field_duration(f, "max_ttl", false, &r->max_ttl, e)) ||
        (code = field_bool(f, "keep_value", &r->keep_value, e)) ||
        (code = field_bool(f, "default", &r->is_default, e)) ||
        (code = field_bool(f, "reuse", &r->reuse, e)) ||
        (code = field_bool(f, "prove_death", &r->prove_death, e)))
        return code;
    return read_guards(r, f, e);
}

static enum code use_default_template(struct role *r, struct error *e)
{
    if (*r->name_template)
        return OK;
    free(r->name_template);
    r->name_template = strdup(TEMPLATE_DEFAULT);
    return r->name_template ? OK
                            : error_set(e, ERR_NOMEM, "no memory for a role");
}

static enum code check(struct role *r, struct error *e)
{
    char ttl[TEXT_DURATION_MAX], max[TEXT_DURATION_MAX];
    enum code code = use_default_template(r, e);

    if (code)
        return code;
    if (!*r->project_id)
        return error_set(e, ERR_INVALID, "project_id is needed");
    code = text_check_service_id("project_id", r->project_id, e);
    if (code)
        return code;
    if (r->max_ttl > ROLE_TTL_MAX)
        return error_set(e, ERR_TTL,
                         "max_ttl %s: the service takes at most 365d",
                         text_duration_format(r->max_ttl, max));
    if (r->ttl > r->max_ttl)
        return error_set(e, ERR_TTL, "ttl %s is beyond max_ttl %s",
                         text_duration_format(r->ttl, ttl),
                         text_duration_format(r->max_ttl, max));
    if (*r->api_base)
        return field_check_url("api_base", r->api_base, true, e);
    return OK;
}

enum code role_apply(struct role *r, json_t *fields, struct error *e)
{
    enum code code = field_check_names(fields, field_names, "role", e);

    if (!code)
        code = read_fields(r, fields, e);
    return code ? code : check(r, e);
}

enum code role_parse(struct role *r, const char *body, struct error *e)
{
    JSON fields = NULL;
    enum code code = role_init(r, e);

    if (!code)
        code = json_parse(body, strlen(body), "stored role", &fields, e);
    if (!code)
        code = field_text(fields, BODY_PROJECT_NAME, 1024, &r->project_name, e);
    if (!code)
        code = read_fields(r, fields, e);
    return code ? code : check(r, e);
}

static json_t *pack(const struct role *r)
{
    return json_pack(
        "{ss ss ss ss sI sI sb ss sb sb sb sI sI sI sI}", "project_id",
        r->project_id,
        BODY_PROJECT_NAME, r->project_name, "service_account_name_template",
        r->name_template, "service_account_description", r->description, "ttl",
        (json_int_t)r->ttl, "max_ttl", (json_int_t)r->max_ttl, "keep_value",
        r->keep_value, "api_base", r->api_base, "default", r->is_default, "reuse",
        r->reuse, "prove_death", r->prove_death, "max_live",
        (json_int_t)r->max_live, "max_live_per_identity",
        (json_int_t)r->max_live_per_identity, "max_mints_per_minute",
        (json_int_t)r->max_mints_per_minute,
        "max_mints_per_minute_per_identity",
        (json_int_t)r->max_mints_per_minute_per_identity);
}

enum code role_body(const struct role *r, char **body, struct error *e)
{
    JSON j = pack(r);

    *body = json_text(j, JSON_COMPACT);
    return *body ? OK : error_set(e, ERR_NOMEM, "no memory for a role");
}

enum code role_json(const struct role *r, const char *org, const char *name,
                    json_t **out, struct error *e)
{
    *out = pack(r);
    if (!*out || json_object_set_new(*out, "org", json_string(org)) != 0 ||
        json_object_set_new(*out, "name", json_string(name)) != 0)
        return error_set(e, ERR_NOMEM, "no memory for role %s", name);
    return OK;
}
