/* tile - see tile.h. */
#include "config.h"

#include "module/audit/tile.h"

#include "common/file.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

char *tile_path(int level, uint64_t index, unsigned width,
                char path[TILE_PATH_MAX])
{
    int n = level == TILE_ENTRIES
                ? snprintf(path, TILE_PATH_MAX, "tile/entries")
                : snprintf(path, TILE_PATH_MAX, "tile/%d", level);
    uint64_t scale = 1;
    while (scale <= UINT64_MAX / 1000 && index / scale >= 1000)
        scale *= 1000;
    for (; scale > 1; scale /= 1000)
        n += snprintf(path + n, TILE_PATH_MAX - (size_t)n, "/x%03" PRIu64,
                      index / scale % 1000);
    n += snprintf(path + n, TILE_PATH_MAX - (size_t)n, "/%03" PRIu64,
                  index % 1000);
    if (width < TILE_WIDTH)
        snprintf(path + n, TILE_PATH_MAX - (size_t)n, ".p/%u", width);
    return path;
}

unsigned tile_width(int level, uint64_t index, uint64_t size)
{
    unsigned shift = level == TILE_ENTRIES ? 0 : TILE_BITS * (unsigned)level;
    uint64_t entries = shift < 64 ? size >> shift : 0;
    uint64_t before = index * TILE_WIDTH;
    if (entries <= before)
        return 0;
    return entries - before < TILE_WIDTH ? (unsigned)(entries - before)
                                         : TILE_WIDTH;
}

static enum code join(const char *dir, const char *name, char **path,
                      struct error *e)
{
    if (asprintf(path, "%s/%s", dir, name) < 0) {
        *path = NULL;
        return error_set(e, ERR_NOMEM, "path of a tile");
    }
    return OK;
}

enum code tile_read(const char *dir, int level, uint64_t index, unsigned width,
                    struct merkle_hash hashes[TILE_WIDTH], struct error *e)
{
    char name[TILE_PATH_MAX];
    FREE char *path = NULL;
    FREE char *bytes = NULL;
    size_t len;
    enum code rc = join(dir, tile_path(level, index, width, name), &path, e);
    if (rc == OK)
        rc = file_read(path, TILE_WIDTH * MERKLE_HASH + 1, FILE_ANY, &bytes,
                       &len, e);
    if (rc)
        return rc;
    if (len != width * sizeof hashes[0])
        return error_set(e, ERR_SEAL, "%s has %zu bytes, not %zu", name, len,
                         width * sizeof hashes[0]);
    memcpy(hashes, bytes, len);
    return OK;
}

/* Every folder of `path` but the file itself. */
static enum code make_folders(char *path, size_t from, struct error *e)
{
    for (char *slash = strchr(path + from, '/'); slash;
         slash = strchr(slash + 1, '/')) {
        *slash = '\0';
        enum code rc = file_make_dir(path, 0755, e);
        *slash = '/';
        if (rc)
            return rc;
    }
    return OK;
}

enum code tile_write(const char *dir, int level, uint64_t index, unsigned width,
                     const void *bytes, size_t len, struct error *e)
{
    char name[TILE_PATH_MAX];
    FREE char *path = NULL;
    enum code rc = join(dir, tile_path(level, index, width, name), &path, e);
    if (rc == OK)
        rc = make_folders(path, strlen(dir) + 1, e);
    return rc ? rc : file_write_atomic(path, bytes, len, 0644, e);
}

enum code tile_root(const struct merkle_hash *hashes, unsigned n,
                    struct merkle_hash *root, struct error *e)
{
    struct merkle m = {.size = 0};
    enum code rc = OK;
    for (unsigned i = 0; i < n && rc == OK; i++)
        rc = merkle_append(&m, &hashes[i], e);
    return rc ? rc : merkle_root(&m, root, e);
}
