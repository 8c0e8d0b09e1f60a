/* Leases by what is asked about them. Each statement names its index, so that
 * the cost never depends on the planner's guess about an unanalysed table. */
#include "config.h"

#include "module/store/lease.h"

#include <stdio.h>
#include <string.h>

enum code lease_each_row(struct query *q, store_lease_fn fn, void *ctx,
                         struct error *e)
{
    enum code code = OK;
    bool row = false;
    while (code == OK) {
        code = query_step(q, &row, e);
        if (code || !row)
            break;
        struct store_lease l;
        lease_borrow(q, &l);
        code = fn(&l, ctx, e);
    }
    return code;
}

/* ---- lists ---- */

/* The narrowest index: revoked rows are in none of them, so a list of history
 * goes through the primary key. */
static const char *index_for(const struct store_lease_query *lq)
{
    if (lq->application)
        return lq->live_only ? " INDEXED BY lease_live_application" : "";
    if (!lq->live_only)
        return "";
    return lq->owner ? " INDEXED BY lease_live_owner"
                     : " INDEXED BY lease_live_role";
}

#define LIST_SQL_MAX 1024

/* The text depends on which filters there are, never on their values. */
static void list_sql(const struct store_lease_query *lq, char *sql)
{
    const struct {
        bool wanted;
        const char *term;
    } terms[] = {
        {lq->live_only, " AND state < 3"},
        {lq->application != NULL, " AND bound = 1 AND application = ?"},
        {lq->session != 0, " AND session = ?"},
        {lq->owner != NULL, " AND owner = ?"},
        {lq->org != 0, " AND org = ?"},
        {lq->role != NULL, " AND role = ?"},
        {lq->before != NULL, " AND id < ?"},
        {lq->reusable_only, " AND reusable = 1"},
    };
    int n = snprintf(sql, LIST_SQL_MAX,
                     "SELECT " LEASE_LIST " FROM lease%s"
                     " WHERE 1",
                     index_for(lq));
    for (size_t i = 0; i < sizeof(terms) / sizeof(terms[0]); i++)
        if (terms[i].wanted)
            n += snprintf(sql + n, (size_t)(LIST_SQL_MAX - n), "%s",
                          terms[i].term);
    (void)snprintf(sql + n, (size_t)(LIST_SQL_MAX - n),
                   " ORDER BY id DESC LIMIT ?");
}

static void list_bind(struct query *q, const struct store_lease_query *lq)
{
    if (lq->application)
        query_text(q, lq->application);
    if (lq->session)
        query_int(q, lq->session);
    if (lq->owner)
        query_text(q, lq->owner);
    if (lq->org)
        query_int(q, lq->org);
    if (lq->role)
        query_text(q, lq->role);
    if (lq->before)
        query_text(q, lq->before);
    query_int(q, lq->limit > 0 ? lq->limit : 1000000);
}

enum code store_lease_each(struct store *s, const struct store_lease_query *lq,
                           store_lease_fn fn, void *ctx, struct error *e)
{
    char sql[LIST_SQL_MAX];
    list_sql(lq, sql);
    READER r = {.c = NULL};
    QUERY q = {.st = NULL};
    enum code code = reader_take(&r, s, e);
    if (code == OK)
        code = query_open(&q, r.c, "list leases", sql, e);
    if (code)
        return code;
    list_bind(&q, lq);
    return lease_each_row(&q, fn, ctx, e);
}

/* ---- counts: from lease_live_role alone, no row is read ---- */

#define COUNT_SQL                                                              \
    "SELECT total(state = 0), total(state = 1), total(state = 2) FROM lease"   \
    " INDEXED BY lease_live_role WHERE state < 3"

static enum code counts(struct conn *c, int64_t org, const char *role,
                        struct store_counts *out, struct error *e)
{
    *out = (struct store_counts){0};
    const char *sql = org && role ? COUNT_SQL " AND org = ? AND role = ?"
                      : org       ? COUNT_SQL " AND org = ?"
                      : role      ? COUNT_SQL " AND role = ?"
                                  : COUNT_SQL;
    QUERY q = {.st = NULL};
    bool row = false;
    enum code code = query_open(&q, c, "count leases", sql, e);
    if (code)
        return code;
    if (org)
        query_int(&q, org);
    if (role)
        query_text(&q, role);
    code = query_step(&q, &row, e);
    if (code || !row)
        return code;
    *out = (struct store_counts){.pending = query_get_int(&q, 0),
                                 .active = query_get_int(&q, 1),
                                 .revoking = query_get_int(&q, 2)};
    return OK;
}

enum code store_lease_counts(struct store *s, int64_t org, const char *role,
                             struct store_counts *out, struct error *e)
{
    *out = (struct store_counts){0};
    READER r = {.c = NULL};
    enum code code = reader_take(&r, s, e);
    return code ? code : counts(r.c, org, role, out, e);
}

enum code store_tx_lease_counts(struct store_tx *tx, int64_t org,
                                const char *role, struct store_counts *out,
                                struct error *e)
{
    return counts(tx->c, org, role, out, e);
}
