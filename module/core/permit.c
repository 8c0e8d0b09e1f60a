/* permit - see permit.h. */
#include "config.h"

#include "module/core/permit.h"

#include "common/clock.h"
#include "common/log.h"
#include "common/text.h"
#include "module/core/decide.h"
#include "module/core/internal.h"
#include "module/core/logbook.h"

#include <stdio.h>
#include <string.h>

#define MINUTE_MS 60000
#define NAME_SHOWN 128 /* of a name as the caller gave it */

/* ---- records ---- */

static void put_names(json_t *list, uint32_t caps)
{
    for (unsigned i = 0; i < CAPABILITIES; i++) {
        if (caps & CAPABILITY_BIT(i))
            json_array_append_new(list, json_string(capability_name(i)));
    }
}

/* A name that is longer than any would make a record that has no room. */
static const char *cut(const char *name, char shown[NAME_SHOWN])
{
    if (!name)
        return NULL;
    text_escape(shown, NAME_SHOWN, name, strnlen(name, NAME_SHOWN));
    return shown;
}

static json_t *refusal_json(uint32_t caps, const struct error *why,
                            int64_t omitted, int64_t others)
{
    JSON names = json_array();
    JSON j = NULL;

    put_names(names, caps);
    j = json_pack("{sO ss ss}", "capability", names, "code",
                  error_name(why->code), "reason", why->text);
    if (!j ||
        (omitted &&
         json_object_set_new(j, "omitted", json_integer(omitted)) != 0) ||
        (others &&
         json_object_set_new(j, "omitted_others", json_integer(others)) != 0))
        return NULL;
    return json_incref(j);
}

void core_refused(struct core *c, const struct caller *by, uint32_t caps,
                  const char *org, const char *role, const struct error *why)
{
    char orgs[NAME_SHOWN], roles[NAME_SHOWN];
    struct logbook_entry r = {.kind = RECORD_REFUSAL,
                              .by = by,
                              .org = cut(org, orgs),
                              .role = cut(role, roles)};
    int64_t omitted, others;
    struct error e = {0};

    if (!refusals_take(&c->refusals, by->owner, clock_monotonic_ms(), &omitted,
                       &others))
        return;
    log_info("refused: %s", why->text);
    r.more = refusal_json(caps, why, omitted, others);
    /* The reserve is for revocations. */
    if (logbook_commit(c, STORE_NORMAL, &r, &e) == OK)
        return;
    refusals_give_back(&c->refusals, by->owner, omitted + 1, others);
    log_failure(&e, "a refusal is not recorded");
}

void core_refused_rest(struct core *c)
{
    int64_t n = refusals_rest(&c->refusals);
    struct logbook_entry r = {.kind = RECORD_REFUSAL};
    struct error e = {0};

    if (n == 0)
        return;
    r.more = json_pack("{s[] ss ss sI}", "capability", "code",
                       error_name(ERR_DENIED), "reason",
                       "refusals that had no record of their own",
                       "omitted_others", (json_int_t)n);
    if (logbook_commit(c, STORE_NORMAL, &r, &e) != OK)
        log_failure(&e, "%lld refusals are not recorded", (long long)n);
}

/* ---- judging ---- */

static bool is_ours(const struct core *c, const struct caller *by)
{
    return c->settings->mode == MODE_USER && by->uid == c->uid;
}

/* Those whom policies do not concern at all: strangers of a user daemon, and a
 * caller of whom nothing is known. */
static bool is_nobody(const struct core *c, const struct caller *by)
{
    return c->settings->mode == MODE_USER || !by->id;
}

static void say_nobody(const struct core *c, struct verdict *v)
{
    *v = (struct verdict){.code = ERR_DENIED};
    snprintf(v->reason, sizeof(v->reason), "%s",
             c->settings->mode == MODE_USER
                 ? "this daemon serves its own user only"
                 : "nothing is known of this caller");
}

struct judging {
    struct core *core;
    const struct caller *by;
    struct policy_set *set;
    struct who who;
};

static void judging_clear(struct judging *j)
{
    who_clear(&j->who);
    policy_set_give(&j->set);
}

static enum code judging_open(struct judging *j, struct error *e)
{
    struct policies *p = &j->core->policies;

    j->set = policies_take(p);
    return who_from_identity(&j->who, j->by->id, j->by->owner,
                             j->set->needs_names ? &p->names : NULL, e);
}

/* The first that is allowed; else the refusal that came nearest. */
static enum code judge(struct judging *j, uint32_t caps, const char *org,
                       const char *role, struct verdict *best, struct error *e)
{
    bool first = true;

    for (unsigned i = 0; i < CAPABILITIES; i++) {
        struct decide_question d = {
            .q = {.who = &j->who, .cap = i, .org = org, .role = role},
            .now_ms = clock_wall_ms()};
        struct verdict v;
        enum code code;

        if (!(caps & CAPABILITY_BIT(i)))
            continue;
        code = decide(j->set, &d, &v, NULL, e);
        if (code)
            return code;
        if (first || v.code == OK || v.nearness > best->nearness)
            *best = v;
        first = false;
        if (v.code == OK)
            return OK;
    }
    return OK;
}

static enum code verdict_of(struct core *c, const struct caller *by,
                            uint32_t caps, const char *org, const char *role,
                            struct verdict *v, struct error *e)
{
    CLEANUP(judging_clear) struct judging j = {.core = c, .by = by};
    enum code code;

    if (is_nobody(c, by)) {
        say_nobody(c, v);
        return OK;
    }
    code = judging_open(&j, e);
    return code ? code : judge(&j, caps, org, role, v, e);
}

bool core_may(struct core *c, const struct caller *by, uint32_t caps,
              const char *org, const char *role)
{
    struct verdict v;

    if (is_ours(c, by))
        return true;
    return verdict_of(c, by, caps, org, role, &v, NULL) == OK && v.code == OK;
}

/* "user:1000 may not mint in role pay: no policy is about user:1000" */
static enum code say(const struct caller *by, uint32_t caps, const char *role,
                     const struct verdict *v, struct error *e)
{
    char names[128] = "";
    size_t n = 0;

    for (unsigned i = 0; i < CAPABILITIES && n < sizeof(names); i++) {
        if (caps & CAPABILITY_BIT(i))
            n += (size_t)snprintf(names + n, sizeof(names) - n, "%s%s",
                                  n ? " or " : "", capability_name(i));
    }
    if (caps == CAPABILITY_ALL)
        snprintf(names, sizeof(names), "do anything");
    return error_set(e, v->code, "%s may not %s%s%.63s: %s", by->owner, names,
                     role ? " in role " : "", role ? role : "", v->reason);
}

enum code core_permit_any(struct core *c, const struct caller *by,
                          uint32_t caps, const char *org, const char *role,
                          struct error *e)
{
    struct verdict v;
    struct error why = {0};
    enum code code;

    if (is_ours(c, by))
        return OK;
    code = verdict_of(c, by, caps, org, role, &v, &why);
    if (!code && v.code == OK)
        return OK;
    if (!code) {
        code = say(by, caps, role, &v, &why);
        core_refused(c, by, caps, org, role, &why);
    }
    if (e)
        *e = why;
    return code;
}

enum code core_permit(struct core *c, const struct caller *by,
                      enum capability cap, const char *org, const char *role,
                      struct error *e)
{
    return core_permit_any(c, by, CAPABILITY_BIT(cap), org, role, e);
}

/* ---- leases: their lives and numbers ---- */

void permit_lease_clear(struct permit_lease *p)
{
    who_clear(&p->who);
    policy_set_give(&p->set);
}

struct counting {
    struct permit_lease *permit;
    struct store_tx *tx; /* NULL: outside of any */
    const struct policy *policy;
};

static bool counts(int64_t org, const char *role, void *ctx)
{
    const struct counting *n = ctx;
    char name[64];

    core_org_name(n->permit->core, org, name);
    return policy_is_about(n->policy, name, role);
}

static enum code count(const struct policy *p, void *ctx,
                       struct store_usage *out, struct error *e)
{
    struct counting *n = ctx;
    int64_t now = steady_ms(n->permit->core);
    const struct store_usage_query q = {.owner = n->permit->by->owner,
                                        .since_ms = now - MINUTE_MS,
                                        .now_ms = now,
                                        .match = counts,
                                        .ctx = n};

    n->policy = p;
    return n->tx ? store_tx_usage(n->tx, &q, out, e)
                 : store_usage(n->permit->core->store, &q, out, e);
}

static enum code lease_verdict(struct permit_lease *p, struct counting *n,
                               struct error *e)
{
    struct decide_question d = {
        .q = {.who = &p->who, .cap = p->cap, .org = p->org, .role = p->role},
        .now_ms = clock_wall_ms(),
        .life_s = p->life_s,
        .usage = n ? count : NULL,
        .ctx = n};
    struct verdict v;
    enum code code;

    if (is_ours(p->core, p->by))
        return OK;
    if (is_nobody(p->core, p->by)) {
        say_nobody(p->core, &v);
        return say(p->by, CAPABILITY_BIT(p->cap), p->shown, &v, e);
    }
    code = decide(p->set, &d, &v, NULL, e);
    p->max_life_s = v.max_ttl_s;
    if (!code && v.code)
        code = say(p->by, CAPABILITY_BIT(p->cap), p->shown, &v, e);
    return code;
}

static bool is_refusal(enum code code)
{
    return code == ERR_DENIED || code == ERR_LIMIT || code == ERR_TTL;
}

static enum code told(struct permit_lease *p, enum code code,
                      const struct error *why, struct error *e)
{
    if (is_refusal(code))
        core_refused(p->core, p->by, CAPABILITY_BIT(p->cap), p->org, p->role,
                     why);
    if (code && e)
        *e = *why;
    return code;
}

enum code permit_lease_open(struct permit_lease *p, struct error *e)
{
    struct error why = {0};
    struct judging j = {.core = p->core, .by = p->by};
    enum code code = OK;

    if (!is_ours(p->core, p->by) && !is_nobody(p->core, p->by)) {
        code = judging_open(&j, &why);
        p->set = j.set;
        p->who = j.who;
    }
    if (!code)
        code = lease_verdict(p, NULL, &why);
    return told(p, code, &why, e);
}

enum code permit_lease_room(struct permit_lease *p, struct error *e)
{
    struct counting n = {.permit = p};
    struct error why = {0};
    enum code code = lease_verdict(p, &n, &why);

    return told(p, code, &why, e);
}

enum code permit_lease_again(struct permit_lease *p, struct store_tx *tx,
                             struct error *e)
{
    struct counting n = {.permit = p, .tx = tx};
    enum code code = lease_verdict(p, &n, e);

    p->refused_inside = is_refusal(code);
    return code;
}

void permit_lease_settle(struct permit_lease *p, const struct error *why)
{
    if (!p->refused_inside)
        return;
    p->refused_inside = false;
    (void)told(p, why->code, why, NULL);
}
