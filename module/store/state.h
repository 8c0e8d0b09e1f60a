/* state - struct store: its files, its writer, its readers, its reserve.
 * Private to this room.
 *
 * Locks: `lock` guards the queue, `busy`, `broken`, `thread_*` and `stopping`;
 * `pool_lock` guards the pool. Neither is held while SQL runs, and never both.
 * Whoever set `busy` owns `writer` and `reserve` until it is cleared.
 */
#ifndef HSMINT_STORE_STATE_H
#define HSMINT_STORE_STATE_H

#include "common/histogram.h"
#include "module/store/sqlite.h"
#include "module/store/store.h"

#include <pthread.h>

#define STORE_APPLICATION_ID 0x68736d74 /* "hsmt" */
#define STORE_FILE "store.db"
#define STORE_LOCK_FILE STORE_LOCK_NAME
#define STORE_RESERVE_FILE "reserve"
#define READERS_KEPT 8 /* idle ones; more are opened when needed */

struct request; /* commit.c */

struct reserve {
    char *path;
    uint64_t low_water; /* below this many free bytes: no mints; 0: no check */
    uint64_t file_size;
    bool there; /* the file takes its space */
    bool low;   /* as of the last look */
    bool looked;
    int64_t looked_ms; /* monotonic */
};

struct store {
    char *dir;
    char *path;
    int lock_fd;
    bool offline; /* store_open_offline() */
    struct conn *writer;
    struct reserve reserve;

    pthread_mutex_t lock;
    pthread_cond_t work; /* for the writer thread */
    struct request *head, **tail;
    bool busy;
    int64_t step_ms; /* monotonic; when `busy` or the queue last changed */
    bool stopping;
    bool thread_runs;
    pthread_t thread;
    bool broken; /* the last commit failed, and it was the store's fault */

    struct histogram commit_times, commit_sizes;

    pthread_mutex_t pool_lock;
    struct conn *idle;
    int idle_count;
};

/* One function's: it ends with that, or is undone as a whole. */
struct store_tx {
    struct conn *c;
    bool has_head;
    struct store_head head; /* the log's, as this transaction left it */
};

/* ---- commit.c ---- */
void commit_stop(struct store *s); /* ends the writer thread */

/* ---- pool.c: a reader for the length of a scope ---- */
struct reader {
    struct store *s;
    struct conn *c;
};
MUST_CHECK enum code reader_take(struct reader *r, struct store *s,
                                 struct error *e);
void reader_give(struct reader *r);
#define READER CLEANUP(reader_give) struct reader
void pool_close(struct store *s);

/* ---- reserve.c ---- */
MUST_CHECK enum code reserve_init(struct store *s, uint64_t bytes,
                                  struct error *e);
void reserve_clear(struct reserve *r);
/* ERR_DISK_FULL below the low-water mark; looks at most once a second. */
MUST_CHECK enum code reserve_check(struct store *s, struct error *e);
/* Gives the file up: true if that freed some space. */
bool reserve_spend(struct store *s);

/* ---- tree.c ---- */
MUST_CHECK enum code tree_get_hash(const struct query *q, int column,
                                   struct merkle_hash *out, struct error *e);
/* After record `size` was added: the roots of what it completes. */
MUST_CHECK enum code tree_complete(struct conn *c, uint64_t size,
                                   struct error *e);

/* ---- schema.c ---- */
struct migration {
    int from; /* to from + 1 */
    const char *sql;
};
extern const struct migration schema_steps[]; /* STORE_SCHEMA of them */
/* Brings `c` to STORE_SCHEMA. A file that is not new is saved beside first. */
MUST_CHECK enum code schema_migrate(struct conn *c, const char *dir,
                                    struct error *e);
/* The same with steps of the caller's, for tests. */
MUST_CHECK enum code schema_apply(struct conn *c, const char *dir,
                                  const struct migration *steps, int n,
                                  struct error *e);

#endif
