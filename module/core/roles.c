/* roles - roles of an organisation, as administrators set and callers read
 * them. A project is checked with the service once, when a role names it. */
#include "config.h"

#include "common/clock.h"
#include "common/file.h"
#include "common/text.h"
#include "module/core/gate.h"
#include "module/core/internal.h"
#include "module/core/logbook.h"
#include "module/core/revoke.h"
#include "module/core/role.h"

#include <stdlib.h>
#include <string.h>

enum { DELETE_ROUNDS = 100, DELETE_WAIT_MS = 20000 };

static enum code fetch_project(struct core *c, const struct caller *by,
                               const char *org, struct role *r, struct error *e)
{
    CLEANUP(openai_request_clear) struct openai_request request = {0};
    CLEANUP(openai_project_clear) struct openai_project project = {0};
    GATE_REPLY reply = GATE_REPLY_INIT;
    struct gate_call call = {.org = org,
                             .purpose = "check project",
                             .by = by,
                             .request = &request,
                             .urgency = STORE_NORMAL};
    enum code code = openai_project_get(&request, r->project_id, e);

    if (!code)
        code = gate_ask(c, &call, &reply, e);
    if (code == ERR_NOT_FOUND || code == ERR_PROJECT)
        return error_set(e, ERR_PROJECT,
                         "project %s does not exist in this organisation",
                         r->project_id);
    if (!code)
        code = openai_decode_project(&reply.http, &project, e);
    if (code)
        return error_prefix(e, "project %s", r->project_id);
    if (project.archived)
        return error_set(e, ERR_PROJECT,
                         "project %s (%s) is archived: no service account can "
                         "be made in it",
                         r->project_id, project.name ? project.name : "");
    free(r->project_name);
    r->project_name = strdup(project.name ? project.name : "");
    return r->project_name ? OK
                           : error_set(e, ERR_NOMEM, "no memory for a role");
}

static enum code check_template(const struct role *r, const char *name,
                                struct error *e)
{
    struct template_input in = {.role = name,
                                .project = *r->project_name ? r->project_name
                                                            : r->project_id,
                                .wall_ms = clock_wall_ms()};

    return template_check(r->name_template, &in, e);
}

/* ---- writing ---- */

struct write {
    struct core *core;
    int64_t org;
    const char *org_name;
    const char *name;
    char *body;
    const struct caller *by;
    /* another role that ceases to be the default one */
    char *other_name, *other_body;
};

static void write_clear(struct write *w)
{
    free(w->body);
    free(w->other_name);
    free(w->other_body);
}

/* body NULL: it is deleted. */
static enum code change_role(struct store_tx *tx, const struct write *w,
                             const char *name, const char *body,
                             struct error *e)
{
    CLEANUP(store_role_clear) struct store_role old = {0};
    enum code code = store_tx_role_get(tx, w->org, name, &old, e);
    struct logbook_entry r = {.kind = RECORD_ROLE,
                              .by = w->by,
                              .org = w->org_name,
                              .role = name};

    if (code == ERR_ROLE_UNKNOWN && body)
        code = OK;
    if (!code)
        code = body ? store_role_put(tx, w->org, name, body, clock_wall_ms(), e)
                    : store_role_delete(tx, w->org, name, e);
    if (code)
        return code;
    r.more = logbook_change(name, body ? "set" : "delete", old.body, body);
    return logbook_add(w->core, tx, &r, e);
}

static enum code write_rows(struct store_tx *tx, void *ctx, struct error *e)
{
    const struct write *w = ctx;
    enum code code = change_role(tx, w, w->name, w->body, e);

    return code || !w->other_name
               ? code
               : change_role(tx, w, w->other_name, w->other_body, e);
}

static enum code find_other_default(const struct store_role *r, void *ctx,
                                    struct error *e)
{
    struct write *w = ctx;
    ROLE role = {0};
    enum code code = role_parse(&role, r->body, e);

    if (code || !role.is_default || w->other_name ||
        strcmp(r->name, w->name) == 0)
        return code;
    role.is_default = false;
    w->other_name = strdup(r->name);
    if (!w->other_name)
        return error_set(e, ERR_NOMEM, "no memory for a role");
    return role_body(&role, &w->other_body, e);
}

static enum code put_role(struct core *c, const struct caller *by,
                          const struct store_org *org, const char *name,
                          const struct role *r, struct error *e)
{
    CLEANUP(write_clear)
    struct write w = {.core = c,
                      .org = org->id,
                      .org_name = org->name,
                      .name = name,
                      .by = by};
    enum code code = role_body(r, &w.body, e);

    if (!code && r->is_default)
        code = store_role_each(c->store, org->id, find_other_default, &w, e);
    return code ? code
                : store_commit(c->store, STORE_NORMAL, write_rows, &w, e);
}

/* What was there, or the defaults. */
static enum code load(struct core *c, int64_t org, const char *name,
                      struct role *r, struct error *e)
{
    CLEANUP(store_role_clear) struct store_role row = {0};
    enum code code = store_role_get(c->store, org, name, &row, e);

    if (code == ERR_ROLE_UNKNOWN)
        return role_init(r, e);
    return code ? code : role_parse(r, row.body, e);
}

static enum code set(struct core *c, const struct caller *by,
                     const struct store_org *org, const char *name,
                     json_t *fields, struct role *r, struct error *e)
{
    FREE char *project = NULL;
    enum code code = load(c, org->id, name, r, e);

    if (code)
        return code;
    project = strdup(r->project_id);
    if (!project)
        return error_set(e, ERR_NOMEM, "no memory for a role");
    code = role_apply(r, fields, e);
    if (!code && strcmp(project, r->project_id) != 0)
        code = fetch_project(c, by, org->name, r, e);
    if (!code)
        code = check_template(r, name, e);
    return code ? code : put_role(c, by, org, name, r, e);
}

enum code core_role_set(struct core *c, const struct caller *by,
                        const char *org_name, const char *name, json_t *fields,
                        json_t **out, struct error *e)
{
    CLEANUP(store_org_clear) struct store_org org = {0};
    ROLE role = {0};
    INFLIGHT hold = {0};
    enum code code = text_check_name("role", name, e);

    if (!code)
        code = core_org(c, org_name, &org, e);
    if (!code)
        code = inflight_enter(&c->inflight, "roles", org.name, NULL, NULL,
                              &hold, e);
    if (!code)
        code = set(c, by, &org, name, fields, &role, e);
    if (code)
        return code;
    health_project(c, org.name, name, OK, "");
    return out ? role_json(&role, org.name, name, out, e) : OK;
}

/* ---- reading ---- */

enum code core_role_get(struct core *c, const struct caller *by,
                        const char *org_name, const char *name, json_t **out,
                        struct error *e)
{
    CLEANUP(store_org_clear) struct store_org org = {0};
    CLEANUP(store_role_clear) struct store_role row = {0};
    ROLE role = {0};
    enum code code = core_org(c, org_name, &org, e);

    (void)by;
    if (!code)
        code = store_role_get(c->store, org.id, name, &row, e);
    if (!code)
        code = role_parse(&role, row.body, e);
    return code ? code : role_json(&role, org.name, name, out, e);
}

struct list {
    struct core *core;
    const struct caller *by;
    const char *org;
    json_t *roles;
};

/* Administrators see all, others those that a policy of theirs is about. */
static bool is_shown(const struct list *list, const char *role)
{
    return core_may(list->core, list->by, CAPABILITY_ROLE_SHOWN, list->org,
                    role);
}

static enum code append_role(const struct store_role *r, void *ctx,
                             struct error *e)
{
    struct list *list = ctx;
    ROLE role = {0};
    json_t *one = NULL;
    enum code code = OK;

    if (!is_shown(list, r->name))
        return OK;
    code = role_parse(&role, r->body, e);
    if (!code)
        code = role_json(&role, list->org, r->name, &one, e);
    if (!code && json_array_append_new(list->roles, one) != 0)
        code = error_set(e, ERR_NOMEM, "no memory for a list of roles");
    return code;
}

enum code core_role_list(struct core *c, const struct caller *by,
                         const char *org_name, json_t **out, struct error *e)
{
    CLEANUP(store_org_clear) struct store_org org = {0};
    JSON roles = json_array();
    struct list list = {.core = c, .by = by, .roles = roles};
    enum code code = core_org(c, org_name, &org, e);

    list.org = org.name;
    if (!code)
        code = store_role_each(c->store, org.id, append_role, &list, e);
    if (!code)
        *out = json_incref(roles);
    return code;
}

/* ---- deleting ---- */

struct removal {
    struct write write;
    bool revoke; /* what is being revoked may stay */
    struct store_counts n;
};

/* A mint inserts its lease only where the transaction still sees the role. */
static enum code delete_rows(struct store_tx *tx, void *ctx, struct error *e)
{
    struct removal *r = ctx;
    const struct write *w = &r->write;
    struct store_counts *n = &r->n;
    enum code code = store_tx_lease_counts(tx, w->org, w->name, n, e);

    if (code)
        return code;
    if (n->pending + n->active + (r->revoke ? 0 : n->revoking) > 0)
        return error_set(e, ERR_EXISTS,
                         "role %s has live leases; revoke them first, or with "
                         "it (`hsmint role delete %s --revoke`)",
                         w->name, w->name);
    return change_role(tx, w, w->name, NULL, e);
}

/* Mints go on until the role is gone: those that came meanwhile are marked in
 * the next round. */
static enum code delete_role(struct core *c, struct removal *r, struct error *e)
{
    const struct write *w = &r->write;
    enum code code = OK;

    for (int i = 0; i < DELETE_ROUNDS; i++) {
        if (r->revoke)
            code = revoke_mark(c, w->org, w->name, "role deleted", w->by, e);
        if (!code)
            code = store_commit(c->store, STORE_NORMAL, delete_rows, r, e);
        if (code != ERR_EXISTS || !r->revoke)
            return code;
    }
    return code;
}

enum code core_role_delete(struct core *c, const struct caller *by,
                           const char *org_name, const char *name, bool revoke,
                           struct error *e)
{
    CLEANUP(store_org_clear) struct store_org org = {0};
    struct removal r = {.write = {.core = c, .name = name, .by = by},
                        .revoke = revoke};
    int64_t left;
    enum code code = core_org(c, org_name, &org, e);

    if (code)
        return code;
    r.write.org = org.id;
    r.write.org_name = org.name;
    code = delete_role(c, &r, e);
    health_project(c, org.name, name, code, "");
    if (!code && revoke)
        code = revoke_wait(c, org.id, name, DELETE_WAIT_MS, &left, e);
    return code;
}
