/* share - see share.h. */
#include "config.h"

#include "module/core/share.h"

#include "common/clock.h"

#include <errno.h>
#include <string.h>
#include <time.h>

#define RETRY_MS 1000

void shares_init(struct shares *s, int places)
{
    memset(s, 0, sizeof(*s));
    s->places = places < SHARE_MAX ? places : SHARE_MAX;
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->left, NULL);
}

void shares_clear(struct shares *s)
{
    pthread_cond_destroy(&s->left);
    pthread_mutex_destroy(&s->lock);
}

/* Its own, or a free one: there are as many as places. */
static struct share_entry *entry_of(struct shares *s, uid_t uid)
{
    struct share_entry *unused = NULL;

    for (int i = 0; i < SHARE_MAX; i++) {
        if (s->entries[i].n > 0 && s->entries[i].uid == uid)
            return &s->entries[i];
        if (s->entries[i].n == 0 && !unused)
            unused = &s->entries[i];
    }
    return unused;
}

static bool try_enter(struct shares *s, uid_t uid, struct share_hold *h)
{
    struct share_entry *entry = entry_of(s, uid);

    if (!entry || entry->n >= s->places - s->used)
        return false;
    entry->uid = uid;
    entry->n++;
    s->used++;
    *h = (struct share_hold){s, entry};
    return true;
}

enum code share_enter(struct shares *s, uid_t uid, int wait_ms,
                      struct share_hold *h, struct error *e)
{
    struct timespec until = clock_in_ms(wait_ms);
    bool entered;
    int rc = 0;

    *h = (struct share_hold){NULL, NULL};
    if (s->places == 0)
        return OK;
    pthread_mutex_lock(&s->lock);
    while (!(entered = try_enter(s, uid, h)) && rc != ETIMEDOUT)
        rc = pthread_cond_clockwait(&s->left, &s->lock, CLOCK_MONOTONIC,
                                    &until);
    pthread_mutex_unlock(&s->lock);
    if (entered)
        return OK;
    error_set(e, ERR_LIMIT,
              "the calls to the service that are under way leave none to uid "
              "%lu; [daemon] keeper_threads sets how many there are",
              (unsigned long)uid);
    if (e)
        e->retry_after_ms = RETRY_MS;
    return ERR_LIMIT;
}

void share_leave(struct share_hold *h)
{
    struct shares *s = h->shares;

    if (!s)
        return;
    pthread_mutex_lock(&s->lock);
    h->entry->n--;
    s->used--;
    /* All: whose turn it is depends on what each has. */
    pthread_cond_broadcast(&s->left);
    pthread_mutex_unlock(&s->lock);
    h->shares = NULL;
}
