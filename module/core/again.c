/* again - see again.h. */
#include "config.h"

#include "module/core/again.h"

#include "common/clock.h"
#include "common/file.h"
#include "common/log.h"
#include "module/core/internal.h"
#include "module/core/lease.h"

#include <stdio.h>
#include <string.h>

enum { WORN_LEAST_MS = 5000 };

/* On success `found` is moved to *lease. */
static enum code take_value(struct core *c, struct store_lease *found,
                            struct store_lease *lease, struct secret **value,
                            struct error *e)
{
    enum code code = lease_open_value(c, found, value, e);

    if (code)
        return code;
    *lease = *found;
    *found = (struct store_lease){0};
    return OK;
}

enum code again_retry(struct core *c, const struct again_wanted *w,
                      const char *request_id, const char *method,
                      struct store_lease *lease, struct secret **value,
                      struct error *e)
{
    FREE char *was = NULL;
    FREE char *id = NULL;
    LEASE old = {0};
    INFLIGHT hold = {0};
    enum code code =
        store_journal_get(c->store, w->owner, request_id, &was, &id, e);

    if (code == ERR_NOT_FOUND)
        return OK;
    if (code)
        return code;
    if (strcmp(was, method) != 0)
        return error_set(e, ERR_INVALID,
                         "request %s was a %s before; each request needs an id "
                         "of its own",
                         request_id, was);
    code = inflight_enter(&c->inflight, "lease", id, NULL, NULL, &hold, e);
    if (!code)
        code = store_lease_get(c->store, id, &old, e);
    if (code == ERR_NOT_FOUND)
        return OK;
    if (code)
        return code;
    if (old.org != w->org || strcmp(old.role, w->role) != 0)
        return error_set(e, ERR_INVALID,
                         "request %s was a %s in another role before; each "
                         "request needs an id of its own",
                         request_id, was);
    if (old.state >= LEASE_REVOKING)
        return OK;
    if (old.state == LEASE_ACTIVE && old.sealed &&
        take_value(c, &old, lease, value, e) == OK)
        return OK;
    return lease_end(c, &old, "answer lost", NULL, e);
}

struct find_live {
    const struct again_wanted *wanted;
    char id[sizeof(((struct store_lease *)NULL)->id)];
    int64_t now_ms;
};

static bool has_left(const struct store_lease *l, const struct find_live *f)
{
    int64_t left = l->expires_ms - f->now_ms;

    return f->wanted->worn ? left >= WORN_LEAST_MS
                           : 2 * left > l->expires_ms - l->issued_ms;
}

/* What was allowed when it was minted may be too much now. */
static bool is_short_enough(const struct store_lease *l, int64_t now_ms,
                            int64_t max_ttl_s)
{
    return l->expires_ms - now_ms <= max_ttl_s * 1000;
}

/* One that the service ends sooner is as long as they come. */
static bool is_long_enough(const struct store_lease *l, int64_t ttl_s)
{
    return l->expires_ms - l->issued_ms >= ttl_s * 1000 ||
           l->expires_ms == l->provider_expires_ms;
}

static enum code take_live(const struct store_lease *l, void *ctx,
                           struct error *e)
{
    struct find_live *f = ctx;

    (void)e;
    if (!*f->id && l->state == LEASE_ACTIVE &&
        has_left(l, f) &&
        strcmp(l->project, f->wanted->project) == 0 &&
        is_long_enough(l, f->wanted->ttl_s) &&
        is_short_enough(l, f->now_ms, f->wanted->max_ttl_s))
        snprintf(f->id, sizeof(f->id), "%s", l->id);
    return OK;
}

enum code again_reuse(struct core *c, const struct again_wanted *w,
                      struct store_lease *lease, struct secret **value,
                      struct error *e)
{
    struct store_lease_query q = {.org = w->org,
                                  .owner = w->owner,
                                  .role = w->role,
                                  .live_only = true,
                                  .reusable_only = true,
                                  .limit = 16};
    struct find_live f = {.wanted = w, .now_ms = steady_ms(c)};
    LEASE found = {0};
    struct error why = {0};
    enum code code = store_lease_each(c->store, &q, take_live, &f, e);

    if (!code && *f.id)
        code = store_lease_get(c->store, f.id, &found, e);
    if (code || !*f.id || !found.sealed)
        return code;
    if (take_value(c, &found, lease, value, &why) != OK)
        log_failure(&why, "lease %s cannot be given again", f.id);
    return OK;
}
