/* A copy of the database while it is in use, and one put in its place while it
 * is not. */
#include "config.h"

#include "module/store/state.h"

#include "common/file.h"
#include "common/text.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- backup ---- */

static enum code check_room(struct store *s, struct error *e)
{
    struct store_figures f;
    uint64_t room = 0;
    store_figures(s, &f);
    enum code code = file_free_bytes(s->dir, &room, e);
    if (code || room > f.bytes + s->reserve.low_water)
        return code;
    return error_set(e, ERR_DISK_FULL,
                     "a backup needs %llu bytes beside the store in %s for a "
                     "moment, and %llu are free above disk_reserve",
                     (unsigned long long)f.bytes, s->dir,
                     room > s->reserve.low_water
                         ? (unsigned long long)(room - s->reserve.low_water)
                         : 0ULL);
}

/* One read transaction: the copy is what one moment's commit left, and nobody
 * waits for it. query_only speaks of our own tables; the copy is another file.
 */
static enum code copy_into(struct conn *c, const char *path, struct error *e)
{
    QUERY q = {.st = NULL};
    enum code code = conn_exec(c, "PRAGMA query_only = OFF;", e);
    if (code == OK)
        code = query_open(&q, c, "copy it for a backup", "VACUUM INTO ?", e);
    if (code)
        return code;
    query_text(&q, path);
    return query_run(&q, e);
}

enum code store_backup(struct store *s, int *fd, struct error *e)
{
    FREE char *path = NULL;
    struct conn *c = NULL;
    char id[TEXT_ID_LEN + 1];
    enum code code = check_room(s, e);
    if (code == OK)
        code = text_id(id, e);
    if (code)
        return code;
    if (asprintf(&path, "%s/backup-%s", s->dir, id) < 0) {
        path = NULL;
        return error_set(e, ERR_NOMEM, "store %s: out of memory", s->path);
    }
    /* VACUUM INTO takes an empty file and keeps its mode. */
    FD file = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (file < 0)
        return error_errno(e, errno, "cannot make %s", path);
    code = conn_open(&c, s->path, CONN_READER, e);
    if (code == OK)
        code = copy_into(c, path, e);
    conn_close(c);
    if (code == OK && (*fd = open(path, O_RDONLY | O_CLOEXEC)) < 0)
        code = error_errno(e, errno, "cannot open %s", path);
    (void)unlink(path);
    return code;
}

/* ---- restore ---- */

static enum code pragma(struct conn *c, const char *sql, int64_t *n,
                        struct error *e)
{
    QUERY q = {.st = NULL};
    bool row = false;
    enum code code = query_open(&q, c, "read its version", sql, e);
    if (code == OK)
        code = query_step(&q, &row, e);
    if (code == OK)
        *n = row ? query_get_int(&q, 0) : 0;
    return code;
}

static enum code check_whole(struct conn *c, const char *path, struct error *e)
{
    QUERY q = {.st = NULL};
    bool row = false;
    enum code code = query_open(&q, c, "check it", "PRAGMA integrity_check(1)",
                                e);
    if (code == OK)
        code = query_step(&q, &row, e);
    if (code)
        return code;
    const char *said = row ? query_borrow_text(&q, 0) : NULL;
    return said && strcmp(said, "ok") == 0
               ? OK
               : error_set(e, ERR_INVALID, "%s is damaged: %s", path,
                           said ? said : "nothing is in it");
}

static enum code check_copy(struct conn *c, const char *path, struct error *e)
{
    int64_t application = 0, version = 0;
    enum code code = pragma(c, "PRAGMA application_id", &application, e);
    if (code == OK)
        code = pragma(c, "PRAGMA user_version", &version, e);
    if (code)
        return code;
    if (application != STORE_APPLICATION_ID)
        return error_set(e, ERR_INVALID, "%s is no state of hsmint", path);
    if (version < 1 || version > STORE_SCHEMA)
        return error_set(e, ERR_SCHEMA,
                         "%s was made by a newer hsmint (schema %lld, this one "
                         "knows %d): restore it with that version",
                         path, (long long)version, STORE_SCHEMA);
    return check_whole(c, path, e);
}

static enum code mark_copy(struct conn *c, const char *mark, struct error *e)
{
    QUERY q = {.st = NULL};
    enum code code = query_open(&q, c, "mark it as restored",
                                "INSERT OR REPLACE INTO meta(key, value)"
                                " VALUES(?, ?)",
                                e);
    if (code)
        return code;
    query_text(&q, STORE_META_RESTORED);
    query_blob(&q, mark, strlen(mark));
    return query_run(&q, e);
}

static enum code prepare(const char *path, const char *mark, struct error *e)
{
    struct conn *c = NULL;
    enum code code = conn_open(&c, path, CONN_WRITER, e);
    if (code == OK)
        code = check_copy(c, path, e);
    if (code == OK)
        code = mark_copy(c, mark, e);
    conn_close(c);
    FD fd = open(path, O_RDONLY | O_CLOEXEC);
    if (code == OK && (fd < 0 || fsync(fd) != 0))
        code = error_errno(e, errno, "cannot sync %s", path);
    return code;
}

/* What the write-ahead log holds goes into the old file; one that cannot be
 * opened keeps its log under its new name. */
static enum code fold_log(const char *path, const char *kept, struct error *e)
{
    static const char *const rests[] = {"-wal", "-shm"};
    struct conn *c = NULL;
    if (conn_open(&c, path, CONN_WRITER, NULL) == OK &&
        conn_exec(c, "PRAGMA wal_checkpoint(TRUNCATE);"
                     "PRAGMA journal_mode = DELETE;",
                  NULL) != OK)
        (void)error_set(e, ERR_IO, "the old store cannot be read");
    conn_close(c);
    for (size_t i = 0; i < sizeof(rests) / sizeof(rests[0]); i++) {
        FREE char *from = NULL;
        FREE char *to = NULL;
        if (asprintf(&from, "%s%s", path, rests[i]) < 0 ||
            asprintf(&to, "%s%s", kept, rests[i]) < 0)
            return error_set(e, ERR_NOMEM, "store %s: out of memory", path);
        if (rename(from, to) != 0 && errno != ENOENT)
            return error_errno(e, errno, "cannot rename %s", from);
    }
    error_clear(e);
    return OK;
}

/* At each moment there is a store.db: the old one, or the new one. */
static enum code put_in_place(const char *dir, const char *file,
                              const char *path, const char *kept,
                              struct error *e)
{
    bool there = access(path, F_OK) == 0;
    enum code code = there ? fold_log(path, kept, e) : OK;
    if (code)
        return code;
    if (there && link(path, kept) != 0)
        return error_errno(e, errno, "cannot keep %s as %s", path, kept);
    if (rename(file, path) != 0)
        return error_errno(e, errno, "cannot rename %s", file);
    FD parent = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    return parent < 0 || fsync(parent) != 0
               ? error_errno(e, errno, "cannot sync %s", dir)
               : OK;
}

enum code store_restore(const char *dir, const char *file, const char *mark,
                        char **kept, struct error *e)
{
    FREE char *path = NULL;
    FREE char *beside = NULL;
    char id[TEXT_ID_LEN + 1];
    enum code code = text_id(id, e);
    if (code)
        return code;
    if (asprintf(&path, "%s/" STORE_FILE, dir) < 0 ||
        asprintf(&beside, "%s/" STORE_FILE ".before-%s", dir, id) < 0)
        return error_set(e, ERR_NOMEM, "store %s: out of memory", dir);
    code = prepare(file, mark, e);
    if (code == OK)
        code = put_in_place(dir, file, path, beside, e);
    if (code)
        return code;
    *kept = NULL;
    if (access(beside, F_OK) == 0) {
        *kept = beside;
        beside = NULL;
    }
    return OK;
}
