/* guard - see guard.h. */
#include "config.h"

#include "module/core/guard.h"

#include "module/core/internal.h"
#include "module/core/steady.h"

#define MINUTE_MS 60000

static enum code too_many_live(const struct guard *g, const char *owner,
                               const char *field, int64_t most, struct error *e)
{
    return error_set(e, ERR_LIMIT,
                     "%s%srole %s has as many live leases as %s allows (%lld): "
                     "revoke what is not used (`hsmint lease list --role %s`), "
                     "let the role give live ones again (reuse=true), or raise "
                     "%s",
                     owner ? owner : "", owner ? " in " : "", g->name, field,
                     (long long)most, g->name, field);
}

/* Until the first of the last minute's is no more of it. */
static enum code too_many_mints(const struct guard *g, const char *owner,
                                const char *field, int64_t most,
                                int64_t wait_ms, struct error *e)
{
    if (wait_ms < 1000)
        wait_ms = 1000;
    error_set(e, ERR_LIMIT,
              "%s%srole %s has had as many mints within a minute as %s allows "
              "(%lld): try again in %lld s, keep a key as long as it lives, or "
              "raise %s",
              owner ? owner : "", owner ? " in " : "", g->name, field,
              (long long)most, (long long)((wait_ms + 999) / 1000), field);
    if (e)
        e->retry_after_ms = (uint32_t)wait_ms;
    return ERR_LIMIT;
}

struct limit {
    const char *owner; /* NULL: of all */
    const char *live_field, *mints_field;
    int64_t live, mints; /* 0: none */
};

static enum code check(struct core *c, const struct guard *g,
                       const struct limit *l, struct store_tx *tx,
                       struct error *e)
{
    const int64_t now = steady_ms(c);
    const struct store_role_usage_query q = {.org = g->org,
                                             .role = g->name,
                                             .owner = l->owner,
                                             .since_ms = now - MINUTE_MS,
                                             .now_ms = now};
    struct store_role_usage used;
    enum code code;

    if (l->live == 0 && l->mints == 0)
        return OK;
    code = tx ? store_tx_role_usage(tx, &q, &used, e)
              : store_role_usage(c->store, &q, &used, e);
    if (code)
        return code;
    if (l->live > 0 && used.n.live >= l->live)
        return too_many_live(g, l->owner, l->live_field, l->live, e);
    if (l->mints > 0 && used.n.issued >= l->mints)
        return too_many_mints(g, l->owner, l->mints_field, l->mints,
                              used.first_issued_ms + MINUTE_MS - now, e);
    return OK;
}

enum code guard_check(struct core *c, const struct guard *g,
                      struct store_tx *tx, struct error *e)
{
    const struct limit limits[] = {
        {g->owner, "max_live_per_identity", "max_mints_per_minute_per_identity",
         g->role->max_live_per_identity,
         g->role->max_mints_per_minute_per_identity},
        {NULL, "max_live", "max_mints_per_minute", g->role->max_live,
         g->role->max_mints_per_minute},
    };
    enum code code = OK;

    for (size_t i = 0; !code && i < sizeof(limits) / sizeof(limits[0]); i++)
        code = check(c, g, &limits[i], tx, e);
    return code;
}
