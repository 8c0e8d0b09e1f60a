/* look - see look.h. */
#include "config.h"

#include "module/core/look.h"

#include "common/clock.h"
#include "common/log.h"
#include "module/core/internal.h"

#include <errno.h>
#include <time.h>

void look_init(struct look *l)
{
    pthread_condattr_t attr;

    *l = (struct look){.at_ms = 0};
    pthread_mutex_init(&l->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&l->changed, &attr);
    pthread_condattr_destroy(&attr);
}

void look_stop(struct look *l)
{
    bool started;

    pthread_mutex_lock(&l->lock);
    l->stop = true;
    started = l->started;
    pthread_cond_broadcast(&l->changed);
    pthread_mutex_unlock(&l->lock);
    if (started)
        pthread_join(l->thread, NULL);
}

void look_clear(struct look *l)
{
    json_decref(l->told);
    l->told = NULL;
}

/* As status does: a keeper that does not run is started. */
static json_t *describe(struct core *c)
{
    FRAME request = FRAME_INIT;
    FRAME reply = FRAME_INIT;

    request.verb = VERB_DESCRIBE;
    if (keeper_call(c->keeper, 0, &request, (int)c->settings->hsm_deadline_ms,
                    &reply, NULL, NULL) != OK)
        return NULL;
    return json_incref(reply.head);
}

static void look_once(struct core *c)
{
    struct look *l = &c->look;
    int64_t began = clock_monotonic_us();
    json_t *told = describe(c), *old;

    pthread_mutex_lock(&l->lock);
    old = l->told;
    l->told = told;
    l->at_ms = clock_monotonic_ms();
    l->took_us = clock_monotonic_us() - began;
    l->wanted = false;
    pthread_cond_broadcast(&l->changed);
    pthread_mutex_unlock(&l->lock);
    json_decref(old);
}

static void *run(void *arg)
{
    struct core *c = arg;
    struct look *l = &c->look;

    for (;;) {
        bool stop;

        pthread_mutex_lock(&l->lock);
        while (!l->stop && !l->wanted)
            pthread_cond_wait(&l->changed, &l->lock);
        stop = l->stop;
        pthread_mutex_unlock(&l->lock);
        if (stop)
            return NULL;
        look_once(c);
    }
}

static bool is_fresh(const struct look *l, int64_t max_age_ms)
{
    return l->at_ms != 0 && clock_monotonic_ms() - l->at_ms <= max_age_ms;
}

/* With the lock held. */
static void start(struct core *c)
{
    struct look *l = &c->look;

    if (l->started || l->stop)
        return;
    if (pthread_create(&l->thread, NULL, run, c) != 0)
        log_error("no thread to look at the HSM");
    else
        l->started = true;
}

static void wait_for_it(struct look *l, int64_t patience_ms)
{
    struct timespec until;

    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_nsec += (long)(patience_ms % 1000) * 1000000;
    until.tv_sec += patience_ms / 1000 + until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    while (l->wanted && !l->stop &&
           pthread_cond_timedwait(&l->changed, &l->lock, &until) == 0)
        ;
}

void look_at_hsm(struct core *c, int64_t max_age_ms, int64_t patience_ms,
                 struct look_seen *out)
{
    struct look *l = &c->look;

    pthread_mutex_lock(&l->lock);
    if (!is_fresh(l, max_age_ms)) {
        start(c);
        if (l->started && !l->wanted) {
            l->wanted = true;
            pthread_cond_broadcast(&l->changed);
        }
        wait_for_it(l, patience_ms);
    }
    *out = (struct look_seen){
        .told = json_incref(l->told),
        .age_ms = l->at_ms ? clock_monotonic_ms() - l->at_ms : -1,
        .took_us = l->took_us};
    pthread_mutex_unlock(&l->lock);
}
