#include "config.h"

#include "tools/worker.h"

#include "common/clock.h"
#include "common/log.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define STACK_BYTES (256 * 1024)
#define IDLE_SECONDS 10
#define RETRY_MS 100 /* where no thread was to be had */

struct workers {
    struct workers_options options;
    pthread_attr_t attr;

    pthread_mutex_t lock; /* guards all below */
    pthread_cond_t wanted, gone;
    struct queue queue;
    int threads, waiting;
    bool ending;
    bool without; /* a thread was refused us: said once */
};

static void *worker(void *arg);

/* With the lock held: somebody takes what is ready. */
static void wake(struct workers *w)
{
    pthread_t thread;
    if (w->waiting > 0) {
        pthread_cond_signal(&w->wanted);
        return;
    }
    if (w->threads >= w->options.threads)
        return; /* whoever is done next */
    int rc = pthread_create(&thread, &w->attr, worker, w);
    if (rc == 0)
        w->threads++;
    else if (!w->without)
        log_error("no thread to answer with, %d there are: %s", w->threads,
                  strerror(rc));
    w->without = rc != 0;
}

/* With the lock held: false when nothing came for a while. */
static bool wait_for_work(struct workers *w)
{
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += IDLE_SECONDS;
    w->waiting++;
    int rc = pthread_cond_clockwait(&w->wanted, &w->lock, CLOCK_MONOTONIC,
                                    &until);
    w->waiting--;
    return rc == 0;
}

/* With the lock held, which is given up while the item is worked on. */
static bool do_one(struct workers *w)
{
    struct queue_flow *flow = NULL;
    int64_t due, now = clock_monotonic_ms();
    struct queue_item *i = queue_take(&w->queue, now, &flow, &due);
    if (!i)
        return false;
    if (queue_ready(&w->queue, now, &due))
        wake(w);
    pthread_mutex_unlock(&w->lock);
    w->options.work(i);
    pthread_mutex_lock(&w->lock);
    queue_done(&w->queue, flow);
    return true;
}

static void *worker(void *arg)
{
    struct workers *w = arg;
    pthread_mutex_lock(&w->lock);
    /* Once more after the wait: what was put in just then woke nobody. */
    while (do_one(w) || (!w->ending && wait_for_work(w)) || do_one(w))
        ;
    w->threads--;
    pthread_cond_signal(&w->gone);
    pthread_mutex_unlock(&w->lock);
    return NULL;
}

enum code workers_new(struct workers **out, const struct workers_options *o,
                      struct error *e)
{
    struct workers *w = calloc(1, sizeof *w);
    if (!w)
        return error_set(e, ERR_NOMEM, "workers");
    w->options = *o;
    w->queue = (struct queue){
        .rate = o->rate, .places = o->threads, .shared = o->shared};
    pthread_mutex_init(&w->lock, NULL);
    pthread_cond_init(&w->wanted, NULL);
    pthread_cond_init(&w->gone, NULL);
    pthread_attr_init(&w->attr);
    pthread_attr_setdetachstate(&w->attr, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&w->attr, STACK_BYTES);
    *out = w;
    return OK;
}

void workers_put(struct workers *w, struct queue_flow *f, struct queue_item *i)
{
    int64_t due;
    pthread_mutex_lock(&w->lock);
    queue_put(&w->queue, f, i);
    if (queue_ready(&w->queue, clock_monotonic_ms(), &due))
        wake(w);
    pthread_mutex_unlock(&w->lock);
}

int64_t workers_tick(struct workers *w, int64_t now_ms)
{
    int64_t due;
    pthread_mutex_lock(&w->lock);
    if (queue_ready(&w->queue, now_ms, &due)) {
        wake(w);
        due = w->without ? now_ms + RETRY_MS : INT64_MAX;
    }
    pthread_mutex_unlock(&w->lock);
    return due;
}

bool workers_flow_idle(struct workers *w, const struct queue_flow *f,
                       int64_t now_ms)
{
    pthread_mutex_lock(&w->lock);
    bool idle = queue_flow_idle(&w->queue, f, now_ms);
    pthread_mutex_unlock(&w->lock);
    return idle;
}

int workers_busy(struct workers *w)
{
    pthread_mutex_lock(&w->lock);
    int n = w->queue.under_way + w->queue.waiting;
    pthread_mutex_unlock(&w->lock);
    return n;
}

void workers_free(struct workers *w)
{
    if (!w)
        return;
    pthread_mutex_lock(&w->lock);
    w->ending = true;
    pthread_cond_broadcast(&w->wanted);
    while (w->threads > 0)
        pthread_cond_wait(&w->gone, &w->lock);
    pthread_mutex_unlock(&w->lock);
    pthread_attr_destroy(&w->attr);
    pthread_cond_destroy(&w->gone);
    pthread_cond_destroy(&w->wanted);
    pthread_mutex_destroy(&w->lock);
    free(w);
}
