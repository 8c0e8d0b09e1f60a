/* sqlite - a connection to the database, its cached statements and one query.
 *
 * A connection is used by one thread at a time: the writer's by whoever holds
 * store.busy, a reader's by whoever took it from the pool. It owns its
 * statements. Private to this room.
 */
#ifndef HSMINT_STORE_SQLITE_H
#define HSMINT_STORE_SQLITE_H

#include "common/error.h"

#include <sqlite3.h>
#include <stdbool.h>
#include <stdint.h>

#define CONN_STATEMENTS 128

struct conn {
    sqlite3 *db;
    const char *path;                     /* the store's, for error texts */
    sqlite3_stmt *cache[CONN_STATEMENTS]; /* direct-mapped by hash of its SQL */
    struct conn *next;                    /* in the pool */
};

enum conn_role { CONN_WRITER, CONN_READER, CONN_OFFLINE /* changes no file */ };

/* `path` is the caller's and outlives the connection. */
MUST_CHECK enum code conn_open(struct conn **out, const char *path,
                               enum conn_role role, struct error *e);
void conn_close(struct conn *c); /* takes NULL */
/* Once it is known that the file is ours: this writes to it. */
MUST_CHECK enum code conn_use_wal(struct conn *c, struct error *e);
/* One or more statements without parameters or results. */
MUST_CHECK enum code conn_exec(struct conn *c, const char *sql,
                               struct error *e);
/* SQLite's result as ours: what failed (`what`), why, and what to do. */
enum code conn_error(struct conn *c, int rc, const char *what, struct error *e);

/* One run of a cached statement. Parameters are bound in order; the first
 * that fails is reported by the next step, so that binding needs no checks.
 * Bound memory is borrowed until query_close(). */
struct query {
    struct conn *c;
    sqlite3_stmt *st;
    const char *what; /* "insert lease", for error texts */
    int bound;        /* parameters so far */
    int rc;           /* the first that went wrong */
};
void query_close(struct query *q); /* resets; the statement stays cached */
#define QUERY CLEANUP(query_close) struct query

MUST_CHECK enum code query_open(struct query *q, struct conn *c,
                                const char *what, const char *sql,
                                struct error *e);
void query_int(struct query *q, int64_t v);
void query_text(struct query *q, const char *v); /* NULL counts as "" */
void query_blob(struct query *q, const void *v, size_t len); /* NULL: NULL */
/* *row: there is one to read. */
MUST_CHECK enum code query_step(struct query *q, bool *row, struct error *e);
/* To the end, without a row. */
MUST_CHECK enum code query_run(struct query *q, struct error *e);
/* Rows that the last query_run() of this connection changed. */
int query_changes(const struct query *q);

/* Columns count from 0. Borrowed ones hold until the next step. */
int64_t query_get_int(const struct query *q, int column);
char *query_borrow_text(const struct query *q, int column);
void *query_borrow_blob(const struct query *q, int column, size_t *len);
MUST_CHECK enum code query_dup_text(const struct query *q, int column,
                                    char **out, struct error *e);
/* NUL-terminated behind len; NULL stays NULL. */
MUST_CHECK enum code query_dup_blob(const struct query *q, int column,
                                    void **out, size_t *len, struct error *e);

#endif
