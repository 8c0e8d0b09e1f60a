#include "config.h"

#include "module/store/sqlite.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* A backup or a curious sqlite3 shell may hold the file for a moment. */
#define BUSY_MS 5000

/* ---- results ---- */

static const struct outcome {
    int primary;
    enum code code;
    const char *advice;
} outcomes[] = {
    {SQLITE_FULL, ERR_DISK_FULL, "free some space on its file system"},
    {SQLITE_READONLY, ERR_READ_ONLY, "make the state directory writable"},
    {SQLITE_PERM, ERR_READ_ONLY, "make the state directory writable"},
    {SQLITE_CORRUPT, ERR_IO, "the database is damaged: restore a backup"},
    {SQLITE_NOTADB, ERR_IO, "the file is no database: restore a backup"},
    {SQLITE_BUSY, ERR_BUSY, "another program holds the database: end it"},
    {SQLITE_LOCKED, ERR_BUSY, "another program holds the database: end it"},
    {SQLITE_NOMEM, ERR_NOMEM, "out of memory"},
    {SQLITE_TOOBIG, ERR_INVALID, "a value is too long"},
    {SQLITE_IOERR, ERR_IO, "check the disk under the state directory"},
    {SQLITE_CANTOPEN, ERR_IO, "check the state directory"},
};

/* The errno behind an I/O result: of SQLite's own codes only FULL tells. */
static enum code code_of_errno(int errnum, enum code otherwise)
{
    switch (errnum) {
    case ENOSPC:
    case EDQUOT:
    case EFBIG: /* RLIMIT_FSIZE, or the file system's own bound */
        return ERR_DISK_FULL;
    case EROFS:
        return ERR_READ_ONLY;
    case ENOMEM:
        return ERR_NOMEM;
    default:
        return otherwise;
    }
}

/* SQLite notes the errno of most failures, but not of a commit's: there the
 * last one of this thread, which was 0 before the call, is the best there is.
 */
static int errno_of(const struct conn *c, int primary, int last)
{
    if (!c->db || (primary != SQLITE_IOERR && primary != SQLITE_CANTOPEN))
        return 0;
    return last ? last : sqlite3_system_errno(c->db);
}

enum code conn_error(struct conn *c, int rc, const char *what, struct error *e)
{
    int primary = rc & 0xff, errnum = errno_of(c, primary, errno);
    const char *why = c->db ? sqlite3_errmsg(c->db) : sqlite3_errstr(rc);
    for (size_t i = 0; i < sizeof(outcomes) / sizeof(outcomes[0]); i++) {
        const struct outcome *o = &outcomes[i];
        if (o->primary != primary)
            continue;
        enum code code = code_of_errno(errnum, o->code);
        return error_set(e, code, "store %s: cannot %s: %s%s%s: %s", c->path,
                         what, why, errnum ? ": " : "",
                         errnum ? strerror(errnum) : "", o->advice);
    }
    if (rc == SQLITE_CONSTRAINT_PRIMARYKEY || rc == SQLITE_CONSTRAINT_UNIQUE)
        return error_set(e, ERR_EXISTS, "cannot %s: it exists already", what);
    if (rc == SQLITE_CONSTRAINT_FOREIGNKEY)
        return error_set(e, ERR_NOT_FOUND,
                         "cannot %s: its organisation does not exist", what);
    return error_set(e, ERR_INTERNAL, "store %s: cannot %s: %s", c->path, what,
                     why);
}

/* ---- connections ---- */

static const char writer_pragmas[] = "PRAGMA synchronous = FULL;"
                                     "PRAGMA foreign_keys = ON;"
                                     "PRAGMA trusted_schema = OFF;"
                                     "PRAGMA cell_size_check = ON;"
                                     "PRAGMA temp_store = MEMORY;"
                                     "PRAGMA secure_delete = FAST;"
                                     "PRAGMA cache_size = -8192;"
                                     "PRAGMA journal_size_limit = 8388608;";
static const char reader_pragmas[] = "PRAGMA query_only = ON;"
                                     "PRAGMA trusted_schema = OFF;"
                                     "PRAGMA cell_size_check = ON;"
                                     "PRAGMA temp_store = MEMORY;";

enum code conn_open(struct conn **out, const char *path, enum conn_role role,
                    struct error *e)
{
    struct conn *c = calloc(1, sizeof(*c));
    if (!c)
        return error_set(e, ERR_NOMEM, "store %s: out of memory", path);
    c->path = path;
    errno = 0;
    int rc = sqlite3_open_v2(
        path, &c->db,
        (role == CONN_OFFLINE ? SQLITE_OPEN_READONLY : SQLITE_OPEN_READWRITE) |
            SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE,
        NULL);
    enum code code = OK;
    if (rc != SQLITE_OK) {
        code = conn_error(c, rc, "open it", e);
    } else {
        sqlite3_busy_timeout(c->db, BUSY_MS);
        sqlite3_db_config(c->db, SQLITE_DBCONFIG_DEFENSIVE, 1, (int *)NULL);
        code = conn_exec(
            c, role == CONN_WRITER ? writer_pragmas : reader_pragmas, e);
    }
    if (code) {
        conn_close(c);
        return code;
    }
    *out = c;
    return OK;
}

void conn_close(struct conn *c)
{
    if (!c)
        return;
    for (size_t i = 0; i < CONN_STATEMENTS; i++)
        sqlite3_finalize(c->cache[i]);
    sqlite3_close_v2(c->db);
    free(c);
}

enum code conn_exec(struct conn *c, const char *sql, struct error *e)
{
    errno = 0;
    int rc = sqlite3_exec(c->db, sql, NULL, NULL, NULL);
    return rc == SQLITE_OK ? OK : conn_error(c, rc, "set it up", e);
}

/* ---- queries ---- */

static size_t slot_of(const char *sql)
{
    uint32_t h = 2166136261u; /* FNV-1a */
    for (const char *p = sql; *p; p++)
        h = (h ^ (uint8_t)*p) * 16777619u;
    return h % CONN_STATEMENTS;
}

enum code query_open(struct query *q, struct conn *c, const char *what,
                     const char *sql, struct error *e)
{
    sqlite3_stmt **slot = &c->cache[slot_of(sql)];
    *q = (struct query){.c = c, .what = what};
    /* A statement that is running (never in practice) may not be replaced. */
    if (*slot && sqlite3_stmt_busy(*slot))
        return error_set(e, ERR_INTERNAL, "store: %s inside a query", what);
    if (!*slot || strcmp(sqlite3_sql(*slot), sql) != 0) {
        sqlite3_finalize(*slot);
        *slot = NULL;
        errno = 0;
        int rc = sqlite3_prepare_v3(c->db, sql, -1, SQLITE_PREPARE_PERSISTENT,
                                    slot, NULL);
        if (rc != SQLITE_OK)
            return conn_error(c, rc, what, e);
    }
    q->st = *slot;
    return OK;
}

void query_close(struct query *q)
{
    if (!q->st)
        return;
    sqlite3_reset(q->st);
    sqlite3_clear_bindings(q->st);
    q->st = NULL;
}

static void note(struct query *q, int rc)
{
    if (q->rc == SQLITE_OK)
        q->rc = rc;
}

void query_int(struct query *q, int64_t v)
{
    note(q, sqlite3_bind_int64(q->st, ++q->bound, v));
}

void query_text(struct query *q, const char *v)
{
    note(q,
         sqlite3_bind_text(q->st, ++q->bound, v ? v : "", -1, SQLITE_STATIC));
}

void query_blob(struct query *q, const void *v, size_t len)
{
    note(q, v ? sqlite3_bind_blob64(q->st, ++q->bound, v, len, SQLITE_STATIC)
              : sqlite3_bind_null(q->st, ++q->bound));
}

enum code query_step(struct query *q, bool *row, struct error *e)
{
    *row = false;
    int rc = q->rc;
    errno = 0;
    if (rc == SQLITE_OK)
        rc = sqlite3_step(q->st);
    *row = rc == SQLITE_ROW;
    if (rc == SQLITE_ROW || rc == SQLITE_DONE)
        return OK;
    return conn_error(q->c, rc, q->what, e);
}

enum code query_run(struct query *q, struct error *e)
{
    bool row;
    enum code code = query_step(q, &row, e);
    if (code)
        return code;
    if (row)
        return error_set(e, ERR_INTERNAL, "store: %s gave a row", q->what);
    return OK;
}

int query_changes(const struct query *q)
{
    return sqlite3_changes(q->c->db);
}

/* Not every file system can: SQLite then answers with the mode it kept. */
enum code conn_use_wal(struct conn *c, struct error *e)
{
    static const char what[] = "use a write-ahead log";
    QUERY q = {.st = NULL};
    bool row = false;
    enum code code = query_open(&q, c, what, "PRAGMA journal_mode = WAL", e);
    if (code == OK)
        code = query_step(&q, &row, e);
    if (code)
        return code;
    if (!row || strcmp(query_borrow_text(&q, 0), "wal") != 0)
        return error_set(e, ERR_IO,
                         "store %s: its file system cannot hold a "
                         "write-ahead log: choose another state_dir",
                         c->path);
    return OK;
}

/* ---- columns ---- */

int64_t query_get_int(const struct query *q, int column)
{
    return sqlite3_column_int64(q->st, column);
}

/* The structs of store.h have no const, as they own their strings elsewhere;
 * a callback's struct is const, so nobody writes through it. */
static void *unconst(const void *p)
{
    return (void *)(uintptr_t)p;
}

char *query_borrow_text(const struct query *q, int column)
{
    static const char empty[] = "";
    const void *text = sqlite3_column_text(q->st, column);
    return unconst(text ? text : empty);
}

void *query_borrow_blob(const struct query *q, int column, size_t *len)
{
    const void *blob = sqlite3_column_blob(q->st, column);
    *len = blob ? (size_t)sqlite3_column_bytes(q->st, column) : 0;
    return unconst(blob);
}

static enum code dup(const void *data, size_t len, void **out, struct error *e)
{
    char *copy = malloc(len + 1);
    if (!copy)
        return error_set(e, ERR_NOMEM, "store: out of memory");
    memcpy(copy, data, len);
    copy[len] = '\0';
    *out = copy;
    return OK;
}

enum code query_dup_text(const struct query *q, int column, char **out,
                         struct error *e)
{
    const char *text = query_borrow_text(q, column);
    void *copy = NULL;
    enum code code = dup(text, strlen(text), &copy, e);
    *out = copy;
    return code;
}

enum code query_dup_blob(const struct query *q, int column, void **out,
                         size_t *len, struct error *e)
{
    const void *blob = query_borrow_blob(q, column, len);
    *out = NULL;
    return blob ? dup(blob, *len, out, e) : OK;
}
