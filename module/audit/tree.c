/* tree - see tree.h. */
#include "config.h"

#include "module/audit/tree.h"

static enum code hold(struct tree *t, int level, uint64_t tile,
                      struct error *e)
{
    if (t->held && t->level == level && t->tile == tile)
        return OK;
    t->held = false;
    t->n = tile_width(level, tile, t->size);
    enum code rc = tile_read(t->dir, level, tile, t->n, t->hashes, e);
    if (rc)
        return rc;
    t->held = true;
    t->level = level;
    t->tile = tile;
    return OK;
}

enum code tree_read(void *ctx, unsigned level, uint64_t index,
                    struct merkle_hash *out, struct error *e)
{
    struct tree *t = ctx;
    unsigned span = 1u << (level % TILE_BITS);
    uint64_t first = index * span; /* at the tile's level */
    unsigned at = (unsigned)(first % TILE_WIDTH);
    enum code rc = hold(t, (int)(level / TILE_BITS), first / TILE_WIDTH, e);
    if (rc)
        return rc;
    if (at + span > t->n)
        return error_set(e, ERR_INTERNAL, "a hash that no tile holds");
    return tile_root(&t->hashes[at], span, out, e);
}
