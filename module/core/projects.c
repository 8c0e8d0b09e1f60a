/* projects - see projects.h. */
#include "config.h"

#include "module/core/projects.h"

#include "module/core/gate.h"
#include "module/core/internal.h"

static enum code collect(const struct store_lease *l, void *ctx,
                         struct error *e)
{
    json_t *projects = ctx; /* {id: how many live leases} */
    json_int_t n = json_integer_value(json_object_get(projects, l->project));

    return json_object_set_new(projects, l->project, json_integer(n + 1)) == 0
               ? OK
               : error_set(e, ERR_NOMEM, "no memory for a list of projects");
}

static enum code look_at(struct core *c, const struct store_org *org,
                         const struct caller *by, const char *project,
                         json_int_t n, struct error *e)
{
    CLEANUP(openai_request_clear) struct openai_request request = {0};
    GATE_REPLY reply = GATE_REPLY_INIT;
    struct gate_call call = {.org = org->name,
                             .candidate = true,
                             .purpose = "verify admin key",
                             .by = by,
                             .request = &request,
                             .urgency = STORE_NORMAL};
    enum code code = openai_project_get(&request, project, e);

    if (!code)
        code = gate_ask(c, &call, &reply, e);
    if (code == ERR_NOT_FOUND || code == ERR_PROJECT)
        return error_set(e, ERR_EXISTS,
                         "this admin key does not know project %s, in which %s "
                         "has %lld live leases that only a key of the same "
                         "organisation at the service can revoke: revoke them "
                         "first (`hsmint lease revoke --project %s`), or give "
                         "the key to another organisation of hsmint (--org)",
                         project, org->name, (long long)n, project);
    return code ? error_prefix(e, "the admin key could not be verified") : OK;
}

enum code projects_check(struct core *c, const struct store_org *org,
                         const struct caller *by, struct error *e)
{
    const struct store_lease_query live = {.org = org->id, .live_only = true};
    JSON projects = json_object();
    const char *id;
    json_t *n;
    enum code code =
        projects ? store_lease_each(c->store, &live, collect, projects, e)
                 : error_set(e, ERR_NOMEM, "no memory for a list of projects");

    if (code)
        return code;
    json_object_foreach(projects, id, n)
    {
        code = look_at(c, org, by, id, json_integer_value(n), e);
        if (code)
            return code;
    }
    return OK;
}
