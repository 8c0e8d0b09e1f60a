/* ceremony - does the transcript of a ceremony hold? spec/CEREMONY.md.
 *
 * Needs neither daemon, store nor HSM. */
#ifndef HSMINT_AUDIT_CEREMONY_H
#define HSMINT_AUDIT_CEREMONY_H

#include "common/transcript.h"
#include "module/audit/keyring.h"
#include "module/audit/record.h"

/* *out: {faults: [text], notices: [text], log_keys: [vkey],
 * participants: [{name, role, key, fingerprint, signed}], attestations: [{key,
 * sha256, bytes, kind, subject, issuer, about}]}. `keys`: those that were given
 * count for its signature, too. OK with faults. Caller frees. */
MUST_CHECK enum code ceremony_check(const struct transcript *t,
                                    const struct keyring *keys, json_t **out,
                                    struct error *e);

/* Origin, size and root of the log's tree, as the statement names it. */
MUST_CHECK enum code ceremony_checkpoint(const struct transcript *t,
                                         struct checkpoint *c,
                                         struct error *e);
/* What the log says of it. */
struct ceremony_trace {
    const struct transcript *t;
    char given[64], statement[64]; /* base64 of SHA-256 */
    int64_t record;                /* that the statement names */
    bool told;                     /* it is about what was given */
    int64_t signed_seq;            /* of the record with the statement's digest;
                                      0: none */
    int64_t stranger_seq; /* of the first record before it of a key of calls
                             that the statement does not have; 0: none */
    char stranger[128];   /* its keyid, as the record has it */
    bool forgets;         /* the statement has not all keys of calls: the pins
                             let go of the oldest that are destroyed */
};
MUST_CHECK enum code ceremony_trace_begin(struct ceremony_trace *c,
                                          const struct transcript *t,
                                          struct error *e);
void ceremony_trace_record(struct ceremony_trace *c, const struct record *r);

/* Takes a participant's signature: of the one with this name. ERR_NOT_FOUND,
 * ERR_EXISTS: they have signed (and this one is good, too), ERR_INVALID: has no
 * key, ERR_SEAL. */
MUST_CHECK enum code ceremony_sign(struct transcript *t, const char *name,
                                   const uint8_t *signature, size_t len,
                                   struct error *e);

#endif
