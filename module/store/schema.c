/* The tables, and how an older file becomes the newest. spec/STORE.md. */
#include "config.h"

#include "module/store/state.h"

#include "common/file.h"
#include "common/text.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>


/* Lease ids and request ids are time-ordered, so new rows go to the end of
 * their trees. The partial indexes hold live rows only; no index is on random
 * text but lease_live_application, which holds the leases of processes that
 * run now. */
static const char schema_1[] =
    "CREATE TABLE meta("
    " key TEXT PRIMARY KEY, value BLOB NOT NULL) STRICT, WITHOUT ROWID;"

    "CREATE TABLE org("
    " id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT NOT NULL UNIQUE,"
    " created_ms INTEGER NOT NULL, config TEXT NOT NULL,"
    " admin_blob BLOB) STRICT;"

    "CREATE TABLE role("
    " org INTEGER NOT NULL REFERENCES org(id), name TEXT NOT NULL,"
    " body TEXT NOT NULL, version INTEGER NOT NULL,"
    " changed_ms INTEGER NOT NULL,"
    " PRIMARY KEY(org, name)) STRICT, WITHOUT ROWID;"

    "CREATE TABLE lease("
    " id TEXT PRIMARY KEY NOT NULL,"
    " org INTEGER NOT NULL REFERENCES org(id),"
    " role TEXT NOT NULL, owner TEXT NOT NULL, program TEXT NOT NULL,"
    " application TEXT NOT NULL, session INTEGER NOT NULL,"
    " state INTEGER NOT NULL CHECK(state BETWEEN 0 AND 3),"
    " bound INTEGER NOT NULL, reusable INTEGER NOT NULL,"
    " issued_ms INTEGER NOT NULL, expires_ms INTEGER NOT NULL,"
    " max_expires_ms INTEGER NOT NULL, provider_expires_ms INTEGER NOT NULL,"
    " revoked_ms INTEGER NOT NULL, project TEXT NOT NULL,"
    " account_name TEXT NOT NULL, account_id TEXT NOT NULL,"
    " key_id TEXT NOT NULL, api_base TEXT NOT NULL, label TEXT NOT NULL,"
    " cka_id BLOB, sealed BLOB, next_try_ms INTEGER NOT NULL,"
    " tries INTEGER NOT NULL, last_error TEXT NOT NULL,"
    " request_id TEXT NOT NULL, reason TEXT NOT NULL) STRICT;"
    "CREATE INDEX lease_expiry ON lease(expires_ms) WHERE state = 1;"
    "CREATE INDEX lease_retry ON lease(next_try_ms) WHERE state IN (0, 2);"
    "CREATE INDEX lease_live_owner ON lease(owner, id) WHERE state < 3;"
    "CREATE INDEX lease_live_role ON lease(org, role, id, state)"
    " WHERE state < 3;"
    "CREATE INDEX lease_live_application ON lease(application, session)"
    " WHERE bound = 1 AND state < 3;"
    "CREATE INDEX lease_revoked ON lease(revoked_ms) WHERE state = 3;"

    "CREATE TABLE journal("
    " seq INTEGER PRIMARY KEY, request_id TEXT NOT NULL,"
    " owner TEXT NOT NULL, method TEXT NOT NULL, result TEXT NOT NULL,"
    " created_ms INTEGER NOT NULL, UNIQUE(request_id, owner)) STRICT;"

    "CREATE TABLE record("
    " sequence INTEGER PRIMARY KEY, line TEXT NOT NULL) STRICT;";

/* lease_live_owner now holds all that limits ask for. */
static const char schema_2[] =
    "CREATE TABLE document("
    " kind TEXT NOT NULL, name TEXT NOT NULL, body TEXT NOT NULL,"
    " version INTEGER NOT NULL, changed_ms INTEGER NOT NULL,"
    " PRIMARY KEY(kind, name)) STRICT, WITHOUT ROWID;"
    "DROP INDEX lease_live_owner;"
    "CREATE INDEX lease_live_owner ON lease(owner, id, org, role, issued_ms)"
    " WHERE state < 3;";

/* The leaf stands before the line, so that reading hashes passes no text. What
 * the first log wrote is no part of the tree. */
static const char schema_3[] =
    "ALTER TABLE record RENAME TO record_v1;"
    "CREATE TABLE record("
    " sequence INTEGER PRIMARY KEY, leaf BLOB NOT NULL,"
    " line TEXT NOT NULL) STRICT;"
    "CREATE TABLE node("
    " level INTEGER NOT NULL, idx INTEGER NOT NULL, hash BLOB NOT NULL,"
    " PRIMARY KEY(level, idx)) STRICT, WITHOUT ROWID;"
    "CREATE TABLE minted("
    " record INTEGER PRIMARY KEY, hmac BLOB NOT NULL,"
    " lease TEXT NOT NULL) STRICT;"
    "CREATE TABLE checkpoint("
    " size INTEGER PRIMARY KEY, note TEXT NOT NULL,"
    " time_ms INTEGER NOT NULL) STRICT;";

/* Leases by lane, so that what is due of one project is found without passing
 * another's backlog; and the proofs of death. */
static const char schema_4[] =
    "ALTER TABLE lease ADD COLUMN answered_ms INTEGER NOT NULL DEFAULT 0;"
    "ALTER TABLE lease ADD COLUMN proof INTEGER NOT NULL DEFAULT 0;"
    "ALTER TABLE lease ADD COLUMN proof_ms INTEGER NOT NULL DEFAULT 0;"
    "ALTER TABLE lease ADD COLUMN probe BLOB;"
    "DROP INDEX lease_expiry;"
    "DROP INDEX lease_retry;"
    "CREATE INDEX lease_expiry ON lease(org, project, expires_ms)"
    " WHERE state = 1;"
    "CREATE INDEX lease_retry ON lease(org, project, next_try_ms)"
    " WHERE state IN (0, 2);"
    "CREATE INDEX lease_proof ON lease(org, project, proof_ms)"
    " WHERE proof_ms > 0;"
    "CREATE INDEX lease_live_account ON lease(account_name)"
    " WHERE state < 3;"

    /* Now it holds what a role's guards ask for, too. */
    "DROP INDEX lease_live_role;"
    "CREATE INDEX lease_live_role ON lease(org, role, id, state, issued_ms)"
    " WHERE state < 3;"

    "CREATE TABLE holder("
    " lease TEXT NOT NULL REFERENCES lease(id) ON DELETE CASCADE,"
    " application TEXT NOT NULL, since_ms INTEGER NOT NULL,"
    " PRIMARY KEY(lease, application)) STRICT, WITHOUT ROWID;"
    "CREATE INDEX holder_application ON holder(application);";

/* Appended to, never changed: each step was shipped. */
const struct migration schema_steps[] = {
    {0, schema_1},
    {1, schema_2},
    {2, schema_3},
    {3, schema_4},
};
_Static_assert(sizeof(schema_steps) / sizeof(schema_steps[0]) == STORE_SCHEMA,
               "one step a schema version");

static enum code read_pragma(struct conn *c, const char *sql, int64_t *value,
                             struct error *e)
{
    QUERY q = {.st = NULL};
    bool row = false;
    enum code code = query_open(&q, c, "read its version", sql, e);
    if (code == OK)
        code = query_step(&q, &row, e);
    if (code)
        return code;
    *value = row ? query_get_int(&q, 0) : 0;
    return OK;
}

struct identity {
    int64_t application, version, tables;
};

static enum code identify(struct conn *c, struct identity *id, struct error *e)
{
    enum code code =
        read_pragma(c, "PRAGMA application_id", &id->application, e);
    if (code == OK)
        code = read_pragma(c, "PRAGMA user_version", &id->version, e);
    if (code == OK)
        code = read_pragma(c, "SELECT count(*) FROM sqlite_schema", &id->tables,
                           e);
    return code;
}

/* A whole copy beside the old file, on disk before anything is changed. */
static enum code save_old(struct conn *c, const char *dir, int64_t version,
                          char **saved, struct error *e)
{
    char id[TEXT_ID_LEN + 1]; /* no two are the same, and they sort by time */
    enum code code = text_id(id, e);
    if (code)
        return code;
    if (asprintf(saved, "%s/" STORE_FILE ".v%d-%s", dir, (int)version, id) <
        0) {
        *saved = NULL;
        return error_set(e, ERR_NOMEM, "store %s: out of memory", c->path);
    }
    /* VACUUM INTO takes an empty file and keeps its mode. */
    FD fd = open(*saved, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0)
        return error_errno(e, errno, "cannot make %s", *saved);
    QUERY q = {.st = NULL};
    code =
        query_open(&q, c, "save it before its migration", "VACUUM INTO ?", e);
    if (code == OK) {
        query_text(&q, *saved);
        code = query_run(&q, e);
    }
    if (code == OK && fsync(fd) != 0)
        code = error_errno(e, errno, "cannot sync %s", *saved);
    FD parent = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (code == OK && (parent < 0 || fsync(parent) != 0))
        code = error_errno(e, errno, "cannot sync %s", dir);
    if (code)
        (void)unlink(*saved);
    return code;
}

static enum code apply_steps(struct conn *c, const struct migration *steps,
                             int n, int64_t version, struct error *e)
{
    enum code code = conn_exec(c, "BEGIN IMMEDIATE", e);
    for (int i = (int)version; i < n && code == OK; i++) {
        code = steps[i].from == i
                   ? conn_exec(c, steps[i].sql, e)
                   : error_set(e, ERR_INTERNAL, "store: no step from %d", i);
    }
    char pragmas[96];
    (void)snprintf(pragmas, sizeof(pragmas),
                   "PRAGMA application_id = %d; PRAGMA user_version = %d;"
                   "COMMIT;",
                   STORE_APPLICATION_ID, n);
    if (code == OK)
        code = conn_exec(c, pragmas, e);
    if (code && !sqlite3_get_autocommit(c->db))
        (void)sqlite3_exec(c->db, "ROLLBACK", NULL, NULL, NULL);
    return code;
}

enum code schema_apply(struct conn *c, const char *dir,
                       const struct migration *steps, int n, struct error *e)
{
    struct identity id = {0};
    enum code code = identify(c, &id, e);
    if (code)
        return code;
    bool is_new = id.application == 0 && id.version == 0 && id.tables == 0;
    if (!is_new && id.application != STORE_APPLICATION_ID)
        return error_set(e, ERR_SCHEMA,
                         "%s is a database of another program: move it away "
                         "or choose another state_dir",
                         c->path);
    if (id.version < 0 || id.version > n)
        return error_set(e, ERR_SCHEMA,
                         "%s was written by a newer hsmint (schema %lld, this "
                         "one knows %d): use that version, or put back the "
                         "copy that its migration saved (" STORE_FILE ".v%d-…)",
                         c->path, (long long)id.version, n, n);
    if (id.version == n)
        return OK;
    FREE char *saved = NULL;
    if (!is_new)
        code = save_old(c, dir, id.version, &saved, e);
    if (code == OK)
        code = apply_steps(c, steps, n, id.version, e);
    if (code && saved)
        (void)error_prefix(e,
                           "migration from schema %lld (the old file is "
                           "unchanged)",
                           (long long)id.version);
    return code;
}

enum code schema_migrate(struct conn *c, const char *dir, struct error *e)
{
    return schema_apply(c, dir, schema_steps, STORE_SCHEMA, e);
}
