#include "config.h"

#include "tools/hsmint.h"


static enum code limit_of(const struct args *a, size_t *limit, struct error *e)
{
    int64_t n;
    enum code code = args_number("limit", a->limit, 1, &n, e);
    *limit = n > 0 ? (size_t)n : SIZE_MAX;
    return code;
}

static json_t *list_parameters(struct cli *c, const char *before, size_t room,
                               struct error *e)
{
    const struct args *a = c->args;
    JSON p = cli_parameters(c, CLI_ORG, e);
    if (!p || cli_put(p, "role", a->role, e) || cli_put(p, "before", before, e))
        return NULL;
    if (json_object_set_new(p, "all", json_boolean(a->all)) != 0 ||
        json_object_set_new(p, "live", json_boolean(!a->history)) != 0 ||
        (room < 1000 &&
         json_object_set_new(p, "limit", json_integer((json_int_t)room)))) {
        (void)error_set(e, ERR_NOMEM, "no memory for a call");
        return NULL;
    }
    return json_incref(p);
}

/* Page by page, newest first. */
static enum code collect(struct cli *c, json_t *all, size_t limit,
                         struct error *e)
{
    const char *before = NULL;
    for (bool more = true; more && json_array_size(all) < limit;) {
        JSON reply = NULL;
        json_t *p = list_parameters(c, before, limit - json_array_size(all), e);
        enum code code = cli_call(c, "ListLeases", p, NULL, &reply, NULL, e);
        if (code)
            return code;
        json_t *page = json_object_get(reply, "leases");
        more = json_is_true(json_object_get(reply, "more")) &&
               json_array_size(page) > 0;
        if (json_array_extend(all, page) != 0)
            return error_set(e, ERR_NOMEM, "no memory for a list");
        /* Kept alive by `all`. */
        before = json_string_value(json_object_get(
            json_array_get(all, json_array_size(all) - 1), "lease_id"));
        if (more && !before)
            return error_set(e, ERR_PROTOCOL, "a lease without lease_id");
    }
    return OK;
}

enum code command_lease_list(struct cli *c, struct error *e)
{
    static const struct column columns[] = {
        {"LEASE_ID", "lease_id"},
        {"ROLE", "role"},
        {"STATE", "state"},
        {"LEFT", "lease_duration"},
        {"OWNER", "owner"},
        {"PROGRAM", "program"},
        {"ACCOUNT", "service_account"},
    };
    size_t limit;
    JSON all = json_array();
    if (c->args->live && c->args->history)
        return error_set(e, ERR_USAGE, "--live and --history exclude each "
                                       "other");
    if (c->args->offline)
        return offline_list(c, e);
    enum code code = limit_of(c->args, &limit, e);
    if (code == OK)
        code = collect(c, all, limit, e);
    if (code)
        return code;
    if (c->args->json)
        output_json(all);
    else
        output_table(all, columns, sizeof(columns) / sizeof(columns[0]));
    return OK;
}

/* ---- one lease ---- */

static json_t *lease_parameters(struct cli *c, enum cli_parameters kind,
                                const char *id, struct error *e)
{
    json_t *p = cli_parameters(c, kind, e);
    if (p && cli_put(p, "lease_id", id, e) != OK)
        json_freep(&p);
    return p;
}

static enum code show_lease(struct cli *c, const char *method, json_t *p,
                            struct error *e)
{
    JSON reply = NULL;
    enum code code = cli_call(c, method, p, NULL, &reply, NULL, e);
    if (code)
        return code;
    json_t *lease = json_object_get(reply, "lease");
    if (c->args->json)
        output_json(lease);
    else
        output_fields(lease);
    return OK;
}

enum code command_lease_show(struct cli *c, struct error *e)
{
    return show_lease(c, "GetLease",
                      lease_parameters(c, CLI_PLAIN, c->args->words[0], e), e);
}

enum code command_lease_renew(struct cli *c, struct error *e)
{
    int64_t ttl;
    enum code code = args_duration("ttl", c->args->ttl, &ttl, e);
    if (code)
        return code;
    JSON p = lease_parameters(c, CLI_CHANGE, c->args->words[0], e);
    if (p && ttl && json_object_set_new(p, "ttl", json_integer(ttl)) != 0)
        return error_set(e, ERR_NOMEM, "no memory for a call");
    return show_lease(c, "Renew", json_incref(p), e);
}
