/* export - see export.h. */
#include "config.h"

#include "module/audit/export.h"

#include "common/file.h"
#include "module/audit/tile.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>

struct level {
    uint64_t tile;
    unsigned n;
    struct merkle_hash hashes[TILE_WIDTH];
};

struct export {
    char *dir;
    int lock;
    struct merkle tree;
    struct level levels[TILE_LEVELS];
    uint8_t *entries; /* of the present tile */
    size_t entries_len, entries_cap;
};

void export_free(struct export *x)
{
    if (!x)
        return;
    fd_closep(&x->lock);
    free(x->dir);
    free(x->entries);
    free(x);
}

void export_freep(struct export **x)
{
    export_free(*x);
}

uint64_t export_size(const struct export *x)
{
    return x->tree.size;
}

/* ---- going on ---- */

static enum code read_checkpoint(const struct export *x, struct checkpoint *c,
                                 struct error *e)
{
    FREE char *path = NULL;
    FREE char *bytes = NULL;
    struct note n;
    size_t len;
    if (asprintf(&path, "%s/checkpoint", x->dir) < 0) {
        path = NULL;
        return error_set(e, ERR_NOMEM, "path of a checkpoint");
    }
    enum code rc = file_read(path, NOTE_MAX, FILE_ANY, &bytes, &len, e);
    if (rc == OK)
        rc = note_parse(&n, bytes, len, e);
    return rc ? rc : checkpoint_parse(c, n.text, n.text_len, e);
}

static enum code read_entries(struct export *x, uint64_t size, struct error *e)
{
    char name[TILE_PATH_MAX];
    uint64_t tile = size / TILE_WIDTH;
    unsigned width = tile_width(TILE_ENTRIES, tile, size);
    FREE char *path = NULL;
    FREE char *bytes = NULL;
    size_t len;
    if (width == 0)
        return OK;
    tile_path(TILE_ENTRIES, tile, width, name);
    if (asprintf(&path, "%s/%s", x->dir, name) < 0) {
        path = NULL;
        return error_set(e, ERR_NOMEM, "path of a tile");
    }
    enum code rc = file_read(path, TILE_WIDTH * (size_t)(TILE_ENTRY_MAX + 2),
                             FILE_ANY, &bytes, &len, e);
    if (rc)
        return rc;
    x->entries = (uint8_t *)bytes;
    bytes = NULL;
    x->entries_len = x->entries_cap = len;
    return OK;
}

static enum code read_level(struct export *x, int level, uint64_t size,
                            struct error *e)
{
    struct level *l = &x->levels[level];
    l->tile = (size >> (TILE_BITS * level)) / TILE_WIDTH;
    l->n = tile_width(level, l->tile, size);
    return l->n ? tile_read(x->dir, level, l->tile, l->n, l->hashes, e) : OK;
}

/* Perfect subtrees of the right edge, from what the partial tiles hold. */
static enum code read_hash(void *ctx, unsigned level, uint64_t index,
                           struct merkle_hash *out, struct error *e)
{
    const struct export *x = ctx;
    const struct level *l = &x->levels[level / TILE_BITS];
    unsigned span = 1u << (level % TILE_BITS);
    uint64_t first = index * span - l->tile * TILE_WIDTH;
    if (first + span > l->n)
        return error_set(e, ERR_INTERNAL, "a hash that no tile holds");
    return tile_root(&l->hashes[first], span, out, e);
}

static enum code resume(struct export *x, struct error *e)
{
    struct checkpoint c;
    struct merkle_hash root;
    enum code rc = read_checkpoint(x, &c, e);
    if (rc == ERR_NOT_FOUND) {
        error_clear(e);
        return OK;
    }
    for (int level = 0; level < TILE_LEVELS && rc == OK; level++)
        rc = read_level(x, level, c.size, e);
    if (rc == OK)
        rc = read_entries(x, c.size, e);
    if (rc == OK)
        rc = merkle_load(&x->tree, c.size, read_hash, x, e);
    if (rc == OK)
        rc = merkle_root(&x->tree, &root, e);
    if (rc)
        return error_prefix(e, "%s cannot be gone on with", x->dir);
    return merkle_equal(&root, &c.root)
               ? OK
               : error_set(e, ERR_SEAL,
                           "%s: its tiles are not those of its checkpoint: "
                           "export into another directory",
                           x->dir);
}

/* Of the directory itself: a copy has no files that are not the format's. Where
 * a file system has no locks, there are none. */
enum code export_lock(const char *dir, int *fd, struct error *e)
{
    *fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (*fd < 0)
        return error_errno(e, errno, "cannot open %s", dir);
    if (flock(*fd, LOCK_EX | LOCK_NB) == 0 || errno != EWOULDBLOCK)
        return OK;
    fd_closep(fd);
    *fd = -1;
    return error_set(e, ERR_BUSY, "%s is being written by somebody else", dir);
}

enum code export_open(struct export **out, const char *dir, struct error *e)
{
    CLEANUP(export_freep) struct export *x = calloc(1, sizeof *x);
    if (!x)
        return error_set(e, ERR_NOMEM, "export to %s", dir);
    x->lock = -1;
    x->dir = strdup(dir);
    if (!x->dir)
        return error_set(e, ERR_NOMEM, "export to %s", dir);
    enum code rc = file_make_dir(dir, 0755, e);
    if (rc == OK)
        rc = export_lock(dir, &x->lock, e);
    if (rc == OK)
        rc = resume(x, e);
    if (rc)
        return rc;
    *out = x;
    x = NULL;
    return OK;
}

/* ---- adding ---- */

static enum code write_level(struct export *x, int level, struct error *e)
{
    const struct level *l = &x->levels[level];
    return tile_write(x->dir, level, l->tile, l->n, l->hashes,
                      l->n * sizeof l->hashes[0], e);
}

static enum code write_entries(struct export *x, struct error *e)
{
    const struct level *l = &x->levels[0];
    return tile_write(x->dir, TILE_ENTRIES, l->tile, l->n, x->entries,
                      x->entries_len, e);
}

static enum code add_hash(struct export *x, int level,
                          const struct merkle_hash *h, struct error *e)
{
    struct level *l = &x->levels[level];
    struct merkle_hash root;
    l->hashes[l->n++] = *h;
    if (l->n < TILE_WIDTH || level + 1 == TILE_LEVELS)
        return OK;
    enum code rc = write_level(x, level, e);
    if (rc == OK && level == 0)
        rc = write_entries(x, e);
    if (rc == OK)
        rc = tile_root(l->hashes, TILE_WIDTH, &root, e);
    if (rc)
        return rc;
    if (level == 0)
        x->entries_len = 0;
    l->n = 0;
    l->tile++;
    return add_hash(x, level + 1, &root, e);
}

static enum code add_entry(struct export *x, const char *line, size_t len,
                           struct error *e)
{
    if (len > TILE_ENTRY_MAX)
        return error_set(e, ERR_INVALID, "a record of %zu bytes", len);
    if (x->entries_cap - x->entries_len < len + 2) {
        size_t cap = 2 * (x->entries_cap + len + 2);
        uint8_t *more = realloc(x->entries, cap);
        if (!more)
            return error_set(e, ERR_NOMEM, "tile of records");
        x->entries = more;
        x->entries_cap = cap;
    }
    uint8_t *at = x->entries + x->entries_len;
    at[0] = (uint8_t)(len >> 8);
    at[1] = (uint8_t)len;
    memcpy(at + 2, line, len);
    x->entries_len += len + 2;
    return OK;
}

enum code export_add(struct export *x, const char *line, size_t len,
                     struct error *e)
{
    struct merkle_hash leaf;
    enum code rc = add_entry(x, line, len, e);
    if (rc == OK)
        rc = merkle_leaf(line, len, &leaf, e);
    if (rc == OK)
        rc = merkle_append(&x->tree, &leaf, e);
    return rc ? rc : add_hash(x, 0, &leaf, e);
}

/* ---- the end ---- */

static enum code check(const struct export *x, const char *bytes, size_t len,
                       struct error *e)
{
    struct note n;
    struct checkpoint c;
    struct merkle_hash root;
    enum code rc = note_parse(&n, bytes, len, e);
    if (rc == OK)
        rc = checkpoint_parse(&c, n.text, n.text_len, e);
    if (rc == OK)
        rc = merkle_root(&x->tree, &root, e);
    if (rc)
        return rc;
    return c.size == x->tree.size && merkle_equal(&root, &c.root)
               ? OK
               : error_set(e, ERR_SEAL,
                           "the checkpoint is not of these records: the log "
                           "was changed, or was read while it grew");
}

enum code export_keep_note(const char *dir, uint64_t size, const char *note,
                           size_t len, struct error *e)
{
    FREE char *folder = NULL;
    FREE char *path = NULL;
    if (asprintf(&folder, "%s/checkpoints", dir) < 0) {
        folder = NULL;
        return error_set(e, ERR_NOMEM, "path of a checkpoint");
    }
    enum code rc = file_make_dir(folder, 0755, e);
    if (rc)
        return rc;
    if (asprintf(&path, "%s/%llu", folder, (unsigned long long)size) < 0) {
        path = NULL;
        return error_set(e, ERR_NOMEM, "path of a checkpoint");
    }
    return file_write_atomic(path, note, len, 0644, e);
}

enum code export_finish(struct export *x, const char *note, size_t len,
                        struct error *e)
{
    FREE char *path = NULL;
    enum code rc = check(x, note, len, e);
    for (int level = 0; level < TILE_LEVELS && rc == OK; level++)
        if (x->levels[level].n)
            rc = write_level(x, level, e);
    if (rc == OK && x->levels[0].n)
        rc = write_entries(x, e);
    if (rc)
        return rc;
    rc = export_keep_note(x->dir, x->tree.size, note, len, e);
    if (rc)
        return rc;
    if (asprintf(&path, "%s/checkpoint", x->dir) < 0) {
        path = NULL;
        return error_set(e, ERR_NOMEM, "path of a checkpoint");
    }
    return file_write_atomic(path, note, len, 0644, e);
}
