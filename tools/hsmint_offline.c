#include "config.h"

#include "tools/hsmint.h"

#include "common/clock.h"
#include "common/file.h"
#include "module/store/store.h"

#include <string.h>

/* hsmint lease list --live --offline: what has to be deleted by hand where
 * nothing works any more. Reads the store, and asks nobody. */

struct listing {
    const struct args *args;
    json_t *rows, *orgs; /* orgs: by id */
    size_t most;         /* of those that are asked for; 0: all */
};

static enum code add_org(const struct store_org *o, void *ctx, struct error *e)
{
    char id[32];
    (void)snprintf(id, sizeof(id), "%lld", (long long)o->id);
    if (json_object_set_new(ctx, id, json_string(o->name)) == 0)
        return OK;
    return error_set(e, ERR_NOMEM, "no memory for a list");
}

static const char *org_of(const struct listing *l, int64_t org)
{
    char id[32];
    (void)snprintf(id, sizeof(id), "%lld", (long long)org);
    const char *name = json_string_value(json_object_get(l->orgs, id));
    return name ? name : "";
}

static enum code add_row(const struct store_lease *l, void *ctx,
                         struct error *e)
{
    struct listing *list = ctx;
    const struct args *a = list->args;
    char expires[CLOCK_TEXT_MAX];
    const char *org = org_of(list, l->org);
    if ((a->org && strcmp(a->org, org) != 0) ||
        (a->role && strcmp(a->role, l->role) != 0) ||
        (list->most && json_array_size(list->rows) == list->most))
        return OK;
    json_t *row = json_pack(
        "{ss ss ss ss ss ss ss ss ss ss}", "org", org, "project_id", l->project,
        "service_account", l->account_name, "service_account_id", l->account_id,
        "api_key_id", l->key_id, "lease_id", l->id, "role", l->role, "state",
        lease_state_name(l->state), "owner", l->owner, "expires",
        clock_text(l->expires_ms, expires));
    if (row && json_array_append_new(list->rows, row) == 0)
        return OK;
    return error_set(e, ERR_NOMEM, "no memory for a list");
}

static void print(const struct args *a, const json_t *rows)
{
    static const struct column columns[] = {
        {"ORG", "org"},         {"PROJECT", "project_id"},
        {"ACCOUNT_ID", "service_account_id"},
        {"ACCOUNT", "service_account"},
        {"STATE", "state"},     {"OWNER", "owner"},
        {"EXPIRES", "expires"},
    };
    if (a->json)
        output_json(rows);
    else
        output_table(rows, columns, sizeof(columns) / sizeof(columns[0]));
}

static void store_freep(struct store **s)
{
    store_close(*s);
}

enum code offline_list(struct cli *c, struct error *e)
{
    const struct args *a = c->args;
    CLEANUP(store_freep) struct store *store = NULL;
    FREE char *dir = NULL;
    JSON rows = json_array();
    JSON orgs = json_object();
    struct listing list = {.args = a, .rows = rows, .orgs = orgs};
    struct store_lease_query q = {.live_only = !a->history};
    int64_t limit = -1;
    enum code code = args_number("limit", a->limit, 1, &limit, e);
    if (code == OK)
        code = find_state(c, &dir, e);
    if (code == OK)
        code = store_open_offline(&store, dir, e);
    if (code == OK)
        code = store_org_each(store, add_org, orgs, e);
    list.most = limit > 0 ? (size_t)limit : 0;
    if (code == OK)
        code = store_lease_each(store, &q, add_row, &list, e);
    if (code == OK)
        print(a, rows);
    return code;
}
