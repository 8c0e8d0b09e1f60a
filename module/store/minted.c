/* Which lease a minted key belongs to, by the key's keyed hash. Rows are in the
 * order of the log, so that a mint adds to the end of a page that it has open
 * anyway. */
#include "config.h"

#include "module/store/state.h"

#include <stdio.h>

enum code store_key_put(struct store_tx *tx, const uint8_t hmac[STORE_KEY_HMAC],
                        const char *lease, struct error *e)
{
    struct store_head head;
    QUERY q = {.st = NULL};
    enum code code = store_record_head(tx, &head, e);
    if (code == OK)
        code = query_open(&q, tx->c, "note a key's hash",
                          "INSERT INTO minted(record, hmac, lease)"
                          " VALUES(?, ?, ?)",
                          e);
    if (code)
        return code;
    query_int(&q, (int64_t)head.size);
    query_blob(&q, hmac, STORE_KEY_HMAC);
    query_text(&q, lease);
    return query_run(&q, e);
}

enum code store_key_find(struct store *s, const uint8_t hmac[STORE_KEY_HMAC],
                         struct store_key *out, struct error *e)
{
    READER r = {.c = NULL};
    QUERY q = {.st = NULL};
    bool row = false;
    enum code code = reader_take(&r, s, e);
    if (code == OK)
        code = query_open(&q, r.c, "find a key by its hash",
                          "SELECT record, lease FROM minted WHERE hmac = ?"
                          " ORDER BY record DESC LIMIT 1",
                          e);
    if (code)
        return code;
    query_blob(&q, hmac, STORE_KEY_HMAC);
    code = query_step(&q, &row, e);
    if (code)
        return code;
    if (!row)
        return error_set(e, ERR_NOT_FOUND, "no key that was minted here");
    out->record = query_get_int(&q, 0);
    (void)snprintf(out->lease, sizeof(out->lease), "%s",
                   query_borrow_text(&q, 1));
    return OK;
}
