#include "config.h"

#include "tools/hsmint.h"

#include <string.h>

#define SECRET_FIELD "admin_api_key"

/* On a command line a key would be in the shell's history and in ps. */
static enum code take_secret(const char *value, struct secret **key,
                             struct error *e)
{
    if (*key)
        return error_set(e, ERR_USAGE, SECRET_FIELD " is given twice");
    return read_secret_field(key, SECRET_FIELD, value, e);
}

static enum code take_fields(struct cli *c, int first, bool secrets,
                             json_t *fields, struct secret **key,
                             struct error *e)
{
    const struct args *a = c->args;
    enum code code = OK;
    for (int i = first; i < a->words_n && code == OK; i++) {
        char name[ARGS_NAME_MAX];
        const char *value;
        /* Nothing of a secret goes into an error's text. */
        bool secret =
            strncmp(a->words[i], SECRET_FIELD "=", sizeof(SECRET_FIELD)) == 0;
        code = args_field(a->words[i], name, &value, e);
        if (code == OK && secret && secrets)
            code = take_secret(value, key, e);
        else if (code == OK && json_object_get(fields, name))
            code = error_set(e, ERR_USAGE, "%s is given twice", name);
        else if (code == OK)
            code = cli_put(fields, name, value, e);
    }
    return code;
}

/* A configuration's owner in a line: {type, name, role} or null. */
static void flatten_owner(json_t *config)
{
    json_t *owner = json_object_get(config, "owner");
    char name[OUTPUT_TEXT_MAX], type[OUTPUT_TEXT_MAX],
        line[2 * OUTPUT_TEXT_MAX + 4];
    if (!json_is_object(owner))
        return;
    output_text("name", json_object_get(owner, "name"), name);
    output_text("type", json_object_get(owner, "type"), type);
    (void)snprintf(line, sizeof(line), "%s (%s)", name, type);
    (void)json_object_set_new(config, "owner", json_string(line));
}

static void show(struct cli *c, json_t *object)
{
    if (c->args->json) {
        output_json(object);
        return;
    }
    flatten_owner(object);
    output_fields(object);
}

/* What is to become of the key that is given, and of the one before. */
static enum code put_fate(const struct args *a, json_t *p, struct error *e)
{
    bool failed = false;
    if (a->keep_old && a->retire_old)
        return error_set(e, ERR_USAGE,
                         "--keep-old and --retire-old exclude each other");
    if (a->keep_first)
        failed = json_object_set_new(p, "keep_first", json_true()) != 0;
    if (a->keep_old || a->retire_old)
        failed = json_object_set_new(
                     p, "old", json_string(a->keep_old ? "keep" : "retire")) ||
                 failed;
    return failed ? error_set(e, ERR_NOMEM, "no memory for a call") : OK;
}

enum code command_config_set(struct cli *c, struct error *e)
{
    SECRET key = NULL;
    JSON fields = json_object();
    JSON reply = NULL;
    enum code code = take_fields(c, 0, true, fields, &key, e);
    if (code)
        return code;
    JSON p = cli_parameters(c, CLI_ORG | CLI_CHANGE, e);
    if (p && json_object_set(p, "fields", fields) != 0)
        return error_set(e, ERR_NOMEM, "no memory for a call");
    if (p && (code = put_fate(c->args, p, e)))
        return code;
    code = cli_call(c, "SetConfig", json_incref(p), key, &reply, NULL, e);
    if (code)
        return code;
    if (c->args->json) {
        output_json(reply);
        return OK;
    }
    show(c, json_object_get(reply, "config"));
    output_warnings(json_object_get(reply, "warnings"));
    return OK;
}

enum code command_config_show(struct cli *c, struct error *e)
{
    JSON reply = NULL;
    enum code code = cli_call(c, "GetConfig", cli_parameters(c, CLI_ORG, e),
                              NULL, &reply, NULL, e);
    if (code == OK)
        show(c, json_object_get(reply, "config"));
    return code;
}

static enum code rotate(struct cli *c, bool compromised, struct error *e)
{
    JSON reply = NULL;
    json_t *p = cli_parameters(c, CLI_ORG | CLI_CHANGE, e);
    if (p && compromised &&
        json_object_set_new(p, "compromised", json_true()) != 0) {
        json_decref(p);
        return error_set(e, ERR_NOMEM, "no memory for a call");
    }
    enum code code = cli_call(c, "RotateConfig", p, NULL, &reply, NULL, e);
    if (code == OK)
        show(c, reply);
    return code;
}

enum code command_config_rotate(struct cli *c, struct error *e)
{
    return rotate(c, false, e);
}

enum code command_config_compromised(struct cli *c, struct error *e)
{
    return rotate(c, true, e);
}

static enum code delete_with(struct cli *c, const char *method, json_t *p,
                             struct error *e)
{
    JSON parameters = p;
    JSON reply = NULL;
    if (p && c->args->revoke && json_object_set_new(p, "revoke", json_true()))
        return error_set(e, ERR_NOMEM, "no memory for a call");
    enum code code =
        cli_call(c, method, json_incref(parameters), NULL, &reply, NULL, e);
    if (code == OK)
        output_warnings(json_object_get(reply, "warnings"));
    return code;
}

enum code command_config_delete(struct cli *c, struct error *e)
{
    return delete_with(c, "DeleteConfig",
                       cli_parameters(c, CLI_ORG | CLI_CHANGE, e), e);
}

/* ---- roles ---- */

enum code command_role_set(struct cli *c, struct error *e)
{
    JSON fields = json_object();
    JSON reply = NULL;
    enum code code = take_fields(c, 1, false, fields, NULL, e);
    if (code)
        return code;
    JSON p = cli_named(c, CLI_ORG | CLI_CHANGE, e);
    if (p && json_object_set(p, "fields", fields) != 0)
        return error_set(e, ERR_NOMEM, "no memory for a call");
    code = cli_call(c, "SetRole", json_incref(p), NULL, &reply, NULL, e);
    if (code == OK)
        show(c, json_object_get(reply, "role"));
    return code;
}

enum code command_role_show(struct cli *c, struct error *e)
{
    JSON reply = NULL;
    enum code code = cli_call(c, "GetRole", cli_named(c, CLI_ORG, e),
                              NULL, &reply, NULL, e);
    if (code == OK)
        show(c, json_object_get(reply, "role"));
    return code;
}

enum code command_role_list(struct cli *c, struct error *e)
{
    static const struct column columns[] = {
        {"ROLE", "name"},
        {"PROJECT", "project_id"},
        {"TTL", "ttl"},
        {"MAX_TTL", "max_ttl"},
        {"KEEP_VALUE", "keep_value"},
        {"DEFAULT", "default"},
    };
    JSON reply = NULL;
    enum code code = cli_call(c, "ListRoles", cli_parameters(c, CLI_ORG, e),
                              NULL, &reply, NULL, e);
    if (code)
        return code;
    json_t *roles = json_object_get(reply, "roles");
    if (c->args->json)
        output_json(roles);
    else
        output_table(roles, columns, sizeof(columns) / sizeof(columns[0]));
    return OK;
}

enum code command_role_delete(struct cli *c, struct error *e)
{
    return delete_with(c, "DeleteRole",
                       cli_named(c, CLI_ORG | CLI_CHANGE, e), e);
}
