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
#define FEW 8        /* threads, started as soon as there is work */
#define WINDOW_MS 5  /* more, when the others did next to nothing for so long */

struct workers {
    struct workers_options options;
    pthread_attr_t attr;

    pthread_mutex_t lock; /* guards all below */
    pthread_cond_t wanted, gone;
    struct queue queue;
    int threads, waiting;
    int64_t window_ms; /* when it began */
    int taken;         /* in it */
    bool ending;
    bool without; /* a thread was refused us: said once */
};

static void *worker(void *arg);

/* Threads are for work that waits for something. Where those that are there
 * get through a lot, more of them only take turns on the processors. */
static bool may_grow(struct workers *w, int64_t now)
{
    if (w->threads >= w->options.threads)
        return false;
    if (w->threads < FEW)
        return true;
    if (now < w->window_ms + WINDOW_MS)
        return false;
    bool stuck = w->taken < w->threads;
    w->window_ms = now;
    w->taken = 0;
    return stuck;
}

static void start_one(struct workers *w)
{
    pthread_t thread;
    int rc = pthread_create(&thread, &w->attr, worker, w);
    if (rc == 0)
        w->threads++;
    else if (!w->without)
        log_error("no thread to answer with, %d there are: %s", w->threads,
                  strerror(rc));
    w->without = rc != 0;
}

/* With the lock held: somebody takes what is ready, or whoever is done next. */
static void wake(struct workers *w, int64_t now)
{
    if (w->waiting > 0) {
        pthread_cond_signal(&w->wanted);
        return;
    }
    if (!may_grow(w, now))
        return;
    for (int more = w->threads / FEW; more >= 0; more--)
        if (w->threads < w->options.threads)
            start_one(w);
}

/* With the lock held: false when nothing came for a while. */
static bool wait_for_work(struct workers *w)
{
    struct timespec until = clock_in_ms(IDLE_SECONDS * 1000);
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
    w->taken++;
    if (queue_ready(&w->queue, now, &due))
        wake(w, now);
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
    int64_t due, now = clock_monotonic_ms();
    pthread_mutex_lock(&w->lock);
    queue_put(&w->queue, f, i);
    if (queue_ready(&w->queue, now, &due))
        wake(w, now);
    pthread_mutex_unlock(&w->lock);
}

int64_t workers_tick(struct workers *w, int64_t now_ms)
{
    int64_t due;
    pthread_mutex_lock(&w->lock);
    if (queue_ready(&w->queue, now_ms, &due)) {
        wake(w, now_ms);
        due = w->threads < w->options.threads ? now_ms + WINDOW_MS : INT64_MAX;
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
