/* keyrotate - see keyrotate.h. */
#include "config.h"

#include "module/core/keyrotate.h"

#include "common/clock.h"
#include "common/file.h"
#include "common/log.h"
#include "module/core/internal.h"
#include "module/core/keystep.h"
#include "module/core/logbook.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    COMMAND_MS = 20000, /* that a command waits for keys to be sealed anew */
    SLICE_MS = 500,     /* that the thread works on them at a time */
    BUSY_MS = 200,
    DRAIN_MS = 10000,
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

static enum code ask_keys(struct keystep *s, const char *step,
                          struct frame *reply, struct error *e)
{
    bool compromised = keystates_is_declared(s->core, s->r.which);

    return keystep_ask(s, VERB_ROTATE_KEY,
                       json_pack("{ss ss sO sb}", "which", s->r.which, "step",
                                 step, "keys", s->r.plan, "compromised",
                                 compromised),
                       reply, e);
}

/* For sure there is nothing: only then it ends. */
static enum code refused(struct keystep *s, const struct error *why)
{
    FRAME reply = FRAME_INIT;
    struct error e = {0};
    enum code code = ask_keys(s, "clear", &reply, &e);

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
    enum code code = ask_keys(s, "make", &reply, &why);

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
        code = sealing_drain(&s->core->sealing, DRAIN_MS, e);
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

static void show(struct core *c, const struct error *why)
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
        show(s->core, NULL);
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
    show(s->core, code ? &why : NULL);
    k->tries = code ? k->tries + 1 : 0;
    if (!code && s->r.state == KEYROTATION_DONE)
        log_info("the HSM's %s key was rotated", s->r.which);
    if (code && e)
        *e = why;
    return code;
}

/* ---- on command ---- */

static enum code check_which(const char *which, struct error *e)
{
    if (strcmp(which, "seal") == 0 || strcmp(which, "call") == 0 ||
        strcmp(which, "log") == 0)
        return OK;
    return error_set(e, ERR_INVALID,
                     "\"%.32s\" is no key that rotates: it is seal, call or "
                     "log",
                     which);
}

static enum code hold_keys(struct core *c, const char *which,
                           struct inflight_hold *hold, struct error *e)
{
    enum code code = check_which(which, e);

    return code ? code
                : inflight_enter(&c->inflight, KEYSTEP_HOLD, NULL, NULL, NULL,
                                 hold, e);
}

/* Whoever calls holds KEYSTEP_HOLD. */
static enum code run(struct keystep *s, const char *which, const char *cause,
                     struct error *e)
{
    enum code code = keystep_none_under_way(s->core, e);

    if (!code)
        code = plan(s, which, cause, e);
    if (!code)
        code = keystep_commit(s, e);
    if (code)
        return code;
    s->core->keyrotate.walk = (struct reseal_walk){.begun = false};
    code = go_on(s, clock_monotonic_ms() + COMMAND_MS, e);
    if (code && s->r.state != KEYROTATION_DONE)
        return error_prefix(e, "the rotation goes on by itself");
    return code;
}

static enum code answer(const struct keystep *s, json_t **out, struct error *e)
{
    *out = keyrotation_json(&s->r);
    return *out ? OK : error_set(e, ERR_NOMEM, "no memory for a reply");
}

enum code keyrotate_run(struct core *c, const struct caller *by,
                        const char *which, const char *cause, json_t **out,
                        struct error *e)
{
    KEYSTEP s = {.core = c, .by = by};
    INFLIGHT hold = {0};
    enum code code = hold_keys(c, which, &hold, e);

    if (code)
        return code;
    code = run(&s, which, cause, e);
    inflight_leave(&hold);
    if (s.r.plan)
        rotate_poke(c);
    return code ? code : answer(&s, out, e);
}

enum code core_rotate_hsm(struct core *c, const struct caller *by,
                          const char *which, json_t **out, struct error *e)
{
    return keyrotate_run(c, by, which, KEYROTATION_COMMAND, out, e);
}

/* ---- a key that somebody knows ---- */

static enum code declare(struct store_tx *tx, void *ctx, struct error *e)
{
    const struct keystep *s = ctx;
    json_t *declared = json_array();
    enum code code = keystates_declare(tx, s->r.which, declared, e);
    const struct logbook_entry r = {
        .kind = RECORD_ROTATE_KEY,
        .by = s->by,
        .more = json_pack("{ss ss ss so}", "key", s->r.which, "state",
                          "compromised", "cause", KEYROTATION_COMPROMISED,
                          "old", declared)};
    enum code logged = logbook_add(s->core, tx, &r, code ? NULL : e);

    return code ? code : logged;
}

/* One that is under way ends first, but for its beginning: the key that it makes
 * takes the place of the declared one. Whoever calls holds KEYSTEP_HOLD. */
static enum code run_compromised(struct keystep *s, const char *which,
                                 struct error *e)
{
    int64_t until = clock_monotonic_ms() + COMMAND_MS;
    enum code code = keyrotation_load(s->core->store, &s->r, e);

    if (code == ERR_NOT_FOUND)
        return run(s, which, KEYROTATION_COMPROMISED, e);
    if (code)
        return code;
    if (s->r.state == KEYROTATION_MAKE && strcmp(s->r.which, which) == 0) {
        strcpy(s->r.cause, KEYROTATION_COMPROMISED);
        code = keystep_commit(s, e);
        return code ? code : go_on(s, until, e);
    }
    code = go_on(s, until, e);
    keyrotation_clear(&s->r);
    return code ? code : run(s, which, KEYROTATION_COMPROMISED, e);
}

/* Declared first, whatever comes: keyschedule.h tries on. */
enum code core_compromised_hsm(struct core *c, const struct caller *by,
                               const char *which, json_t **out,
                               struct error *e)
{
    KEYSTEP s = {.core = c, .by = by};
    INFLIGHT hold = {0};
    enum code code = hold_keys(c, which, &hold, e);

    if (code)
        return code;
    snprintf(s.r.which, sizeof s.r.which, "%s", which);
    code = store_commit(c->store, STORE_RESERVE, declare, &s, e);
    if (code)
        return code;
    notary_note(c);
    code = run_compromised(&s, which, e);
    inflight_leave(&hold);
    rotate_poke(c);
    return code ? error_prefix(e, "it is declared compromised, and replaced as "
                                  "soon as the HSM makes another")
                : answer(&s, out, e);
}

/* ---- one that cannot go on ---- */

static void clear_made(struct keystep *s)
{
    FRAME reply = FRAME_INIT;
    struct error why = {0};

    if (ask_keys(s, "clear", &reply, &why))
        log_failure(&why, "what was made for the HSM's %s key may be left on "
                          "it",
                    s->r.which);
}

/* "hsmint-seal-2" of the plan, in `label`. */
static void planned_seal(const json_t *plan, char label[SEALED_LABEL_MAX])
{
    label[0] = '\0';
    for (size_t i = 0; i < json_array_size(plan); i++) {
        json_t *key = json_array_get(plan, i);
        const char *use = json_string_value(json_object_get(key, "use"));

        if (use && strcmp(use, "seal") == 0)
            snprintf(label, SEALED_LABEL_MAX, "hsmint-seal-%d",
                     (int)json_integer_value(json_object_get(key, "version")));
    }
}

/* The HSM itself has looked at the new key. Where it does not answer, the keeper
 * may be working with that one for all that is known. */
static bool is_no_key(enum code code)
{
    return code == ERR_HSM_KEYS || code == ERR_HSM_FAILED;
}

static enum code cannot_be_taken(struct keystep *s, struct error *why,
                                 struct error *e)
{
    if (unlock_take_pins(s->core, why) == OK)
        return error_set(e, ERR_EXISTS,
                         "the keeper works with the new %s key: the rotation "
                         "is not stuck, and goes on by itself",
                         s->r.which);
    if (!is_no_key(why->code))
        return error_set(e, why->code,
                         "whether the new %s key works cannot be told now, and "
                         "it may be in use: %s",
                         s->r.which, why->text);
    unlock_pause(s->core); /* a keeper may have the new pins for all that */
    return sealing_drain(&s->core->sealing, DRAIN_MS, e);
}

/* Only what nobody can work with: else the pins of before would make unreadable
 * what was sealed since. */
static enum code put_back(struct keystep *s, struct error *e)
{
    char label[SEALED_LABEL_MAX];
    struct error why = {0};
    int64_t n = 0;
    enum code code;

    if (!s->r.before)
        return error_set(e, ERR_INVALID, "the pins of before are not known");
    code = cannot_be_taken(s, &why, e);
    planned_seal(s->r.plan, label);
    if (!code && *label)
        code = reseal_count(s->core, label, &n, e);
    if (!code && n > 0)
        code = error_set(e, ERR_INVALID,
                         "%lld keys are sealed by %s already: bring it back "
                         "from the HSM's backup (%s)",
                         (long long)n, label, why.text);
    if (code)
        return code;
    s->pins = json_text(s->r.before, JSON_COMPACT);
    return s->pins ? OK : error_set(e, ERR_NOMEM, "no memory for pins");
}

static json_t *abandoned(struct keystep *s, enum keyrotation_state was)
{
    static const char *const says[KEYROTATION_DONE] = {
        [KEYROTATION_MAKE] = "nothing has changed: the key of before is in use",
        [KEYROTATION_TAKE] = "the key of before is in use again",
        [KEYROTATION_SIGN] =
            "the log goes on with the new key alone: who knows only the old "
            "one has to be given it (`hsmint audit key`)",
        [KEYROTATION_RESEAL] =
            "the new key is in use; what could not be sealed anew is opened by "
            "the old one, which has to stay on the HSM",
        [KEYROTATION_PROVE] =
            "the new key is in use; the old one has to stay on the HSM",
    };

    return json_pack("{ss ss ss ss}", "key", s->r.which, "state", "abandoned",
                     "was", keyrotation_state_name(was), "text", says[was]);
}

static enum code store_let_go(struct keystep *s, enum keyrotation_state was,
                              struct error *e)
{
    const struct reseal_walk *w = &s->core->keyrotate.walk;
    enum code code = was == KEYROTATION_TAKE ? put_back(s, e) : OK;

    if (code)
        return code;
    s->note = json_pack("{ss ss sI}", "state", "abandoned", "was",
                        keyrotation_state_name(was), "left",
                        (json_int_t)w->left);
    return keystep_advance(s, KEYROTATION_ABANDONED, e);
}

/* A keeper at work takes no pins of before: another one is started. What goes by
 * the planned ids is of no use then. */
static enum code let_take_go(struct keystep *s, struct error *e)
{
    struct error why = {0};
    enum code code = store_let_go(s, KEYROTATION_TAKE, e);

    unlock_go_on(s->core);
    if (code)
        return code;
    if (unlock_take_pins(s->core, &why))
        log_failure(&why, "the key of before is not in use yet");
    clear_made(s);
    return OK;
}

static enum code let_go(struct keystep *s, json_t **out, struct error *e)
{
    enum keyrotation_state was = s->r.state;
    enum code code;

    if (was == KEYROTATION_MAKE)
        clear_made(s);
    code = was == KEYROTATION_TAKE ? let_take_go(s, e)
                                   : store_let_go(s, was, e);
    if (code)
        return code;
    show(s->core, NULL);
    *out = abandoned(s, was);
    return *out ? OK : error_set(e, ERR_NOMEM, "no memory for a reply");
}

enum code core_abandon_hsm(struct core *c, const struct caller *by,
                           const char *which, json_t **out, struct error *e)
{
    KEYSTEP s = {.core = c, .by = by};
    INFLIGHT hold = {0};
    struct error none = {0};
    enum code code = hold_keys(c, which, &hold, e);

    if (code)
        return code;
    code = keyrotation_load(c->store, &s.r, &none);
    if (code == ERR_NOT_FOUND || (!code && strcmp(s.r.which, which) != 0))
        return error_set(e, ERR_NOT_FOUND,
                         "no rotation of the HSM's %s key is under way", which);
    if (code && e)
        *e = none;
    if (!code)
        code = let_go(&s, out, e);
    inflight_leave(&hold);
    rotate_poke(c);
    return code;
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
        show(c, &why);
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
