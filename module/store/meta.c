#include "config.h"

#include "module/store/state.h"

enum code store_meta_put(struct store_tx *tx, const char *key,
                         const void *value, size_t len, struct error *e)
{
    QUERY q = {.st = NULL};
    enum code code = query_open(&q, tx->c, "put meta value",
                                "INSERT OR REPLACE INTO meta(key, value)"
                                " VALUES(?, ?)",
                                e);
    if (code)
        return code;
    query_text(&q, key);
    query_blob(&q, value ? value : "", len);
    return query_run(&q, e);
}

static enum code get(struct conn *c, const char *key, void **value,
                     size_t *len, struct error *e)
{
    QUERY q = {.st = NULL};
    bool row = false;
    enum code code = query_open(&q, c, "get meta value",
                                "SELECT value FROM meta WHERE key = ?", e);
    if (code)
        return code;
    query_text(&q, key);
    code = query_step(&q, &row, e);
    if (code)
        return code;
    if (!row)
        return error_set(e, ERR_NOT_FOUND, "the store has no \"%s\"", key);
    return query_dup_blob(&q, 0, value, len, e);
}

enum code store_meta_get(struct store *s, const char *key, void **value,
                         size_t *len, struct error *e)
{
    *value = NULL;
    *len = 0;
    READER r = {.c = NULL};
    enum code code = reader_take(&r, s, e);
    return code ? code : get(r.c, key, value, len, e);
}

enum code store_tx_meta_get(struct store_tx *tx, const char *key, void **value,
                            size_t *len, struct error *e)
{
    *value = NULL;
    *len = 0;
    return get(tx->c, key, value, len, e);
}
