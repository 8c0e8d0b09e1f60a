/* duty - see duty.h. */
#include "config.h"

#include "module/core/duty.h"

#include "common/clock.h"
#include "common/log.h"
#include "module/core/internal.h"
#include "module/core/lease.h"
#include "module/core/proof.h"
#include "module/core/search.h"

#include <stdlib.h>

struct duty {
    struct core *core;
    struct store_lease *lease;
    int64_t now_ms; /* steady */
};

/* ---- what is due ---- */

static bool needs_search(const struct store_lease *l)
{
    return (l->state == LEASE_PENDING || l->state == LEASE_REVOKING) &&
           !*l->account_id;
}

static bool is_tried(const struct duty *d)
{
    const struct store_lease *l = d->lease;

    return (l->state == LEASE_PENDING || l->state == LEASE_REVOKING) &&
           l->next_try_ms <= d->now_ms;
}

static bool may_search(const struct duty *d)
{
    return is_tried(d) && needs_search(d->lease);
}

static bool may_delete(const struct duty *d)
{
    const struct store_lease *l = d->lease;

    if (l->state == LEASE_ACTIVE)
        return l->expires_ms <= d->now_ms;
    return is_tried(d) && *l->account_id;
}

static bool may_prove(const struct duty *d)
{
    return proof_is_due(d->lease, d->now_ms);
}

/* ---- what is done ---- */

static enum code delete_it(struct duty *d, struct error *e)
{
    struct core *c = d->core;
    struct store_lease *l = d->lease;
    int64_t began = clock_monotonic_us();
    enum code code = lease_delete(
        c, l, l->state == LEASE_ACTIVE ? LEASE_EXPIRED : "revoked", NULL, e);

    metrics_count(&c->metrics, METRICS_REVOCATIONS, l->org, l->role, "daemon",
                  error_name(code));
    if (!code)
        metrics_time(&c->metrics, METRICS_REVOKE_SECONDS,
                     clock_monotonic_us() - began);
    if (code && code != ERR_EXISTS)
        log_failure(e, "lease %s is not revoked yet", l->id);
    return code == ERR_EXISTS ? OK : code; /* somebody was first */
}

/* One list of the project's accounts serves all of its leases that wait. */
struct group {
    struct duty *duty;
    struct store_lease leases[SEARCH_MAX];
    struct inflight_hold holds[SEARCH_MAX];
    int n;
};

static void group_clear(struct group *g)
{
    for (int i = 0; i < g->n; i++) {
        store_lease_clear(&g->leases[i]);
        inflight_leave(&g->holds[i]);
    }
    free(g);
}

static void group_freep(struct group **g)
{
    if (*g)
        group_clear(*g);
}

static enum code add(const struct store_lease *l, void *ctx, struct error *e)
{
    struct group *g = ctx;
    enum code code;

    if (!needs_search(l) || g->n == SEARCH_MAX ||
        !inflight_try(&g->duty->core->inflight, "lease", l->id,
                      &g->holds[g->n]))
        return OK;
    g->leases[g->n] = (struct store_lease){.org = 0};
    code = lease_copy(&g->leases[g->n], l, e);
    g->n++;
    return code;
}

static enum code search_it(struct duty *d, struct error *e)
{
    CLEANUP(group_freep) struct group *g = calloc(1, sizeof(*g));
    struct store_lease *all[SEARCH_MAX + 1] = {d->lease};
    const struct store_lane lane = {.org = d->lease->org,
                                    .project = d->lease->project,
                                    .kind = LANE_RETRY};
    enum code code;

    if (!g)
        return error_set(e, ERR_NOMEM, "no memory to search accounts");
    g->duty = d;
    code = store_lane_due(d->core->store, &lane, d->now_ms, SEARCH_MAX, add, g,
                          e);
    for (int i = 0; i < g->n; i++)
        all[i + 1] = &g->leases[i];
    if (!code)
        code = search_accounts(d->core, all, g->n + 1, e);
    if (code)
        return error_prefix(e, "the accounts of pending leases cannot be "
                               "searched");
    for (int i = 0; !code && i <= g->n; i++) {
        struct duty one = {d->core, all[i], d->now_ms};

        if (*all[i]->account_id && all[i]->state != LEASE_REVOKED)
            code = delete_it(&one, e);
    }
    return code;
}

static enum code prove_it(struct duty *d, struct error *e)
{
    return proof_step(d->core, d->lease, e);
}

static const struct {
    bool (*is_due)(const struct duty *d);
    enum code (*act)(struct duty *d, struct error *e);
} duties[] = {
    {may_search, search_it},
    {may_delete, delete_it},
    {may_prove, prove_it},
};

enum code duty_do(struct core *c, const char *lease, bool *done,
                  struct error *e)
{
    INFLIGHT hold = {0};
    LEASE l = {0};
    struct duty d = {.core = c, .lease = &l, .now_ms = steady_ms(c)};
    enum code code;

    *done = false;
    if (!inflight_try(&c->inflight, "lease", lease, &hold))
        return OK;
    code = store_lease_get(c->store, lease, &l, e);
    for (size_t i = 0; !code && i < sizeof(duties) / sizeof(duties[0]); i++) {
        if (!duties[i].is_due(&d))
            continue;
        *done = true;
        code = duties[i].act(&d, e);
    }
    return code == ERR_NOT_FOUND && !*done ? OK : code;
}
