/* notary - see notary.h. */
#include "config.h"

#include "module/core/notary.h"

#include "common/clock.h"
#include "common/file.h"
#include "common/log.h"
#include "module/core/checkpoint.h"
#include "module/core/internal.h"
#include "module/core/keys_record.h"
#include "module/core/logbook.h"
#include "module/core/rollback.h"

#include <inttypes.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define META_ORIGIN "log.origin"
#define OBJECT "log"

enum {
    TICK_MS = 1000, /* a keeper that was started again is noticed */
    REST_MS = 20,   /* between two rounds: what is new meanwhile shares one */
    RETRY_FIRST_MS = 1000, /* after a failure; doubled up to … */
    RETRY_MAX_MS = 8000,
    STOP_MS = 3000 /* for the last checkpoint */
};

/* ---- names ---- */

/* Without its epoch. */
static enum code base_origin(struct core *c, char out[NOTE_NAME_MAX],
                             struct error *e)
{
    FREE void *instance = NULL;
    size_t len = 0;
    enum code code;

    if (c->settings->audit.origin) {
        snprintf(out, NOTE_NAME_MAX, "%s", c->settings->audit.origin);
        return OK;
    }
    code = store_meta_get(c->store, META_INSTANCE, &instance, &len, e);
    *out = '\0';
    if (!code)
        snprintf(out, NOTE_NAME_MAX, "hsmint/%s", (const char *)instance);
    return code;
}

enum code notary_origin(struct core *c, char origin[NOTE_NAME_MAX],
                        struct error *e)
{
    struct notary *n = &c->notary;
    FREE void *kept = NULL;
    size_t len = 0;
    enum code code;

    pthread_mutex_lock(&n->lock);
    memcpy(origin, n->origin, NOTE_NAME_MAX);
    pthread_mutex_unlock(&n->lock);
    if (*origin)
        return OK;
    code = store_meta_get(c->store, META_ORIGIN, &kept, &len, e);
    if (!code)
        snprintf(origin, NOTE_NAME_MAX, "%s", (const char *)kept);
    else if (code == ERR_NOT_FOUND)
        code = base_origin(c, origin, e);
    if (code != ERR_NOT_FOUND)
        return code;
    error_clear(e); /* before `hsmint init` */
    return OK;
}

/* ---- keeping what was signed ---- */

struct keep {
    const char *note, *origin;
    uint64_t size;
};

static enum code put_checkpoint(struct store_tx *tx, void *ctx, struct error *e)
{
    const struct keep *k = ctx;
    enum code code =
        store_checkpoint_put(tx, k->size, k->note, clock_wall_ms(), e);

    return code ? code
                : store_meta_put(tx, META_ORIGIN, k->origin, strlen(k->origin),
                                 e);
}

/* The keeper counts it whether the store takes it or not: it is tried again
 * with the next, and nobody has to wait for that. */
static void save(struct core *c)
{
    struct notary *n = &c->notary;
    struct keep k = {n->unsaved, n->origin, n->unsaved_size};
    struct error e = {0};

    if (!n->unsaved)
        return;
    if (store_commit(c->store, STORE_RESERVE, put_checkpoint, &k, &e) != OK) {
        log_failure(&e, "the checkpoint of %" PRIu64 " records is not kept yet",
                    n->unsaved_size);
        return;
    }
    free(n->unsaved);
    n->unsaved = NULL;
}

/* One line, from which the note can be made again. */
static void tell(struct core *c, const char *note)
{
    struct notary *n = &c->notary;
    int64_t now = clock_monotonic_ms();
    char line[2048];

    bool lately = n->logged_ms &&
                  now - n->logged_ms < c->settings->audit.seconds * 1000;

    if (!c->settings->audit.log || (lately && !n->is_last))
        return;
    n->logged_ms = now;
    snprintf(line, sizeof(line), "%s", note);
    for (char *at = line; (at = strchr(at, '\n')); at++)
        *at = '|';
    log_info("checkpoint %s", line);
}

static void set_tree(struct notary *n, const struct checkpoint *tree)
{
    n->size = tree->size;
    pthread_mutex_lock(&n->lock);
    memcpy(n->origin, tree->origin, sizeof(n->origin));
    pthread_mutex_unlock(&n->lock);
}

static void take(struct core *c, struct checkpoint_note *k)
{
    struct notary *n = &c->notary;

    set_tree(n, &k->checkpoint);
    free(n->unsaved);
    n->unsaved = k->note;
    n->unsaved_size = k->checkpoint.size;
    k->note = NULL;
    tell(c, n->unsaved);
    save(c);
}

/* ---- a keeper that was started ---- */

/* Neither of the two knows a log that the store had signed. */
static enum code forgotten(struct core *c, struct error *e)
{
    CLEANUP(store_checkpoint_clear) struct store_checkpoint k = {.note = NULL};
    enum code code = store_checkpoint_get(c->store, UINT64_MAX, &k, e);

    if (code == ERR_NOT_FOUND) { /* nothing was ever signed */
        error_clear(e);
        return OK;
    }
    return code ? code
                : error_set(e, ERR_ROLLED_BACK,
                            "neither the keeper nor the HSM knows the log, of "
                            "which %" PRIu64 " records are signed: another "
                            "token, or its anchor is gone",
                            k.size);
}

static enum code judge(struct core *c, const struct checkpoint_state *s,
                       struct error *e)
{
    if (s->begun || s->anchored)
        return checkpoint_compare_all(c, s, e);
    if (*s->tree.origin)
        return error_set(e, ERR_ROLLED_BACK,
                         "the anchor of %s is gone from the HSM",
                         s->tree.origin);
    return forgotten(c, e);
}

/* The next epoch, or the first one. */
static enum code begin(struct core *c, uint64_t generation, struct error *e)
{
    CLEANUP(checkpoint_note_clear) struct checkpoint_note k = {.note = NULL};
    char base[NOTE_NAME_MAX];
    struct store_head head;
    enum code code = base_origin(c, base, e);

    if (!code)
        code = store_log_head(c->store, &head, e);
    if (!code)
        code = checkpoint_begin(c, generation, base, head.size, &k, e);
    if (!code)
        take(c, &k);
    return code;
}

static enum code next_epoch(struct core *c, uint64_t generation,
                            const struct checkpoint_state *s,
                            const struct error *why, struct error *e)
{
    enum code code = rollback_note(c, s, why, e);

    return code ? code : begin(c, generation, e);
}

static enum code resume(struct core *c, uint64_t generation,
                        const struct checkpoint_state *s, struct error *e)
{
    CLEANUP(checkpoint_note_clear) struct checkpoint_note k = {.note = NULL};
    enum code code =
        checkpoint_resume(c, generation, s->anchor.size, &k, e);

    if (!code)
        take(c, &k);
    return code;
}

static enum code sign(struct core *c, uint64_t generation, bool anchor,
                      struct error *e);

/* With what the keeper remembers of before in it, or the store has lost that:
 * seen once, by a daemon that has signed nothing yet. Later it would be a lie
 * of this very process, and an administrator has to look. */
static enum code catch_up(struct core *c, uint64_t generation,
                          const struct checkpoint_state *s, struct error *e)
{
    struct error why = {0};
    /* Before its first call a daemon leaves its mark: one that goes on from a
     * copy of its state sees that it is not alone. */
    enum code code = sign(c, generation, !c->notary.met, &why);

    if (code == ERR_NOT_LOGGED && !c->notary.met && s->outstanding > 0)
        return next_epoch(c, generation, s, &why, e);
    if (code && e)
        *e = why;
    return code;
}

static enum code attach(struct core *c, uint64_t generation, struct error *e)
{
    struct notary *n = &c->notary;
    struct checkpoint_state s;
    struct error why = {0};
    enum code code = checkpoint_look(c, generation, &s, e);
    bool is_first = !s.begun && !s.anchored && !*s.tree.origin;

    if (code)
        return code;
    code = judge(c, &s, &why);
    if (code == ERR_ROLLED_BACK)
        code = next_epoch(c, generation, &s, &why, e);
    else if (code)
        *e = why;
    else if (is_first)
        code = begin(c, generation, e);
    else if (!s.begun)
        code = resume(c, generation, &s, e);
    else
        set_tree(n, &s.tree);
    if (!code)
        code = keys_record_write(c, e);
    return code ? code : catch_up(c, generation, &s, e);
}

/* ---- a checkpoint ---- */

/* Of the records that were counted some may not be committed yet, or never
 * will: they are counted on, until a round that time brings. */
static void discount(struct notary *n, int fresh, uint64_t size)
{
    uint64_t found = size > n->size ? size - n->size : 0;

    if (!n->by_time && found < (uint64_t)fresh)
        fresh = (int)found;
    atomic_fetch_sub(&n->fresh, fresh);
}

static enum code sign(struct core *c, uint64_t generation, bool anchor,
                      struct error *e)
{
    int fresh = atomic_load(&c->notary.fresh);
    CLEANUP(checkpoint_note_clear) struct checkpoint_note k = {.note = NULL};
    struct notary *n = &c->notary;
    struct store_head head;
    uint64_t logged;
    enum code code;

    /* First: what is counted here is in the store by the next line. */
    pthread_mutex_lock(&n->lock);
    logged = n->logged;
    pthread_mutex_unlock(&n->lock);
    code = store_log_head(c->store, &head, e);
    if (!code)
        discount(n, fresh, head.size);
    if (!code && (head.size != n->size || anchor)) {
        code = checkpoint_sign(c, generation, n->size, head.size, anchor, &k, e);
        if (!code)
            take(c, &k);
    }
    if (code)
        return code;
    n->met = true;
    pthread_mutex_lock(&n->lock);
    n->covered = logged;
    pthread_mutex_unlock(&n->lock);
    return OK;
}

/* The HSM or its keeper is away: other alarms tell that. */
static bool is_away(enum code code)
{
    switch (code) {
    case ERR_KEEPER:
    case ERR_LOCKED:
    case ERR_HSM_ABSENT:
    case ERR_DEADLINE:
    case ERR_PIN_WRONG:
    case ERR_PIN_HELD:
    case ERR_PIN_LOCKED:
        return true;
    default:
        return false;
    }
}

/* Says nothing of the keeper's tree: calls go on within its bounds. */
static bool is_harmless(enum code code)
{
    return code == OK || code == ERR_HSM_FAILED || code == ERR_DEADLINE ||
           code == ERR_NOMEM || code == ERR_IO || code == ERR_DISK_FULL;
}

static void set_attached(struct notary *n, uint64_t generation)
{
    pthread_mutex_lock(&n->lock);
    n->attached = generation;
    pthread_mutex_unlock(&n->lock);
}

static bool is_attached(struct notary *n, uint64_t generation)
{
    bool is;

    pthread_mutex_lock(&n->lock);
    is = n->attached == generation;
    pthread_mutex_unlock(&n->lock);
    return is;
}

static enum code round_now(struct core *c, bool anchor, struct error *e)
{
    struct notary *n = &c->notary;
    uint64_t generation = atomic_load(&c->unlock.ready);
    enum code code = OK;

    if (generation == 0)
        return error_set(e, ERR_LOCKED, "the HSM is not ready to sign the log");
    save(c);
    if (!is_attached(n, generation)) {
        set_attached(n, 0);
        code = attach(c, generation, e);
        if (!code)
            set_attached(n, generation);
    }
    if (!code)
        code = sign(c, generation, anchor, e);
    if (!is_harmless(code))
        set_attached(n, 0);
    if (is_away(code))
        watch_poke(c);
    return code;
}

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
                          logbook_text(reason, LOGBOOK_TEXT_MAX), "calls",
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
    if (is_away(why->code) || (failures < 2 && !refused))
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
        if (round_now(c, stop, &why) != OK)
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

enum code notary_sign(struct core *c, struct error *e)
{
    struct notary *n = &c->notary;
    struct timespec until = clock_in_ms(c->settings->hsm_deadline_ms * 2);
    uint64_t ready;
    enum code code = unlock_ready(c, &ready, e);
    bool is_done;

    if (code)
        return code;
    pthread_mutex_lock(&n->lock);
    is_done = wait_for_round(n, ask_round(n), &until);
    if (!is_done)
        code = error_set(e, ERR_DEADLINE, "the HSM did not sign the log in time");
    else if (n->failure.code)
        code = error_set(e, n->failure.code, "%s", n->failure.text);
    pthread_mutex_unlock(&n->lock);
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
    if (is_done && is_away(n->failure.code))
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

/* ---- the anchor ---- */

enum code notary_compare(struct core *c, struct error *e)
{
    struct checkpoint_state s;
    uint64_t generation;
    enum code code = unlock_ready(c, &generation, e);

    if (!code && notary_rolled_back(c, e))
        return ERR_ROLLED_BACK;
    if (!code)
        code = checkpoint_look(c, generation, &s, e);
    if (!code)
        code = judge(c, &s, e);
    if (code == ERR_ROLLED_BACK)
        notary_refused(c);
    return code;
}

enum code notary_anchored(struct core *c, uint64_t *size, struct error *e)
{
    struct checkpoint_state s;
    uint64_t generation;
    enum code code = unlock_ready(c, &generation, e);

    if (!code)
        code = checkpoint_look(c, generation, &s, e);
    *size = code || !s.anchored ? 0 : s.anchor.size;
    if (!code && s.begun && s.tree.size < *size)
        *size = s.tree.size;
    return code;
}
