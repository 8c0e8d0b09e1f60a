/* rotate_parts - what the files of a rotation's steps have in common:
 * rotate_step.c makes and proves, rotate_find.c looks for what was lost,
 * rotate_end.c ends keys, rotate_use.c asks the keeper. For these alone.
 */
#ifndef HSMINT_CORE_ROTATE_PARTS_H
#define HSMINT_CORE_ROTATE_PARTS_H

#include "module/core/gate.h"
#include "module/core/rotate_step.h"

#define ROTATE_PROVE_MS 60000 /* a fresh key may be refused for so long */

/* The event's state, due in wait_ms, with the outcome of `reply` (NULL: no call
 * was made). */
MUST_CHECK enum code rotate_advance(struct rotate_step *s,
                                    enum rotation_event event,
                                    const struct gate_call *call,
                                    const struct gate_reply *reply,
                                    int64_t wait_ms, struct error *e);
/* The same state, later; `why` (may be NULL) is kept. */
MUST_CHECK enum code rotate_later(struct rotate_step *s,
                                  const struct gate_call *call,
                                  const struct gate_reply *reply,
                                  int64_t wait_ms, const struct error *why,
                                  struct error *e);

enum rotate_use {
    USE_TRY,  /* only by calls that say `candidate` */
    USE_HERE, /* the organisation's, in the keeper alone */
    USE       /* and written to the HSM */
};
/* The keeper works with this sealed key, or a later one of the HSM's. */
MUST_CHECK enum code rotate_use(struct rotate_step *s, const uint8_t *blob,
                                size_t len, enum rotate_use how,
                                struct error *e);
/* Where the HSM's key is later than the store's, as after a backup was restored,
 * it is the organisation's. */
MUST_CHECK enum code rotate_adopt(struct rotate_step *s, struct error *e);
/* A call with a key that is only tried: OK, or what the service says. */
MUST_CHECK enum code rotate_try(struct rotate_step *s, const uint8_t *blob,
                                size_t len, struct error *e);

/* ROTATION_MAKE once more: was it made? */
MUST_CHECK enum code rotate_find(struct rotate_step *s, struct error *e);
/* ROTATION_RETIRE, ROTATION_DROP: this key is deleted at the service. */
MUST_CHECK enum code rotate_delete(struct rotate_step *s, const char *id,
                                   struct error *e);
/* ROTATION_CONFIRM: the old key is tried, and deleted again where it works. */
MUST_CHECK enum code rotate_confirm(struct rotate_step *s, struct error *e);

#endif
