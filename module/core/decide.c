/* decide - see decide.h. */
#include "config.h"

#include "module/core/decide.h"

#include "common/text.h"

#include <stdio.h>
#include <string.h>

enum { NEAR_DENIED = PART_NONE + 1, NEAR_LIMIT };

struct deciding {
    const struct decide_question *d;
    struct verdict *v;
    json_t *considered;
    struct error *e;
};

/* ---- what was considered ---- */

static enum code consider(struct deciding *x, const struct policy *p,
                          const char *result, const char *reason)
{
    if (!x->considered)
        return OK;
    return json_array_append_new(
               x->considered,
               json_pack("{ss ss ss ss}", "policy", p->name, "effect",
                         p->deny ? "deny" : "allow", "result", result, "reason",
                         reason)) == 0
               ? OK
               : error_set(x->e, ERR_NOMEM, "no memory for a verdict");
}

static void take(struct verdict *v, enum code code, const struct policy *p,
                 const char *reason, int nearness)
{
    v->code = code;
    v->nearness = nearness;
    snprintf(v->policy, sizeof(v->policy), "%s", p ? p->name : "");
    snprintf(v->reason, sizeof(v->reason), "%s", reason);
}

static void say_part(const struct deciding *x, const struct policy *p,
                     enum policy_part part, char reason[DECIDE_REASON_MAX])
{
    const struct policy_question *q = &x->d->q;
    const char *about = q->org ? q->org : "the whole daemon";

    switch (part) {
    case PART_SUBJECT:
        snprintf(reason, DECIDE_REASON_MAX, "policy %s is about others",
                 p->name);
        return;
    case PART_EXE:
        snprintf(reason, DECIDE_REASON_MAX, "policy %s is about other programs",
                 p->name);
        return;
    case PART_CAPABILITY:
        snprintf(reason, DECIDE_REASON_MAX, "policy %s is not about %s",
                 p->name, capability_name(q->cap));
        return;
    case PART_ORG:
        snprintf(reason, DECIDE_REASON_MAX,
                 "policy %s is not about %s%.63s", p->name,
                 q->org ? "organisation " : "", about);
        return;
    default:
        snprintf(reason, DECIDE_REASON_MAX, "policy %s is not about role %.63s",
                 p->name, q->role ? q->role : "*");
    }
}

static enum code no_match(struct deciding *x, const struct policy *p,
                          enum policy_part part)
{
    char reason[DECIDE_REASON_MAX];

    say_part(x, p, part, reason);
    /* Others' policies are nothing that the caller is told of. */
    if (!p->deny && part > PART_SUBJECT && (int)part > x->v->nearness)
        take(x->v, ERR_DENIED, p, reason, (int)part);
    return consider(x, p, "no match", reason);
}

/* ---- denials ---- */

static enum code try_deny(struct deciding *x, const struct policy *p,
                          bool *denied)
{
    enum policy_part part = policy_match(p, &x->d->q);
    char reason[DECIDE_REASON_MAX];

    if (part != PART_NONE)
        return no_match(x, p, part);
    snprintf(reason, sizeof(reason), "policy %s denies it%s", p->name,
             x->d->q.who->names_failed ? " (names cannot be looked up)" : "");
    if (!*denied)
        take(x->v, ERR_DENIED, p, reason, NEAR_DENIED);
    *denied = true;
    return consider(x, p, "denies", reason);
}

/* ---- limits ---- */

struct broken {
    enum code code; /* OK: all are kept */
    char reason[DECIDE_REASON_MAX];
};

static enum code count(const struct decide_question *d, const struct policy *p,
                       struct broken *b, struct error *e)
{
    struct store_usage u = {0};
    enum code code;

    if (!d->usage || (!p->live_leases && !p->mints_per_minute))
        return OK;
    code = d->usage(p, d->ctx, &u, e);
    if (code)
        return code;
    if (p->live_leases && u.live >= p->live_leases) {
        b->code = ERR_LIMIT;
        snprintf(b->reason, sizeof(b->reason),
                 "policy %s allows %lld live leases, and %lld live", p->name,
                 (long long)p->live_leases, (long long)u.live);
    } else if (p->mints_per_minute && u.issued >= p->mints_per_minute) {
        b->code = ERR_LIMIT;
        snprintf(b->reason, sizeof(b->reason),
                 "policy %s allows %lld mints a minute, and there were %lld",
                 p->name, (long long)p->mints_per_minute, (long long)u.issued);
    }
    return OK;
}

static enum code check_limits(const struct decide_question *d,
                              const struct policy *p, struct broken *b,
                              struct error *e)
{
    char max[TEXT_DURATION_MAX];

    b->code = OK;
    if (!policy_is_open(p, d->now_ms)) {
        b->code = ERR_LIMIT;
        snprintf(b->reason, sizeof(b->reason),
                 "policy %s allows it at other hours (UTC)", p->name);
        return OK;
    }
    if (p->max_ttl_s && d->life_s > p->max_ttl_s) {
        b->code = ERR_TTL;
        snprintf(b->reason, sizeof(b->reason),
                 "policy %s allows a life of at most %s", p->name,
                 text_duration_format(p->max_ttl_s, max));
        return OK;
    }
    return count(d, p, b, e);
}

/* ---- allows ---- */

static enum code try_allow(struct deciding *x, const struct policy *p,
                           bool *decided)
{
    enum policy_part part = policy_match(p, &x->d->q);
    struct broken b = {OK, ""};
    enum code code;

    if (part != PART_NONE)
        return no_match(x, p, part);
    code = check_limits(x->d, p, &b, x->e);
    if (code)
        return code;
    if (b.code) {
        if (!*decided && x->v->nearness < NEAR_LIMIT)
            take(x->v, b.code, p, b.reason, NEAR_LIMIT);
        return consider(x, p, "limit", b.reason);
    }
    snprintf(b.reason, sizeof(b.reason), "policy %s allows it", p->name);
    if (!*decided) {
        take(x->v, OK, p, b.reason, 0);
        x->v->max_ttl_s = p->max_ttl_s;
        *decided = true;
    }
    return consider(x, p, "allows", b.reason);
}

static enum code each(struct deciding *x, const struct policy_set *set,
                      bool denials, bool *decided)
{
    for (size_t i = 0; i < set->n; i++) {
        const struct policy *p = &set->list[i];
        enum code code;

        if (p->deny != denials)
            continue;
        code = denials ? try_deny(x, p, decided) : try_allow(x, p, decided);
        if (code)
            return code;
        if (*decided && !x->considered)
            return OK;
    }
    return OK;
}

enum code decide(const struct policy_set *set, const struct decide_question *d,
                 struct verdict *v, json_t *considered, struct error *e)
{
    struct deciding x = {d, v, considered, e};
    bool decided = false;
    enum code code;

    *v = (struct verdict){.code = ERR_DENIED};
    if (set->closed) {
        take(v, ERR_DENIED, NULL,
             "policies cannot be read, so that nothing is allowed until they "
             "are mended (alarm policy-files)",
             NEAR_DENIED);
        return OK;
    }
    code = each(&x, set, true, &decided);
    if (!code && (!decided || considered))
        code = each(&x, set, false, &decided);
    if (!code && v->code == ERR_DENIED && !*v->reason)
        snprintf(v->reason, sizeof(v->reason), "no policy is about %s",
                 *d->q.who->owner ? d->q.who->owner : "them");
    return code;
}
