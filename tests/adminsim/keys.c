/* Admin keys, and the keys of a project. */
#include "config.h"

#include "tests/adminsim/api.h"
#include "tests/adminsim/object.h"
#include "tests/adminsim/settings.h"

#include <string.h>

static struct key *find_admin_key(struct request *q, struct reply *r,
                                  bool hide_new)
{
    struct object *o = world_find(KIND_ADMIN_KEY, q->ids[0]);
    if (hide_new ? object_visible(o, world_now_ms()) : object_exists(o))
        return (struct key *)o;
    reply_error(r, 404, "invalid_request_error", NULL, NULL,
                "Admin API key '%s' not found.", q->ids[0]);
    return NULL;
}

static json_t *show_admin_key(const struct object *o, const struct request *q)
{
    (void)q;
    return object_visible(o, world_now_ms())
               ? admin_key_json((const struct key *)o, false)
               : NULL;
}

static void admin_key_list(struct request *q, struct reply *r)
{
    reply_list(q, r, &world.admin_keys, show_admin_key, false);
}

static void admin_key_create(struct request *q, struct reply *r)
{
    const char *name = request_name(q, r);
    int64_t expires = 0;
    if (!name || !request_expiry(q, r, &expires))
        return;
    struct key *k = world_add_key(NULL, NULL, NULL, name, NULL, expires);
    k->service_owner = q->key->service_owner;
    world_add_event("tenant.admin_api_key.created", k->o.id, q->key->o.id,
                    NULL);
    r->status = 200;
    r->json = admin_key_json(k, true);
}

static void admin_key_get(struct request *q, struct reply *r)
{
    struct key *k = find_admin_key(q, r, true);
    if (!k)
        return;
    r->status = 200;
    r->json = admin_key_json(k, false);
}

static void admin_key_delete(struct request *q, struct reply *r)
{
    struct key *k = find_admin_key(q, r, settings.visibility_delete);
    if (!k)
        return;
    if (k == q->key && !settings.self_delete) {
        reply_error(r, 400, "invalid_request_error", NULL, NULL,
                    "An admin API key cannot delete itself.");
        return;
    }
    world_delete_key(k);
    world_add_event("tenant.admin_api_key.deleted", k->o.id, q->key->o.id,
                    NULL);
    reply_deleted(r, "organization.admin_api_key.deleted", k->o.id);
}

/* ---- keys of a project ---- */

static struct key *find_key(struct request *q, struct reply *r, bool hide_new)
{
    struct project *p = request_project(q, r);
    if (!p)
        return NULL;
    struct object *o = world_find(KIND_KEY, q->ids[1]);
    struct key *k = (struct key *)o;
    bool seen = hide_new ? object_visible(o, world_now_ms()) : object_exists(o);
    if (seen && k->project == p)
        return k;
    reply_error(r, 404, "invalid_request_error", NULL, NULL,
                "API key '%s' not found.", q->ids[1]);
    return NULL;
}

static json_t *show_key(const struct object *o, const struct request *q)
{
    const char *any = query_value(q, "owner_project_access");
    bool hidden = settings.list_needs_any && (!any || strcmp(any, "any") != 0);
    return !hidden && object_visible(o, world_now_ms())
               ? project_key_json((const struct key *)o)
               : NULL;
}

static void key_list(struct request *q, struct reply *r)
{
    struct project *p = request_project(q, r);
    if (p)
        reply_list(q, r, &p->keys, show_key, false);
}

static void key_get(struct request *q, struct reply *r)
{
    struct key *k = find_key(q, r, true);
    if (!k)
        return;
    r->status = 200;
    r->json = project_key_json(k);
}

static void key_update(struct request *q, struct reply *r)
{
    struct key *k = find_key(q, r, true);
    if (!k)
        return;
    json_t *expiry = json_object_get(q->json, "expires_in_seconds");
    if (!expiry && !json_object_get(q->json, "scopes")) {
        reply_error(r, 400, "invalid_request_error", NULL, NULL,
                    "Give 'scopes' or 'expires_in_seconds'.");
        return;
    }
    if (key_expired(k, world_now_ms())) {
        reply_error(r, 400, "invalid_request_error", "api_key_expired", NULL,
                    "An expired API key cannot be updated.");
        return;
    }
    int64_t expires = 0;
    if (expiry && !request_expiry(q, r, &expires))
        return;
    if (expires) {
        k->expires_s = expires;
        world.generation++;
    }
    world_add_event("api_key.updated", k->o.id, q->key->o.id, k->project);
    r->status = 200;
    r->json = project_key_json(k);
}

static void key_delete(struct request *q, struct reply *r)
{
    struct key *k = find_key(q, r, settings.visibility_delete);
    if (!k)
        return;
    if (k->account && !settings.account_key_delete) {
        reply_error(r, 400, "invalid_request_error", NULL, NULL,
                    "API keys of a service account cannot be deleted; delete "
                    "the service account.");
        return;
    }
    world_delete_key(k);
    world_add_event("api_key.deleted", k->o.id, q->key->o.id, k->project);
    reply_deleted(r, "organization.project.api_key.deleted", k->o.id);
}

#define ADMIN "organization/admin_api_keys"
#define KEYS "organization/projects/{}/api_keys"
const struct route key_routes[] = {
    {"GET", ADMIN, true, admin_key_list},
    {"POST", ADMIN, true, admin_key_create},
    {"GET", ADMIN "/{}", true, admin_key_get},
    {"DELETE", ADMIN "/{}", true, admin_key_delete},
    {"GET", KEYS, true, key_list},
    {"GET", KEYS "/{}", true, key_get},
    {"POST", KEYS "/{}", true, key_update},
    {"DELETE", KEYS "/{}", true, key_delete},
    {0}};
