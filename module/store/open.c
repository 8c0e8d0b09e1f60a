#include "config.h"

#include "module/store/state.h"

#include "common/file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* Before anything else, so that the reason is named and not guessed from
 * SQLite's result. A full disk is told later, and may be no obstacle. */
static enum code check_dir(const char *dir, struct error *e)
{
    enum code code = file_private_dir(dir, true, e);
    if (code)
        return code;
    if (access(dir, R_OK | W_OK | X_OK) == 0)
        return OK;
    if (errno == EROFS || errno == EACCES || errno == EPERM)
        return error_set(e, ERR_READ_ONLY,
                         "state directory %s is read-only: make it writable "
                         "or choose another state_dir",
                         dir);
    return error_errno(e, errno, "state directory %s", dir);
}

/* Made here, so that it and its -wal and -shm (SQLite copies the mode) are
 * 0600 whatever the umask. Closed again before SQLite opens it: a close drops
 * the process's locks on the file. */
static enum code make_file(const char *path, struct error *e)
{
    FD fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0 && (errno == EACCES || errno == EPERM))
        return error_set(e, ERR_READ_ONLY,
                         "store %s is read-only: make it "
                         "writable for this user",
                         path);
    if (fd < 0)
        return error_errno(e, errno, "cannot open store %s", path);
    struct stat st;
    if (fstat(fd, &st) != 0)
        return error_errno(e, errno, "cannot look at store %s", path);
    if (!S_ISREG(st.st_mode) || st.st_uid != geteuid() ||
        (st.st_mode & 077) != 0)
        return error_set(e, ERR_DENIED,
                         "store %s must be a regular file of "
                         "this user with mode 0600",
                         path);
    return OK;
}

static enum code set_paths(struct store *s, const char *dir, char **lock,
                           struct error *e)
{
    s->dir = strdup(dir);
    if (asprintf(&s->path, "%s/" STORE_FILE, dir) < 0)
        s->path = NULL;
    if (asprintf(lock, "%s/" STORE_LOCK_FILE, dir) < 0)
        *lock = NULL;
    if (!s->dir || !s->path || !*lock)
        return error_set(e, ERR_NOMEM, "store %s: out of memory", dir);
    return OK;
}

static enum code take_lock(struct store *s, const char *path, struct error *e)
{
    enum code code = file_lock(path, &s->lock_fd, e);
    if (code == ERR_BUSY)
        return error_set(e, ERR_BUSY,
                         "state directory %s is in use by another hsmintd: "
                         "end that one or choose another state_dir",
                         s->dir);
    return code;
}

static enum code open_database(struct store *s, struct error *e)
{
    enum code code = make_file(s->path, e);
    if (code == OK)
        code = conn_open(&s->writer, s->path, CONN_WRITER, e);
    if (code == OK)
        code = schema_migrate(s->writer, s->dir, e);
    if (code == OK)
        code = conn_use_wal(s->writer, e);
    if (code) {
        conn_close(s->writer);
        s->writer = NULL;
    }
    return code;
}

static enum code open_files(struct store *s, const struct store_options *o,
                            struct error *e)
{
    FREE char *lock = NULL;
    enum code code = check_dir(o->dir, e);
    if (code == OK)
        code = set_paths(s, o->dir, &lock, e);
    if (code == OK)
        code = take_lock(s, lock, e);
    if (code == OK)
        code = reserve_init(s, o->disk_reserve, e);
    if (code)
        return code;
    code = open_database(s, e);
    if (code == ERR_DISK_FULL && reserve_spend(s))
        code = open_database(s, e);
    return code;
}

static struct store *store_new(void)
{
    struct store *s = calloc(1, sizeof(*s));
    if (!s)
        return NULL;
    s->lock_fd = -1;
    s->tail = &s->head;
    pthread_mutex_init(&s->lock, NULL);
    pthread_mutex_init(&s->pool_lock, NULL);
    pthread_cond_init(&s->work, NULL);
    return s;
}

static enum code check_schema(struct store *s, struct error *e)
{
    READER r = {.c = NULL};
    QUERY q = {.st = NULL};
    bool row = false;
    enum code code = reader_take(&r, s, e);
    if (code == OK)
        code = query_open(&q, r.c, "read its version", "PRAGMA user_version",
                          e);
    if (code == OK)
        code = query_step(&q, &row, e);
    if (code)
        return code;
    int64_t version = row ? query_get_int(&q, 0) : 0;
    if (version == STORE_SCHEMA)
        return OK;
    return error_set(e, ERR_SCHEMA,
                     "%s has schema %lld, and this hsmint reads %d: use the "
                     "hsmint that wrote it, or start its daemon once",
                     s->path, (long long)version, STORE_SCHEMA);
}

static enum code open_offline(struct store *s, const char *dir, struct error *e)
{
    FREE char *lock = NULL;
    enum code code = set_paths(s, dir, &lock, e);
    if (code)
        return code;
    if (access(s->path, R_OK) != 0)
        return error_set(e, errno == ENOENT ? ERR_NOT_FOUND : ERR_DENIED,
                         "%s: %s; --state DIR says where the state is, and its "
                         "owner or root may read it",
                         s->path, strerror(errno));
    return check_schema(s, e);
}

enum code store_open_offline(struct store **out, const char *dir,
                             struct error *e)
{
    struct store *s = store_new();
    if (!s)
        return error_set(e, ERR_NOMEM, "store %s: out of memory", dir);
    s->offline = true;
    enum code code = open_offline(s, dir, e);
    if (code) {
        store_close(s);
        return code;
    }
    *out = s;
    return OK;
}

enum code store_open(struct store **out, const struct store_options *o,
                     struct error *e)
{
    struct store *s = store_new();
    if (!s)
        return error_set(e, ERR_NOMEM, "store %s: out of memory", o->dir);
    enum code code = open_files(s, o, e);
    if (code) {
        store_close(s);
        return code;
    }
    *out = s;
    return OK;
}

void store_close(struct store *s)
{
    if (!s)
        return;
    commit_stop(s);
    pool_close(s);
    conn_close(s->writer); /* the last one: empties the write-ahead log */
    reserve_clear(&s->reserve);
    fd_closep(&s->lock_fd);
    pthread_cond_destroy(&s->work);
    pthread_mutex_destroy(&s->pool_lock);
    pthread_mutex_destroy(&s->lock);
    free(s->path);
    free(s->dir);
    free(s);
}
