/* source - a copy of the log in files, read once in order: a directory of
 * tiles, or a file of lines with the checkpoint behind an empty one.
 *
 * Memory is bounded: one line, or one tile.
 */
#ifndef HSMINT_AUDIT_SOURCE_H
#define HSMINT_AUDIT_SOURCE_H

#include "common/merkle.h"

#include <stdbool.h>

struct source;

/* ERR_NOT_FOUND: neither a directory with a checkpoint nor a file; ERR_INVALID:
 * a device. A pipe of lines will do. */
MUST_CHECK enum code source_open(struct source **out, const char *path,
                                 struct error *e);
void source_free(struct source *s); /* takes NULL */
void source_freep(struct source **s);
bool source_has_tiles(const struct source *s);
const char *source_path(const struct source *s);

/* How many records there have to be; tells a directory which tiles are whole.
 * Set once its checkpoint was read, before the first record. */
void source_set_size(struct source *s, uint64_t size);

/* The next record, without its newline; good until the next call. *line NULL:
 * no more. ERR_INVALID: longer than a record may be (it was passed over);
 * ERR_SEAL: a tile is cut; ERR_NOT_FOUND: a tile is not there; ERR_IO. */
MUST_CHECK enum code source_next(struct source *s, const char **line,
                                 size_t *len, struct error *e);
/* Goes on with record `index` (0: the first), forward only. ERR_NOT_FOUND: there
 * are fewer; otherwise as source_next. */
MUST_CHECK enum code source_skip(struct source *s, uint64_t index,
                                 struct error *e);
/* What the tile of leaf hashes says of leaf `index`. ERR_NOT_FOUND, ERR_SEAL.
 */
MUST_CHECK enum code source_leaf(struct source *s, uint64_t index,
                                 struct merkle_hash *out, struct error *e);

/* The note of the last checkpoint: of a directory at any time, of a file after
 * the last record. NULL: there is none. */
const char *source_checkpoint(const struct source *s, size_t *len);
#endif
