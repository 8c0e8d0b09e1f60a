/* Leases by the names of their accounts: what a list of the service is held
 * against. */
#include "config.h"

#include "module/store/lease.h"

#include <string.h>

#define LIVE_SQL                                                               \
    "SELECT " LEASE_LIST " FROM lease INDEXED BY lease_live_account"           \
    " WHERE account_name = ? AND state < 3"

/* No index holds dead rows: one walk for all names. */
#define DEAD_SQL                                                               \
    "SELECT " LEASE_LIST " FROM lease NOT INDEXED WHERE state = 3"             \
    " AND account_name IN (SELECT value FROM json_each(?))"

static enum code rows(struct query *q, store_lease_fn fn, void *ctx,
                      struct error *e)
{
    bool row = false;
    enum code code = query_step(q, &row, e);
    while (code == OK && row) {
        struct store_lease l;
        lease_borrow(q, &l);
        code = fn(&l, ctx, e);
        if (code == OK)
            code = query_step(q, &row, e);
    }
    return code;
}

enum code store_lease_named(struct store *s, const char *name,
                            store_lease_fn fn, void *ctx, struct error *e)
{
    READER r = {.c = NULL};
    QUERY q = {.st = NULL};
    enum code code = reader_take(&r, s, e);
    if (code == OK)
        code = query_open(&q, r.c, "find leases by account", LIVE_SQL, e);
    if (code)
        return code;
    query_text(&q, name);
    return rows(&q, fn, ctx, e);
}

enum code store_lease_named_dead(struct store *s, const char *names,
                                 store_lease_fn fn, void *ctx, struct error *e)
{
    READER r = {.c = NULL};
    QUERY q = {.st = NULL};
    enum code code = reader_take(&r, s, e);
    if (code == OK)
        code = query_open(&q, r.c, "find ended leases by account", DEAD_SQL, e);
    if (code)
        return code;
    query_text(&q, names);
    return rows(&q, fn, ctx, e);
}

enum code store_lease_hold(struct store_tx *tx, int64_t due_ms, struct error *e)
{
    QUERY q = {.st = NULL};
    enum code code = query_open(&q, tx->c, "hold pending leases",
                                "UPDATE lease SET next_try_ms = ?"
                                " WHERE state = 0",
                                e);
    if (code)
        return code;
    query_int(&q, due_ms);
    return query_run(&q, e);
}
