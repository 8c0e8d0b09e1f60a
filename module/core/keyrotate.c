/* keyrotate - see keyrotate.h. */
#include "config.h"

#include "module/core/keyrotate.h"

#include "common/clock.h"
#include "common/log.h"
#include "module/core/internal.h"
#include "module/core/keystep.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    COMMAND_MS = 20000, /* that a command waits for keys to be sealed anew */
    SLICE_MS = 500,     /* that the thread works on them at a time */
    BUSY_MS = 200,
    STUCK_MS = 600000, /* a step that fails for so long is an alarm */
    RETRY_FIRST_MS = 2000,
    RETRY_MAX_MS = 60000
};

static enum code plan(struct keystep *s, const char *which, const char *cause,
                      struct error *e)
{
    FRAME reply = FRAME_INIT;
    json_t *keys = NULL;
    const struct json_field fields[] = {
        {"keys", FIELD_ARRAY, true, &keys, NULL},
    };
    enum code code = keystep_ask(
        s, VERB_ROTATE_KEY,
        json_pack("{ss ss}", "which", which, "step", "plan"), &reply, e);

    if (!code)
        code = json_decode(reply.head, JSON_FIELDS(fields), true,
                           "the keeper's plan of keys", e);
    if (code)
        return code;
    s->r = (struct keyrotation){.state = KEYROTATION_MAKE,
                                .plan = json_incref(keys),
                                .begun_ms = clock_wall_ms()};
    snprintf(s->r.which, sizeof(s->r.which), "%s", which);
    snprintf(s->r.cause, sizeof(s->r.cause), "%s", cause);
    return OK;
}

/* ---- the steps ---- */

/* The keeper, the HSM or the way to them ended: what it made, nobody knows. */
static bool is_unknown(enum code code)
{
    return code == ERR_KEEPER || code == ERR_DEADLINE || code == ERR_LOCKED ||
           code == ERR_HSM_ABSENT || code == ERR_NOMEM;
}

/* For sure there is nothing: only then it ends. */
static enum code refused(struct keystep *s, const struct error *why)
{
    FRAME reply = FRAME_INIT;
    struct error e = {0};
    enum code code = keystep_ask_planned(s, "clear", &reply, &e);

    if (!code)
        code = keystep_advance(s, KEYROTATION_NOTHING, &e);
    if (!code)
        log_failure(why, "the HSM made no new %s key", s->r.which);
    else
        log_failure(&e, "what the HSM made of a new %s key is not destroyed",
                    s->r.which);
    return why->code;
}

/* From here on no call is signed by the new key before its record is there:
 * record and pins are one transaction, and the keeper gets the pins after. */
static enum code make(struct keystep *s, int64_t until_ms, struct error *e)
{
    FRAME reply = FRAME_INIT;
    struct error why = {0};
    enum code code = keystep_ask_planned(s, "make", &reply, &why);

    (void)until_ms;
    if (!code)
        code = keystep_take_pins(s, &reply, &why);
    json_decref(s->r.before);
    s->r.before = NULL;
    if (!code)
        code = pins_get(s->core, &s->r.before, &why);
    if (!code)
        return keystep_advance(s, KEYROTATION_MADE, e);
    free(s->pins);
    s->pins = NULL;
    if (e)
        *e = why;
    return is_unknown(code) ? code : refused(s, &why);
}

static bool seals(const struct keystep *s)
{
    return strcmp(s->r.which, "seal") == 0;
}

static enum code take(struct keystep *s, int64_t until_ms, struct error *e)
{
    enum code code = unlock_take_pins(s->core, e);

    (void)until_ms;
    if (!code && seals(s))
        code = sealing_drain(&s->core->sealing, SEALING_DRAIN_MS, e);
    if (code)
        return code;
    return keystep_advance(s,
                           seals(s) ? KEYROTATION_SEALS
                           : strcmp(s->r.which, "log") == 0
                               ? KEYROTATION_SHARED
                               : KEYROTATION_TAKEN,
                           e);
}

/* Whoever knows the old key is told the new one by it; not by a compromised one,
 * which proves nothing any more. */
static enum code sign(struct keystep *s, int64_t until_ms, struct error *e)
{
    uint64_t size = 0;
    enum code code = notary_hand_over(s->core, &size, e);

    (void)until_ms;
    json_decref(s->note);
    s->note = code || strcmp(s->r.cause, KEYROTATION_COMPROMISED) == 0
                  ? NULL
                  : json_pack("{sI}", "handed_over", (json_int_t)size);
    return code ? code : keystep_advance(s, KEYROTATION_SIGNED, e);
}

void keyrotate_show(struct core *c, const struct error *why)
{
    struct keyrotate *k = &c->keyrotate;

    pthread_mutex_lock(&k->lock);
    k->shown = k->walk;
    k->why = why ? *why : (struct error){0};
    pthread_mutex_unlock(&k->lock);
}

static enum code walk(struct keystep *s, bool prove, int64_t until_ms,
                      bool *over, struct error *e)
{
    struct reseal_walk *w = &s->core->keyrotate.walk;
    enum code code = reseal_begin(s->core, w, prove, e);

    *over = false;
    if (!code)
        code = reseal_walk(s->core, s->by, w, until_ms, over, e);
    if (!code)
        keyrotate_show(s->core, NULL);
    json_decref(s->note);
    s->note = NULL;
    if (!code && *over)
        s->note = json_pack("{sI sI}", "sealed_anew", (json_int_t)w->anew,
                            "left", (json_int_t)w->left);
    return code;
}

/* Somebody rotates an admin key, which takes seconds. */
static enum code look_again(void)
{
    usleep(BUSY_MS * 1000);
    return OK;
}

static enum code reseal(struct keystep *s, int64_t until_ms, struct error *e)
{
    const struct reseal_walk *w = &s->core->keyrotate.walk;
    bool over = false;
    enum code code = walk(s, false, until_ms, &over, e);

    if (code || !over)
        return code;
    if (w->left == 0)
        return w->busy ? look_again()
                       : keystep_advance(s, KEYROTATION_SEALED, e);
    return error_set(e, ERR_SEAL,
                     "%lld keys could not be sealed anew: %s",
                     (long long)w->left, w->what);
}

/* Nothing that the old key sealed is left, and what matters most opens. */
static enum code prove(struct keystep *s, int64_t until_ms, struct error *e)
{
    const struct reseal_walk *w = &s->core->keyrotate.walk;
    bool over = false;
    enum code code = walk(s, true, until_ms, &over, e);

    if (code || !over)
        return code;
    if (w->anew > 0 || w->left > 0)
        return keystep_advance(s, KEYROTATION_LEFT, e);
    if (w->busy)
        return look_again();
    s->core->keyrotate.looked = true;
    return keystep_advance(s, KEYROTATION_PROVEN, e);
}

/* May end before its state does, where until_ms (monotonic) has come. */
static enum code (*const steps[KEYROTATION_DONE])(struct keystep *s,
                                                  int64_t until_ms,
                                                  struct error *e) = {
    [KEYROTATION_MAKE] = make,     [KEYROTATION_TAKE] = take,
    [KEYROTATION_SIGN] = sign,     [KEYROTATION_RESEAL] = reseal,
    [KEYROTATION_PROVE] = prove,
};

static enum code go_on(struct keystep *s, int64_t until_ms, struct error *e)
{
    struct keyrotate *k = &s->core->keyrotate;
    struct error why = {0};
    enum code code = OK;

    while (!code && s->r.state != KEYROTATION_DONE) {
        if (s->r.state >= KEYROTATION_RESEAL &&
            clock_monotonic_ms() >= until_ms)
            break;
        code = steps[s->r.state](s, until_ms, &why);
    }
    keyrotate_show(s->core, code ? &why : NULL);
    k->tries = code ? k->tries + 1 : 0;
    if (!code && s->r.state == KEYROTATION_DONE)
        log_info("the HSM's %s key was rotated", s->r.which);
    if (code && e)
        *e = why;
    return code;
}

/* ---- on command ---- */

enum code keyrotate_finish(struct keystep *s, struct error *e)
{
    return go_on(s, clock_monotonic_ms() + COMMAND_MS, e);
}

enum code keyrotate_begin(struct keystep *s, const char *which,
                          const char *cause, struct error *e)
{
    enum code code = keystep_none_under_way(s->core, e);

    if (!code)
        code = plan(s, which, cause, e);
    if (!code)
        code = keystep_commit(s, e);
    if (code)
        return code;
    s->core->keyrotate.walk = (struct reseal_walk){.begun = false};
    code = keyrotate_finish(s, e);
    if (code && s->r.state != KEYROTATION_DONE)
        return error_prefix(e, "the rotation goes on by itself");
    return code;
}

enum code keyrotate_run(struct core *c, const struct caller *by,
                        const char *which, const char *cause, json_t **out,
                        struct error *e)
{
    KEYSTEP s = {.core = c, .by = by};
    INFLIGHT hold = {0};
    enum code code = keystep_hold(c, which, &hold, e);

    if (code)
        return code;
    code = keyrotate_begin(&s, which, cause, e);
    inflight_leave(&hold);
    if (s.r.plan)
        rotate_poke(c);
    return code ? code : keystep_answer(&s, out, e);
}

enum code core_rotate_hsm(struct core *c, const struct caller *by,
                          const char *which, json_t **out, struct error *e)
{
    return keyrotate_run(c, by, which, KEYROTATION_COMMAND, out, e);
}

/* ---- by itself ---- */

/* What was stored behind the back of a rotation, however that came about, and
 * what it had to leave. */
static enum code look_once(struct core *c, bool *more, struct error *e)
{
    struct keyrotate *k = &c->keyrotate;
    bool wanted = false, over = false;
    enum code code = reseal_is_wanted(c, &wanted, e);

    k->looked = !code && !wanted;
    if (code || !wanted)
        return code;
    code = reseal_begin(c, &k->walk, false, e);
    if (!code)
        code = reseal_walk(c, NULL, &k->walk, clock_monotonic_ms() + SLICE_MS,
                           &over, e);
    *more = !code && !over;
    k->looked = over && k->walk.busy == 0;
    if (over && k->walk.anew > 0)
        log_warning("%lld keys were still sealed by an old key of the HSM's, "
                    "and are sealed anew",
                    (long long)k->walk.anew);
    if (over && k->walk.left > 0)
        log_warning("%lld keys are still sealed by an old key of the HSM's: %s",
                    (long long)k->walk.left, k->walk.what);
    return code;
}

static void fail(struct core *c, const struct error *why, const char *what)
{
    struct keyrotate *k = &c->keyrotate;
    int64_t wait = RETRY_FIRST_MS;

    for (int i = 1; i < k->tries && wait < RETRY_MAX_MS; i++)
        wait *= 2;
    k->not_before_ms =
        clock_monotonic_ms() + (wait < RETRY_MAX_MS ? wait : RETRY_MAX_MS);
    log_failure(why, "%s", what);
}

static void tell(struct core *c, const struct keyrotation *r)
{
    struct keyrotate *k = &c->keyrotate;
    int64_t now = clock_wall_ms();
    char since[CLOCK_TEXT_MAX];
    struct error why;

    pthread_mutex_lock(&k->lock);
    why = k->why;
    pthread_mutex_unlock(&k->lock);
    /* Begun later than now: it cannot be told when, so it is long ago. */
    if (!why.code || (now >= r->begun_ms && now < r->begun_ms + STUCK_MS))
        return;
    warnings_raise(&c->warnings, ALARM_HSM_ROTATION, r->which,
                   "the rotation of the HSM's %s key is at \"%s\" since %s: %s",
                   r->which, keyrotation_state_name(r->state),
                   clock_text(r->begun_ms, since), why.text);
}

/* Nobody is asked: why nothing goes on is known. */
static void note_not_ready(struct core *c)
{
    struct error why = {0};

    if (!unlock_is_locked(c) && unlock_failure(c, &why))
        keyrotate_show(c, &why);
}

static bool work(struct core *c, struct keystep *s)
{
    struct error e = {0};

    if (atomic_load(&c->unlock.ready) == 0) {
        note_not_ready(c);
        return false;
    }
    if (clock_monotonic_ms() < c->keyrotate.not_before_ms)
        return false;
    if (go_on(s, clock_monotonic_ms() + SLICE_MS, &e) == OK)
        return s->r.state != KEYROTATION_DONE;
    fail(c, &e, "rotation of the HSM's keys");
    return false;
}

bool keyrotate_go_on(struct core *c)
{
    KEYSTEP s = {.core = c};
    INFLIGHT hold = {0};
    struct error e = {0};
    bool more = false;
    enum code code;

    if (!inflight_try(&c->inflight, KEYSTEP_HOLD, NULL, &hold))
        return false;
    code = keyrotation_load(c->store, &s.r, &e);
    if (!code) {
        more = work(c, &s);
        if (s.r.state != KEYROTATION_DONE)
            tell(c, &s.r);
        else
            warnings_drop_all(&c->warnings, ALARM_HSM_ROTATION);
        return more;
    }
    if (code != ERR_NOT_FOUND) {
        log_failure(&e, "rotation of the HSM's keys");
        return false;
    }
    warnings_drop_all(&c->warnings, ALARM_HSM_ROTATION);
    error_clear(&e);
    if (!c->keyrotate.looked && atomic_load(&c->unlock.ready) != 0 &&
        clock_monotonic_ms() >= c->keyrotate.not_before_ms &&
        look_once(c, &more, &e) != OK)
        fail(c, &e, "what is sealed by old keys of the HSM's");
    return more;
}

/* ---- for status ---- */

json_t *keyrotate_json(struct core *c)
{
    KEYROTATION r = {.which = ""};
    struct keyrotate *k = &c->keyrotate;
    struct reseal_walk w;
    struct error why;
    json_t *out;

    if (keyrotation_load(c->store, &r, NULL) != OK)
        return NULL;
    pthread_mutex_lock(&k->lock);
    w = k->shown;
    why = k->why;
    pthread_mutex_unlock(&k->lock);
    out = json_pack("{ss ss sI ss}", "key", r.which, "state",
                    keyrotation_state_name(r.state), "since_ms",
                    (json_int_t)r.begun_ms, "error", why.code ? why.text : "");
    if (out && r.state >= KEYROTATION_RESEAL)
        (void)json_object_update_new(
            out, json_pack("{sI sI sI sI}", "of", (json_int_t)w.of, "looked_at",
                           (json_int_t)w.seen, "sealed_anew",
                           (json_int_t)w.anew, "left", (json_int_t)w.left));
    return out;
}
