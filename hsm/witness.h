/* witness - what the keeper has seen of the HSM and its keys, for the transcript
 * of a ceremony (spec/CEREMONY.md). */
#ifndef HSMINT_WITNESS_H
#define HSMINT_WITNESS_H

#include "hsm/state.h"

/* In exclusive use: this process has just had the HSM make those of `set` that
 * are not in `before` (may be NULL). */
void witness_made(struct hsm *h, const struct keyset *before,
                  const struct keyset *set);
/* {hsm, mechanisms, keys} of common/transcript.h, read anew; the keys in use are
 * checked as at a start. Caller frees. */
MUST_CHECK enum code witness_hsm(struct hsm *h, json_t **out, struct error *e);

#endif
