/* The audit log's lines. Each is numbered and hashed as it is added, in the
 * transaction of what it records: what is undone leaves no gap. */
#include "config.h"

#include "module/store/state.h"

#include "common/file.h"

#include <openssl/evp.h>
#include <string.h>

/* ---- the last one ---- */

static enum code read_head(struct conn *c, struct store_head *head,
                           struct error *e)
{
    *head = (struct store_head){.size = 0};
    QUERY q = {.st = NULL};
    bool row = false;
    enum code code = query_open(&q, c, "read the log's last record",
                                "SELECT sequence, leaf FROM record"
                                " ORDER BY sequence DESC LIMIT 1",
                                e);
    if (code == OK)
        code = query_step(&q, &row, e);
    if (code || !row)
        return code;
    head->size = (uint64_t)query_get_int(&q, 0);
    return tree_get_hash(&q, 1, &head->last, e);
}

enum code store_record_head(struct store_tx *tx, struct store_head *head,
                            struct error *e)
{
    enum code code = tx->has_head ? OK : read_head(tx->c, &tx->head, e);
    tx->has_head = code == OK;
    if (code == OK)
        *head = tx->head;
    return code;
}

enum code store_log_head(struct store *s, struct store_head *head,
                         struct error *e)
{
    READER r = {.c = NULL};
    enum code code = reader_take(&r, s, e);
    return code ? code : read_head(r.c, head, e);
}

/* ---- adding ---- */

static enum code insert(struct conn *c, uint64_t sequence,
                        const struct merkle_hash *leaf, const char *line,
                        struct error *e)
{
    QUERY q = {.st = NULL};
    enum code code =
        query_open(&q, c, "add audit record",
                   "INSERT INTO record(sequence, leaf, line) VALUES(?, ?, ?)",
                   e);
    if (code)
        return code;
    query_int(&q, (int64_t)sequence);
    query_blob(&q, leaf->bytes, MERKLE_HASH);
    query_text(&q, line);
    return query_run(&q, e);
}

enum code store_record_add(struct store_tx *tx, const char *line,
                           int64_t *sequence, struct error *e)
{
    size_t len = strnlen(line, STORE_RECORD_MAX + 1);
    struct store_head head;
    struct merkle_hash leaf;
    if (len > STORE_RECORD_MAX)
        return error_set(e, ERR_INVALID,
                         "an audit record is longer than %d bytes",
                         STORE_RECORD_MAX);
    enum code code = merkle_leaf(line, len, &leaf, e);
    if (code == OK)
        code = store_record_head(tx, &head, e);
    if (code)
        return code;
    tx->has_head = false; /* not known while it grows */
    code = insert(tx->c, head.size + 1, &leaf, line, e);
    if (code == OK)
        code = tree_complete(tx->c, head.size + 1, e);
    if (code)
        return code;
    tx->head = (struct store_head){.size = head.size + 1, .last = leaf};
    tx->has_head = true;
    *sequence = (int64_t)tx->head.size;
    return OK;
}

/* ---- reading ---- */

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

/* ---- what goes ---- */

static enum code first_record(struct conn *c, uint64_t *sequence,
                              struct error *e)
{
    QUERY q = {.st = NULL};
    bool row = false;
    enum code code =
        query_open(&q, c, "read the log's first record",
                   "SELECT sequence FROM record ORDER BY sequence LIMIT 1", e);
    if (code == OK)
        code = query_step(&q, &row, e);
    *sequence = code == OK && row ? (uint64_t)query_get_int(&q, 0) : 1;
    return code;
}

/* Those of trees that cannot be loaded any more. */
static enum code prune_checkpoints(struct conn *c, uint64_t before,
                                   struct error *e)
{
    QUERY q = {.st = NULL};
    enum code code = query_open(&q, c, "prune checkpoints",
                                "DELETE FROM checkpoint WHERE size < ?", e);
    if (code)
        return code;
    query_int(&q, (int64_t)before);
    return query_run(&q, e);
}

enum code store_record_prune(struct store_tx *tx, uint64_t before, int tiles,
                             uint64_t *pruned, struct error *e)
{
    struct store_head head;
    uint64_t first;
    *pruned = 0;
    enum code code = read_head(tx->c, &head, e);
    if (code == OK)
        code = first_record(tx->c, &first, e);
    if (code || head.size == 0)
        return code;
    uint64_t from = (first - 1) / STORE_TILE; /* tiles, from 0 */
    uint64_t to = before / STORE_TILE;
    if (to > (head.size - 1) / STORE_TILE)
        to = (head.size - 1) / STORE_TILE;
    if (to > from && to - from > (uint64_t)tiles)
        to = from + (uint64_t)tiles;
    if (to <= from)
        return OK;
    QUERY q = {.st = NULL};
    code = query_open(&q, tx->c, "prune audit records",
                      "DELETE FROM record WHERE sequence <= ?", e);
    if (code)
        return code;
    query_int(&q, (int64_t)(to * STORE_TILE));
    code = query_run(&q, e);
    if (code)
        return code;
    *pruned = (uint64_t)query_changes(&q);
    return prune_checkpoints(tx->c, to * STORE_TILE, e);
}

/* ---- version 1 ---- */

static void digest_freep(EVP_MD_CTX **ctx)
{
    EVP_MD_CTX_free(*ctx);
}

static enum code digest_failed(struct error *e)
{
    return error_set(e, ERR_NOMEM, "SHA-256 of the old audit records");
}

enum code store_old_records(struct store *s, int64_t *count,
                            uint8_t sha256[32], struct error *e)
{
    READER r = {.c = NULL};
    QUERY q = {.st = NULL};
    *count = 0;
    enum code code = reader_take(&r, s, e);
    if (code == OK)
        code = query_open(&q, r.c, "read old audit records",
                          "SELECT line FROM record_v1 ORDER BY sequence", e);
    if (code)
        return code;
    CLEANUP(digest_freep) EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    if (!ctx || EVP_DigestInit_ex(ctx, EVP_sha256(), NULL) != 1)
        return digest_failed(e);
    for (;; ++*count) {
        bool row = false;
        code = query_step(&q, &row, e);
        if (code)
            return code;
        if (!row)
            break;
        const char *line = query_borrow_text(&q, 0);
        if (EVP_DigestUpdate(ctx, line, strlen(line)) != 1 ||
            EVP_DigestUpdate(ctx, "\n", 1) != 1)
            return digest_failed(e);
    }
    return EVP_DigestFinal_ex(ctx, sha256, NULL) == 1 ? OK : digest_failed(e);
}
