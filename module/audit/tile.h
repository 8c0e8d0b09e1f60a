/* tile - where hashes and records of a log lie in files: c2sp.org/tlog-tiles.
 *
 * A tile has up to 256 entries; one that has fewer is partial, and its width
 * is in its name. Level 0 holds leaf hashes, level L+1 the roots of level L's
 * whole tiles; entries are the records themselves.
 */
#ifndef HSMINT_AUDIT_TILE_H
#define HSMINT_AUDIT_TILE_H

#include "common/merkle.h"

#include <stdint.h>

#define TILE_WIDTH 256
#define TILE_BITS 8
#define TILE_LEVELS 8            /* 256^8 leaves are beyond any tree */
#define TILE_ENTRIES (-1)        /* as a level: records */
#define TILE_PATH_MAX 96
#define TILE_ENTRY_MAX 65535     /* bytes of a record */

/* "tile/0/x001/x234/067", "tile/entries/000.p/17"; width 256 is a whole one.
 * Returns path. */
char *tile_path(int level, uint64_t index, unsigned width,
                char path[TILE_PATH_MAX]);
/* How many entries tile `index` of `level` has in a log of `size` records. */
unsigned tile_width(int level, uint64_t index, uint64_t size);

/* A hash tile below `dir`: exactly `width` hashes. ERR_NOT_FOUND; ERR_SEAL:
 * its length is another; ERR_IO. */
MUST_CHECK enum code tile_read(const char *dir, int level, uint64_t index,
                               unsigned width,
                               struct merkle_hash hashes[TILE_WIDTH],
                               struct error *e);
/* By a rename, with the folders that it needs. */
MUST_CHECK enum code tile_write(const char *dir, int level, uint64_t index,
                                unsigned width, const void *bytes, size_t len,
                                struct error *e);
/* The root over the hashes of a tile. n: 1 to 256. */
MUST_CHECK enum code tile_root(const struct merkle_hash *hashes, unsigned n,
                               struct merkle_hash *root, struct error *e);

#endif
