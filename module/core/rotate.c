/* rotate - see rotate.h. */
#include "config.h"

#include "module/core/rotate.h"

#include "common/clock.h"
#include "common/log.h"
#include "module/core/internal.h"
#include "module/core/rotate_step.h"
#include "module/core/schedule.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum {
    WAIT_MS = 20000, /* that a command waits for a fresh key */
    IDLE_MS = 10000, /* the thread looks what is due at least so often */
    LEFT_MS = 600000, /* that the end of a key may take */
    RETRY_FIRST_MS = 10000,
    RETRY_MAX_MS = 600000,
    AHEAD_MS = 3600000, /* by which clocks may differ */
    DAY_MS = 86400000
};

/* Of rotations, by name: none is read while another is worked on. */
struct documents {
    char (*names)[ROTATION_DOCUMENT_MAX];
    size_t n;
};

static void documents_clear(struct documents *d)
{
    free(d->names);
}

static enum code documents_add(struct documents *d, const char *name,
                               struct error *e)
{
    void *more = reallocarray(d->names, d->n + 1, sizeof(d->names[0]));

    if (!more)
        return error_set(e, ERR_NOMEM, "no memory for rotations");
    d->names = more;
    snprintf(d->names[d->n++], sizeof(d->names[0]), "%s", name);
    return OK;
}

/* ---- on command ---- */

void rotate_poke(struct core *c)
{
    pthread_mutex_lock(&c->rotate.lock);
    c->rotate.poked = true;
    pthread_cond_broadcast(&c->rotate.changed);
    pthread_mutex_unlock(&c->rotate.lock);
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

/* Whoever calls holds the organisation's "config". */
static enum code make_and_take(struct rotate_step *s, const char *org,
                               const char *cause, struct error *e)
{
    enum code code = rotate_step_load(s, org, e);

    if (!code)
        code = rotate_step_begin(s, cause, e);
    if (!code)
        code = rotate_step_make(s, e);
    if (!code)
        code = wait_for_it(s, e);
    if (*s->r.document) /* else all is as before */
        rotate_poke(s->core);
    return code;
}

enum code rotate_held(struct core *c, const struct caller *by, const char *org,
                      const char *cause, struct error *e)
{
    ROTATE_STEP s = {.core = c, .by = by};

    return make_and_take(&s, org, cause, e);
}

/* ---- compromised ---- */

/* What waits for calls in flight: any of these keys may be the one that got
 * out. */
static enum code note_waiting(const struct rotation *r, void *ctx,
                              struct error *e)
{
    return r->state <= ROTATION_RETIRE ? documents_add(ctx, r->document, e)
                                       : OK;
}

static enum code hurry_one(struct core *c, const struct caller *by,
                           const char *org, const char *document,
                           struct error *e)
{
    ROTATE_STEP s = {.core = c, .by = by};
    enum code code = rotate_step_load(&s, org, e);

    if (!code)
        code = rotation_load(c->store, document, &s.r, e);
    return code ? code : rotate_step_hurry(&s, ROTATE_COMPROMISED, e);
}

/* The key in use goes, however long that takes; what is under way is as
 * urgent. */
static enum code hurry(struct core *c, const struct caller *by, const char *org,
                       struct error *e)
{
    ROTATE_STEP s = {.core = c, .by = by};
    CLEANUP(documents_clear) struct documents waiting = {NULL, 0};
    enum code code = rotate_step_load(&s, org, e);

    if (!code)
        code = rotate_step_want(&s, ROTATE_COMPROMISED, e);
    if (!code)
        code = rotation_each(c->store, s.org.name, note_waiting, &waiting, e);
    for (size_t i = 0; !code && i < waiting.n; i++)
        code = hurry_one(c, by, s.org.name, waiting.names[i], e);
    rotate_poke(c);
    return code;
}

enum code core_rotate(struct core *c, const struct caller *by, const char *org,
                      bool compromised, json_t **out, struct error *e)
{
    ROTATE_STEP s = {.core = c, .by = by};
    INFLIGHT hold = {0};
    struct error why = {0};
    const char *cause = compromised ? ROTATE_COMPROMISED : "command";
    enum code code = core_hold_config(c, org, &hold, &why);

    if (!code && compromised)
        code = hurry(c, by, org, &why);
    if (code && e)
        *e = why;
    if (code)
        return code;
    code = make_and_take(&s, org, cause, &why);
    if (!code)
        code = answer(&s, out, &why);
    if (code && compromised)
        code = error_prefix(&why, "the key is not replaced yet, and hsmint "
                                  "goes on trying");
    if (code && e)
        *e = why;
    return code;
}

/* ---- what was begun goes on ---- */

static struct rotate_org *org_of(struct rotate *r, const char *name)
{
    struct rotate_org *more;

    for (size_t i = 0; i < r->n_orgs; i++) {
        if (strcmp(r->orgs[i].name, name) == 0)
            return &r->orgs[i];
    }
    more = reallocarray(r->orgs, r->n_orgs + 1, sizeof(*more));
    if (!more)
        return NULL;
    r->orgs = more;
    more = &more[r->n_orgs++];
    *more = (struct rotate_org){.tries = 0};
    snprintf(more->name, sizeof(more->name), "%s", name);
    return more;
}

/* false: there is nothing to go on with now. */
static bool go_on(struct core *c, const char *document)
{
    ROTATE_STEP s = {.core = c};
    INFLIGHT hold = {0};
    struct error e = {0};
    char org[64];
    enum code code;

    snprintf(org, sizeof(org), "%.*s", (int)strcspn(document, " "), document);
    if (!inflight_try(&c->inflight, "config", org, &hold))
        return true; /* somebody is at it */
    code = rotate_step_load(&s, org, &e);
    if (!code && !s.org.admin_blob)
        return false; /* it was lost with an HSM: another has to be given */
    if (!code)
        code = rotation_load(c->store, document, &s.r, &e);
    if (code == ERR_NOT_FOUND ||
        (!code && !rotation_is_due(&s.r, steady_ms(c))))
        return true;
    if (!code)
        code = rotate_step_take(&s, &e);
    if (code)
        log_failure(&e, "rotation of %s's admin key", org);
    return true;
}

struct due {
    struct core *core;
    int64_t now, next; /* steady */
    struct documents documents;
};

static void due_clear(struct due *d)
{
    documents_clear(&d->documents);
}

/* A key of ours that the service does not let go, or that works on. */
static void note_left(struct due *d, const struct rotation *r)
{
    struct rotate_org *o = org_of(&d->core->rotate, r->org);
    const char *id = r->state == ROTATION_DROP ? r->new_id : r->old_id;

    if (!o || r->state < ROTATION_RETIRE || r->tries == 0 ||
        d->now < r->begun_ms + LEFT_MS)
        return;
    o->left = true;
    warnings_raise(&d->core->warnings, ALARM_ADMIN_KEY_LEFT, r->org,
                   "admin key %s should be dead and is not (%s): %s", id,
                   rotation_state_name(r->state), r->error);
}

/* All of them: those of organisations that have no admin key wait for one, and
 * keep no other waiting. */
static enum code take_due(const struct rotation *r, void *ctx, struct error *e)
{
    struct due *d = ctx;

    note_left(d, r);
    if (rotation_is_due(r, d->now))
        return documents_add(&d->documents, r->document, e);
    if (r->due_ms < d->next)
        d->next = r->due_ms;
    return OK;
}

static void forget_left(struct rotate *r)
{
    for (size_t i = 0; i < r->n_orgs; i++)
        r->orgs[i].left = false;
}

static void drop_left(struct core *c)
{
    for (size_t i = 0; i < c->rotate.n_orgs; i++) {
        const struct rotate_org *o = &c->rotate.orgs[i];

        if (!o->left)
            warnings_drop(&c->warnings, ALARM_ADMIN_KEY_LEFT, o->name);
    }
}

/* Goes on with what is due; how long until the next is. */
static int64_t go_on_all(struct core *c)
{
    CLEANUP(due_clear) struct due d = {.core = c, .now = steady_ms(c)};
    struct error e = {0};

    d.next = d.now + IDLE_MS;
    forget_left(&c->rotate);
    if (rotation_each(c->store, NULL, take_due, &d, &e) != OK)
        log_failure(&e, "rotations under way");
    else
        drop_left(c);
    bool some = false;
    for (size_t i = 0; i < d.documents.n; i++)
        some = go_on(c, d.documents.names[i]) || some;
    if (some)
        return ROTATE_LOOK_MS; /* each step says anew when the next is due */
    return d.next > d.now ? d.next - d.now : ROTATE_LOOK_MS;
}

/* ---- what is due begins ---- */

/* false: somebody is at its configuration, for a moment. */
static bool begin(struct core *c, struct rotate_org *o)
{
    INFLIGHT hold = {0};
    struct error *e = &o->error;
    int64_t wait = RETRY_FIRST_MS;

    if (!inflight_try(&c->inflight, "config", o->name, &hold))
        return false;
    error_clear(e);
    if (rotate_held(c, NULL, o->name, o->cause, e) == OK) {
        log_info("organisation %s: its admin key was rotated (%s)", o->name,
                 o->cause);
        o->tries = 0;
        return true;
    }
    for (int i = 0; i < o->tries && wait < RETRY_MAX_MS; i++)
        wait *= 2;
    if (wait > RETRY_MAX_MS)
        wait = RETRY_MAX_MS;
    if (wait < e->retry_after_ms)
        wait = e->retry_after_ms;
    o->tries++;
    o->not_before_ms = steady_ms(c) + wait;
    if (e->code != ERR_EXISTS)
        log_failure(e, "organisation %s: its admin key is due to be rotated "
                       "(%s)",
                    o->name, o->cause);
    return true;
}

static void tell_overdue(struct core *c, const struct rotate_org *o,
                         const struct schedule *s, int64_t now)
{
    char due[CLOCK_TEXT_MAX];

    if (now < s->overdue_ms) {
        warnings_drop(&c->warnings, ALARM_ROTATION_OVERDUE, o->name);
        return;
    }
    warnings_raise(&c->warnings, ALARM_ROTATION_OVERDUE, o->name,
                   "the admin key should have been rotated by %s (%s)%s%s",
                   clock_text(s->overdue_ms, due), s->cause,
                   o->error.code ? ": " : "", o->error.code ? o->error.text
                                                            : "");
}

/* Who has the seal key may have opened it: blobs are in backups, too. It sealed
 * until another had its place. Where the clock was ahead when it was declared,
 * nothing tells which came first: one rotation a day is safe, and no storm. */
static bool is_exposed(struct core *c, const struct config *config, int64_t now)
{
    struct error why = {0};
    int64_t since;

    if (keystates_compromised_ms(c, "seal", &since, &why) != OK)
        log_failure(&why, "the states of the HSM's keys");
    if (since > now + AHEAD_MS && config->last_rotated_ms <= now)
        return config->last_rotated_ms + DAY_MS <= now;
    return since > 0 && config->last_rotated_ms < since;
}

static enum code look_at_org(const struct store_org *org, void *ctx,
                             struct error *e)
{
    struct core *c = ctx;
    struct rotate_org *o = org_of(&c->rotate, org->name);
    CONFIG config = {0};
    int64_t now = clock_wall_ms();
    enum code code = config_parse(&config, org->config, e);
    struct schedule s = {SCHEDULE_NEVER, SCHEDULE_NEVER, SCHEDULE_NEVER, ""};

    if (code || !o)
        return code;
    if (org->admin_blob)
        s = schedule_next(&config, now);
    if (org->admin_blob && is_exposed(c, &config, now))
        s = (struct schedule){now, now, SCHEDULE_NEVER, ROTATE_COMPROMISED};
    tell_overdue(c, o, &s, now);
    o->due = now >= s.due_ms && now <= s.until_ms &&
             steady_ms(c) >= o->not_before_ms;
    snprintf(o->cause, sizeof(o->cause), "%s", o->due ? s.cause : "");
    return OK;
}

/* Once for each keeper that has logged in. */
static void look_at_hsm(struct core *c, struct rotate_org *o)
{
    ROTATE_STEP s = {.core = c};
    INFLIGHT hold = {0};
    struct error e = {0};
    uint64_t ready = atomic_load(&c->unlock.ready);

    if (ready == 0 || ready == o->looked_at ||
        !inflight_try(&c->inflight, "config", o->name, &hold))
        return;
    o->looked_at = ready;
    if (rotate_step_load(&s, o->name, &e) != OK)
        log_failure(&e, "organisation %s: its admin key", o->name);
}

/* How long until something may be due. */
static int64_t look_at_all(struct core *c)
{
    struct error e = {0};
    int64_t wait = go_on_all(c);

    if (keyrotate_go_on(c))
        wait = 0;
    keyschedule_look(c);
    if (store_org_each(c->store, look_at_org, c, &e) != OK)
        log_failure(&e, "rotations that are due");
    for (size_t i = 0; i < c->rotate.n_orgs; i++) {
        struct rotate_org *o = &c->rotate.orgs[i];

        look_at_hsm(c, o);
        if (o->due && !begin(c, o) && wait > ROTATE_LOOK_MS)
            wait = ROTATE_LOOK_MS;
        o->due = false;
    }
    return wait;
}

static void *run(void *ctx)
{
    struct core *c = ctx;
    struct rotate *r = &c->rotate;

    for (;;) {
        int64_t wait = look_at_all(c);
        struct timespec until = clock_in_ms(wait);

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
    free(r->orgs);
}
