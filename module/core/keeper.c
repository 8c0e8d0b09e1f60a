/* keeper - see keeper.h. */
#include "config.h"

#include "module/core/keeper.h"

#include "common/clock.h"
#include "common/file.h"
#include "common/log.h"
#include "module/core/keeper_process.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

enum {
    CHANNELS_MAX = 64,
    FIRST_SOCKET = 3,
    UNREAPED_MAX = 8,
    STABLE_MS = 10000,     /* a keeper that lived so long died of bad luck */
    BACKOFF_FIRST_MS = 50, /* from the second early death on, doubled … */
    BACKOFF_MAX_MS = 5000, /* … up to here */
    PATIENCE_MS = 400      /* a caller waits so long, or is told to try again */
};

struct keeper {
    struct keeper_options options;
    int channels;

    pthread_mutex_t lock; /* guards all below */
    pthread_cond_t changed;
    bool running, starting;
    uint64_t generation;
    int64_t starts;
    struct keeper_process process;
    int idle[CHANNELS_MAX]; /* stack of sockets of this generation */
    int n_idle;
    /* Of others, and of those that give way. */
    pthread_cond_t freed[2];
    int waiting[2], used[2];
    int64_t started_ms, not_before_ms;
    int early_deaths, failed_starts;
    struct error failure; /* of the last start, where it failed */
    int64_t deaths;
    char why[256];
    int unreaped[UNREAPED_MAX]; /* pidfds that SIGKILL has not ended yet */
    int n_unreaped;
};

enum code keeper_new(struct keeper **out, const struct keeper_options *o,
                     struct error *e)
{
    struct keeper *k = calloc(1, sizeof(*k));
    pthread_condattr_t attr;

    if (!k)
        return error_set(e, ERR_NOMEM, "no memory for the keeper's channels");
    k->options = *o;
    k->channels = o->settings->keeper_threads;
    if (k->channels < 1)
        k->channels = 1;
    if (k->channels > CHANNELS_MAX)
        k->channels = CHANNELS_MAX;
    k->process.watch = -1;
    if (!o->start) {
        k->options.start =
            o->settings->keeper_socket ? keeper_connect : keeper_spawn;
        k->options.start_ctx = &k->options;
    }
    pthread_mutex_init(&k->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&k->changed, &attr);
    pthread_cond_init(&k->freed[0], &attr);
    pthread_cond_init(&k->freed[1], &attr);
    pthread_condattr_destroy(&attr);
    *out = k;
    return OK;
}

/* ---- the process ---- */

static void reap_unreaped(struct keeper *k)
{
    int kept = 0;

    for (int i = 0; i < k->n_unreaped; i++)
        if (!keeper_process_reap(k->unreaped[i]))
            k->unreaped[kept++] = k->unreaped[i];
    k->n_unreaped = kept;
}

/* With the lock held. */
static void back_off(struct keeper *k)
{
    int times = k->early_deaths + k->failed_starts;
    int wait = 0;

    for (int i = 1; i < times && wait < BACKOFF_MAX_MS; i++)
        wait = wait ? 2 * wait : BACKOFF_FIRST_MS;
    if (wait > BACKOFF_MAX_MS)
        wait = BACKOFF_MAX_MS;
    k->not_before_ms = clock_monotonic_ms() + wait;
}

/* With the lock held. */
static void changed(struct keeper *k)
{
    pthread_cond_broadcast(&k->changed);
    pthread_cond_broadcast(&k->freed[0]);
    pthread_cond_broadcast(&k->freed[1]);
}

/* With the lock held. Sockets in use are closed by their users. */
static void end_process(struct keeper *k)
{
    int64_t lived = clock_monotonic_ms() - k->started_ms;
    int left = -1;

    if (!k->running)
        return;
    k->running = false;
    while (k->n_idle > 0)
        close(k->idle[--k->n_idle]);
    keeper_process_end(&k->process, &left);
    if (left >= 0)
        k->unreaped[k->n_unreaped++] = left;
    k->early_deaths = lived >= STABLE_MS ? 0 : k->early_deaths + 1;
    back_off(k);
    changed(k);
}

void keeper_free(struct keeper *k)
{
    if (!k)
        return;
    pthread_mutex_lock(&k->lock);
    end_process(k);
    reap_unreaped(k);
    for (int i = 0; i < k->n_unreaped; i++)
        close(k->unreaped[i]);
    pthread_mutex_unlock(&k->lock);
    pthread_cond_destroy(&k->changed);
    pthread_cond_destroy(&k->freed[0]);
    pthread_cond_destroy(&k->freed[1]);
    pthread_mutex_destroy(&k->lock);
    free(k);
}

struct sockets {
    int fd[CHANNELS_MAX];
    int n;
};

static void sockets_close(struct sockets *s)
{
    while (s->n > 0)
        close(s->fd[--s->n]);
}

/* The child's ends are put above the numbers that it gets them under, so that
 * no dup2 overwrites one that is still to come. */
static enum code make_sockets(int n, struct sockets *ours,
                              struct sockets *theirs, struct error *e)
{
    for (int i = 0; i < n; i++) {
        int pair[2], high;

        if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) < 0)
            return error_errno(e, errno, "cannot make the keeper's sockets");
        ours->fd[ours->n++] = pair[0];
        high = fcntl(pair[1], F_DUPFD_CLOEXEC, FIRST_SOCKET + CHANNELS_MAX);
        close(pair[1]);
        if (high < 0)
            return error_errno(e, errno, "cannot make the keeper's sockets");
        theirs->fd[theirs->n++] = high;
    }
    return OK;
}

static enum code start_process(struct keeper *k, struct sockets *ours,
                               struct keeper_process *process, struct error *e)
{
    CLEANUP(sockets_close) struct sockets theirs = {.n = 0};
    enum code code = make_sockets(k->channels, ours, &theirs, e);

    if (!code)
        code = k->options.start(k->options.start_ctx, theirs.fd, theirs.n,
                                process, e);
    if (code)
        sockets_close(ours);
    return code;
}

static enum code may_start(struct keeper *k, int64_t *wait_ms, struct error *e)
{
    int64_t wait = k->not_before_ms - clock_monotonic_ms();

    *wait_ms = wait > 0 ? wait : 0;
    reap_unreaped(k);
    if (k->n_unreaped == UNREAPED_MAX)
        return error_set(e, ERR_KEEPER,
                         "%d keepers hang inside the kernel; the HSM's driver "
                         "needs attention",
                         UNREAPED_MAX);
    if (wait > PATIENCE_MS && k->failed_starts > 0)
        return error_set(e, ERR_KEEPER, "%s; tried again in %lld ms",
                         k->failure.text, (long long)wait);
    if (wait > PATIENCE_MS)
        return error_set(e, ERR_KEEPER,
                         "the keeper died %d times soon after its start; it is "
                         "started again in %lld ms",
                         k->early_deaths, (long long)wait);
    return OK;
}

/* With the lock held, which is given up while the process starts. */
static enum code start(struct keeper *k, struct error *e)
{
    struct sockets ours = {.n = 0};
    struct keeper_process process = {.watch = -1};
    struct error why = {0};
    int64_t wait;
    enum code code = may_start(k, &wait, e);

    if (code)
        return code;
    k->starting = true;
    pthread_mutex_unlock(&k->lock);
    nanosleep(&(struct timespec){.tv_nsec = wait * 1000000}, NULL);
    code = start_process(k, &ours, &process, &why);
    pthread_mutex_lock(&k->lock);
    k->starting = false;
    changed(k);
    k->started_ms = clock_monotonic_ms();
    if (code) {
        k->failed_starts++;
        k->failure = why;
        back_off(k);
        return error_set(e, code, "%s", why.text);
    }
    k->failed_starts = 0;
    k->running = true;
    k->generation++;
    k->starts++;
    k->process = process;
    memcpy(k->idle, ours.fd, sizeof(k->idle));
    k->n_idle = ours.n;
    log_info("keeper %d started", (int)process.pid);
    return OK;
}

static enum code ensure_locked(struct keeper *k, struct error *e)
{
    while (k->starting)
        pthread_cond_wait(&k->changed, &k->lock);
    return k->running ? OK : start(k, e);
}

enum code keeper_ensure(struct keeper *k, uint64_t *generation, struct error *e)
{
    enum code code;

    pthread_mutex_lock(&k->lock);
    code = ensure_locked(k, e);
    *generation = k->generation;
    pthread_mutex_unlock(&k->lock);
    return code;
}

/* ---- channels ---- */

struct channel {
    int fd;
    uint64_t generation;
};

static _Thread_local bool gives_way;

void keeper_give_way(void)
{
    gives_way = true;
}

/* One channel is kept for those that give way: callers are never few. */
static bool may_take(const struct keeper *k)
{
    if (k->n_idle == 0)
        return false;
    if (k->channels == 1)
        return true;
    if (gives_way)
        return k->used[1] == 0 || (k->waiting[0] == 0 && k->n_idle > 1);
    return k->n_idle > 1 || k->used[1] > 0;
}

static enum code gone(struct error *e)
{
    return error_set(e, ERR_KEEPER,
                     "the keeper was started again; try once more");
}

static enum code wait_for_idle(struct keeper *k, const struct timespec *until,
                               struct error *e)
{
    int late;

    k->waiting[gives_way]++;
    late = pthread_cond_timedwait(&k->freed[gives_way], &k->lock, until);
    k->waiting[gives_way]--;
    if (late == ETIMEDOUT && !may_take(k))
        return error_set(e, ERR_DEADLINE,
                         "all %d of the keeper's channels are busy; "
                         "[daemon] keeper_threads sets how many there are",
                         k->channels);
    return OK;
}

static enum code take(struct keeper *k, uint64_t generation, int deadline_ms,
                      struct channel *out, struct error *e)
{
    struct timespec until = clock_in_ms(deadline_ms);
    enum code code = OK;

    pthread_mutex_lock(&k->lock);
    while (!code) {
        if (generation == 0)
            code = ensure_locked(k, e);
        else if (!k->running || k->generation != generation)
            code = gone(e);
        if (code || may_take(k))
            break;
        code = wait_for_idle(k, &until, e);
    }
    if (!code) {
        *out = (struct channel){k->idle[--k->n_idle], k->generation};
        k->used[gives_way]++;
    }
    pthread_mutex_unlock(&k->lock);
    return code;
}

static void give_back(struct keeper *k, const struct channel *c)
{
    pthread_mutex_lock(&k->lock);
    k->used[gives_way]--;
    if (k->running && k->generation == c->generation) {
        k->idle[k->n_idle++] = c->fd;
        pthread_cond_signal(&k->freed[0]);
        pthread_cond_signal(&k->freed[1]);
    } else {
        close(c->fd);
    }
    pthread_mutex_unlock(&k->lock);
}

/* With the lock held. */
static void died(struct keeper *k, const char *why, const char *text)
{
    if (!k->running)
        return;
    k->deaths++;
    snprintf(k->why, sizeof(k->why), "%.64s%s%.180s", why,
             *text ? ": " : "", text);
    end_process(k);
}

static void broken(struct keeper *k, const struct channel *c, enum verb verb,
                   const struct error *why)
{
    char doing[64];

    snprintf(doing, sizeof(doing), "it broke off %s", verb_name(verb));
    pthread_mutex_lock(&k->lock);
    k->used[gives_way]--;
    close(c->fd);
    if (k->generation == c->generation)
        died(k, doing, why->text);
    pthread_mutex_unlock(&k->lock);
}

/* A frame that arrived whole is the keeper's answer, good or bad; anything
 * else means that the channel can no longer be trusted. */
enum code keeper_call(struct keeper *k, uint64_t generation,
                      const struct frame *request, int deadline_ms,
                      struct frame *reply, bool *handed, struct error *e)
{
    struct channel c;
    struct error why = {0};
    int64_t began = clock_monotonic_us();
    enum code code = take(k, generation, deadline_ms, &c, e);

    if (handed)
        *handed = code == OK;
    if (code)
        return code;
    code = frame_send(c.fd, request, deadline_ms, &why);
    if (!code)
        code = frame_recv(c.fd, reply, deadline_ms, &why);
    if (code) {
        broken(k, &c, request->verb, &why);
        log_failure(&why, "keeper: %s failed after %lld ms; it is ended",
                    verb_name(request->verb),
                    (long long)(clock_monotonic_us() - began) / 1000);
        return error_set(e, ERR_KEEPER,
                         "the keeper broke off %s (%s); it is started again",
                         verb_name(request->verb), why.text);
    }
    give_back(k, &c);
    if (k->options.metrics)
        metrics_time_verb(k->options.metrics, request->verb,
                          clock_monotonic_us() - began);
    return frame_result(reply, e);
}

void keeper_describe(struct keeper *k, struct keeper_state *out)
{
    pthread_mutex_lock(&k->lock);
    *out = (struct keeper_state){.running = k->running,
                                 .pid = k->process.pid,
                                 .generation = k->generation,
                                 .restarts = k->starts ? k->starts - 1 : 0,
                                 .deaths = k->deaths,
                                 .started_ms = k->started_ms};
    snprintf(out->why, sizeof(out->why), "%s", k->why);
    pthread_mutex_unlock(&k->lock);
}

void keeper_check(struct keeper *k)
{
    pthread_mutex_lock(&k->lock);
    if (k->running && keeper_process_ended(&k->process)) {
        log_error("keeper %d ended by itself", (int)k->process.pid);
        died(k, "it ended by itself", "");
    }
    reap_unreaped(k);
    pthread_mutex_unlock(&k->lock);
}

void keeper_end(struct keeper *k)
{
    pthread_mutex_lock(&k->lock);
    end_process(k);
    pthread_mutex_unlock(&k->lock);
}
