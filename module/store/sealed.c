/* What is sealed in rows, for a seal key that another one follows. */
#include "config.h"

#include "module/store/lease.h"

#include <string.h>

enum code store_sealed_each(struct store *s, const char *after, int limit,
                            store_lease_fn fn, void *ctx, struct error *e)
{
    READER r = {.c = NULL};
    QUERY q = {.st = NULL};
    enum code code = reader_take(&r, s, e);
    if (code == OK)
        code = query_open(&q, r.c, "list sealed keys",
                          "SELECT " LEASE_LIST " FROM lease WHERE id > ?"
                          " AND (sealed IS NOT NULL OR probe IS NOT NULL)"
                          " ORDER BY id LIMIT ?",
                          e);
    if (code)
        return code;
    query_text(&q, after);
    query_int(&q, limit);
    return lease_each_row(&q, fn, ctx, e);
}

enum code store_sealed_count(struct store *s, int64_t *n, struct error *e)
{
    READER r = {.c = NULL};
    QUERY q = {.st = NULL};
    bool row = false;
    enum code code = reader_take(&r, s, e);
    if (code == OK)
        code = query_open(&q, r.c, "count sealed keys",
                          "SELECT total(sealed IS NOT NULL OR"
                          " probe IS NOT NULL) FROM lease",
                          e);
    if (code == OK)
        code = query_step(&q, &row, e);
    *n = row ? query_get_int(&q, 0) : 0;
    return code;
}

enum code store_lease_reseal(struct store_tx *tx, const struct store_lease *was,
                             const struct store_lease *is, struct error *e)
{
    QUERY q = {.st = NULL};
    enum code code =
        query_open(&q, tx->c, "seal a lease's key anew",
                   "UPDATE lease SET sealed = iif(sealed IS ?1, ?2, sealed),"
                   " probe = iif(probe IS ?3, ?4, probe) WHERE id = ?5",
                   e);
    if (code)
        return code;
    query_blob(&q, was->sealed, was->sealed_len);
    query_blob(&q, is->sealed, is->sealed_len);
    query_blob(&q, was->probe, was->probe_len);
    query_blob(&q, is->probe, is->probe_len);
    query_text(&q, was->id);
    return query_run(&q, e);
}

enum code store_org_reseal(struct store_tx *tx, const struct store_org *was,
                           const void *blob, size_t len, struct error *e)
{
    QUERY q = {.st = NULL};
    enum code code =
        query_open(&q, tx->c, "seal an admin key anew",
                   "UPDATE org SET admin_blob = ? WHERE id = ?"
                   " AND admin_blob IS ?",
                   e);
    if (code)
        return code;
    query_blob(&q, blob, len);
    query_int(&q, was->id);
    query_blob(&q, was->admin_blob, was->admin_blob_len);
    code = query_run(&q, e);
    if (code == OK && query_changes(&q) == 0)
        return error_set(e, ERR_EXISTS,
                         "organisation %s has another admin key by now",
                         was->name);
    return code;
}
