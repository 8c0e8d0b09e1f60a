/* What one owner has, for limits. A lease that was issued since a moment and
 * is dead now was revoked since then, too: that index finds it. */
#include "config.h"

#include "module/store/state.h"

#define LIVE_SQL                                                               \
    "SELECT org, role, count(*), total(issued_ms > ?2 AND issued_ms <= ?3)"    \
    " FROM lease INDEXED BY lease_live_owner"                                  \
    " WHERE state < 3 AND owner = ?1 GROUP BY org, role"
#define DEAD_SQL                                                               \
    "SELECT org, role, 0, count(*) FROM lease INDEXED BY lease_revoked"        \
    " WHERE state = 3 AND owner = ?1 AND revoked_ms >= ?2"                     \
    " AND issued_ms > ?2 AND issued_ms <= ?3 GROUP BY org, role"

static enum code add(struct conn *c, const char *sql,
                     const struct store_usage_query *uq,
                     struct store_usage *out, struct error *e)
{
    QUERY q = {.st = NULL};
    bool row = false;
    enum code code = query_open(&q, c, "count an owner's leases", sql, e);
    if (code)
        return code;
    query_text(&q, uq->owner);
    query_int(&q, uq->since_ms);
    query_int(&q, uq->now_ms);
    while ((code = query_step(&q, &row, e)) == OK && row) {
        if (!uq->match(query_get_int(&q, 0), query_borrow_text(&q, 1), uq->ctx))
            continue;
        out->live += query_get_int(&q, 2);
        out->issued += query_get_int(&q, 3);
    }
    return code;
}

static enum code usage(struct conn *c, const struct store_usage_query *q,
                       struct store_usage *out, struct error *e)
{
    *out = (struct store_usage){.live = 0};
    enum code code = add(c, LIVE_SQL, q, out, e);
    return code ? code : add(c, DEAD_SQL, q, out, e);
}

enum code store_usage(struct store *s, const struct store_usage_query *q,
                      struct store_usage *out, struct error *e)
{
    READER r = {.c = NULL};
    enum code code = reader_take(&r, s, e);
    return code ? code : usage(r.c, q, out, e);
}

enum code store_tx_usage(struct store_tx *tx, const struct store_usage_query *q,
                         struct store_usage *out, struct error *e)
{
    return usage(tx->c, q, out, e);
}
