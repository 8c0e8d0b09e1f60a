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

/* ---- of a role ---- */

#define USAGE_OF                                                               \
    "SELECT count(*), total(issued_ms > ?3 AND issued_ms <= ?4),"              \
    " ifnull(min(CASE WHEN issued_ms > ?3 AND issued_ms <= ?4"                 \
    " THEN issued_ms END), 0) FROM lease"
#define DEAD_OF                                                                \
    "SELECT 0, count(*), ifnull(min(issued_ms), 0) FROM lease"                 \
    " INDEXED BY lease_revoked WHERE state = 3 AND revoked_ms >= ?3"           \
    " AND issued_ms > ?3 AND issued_ms <= ?4 AND org = ?1 AND role = ?2"

static enum code add_of(struct conn *c, const char *sql,
                        const struct store_role_usage_query *rq,
                        struct store_role_usage *out, struct error *e)
{
    QUERY q = {.st = NULL};
    bool row = false;
    enum code code = query_open(&q, c, "count a role's leases", sql, e);
    if (code)
        return code;
    query_int(&q, rq->org);
    query_text(&q, rq->role);
    query_int(&q, rq->since_ms);
    query_int(&q, rq->now_ms);
    if (rq->owner)
        query_text(&q, rq->owner);
    code = query_step(&q, &row, e);
    if (code || !row)
        return code;
    out->n.live += query_get_int(&q, 0);
    out->n.issued += query_get_int(&q, 1);
    int64_t first = query_get_int(&q, 2);
    if (first && (!out->first_issued_ms || first < out->first_issued_ms))
        out->first_issued_ms = first;
    return OK;
}

static enum code usage_of(struct conn *c,
                          const struct store_role_usage_query *q,
                          struct store_role_usage *out, struct error *e)
{
    *out = (struct store_role_usage){.first_issued_ms = 0};
    enum code code =
        add_of(c,
               q->owner ? USAGE_OF " INDEXED BY lease_live_owner WHERE"
                                   " state < 3 AND owner = ?5 AND org = ?1"
                                   " AND role = ?2"
                        : USAGE_OF " INDEXED BY lease_live_role WHERE"
                                   " state < 3 AND org = ?1 AND role = ?2",
               q, out, e);
    return code ? code
                : add_of(c, q->owner ? DEAD_OF " AND owner = ?5" : DEAD_OF, q,
                         out, e);
}

enum code store_role_usage(struct store *s,
                           const struct store_role_usage_query *q,
                           struct store_role_usage *out, struct error *e)
{
    READER r = {.c = NULL};
    enum code code = reader_take(&r, s, e);
    return code ? code : usage_of(r.c, q, out, e);
}

enum code store_tx_role_usage(struct store_tx *tx,
                              const struct store_role_usage_query *q,
                              struct store_role_usage *out, struct error *e)
{
    return usage_of(tx->c, q, out, e);
}
