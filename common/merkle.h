/* merkle - the tree over the log's records: RFC 6962 §2.1, SHA-256.
 *
 * Leaf 0 is the first record. Hashes of perfect subtrees have a level (0: a
 * leaf, 8: 256 leaves) and an index at that level; a reader of them is all
 * that proofs need. Nothing here is secret.
 */
#ifndef HSMINT_MERKLE_H
#define HSMINT_MERKLE_H

#include "common/error.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define MERKLE_HASH 32
#define MERKLE_LEVELS 63 /* a tree has fewer than 2^63 leaves */
/* A proof's hashes: two a level at most (RFC 9162 §2.1.4). */
#define MERKLE_PROOF_MAX (2 * MERKLE_LEVELS)

struct merkle_hash {
    uint8_t bytes[MERKLE_HASH];
};
bool merkle_equal(const struct merkle_hash *a, const struct merkle_hash *b);

/* H(0x00 ‖ record), H(0x01 ‖ left ‖ right). ERR_NOMEM of libcrypto. */
MUST_CHECK enum code merkle_leaf(const void *record, size_t len,
                                 struct merkle_hash *out, struct error *e);
MUST_CHECK enum code merkle_node(const struct merkle_hash *left,
                                 const struct merkle_hash *right,
                                 struct merkle_hash *out, struct error *e);

/* A tree that only grows: the root of the perfect subtree of 2^k leaves is in
 * full[k] while bit k of size is set. All zero: the empty tree. */
struct merkle {
    uint64_t size;
    struct merkle_hash full[MERKLE_LEVELS];
};
MUST_CHECK enum code merkle_append(struct merkle *m,
                                   const struct merkle_hash *leaf,
                                   struct error *e);
/* Of the empty tree: H(). */
MUST_CHECK enum code merkle_root(const struct merkle *m,
                                 struct merkle_hash *root, struct error *e);

/* Gives the root of the perfect subtree `index` of `level`. */
typedef enum code (*merkle_read_fn)(void *ctx, unsigned level, uint64_t index,
                                    struct merkle_hash *out, struct error *e);
/* The tree of the first `size` leaves. */
MUST_CHECK enum code merkle_load(struct merkle *m, uint64_t size,
                                 merkle_read_fn read, void *ctx,
                                 struct error *e);

struct merkle_proof {
    size_t n;
    struct merkle_hash hashes[MERKLE_PROOF_MAX];
};
/* That leaf `index` is in the tree of `size` leaves: index < size. */
MUST_CHECK enum code merkle_prove_inclusion(struct merkle_proof *p,
                                            uint64_t index, uint64_t size,
                                            merkle_read_fn read, void *ctx,
                                            struct error *e);
/* That the tree of `to` leaves begins with that of `from`: from <= to. Empty
 * for from 0 and from == to. */
MUST_CHECK enum code merkle_prove_consistency(struct merkle_proof *p,
                                              uint64_t from, uint64_t to,
                                              merkle_read_fn read, void *ctx,
                                              struct error *e);
/* ERR_SEAL: the proof does not fit. RFC 9162 §2.1.3.2 and §2.1.4.2. */
MUST_CHECK enum code merkle_check_inclusion(const struct merkle_proof *p,
                                            uint64_t index, uint64_t size,
                                            const struct merkle_hash *leaf,
                                            const struct merkle_hash *root,
                                            struct error *e);
MUST_CHECK enum code merkle_check_consistency(const struct merkle_proof *p,
                                              uint64_t from, uint64_t to,
                                              const struct merkle_hash *old,
                                              const struct merkle_hash *root,
                                              struct error *e);

#endif
