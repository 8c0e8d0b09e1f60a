/* worker - the threads that do what the loop has read, in the order of a queue
 * (queue.h): a few, and as many more as wait for HSM, store or service, up to a
 * bound.
 *
 * Thread-safe: one lock around the queue, not held while something is done. A
 * thread with nothing to do ends after a while.
 */
#ifndef HSMINT_WORKER_H
#define HSMINT_WORKER_H

#include "common/error.h"
#include "tools/queue.h"

struct workers;

struct workers_options {
    struct bucket_rate rate; /* of each flow */
    int threads;             /* at most; as many places has the queue */
    bool shared;             /* queue.h */
    void (*work)(struct queue_item *i); /* from then on it is work()'s */
};

/* Starts no thread yet. */
MUST_CHECK enum code workers_new(struct workers **out,
                                 const struct workers_options *o,
                                 struct error *e);
void workers_put(struct workers *w, struct queue_flow *f,
                 struct queue_item *i);
/* A token may be due, or another thread: to be called at the time that the last
 * call gave, and after workers_put(). INT64_MAX: nothing waits for a time. */
int64_t workers_tick(struct workers *w, int64_t now_ms);
/* May the flow be forgotten? Nothing is put into it meanwhile. */
bool workers_flow_idle(struct workers *w, const struct queue_flow *f,
                       int64_t now_ms);
/* How much waits or is under way. */
int workers_busy(struct workers *w);
/* NULL is fine. Everything that was put has been done. */
void workers_free(struct workers *w);

#endif
