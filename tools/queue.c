#include "config.h"

#include "tools/queue.h"

static void join_ring(struct queue *q, struct queue_flow *f)
{
    struct queue_flow *turn = q->turn;
    if (!turn) {
        f->next = f->previous = f;
        q->turn = f;
        return;
    }
    f->next = turn; /* the last in the round */
    f->previous = turn->previous;
    turn->previous->next = f;
    turn->previous = f;
}

static void leave_ring(struct queue *q, struct queue_flow *f)
{
    if (f->next == f) {
        q->turn = NULL;
    } else {
        f->previous->next = f->next;
        f->next->previous = f->previous;
        if (q->turn == f)
            q->turn = f->next;
    }
    f->next = f->previous = NULL;
}

void queue_put(struct queue *q, struct queue_flow *f, struct queue_item *i)
{
    i->next = NULL;
    q->waiting++;
    if (f->first) {
        f->last->next = i;
    } else {
        f->first = i;
        join_ring(q, f);
    }
    f->last = i;
}

static bool has_place(const struct queue *q, const struct queue_flow *f)
{
    int unused = q->places - q->under_way;
    return unused > 0 && (!q->shared || f->under_way < unused);
}

/* The first in the round that may begin. */
static struct queue_flow *next_flow(const struct queue *q, int64_t now_ms,
                                    int64_t *due_ms)
{
    struct queue_flow *f = q->turn;
    *due_ms = INT64_MAX;
    if (!f)
        return NULL;
    do {
        int64_t due = bucket_due(&f->bucket, &q->rate, now_ms);
        if (due > now_ms && due < *due_ms)
            *due_ms = due;
        if (due <= now_ms && has_place(q, f)) /* queue_done() makes one */
            return f;
    } while ((f = f->next) != q->turn);
    return NULL;
}

struct queue_item *queue_take(struct queue *q, int64_t now_ms,
                              struct queue_flow **flow, int64_t *due_ms)
{
    struct queue_flow *f = next_flow(q, now_ms, due_ms);
    if (!f)
        return NULL;
    struct queue_item *i = f->first;
    f->first = i->next;
    q->turn = f->next;
    if (!f->first)
        leave_ring(q, f);
    bucket_take(&f->bucket, &q->rate, now_ms);
    f->under_way++;
    q->under_way++;
    q->waiting--;
    *flow = f;
    return i;
}

bool queue_ready(const struct queue *q, int64_t now_ms, int64_t *due_ms)
{
    return next_flow(q, now_ms, due_ms) != NULL;
}

void queue_done(struct queue *q, struct queue_flow *f)
{
    f->under_way--;
    q->under_way--;
}

bool queue_flow_idle(const struct queue *q, const struct queue_flow *f,
                     int64_t now_ms)
{
    return !f->first && f->under_way == 0 &&
           bucket_full(&f->bucket, &q->rate, now_ms);
}
