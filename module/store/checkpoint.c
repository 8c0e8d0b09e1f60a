#include "config.h"

#include "module/store/state.h"

#include <stdlib.h>

void store_checkpoint_clear(struct store_checkpoint *k)
{
    free(k->note);
    *k = (struct store_checkpoint){.size = 0};
}

enum code store_checkpoint_put(struct store_tx *tx, uint64_t size,
                               const char *note, int64_t time_ms,
                               struct error *e)
{
    QUERY q = {.st = NULL};
    enum code code = query_open(&q, tx->c, "keep a checkpoint",
                                "INSERT OR REPLACE INTO"
                                " checkpoint(size, note, time_ms)"
                                " VALUES(?, ?, ?)",
                                e);
    if (code)
        return code;
    query_int(&q, (int64_t)size);
    query_text(&q, note);
    query_int(&q, time_ms);
    return query_run(&q, e);
}

enum code store_checkpoint_get(struct store *s, uint64_t size,
                               struct store_checkpoint *out, struct error *e)
{
    *out = (struct store_checkpoint){.size = 0};
    READER r = {.c = NULL};
    QUERY q = {.st = NULL};
    bool row = false;
    enum code code = reader_take(&r, s, e);
    if (code == OK)
        code = query_open(&q, r.c, "read a checkpoint",
                          "SELECT size, note, time_ms FROM checkpoint"
                          " WHERE size <= ? ORDER BY size DESC LIMIT 1",
                          e);
    if (code)
        return code;
    query_int(&q, size > INT64_MAX ? INT64_MAX : (int64_t)size);
    code = query_step(&q, &row, e);
    if (code == OK && !row)
        code = error_set(e, ERR_NOT_FOUND,
                         "the store has no checkpoint of so few records");
    if (code)
        return code;
    out->size = (uint64_t)query_get_int(&q, 0);
    out->time_ms = query_get_int(&q, 2);
    return query_dup_text(&q, 1, &out->note, e);
}

enum code store_checkpoint_each(struct store *s, uint64_t from, int limit,
                                store_checkpoint_fn fn, void *ctx,
                                struct error *e)
{
    READER r = {.c = NULL};
    QUERY q = {.st = NULL};
    bool row = false;
    enum code code = reader_take(&r, s, e);
    if (code == OK)
        code = query_open(&q, r.c, "read checkpoints",
                          "SELECT size, note, time_ms FROM checkpoint"
                          " WHERE size >= ? ORDER BY size LIMIT ?",
                          e);
    if (code)
        return code;
    query_int(&q, from > INT64_MAX ? INT64_MAX : (int64_t)from);
    query_int(&q, limit > 0 ? limit : -1);
    while ((code = query_step(&q, &row, e)) == OK && row) {
        const struct store_checkpoint k = {
            .size = (uint64_t)query_get_int(&q, 0),
            .note = query_borrow_text(&q, 1),
            .time_ms = query_get_int(&q, 2)};
        code = fn(&k, ctx, e);
        if (code)
            return code;
    }
    return code;
}
