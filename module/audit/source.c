/* source - see source.h. */
#include "config.h"

#include "module/audit/source.h"

#include "common/file.h"
#include "common/note.h"
#include "module/audit/record.h"
#include "module/audit/tile.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define ENTRIES_MAX (TILE_WIDTH * (2 + (size_t)TILE_ENTRY_MAX))

struct source {
    char *path;
    char *note; /* of the last checkpoint */
    size_t note_len;

    FILE *file; /* of lines; NULL: a directory */
    char line[RECORD_MAX + 2];
    bool ended;

    uint64_t size, at; /* records in all (of a directory), the next one */
    char *entries;     /* the tile of records that `at` is in */
    size_t entries_len, entries_at;
    uint64_t hashes_tile; /* whose hashes are here; UINT64_MAX: none */
    struct merkle_hash hashes[TILE_WIDTH];
};

void source_free(struct source *s)
{
    if (!s)
        return;
    if (s->file)
        (void)fclose(s->file);
    free(s->path);
    free(s->note);
    free(s->entries);
    free(s);
}

void source_freep(struct source **s)
{
    source_free(*s);
}

bool source_has_tiles(const struct source *s)
{
    return !s->file;
}

const char *source_path(const struct source *s)
{
    return s->path;
}

void source_set_size(struct source *s, uint64_t size)
{
    s->size = size;
}

const char *source_checkpoint(const struct source *s, size_t *len)
{
    *len = s->note_len;
    return s->note;
}

/* ---- opening ---- */

static enum code open_directory(struct source *s, struct error *e)
{
    FREE char *path = NULL;
    if (asprintf(&path, "%s/checkpoint", s->path) < 0) {
        path = NULL;
        return error_set(e, ERR_NOMEM, "path of a checkpoint");
    }
    enum code rc =
        file_read(path, NOTE_MAX, FILE_ANY, &s->note, &s->note_len, e);
    if (rc == ERR_NOT_FOUND)
        return error_set(e, rc,
                         "%s has no checkpoint: it is no exported log, or an "
                         "export that did not end",
                         s->path);
    return rc;
}

static enum code open_it(struct source *s, const char *path, struct error *e)
{
    struct stat st;
    s->hashes_tile = UINT64_MAX;
    s->path = strdup(path);
    if (!s->path)
        return error_set(e, ERR_NOMEM, "log %s", path);
    if (stat(path, &st) < 0)
        return error_set(e, errno == ENOENT ? ERR_NOT_FOUND : ERR_IO,
                         "no log at %s: %s", path, strerror(errno));
    if (S_ISDIR(st.st_mode))
        return open_directory(s, e);
    if (S_ISCHR(st.st_mode) || S_ISBLK(st.st_mode) || S_ISSOCK(st.st_mode))
        return error_set(e, ERR_INVALID, "%s is no file and no directory",
                         path);
    s->file = fopen(path, "re");
    return s->file ? OK : error_errno(e, errno, "cannot open %s", path);
}

enum code source_open(struct source **out, const char *path, struct error *e)
{
    CLEANUP(source_freep) struct source *s = calloc(1, sizeof *s);
    if (!s)
        return error_set(e, ERR_NOMEM, "log %s", path);
    enum code rc = open_it(s, path, e);
    if (rc)
        return rc;
    *out = s;
    s = NULL;
    return OK;
}

/* ---- lines ---- */

/* What stands behind the empty line. */
static enum code read_rest(struct source *s, struct error *e)
{
    s->ended = true;
    s->note = malloc(NOTE_MAX + 1);
    if (!s->note)
        return error_set(e, ERR_NOMEM, "checkpoint of %s", s->path);
    s->note_len = fread(s->note, 1, NOTE_MAX + 1, s->file);
    if (ferror(s->file))
        return error_errno(e, errno, "cannot read %s", s->path);
    return OK;
}

static enum code next_line(struct source *s, const char **line, size_t *len,
                           struct error *e)
{
    size_t n = 0;
    int c;
    *line = NULL;
    if (s->ended)
        return OK;
    while ((c = getc_unlocked(s->file)) != EOF && c != '\n')
        if (n <= RECORD_MAX)
            s->line[n++] = (char)c;
    if (c == EOF && ferror(s->file))
        return error_errno(e, errno, "cannot read %s", s->path);
    if (n == 0) {
        s->ended = true;
        return c == '\n' ? read_rest(s, e) : OK;
    }
    *line = s->line;
    *len = n;
    s->at++;
    return n <= RECORD_MAX ? OK
                           : error_set(e, ERR_INVALID,
                                       "a line of more than %d bytes",
                                       RECORD_MAX);
}

/* ---- tiles ---- */

static enum code read_entries(struct source *s, struct error *e)
{
    char name[TILE_PATH_MAX];
    FREE char *path = NULL;
    uint64_t tile = s->at / TILE_WIDTH;
    tile_path(TILE_ENTRIES, tile, tile_width(TILE_ENTRIES, tile, s->size),
              name);
    free(s->entries);
    s->entries = NULL;
    s->entries_at = 0;
    if (asprintf(&path, "%s/%s", s->path, name) < 0) {
        path = NULL;
        return error_set(e, ERR_NOMEM, "path of a tile");
    }
    enum code rc = file_read(path, ENTRIES_MAX, FILE_ANY, &s->entries,
                             &s->entries_len, e);
    return rc == ERR_NOT_FOUND ? error_set(e, rc, "%s is not there", name) : rc;
}

static enum code refuse_tile(const struct source *s, const char *what,
                             struct error *e)
{
    char name[TILE_PATH_MAX];
    uint64_t tile = s->at / TILE_WIDTH;
    tile_path(TILE_ENTRIES, tile, tile_width(TILE_ENTRIES, tile, s->size),
              name);
    return error_set(e, ERR_SEAL, "%s %s", name, what);
}

static enum code next_entry(struct source *s, const char **line, size_t *len,
                            struct error *e)
{
    *line = NULL;
    if (s->at == s->size)
        return OK;
    enum code rc = s->at % TILE_WIDTH == 0 || !s->entries ? read_entries(s, e)
                                                          : OK;
    if (rc)
        return rc;
    const uint8_t *at = (const uint8_t *)s->entries + s->entries_at;
    size_t left = s->entries_len - s->entries_at;
    size_t n = left < 2 ? 0 : (size_t)at[0] << 8 | at[1];
    if (left < 2 || left - 2 < n)
        return refuse_tile(s, "is cut short", e);
    *line = (const char *)at + 2;
    *len = n;
    s->entries_at += n + 2;
    bool last = (s->at + 1) % TILE_WIDTH == 0 || s->at + 1 == s->size;
    if (last && s->entries_at != s->entries_len)
        return refuse_tile(s, "has bytes behind the last record", e);
    s->at++;
    return OK;
}

enum code source_next(struct source *s, const char **line, size_t *len,
                      struct error *e)
{
    return s->file ? next_line(s, line, len, e) : next_entry(s, line, len, e);
}

enum code source_skip(struct source *s, uint64_t index, struct error *e)
{
    const char *line;
    size_t len;
    if (!s->file && index / TILE_WIDTH > s->at / TILE_WIDTH &&
        index < s->size) {
        s->at = index - index % TILE_WIDTH;
        free(s->entries);
        s->entries = NULL;
    }
    while (s->at < index) {
        enum code rc = source_next(s, &line, &len, e);
        if (rc && rc != ERR_INVALID) /* a line that is too long counts */
            return rc;
        if (rc == OK && !line)
            return error_set(e, ERR_NOT_FOUND, "%s ends with record %llu",
                             s->path, (unsigned long long)s->at);
    }
    return OK;
}

enum code source_leaf(struct source *s, uint64_t index, struct merkle_hash *out,
                      struct error *e)
{
    uint64_t tile = index / TILE_WIDTH;
    if (s->hashes_tile != tile) {
        s->hashes_tile = UINT64_MAX;
        enum code rc = tile_read(s->path, 0, tile, tile_width(0, tile, s->size),
                                 s->hashes, e);
        if (rc)
            return rc;
        s->hashes_tile = tile;
    }
    *out = s->hashes[index % TILE_WIDTH];
    return OK;
}
