/* keystep - see keystep.h. */
#include "config.h"

#include "module/core/keystep.h"

#include "common/clock.h"
#include "common/file.h"
#include "module/core/internal.h"
#include "module/core/logbook.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAKE_FACTOR = 6 /* making keys on a slow HSM */ };

void keystep_clear(struct keystep *s)
{
    keyrotation_clear(&s->r);
    free(s->pins);
    json_decref(s->note);
    s->pins = NULL;
    s->note = NULL;
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

enum code keystep_hold(struct core *c, const char *which,
                       struct inflight_hold *hold, struct error *e)
{
    enum code code = check_which(which, e);

    return code ? code
                : inflight_enter(&c->inflight, KEYSTEP_HOLD, NULL, NULL, NULL,
                                 hold, e);
}

enum code keystep_answer(const struct keystep *s, json_t **out, struct error *e)
{
    *out = keyrotation_json(&s->r);
    return *out ? OK : error_set(e, ERR_NOMEM, "no memory for a reply");
}

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

static json_t *record(const struct keystep *s)
{
    json_t *more = json_pack("{ss ss ss so}", "key", s->r.which, "state",
                             keyrotation_state_name(s->r.state), "cause",
                             s->r.cause, "new", labels(s->r.plan));

    if (more && s->note && json_object_update(more, s->note) != 0) {
        json_decref(more);
        return NULL;
    }
    return more;
}

static enum code save(struct store_tx *tx, void *ctx, struct error *e)
{
    const struct keystep *s = ctx;
    const struct logbook_entry r = {
        .kind = RECORD_ROTATE_KEY, .by = s->by, .more = record(s)};
    char reason[KEYROTATION_CAUSE_MAX + 16];
    enum code code = logbook_add(s->core, tx, &r, e);

    if (!code)
        code = keyrotation_save(tx, &s->r, e);
    if (code)
        return code;
    snprintf(reason, sizeof(reason), "rotation: %s", s->r.cause);
    return s->pins ? pins_put(s->core, tx, s->by, s->pins, reason, e)
                   : keystates_note(s->core, tx, s->by, NULL, reason, e);
}

enum code keystep_commit(struct keystep *s, struct error *e)
{
    enum code code = store_commit(s->core->store, STORE_NORMAL, save, s, e);

    if (code)
        return code;
    notary_note(s->core);
    free(s->pins);
    json_decref(s->note);
    s->pins = NULL;
    s->note = NULL;
    return OK;
}

/* A step that is not stored is not taken. */
enum code keystep_advance(struct keystep *s, enum keyrotation_event event,
                          struct error *e)
{
    enum keyrotation_state was = s->r.state;
    int64_t begun_ms = s->r.begun_ms;
    enum code code = keyrotation_next(was, event, &s->r.state, e);

    if (code)
        return code;
    s->r.begun_ms = clock_wall_ms();
    code = keystep_commit(s, e);
    if (code) {
        s->r.state = was;
        s->r.begun_ms = begun_ms;
    }
    return code;
}

enum code keystep_none_under_way(struct core *c, struct error *e)
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
                            "it ends by itself; `hsmint hsm show` tells how far "
                            "it is",
                            r.which, keyrotation_state_name(r.state));
}

/* ---- the keeper ---- */

enum code keystep_ask(struct keystep *s, enum verb verb, json_t *head,
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

enum code keystep_ask_planned(struct keystep *s, const char *step,
                              struct frame *reply, struct error *e)
{
    bool compromised = keystates_is_declared(s->core, s->r.which);

    return keystep_ask(s, VERB_ROTATE_KEY,
                       json_pack("{ss ss sO sb}", "which", s->r.which, "step",
                                 step, "keys", s->r.plan, "compromised",
                                 compromised),
                       reply, e);
}

enum code keystep_take_pins(struct keystep *s, const struct frame *reply,
                            struct error *e)
{
    json_t *pins = json_object_get(reply->head, "pins");

    if (!json_is_object(pins))
        return error_set(e, ERR_KEEPER, "the keeper told no pins");
    keystates_heard(s->core, reply->head);
    free(s->pins);
    s->pins = json_text(pins, JSON_COMPACT);
    return s->pins ? OK
                   : error_set(e, ERR_NOMEM, "no memory for the HSM's pins");
}
