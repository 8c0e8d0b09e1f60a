/* cosign - what is said to a witness, and what becomes of its answer:
 * c2sp.org/tlog-witness, without the network.
 */
#ifndef HSMINT_AUDIT_COSIGN_H
#define HSMINT_AUDIT_COSIGN_H

#include "common/note.h"

/* The body of add-checkpoint: that the log went on from its first `old`
 * records, and its checkpoint. Caller frees. */
MUST_CHECK enum code cosign_request(uint64_t old,
                                    const struct merkle_proof *proof,
                                    const char *note, size_t len, char **body,
                                    struct error *e);
/* The body of "409 Conflict": the size that the witness has seen last. */
MUST_CHECK enum code cosign_conflict(const char *body, size_t len,
                                     uint64_t *size, struct error *e);
/* The note with the cosignature of `key` out of an answer, in place of an older
 * one of it. What others signed there is left out. Caller frees. ERR_SEAL: it
 * is bad, or there is none; ERR_INVALID. */
MUST_CHECK enum code cosign_take(const char *note, size_t len,
                                 const char *answer, size_t answer_len,
                                 const struct note_key *key, char **out,
                                 struct error *e);

#endif
