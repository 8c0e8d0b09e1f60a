/* Projects and their service accounts. */
#include "config.h"

#include "tests/adminsim/api.h"
#include "tests/adminsim/object.h"
#include "tests/adminsim/settings.h"

#include <stdlib.h>
#include <string.h>

static json_t *show_project(const struct object *o, const struct request *q)
{
    const struct project *p = (const struct project *)o;
    const char *archived = query_value(q, "include_archived");
    if (p->archived_s && (!archived || strcmp(archived, "true") != 0))
        return NULL;
    return project_json(p);
}

static void project_list(struct request *q, struct reply *r)
{
    reply_list(q, r, &world.projects, show_project, false);
}

static void project_create(struct request *q, struct reply *r)
{
    const char *name = request_name(q, r);
    if (!name)
        return;
    struct project *p = world_add_project(NULL, name);
    world_add_event("project.created", p->o.id, q->key->o.id, p);
    r->status = 200;
    r->json = project_json(p);
}

static void project_get(struct request *q, struct reply *r)
{
    struct project *p = request_project(q, r);
    if (!p)
        return;
    r->status = 200;
    r->json = project_json(p);
}

static void rename_object(struct object *o, const char *name)
{
    free(o->name);
    o->name = must(strdup(name));
    world.generation++;
}

static void project_update(struct request *q, struct reply *r)
{
    struct project *p = request_project(q, r);
    const char *name = p ? request_name(q, r) : NULL;
    if (!name)
        return;
    rename_object(&p->o, name);
    world_add_event("project.updated", p->o.id, q->key->o.id, p);
    r->status = 200;
    r->json = project_json(p);
}

static void project_archive(struct request *q, struct reply *r)
{
    struct project *p = request_project(q, r);
    if (!p)
        return;
    if (p->is_default) {
        reply_error(r, 400, "invalid_request_error", NULL, NULL,
                    "The default project cannot be archived.");
        return;
    }
    if (!p->archived_s)
        p->archived_s = world_now_s();
    /* Its keys die with it. */
    for (size_t i = 0; i < p->keys.n; i++)
        world_delete_key((struct key *)p->keys.items[i]);
    world_add_event("project.archived", p->o.id, q->key->o.id, p);
    r->status = 200;
    r->json = project_json(p);
}

/* ---- service accounts ---- */

static struct account *find_account(struct request *q, struct reply *r,
                                    bool hide_new)
{
    struct project *p = request_project(q, r);
    if (!p)
        return NULL;
    struct object *o = world_find(KIND_ACCOUNT, q->ids[1]);
    struct account *a = (struct account *)o;
    bool seen = hide_new ? object_visible(o, world_now_ms()) : object_exists(o);
    if (seen && a->project == p)
        return a;
    reply_error(r, 404, "invalid_request_error", NULL, NULL,
                "Service account '%s' not found.", q->ids[1]);
    return NULL;
}

static json_t *show_account(const struct object *o, const struct request *q)
{
    (void)q;
    return object_visible(o, world_now_ms())
               ? account_json((const struct account *)o)
               : NULL;
}

static void account_list(struct request *q, struct reply *r)
{
    struct project *p = request_project(q, r);
    if (p)
        reply_list(q, r, &p->accounts, show_account, false);
}

static bool takes_accounts(const struct project *p, struct reply *r)
{
    if (p->archived_s)
        reply_error(r, 400, "invalid_request_error", "project_archived", NULL,
                    "Project '%s' is archived.", p->o.id);
    else if (p->is_default)
        reply_error(r, 400, "invalid_request_error", NULL, NULL,
                    "Service accounts cannot be added to the default "
                    "project.");
    else
        return true;
    return false;
}

static void account_create(struct request *q, struct reply *r)
{
    struct project *p = request_project(q, r);
    const char *name = p && takes_accounts(p, r) ? request_name(q, r) : NULL;
    if (!name)
        return;
    bool bare =
        json_is_true(json_object_get(q->json, "create_service_account_only"));
    json_t *expiry = json_object_get(q->json, "expires_in_seconds");
    if (bare && expiry && !json_is_null(expiry)) {
        reply_error(r, 400, "invalid_request_error", "invalid_value",
                    "expires_in_seconds",
                    "'expires_in_seconds' cannot go with "
                    "'create_service_account_only'.");
        return;
    }
    int64_t expires = 0;
    if (!bare && !request_expiry(q, r, &expires))
        return;
    struct account *a = world_add_account(p, NULL, name, "member");
    struct key *k =
        bare ? NULL : world_add_key(p, a, NULL, "Secret Key", NULL, expires);
    world_add_event("service_account.created", a->o.id, q->key->o.id, p);
    r->status = 200;
    r->json = account_json(a);
    json_object_set_new(r->json, "api_key",
                        k ? account_key_json(k) : json_null());
}

static void account_get(struct request *q, struct reply *r)
{
    struct account *a = find_account(q, r, true);
    if (!a)
        return;
    r->status = 200;
    r->json = account_json(a);
}

static void account_update(struct request *q, struct reply *r)
{
    struct account *a = find_account(q, r, true);
    if (!a)
        return;
    const char *name = json_string_value(json_object_get(q->json, "name"));
    const char *role = json_string_value(json_object_get(q->json, "role"));
    if (name && !request_name(q, r))
        return;
    if (role && strcmp(role, "member") != 0 && strcmp(role, "owner") != 0) {
        reply_error(r, 400, "invalid_request_error", "invalid_value", "role",
                    "Invalid 'role': expected 'member' or 'owner'.");
        return;
    }
    if (name)
        rename_object(&a->o, name);
    if (role) {
        free(a->role);
        a->role = must(strdup(role));
    }
    world_add_event("service_account.updated", a->o.id, q->key->o.id,
                    a->project);
    r->status = 200;
    r->json = account_json(a);
}

static void account_delete(struct request *q, struct reply *r)
{
    struct account *a = find_account(q, r, settings.visibility_delete);
    if (!a)
        return;
    world_delete_account(a);
    world_add_event("service_account.deleted", a->o.id, q->key->o.id,
                    a->project);
    reply_deleted(r, "organization.project.service_account.deleted", a->o.id);
}

static void account_key_create(struct request *q, struct reply *r)
{
    struct account *a = find_account(q, r, true);
    int64_t expires = 0;
    if (!a || !takes_accounts(a->project, r) || !request_expiry(q, r, &expires))
        return;
    const char *name = json_string_value(json_object_get(q->json, "name"));
    struct key *k = world_add_key(a->project, a, NULL,
                                  name ? name : "Secret Key", NULL, expires);
    world_add_event("api_key.created", k->o.id, q->key->o.id, a->project);
    r->status = 200;
    r->json = account_key_json(k);
}

#define P "organization/projects"
#define A P "/{}/service_accounts"
const struct route admin_routes[] = {
    {"GET", P, true, project_list},
    {"POST", P, true, project_create},
    {"GET", P "/{}", true, project_get},
    {"POST", P "/{}", true, project_update},
    {"POST", P "/{}/archive", true, project_archive},
    {"GET", A, true, account_list},
    {"POST", A, true, account_create},
    {"GET", A "/{}", true, account_get},
    {"POST", A "/{}", true, account_update},
    {"DELETE", A "/{}", true, account_delete},
    {"POST", A "/{}/api_keys", true, account_key_create},
    {0}};
