/* The writer. An idle one is used by the calling thread, which is awake
 * already; else the writer thread takes all that wait into one transaction.
 * There is no timer: what arrives during one commit shares the next. */
#include "config.h"

#include "module/store/state.h"

#include "common/clock.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#define BATCH_MAX 256

struct request {
    enum store_urgency urgency;
    store_fn fn;
    void *ctx;
    struct error *e; /* the caller's, or NULL */
    enum code result;
    bool done; /* guarded by store.lock once queued */
    pthread_cond_t ready;
    struct request *next;
};

/* ---- one transaction ---- */

static enum code run(struct conn *c, const char *what, const char *sql,
                     struct error *e)
{
    QUERY q = {.st = NULL};
    enum code code = query_open(&q, c, what, sql, e);
    return code ? code : query_run(&q, e);
}

/* SQLite may have undone the transaction by itself (a full disk). */
static void rollback(struct conn *c)
{
    if (!sqlite3_get_autocommit(c->db))
        (void)sqlite3_exec(c->db, "ROLLBACK", NULL, NULL, NULL);
}

/* A rollback that failed is made up for. */
static enum code begin(struct conn *c, struct error *e)
{
    rollback(c);
    return run(c, "begin", "BEGIN IMMEDIATE", e);
}

static enum code run_alone(struct store *s, struct request *r, struct error *e)
{
    struct store_tx tx = {.c = s->writer};
    enum code code = begin(tx.c, e);
    if (code == OK)
        code = r->fn(&tx, r->ctx, e);
    if (code == OK)
        code = run(tx.c, "commit", "COMMIT", e);
    if (code)
        rollback(tx.c);
    return code;
}

/* The reserve file makes room for what may use it. The first run left
 * nothing, so its function can be run again. */
static void run_single(struct store *s, struct request *r)
{
    struct error local;
    struct error *e = r->e ? r->e : &local;
    r->result = run_alone(s, r, e);
    if (r->result == ERR_DISK_FULL && r->urgency == STORE_RESERVE &&
        reserve_spend(s))
        r->result = run_alone(s, r, e);
    if (r->result == OK)
        error_clear(e);
}

/* Its own failure undoes only itself. Returns what broke the whole batch. */
static enum code run_member(struct conn *c, struct request *r, struct error *e)
{
    struct store_tx tx = {.c = c};
    enum code code = run(c, "set a savepoint", "SAVEPOINT member", e);
    if (code)
        return code;
    r->result = r->fn(&tx, r->ctx, r->e);
    if (sqlite3_get_autocommit(c->db))
        return error_set(e, r->result ? r->result : ERR_INTERNAL,
                         "store %s: a commit that shared this one failed",
                         c->path);
    if (r->result)
        code = run(c, "undo a savepoint", "ROLLBACK TO member", e);
    return code ? code : run(c, "end a savepoint", "RELEASE member", e);
}

static enum code run_members(struct conn *c, struct request *list,
                             struct error *e)
{
    enum code code = begin(c, e);
    for (struct request *r = list; r && code == OK; r = r->next)
        code = run_member(c, r, e);
    if (code == OK)
        code = run(c, "commit", "COMMIT", e);
    if (code)
        rollback(c);
    return code;
}

/* Where the transaction broke, all that had succeeded failed with it. Those
 * that may use the reserve are tried once more, alone. */
static void settle(struct store *s, struct request *list, bool broke,
                   const struct error *why)
{
    for (struct request *r = list; r; r = r->next) {
        bool undone = broke && r->result == OK;
        if (r->urgency == STORE_RESERVE &&
            (undone || r->result == ERR_DISK_FULL)) {
            run_single(s, r);
        } else if (undone) {
            r->result = why->code;
            if (r->e)
                *r->e = *why;
        }
    }
}

/* Takes those that the reserve refuses out of `list`. */
static struct request *admit(struct store *s, struct request *list,
                             struct request **refused)
{
    struct request *admitted = NULL, **tail = &admitted;
    for (struct request *r = list, *next; r; r = next) {
        next = r->next;
        if (r->urgency == STORE_NORMAL)
            r->result = reserve_check(s, r->e);
        struct request ***to = r->result ? &refused : &tail;
        r->next = NULL;
        **to = r;
        *to = &r->next;
    }
    return admitted;
}

static void run_together(struct store *s, struct request *list)
{
    if (!list->next) {
        run_single(s, list);
        return;
    }
    struct error why = {.code = OK};
    bool broke = run_members(s->writer, list, &why) != OK;
    settle(s, list, broke, &why);
}

static void run_batch(struct store *s, struct request *list)
{
    int64_t began = clock_monotonic_us();
    uint64_t n = 0;
    for (const struct request *r = list; r; r = r->next)
        n++;
    run_together(s, list);
    histogram_add(&s->commit_times, &histogram_seconds,
                  (uint64_t)(clock_monotonic_us() - began));
    histogram_add(&s->commit_sizes, &histogram_numbers, n);
}

static bool is_ours(enum code code)
{
    return code == ERR_READ_ONLY || code == ERR_IO || code == ERR_SCHEMA;
}

/* The caller owns `busy`. Returns the whole list again, in any order. */
static struct request *run_list(struct store *s, struct request *list)
{
    struct request *refused = NULL;
    struct request *admitted = admit(s, list, &refused);
    if (!admitted)
        return refused;
    run_batch(s, admitted);
    struct request *last = admitted;
    while (last->next)
        last = last->next;
    last->next = refused;
    return admitted;
}

/* ---- the queue ---- */

/* With the lock held. */
static void set_busy(struct store *s, bool busy)
{
    s->busy = busy;
    s->step_ms = clock_monotonic_ms();
}

int64_t store_waiting_ms(struct store *s)
{
    pthread_mutex_lock(&s->lock);
    int64_t ms =
        s->busy || s->head ? clock_monotonic_ms() - s->step_ms : 0;
    pthread_mutex_unlock(&s->lock);
    return ms;
}

static struct request *take_some(struct store *s)
{
    struct request *list = s->head, *last = list;
    for (int n = 1; n < BATCH_MAX && last->next; n++)
        last = last->next;
    s->head = last->next;
    if (!s->head)
        s->tail = &s->head;
    last->next = NULL;
    return list;
}

static void *writer_main(void *arg)
{
    struct store *s = arg;
    pthread_mutex_lock(&s->lock);
    for (;;) {
        while (!s->stopping && (s->busy || !s->head))
            pthread_cond_wait(&s->work, &s->lock);
        if (s->stopping)
            break;
        struct request *list = take_some(s);
        set_busy(s, true);
        pthread_mutex_unlock(&s->lock);
        list = run_list(s, list);
        pthread_mutex_lock(&s->lock);
        set_busy(s, false);
        s->broken = is_ours(list->result);
        for (struct request *r = list, *next; r; r = next) {
            next = r->next; /* r is gone once its caller sees `done` */
            r->done = true;
            pthread_cond_signal(&r->ready);
        }
    }
    pthread_mutex_unlock(&s->lock);
    return NULL;
}

/* Started when two callers first meet; the daemon's signals are not its. */
static enum code start_thread(struct store *s, struct error *e)
{
    if (s->thread_runs)
        return OK;
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    int rc = pthread_create(&s->thread, NULL, writer_main, s);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (rc)
        return error_errno(e, rc, "store %s: cannot start the writer", s->path);
    s->thread_runs = true;
    return OK;
}

/* Both are called with the lock held, and give it back. */
static enum code commit_inline(struct store *s, struct request *r)
{
    set_busy(s, true);
    pthread_mutex_unlock(&s->lock);
    (void)run_list(s, r);
    pthread_mutex_lock(&s->lock);
    set_busy(s, false);
    s->broken = is_ours(r->result);
    if (s->head)
        pthread_cond_signal(&s->work);
    pthread_mutex_unlock(&s->lock);
    return r->result;
}

static enum code commit_queued(struct store *s, struct request *r)
{
    enum code code = start_thread(s, r->e);
    if (code) {
        pthread_mutex_unlock(&s->lock);
        return code;
    }
    pthread_cond_init(&r->ready, NULL);
    *s->tail = r;
    s->tail = &r->next;
    pthread_cond_signal(&s->work);
    while (!r->done)
        pthread_cond_wait(&r->ready, &s->lock);
    pthread_mutex_unlock(&s->lock);
    pthread_cond_destroy(&r->ready);
    return r->result;
}

enum code store_commit(struct store *s, enum store_urgency urgency, store_fn fn,
                       void *ctx, struct error *e)
{
    struct request r = {
        .urgency = urgency, .fn = fn, .ctx = ctx, .e = e, .result = OK};
    pthread_mutex_lock(&s->lock);
    return s->busy || s->head ? commit_queued(s, &r) : commit_inline(s, &r);
}

static enum code try_one(struct store_tx *tx, void *ctx, struct error *e)
{
    (void)ctx;
    return store_meta_put(tx, "store.check", "", 0, e);
}

enum code store_check(struct store *s, struct error *e)
{
    if (access(s->path, W_OK) < 0)
        return error_set(e, errno == ENOENT ? ERR_IO : ERR_READ_ONLY,
                         "%s: %s", s->path, strerror(errno));
    pthread_mutex_lock(&s->lock);
    bool broken = s->broken;
    pthread_mutex_unlock(&s->lock);
    return broken ? store_commit(s, STORE_RESERVE, try_one, NULL, e) : OK;
}

void commit_stop(struct store *s)
{
    pthread_mutex_lock(&s->lock);
    s->stopping = true;
    pthread_cond_signal(&s->work);
    pthread_mutex_unlock(&s->lock);
    if (s->thread_runs)
        pthread_join(s->thread, NULL);
}
