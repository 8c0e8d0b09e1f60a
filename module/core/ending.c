/* ending - see ending.h. */
#include "config.h"

#include "module/core/ending.h"

#include "module/core/internal.h"
#include "module/core/lease.h"

#include <stdlib.h>
#include <string.h>

enum { BATCH = 256 };

enum code ending_add(struct ending *d, const char *id, struct error *e)
{
    if (d->n == d->room) {
        size_t room = d->room ? 2 * d->room : BATCH;
        struct ending_id *more = reallocarray(d->ids, room, sizeof(*more));

        if (!more)
            return error_set(e, ERR_NOMEM, "no memory to end leases");
        d->ids = more;
        d->room = room;
    }
    strcpy(d->ids[d->n++].text, id);
    return OK;
}

void ending_clear(struct ending *d)
{
    free(d->ids);
}

struct batch {
    struct core *core;
    const struct caller *by;
    const char *reason;
    const struct ending_id *ids;
    size_t n;
};

static enum code end_rows(struct store_tx *tx, void *ctx, struct error *e)
{
    const struct batch *b = ctx;
    enum code code = OK;

    for (size_t i = 0; !code && i < b->n; i++)
        code = lease_end_in(b->core, tx, b->ids[i].text, b->reason, b->by, e);
    return code;
}

enum code ending_do(struct core *c, const struct ending *d, const char *reason,
                    const struct caller *by, struct error *e)
{
    enum code code = OK;

    for (size_t i = 0; !code && i < d->n; i += BATCH) {
        struct batch b = {c, by, reason, d->ids + i,
                          d->n - i < BATCH ? d->n - i : BATCH};

        code = store_commit(c->store, STORE_RESERVE, end_rows, &b, e);
    }
    return code;
}

struct matching {
    struct core *core;
    struct ending *d;
    bool sessions; /* they end as their session did */
};

static enum code collect(const struct store_lease *l, void *ctx,
                         struct error *e)
{
    struct matching *m = ctx;

    /* In a copied state its session may live, with the original. */
    if (l->state >= LEASE_REVOKING ||
        (m->sessions && restored_holds(m->core, l)))
        return OK;
    return ending_add(m->d, l->id, e);
}

enum code ending_mark(struct core *c, const struct store_lease_query *q,
                      const char *reason, const struct caller *by, size_t *n,
                      struct error *e)
{
    ENDING d = {.ids = NULL};
    struct matching m = {c, &d, q->application != NULL};
    enum code code = store_lease_each(c->store, q, collect, &m, e);

    *n = d.n;
    return code ? code : ending_do(c, &d, reason, by, e);
}
