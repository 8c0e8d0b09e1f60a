/* notary - see notary.h. */
#include "config.h"

#include "module/core/notary.h"

#include "common/clock.h"
#include "common/log.h"
#include "module/core/internal.h"
#include "module/core/logbook.h"
#include "module/core/notary_round.h"
#include "module/core/rollback.h"

#include <stdlib.h>
#include <time.h>

#define OBJECT "log"

enum {
    TICK_MS = 1000, /* a keeper that was started again is noticed */
    REST_MS = 20,   /* between two rounds: what is new meanwhile shares one */
    RETRY_FIRST_MS = 1000, /* after a failure; doubled up to … */
    RETRY_MAX_MS = 8000,
    STOP_MS = 3000 /* for the last checkpoint */
};

/* ---- what is told of failures ---- */

static void record(struct core *c, enum record_kind kind, const char *reason)
{
    struct notary *n = &c->notary;
    struct error e = {0};
    int64_t calls, seconds =
        n->failing_ms ? (clock_monotonic_ms() - n->failing_ms) / 1000 : 0;

    pthread_mutex_lock(&n->lock);
    calls = (int64_t)(n->entered - n->covered);
    pthread_mutex_unlock(&n->lock);
    const struct logbook_entry r = {
        .kind = kind,
        .more = json_pack("{so sI sI}", "reason",
                          logbook_error_text(reason, LOGBOOK_TEXT_MAX), "calls",
                          (json_int_t)calls, "seconds", (json_int_t)seconds)};

    if (logbook_commit(c, STORE_RESERVE, &r, &e) != OK)
        log_failure(&e, "%s cannot be recorded", record_kind_name(kind));
}

static void note_success(struct core *c)
{
    struct notary *n = &c->notary;

    if (n->told_stop)
        record(c, RECORD_FORCED_END, "a checkpoint was signed");
    n->failing_ms = 0;
    n->told_failed = n->told_stop = false;
    warnings_drop(&c->warnings, ALARM_LOG_UNSIGNED, OBJECT);
}

/* Once by itself is nothing yet, unless calls wait for it. */
static void note_failure(struct core *c, const struct error *why, int failures,
                         bool refused)
{
    struct notary *n = &c->notary;

    if (!n->failing_ms)
        n->failing_ms = clock_monotonic_ms();
    if (notary_is_away(why->code) || (failures < 2 && !refused))
        return;
    warnings_raise(&c->warnings, ALARM_LOG_UNSIGNED, OBJECT, "%s", why->text);
    if (!n->told_failed)
        record(c, RECORD_CHECKPOINT_FAILED, why->text);
    n->told_failed = true;
    if (refused && !n->told_stop) {
        record(c, RECORD_FORCED_STOP, why->text);
        n->told_stop = true;
    }
}

static int64_t retry_ms(int failures)
{
    int64_t ms = RETRY_FIRST_MS;

    for (int i = 1; i < failures && ms < RETRY_MAX_MS; i++)
        ms *= 2;
    return ms;
}

static void finish(struct core *c, uint64_t serves, const struct error *why)
{
    struct notary *n = &c->notary;
    bool refused;
    int failures;

    pthread_mutex_lock(&n->lock);
    n->done = serves;
    n->failure = *why;
    n->failures = failures = why->code ? n->failures + 1 : 0;
    refused = n->refused;
    n->refused = refused && why->code;
    n->rested_ms = clock_monotonic_ms() + REST_MS;
    n->due_ms = clock_monotonic_ms() +
                (why->code ? retry_ms(failures)
                           : c->settings->audit.seconds * 1000);
    pthread_cond_broadcast(&n->changed);
    pthread_mutex_unlock(&n->lock);
    if (!why->code)
        note_success(c);
    else
        note_failure(c, why, failures, refused);
}

/* ---- the thread ---- */

/* With the lock held. A keeper that is new is attached at once; one that could
 * not be waits its turn. */
static bool is_due(struct core *c)
{
    struct notary *n = &c->notary;
    uint64_t ready = atomic_load(&c->unlock.ready);
    bool calls = n->entered - n->covered >= NOTARY_CALLS_MAX / 2;
    int64_t now = clock_monotonic_ms();

    n->by_time = now >= n->due_ms;
    if (n->asked != n->done || n->by_time)
        return true;
    if (n->failures > 0 || now < n->rested_ms)
        return false;
    return (ready != 0 && ready != n->attached) || calls ||
           atomic_load(&n->fresh) >= c->settings->audit.records;
}

static void wait_until_due(struct core *c)
{
    struct notary *n = &c->notary;

    while (!n->stop && !is_due(c)) {
        struct timespec until = clock_in_ms(
            clock_monotonic_ms() < n->rested_ms ? REST_MS : TICK_MS);

        (void)pthread_cond_clockwait(&n->changed, &n->lock, CLOCK_MONOTONIC,
                                     &until);
    }
}

static void *run(void *arg)
{
    struct core *c = arg;
    struct notary *n = &c->notary;
    bool stop = false;

    pthread_mutex_lock(&n->lock);
    while (!stop) {
        struct error why = {0};
        uint64_t serves;

        wait_until_due(c);
        serves = n->asked;
        stop = n->is_last = n->stop;
        pthread_mutex_unlock(&n->lock);
        if (notary_round(c, stop, &why) != OK)
            log_debug("the log is not signed: %s", why.text);
        finish(c, serves, &why);
        pthread_mutex_lock(&n->lock);
    }
    n->started = false;
    pthread_cond_broadcast(&n->changed);
    pthread_mutex_unlock(&n->lock);
    return NULL;
}

enum code notary_start(struct core *c, struct error *e)
{
    enum code code = rollback_load(c, e);
    int r;

    if (code)
        return code;
    c->notary.started = true;
    r = pthread_create(&c->notary.thread, NULL, run, c);
    if (r == 0)
        return OK;
    c->notary.started = false;
    return error_errno(e, r, "cannot start the notary's thread");
}

/* A hung HSM does not hold up the end: its keeper is ended. */
void notary_stop(struct core *c)
{
    struct notary *n = &c->notary;
    struct timespec until = clock_in_ms(STOP_MS);
    int timed_out = 0;

    pthread_mutex_lock(&n->lock);
    if (!n->started) {
        pthread_mutex_unlock(&n->lock);
        return;
    }
    n->stop = true;
    pthread_cond_broadcast(&n->changed);
    while (n->started && !timed_out)
        timed_out = pthread_cond_clockwait(&n->changed, &n->lock,
                                           CLOCK_MONOTONIC, &until);
    pthread_mutex_unlock(&n->lock);
    if (timed_out)
        keeper_end(c->keeper);
    pthread_join(n->thread, NULL);
    free(n->unsaved);
    n->unsaved = NULL;
}

/* ---- what others ask ---- */

void notary_note(struct core *c)
{
    struct notary *n = &c->notary;

    if (atomic_fetch_add(&n->fresh, 1) + 1 != c->settings->audit.records)
        return;
    pthread_mutex_lock(&n->lock);
    pthread_cond_broadcast(&n->changed);
    pthread_mutex_unlock(&n->lock);
}

void notary_wake(struct core *c)
{
    pthread_mutex_lock(&c->notary.lock);
    c->notary.asked++;
    pthread_cond_broadcast(&c->notary.changed);
    pthread_mutex_unlock(&c->notary.lock);
}

/* With the lock held: a round that begins now has ended, or time is over. */
static bool wait_for_round(struct notary *n, uint64_t mine,
                           const struct timespec *until)
{
    int timed_out = 0;

    while (n->started && n->done < mine && !timed_out)
        timed_out = pthread_cond_clockwait(&n->changed, &n->lock,
                                           CLOCK_MONOTONIC, until);
    return n->done >= mine;
}

static uint64_t ask_round(struct notary *n)
{
    uint64_t mine = ++n->asked;

    pthread_cond_broadcast(&n->changed);
    return mine;
}

enum code notary_sign(struct core *c, bool anchor, struct error *e)
{
    struct notary *n = &c->notary;
    struct timespec until = clock_in_ms(c->settings->hsm_deadline_ms * 2);
    uint64_t ready;
    enum code code = unlock_ready(c, &ready, e);
    bool is_done;

    if (code)
        return code;
    pthread_mutex_lock(&n->lock);
    n->wants_anchor = n->wants_anchor || anchor;
    is_done = wait_for_round(n, ask_round(n), &until);
    if (!is_done)
        code = error_set(e, ERR_DEADLINE, "the HSM did not sign the log in time");
    else if (n->failure.code)
        code = error_set(e, n->failure.code, "%s", n->failure.text);
    pthread_mutex_unlock(&n->lock);
    return code;
}

/* What is anchored from here on both have signed: *size records at least. */
static enum code sign_anchor(struct core *c, uint64_t *size, struct error *e)
{
    struct store_head head = {.size = 0};
    uint64_t anchored = 0;
    enum code code = store_log_head(c->store, &head, e);

    if (!code)
        code = notary_sign(c, true, e);
    if (!code)
        code = notary_anchored(c, &anchored, e);
    if (!code && anchored < head.size)
        code = error_set(e, ERR_HSM_FAILED,
                         "the log's anchor could not be written to the HSM: "
                         "the keeper's log says why");
    *size = head.size;
    return code;
}

enum code notary_hand_over(struct core *c, uint64_t *size, struct error *e)
{
    CLEANUP(store_checkpoint_clear) struct store_checkpoint k = {.note = NULL};
    char origin[NOTE_NAME_MAX];
    uint64_t signed_size = 0;
    enum code code = sign_anchor(c, &signed_size, e);

    if (!code)
        code = notary_origin(c, origin, e);
    if (!code)
        code = store_checkpoint_get(c->store, UINT64_MAX, &k, e);
    /* An older one, which the old key signed alone, hands over nothing. */
    if (!code && k.size < signed_size)
        code = error_set(e, ERR_IO,
                         "the checkpoint that hands the log over is not kept "
                         "yet: the daemon's log says why");
    if (!code)
        code = notary_check_old(c, k.note, origin, e);
    if (!code)
        *size = k.size;
    return code;
}

/* ---- calls ---- */

/* With the lock held. */
static bool has_room(const struct notary *n, uint64_t generation)
{
    return n->attached == generation &&
           n->entered - n->covered < NOTARY_CALLS_MAX;
}

static enum code refuse(struct notary *n, bool is_done, struct error *e)
{
    n->refused = true;
    if (is_done && notary_is_away(n->failure.code))
        return error_set(e, n->failure.code, "%s", n->failure.text);
    return error_set(e, ERR_NOT_LOGGED,
                     "no call is made while the log cannot be signed: %s",
                     !is_done          ? "the HSM does not answer"
                     : n->failure.code ? n->failure.text
                                       : "too many calls wait for it");
}

enum code notary_enter(struct core *c, uint64_t *ready, struct error *e)
{
    struct notary *n = &c->notary;
    struct timespec until = clock_in_ms(c->settings->hsm_deadline_ms);
    enum code code = unlock_ready(c, ready, e);
    uint64_t generation = *ready;
    bool is_done = true;

    if (code)
        return code;
    pthread_mutex_lock(&n->lock);
    /* Twice: the round that was under way may have begun before we came. */
    for (int tries = 0; tries < 2 && is_done && !has_room(n, generation);
         tries++)
        is_done = wait_for_round(n, ask_round(n), &until);
    if (has_room(n, generation))
        n->entered++;
    else
        code = refuse(n, is_done, e);
    pthread_mutex_unlock(&n->lock);
    return code;
}

void notary_logged(struct core *c)
{
    pthread_mutex_lock(&c->notary.lock);
    c->notary.logged++;
    pthread_mutex_unlock(&c->notary.lock);
}

void notary_left(struct core *c)
{
    pthread_mutex_lock(&c->notary.lock);
    c->notary.entered--;
    pthread_mutex_unlock(&c->notary.lock);
}

void notary_refused(struct core *c)
{
    pthread_mutex_lock(&c->notary.lock);
    c->notary.refused = true;
    c->notary.attached = 0; /* its tree is looked at again */
    pthread_mutex_unlock(&c->notary.lock);
    notary_wake(c);
}
