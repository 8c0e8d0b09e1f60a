/* Who has the key of a lease that is reused: rows of a few applications each,
 * gone with the application or the lease. */
#include "config.h"

#include "module/store/state.h"

enum code store_holder_add(struct store_tx *tx, const char *lease,
                           const char *application, int64_t now_ms,
                           struct error *e)
{
    QUERY q = {.st = NULL};
    enum code code =
        query_open(&q, tx->c, "add a holder",
                   "INSERT INTO holder(lease, application, since_ms)"
                   " SELECT id, ?2, ?3 FROM lease WHERE id = ?1 AND state < 2"
                   " ON CONFLICT DO UPDATE SET since_ms = since_ms",
                   e);
    if (code)
        return code;
    query_text(&q, lease);
    query_text(&q, application);
    query_int(&q, now_ms);
    code = query_run(&q, e);
    if (code == OK && query_changes(&q) == 0)
        return error_set(e, ERR_NOT_FOUND, "lease %s ends", lease);
    return code;
}

enum code store_holder_drop(struct store_tx *tx, const char *lease,
                            const char *application, bool *was, int64_t *left,
                            struct error *e)
{
    *was = false;
    *left = 0;
    QUERY q = {.st = NULL};
    enum code code = query_open(
        &q, tx->c, "drop a holder",
        "DELETE FROM holder WHERE lease = ? AND application = ?", e);
    if (code)
        return code;
    query_text(&q, lease);
    query_text(&q, application);
    code = query_run(&q, e);
    if (code)
        return code;
    *was = query_changes(&q) > 0;
    QUERY n = {.st = NULL};
    bool row = false;
    code = query_open(&n, tx->c, "count holders",
                      "SELECT count(*) FROM holder WHERE lease = ?", e);
    if (code)
        return code;
    query_text(&n, lease);
    code = query_step(&n, &row, e);
    if (code == OK && row)
        *left = query_get_int(&n, 0);
    return code;
}

enum code store_holder_forget(struct store_tx *tx, const char *application,
                              struct error *e)
{
    QUERY q = {.st = NULL};
    enum code code = query_open(
        &q, tx->c, "forget a holder",
        "DELETE FROM holder INDEXED BY holder_application"
        " WHERE application = ?",
        e);
    if (code)
        return code;
    query_text(&q, application);
    return query_run(&q, e);
}

#define EACH_SQL                                                               \
    "SELECT h.application, l.owner FROM holder h INDEXED BY"                   \
    " holder_application JOIN lease l ON l.id = h.lease WHERE l.state < 3"

enum code store_holder_each(struct store *s, const char *application,
                            store_holder_fn fn, void *ctx, struct error *e)
{
    READER r = {.c = NULL};
    QUERY q = {.st = NULL};
    bool row = false;
    enum code code = reader_take(&r, s, e);
    if (code == OK)
        code = query_open(&q, r.c, "list holders",
                          application
                              ? EACH_SQL " AND h.application = ?"
                              : EACH_SQL " AND h.application > ''",
                          e);
    if (code)
        return code;
    if (application)
        query_text(&q, application);
    while ((code = query_step(&q, &row, e)) == OK && row) {
        code = fn(query_borrow_text(&q, 0), query_borrow_text(&q, 1), ctx, e);
        if (code)
            return code;
    }
    return code;
}
