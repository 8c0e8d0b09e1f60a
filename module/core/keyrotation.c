/* keyrotation - see keyrotation.h. */
#include "config.h"

#include "module/core/keyrotation.h"

#include "common/clock.h"
#include "common/file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define KIND "hsm-rotation"
#define DOCUMENT "keys"

static const char *const names[KEYROTATION_STATES] = {
    "make", "take", "sign", "reseal", "prove", "done"};

const char *keyrotation_state_name(enum keyrotation_state s)
{
    return names[s];
}

/* ---- the table ---- */

#define NONE KEYROTATION_STATES
static const enum keyrotation_state table[KEYROTATION_DONE]
                                         [KEYROTATION_EVENTS] = {
    /* MADE, NOTHING, TAKEN, SHARED, SIGNED, SEALS, SEALED, LEFT, PROVEN,
       ABANDONED */
    [KEYROTATION_MAKE] = {KEYROTATION_TAKE, KEYROTATION_DONE, NONE, NONE, NONE,
                          NONE, NONE, NONE, NONE, KEYROTATION_DONE},
    [KEYROTATION_TAKE] = {NONE, NONE, KEYROTATION_DONE, KEYROTATION_SIGN, NONE,
                          KEYROTATION_RESEAL, NONE, NONE, NONE,
                          KEYROTATION_DONE},
    [KEYROTATION_SIGN] = {NONE, NONE, NONE, NONE, KEYROTATION_DONE, NONE, NONE,
                          NONE, NONE, KEYROTATION_DONE},
    [KEYROTATION_RESEAL] = {NONE, NONE, NONE, NONE, NONE, NONE,
                            KEYROTATION_PROVE, NONE, NONE, KEYROTATION_DONE},
    [KEYROTATION_PROVE] = {NONE, NONE, NONE, NONE, NONE, NONE, NONE,
                           KEYROTATION_RESEAL, KEYROTATION_DONE,
                           KEYROTATION_DONE},
};

enum code keyrotation_next(enum keyrotation_state state,
                           enum keyrotation_event event,
                           enum keyrotation_state *next, struct error *e)
{
    enum keyrotation_state to =
        state < KEYROTATION_DONE ? table[state][event] : NONE;

    if (to == NONE)
        return error_set(e, ERR_INTERNAL, "rotation of the HSM's keys: event "
                                          "%d in state %s",
                         (int)event, names[state]);
    *next = to;
    return OK;
}

/* ---- as a document ---- */

void keyrotation_clear(struct keyrotation *r)
{
    json_decref(r->plan);
    json_decref(r->before);
    r->plan = r->before = NULL;
}

static enum code find_state(const char *name, enum keyrotation_state *state,
                            struct error *e)
{
    for (int i = 0; i < KEYROTATION_DONE; i++) {
        if (strcmp(names[i], name) == 0) {
            *state = (enum keyrotation_state)i;
            return OK;
        }
    }
    return error_set(e, ERR_SCHEMA,
                     "rotation of the HSM's keys: state \"%.32s\" is unknown",
                     name);
}

static enum code parse(struct keyrotation *r, json_t *body, struct error *e)
{
    const char *which = "", *state = "", *cause = KEYROTATION_COMMAND;
    json_int_t begun = 0;
    json_t *plan = NULL, *before = NULL;
    const struct json_field fields[] = {
        {"which", FIELD_STRING, true, &which, NULL},
        {"state", FIELD_STRING, true, &state, NULL},
        {"plan", FIELD_ARRAY, true, &plan, NULL},
        {"before", FIELD_OBJECT, false, &before, NULL},
        {"cause", FIELD_STRING, false, &cause, NULL},
        {"begun_ms", FIELD_INT, true, &begun, NULL},
    };
    enum code code = json_decode(body, JSON_FIELDS(fields), false,
                                 "rotation of the HSM's keys", e);

    if (!code)
        code = find_state(state, &r->state, e);
    if (code)
        return code;
    snprintf(r->which, sizeof(r->which), "%s", which);
    snprintf(r->cause, sizeof(r->cause), "%s", cause);
    r->plan = json_incref(plan);
    r->before = json_incref(before);
    r->begun_ms = begun;
    return OK;
}

static enum code parse_text(struct keyrotation *r, const char *text,
                            struct error *e)
{
    JSON body = NULL;
    enum code code = json_parse(text, strlen(text), "rotation of the HSM's keys",
                                &body, e);

    return code ? code : parse(r, body, e);
}

enum code keyrotation_load(struct store *s, struct keyrotation *r,
                           struct error *e)
{
    CLEANUP(store_document_clear) struct store_document d = {.name = NULL};
    enum code code = store_document_get(s, KIND, DOCUMENT, &d, e);

    *r = (struct keyrotation){.which = ""};
    return code ? code : parse_text(r, d.body, e);
}

enum code keyrotation_tx_load(struct store_tx *tx, struct keyrotation *r,
                              struct error *e)
{
    CLEANUP(store_document_clear) struct store_document d = {.name = NULL};
    enum code code = store_tx_document_get(tx, KIND, DOCUMENT, &d, e);

    *r = (struct keyrotation){.which = ""};
    return code ? code : parse_text(r, d.body, e);
}

json_t *keyrotation_json(const struct keyrotation *r)
{
    return json_pack("{ss ss}", "key", r->which, "state", names[r->state]);
}

enum code keyrotation_save(struct store_tx *tx, const struct keyrotation *r,
                           struct error *e)
{
    if (r->state == KEYROTATION_DONE) {
        enum code code = store_document_delete(tx, KIND, DOCUMENT, e);

        return code == ERR_NOT_FOUND ? OK : code;
    }
    JSON body = json_pack("{ss ss sO sO* ss sI}", "which", r->which, "state",
                          names[r->state], "plan", r->plan, "before",
                          r->before, "cause", r->cause, "begun_ms",
                          (json_int_t)r->begun_ms);
    FREE char *text = json_text(body, JSON_COMPACT);

    return text ? store_document_put(tx, KIND, DOCUMENT, text, clock_wall_ms(),
                                     e)
                : error_set(e, ERR_NOMEM, "no memory for a rotation");
}
