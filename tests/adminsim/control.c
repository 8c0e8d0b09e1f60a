/* /_control/…: how a test looks into the double and tells it what to do. */
#include "config.h"

#include "tests/adminsim/counter.h"
#include "tests/adminsim/fault.h"
#include "tests/adminsim/history.h"
#include "tests/adminsim/http.h"
#include "tests/adminsim/object.h"
#include "tests/adminsim/settings.h"
#include "tests/adminsim/state.h"

#include <stdlib.h>
#include <string.h>

static void done(struct reply *r, json_t *json)
{
    r->status = 200;
    r->json = json ? json : json_pack("{sb}", "ok", true);
}

static json_t *key_state(const struct key *k)
{
    return json_pack("{ss, ss, so, sb, sb, so, so}", "id", k->o.id, "name",
                     k->o.name, "redacted_value", key_redacted(k), "alive",
                     key_accepted(k, world_now_ms()), "deleted",
                     k->o.deleted_ms != 0, "expires_at",
                     time_json(k->expires_s), "last_used_at",
                     time_json(k->last_used_s));
}

static json_t *account_state(const struct account *a)
{
    json_t *keys = json_array(), *ids = json_array();
    for (size_t i = 0; i < a->n_keys; i++) {
        json_array_append_new(keys, key_state(a->keys[i]));
        json_array_append_new(ids, json_string(a->keys[i]->o.id));
    }
    return json_pack("{ss, ss, ss, sb, sI, so, so}", "id", a->o.id, "name",
                     a->o.name, "role", a->role, "alive", a->o.deleted_ms == 0,
                     "created_at", (json_int_t)(a->o.created_ms / 1000),
                     "key_ids", ids, "keys", keys);
}

static json_t *project_state(const struct project *p, bool all)
{
    json_t *accounts = json_array(), *keys = json_array();
    for (size_t i = 0; i < p->accounts.n; i++) {
        const struct account *a = (const struct account *)p->accounts.items[i];
        if (all || !a->o.deleted_ms)
            json_array_append_new(accounts, account_state(a));
    }
    for (size_t i = 0; i < p->keys.n; i++) {
        const struct key *k = (const struct key *)p->keys.items[i];
        if (!k->account && (all || !k->o.deleted_ms))
            json_array_append_new(keys, key_state(k));
    }
    return json_pack("{ss, ss, ss, so, so}", "id", p->o.id, "name", p->o.name,
                     "status", p->archived_s ? "archived" : "active",
                     "service_accounts", accounts, "user_keys", keys);
}

static void get_state(struct request *q, struct reply *r)
{
    bool all = !query_value(q, "alive");
    json_t *projects = json_array(), *admin = json_array();
    for (size_t i = 0; i < world.projects.n; i++)
        json_array_append_new(
            projects,
            project_state((const struct project *)world.projects.items[i],
                          all));
    for (size_t i = 0; i < world.admin_keys.n; i++) {
        const struct key *k = (const struct key *)world.admin_keys.items[i];
        if (all || !k->o.deleted_ms)
            json_array_append_new(admin, key_state(k));
    }
    done(r, json_pack("{so, so, sI}", "projects", projects, "admin_keys", admin,
                      "now_ms", (json_int_t)world_now_ms()));
}

static void get_counters(struct request *q, struct reply *r)
{
    (void)q;
    done(r, counter_json());
}

static void get_requests(struct request *q, struct reply *r)
{
    (void)q;
    done(r, json_pack("{so}", "requests", counter_requests()));
}

/* ?from=N: whoever read N entries goes on from there. */
static void get_history(struct request *q, struct reply *r)
{
    const char *from = query_value(q, "from");
    done(r, history_json(from ? strtoul(from, NULL, 10) : 0));
}

static void get_holds(struct request *q, struct reply *r)
{
    (void)q;
    done(r, json_pack("{si}", "held", fault_held()));
}

static void delete_holds(struct request *q, struct reply *r)
{
    (void)q;
    fault_release();
    done(r, NULL);
}

static void bad(struct reply *r, const char *what, const char *why)
{
    reply_error(r, 400, "control", NULL, NULL, "%s: %s", what, why);
}

static void get_faults(struct request *q, struct reply *r)
{
    (void)q;
    done(r, json_pack("{so}", "faults", fault_pending()));
}

static void post_faults(struct request *q, struct reply *r)
{
    json_t *named = json_object_get(q->json, "faults");
    json_t *list = named ? named : q->json;
    size_t n = json_is_array(list) ? json_array_size(list) : 1;
    for (size_t i = 0; i < n; i++) {
        const char *wrong =
            fault_add(json_is_array(list) ? json_array_get(list, i) : list);
        if (wrong) {
            bad(r, "fault", wrong);
            return;
        }
    }
    done(r, NULL);
}

static void delete_faults(struct request *q, struct reply *r)
{
    (void)q;
    fault_forget_all();
    done(r, NULL);
}

static void get_settings(struct request *q, struct reply *r)
{
    (void)q;
    done(r, settings_json());
}

static void post_settings(struct request *q, struct reply *r)
{
    const char *field = "settings";
    const char *wrong = settings_apply(q->json, &field);
    if (wrong)
        bad(r, field, wrong);
    else
        done(r, settings_json());
}

/* {"world": true, "faults": true …}: what to reset; nothing named: all. */
static void post_reset(struct request *q, struct reply *r)
{
    bool all = !json_object_size(q->json);
#define WANTED(part) (all || json_is_true(json_object_get(q->json, part)))
    if (WANTED("faults"))
        fault_forget_all();
    if (WANTED("settings"))
        settings_reset();
    if (WANTED("counters")) {
        counter_reset();
        history_forget();
        api_reset_rate();
        world.accounts_peak = world.accounts_alive;
    }
    if (WANTED("world"))
        state_fresh();
#undef WANTED
    done(r, NULL);
}

static const char *text_of(struct request *q, const char *name,
                           const char *otherwise)
{
    const char *s = json_string_value(json_object_get(q->json, name));
    return s ? s : otherwise;
}

static int64_t expiry_of(struct request *q)
{
    json_t *n = json_object_get(q->json, "expires_in_seconds");
    return n ? world_now_s() + json_integer_value(n) : 0;
}

static void post_project(struct request *q, struct reply *r)
{
    const char *id = text_of(q, "id", NULL);
    if (id && world_find(KIND_PROJECT, id)) {
        bad(r, "id", "exists");
        return;
    }
    struct project *p = world_add_project(id, text_of(q, "name", "project"));
    if (json_is_true(json_object_get(q->json, "archived")))
        p->archived_s = world_now_s();
    p->is_default = json_is_true(json_object_get(q->json, "default"));
    done(r, project_json(p));
}

static void post_account(struct request *q, struct reply *r)
{
    const char *id = text_of(q, "id", NULL);
    struct object *p =
        world_find(KIND_PROJECT, text_of(q, "project", "proj_abc"));
    if (!p || (id && world_find(KIND_ACCOUNT, id))) {
        bad(r, p ? "id" : "project", p ? "exists" : "is not there");
        return;
    }
    struct account *a = world_add_account(
        (struct project *)p, id, text_of(q, "name", "foreign"), "member");
    struct key *k = world_add_key(a->project, a, NULL, "Secret Key",
                                  text_of(q, "value", NULL), expiry_of(q));
    json_t *j = account_json(a);
    json_object_set_new(j, "api_key", account_key_json(k));
    done(r, j);
}

/* A backlog, made at once. */
static void post_seed(struct request *q, struct reply *r)
{
    const char *prefix = text_of(q, "prefix", "seed");
    json_int_t n = json_integer_value(json_object_get(q->json, "n"));
    struct object *p =
        world_find(KIND_PROJECT, text_of(q, "project", "proj_abc"));
    char id[128], name[128];
    if (!p || n < 0 || n > 100000) {
        bad(r, p ? "n" : "project", p ? "0 to 100000" : "is not there");
        return;
    }
    for (json_int_t i = 0; i < n; i++) {
        snprintf(id, sizeof id, "svc_acct_%s_%lld", prefix, (long long)i);
        snprintf(name, sizeof name, "%s-%lld", prefix, (long long)i);
        if (world_find(KIND_ACCOUNT, id))
            continue;
        struct account *a =
            world_add_account((struct project *)p, id, name, "member");
        world_add_key(a->project, a, NULL, "Secret Key", NULL, 0);
    }
    done(r, NULL);
}

static void post_admin_key(struct request *q, struct reply *r)
{
    const char *id = text_of(q, "id", NULL);
    const char *value = text_of(q, "value", NULL);
    if ((id && world_find(KIND_ADMIN_KEY, id)) ||
        (value && world_key_by_value(value))) {
        bad(r, "id or value", "exists");
        return;
    }
    struct key *k = world_add_key(NULL, NULL, id, text_of(q, "name", "other"),
                                  value, expiry_of(q));
    k->service_owner = !strcmp(text_of(q, "owner", "user"), "service_account");
    done(r, admin_key_json(k, true));
}

static struct key *key_of(struct request *q, struct reply *r)
{
    struct object *o = world_find(KIND_KEY, q->ids[0]);
    if (!o)
        o = world_find(KIND_ADMIN_KEY, q->ids[0]);
    if (!o)
        reply_error(r, 404, "control", NULL, NULL, "no such key");
    return (struct key *)o;
}

/* The one place that tells a value again: a test compares with it. */
static void get_key(struct request *q, struct reply *r)
{
    struct key *k = key_of(q, r);
    if (!k)
        return;
    json_t *j = key_state(k);
    json_object_set_new(j, "value", json_string(k->value));
    done(r, j);
}

static void post_key(struct request *q, struct reply *r)
{
    struct key *k = key_of(q, r);
    if (!k)
        return;
    if (json_is_true(json_object_get(q->json, "expire")))
        k->expires_s = world_now_s() - 1;
    if (json_is_true(json_object_get(q->json, "delete")))
        world_delete_key(k);
    world.generation++;
    done(r, key_state(k));
}

static void delete_account(struct request *q, struct reply *r)
{
    struct object *o = world_find(KIND_ACCOUNT, q->ids[0]);
    if (!o) {
        reply_error(r, 404, "control", NULL, NULL, "no such account");
        return;
    }
    world_delete_account((struct account *)o);
    done(r, NULL);
}

static const struct route routes[] = {
    {"GET", "state", true, get_state},
    {"GET", "counters", true, get_counters},
    {"GET", "requests", true, get_requests},
    {"GET", "faults", true, get_faults},
    {"POST", "faults", true, post_faults},
    {"DELETE", "faults", true, delete_faults},
    {"GET", "holds", true, get_holds},
    {"DELETE", "holds", true, delete_holds},
    {"GET", "history", true, get_history},
    {"GET", "settings", true, get_settings},
    {"POST", "settings", true, post_settings},
    {"POST", "reset", true, post_reset},
    {"POST", "projects", true, post_project},
    {"POST", "service_accounts", true, post_account},
    {"POST", "seed", true, post_seed},
    {"DELETE", "service_accounts/{}", true, delete_account},
    {"POST", "admin_keys", true, post_admin_key},
    {"GET", "keys/{}", true, get_key},
    {"POST", "keys/{}", true, post_key},
};

void control_serve(struct request *q, struct reply *r)
{
    if (q->n_segments && !strcmp(q->segments[0], "_control"))
        for (size_t i = 0; i < sizeof routes / sizeof routes[0]; i++)
            if (!strcmp(routes[i].method, q->method) &&
                api_match(routes[i].pattern, q, 1, q->ids)) {
                if (q->body_len && !q->json) {
                    bad(r, "body", "not JSON");
                    return;
                }
                world_lock();
                routes[i].handle(q, r);
                world_unlock();
                return;
            }
    reply_error(r, 404, "control", NULL, NULL, "no such control: %s %s",
                q->method, q->path);
}
