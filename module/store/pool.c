#include "config.h"

#include "module/store/state.h"

enum code reader_take(struct reader *r, struct store *s, struct error *e)
{
    *r = (struct reader){.s = s};
    pthread_mutex_lock(&s->pool_lock);
    r->c = s->idle;
    if (r->c) {
        s->idle = r->c->next;
        s->idle_count--;
    }
    pthread_mutex_unlock(&s->pool_lock);
    /* Nobody waits for a reader: a callback that reads again would wait for
     * itself. */
    return r->c ? OK
                : conn_open(&r->c, s->path,
                            s->offline ? CONN_OFFLINE : CONN_READER, e);
}

void reader_give(struct reader *r)
{
    struct conn *c = r->c;
    if (!c)
        return;
    r->c = NULL;
    pthread_mutex_lock(&r->s->pool_lock);
    bool keep = r->s->idle_count < READERS_KEPT;
    if (keep) {
        c->next = r->s->idle;
        r->s->idle = c;
        r->s->idle_count++;
    }
    pthread_mutex_unlock(&r->s->pool_lock);
    if (!keep)
        conn_close(c);
}

void pool_close(struct store *s)
{
    while (s->idle) {
        struct conn *c = s->idle;
        s->idle = c->next;
        conn_close(c);
    }
    s->idle_count = 0;
}
