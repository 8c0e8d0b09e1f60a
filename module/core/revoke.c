/* revoke - see revoke.h. */
#include "config.h"

#include "module/core/revoke.h"

#include "common/clock.h"
#include "module/core/ending.h"
#include "module/core/internal.h"
#include "module/core/lease.h"

#include <string.h>
#include <time.h>

enum { WAIT_MS = 20000, LOOK_MS = 20 };

/* ---- which ---- */

struct matches {
    struct core *core;
    const struct caller *by;
    const struct revoke_filter *filter;
    struct ending found;
};

static void matches_clear(struct matches *m)
{
    ending_clear(&m->found);
}
#define MATCHES CLEANUP(matches_clear) struct matches

/* "pay-", "pay-api/" and "pay-api/01m8…" begin "ROLE/LEASE_ID". */
static bool has_prefix(const struct store_lease *l, const char *prefix)
{
    size_t role = strlen(l->role), n = strlen(prefix);

    if (n <= role)
        return strncmp(l->role, prefix, n) == 0;
    return strncmp(prefix, l->role, role) == 0 && prefix[role] == '/' &&
           strncmp(l->id, prefix + role + 1, n - role - 1) == 0;
}

static bool may_revoke(const struct matches *m, const struct store_lease *l)
{
    uint32_t caps = CAPABILITY_BIT(CAP_REVOKE_ANY);
    char org[64];

    if (strcmp(l->owner, m->by->owner) == 0)
        caps |= CAPABILITY_BIT(CAP_REVOKE_OWN);
    core_org_name(m->core, l->org, org);
    return core_may(m->core, m->by, caps, org, l->role);
}

static enum code take(const struct store_lease *l, void *ctx, struct error *e)
{
    struct matches *m = ctx;
    const struct revoke_filter *f = m->filter;

    if (f->prefix && !has_prefix(l, f->prefix))
        return OK;
    if (f->project && strcmp(l->project, f->project) != 0)
        return OK;
    return may_revoke(m, l) ? ending_add(&m->found, l->id, e) : OK;
}

enum code revoke_mark(struct core *c, int64_t org, const char *role,
                      const char *reason, const struct caller *by,
                      struct error *e)
{
    struct store_lease_query q = {.org = org, .role = role, .live_only = true};
    size_t n;
    enum code code = ending_mark(c, &q, reason, by, &n, e);

    sweep_wake(c);
    return code;
}

/* ---- wait ---- */

static void nap(void)
{
    nanosleep(&(struct timespec){.tv_nsec = LOOK_MS * 1000000}, NULL);
}

enum code revoke_wait(struct core *c, int64_t org, const char *role,
                      int64_t wait_ms, int64_t *left, struct error *e)
{
    int64_t end = clock_monotonic_ms() + wait_ms;
    struct store_counts n;
    enum code code;

    for (;;) {
        code = store_lease_counts(c->store, org, role, &n, e);
        *left = n.pending + n.active + n.revoking;
        if (code || *left == 0 || clock_monotonic_ms() >= end)
            return code;
        nap();
    }
}

static bool is_over(struct core *c, const char *id)
{
    LEASE l = {0};
    struct error e = {0};
    enum code code = store_lease_get(c->store, id, &l, &e);

    return code == ERR_NOT_FOUND || (!code && l.state == LEASE_REVOKED);
}

/* Each is looked at until it is over, one after the other. */
static size_t wait_for(struct core *c, const struct matches *m)
{
    int64_t end = clock_monotonic_ms() + WAIT_MS;
    size_t over = 0, later = 0;

    while (over < m->found.n && clock_monotonic_ms() < end) {
        if (is_over(c, m->found.ids[over].text))
            over++;
        else
            nap();
    }
    for (size_t i = over; i < m->found.n; i++)
        later += is_over(c, m->found.ids[i].text);
    return over + later;
}

/* ---- by filter ---- */

static enum code check_filter(const struct revoke_filter *f, struct error *e)
{
    if (f->role || f->owner || f->prefix || f->project)
        return OK;
    return error_set(e, ERR_INVALID,
                     "which leases? Name a role, an owner, a prefix or a "
                     "project; `hsmint revoke-all` ends all");
}

static enum code permit(struct core *c, const struct caller *by,
                        const struct revoke_filter *f, const char *org,
                        struct error *e)
{
    uint32_t caps = CAPABILITY_BIT(CAP_REVOKE_ANY);

    if (!f->owner || strcmp(f->owner, by->owner) == 0)
        caps |= CAPABILITY_BIT(CAP_REVOKE_OWN);
    return core_permit_any(c, by, caps, org, f->role, e);
}

enum code core_revoke_many(struct core *c, const struct caller *by,
                           const struct revoke_filter *f,
                           struct revoke_counts *out, struct error *e)
{
    CLEANUP(store_org_clear) struct store_org org = {0};
    MATCHES m = {.core = c, .by = by, .filter = f};
    struct store_lease_query q = {
        .role = f->role, .owner = f->owner, .live_only = true};
    const char *reason = f->reason && *f->reason ? f->reason : "revoked";
    enum code code = check_filter(f, e);

    *out = (struct revoke_counts){0};
    if (!code)
        code = core_org(c, f->org, &org, e);
    if (!code)
        code = permit(c, by, f, org.name, e);
    q.org = org.id;
    if (!code)
        code = store_lease_each(c->store, &q, take, &m, e);
    if (code)
        return code;
    out->matched = (int64_t)m.found.n;
    if (f->dry_run)
        return OK;
    code = ending_do(c, &m.found, reason, by, e);
    sweep_wake(c);
    if (!code)
        out->revoked = (int64_t)wait_for(c, &m);
    out->waiting = out->matched - out->revoked;
    return code;
}
