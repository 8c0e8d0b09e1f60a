/* keyrotation - the steps in which a key of the HSM's gets another generation,
 * as the store has them: one document of kind "hsm-rotation", written before
 * each step. One rotation at a time. spec/SEAL.md, "Rotation".
 *
 *   make    keys of this version and id may be on the HSM; nobody uses them
 *   take    they are pinned, the old ones as such; the keeper is to take them
 *   sign    log: the old one is to sign a checkpoint beside the new one
 *   reseal  seal: what the old one sealed is being sealed by the new one
 *   prove   seal: all is looked at once more, and opened
 *   done    no document
 *
 * A rotation that cannot go on, whatever the reason, is let go on command: that
 * is ABANDONED. In make nothing has changed; what is on the HSM by the planned
 * ids is destroyed. In take the pins of before are put back, in the same
 * transaction. Later the new key stays in use: the log goes on without the old
 * one's signature, and what could not be sealed anew goes on being opened by
 * the old one.
 */
#ifndef HSMINT_CORE_KEYROTATION_H
#define HSMINT_CORE_KEYROTATION_H

#include "common/error.h"
#include "common/json.h"
#include "module/store/store.h"

enum keyrotation_state {
    KEYROTATION_MAKE,
    KEYROTATION_TAKE,
    KEYROTATION_SIGN,
    KEYROTATION_RESEAL,
    KEYROTATION_PROVE,
    KEYROTATION_DONE,
    KEYROTATION_STATES
};
enum keyrotation_event {
    KEYROTATION_MADE,    /* the keeper made and checked them; they are pinned */
    KEYROTATION_NOTHING, /* for sure: it refused, and took back what it made */
    KEYROTATION_TAKEN,   /* the keeper works with them, and that is all */
    KEYROTATION_SHARED,  /* log: both sign from here on */
    KEYROTATION_SIGNED,  /* a checkpoint of both is kept, and the anchor */
    KEYROTATION_SEALS,   /* seal: the keeper seals with the new one from here on,
                            and what it sealed before is in the store */
    KEYROTATION_SEALED,  /* a whole walk left nothing that the old one sealed */
    KEYROTATION_LEFT,    /* another walk found some all the same */
    KEYROTATION_PROVEN,  /* it found none, and each admin key opened */
    KEYROTATION_ABANDONED, /* by an administrator */
    KEYROTATION_EVENTS
};
const char *keyrotation_state_name(enum keyrotation_state s);
/* ERR_INTERNAL for an event that cannot be in this state. */
MUST_CHECK enum code keyrotation_next(enum keyrotation_state state,
                                      enum keyrotation_event event,
                                      enum keyrotation_state *next,
                                      struct error *e);

#define KEYROTATION_WHICH_MAX 16
#define KEYROTATION_CAUSE_MAX 16
/* Why: somebody asked; it was old enough; somebody knows the old one. */
#define KEYROTATION_COMMAND "command"
#define KEYROTATION_SCHEDULE "schedule"
#define KEYROTATION_COMPROMISED "compromised"

struct keyrotation {
    char which[KEYROTATION_WHICH_MAX]; /* "seal", "call", "log"; "": none */
    enum keyrotation_state state;
    json_t *plan; /* [{use, version, id}], the keeper's. Owned */
    json_t *before; /* the pins of before, from take on; or NULL. Owned */
    char cause[KEYROTATION_CAUSE_MAX];
    int64_t begun_ms; /* this state, wall */
};
void keyrotation_clear(struct keyrotation *r);
#define KEYROTATION CLEANUP(keyrotation_clear) struct keyrotation

/* ERR_NOT_FOUND: there is none. */
MUST_CHECK enum code keyrotation_load(struct store *s, struct keyrotation *r,
                                      struct error *e);
/* As the transaction sees it. */
MUST_CHECK enum code keyrotation_tx_load(struct store_tx *tx,
                                         struct keyrotation *r,
                                         struct error *e);
/* {key, state}; NULL: no memory. */
json_t *keyrotation_json(const struct keyrotation *r);
/* In KEYROTATION_DONE the document is deleted. */
MUST_CHECK enum code keyrotation_save(struct store_tx *tx,
                                      const struct keyrotation *r,
                                      struct error *e);

#endif
