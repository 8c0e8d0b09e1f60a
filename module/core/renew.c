/* renew - a lease lives longer, and so does its key at the service. */
#include "config.h"

#include "common/clock.h"
#include "common/file.h"
#include "common/log.h"
#include "common/text.h"
#include "module/core/internal.h"
#include "module/core/lease.h"
#include "module/core/logbook.h"
#include "module/core/role.h"

#include <stdlib.h>
#include <string.h>

#define METHOD "renew"
/* The service rounds to seconds and its clock is not ours. */
#define SHORTFALL_MS 30000
#define UNMOVED_MS 2000

struct renewal {
    struct core *core;
    const struct caller *by;
    struct store_lease *lease;      /* its ends are the new ones */
    const char *request_id; /* the caller's */
    int64_t last_ms; /* it never lives longer, by role and policy */
};

static enum code record(const struct renewal *n, struct store_tx *tx,
                        struct error *e)
{
    char org[64], expires[CLOCK_TEXT_MAX];
    const struct store_lease *l = n->lease;
    const struct logbook_entry r = {
        .kind = RECORD_RENEW,
        .by = n->by,
        .org = org,
        .role = l->role,
        .lease = l->id,
        .more = json_pack("{ss}", "expires",
                          clock_text(l->expires_ms, expires))};

    core_org_name(n->core, l->org, org);
    return logbook_add(n->core, tx, &r, e);
}

static enum code update_rows(struct store_tx *tx, void *ctx, struct error *e)
{
    const struct renewal *n = ctx;
    enum code code = store_lease_update(tx, n->lease, LEASE_ACTIVE, e);

    if (!code && n->request_id && *n->request_id)
        code = store_journal_put(tx, n->by->owner, n->request_id, METHOD,
                                 n->lease->id, clock_wall_ms(), e);
    return code ? code : record(n, tx, e);
}

/* What the role gives, as far as its max_ttl allows. */
static enum code default_ttl(struct core *c, const struct store_lease *l,
                             int64_t longest, int64_t *ttl_s, struct error *e)
{
    CLEANUP(store_role_clear) struct store_role row = {0};
    ROLE role = {0};
    enum code code = store_role_get(c->store, l->org, l->role, &row, e);

    if (!code)
        code = role_parse(&role, row.body, e);
    *ttl_s = role.ttl < longest ? role.ttl : longest;
    return code;
}

static enum code choose_ttl(struct core *c, const struct store_lease *l,
                            int64_t last_ms, int64_t *ttl_s, struct error *e)
{
    char text[TEXT_DURATION_MAX];
    int64_t longest = (last_ms - steady_ms(c)) / 1000;

    if (l->state != LEASE_ACTIVE)
        return error_set(e, ERR_NOT_FOUND,
                         "lease %s is %s: only an active one can be renewed",
                         l->id, lease_state_name(l->state));
    if (*ttl_s < 0)
        return error_set(e, ERR_TTL, "ttl must be positive");
    if (longest <= 0)
        return error_set(e, ERR_TTL,
                         "lease %s has reached the max_ttl of its role or "
                         "policy; mint a new one",
                         l->id);
    if (*ttl_s == 0)
        return default_ttl(c, l, longest, ttl_s, e);
    if (*ttl_s > longest)
        return error_set(e, ERR_TTL,
                         "lease %s ends with the max_ttl of its role or "
                         "policy: at most %s is possible now",
                         l->id, text_duration_format(longest, text));
    return OK;
}

/* When the key ends, as a time of leases: by the service's own clock, where it
 * tells when it was made, for nobody knows how far ours are apart. 0: never. */
static int64_t end_told(struct core *c, const struct store_lease *l,
                        const struct openai_key *k)
{
    if (k->expires_at <= 0)
        return 0;
    if (k->created_at > 0)
        return l->issued_ms + (k->expires_at - k->created_at) * 1000;
    return steady_of_wall_ms(c, k->expires_at * 1000);
}

static enum code decode(struct core *c, const struct store_lease *l,
                        const struct gate_reply *r, int64_t *told,
                        struct error *e)
{
    struct openai_key key = {0};
    enum code code = openai_decode_project_key(&r->http, &key, e);

    if (!code && strcmp(key.id, l->key_id) != 0)
        code = error_set(e, ERR_SERVICE_REPLY,
                         "the service answered for another key than that of "
                         "lease %s, which stays as it was",
                         l->id);
    if (!code)
        *told = end_told(c, l, &key);
    openai_key_clear(&key);
    return code;
}

/* What the service said to the wish. OK with *extended false: it does not
 * expire this key at all, so that our end holds alone. */
static enum code judge(struct core *c, struct store_lease *l,
                       const struct gate_reply *r, enum code code,
                       const char *org, struct error *e)
{
    bool has_expiry = l->provider_expires_ms != 0;
    int64_t told = 0;

    if (code &&
        (has_expiry || r->fate != GATE_ANSWERED || code == ERR_SERVICE_FAILED))
        return error_prefix(e, "the service did not extend the key, so its "
                               "lease stays as it was");
    if (!code)
        code = decode(c, l, r, &told, e);
    if (!code && told > 0 && told + SHORTFALL_MS < l->expires_ms) {
        if (llabs(told - l->provider_expires_ms) <= UNMOVED_MS)
            return error_set(e, ERR_SERVICE_REFUSED,
                             "the service keeps the key's old expiry, so lease "
                             "%s stays as it was",
                             l->id);
        l->expires_ms = told; /* sooner than was asked, as with a mint */
    }
    if (code && has_expiry)
        return code;
    l->provider_expires_ms = told > 0 ? told : 0;
    if (l->provider_expires_ms != 0)
        return OK;
    metrics_expiry(&c->metrics, l->org, "ignored");
    warnings_raise(&c->warnings, ALARM_EXPIRY_IGNORED, org,
                   "the service does not extend or expire keys by itself; "
                   "they live until hsmint revokes them");
    return OK;
}

static enum code settle(struct core *c, const struct gate_call *call,
                        const struct gate_reply *r, enum code code,
                        struct renewal *n, struct error *e)
{
    struct error why = {0};
    enum code settled;

    if (code && e)
        why = *e;
    settled = gate_settle(c, call, r, &why, code ? NULL : update_rows, n,
                          code ? NULL : e);
    if (!code && settled == ERR_EXISTS)
        return error_set(e, ERR_NOT_FOUND,
                         "lease %s was revoked while it was renewed",
                         n->lease->id);
    return code ? code : settled;
}

static enum code extend(struct core *c, const struct caller *by, int64_t ttl_s,
                        struct renewal *n, struct error *e)
{
    CLEANUP(openai_request_clear) struct openai_request request = {0};
    GATE_REPLY reply = GATE_REPLY_INIT;
    struct store_lease *l = n->lease;
    char org[64];
    struct gate_call call = {.org = org,
                             .purpose = METHOD,
                             .role = l->role,
                             .lease = l->id,
                             .by = by,
                             .request = &request,
                             .urgency = STORE_NORMAL};
    enum code code = openai_project_key_update(&request, l->project, l->key_id,
                                               ttl_s + LEASE_SLACK_S, e);

    core_org_name(c, l->org, org);
    if (code)
        return code;
    code = gate_send(c, &call, &reply, e);
    if (reply.fate == GATE_NOTHING)
        return code;
    l->expires_ms = steady_ms(c) + ttl_s * 1000;
    if (l->expires_ms > n->last_ms)
        l->expires_ms = n->last_ms;
    code = judge(c, l, &reply, code, org, e);
    return settle(c, &call, &reply, code, n, e);
}

/* A retry of a renewal that was made gets the lease as it is. */
static enum code was_answered(struct core *c, const struct caller *by,
                              const char *id, const char *request_id,
                              bool *answered, struct error *e)
{
    FREE char *method = NULL;
    FREE char *result = NULL;
    enum code code;

    if (!request_id || !*request_id)
        return OK;
    code =
        store_journal_get(c->store, by->owner, request_id, &method, &result, e);
    if (code)
        return code == ERR_NOT_FOUND ? OK : code;
    *answered = strcmp(method, METHOD) == 0 && strcmp(result, id) == 0;
    return *answered ? OK
                     : error_set(e, ERR_INVALID,
                                 "request %s was another one before; each "
                                 "request needs an id of its own",
                                 request_id);
}

/* Until when it may live, by role and policy. */
static enum code permit(struct core *c, const struct caller *by,
                        const struct store_lease *l, int64_t ttl_s,
                        int64_t *last_ms, struct error *e)
{
    int64_t lived = (steady_ms(c) - l->issued_ms) / 1000;
    char org[64];
    PERMIT_LEASE p = {.core = c,
                      .by = by,
                      .cap = CAP_RENEW,
                      .org = org,
                      .role = l->role,
                      .shown = l->role,
                      .life_s = lived + (ttl_s > 0 ? ttl_s : 1)};
    enum code code;

    core_org_name(c, l->org, org);
    code = permit_lease_open(&p, e);
    *last_ms = l->max_expires_ms;
    if (p.max_life_s && l->issued_ms + p.max_life_s * 1000 < *last_ms)
        *last_ms = l->issued_ms + p.max_life_s * 1000;
    return code;
}

static enum code renew(struct core *c, const struct caller *by, const char *id,
                       int64_t ttl_s, const char *request_id,
                       struct store_lease *l, struct error *e)
{
    struct renewal n = {.core = c,
                        .by = by,
                        .lease = l,
                        .request_id = request_id};
    static const struct lease_right right = {CAP_RENEW, CAPABILITIES};
    INFLIGHT hold = {0};
    bool answered = false;
    enum code code =
        inflight_enter(&c->inflight, "renew", id, NULL, NULL, &hold, e);

    if (!code)
        code = lease_get_for(c, by, right, id, l, e);
    if (!code)
        code = was_answered(c, by, id, request_id, &answered, e);
    if (code || answered)
        return code;
    code = permit(c, by, l, ttl_s, &n.last_ms, e);
    if (!code)
        code = choose_ttl(c, l, n.last_ms, &ttl_s, e);
    return code ? code : extend(c, by, ttl_s, &n, e);
}

enum code core_renew(struct core *c, const struct caller *by, const char *id,
                     int64_t ttl_s, const char *request_id,
                     struct store_lease *lease, struct error *e)
{
    LEASE l = {0};
    struct error why = {0};
    int64_t began = clock_monotonic_us();
    enum code code = renew(c, by, id, ttl_s, request_id, &l, &why);

    metrics_count(&c->metrics, METRICS_RENEWALS, l.org, l.role,
                  error_name(code), NULL);
    if (!code)
        metrics_time(&c->metrics, METRICS_RENEW_SECONDS,
                     clock_monotonic_us() - began);
    if (code) {
        if (e)
            *e = why;
        return code;
    }
    *lease = l;
    l = (struct store_lease){0};
    return OK;
}
