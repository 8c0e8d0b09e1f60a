/* keystep - what a rotation of the HSM's keys (keyrotate.c), its being let go
 * (keyabandon.c), a compromised key (keycompromise.c) and the end of an old one
 * (keydestroy.c) share: who works on them, asking the keeper, and storing what
 * came of it.
 */
#ifndef HSMINT_CORE_KEYSTEP_H
#define HSMINT_CORE_KEYSTEP_H

#include "common/frame.h"
#include "module/core/core.h"
#include "module/core/inflight.h"
#include "module/core/keyrotation.h"

/* Who works on the HSM's keys holds it in core's inflight table. */
#define KEYSTEP_HOLD "hsm-keys"

struct keystep {
    struct core *core;
    const struct caller *by; /* NULL: nobody asks */
    struct keyrotation r;
    /* Stored with the next step: */
    char *pins;   /* NULL: they stay */
    json_t *note; /* more members of its record; NULL: none */
};
void keystep_clear(struct keystep *s);
#define KEYSTEP CLEANUP(keystep_clear) struct keystep

/* The hold, for "seal", "call" or "log". ERR_INVALID: no such key rotates. */
MUST_CHECK enum code keystep_hold(struct core *c, const char *which,
                                  struct inflight_hold *hold, struct error *e);
/* *out: {key, state} */
MUST_CHECK enum code keystep_answer(const struct keystep *s, json_t **out,
                                    struct error *e);

/* Takes `head`. */
MUST_CHECK enum code keystep_ask(struct keystep *s, enum verb verb,
                                 json_t *head, struct frame *reply,
                                 struct error *e);
/* The verb rotate-key, about the keys that are planned. */
MUST_CHECK enum code keystep_ask_planned(struct keystep *s, const char *step,
                                         struct frame *reply, struct error *e);
/* The pins of a reply are those of the next step. */
MUST_CHECK enum code keystep_take_pins(struct keystep *s,
                                       const struct frame *reply,
                                       struct error *e);
/* The document, the record, the pins if there are other ones. */
MUST_CHECK enum code keystep_commit(struct keystep *s, struct error *e);
/* The same, in the event's state. */
MUST_CHECK enum code keystep_advance(struct keystep *s,
                                     enum keyrotation_event event,
                                     struct error *e);
/* ERR_EXISTS */
MUST_CHECK enum code keystep_none_under_way(struct core *c, struct error *e);

#endif
