/* proof - that one record is in the log: c2sp.org/tlog-proof.
 *
 * The record's line goes along as the format's extra data, so that one file
 * and the log's key are all that is needed.
 */
#ifndef HSMINT_AUDIT_PROOF_H
#define HSMINT_AUDIT_PROOF_H

#include "module/audit/keyring.h"
#include "module/audit/record.h"

#define PROOF_MAX (160 * 1024) /* bytes of a file */

struct proof {
    char *line; /* NULL: it came without */
    size_t line_len;
    uint64_t index;
    struct merkle_proof path;
    const char *note; /* borrowed from what was parsed */
    size_t note_len;
};
void proof_clear(struct proof *p);
#define PROOF CLEANUP(proof_clear) struct proof

/* Does a file begin as one? */
bool proof_is(const char *bytes, size_t len);
/* ERR_INVALID with what is wrong. */
MUST_CHECK enum code proof_parse(struct proof *p, const char *bytes, size_t len,
                                 struct error *e);
/* Caller frees. */
MUST_CHECK enum code proof_format(const struct proof *p, char **out,
                                  struct error *e);
/* The record, its place in the tree, and the signatures. *r is the caller's
 * (record_clear) whatever is returned. ERR_SEAL; ERR_INVALID. */
MUST_CHECK enum code proof_check(const struct proof *p,
                                 const struct keyring *keys, struct record *r,
                                 struct checkpoint *c, struct error *e);

#endif
