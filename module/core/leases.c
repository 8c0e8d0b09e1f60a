/* leases - what callers do with leases that are there. */
#include "config.h"

#include "common/clock.h"
#include "common/text.h"
#include "module/core/ending.h"
#include "module/core/internal.h"
#include "module/core/lease.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* What is reused may have other holders: then it is let go of, and lives. */
struct let_go {
    struct core *core;
    const struct caller *by;
    const char *id, *reason;
    bool lives;
};

static enum code let_go(struct store_tx *tx, void *ctx, struct error *e)
{
    struct let_go *g = ctx;
    bool was = false;
    int64_t left = 0;
    enum code code = OK;

    if (g->by->application && *g->by->application)
        code = store_holder_drop(tx, g->id, g->by->application, &was, &left, e);
    g->lives = !code && was && left > 0;
    if (code || g->lives)
        return code;
    /* Before anybody else takes it up. */
    return lease_end_in(g->core, tx, g->id, g->reason, g->by, e);
}

static enum code revoke(struct core *c, const struct caller *by, const char *id,
                        const char *reason, struct store_lease *l,
                        struct error *e)
{
    struct let_go g = {c, by, id, reason, false};
    bool reusable;
    INFLIGHT hold = {0};
    static const struct lease_right right = {CAP_REVOKE_OWN, CAP_REVOKE_ANY};
    enum code code = lease_get_for(c, by, right, id, l, e);

    if (code)
        return code;
    reusable = l->reusable;
    store_lease_clear(l);
    *l = (struct store_lease){0};
    /* A mint or revocation under way for it ends first. */
    code = inflight_enter(&c->inflight, "lease", id, NULL, NULL, &hold, e);
    if (!code && reusable)
        code = store_commit(c->store, STORE_RESERVE, let_go, &g, e);
    if (g.lives)
        return code;
    if (!code)
        code = store_lease_get(c->store, id, l, e);
    if (code || l->state == LEASE_REVOKED)
        return code;
    if (*l->account_id)
        return lease_delete(c, l, reason, by, e);
    code = lease_end(c, l, reason, by, e);
    return code ? code
                : error_set(e, ERR_SERVICE_UNKNOWN,
                            "lease %s: whether its account was made is not "
                            "known yet; it is looked for and deleted",
                            id);
}

/* A retry needs no journal: what is revoked stays so. */
enum code core_revoke(struct core *c, const struct caller *by, const char *id,
                      const char *reason, const char *request_id,
                      struct error *e)
{
    LEASE l = {0};
    struct error why = {0};
    int64_t began = clock_monotonic_us();
    enum code code =
        revoke(c, by, id, reason && *reason ? reason : "revoked", &l, &why);

    (void)request_id;
    metrics_count(&c->metrics, METRICS_REVOCATIONS, l.org, l.role, "caller",
                  error_name(code));
    if (!code)
        metrics_time(&c->metrics, METRICS_REVOKE_SECONDS,
                     clock_monotonic_us() - began);
    if (code && e)
        *e = why;
    return code;
}

enum code core_lease_get(struct core *c, const struct caller *by,
                         const char *id, struct store_lease *lease,
                         struct error *e)
{
    static const struct lease_right right = {CAP_LIST_OWN, CAP_LIST_ANY};

    return lease_get_for(c, by, right, id, lease, e);
}

struct shown {
    struct core *core;
    const struct caller *by;
    store_lease_fn fn;
    void *ctx;
    int limit, n;
    bool full;
    /* The last one's role, and what was said to it: roles are few. */
    int64_t org;
    char role[64];
    uint32_t caps;
    bool may;
};

static uint32_t needed(const struct caller *by, const struct store_lease *l)
{
    bool own = strcmp(l->owner, by->owner) == 0;

    return CAPABILITY_BIT(CAP_LIST_ANY) |
           (own ? CAPABILITY_BIT(CAP_LIST_OWN) : 0);
}

static bool may_see(struct shown *s, const struct store_lease *l)
{
    char org[64];
    uint32_t caps = needed(s->by, l);

    if (s->caps == caps && s->org == l->org && strcmp(s->role, l->role) == 0)
        return s->may;
    core_org_name(s->core, l->org, org);
    s->caps = caps;
    s->org = l->org;
    snprintf(s->role, sizeof(s->role), "%s", l->role);
    s->may = core_may(s->core, s->by, caps, org, l->role);
    return s->may;
}

/* `full` ends the store's walk: this code is nobody's to see. */
static enum code show(const struct store_lease *l, void *ctx, struct error *e)
{
    struct shown *s = ctx;

    if (!may_see(s, l))
        return OK;
    s->full = s->limit > 0 && ++s->n > s->limit;
    return s->full ? ERR_LIMIT : s->fn(l, s->ctx, e);
}

enum code core_lease_each(struct core *c, const struct caller *by,
                          struct store_lease_query *q, store_lease_fn fn,
                          void *ctx, struct error *e)
{
    uint32_t caps = CAPABILITY_BIT(CAP_LIST_ANY) |
                    (q->owner ? CAPABILITY_BIT(CAP_LIST_OWN) : 0);
    struct store_lease_query all = *q;
    struct shown s = {
        .core = c, .by = by, .fn = fn, .ctx = ctx, .limit = q->limit};
    char org[64] = "";
    enum code code;

    if (q->org)
        core_org_name(c, q->org, org);
    code = core_permit_any(c, by, caps, *org ? org : NULL, q->role, e);
    if (code)
        return code;
    all.limit = 0; /* counted by those that are shown */
    code = store_lease_each(c->store, &all, show, &s, e);
    return s.full ? OK : code;
}

enum code core_lease_value(struct core *c, const struct caller *by,
                           const char *id, struct secret **value,
                           struct error *e)
{
    static const struct lease_right right = {CAP_READ, CAPABILITIES};
    LEASE l = {0};
    enum code code = lease_get_for(c, by, right, id, &l, e);

    if (code)
        return code;
    if (l.state != LEASE_ACTIVE)
        return error_set(e, ERR_SENSITIVE, "lease %s is %s: its key is gone",
                         id, lease_state_name(l.state));
    code = release_record(c, by, &l, e);
    return code ? code : lease_open_value(c, &l, value, e);
}

static enum code update_label(struct store_tx *tx, void *ctx, struct error *e)
{
    const struct store_lease *l = ctx;

    return store_lease_update(tx, l, l->state, e);
}

static enum code set_cka_id(struct store_lease *l, const uint8_t *id,
                            size_t len, struct error *e)
{
    uint8_t *copy = malloc(len ? len : 1);

    if (!copy)
        return error_set(e, ERR_NOMEM, "no memory for an id");
    memcpy(copy, id, len);
    free(l->cka_id);
    l->cka_id = copy;
    l->cka_id_len = len;
    return OK;
}

/* Between read and update nobody else may change the row. */
enum code core_lease_label(struct core *c, const struct caller *by,
                           const char *id, const char *label,
                           const uint8_t *cka_id, size_t cka_id_len,
                           struct error *e)
{
    LEASE l = {0};
    static const struct lease_right right = {CAP_MINT, CAPABILITIES};
    INFLIGHT hold = {0}, renewal = {0};
    enum code code =
        inflight_enter(&c->inflight, "lease", id, NULL, NULL, &hold, e);

    if (!code)
        code =
            inflight_enter(&c->inflight, "renew", id, NULL, NULL, &renewal, e);
    if (!code)
        code = lease_get_for(c, by, right, id, &l, e);
    if (!code && label)
        code = lease_text(&l.label, label, e);
    if (!code && cka_id)
        code = set_cka_id(&l, cka_id, cka_id_len, e);
    if (!code)
        code = store_commit(c->store, STORE_NORMAL, update_label, &l, e);
    if (code == ERR_EXISTS) /* the sweeper was first */
        return error_set(e, ERR_NOT_FOUND,
                         "lease %s ended while its label was changed", id);
    return code;
}

void core_end_session(struct core *c, const char *application, int64_t session)
{
    if (!application || !*application)
        return;
    ended_add(&c->ended, application, session, clock_monotonic_ms());
    sweep_wake(c);
}

/* First what is there, then what is minted meanwhile. */
enum code core_close_session(struct core *c, const char *application,
                             int64_t session, struct error *e)
{
    const struct store_lease_query q = {
        .application = application, .session = session, .live_only = true};
    size_t n;
    enum code code = ending_mark(c, &q, "session", NULL, &n, e);

    core_end_session(c, application, session);
    return code;
}

/* ---- JSON ---- */

static json_t *cka_id_json(const struct store_lease *l)
{
    char hex[2 * 256 + 1] = "";

    if (l->cka_id && l->cka_id_len <= 256)
        text_hex(hex, l->cka_id, l->cka_id_len);
    return json_string(hex);
}

static int64_t seconds_left(struct core *c, const struct store_lease *l)
{
    int64_t left = l->expires_ms - steady_ms(c);

    return l->state == LEASE_ACTIVE && left > 0 ? (left + 999) / 1000 : 0;
}

static json_t *whose(struct core *c, const struct store_lease *l)
{
    char org[64];

    core_org_name(c, l->org, org);
    return json_pack(
        "{ss ss ss ss ss ss sb sI so sb ss ss ss}", "lease_id", l->id, "org", org,
        "role", l->role, "state", lease_state_name(l->state), "owner", l->owner,
        "program", l->program, "bound", l->bound, "session",
        (json_int_t)l->session, "id", cka_id_json(l), "kept", l->sealed != NULL,
        "last_error", l->last_error, "reason", l->reason, "proof",
        lease_proof_name(l->proof));
}

json_t *core_lease_json(struct core *c, const struct store_lease *l)
{
    bool renewable =
        l->state == LEASE_ACTIVE && l->max_expires_ms > steady_ms(c);
    JSON life = json_pack(
        "{sI sI sI sI sI sb ss ss ss ss ss ss}", "issued_ms",
        (json_int_t)steady_wall_ms(c, l->issued_ms), "expires_ms", (json_int_t)steady_wall_ms(c, l->expires_ms),
        "max_expires_ms", (json_int_t)steady_wall_ms(c, l->max_expires_ms), "provider_expires_ms",
        (json_int_t)steady_wall_ms(c, l->provider_expires_ms), "lease_duration",
        (json_int_t)seconds_left(c, l), "lease_renewable", renewable, "project_id",
        l->project, "service_account", l->account_name, "service_account_id",
        l->account_id, "api_key_id", l->key_id, "api_base", l->api_base,
        "label", *l->label ? l->label : l->role);
    json_t *j = whose(c, l);

    if (!j || !life || json_object_update(j, life) != 0) {
        json_decref(j);
        return NULL;
    }
    return j;
}
