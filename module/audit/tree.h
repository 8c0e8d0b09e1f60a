/* tree - the hashes of a copy in tiles, for proofs. */
#ifndef HSMINT_AUDIT_TREE_H
#define HSMINT_AUDIT_TREE_H

#include "common/merkle.h"
#include "module/audit/tile.h"

struct tree {
    const char *dir; /* borrowed */
    uint64_t size;   /* of the checkpoint whose tiles there are */
    bool held;       /* the tile that was read last */
    int level;
    uint64_t tile;
    unsigned n;
    struct merkle_hash hashes[TILE_WIDTH];
};
/* Of any subtree that is whole within `size`: a merkle_read_fn, ctx a struct
 * tree. ERR_NOT_FOUND, ERR_SEAL: a tile is not there, or cut. Nothing is
 * verified: proofs are, by whoever gets them. */
MUST_CHECK enum code tree_read(void *ctx, unsigned level, uint64_t index,
                               struct merkle_hash *out, struct error *e);

#endif
