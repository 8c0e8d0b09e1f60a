/* revoke_all - see revoke_all.h. */
#include "config.h"

#include "module/core/revoke_all.h"

#include "common/clock.h"
#include "common/file.h"
#include "common/log.h"
#include "module/core/absent.h"
#include "module/core/internal.h"
#include "module/core/lease.h"
#include "module/core/logbook.h"
#include "module/core/revoke.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { LOOK_MS = 100, AGAIN_MS = 2000, REASON_MAX = 512 };

/* ---- the document ---- */

static enum code read_job(struct core *c, struct revoke_job *j, struct error *e)
{
    CLEANUP(store_document_clear) struct store_document d = {.kind = NULL};
    enum code code =
        store_document_get(c->store, JOB_KIND, JOB_REVOKE_ALL, &d, e);

    return code ? code : revoke_job_parse(j, d.body, e);
}

struct writing {
    struct core *core;
    const struct caller *by;
    const struct revoke_job *job;
    bool dry_run;
};

static enum code write_record(struct store_tx *tx, const struct writing *w,
                              struct error *e)
{
    const struct revoke_job *j = w->job;
    json_t *more = json_pack(
        "{ss so sb sI}", "step", j->done ? "end" : "begin", "reason",
        logbook_text(j->reason, REASON_MAX), "dry_run", (int)w->dry_run,
        "leases", (json_int_t)json_array_size(j->leases));
    const struct logbook_entry r = {
        .kind = RECORD_BREAK_GLASS, .by = w->by, .more = more};

    if (more && j->done &&
        json_object_set_new(more, "proven", json_integer(j->proven)) != 0) {
        json_decref(more);
        return error_set(e, ERR_NOMEM, "no memory for a record");
    }
    return logbook_add(w->core, tx, &r, e);
}

static enum code write_job(struct store_tx *tx, void *ctx, struct error *e)
{
    const struct writing *w = ctx;
    FREE char *body = NULL;
    enum code code = w->dry_run ? OK : revoke_job_body(w->job, &body, e);

    if (!code && body)
        code = store_document_put(tx, JOB_KIND, JOB_REVOKE_ALL, body,
                                  clock_wall_ms(), e);
    return code ? code : write_record(tx, w, e);
}

static enum code put_job(struct core *c, const struct revoke_job *j,
                         const struct caller *by, bool dry_run, struct error *e)
{
    struct writing w = {c, by, j, dry_run};

    return store_commit(c->store, STORE_RESERVE, write_job, &w, e);
}

/* ---- no key is minted ---- */

#define UNDER_WAY "revoke-all is under way"
#define UNREADABLE                                                             \
    "a revoke-all of before cannot be read; `hsmint revoke-all --reason TEXT` " \
    "begins it anew"

/* Once, however often it is asked for: the job's end ends one. */
static enum code hold_mints(struct core *c, const char *why, struct error *e)
{
    struct revoke_all *r = &c->revoke_all;
    enum code code = OK;

    if (r->halted)
        halt_say(&c->halt, HALT_ALL, why);
    else
        code = halt_begin(&c->halt, HALT_ALL, why, e);
    r->halted = !code;
    return code;
}

static void release_mints(struct core *c)
{
    halt_end(&c->halt, HALT_ALL);
    c->revoke_all.halted = false;
}

/* ---- the thread ---- */

static bool is_stopped(struct revoke_all *r)
{
    bool stop;

    pthread_mutex_lock(&r->lock);
    stop = r->stop;
    pthread_mutex_unlock(&r->lock);
    return stop;
}

static void nap(struct revoke_all *r, int64_t ms)
{
    struct timespec until = clock_in_ms(ms);

    pthread_mutex_lock(&r->lock);
    while (!r->stop && pthread_cond_clockwait(&r->poke, &r->lock,
                                              CLOCK_MONOTONIC, &until) == 0)
        ;
    pthread_mutex_unlock(&r->lock);
}

static void say(struct revoke_all *r, const char *text)
{
    pthread_mutex_lock(&r->lock);
    snprintf(r->text, sizeof(r->text), "%.*s", (int)sizeof(r->text) - 1, text);
    pthread_mutex_unlock(&r->lock);
}

/* What the sweeper knows of keys that it used until they were refused. */
static enum code count_proofs(struct core *c, struct revoke_job *j, bool *waits,
                              struct error *e)
{
    size_t i;
    json_t *id;

    j->refused = j->unproven = 0;
    *waits = false;
    json_array_foreach(j->leases, i, id)
    {
        LEASE l = {0};
        enum code code = store_lease_get(c->store, json_string_value(id), &l,
                                         e);

        if (code == ERR_NOT_FOUND)
            continue;
        if (code)
            return code;
        j->refused += l.proof == PROOF_DEAD;
        j->unproven += l.proof == PROOF_UNPROVEN;
        *waits = *waits || l.proof == PROOF_WAITS;
    }
    error_clear(e);
    return OK;
}

/* One round. OK with *over false: once more, after a while. */
static enum code pass(struct core *c, struct revoke_job *j, bool *over,
                      struct error *e)
{
    int64_t left, found = 0;
    bool waits;
    enum code code = revoke_mark(c, 0, NULL, JOB_REVOKE_ALL, NULL, e);

    *over = false;
    if (!code)
        code = revoke_wait(c, 0, NULL, LOOK_MS, &left, e);
    if (code || left > 0)
        return code;
    code = absent_check(c, j->leases, &found, e);
    if (code || found > 0)
        return code;
    code = count_proofs(c, j, &waits, e);
    if (code || waits)
        return code;
    j->done = *over = true;
    j->ended_ms = clock_wall_ms();
    j->proven = (int64_t)json_array_size(j->leases);
    code = put_job(c, j, NULL, false, e);
    if (code)
        j->done = *over = false;
    return code;
}

static void work(struct core *c, struct revoke_job *j)
{
    struct revoke_all *r = &c->revoke_all;

    for (bool over = false; !over && !is_stopped(r);) {
        struct error e = {.code = OK};
        enum code code = pass(c, j, &over, &e);

        if (code)
            log_failure(&e, "revoke-all goes on");
        say(r, code ? e.text : "");
        if (!over)
            nap(r, code ? AGAIN_MS : LOOK_MS);
    }
    if (j->done)
        log_warning("revoke-all: %lld leases are dead, and no account of them "
                    "is left",
                    (long long)j->proven);
}

static void *run(void *arg)
{
    struct core *c = arg;
    struct revoke_all *r = &c->revoke_all;

    work(c, &r->job);
    pthread_mutex_lock(&r->lock);
    if (r->job.done)
        release_mints(c);
    r->running = false;
    pthread_mutex_unlock(&r->lock);
    return NULL;
}

/* Mints are held; the thread releases them with the job's end. Takes what `j`
 * has. */
static enum code start(struct core *c, struct revoke_job *j, struct error *e)
{
    struct revoke_all *r = &c->revoke_all;
    int rc;

    if (r->started)
        pthread_join(r->thread, NULL);
    r->started = false;
    revoke_job_clear(&r->job);
    r->job = *j;
    *j = (struct revoke_job){.reason = NULL};
    r->running = true;
    rc = pthread_create(&r->thread, NULL, run, c);
    if (rc != 0) {
        r->running = false;
        return error_errno(e, rc, "cannot start revoke-all's thread; the job "
                                  "goes on when the daemon is started anew");
    }
    r->started = true;
    return OK;
}

enum code revoke_all_resume(struct core *c, struct error *e)
{
    REVOKE_JOB j = {0};
    enum code code = read_job(c, &j, e);

    if (code == ERR_NOT_FOUND) {
        error_clear(e);
        return OK;
    }
    if (code) {
        log_failure(e, "no key is minted, for " UNREADABLE);
        error_clear(e);
        c->revoke_all.unreadable = true;
        return hold_mints(c, UNREADABLE, e);
    }
    if (j.done)
        return OK;
    log_warning("revoke-all goes on: %s", j.reason);
    code = hold_mints(c, UNDER_WAY, e);
    return code ? code : start(c, &j, e);
}

void revoke_all_stop(struct core *c)
{
    struct revoke_all *r = &c->revoke_all;

    pthread_mutex_lock(&r->lock);
    r->stop = true;
    pthread_cond_broadcast(&r->poke);
    pthread_mutex_unlock(&r->lock);
    if (r->started)
        pthread_join(r->thread, NULL);
    r->started = false;
    revoke_job_clear(&r->job);
}

/* ---- begin ---- */

static enum code collect_id(const struct store_lease *l, void *ctx,
                            struct error *e)
{
    if (json_array_append_new(ctx, json_string(l->id)) == 0)
        return OK;
    return error_set(e, ERR_NOMEM, "no memory for a list of leases");
}

/* One transaction after the halt: what was inserted before is seen. */
static enum code settle(struct store_tx *tx, void *ctx, struct error *e)
{
    return store_tx_lease_counts(tx, 0, NULL, ctx, e);
}

static enum code fill(struct core *c, struct revoke_job *j, const struct caller *by,
                      const char *reason, struct error *e)
{
    const struct store_lease_query live = {.live_only = true};
    struct store_counts n;
    enum code code = store_commit(c->store, STORE_RESERVE, settle, &n, e);

    j->leases = json_array();
    j->reason = strdup(reason ? reason : "");
    j->by = strdup(by->owner);
    j->began_ms = clock_wall_ms();
    if (!code && (!j->leases || !j->reason || !j->by))
        code = error_set(e, ERR_NOMEM, "no memory for a job");
    if (!code)
        code = text_id(j->id, e);
    return code ? code
                : store_lease_each(c->store, &live, collect_id, j->leases, e);
}

/* What could not be begun holds nobody up; what was there before does. */
static void give_up(struct core *c)
{
    if (!c->revoke_all.unreadable)
        release_mints(c);
    else
        halt_say(&c->halt, HALT_ALL, UNREADABLE);
}

static enum code begin(struct core *c, const struct caller *by,
                       const char *reason, struct error *e)
{
    REVOKE_JOB j = {0};
    enum code code = hold_mints(c, UNDER_WAY, e);

    if (code)
        return code;
    code = fill(c, &j, by, reason, e);
    if (!code)
        code = put_job(c, &j, by, false, e);
    if (code) {
        give_up(c);
        return code;
    }
    c->revoke_all.unreadable = false;
    log_warning("revoke-all: %zu leases end, asked by %s: %s",
                json_array_size(j.leases), by->owner, j.reason);
    return start(c, &j, e);
}

static bool is_running(struct revoke_all *r, char text[256])
{
    bool running;

    pthread_mutex_lock(&r->lock);
    running = r->running;
    if (text)
        strcpy(text, running ? r->text : "");
    pthread_mutex_unlock(&r->lock);
    return running;
}

static enum code count_dead(struct core *c, const struct revoke_job *j, int64_t *dead,
                            struct error *e)
{
    struct store_counts n;
    enum code code = store_lease_counts(c->store, 0, NULL, &n, e);
    int64_t all = (int64_t)json_array_size(j->leases);
    int64_t live = n.pending + n.active + n.revoking;

    *dead = live < all ? all - live : 0;
    return code;
}

static enum code show(struct core *c, const struct revoke_job *j, json_t **out,
                      struct error *e)
{
    char text[256];
    int64_t all = (int64_t)json_array_size(j->leases), dead = all;
    bool running = is_running(&c->revoke_all, text);
    enum code code = j->done ? OK : count_dead(c, j, &dead, e);
    const char *state = j->done        ? "done"
                        : !running     ? "stopped"
                        : dead < all   ? "revoking"
                                       : "proving";

    if (code)
        return code;
    *out = json_pack("{ss ss ss ss sI sI sI sI sI sI sI ss}", "id", j->id,
                     "state", state, "reason", j->reason, "by", j->by,
                     "began_ms", (json_int_t)j->began_ms, "ended_ms",
                     (json_int_t)j->ended_ms, "leases", (json_int_t)all, "dead",
                     (json_int_t)dead, "proven", (json_int_t)j->proven,
                     "refused", (json_int_t)j->refused, "unproven",
                     (json_int_t)j->unproven, "text", text);
    return *out ? OK : error_set(e, ERR_NOMEM, "no memory for a job");
}

enum code core_revoke_all_status(struct core *c, json_t **out, struct error *e)
{
    REVOKE_JOB j = {0};
    enum code code = read_job(c, &j, e);

    if (code == ERR_NOT_FOUND)
        return error_set(e, ERR_NOT_FOUND,
                         "no revoke-all is under way, and none ever was");
    if (code)
        return error_prefix(e, UNREADABLE);
    return show(c, &j, out, e);
}

static enum code dry_run(struct core *c, const struct caller *by,
                         const char *reason, json_t **out, struct error *e)
{
    REVOKE_JOB j = {0};
    enum code code = fill(c, &j, by, reason, e);

    if (!code)
        code = put_job(c, &j, by, true, e);
    if (code)
        return code;
    *out = json_pack("{ss ss ss sI}", "state", "dry-run", "reason", j.reason,
                     "by", j.by, "leases",
                     (json_int_t)json_array_size(j.leases));
    return *out ? OK : error_set(e, ERR_NOMEM, "no memory for a job");
}

enum code core_revoke_all(struct core *c, const struct caller *by,
                          const char *reason, bool dry, json_t **out,
                          struct error *e)
{
    INFLIGHT hold = {0};
    enum code code = reason && strlen(reason) > REASON_MAX
                         ? error_set(e, ERR_INVALID,
                                     "reason: at most %d bytes", REASON_MAX)
                         : OK;

    if (!code)
        code = inflight_enter(&c->inflight, "job", JOB_REVOKE_ALL, NULL, NULL,
                              &hold, e);
    if (code)
        return code;
    if (dry)
        return dry_run(c, by, reason, out, e);
    /* Asked again while it runs: that one is told of. */
    if (!is_running(&c->revoke_all, NULL))
        code = begin(c, by, reason, e);
    return code ? code : core_revoke_all_status(c, out, e);
}
