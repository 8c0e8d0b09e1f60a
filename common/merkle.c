/* merkle - see merkle.h. */
#include "config.h"

#include "common/merkle.h"

#include <openssl/evp.h>
#include <string.h>

bool merkle_equal(const struct merkle_hash *a, const struct merkle_hash *b)
{
    return memcmp(a->bytes, b->bytes, MERKLE_HASH) == 0;
}

/* ---- hashes ---- */

static void ctx_freep(EVP_MD_CTX **ctx)
{
    EVP_MD_CTX_free(*ctx);
}

static enum code hash(uint8_t prefix, const void *a, size_t a_len,
                      const void *b, size_t b_len, struct merkle_hash *out,
                      struct error *e)
{
    CLEANUP(ctx_freep) EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    if (!ctx || EVP_DigestInit_ex(ctx, EVP_sha256(), NULL) != 1 ||
        EVP_DigestUpdate(ctx, &prefix, 1) != 1 ||
        EVP_DigestUpdate(ctx, a, a_len) != 1 ||
        EVP_DigestUpdate(ctx, b, b_len) != 1 ||
        EVP_DigestFinal_ex(ctx, out->bytes, NULL) != 1)
        return error_set(e, ERR_NOMEM, "SHA-256 of a record");
    return OK;
}

enum code merkle_leaf(const void *record, size_t len, struct merkle_hash *out,
                      struct error *e)
{
    return hash(0, record, len, NULL, 0, out, e);
}

enum code merkle_node(const struct merkle_hash *left,
                      const struct merkle_hash *right, struct merkle_hash *out,
                      struct error *e)
{
    return hash(1, left->bytes, MERKLE_HASH, right->bytes, MERKLE_HASH, out, e);
}

/* ---- the growing tree ---- */

static bool has(uint64_t size, unsigned level)
{
    return size >> level & 1;
}

enum code merkle_append(struct merkle *m, const struct merkle_hash *leaf,
                        struct error *e)
{
    struct merkle_hash h = *leaf;
    unsigned level = 0;
    if (m->size >= (uint64_t)1 << (MERKLE_LEVELS - 1))
        return error_set(e, ERR_LIMIT, "the log is full");
    for (; has(m->size, level); level++) {
        enum code rc = merkle_node(&m->full[level], &h, &h, e);
        if (rc)
            return rc;
    }
    m->full[level] = h;
    m->size++;
    return OK;
}

enum code merkle_root(const struct merkle *m, struct merkle_hash *root,
                      struct error *e)
{
    bool begun = false;
    if (m->size == 0 && EVP_Digest("", 0, root->bytes, NULL, EVP_sha256(),
                                   NULL) != 1)
        return error_set(e, ERR_NOMEM, "SHA-256 of an empty log");
    for (unsigned level = 0; level < MERKLE_LEVELS; level++) {
        if (!has(m->size, level))
            continue;
        enum code rc = OK;
        if (begun)
            rc = merkle_node(&m->full[level], root, root, e);
        else
            *root = m->full[level];
        if (rc)
            return rc;
        begun = true;
    }
    return OK;
}

enum code merkle_load(struct merkle *m, uint64_t size, merkle_read_fn read,
                      void *ctx, struct error *e)
{
    *m = (struct merkle){.size = size};
    if (size >= (uint64_t)1 << (MERKLE_LEVELS - 1))
        return error_set(e, ERR_INVALID, "no log has %llu records",
                         (unsigned long long)size);
    for (unsigned level = 0; level < MERKLE_LEVELS; level++) {
        /* It is the last whole one of its level that is not in a larger. */
        enum code rc =
            has(size, level)
                ? read(ctx, level, (size >> level) - 1, &m->full[level], e)
                : OK;
        if (rc)
            return rc;
    }
    return OK;
}

/* ---- making proofs ---- */

struct reader {
    merkle_read_fn read;
    void *ctx;
    struct merkle_proof *proof;
};

/* The largest power of two below n, for n > 1. */
static uint64_t split(uint64_t n)
{
    return (uint64_t)1 << (63 - __builtin_clzll(n - 1));
}

/* MTH(D[at : at+n]). A left part is perfect and at a multiple of its size, so
 * the depth is that of the right edge. */
static enum code range(const struct reader *r, uint64_t at, uint64_t n,
                       struct merkle_hash *out, struct error *e)
{
    if ((n & (n - 1)) == 0) {
        unsigned level = (unsigned)__builtin_ctzll(n);
        return r->read(r->ctx, level, at >> level, out, e);
    }
    uint64_t k = split(n);
    struct merkle_hash left, right;
    enum code rc = range(r, at, k, &left, e);
    if (rc == OK)
        rc = range(r, at + k, n - k, &right, e);
    return rc ? rc : merkle_node(&left, &right, out, e);
}

/* The path is built from the leaf up: what is met on the way down is put
 * behind what comes from below. */
static enum code add_range(const struct reader *r, uint64_t at, uint64_t n,
                           struct error *e)
{
    struct merkle_proof *p = r->proof;
    if (p->n == MERKLE_PROOF_MAX)
        return error_set(e, ERR_INTERNAL, "a proof is too long");
    return range(r, at, n, &p->hashes[p->n++], e);
}

static enum code path(const struct reader *r, uint64_t m, uint64_t at,
                      uint64_t n, struct error *e)
{
    if (n == 1)
        return OK;
    uint64_t k = split(n);
    bool left = m < k;
    enum code rc =
        left ? path(r, m, at, k, e) : path(r, m - k, at + k, n - k, e);
    if (rc)
        return rc;
    return left ? add_range(r, at + k, n - k, e) : add_range(r, at, k, e);
}

enum code merkle_prove_inclusion(struct merkle_proof *p, uint64_t index,
                                 uint64_t size, merkle_read_fn read, void *ctx,
                                 struct error *e)
{
    struct reader r = {read, ctx, p};
    p->n = 0;
    if (index >= size)
        return error_set(e, ERR_INVALID,
                         "record %llu is not among the first %llu",
                         (unsigned long long)index + 1,
                         (unsigned long long)size);
    return path(&r, index, 0, size, e);
}

static enum code subproof(const struct reader *r, uint64_t m, uint64_t at,
                          uint64_t n, bool known, struct error *e)
{
    if (m == n)
        return known ? OK : add_range(r, at, n, e);
    uint64_t k = split(n);
    bool left = m <= k;
    enum code rc = left ? subproof(r, m, at, k, known, e)
                        : subproof(r, m - k, at + k, n - k, false, e);
    if (rc)
        return rc;
    return left ? add_range(r, at + k, n - k, e) : add_range(r, at, k, e);
}

enum code merkle_prove_consistency(struct merkle_proof *p, uint64_t from,
                                   uint64_t to, merkle_read_fn read, void *ctx,
                                   struct error *e)
{
    struct reader r = {read, ctx, p};
    p->n = 0;
    if (from > to)
        return error_set(e, ERR_INVALID,
                         "a log of %llu records cannot begin with %llu",
                         (unsigned long long)to, (unsigned long long)from);
    return from == 0 || from == to ? OK : subproof(&r, from, 0, to, true, e);
}

/* ---- checking proofs ---- */

static enum code refuse(struct error *e, const char *why)
{
    return error_set(e, ERR_SEAL, "the proof does not hold: %s", why);
}

enum code merkle_check_inclusion(const struct merkle_proof *p, uint64_t index,
                                 uint64_t size, const struct merkle_hash *leaf,
                                 const struct merkle_hash *root,
                                 struct error *e)
{
    if (index >= size)
        return refuse(e, "the record is beyond the log's end");
    uint64_t fn = index, sn = size - 1;
    struct merkle_hash r = *leaf;
    for (size_t i = 0; i < p->n; i++) {
        if (sn == 0)
            return refuse(e, "it is too long");
        bool right = fn & 1 || fn == sn;
        enum code rc = right ? merkle_node(&p->hashes[i], &r, &r, e)
                             : merkle_node(&r, &p->hashes[i], &r, e);
        if (rc)
            return rc;
        while (right && !(fn & 1) && fn) {
            fn >>= 1;
            sn >>= 1;
        }
        fn >>= 1;
        sn >>= 1;
    }
    if (sn != 0)
        return refuse(e, "it is too short");
    return merkle_equal(&r, root) ? OK : refuse(e, "the roots differ");
}

/* RFC 9162 §2.1.4.2, steps 4 to 6: fr grows to the old root, sr to the new. */
static enum code climb(const struct merkle_proof *p, size_t i, uint64_t fn,
                       uint64_t sn, struct merkle_hash *fr,
                       struct merkle_hash *sr, struct error *e)
{
    for (; i < p->n; i++) {
        const struct merkle_hash *c = &p->hashes[i];
        enum code rc = OK;
        if (sn == 0)
            return refuse(e, "it is too long");
        bool both = fn & 1 || fn == sn;
        if (both)
            rc = merkle_node(c, fr, fr, e);
        if (rc == OK)
            rc = both ? merkle_node(c, sr, sr, e) : merkle_node(sr, c, sr, e);
        if (rc)
            return rc;
        while (both && !(fn & 1) && fn) {
            fn >>= 1;
            sn >>= 1;
        }
        fn >>= 1;
        sn >>= 1;
    }
    return sn == 0 ? OK : refuse(e, "it is too short");
}

enum code merkle_check_consistency(const struct merkle_proof *p, uint64_t from,
                                   uint64_t to, const struct merkle_hash *old,
                                   const struct merkle_hash *root,
                                   struct error *e)
{
    if (from > to)
        return refuse(e, "the log has become shorter");
    if (from == 0 || from == to) {
        if (p->n != 0)
            return refuse(e, "it is too long");
        return from == 0 || merkle_equal(old, root)
                   ? OK
                   : refuse(e, "the roots differ");
    }
    uint64_t fn = from - 1, sn = to - 1;
    for (; fn & 1; fn >>= 1)
        sn >>= 1;
    /* A whole left subtree is its own first hash. */
    bool whole = (from & (from - 1)) == 0;
    if (!whole && p->n == 0)
        return refuse(e, "it is too short");
    struct merkle_hash fr = whole ? *old : p->hashes[0], sr = fr;
    enum code rc = climb(p, whole ? 0 : 1, fn, sn, &fr, &sr, e);
    if (rc)
        return rc;
    return merkle_equal(&fr, old) && merkle_equal(&sr, root)
               ? OK
               : refuse(e, "the roots differ");
}
