/* The log's tree: leaf hashes stand with the records, and the root of each
 * whole subtree of 256, 65 536 … leaves in a table of its own, written with
 * the record that completes it. What is between is computed: at most 128
 * hashes are read for one. */
#include "config.h"

#include "module/store/state.h"

#include <string.h>

#define TILE_BITS 8

enum code tree_get_hash(const struct query *q, int column,
                        struct merkle_hash *out, struct error *e)
{
    size_t len = 0;
    const void *bytes = query_borrow_blob(q, column, &len);
    if (!bytes || len != MERKLE_HASH)
        return error_set(e, ERR_IO,
                         "store %s: a hash of the audit log is damaged: put "
                         "back a backup",
                         q->c->path);
    memcpy(out->bytes, bytes, MERKLE_HASH);
    return OK;
}

/* ---- reading a range of one stored level ---- */

/* Level 0: leaves; else 256^level of them a hash. */
static enum code open_range(struct query *q, struct conn *c, unsigned level,
                            uint64_t from, uint64_t n, struct error *e)
{
    enum code code =
        level ? query_open(q, c, "read the log's tree",
                           "SELECT idx, hash FROM node WHERE level = ?"
                           " AND idx >= ? AND idx < ? ORDER BY idx",
                           e)
              : query_open(q, c, "read the log's tree",
                           "SELECT sequence - 1, leaf FROM record"
                           " WHERE sequence > ? AND sequence <= ?"
                           " ORDER BY sequence",
                           e);
    if (code)
        return code;
    if (level)
        query_int(q, level);
    query_int(q, (int64_t)from);
    query_int(q, (int64_t)(from + n));
    return OK;
}

/* *got: without a gap from the first on. */
static enum code read_range(struct conn *c, unsigned level, uint64_t from,
                            uint64_t n, struct merkle_hash *out, uint64_t *got,
                            struct error *e)
{
    QUERY q = {.st = NULL};
    enum code code = open_range(&q, c, level, from, n, e);
    for (*got = 0; code == OK && *got < n; ++*got) {
        bool row = false;
        code = query_step(&q, &row, e);
        if (code || !row || (uint64_t)query_get_int(&q, 0) != from + *got)
            break;
        code = tree_get_hash(&q, 1, &out[*got], e);
    }
    return code;
}

/* The root of 2^bits hashes of a stored level, from `from` on. */
static enum code root_of(struct conn *c, unsigned level, uint64_t from,
                         unsigned bits, struct merkle_hash *out,
                         struct error *e)
{
    struct merkle_hash hashes[1 << TILE_BITS];
    struct merkle part = {.size = 0};
    uint64_t n = (uint64_t)1 << bits, got;
    enum code code = read_range(c, level, from, n, hashes, &got, e);
    if (code == OK && got < n)
        code = error_set(e, ERR_NOT_FOUND,
                         "the store has no record %llu: it was pruned, or is "
                         "not written yet",
                         (unsigned long long)((from + got)
                                              << (level * TILE_BITS)) +
                             1);
    for (uint64_t i = 0; i < n && code == OK; i++)
        code = merkle_append(&part, &hashes[i], e);
    if (code == OK)
        *out = part.full[bits];
    return code;
}

/* ---- writing ---- */

static enum code put_node(struct conn *c, unsigned level, uint64_t idx,
                          const struct merkle_hash *hash, struct error *e)
{
    QUERY q = {.st = NULL};
    enum code code =
        query_open(&q, c, "add to the log's tree",
                   "INSERT INTO node(level, idx, hash) VALUES(?, ?, ?)", e);
    if (code)
        return code;
    query_int(&q, level);
    query_int(&q, (int64_t)idx);
    query_blob(&q, hash->bytes, MERKLE_HASH);
    return query_run(&q, e);
}

enum code tree_complete(struct conn *c, uint64_t size, struct error *e)
{
    enum code code = OK;
    for (unsigned level = 1; size % STORE_TILE == 0 && code == OK; level++) {
        struct merkle_hash root;
        size /= STORE_TILE;
        code = root_of(c, level - 1, (size - 1) * STORE_TILE, TILE_BITS, &root,
                       e);
        if (code == OK)
            code = put_node(c, level, size - 1, &root, e);
    }
    return code;
}

/* ---- the store's interface ---- */

enum code store_tree_read(void *ctx, unsigned level, uint64_t index,
                          struct merkle_hash *out, struct error *e)
{
    READER r = {.c = NULL};
    enum code code = reader_take(&r, ctx, e);
    if (code)
        return code;
    unsigned bits = level % TILE_BITS;
    return root_of(r.c, level / TILE_BITS, index << bits, bits, out, e);
}

enum code store_tree_leaves(struct store *s, uint64_t from,
                            struct merkle_hash *out, size_t n, size_t *got,
                            struct error *e)
{
    READER r = {.c = NULL};
    uint64_t there = 0;
    struct store_head head;
    *got = 0;
    enum code code = store_log_head(s, &head, e);
    if (code == OK)
        code = reader_take(&r, s, e);
    if (code == OK)
        code = read_range(r.c, 0, from, n, out, &there, e);
    if (code == OK && n > 0 && there == 0 && from < head.size)
        code = error_set(e, ERR_NOT_FOUND, "record %llu was pruned",
                         (unsigned long long)from + 1);
    *got = (size_t)there;
    return code;
}
