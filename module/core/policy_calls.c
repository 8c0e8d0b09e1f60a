/* Policies as clients set, read and test them. */
#include "config.h"

#include "common/clock.h"
#include "common/file.h"
#include "module/core/decide.h"
#include "module/core/internal.h"
#include "module/core/logbook.h"

#include <stdlib.h>
#include <string.h>

#define LIST_BYTES_MAX (512 * 1024)
#define VERDICTS_MAX 2048 /* in one answer: they fit into a message */

/* ---- changing ---- */

struct change {
    struct core *core;
    const struct caller *by;
    const char *name;
    const char *body; /* NULL: delete */
};

static enum code write_rows(struct store_tx *tx, void *ctx, struct error *e)
{
    const struct change *ch = ctx;
    CLEANUP(store_document_clear) struct store_document old = {.kind = NULL};
    struct logbook_entry r = {.kind = RECORD_POLICY, .by = ch->by};
    enum code code =
        store_tx_document_get(tx, POLICIES_KIND, ch->name, &old, e);

    if (code == ERR_NOT_FOUND && ch->body)
        code = OK;
    if (!code)
        code = ch->body ? store_document_put(tx, POLICIES_KIND, ch->name,
                                             ch->body, clock_wall_ms(), e)
                        : store_document_delete(tx, POLICIES_KIND, ch->name, e);
    if (code)
        return code;
    r.more = logbook_change(ch->name, ch->body ? "set" : "delete", old.body,
                            ch->body);
    return logbook_add(ch->core, tx, &r, e);
}

/* What a file says, no client can change. */
static enum code check_source(const struct policy_set *set, const char *name,
                              bool is_new, struct error *e)
{
    const struct policy *there = policy_set_find(set, name);

    if (there && there->path)
        return error_set(e, ERR_EXISTS,
                         "policy %s is the file %s: change that, then reload",
                         name, there->path);
    if (is_new && !there && set->n >= POLICIES_MAX)
        return error_set(e, ERR_LIMIT, "there are %zu policies already",
                         set->n);
    return OK;
}

static enum code change(struct core *c, struct change *ch, struct error *e)
{
    POLICY_SET *set = policies_take(&c->policies);
    enum code code = check_source(set, ch->name, ch->body != NULL, e);

    if (!code)
        code = store_commit(c->store, STORE_NORMAL, write_rows, ch, e);
    if (code == ERR_NOT_FOUND)
        return error_set(e, code, "there is no policy \"%.63s\"", ch->name);
    if (!code)
        code = policies_rebuild(c, e);
    return code;
}

enum code core_policy_set(struct core *c, const struct caller *by,
                          const char *name, json_t *fields, json_t **out,
                          json_t **warnings, struct error *e)
{
    POLICY p = {.deny = false};
    POLICY_SET *set = NULL;
    INFLIGHT hold = {0};
    struct change ch = {.core = c, .by = by, .name = name};
    const struct policy *now;
    enum code code = policy_parse(&p, name, fields, NULL, e);

    if (!code)
        code = inflight_enter(&c->inflight, "policies", NULL, NULL, NULL, &hold,
                              e);
    ch.body = p.body;
    if (!code)
        code = change(c, &ch, e);
    inflight_leave(&hold); /* names may take long to look up */
    if (code)
        return code;
    set = policies_take(&c->policies);
    now = policy_set_find(set, name);
    code = policy_json(now ? now : &p, out, e);
    *warnings = json_array();
    return code ? code : policies_warnings(c, set, name, *warnings, e);
}

enum code core_policy_delete(struct core *c, const struct caller *by,
                             const char *name, struct error *e)
{
    INFLIGHT hold = {0};
    struct change ch = {.core = c, .by = by, .name = name};
    enum code code = inflight_enter(&c->inflight, "policies", NULL, NULL, NULL,
                                    &hold, e);

    return code ? code : change(c, &ch, e);
}

enum code core_reload(struct core *c, struct error *e)
{
    return policies_reload(c, e);
}

/* ---- reading ---- */

enum code core_policy_get(struct core *c, const char *name, json_t **out,
                          struct error *e)
{
    POLICY_SET *set = policies_take(&c->policies);
    const struct policy *p = policy_set_find(set, name);

    return p ? policy_json(p, out, e)
             : error_set(e, ERR_NOT_FOUND, "there is no policy \"%.63s\"",
                         name);
}

/* So many that they fill a message are told by name. */
static enum code list_one(const struct policy *p, size_t *room, json_t **out,
                          struct error *e)
{
    size_t len = strlen(p->body);

    if (len <= *room) {
        *room -= len;
        return policy_json(p, out, e);
    }
    *out = json_pack("{ss ss ss sb}", "name", p->name, "effect",
                     p->deny ? "deny" : "allow", "source",
                     p->path ? "file" : "store", "cut", true);
    return *out ? OK : error_set(e, ERR_NOMEM, "no memory for policies");
}

enum code core_policy_list(struct core *c, json_t **out, json_t **warnings,
                           struct error *e)
{
    POLICY_SET *set = policies_take(&c->policies);
    size_t room = LIST_BYTES_MAX;
    enum code code = OK;

    *out = json_array();
    *warnings = json_array();
    for (size_t i = 0; !code && i < set->n; i++) {
        json_t *one = NULL;

        code = list_one(&set->list[i], &room, &one, e);
        if (!code && json_array_append_new(*out, one) != 0)
            code = error_set(e, ERR_NOMEM, "no memory for policies");
    }
    return code ? code : policies_warnings(c, set, NULL, *warnings, e);
}

/* ---- testing ---- */

struct testing {
    struct core *core;
    const struct policy_set *set;
    const struct who *who;
    const char *org;
    int64_t ttl_s;
    json_t *verdicts;
    bool one; /* all policies that were considered are told */
    struct error *e;
};

struct counting {
    struct testing *x;
    const struct policy *policy;
};

static bool counts(int64_t org, const char *role, void *ctx)
{
    const struct counting *n = ctx;
    char name[64];

    core_org_name(n->x->core, org, name);
    return policy_is_about(n->policy, name, role);
}

static enum code count(const struct policy *p, void *ctx,
                       struct store_usage *out, struct error *e)
{
    struct counting n = {ctx, p};
    int64_t now = steady_ms(n.x->core);
    const struct store_usage_query q = {.owner = n.x->who->owner,
                                        .since_ms = now - 60000,
                                        .now_ms = now,
                                        .match = counts,
                                        .ctx = &n};

    return store_usage(n.x->core->store, &q, out, e);
}

static enum code judge(struct testing *x, enum capability cap, const char *role,
                       struct verdict *v, json_t *considered)
{
    bool life = cap == CAP_MINT || cap == CAP_RENEW;
    const struct decide_question d = {
        .q = {.who = x->who, .cap = cap, .org = x->org, .role = role},
        .now_ms = clock_wall_ms(),
        .life_s = life ? x->ttl_s : 0,
        .usage = cap == CAP_MINT ? count : NULL,
        .ctx = x};

    /* The one user of a user daemon may all. */
    if (x->core->settings->mode == MODE_USER) {
        bool ours = x->who->user.has_id && x->who->user.id == x->core->uid;

        *v = (struct verdict){.code = ours ? OK : ERR_DENIED};
        memcpy(v->reason, "user mode", sizeof("user mode"));
        return OK;
    }
    return decide(x->set, &d, v, considered, x->e);
}

static enum code add_verdict(struct testing *x, enum capability cap,
                             const char *role)
{
    JSON considered = json_array();
    struct verdict v;
    enum code code = judge(x, cap, role, &v, x->one ? considered : NULL);

    if (code)
        return code;
    if (json_array_size(x->verdicts) >= VERDICTS_MAX)
        return error_set(x->e, ERR_LIMIT,
                         "there are too many answers: name a role or a "
                         "capability");
    if (json_array_append_new(
            x->verdicts,
            json_pack("{ss ss sb ss ss sO}", "capability",
                      capability_name(cap), "role", role ? role : "", "allowed",
                      v.code == OK, "policy", v.policy, "reason", v.reason,
                      "considered", considered)) != 0)
        return error_set(x->e, ERR_NOMEM, "no memory for verdicts");
    return OK;
}

struct each_role {
    struct testing *x;
    enum capability cap;
};

static enum code test_role(const struct store_role *r, void *ctx,
                           struct error *e)
{
    const struct each_role *er = ctx;

    (void)e;
    return add_verdict(er->x, er->cap, r->name);
}

static enum code test_capability(struct testing *x, enum capability cap,
                                 const char *role, int64_t org)
{
    struct each_role er = {x, cap};

    if (!capability_is_about_roles(cap))
        return add_verdict(x, cap, NULL);
    if (role)
        return add_verdict(x, cap, role);
    return store_role_each(x->core->store, org, test_role, &er, x->e);
}

/* Without an organisation the default one, which need not be there for what is
 * about no roles. */
static enum code find_org(struct core *c, const char *name, const char *role,
                          int64_t *id, struct error *e)
{
    CLEANUP(store_org_clear) struct store_org org = {0};
    enum code code = core_org(c, name, &org, e);

    *id = org.id;
    if (code == ERR_NOT_FOUND && role) {
        error_clear(e);
        return OK; /* names are matched, whether they are there or not */
    }
    return code;
}

static enum code test_all(struct testing *x, const char *role,
                          const char *capability)
{
    enum capability only = CAPABILITIES;
    int64_t org = 0;
    enum code code =
        capability ? capability_parse(capability, &only, x->e) : OK;
    bool roles = !capability || (!code && capability_is_about_roles(only));

    if (!code && roles)
        code = find_org(x->core, x->org, role, &org, x->e);
    x->one = capability && (role || !roles);
    for (unsigned i = 0; !code && i < CAPABILITIES; i++) {
        if (only == CAPABILITIES || only == (enum capability)i)
            code = test_capability(x, i, role, org);
    }
    return code;
}

enum code core_policy_test(struct core *c, const struct policy_test *t,
                           json_t **out, struct error *e)
{
    POLICY_SET *set = policies_take(&c->policies);
    WHO who = {.unit = "", .exe = ""};
    JSON verdicts = json_array();
    struct error why = {0};
    struct testing x = {.core = c,
                        .set = set,
                        .who = &who,
                        .org = t->org && *t->org ? t->org : CORE_DEFAULT_ORG,
                        .ttl_s = t->ttl_s,
                        .verdicts = verdicts,
                        .e = &why};
    enum code code = who_from_json(&who, t->who, &c->policies.names, &why);

    if (!code && t->ttl_s < 0)
        code = error_set(&why, ERR_TTL, "ttl has to be positive");
    if (!code && t->role && *t->role)
        code = text_check_name("role", t->role, &why);
    if (!code)
        code = test_all(&x, t->role && *t->role ? t->role : NULL,
                        t->capability && *t->capability ? t->capability
                                                        : NULL);
    if (!code)
        *out = json_incref(verdicts);
    else if (e)
        *e = why;
    return code;
}

/* ---- who am I? ---- */

static void add_text(json_t *list, const char *kind, const char *name)
{
    json_array_append_new(list, json_sprintf("%s:%s", kind, name));
}

static void add_person(json_t *list, const char *kind, const struct who_name *n)
{
    if (n->name)
        add_text(list, kind, n->name);
    else if (n->has_id)
        json_array_append_new(
            list, json_sprintf("%s:%lu", kind, (unsigned long)n->id));
}

/* What policies may match: as they would write it. */
static json_t *subjects_json(const struct who *w)
{
    json_t *list = json_array();

    if (w->vouched)
        add_person(list, "user", &w->user);
    for (size_t i = 0; w->vouched && i < w->groups_n; i++)
        add_person(list, "group", &w->groups[i]);
    if (*w->unit)
        add_text(list, "unit", w->unit);
    if (*w->login)
        add_text(list, "login", w->login);
    if (*w->exe)
        add_text(list, "exe", w->exe);
    return list;
}

static json_t *texts_json(char *const *texts, size_t n)
{
    json_t *list = json_array();

    for (size_t i = 0; i < n; i++)
        json_array_append_new(list, json_string(texts[i]));
    return list;
}

/* By policy and capability; a deny takes from what an allow gives. */
static json_t *capabilities_json(const struct policy_set *set,
                                 const struct who *w, bool denials)
{
    json_t *list = json_array();

    for (size_t i = 0; i < set->n; i++) {
        const struct policy *p = &set->list[i];

        for (unsigned cap = 0; p->deny == denials && cap < CAPABILITIES;
             cap++) {
            const struct policy_question q = {.who = w, .cap = cap};

            if (policy_match(p, &q) <= PART_CAPABILITY)
                continue;
            json_array_append_new(
                list, json_pack("{ss so so ss}", "capability",
                                capability_name(cap), "orgs",
                                texts_json(p->orgs, p->orgs_n), "roles",
                                texts_json(p->roles, p->roles_n), "policy",
                                p->name));
        }
    }
    return list;
}

static json_t *all_capabilities(void)
{
    json_t *list = json_array();

    for (unsigned cap = 0; cap < CAPABILITIES; cap++)
        json_array_append_new(
            list, json_pack("{ss s[s] s[s] ss}", "capability",
                            capability_name(cap), "orgs", "*", "roles", "*",
                            "policy", ""));
    return list;
}

enum code core_whoami(struct core *c, const struct caller *by, json_t **out,
                      struct error *e)
{
    POLICY_SET *set = policies_take(&c->policies);
    WHO w = {.unit = "", .exe = ""};
    const struct identity *id = by->id;
    bool user = c->settings->mode == MODE_USER;
    enum code code = who_from_identity(&w, id, by->owner, &c->policies.names,
                                       e);

    if (code)
        return code;
    *out = json_pack(
        "{ss so sb sI ss ss sI sI so so}", "owner", by->owner, "subjects",
        subjects_json(&w), "borrowed", id->borrowed, "pid",
        (json_int_t)id->pid, "exe", w.exe, "unit", w.unit, "login_uid",
        (json_int_t)id->login_uid, "audit_session",
        (json_int_t)id->audit_session, "capabilities",
        user ? all_capabilities() : capabilities_json(set, &w, false),
        "denials", user ? json_array() : capabilities_json(set, &w, true));
    return *out ? OK : error_set(e, ERR_NOMEM, "no memory for an identity");
}
