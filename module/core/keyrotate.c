/* keyrotate - see keyrotate.h. */
#include "config.h"

#include "module/core/keyrotate.h"

#include "common/clock.h"
#include "common/file.h"
#include "common/log.h"
#include "module/core/internal.h"
#include "module/core/keyrotation.h"
#include "module/core/logbook.h"
#include "module/core/rotate.h"

#include <stdlib.h>
#include <string.h>

enum { MAKE_FACTOR = 6 /* making keys on a slow HSM */ };
#define HOLD "hsm-keys"

struct step {
    struct core *core;
    const struct caller *by; /* NULL: nobody asks */
    struct keyrotation r;
    uint64_t handed_over; /* log: the checkpoint of so many records says so */
    /* Stored with the next step: */
    char *pins;
};

static void step_clear(struct step *s)
{
    keyrotation_clear(&s->r);
    free(s->pins);
}
#define STEP CLEANUP(step_clear) struct step

/* ---- rows ---- */

/* ["hsmint-call-2"] */
static json_t *labels(const json_t *plan)
{
    JSON list = json_array();

    for (size_t i = 0; i < json_array_size(plan); i++) {
        json_t *key = json_array_get(plan, i);

        if (json_array_append_new(
                list, json_sprintf("hsmint-%s-%lld",
                                   json_string_value(json_object_get(key, "use")),
                                   (long long)json_integer_value(
                                       json_object_get(key, "version")))) != 0)
            return NULL;
    }
    return json_incref(list);
}

static enum code save(struct store_tx *tx, void *ctx, struct error *e)
{
    const struct step *s = ctx;
    const struct logbook_entry r = {
        .kind = RECORD_ROTATE_KEY,
        .by = s->by,
        .more = json_pack("{ss ss so so*}", "key", s->r.which, "state",
                          keyrotation_state_name(s->r.state), "new",
                          labels(s->r.plan), "handed_over",
                          s->handed_over ? json_integer((json_int_t)s->handed_over)
                                         : NULL)};
    enum code code = logbook_add(s->core, tx, &r, e);

    if (!code)
        code = keyrotation_save(tx, &s->r, e);
    if (code)
        return code;
    return s->pins ? pins_put(s->core, tx, s->by, s->pins, "rotation", e)
                   : keystates_note(s->core, tx, s->by, NULL, "rotation", e);
}

static enum code commit(struct step *s, struct error *e)
{
    enum code code = store_commit(s->core->store, STORE_NORMAL, save, s, e);

    if (code)
        return code;
    notary_note(s->core);
    free(s->pins);
    s->pins = NULL;
    return OK;
}

static enum code advance(struct step *s, enum keyrotation_event event,
                         struct error *e)
{
    enum keyrotation_state was = s->r.state;
    enum code code = keyrotation_next(was, event, &s->r.state, e);

    s->r.begun_ms = clock_wall_ms();
    if (!code)
        code = commit(s, e);
    if (code)
        s->r.state = was;
    return code;
}

/* ---- the keeper ---- */

/* Takes `head`. */
static enum code ask(struct step *s, enum verb verb, json_t *head,
                     struct frame *reply, struct error *e)
{
    FRAME request = FRAME_INIT;

    request.verb = verb;
    request.head = head;
    if (!head)
        return error_set(e, ERR_NOMEM, "no memory for a rotation");
    return unlock_call(s->core, &request,
                       (int)s->core->settings->hsm_deadline_ms * MAKE_FACTOR,
                       reply, NULL, e);
}

static enum code plan(struct step *s, const char *which, struct error *e)
{
    FRAME reply = FRAME_INIT;
    json_t *keys = NULL;
    const struct json_field fields[] = {
        {"keys", FIELD_ARRAY, true, &keys, NULL},
    };
    enum code code =
        ask(s, VERB_ROTATE_KEY,
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
    return OK;
}

/* ---- the steps ---- */

/* The keeper, the HSM or the way to them ended: what it made, nobody knows. */
static bool is_unknown(enum code code)
{
    return code == ERR_KEEPER || code == ERR_DEADLINE || code == ERR_LOCKED ||
           code == ERR_HSM_ABSENT || code == ERR_NOMEM;
}

static enum code take_pins(struct step *s, const struct frame *reply,
                           struct error *e)
{
    json_t *pins = json_object_get(reply->head, "pins");

    if (!json_is_object(pins))
        return error_set(e, ERR_KEEPER, "the keeper told no pins");
    keystates_heard(s->core, reply->head);
    s->pins = json_text(pins, JSON_COMPACT);
    return s->pins ? OK
                   : error_set(e, ERR_NOMEM, "no memory for the HSM's pins");
}

static enum code ask_keys(struct step *s, const char *step,
                          struct frame *reply, struct error *e)
{
    return ask(s, VERB_ROTATE_KEY,
               json_pack("{ss ss sO}", "which", s->r.which, "step", step,
                         "keys", s->r.plan),
               reply, e);
}

/* For sure there is nothing: only then it ends. */
static enum code refused(struct step *s, const struct error *why)
{
    FRAME reply = FRAME_INIT;
    struct error e = {0};
    enum code code = ask_keys(s, "clear", &reply, &e);

    if (!code)
        code = advance(s, KEYROTATION_NOTHING, &e);
    if (!code)
        log_failure(why, "the HSM made no new %s key", s->r.which);
    else
        log_failure(&e, "what the HSM made of a new %s key is not destroyed",
                    s->r.which);
    return why->code;
}

/* From here on no call is signed by the new key before its record is there:
 * record and pins are one transaction, and the keeper gets the pins after. */
static enum code make(struct step *s, struct error *e)
{
    FRAME reply = FRAME_INIT;
    struct error why = {0};
    enum code code = ask_keys(s, "make", &reply, &why);

    if (!code)
        code = take_pins(s, &reply, &why);
    if (!code)
        return advance(s, KEYROTATION_MADE, e);
    free(s->pins);
    s->pins = NULL;
    if (e)
        *e = why;
    return is_unknown(code) ? code : refused(s, &why);
}

static enum code take(struct step *s, struct error *e)
{
    enum code code = unlock_take_pins(s->core, e);

    return code ? code
                : advance(s,
                          strcmp(s->r.which, "log") == 0 ? KEYROTATION_SHARED
                                                         : KEYROTATION_TAKEN,
                          e);
}

/* Whoever knows the old key is told the new one by it. */
static enum code sign(struct step *s, struct error *e)
{
    enum code code = notary_hand_over(s->core, &s->handed_over, e);

    return code ? code : advance(s, KEYROTATION_SIGNED, e);
}

static enum code (*const steps[KEYROTATION_DONE])(struct step *s,
                                                  struct error *e) = {
    [KEYROTATION_MAKE] = make,
    [KEYROTATION_TAKE] = take,
    [KEYROTATION_SIGN] = sign,
};

static enum code go_on(struct step *s, struct error *e)
{
    enum code code = OK;

    while (!code && s->r.state != KEYROTATION_DONE)
        code = steps[s->r.state](s, e);
    if (!code)
        log_info("the HSM's %s key was rotated", s->r.which);
    return code;
}

/* ---- on command, and by itself ---- */

static enum code none_under_way(struct core *c, struct error *e)
{
    KEYROTATION r = {.which = ""};
    enum code code = keyrotation_load(c->store, &r, e);

    if (code == ERR_NOT_FOUND) {
        error_clear(e);
        return OK;
    }
    return code ? code
                : error_set(e, ERR_EXISTS,
                            "a rotation of the HSM's %s key is under way (%s): "
                            "it ends by itself",
                            r.which, keyrotation_state_name(r.state));
}

/* What it sealed would have to be sealed anew. */
static enum code check_which(const char *which, struct error *e)
{
    if (strcmp(which, "call") == 0 || strcmp(which, "log") == 0)
        return OK;
    return error_set(e, ERR_INVALID,
                     "\"%.32s\" is no key that rotates: it is call or log",
                     which);
}

enum code core_rotate_hsm(struct core *c, const struct caller *by,
                          const char *which, json_t **out, struct error *e)
{
    STEP s = {.core = c, .by = by};
    INFLIGHT hold = {0};
    enum code code = check_which(which, e);

    if (!code)
        code = inflight_enter(&c->inflight, HOLD, NULL, NULL, NULL, &hold, e);
    if (!code)
        code = none_under_way(c, e);
    if (!code)
        code = plan(&s, which, e);
    if (!code)
        code = commit(&s, e);
    if (code)
        return code;
    code = go_on(&s, e);
    inflight_leave(&hold);
    if (code && s.r.state != KEYROTATION_DONE) {
        rotate_poke(c);
        return error_prefix(e, "the rotation goes on by itself");
    }
    if (code)
        return code;
    *out = keyrotation_json(&s.r);
    return *out ? OK : error_set(e, ERR_NOMEM, "no memory for a reply");
}

void keyrotate_go_on(struct core *c)
{
    STEP s = {.core = c};
    INFLIGHT hold = {0};
    struct error e = {0};
    enum code code;

    if (atomic_load(&c->unlock.ready) == 0 ||
        !inflight_try(&c->inflight, HOLD, NULL, &hold))
        return;
    code = keyrotation_load(c->store, &s.r, &e);
    if (code == ERR_NOT_FOUND)
        return;
    if (!code)
        code = go_on(&s, &e);
    if (code)
        log_failure(&e, "rotation of the HSM's keys");
}

/* ---- the end of an old key ---- */

struct ending {
    struct step *step;
    const char *label, *state;
};

static enum code save_ending(struct store_tx *tx, void *ctx, struct error *e)
{
    const struct ending *g = ctx;
    const struct step *s = g->step;
    const struct logbook_entry r = {
        .kind = RECORD_ROTATE_KEY,
        .by = s->by,
        .more = json_pack("{ss ss s[s]}", "key", g->label, "state", g->state,
                          "old", g->label)};
    enum code code = logbook_add(s->core, tx, &r, e);

    if (!code && s->pins)
        code = pins_put(s->core, tx, s->by, s->pins, "destroyed", e);
    return code;
}

/* Begun, cut off and asked for again it comes to the same end. */
enum code core_destroy_hsm(struct core *c, const struct caller *by,
                           const char *label, json_t **out, struct error *e)
{
    STEP s = {.core = c, .by = by};
    INFLIGHT hold = {0};
    FRAME reply = FRAME_INIT;
    struct ending g = {&s, label, "destroy"};
    enum code code =
        inflight_enter(&c->inflight, HOLD, NULL, NULL, NULL, &hold, e);

    if (!code && strlen(label) > 63)
        code = error_set(e, ERR_NOT_FOUND, "no key has so long a name");
    if (!code)
        code = none_under_way(c, e);
    if (!code)
        code = store_commit(c->store, STORE_NORMAL, save_ending, &g, e);
    if (!code)
        code = ask(&s, VERB_DESTROY_KEY, json_pack("{ss}", "label", label),
                   &reply, e);
    if (!code)
        code = take_pins(&s, &reply, e);
    g.state = "destroyed";
    if (!code)
        code = store_commit(c->store, STORE_NORMAL, save_ending, &g, e);
    if (!code)
        code = unlock_take_pins(c, e);
    if (code)
        return code;
    notary_note(c);
    *out = json_pack("{ss ss}", "key", label, "state", g.state);
    return *out ? OK : error_set(e, ERR_NOMEM, "no memory for a reply");
}
