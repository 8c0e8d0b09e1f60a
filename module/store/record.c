#include "config.h"

#include "module/store/state.h"

#include <string.h>

/* The first is 1. A row id is one more than the last, and one that was undone
 * is given again: no gaps. */
enum code store_record_add(struct store_tx *tx, const char *line,
                           int64_t *sequence, struct error *e)
{
    if (strnlen(line, STORE_RECORD_MAX + 1) > STORE_RECORD_MAX)
        return error_set(e, ERR_INVALID,
                         "an audit record is longer than %d bytes",
                         STORE_RECORD_MAX);
    QUERY q = {.st = NULL};
    enum code code = query_open(&q, tx->c, "add audit record",
                                "INSERT INTO record(line) VALUES(?)", e);
    if (code)
        return code;
    query_text(&q, line);
    code = query_run(&q, e);
    if (code == OK)
        *sequence = sqlite3_last_insert_rowid(tx->c->db);
    return code;
}

enum code store_record_each(struct store *s, int64_t from, int limit,
                            store_record_fn fn, void *ctx, struct error *e)
{
    READER r = {.c = NULL};
    QUERY q = {.st = NULL};
    enum code code = reader_take(&r, s, e);
    if (code == OK)
        code = query_open(&q, r.c, "read audit records",
                          "SELECT sequence, line FROM record"
                          " WHERE sequence >= ? ORDER BY sequence LIMIT ?",
                          e);
    if (code)
        return code;
    query_int(&q, from);
    query_int(&q, limit > 0 ? limit : -1);
    bool row = false;
    while (code == OK) {
        code = query_step(&q, &row, e);
        if (code || !row)
            break;
        code = fn(query_get_int(&q, 0), query_borrow_text(&q, 1), ctx, e);
    }
    return code;
}
