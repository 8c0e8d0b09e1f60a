#include "config.h"

#include "tools/hsmint.h"

#include <string.h>

static enum code get_status(struct cli *c, json_t **reply, json_t **status,
                            struct error *e)
{
    enum code code = cli_call(c, "Status", cli_parameters(c, CLI_PLAIN, e),
                              NULL, reply, NULL, e);
    if (code)
        return code;
    *status = json_object_get(*reply, "status");
    if (!json_is_object(*status))
        return error_set(e, ERR_PROTOCOL, "the daemon gave no status");
    return OK;
}

/* What user mode promises is said where it is seen. */
static void print_promise(json_t *status)
{
    const char *mode = json_string_value(json_object_get(status, "mode"));
    if (mode && strcmp(mode, "user") == 0)
        printf("\nUser mode guards against leaks and accidents, not against "
               "programs of this user,\nwho holds PIN and daemon.\n");
}

static void print_status(json_t *status)
{
    static const struct column columns[] = {
        {"ORG", "org"},
        {"CONFIGURED", "configured"},
        {"ORGANIZATION", "organization_id"},
        {"ADMIN_KEY", "admin_api_key_id"},
        {"LAST_ROTATED", "last_rotated"},
    };
    JSON orgs = json_incref(json_object_get(status, "orgs"));
    (void)json_object_del(json_object_get(status, "hsm"), "keys");
    (void)json_object_del(status, "orgs");
    output_fields(status);
    if (json_array_size(orgs) > 0) {
        (void)fputc('\n', stdout);
        output_table(orgs, columns, sizeof(columns) / sizeof(columns[0]));
    }
    print_promise(status);
}

enum code command_status(struct cli *c, struct error *e)
{
    JSON reply = NULL;
    json_t *status;
    enum code code = get_status(c, &reply, &status, e);
    if (code)
        return code;
    if (c->args->json)
        output_json(status);
    else
        print_status(status);
    return OK;
}

enum code command_hsm_show(struct cli *c, struct error *e)
{
    JSON reply = NULL;
    json_t *status;
    enum code code = get_status(c, &reply, &status, e);
    if (code)
        return code;
    json_t *hsm = json_object_get(status, "hsm");
    if (!json_is_object(hsm))
        return error_set(e, ERR_HSM_ABSENT, "the daemon knows of no HSM");
    if (c->args->json)
        output_json(hsm);
    else
        output_hsm(hsm);
    return OK;
}

enum code command_login(struct cli *c, struct error *e)
{
    return cli_login(c, false, e);
}

enum code command_hsm_unlock(struct cli *c, struct error *e)
{
    return cli_login(c, true, e);
}

enum code command_lock(struct cli *c, struct error *e)
{
    return cli_call(c, "Lock", cli_parameters(c, CLI_PLAIN, e), NULL, NULL,
                    NULL, e);
}

enum code command_stop(struct cli *c, struct error *e)
{
    json_t *p = cli_parameters(c, CLI_PLAIN, e);
    if (p && json_object_set_new(p, "force", json_boolean(c->args->force)))
        json_freep(&p);
    return cli_call(c, "Stop", p, NULL, NULL, NULL, e);
}
