#include "config.h"

#include "module/store/state.h"

#include <stdlib.h>

enum code store_journal_put(struct store_tx *tx, const char *owner,
                            const char *request_id, const char *method,
                            const char *result, int64_t now_ms, struct error *e)
{
    QUERY q = {.st = NULL};
    enum code code = query_open(
        &q, tx->c, "journal request",
        "INSERT INTO journal(request_id, owner, method, result, created_ms)"
        " VALUES(?, ?, ?, ?, ?) ON CONFLICT(request_id, owner) DO UPDATE"
        " SET method = excluded.method, result = excluded.result",
        e);
    if (code)
        return code;
    query_text(&q, request_id);
    query_text(&q, owner);
    query_text(&q, method);
    query_text(&q, result);
    query_int(&q, now_ms);
    return query_run(&q, e);
}

enum code store_journal_get(struct store *s, const char *owner,
                            const char *request_id, char **method,
                            char **result, struct error *e)
{
    *method = NULL;
    *result = NULL;
    READER r = {.c = NULL};
    QUERY q = {.st = NULL};
    bool row = false;
    enum code code = reader_take(&r, s, e);
    if (code == OK)
        code = query_open(&q, r.c, "look into the journal",
                          "SELECT method, result FROM journal"
                          " WHERE request_id = ? AND owner = ?",
                          e);
    if (code)
        return code;
    query_text(&q, request_id);
    query_text(&q, owner);
    code = query_step(&q, &row, e);
    if (code)
        return code;
    if (!row)
        return error_set(e, ERR_NOT_FOUND, "request %s is not journaled",
                         request_id);
    code = query_dup_text(&q, 0, method, e);
    if (code == OK)
        code = query_dup_text(&q, 1, result, e);
    if (code) {
        free(*method);
        *method = NULL;
    }
    return code;
}

/* Rows are in order of time, so the search ends at the first that stays: the
 * cost grows with what goes. */
enum code store_journal_prune(struct store_tx *tx, int64_t before_ms,
                              struct error *e)
{
    QUERY q = {.st = NULL};
    enum code code = query_open(
        &q, tx->c, "prune the journal",
        "DELETE FROM journal WHERE seq < ifnull((SELECT seq FROM journal"
        " WHERE created_ms >= ? ORDER BY seq LIMIT 1), 9223372036854775807)",
        e);
    if (code)
        return code;
    query_int(&q, before_ms);
    return query_run(&q, e);
}
