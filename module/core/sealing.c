/* sealing - see sealing.h. */
#include "config.h"

#include "module/core/sealing.h"

#include "common/clock.h"

#include <stdbool.h>
#include <time.h>

struct sealing_hold sealing_enter(struct sealing *s)
{
    struct sealing_hold h = {.sealing = s};

    pthread_mutex_lock(&s->lock);
    h.turn = s->turn;
    s->n[h.turn]++;
    pthread_mutex_unlock(&s->lock);
    return h;
}

void sealing_leave(struct sealing_hold *h)
{
    struct sealing *s = h->sealing;

    if (!s)
        return;
    h->sealing = NULL;
    pthread_mutex_lock(&s->lock);
    if (--s->n[h->turn] == 0)
        pthread_cond_broadcast(&s->left);
    pthread_mutex_unlock(&s->lock);
}

/* With the lock held. */
static bool wait_for(struct sealing *s, unsigned turn,
                     const struct timespec *until)
{
    while (s->n[turn] > 0)
        if (pthread_cond_clockwait(&s->left, &s->lock, CLOCK_MONOTONIC,
                                   until) != 0)
            return s->n[turn] == 0;
    return true;
}

/* Both turns: the other may have some of a time that was too short. */
enum code sealing_drain(struct sealing *s, int ms, struct error *e)
{
    struct timespec until = clock_in_ms(ms);
    bool done;

    pthread_mutex_lock(&s->lock);
    done = wait_for(s, !s->turn, &until);
    if (done) {
        unsigned was = s->turn;

        s->turn = !was;
        done = wait_for(s, was, &until);
    }
    pthread_mutex_unlock(&s->lock);
    return done ? OK
                : error_set(e, ERR_DEADLINE,
                            "keys that were sealed with the old key are not "
                            "stored yet");
}
