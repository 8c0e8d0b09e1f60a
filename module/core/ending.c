/* ending - see ending.h. */
#include "config.h"

#include "module/core/ending.h"

#include "module/core/internal.h"
#include "module/core/lease.h"
#include "module/core/lease_record.h"

#include <stdlib.h>
#include <string.h>

struct mark {
    struct core *core;
    struct store_lease *leases;
    size_t n;
};

static void mark_clear(struct mark *m)
{
    for (size_t i = 0; i < m->n; i++)
        store_lease_clear(&m->leases[i]);
    free(m->leases);
}

static enum code collect(const struct store_lease *l, void *ctx,
                         struct error *e)
{
    struct mark *m = ctx;
    struct store_lease *more;

    if (l->state >= LEASE_REVOKING)
        return OK;
    more = reallocarray(m->leases, m->n + 1, sizeof(*more));
    if (!more)
        return error_set(e, ERR_NOMEM, "no memory to end leases");
    m->leases = more;
    memset(&more[m->n], 0, sizeof(*more));
    return lease_copy(&more[m->n++], l, e);
}

/* One transaction for all. */
static enum code mark_rows(struct store_tx *tx, void *ctx, struct error *e)
{
    struct mark *m = ctx;

    for (size_t i = 0; i < m->n; i++) {
        struct store_lease *l = &m->leases[i];
        enum lease_state was = l->state;
        enum code code = lease_apply(m->core, l, LEASE_END, 0, NULL, e);

        const struct lease_record moved = {.lease = l, .was = was};

        if (!code)
            code = store_lease_update(tx, l, was, e);
        if (!code)
            code = lease_record(m->core, tx, &moved, e);
        l->state = was;
        if (code && code != ERR_EXISTS)
            return code;
    }
    return OK;
}

enum code ending_mark(struct core *c, const struct store_lease_query *q,
                      const char *reason, size_t *n, struct error *e)
{
    CLEANUP(mark_clear) struct mark m = {.core = c};
    enum code code = store_lease_each(c->store, q, collect, &m, e);

    for (size_t i = 0; !code && i < m.n; i++)
        code = lease_text(&m.leases[i].reason, reason, e);
    *n = m.n;
    if (code || m.n == 0)
        return code;
    return store_commit(c->store, STORE_RESERVE, mark_rows, &m, e);
}
