/* rotate - see rotate.h. */
#include "config.h"

#include "module/core/rotate.h"

#include "common/clock.h"
#include "common/log.h"
#include "module/core/internal.h"
#include "module/core/rotate_step.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum {
    WAIT_MS = 20000, /* that a command waits for a fresh key */
    IDLE_MS = 60000  /* the thread looks at the documents at least so often */
};

/* ---- on command ---- */

static void poke(struct core *c)
{
    pthread_mutex_lock(&c->rotate.lock);
    c->rotate.poked = true;
    pthread_cond_broadcast(&c->rotate.changed);
    pthread_mutex_unlock(&c->rotate.lock);
}

static enum code begin(struct rotate_step *s, struct error *e)
{
    struct rotation *r = &s->r;
    char marker[TEMPLATE_MARKER_LEN + 1];
    enum code code;

    if (!s->org.admin_blob || !*s->config.admin_api_key_id)
        return error_set(e, ERR_NO_ADMIN_KEY,
                         "organisation %s has no admin key to rotate",
                         s->org.name);
    code = rotation_none(s->core->store, s->org.name, e);
    if (code)
        return code;
    *r = (struct rotation){.begun_ms = clock_wall_ms()};
    r->due_ms = r->begun_ms + ROTATE_LOOK_MS;
    snprintf(r->org, sizeof(r->org), "%s", s->org.name);
    snprintf(r->old_id, sizeof(r->old_id), "%s", s->config.admin_api_key_id);
    r->old_sealed = malloc(s->org.admin_blob_len);
    if (!r->old_sealed)
        return error_set(e, ERR_NOMEM, "no memory for a rotation");
    memcpy(r->old_sealed, s->org.admin_blob, s->org.admin_blob_len);
    r->old_sealed_len = s->org.admin_blob_len;
    code = marker_take(s->core, marker, e);
    snprintf(r->name, sizeof(r->name), "hsmint-%s-%s", s->org.name, marker);
    return code;
}

/* A fresh key is refused for a moment, here and there. */
static enum code wait_for_it(struct rotate_step *s, struct error *e)
{
    int64_t end = clock_monotonic_ms() + WAIT_MS;
    enum code code = rotate_step_take(s, e);

    while (!code && s->r.state == ROTATION_PROVE &&
           clock_monotonic_ms() < end) {
        usleep(ROTATE_LOOK_MS * 1000);
        code = rotate_step_take(s, e);
    }
    if (code || s->r.state == ROTATION_RETIRE)
        return code;
    return error_set(e, ERR_SERVICE_AUTH,
                     "the new admin key %s is not accepted yet (%s): the old "
                     "one stays until it is",
                     s->r.new_id, s->r.error);
}

static enum code answer(const struct rotate_step *s, json_t **out,
                        struct error *e)
{
    char at[CLOCK_TEXT_MAX];

    *out = json_pack("{ss ss ss}", "admin_api_key_id", s->r.new_id,
                     "last_rotated",
                     clock_text(s->config.last_rotated_ms, at), "retiring",
                     s->r.old_id);
    return *out ? OK : error_set(e, ERR_NOMEM, "no memory for a reply");
}

enum code core_rotate(struct core *c, const struct caller *by, const char *org,
                      json_t **out, struct error *e)
{
    ROTATE_STEP s = {.core = c, .by = by};
    INFLIGHT hold = {0};
    struct error why = {0};
    enum code code = core_hold_config(c, org, &hold, &why);

    if (!code)
        code = rotate_step_load(&s, org, &why);
    if (!code)
        code = begin(&s, &why);
    if (!code)
        code = rotate_step_make(&s, &why);
    if (!code)
        code = wait_for_it(&s, &why);
    poke(c);
    if (!code)
        code = answer(&s, out, &why);
    if (code && e)
        *e = why;
    return code;
}

/* ---- the thread ---- */

static void go_on(struct core *c, const char *org)
{
    ROTATE_STEP s = {.core = c};
    INFLIGHT hold = {0};
    struct error e = {0};
    enum code code;

    if (!inflight_try(&c->inflight, "config", org, &hold))
        return; /* somebody is at it */
    code = rotate_step_load(&s, org, &e);
    if (!code)
        code = rotation_load(c->store, s.org.name, &s.r, &e);
    if (code == ERR_NOT_FOUND || (!code && s.r.due_ms > clock_wall_ms()))
        return;
    if (!code)
        code = rotate_step_take(&s, &e);
    if (code)
        log_failure(&e, "rotation of %s's admin key", org);
}

struct due {
    int64_t now, next; /* wall */
    char orgs[16][64];
    size_t n;
};

static enum code take_due(const char *org, int64_t due_ms, void *ctx,
                          struct error *e)
{
    struct due *d = ctx;

    (void)e;
    if (due_ms <= d->now && d->n < sizeof(d->orgs) / sizeof(d->orgs[0]))
        snprintf(d->orgs[d->n++], sizeof(d->orgs[0]), "%s", org);
    else if (due_ms < d->next)
        d->next = due_ms;
    return OK;
}

/* Goes on with what is due; how long until the next is. */
static int64_t go_on_all(struct core *c)
{
    struct due d = {.now = clock_wall_ms()};
    struct error e = {0};

    d.next = d.now + IDLE_MS;
    if (rotation_each(c->store, take_due, &d, &e) != OK)
        log_failure(&e, "rotations under way");
    for (size_t i = 0; i < d.n; i++)
        go_on(c, d.orgs[i]);
    if (d.n)
        return ROTATE_LOOK_MS; /* each step says anew when the next is due */
    return d.next > d.now ? d.next - d.now : ROTATE_LOOK_MS;
}

static void *run(void *ctx)
{
    struct core *c = ctx;
    struct rotate *r = &c->rotate;

    for (;;) {
        int64_t wait = go_on_all(c);
        struct timespec until;

        clock_gettime(CLOCK_MONOTONIC, &until);
        until.tv_sec += wait / 1000;
        until.tv_nsec += wait % 1000 * 1000000;
        if (until.tv_nsec >= 1000000000) {
            until.tv_sec++;
            until.tv_nsec -= 1000000000;
        }
        pthread_mutex_lock(&r->lock);
        while (!r->stop && !r->poked &&
               pthread_cond_clockwait(&r->changed, &r->lock, CLOCK_MONOTONIC,
                                      &until) == 0)
            ;
        r->poked = false;
        bool stop = r->stop;
        pthread_mutex_unlock(&r->lock);
        if (stop)
            return NULL;
    }
}

enum code rotate_start(struct core *c, struct error *e)
{
    int r = pthread_create(&c->rotate.thread, NULL, run, c);

    if (r != 0)
        return error_errno(e, r, "cannot start the rotation's thread");
    c->rotate.started = true;
    return OK;
}

void rotate_stop(struct core *c)
{
    struct rotate *r = &c->rotate;

    pthread_mutex_lock(&r->lock);
    r->stop = true;
    pthread_cond_broadcast(&r->changed);
    pthread_mutex_unlock(&r->lock);
    if (r->started)
        pthread_join(r->thread, NULL);
}
