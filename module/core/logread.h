/* logread - the log as it is read by those who audit: records, head, proofs;
 * and what becomes of records that were exported. The members of the results
 * are spec/org.hsmint.varlink's.
 */
#ifndef HSMINT_CORE_LOGREAD_H
#define HSMINT_CORE_LOGREAD_H

#include "module/core/core.h"

struct logread_query { /* NULL: any */
    int64_t from;  /* seq; 0: the first that is there */
    int64_t limit; /* lines; 0: as many as a reply holds */
    const char *lease, *role, *owner, *kind, *request;
    int64_t since_ms, until_ms; /* of the record's time, both inclusive */
};
MUST_CHECK enum code core_log_records(struct core *c,
                                      const struct logread_query *q,
                                      json_t **out, struct error *e);
/* sign: with a checkpoint of all that is there by now. */
MUST_CHECK enum code core_log_head(struct core *c, bool sign, json_t **out,
                                   struct error *e);
/* size 0: the last checkpoint's. ERR_NOT_FOUND: pruned, or no such. */
MUST_CHECK enum code core_log_proof(struct core *c, int64_t seq, int64_t size,
                                    json_t **out, struct error *e);
MUST_CHECK enum code core_log_consistency(struct core *c, int64_t from,
                                          int64_t to, json_t **out,
                                          struct error *e);
/* The caller has a verified copy of the first `size` records. ERR_INVALID:
 * they are not under a checkpoint. failure (NULL: none): they do not hold; that
 * is recorded. */
MUST_CHECK enum code core_log_exported(struct core *c, const struct caller *by,
                                       int64_t size, const char *failure,
                                       struct error *e);
/* Whole tiles of the first `size`. checkpoint (NULL: none): a note of that size.
 * ERR_INVALID: not exported, unsigned, or the note is not of these records. */
MUST_CHECK enum code core_log_prune(struct core *c, const struct caller *by,
                                    int64_t size, const char *checkpoint,
                                    int64_t *pruned, struct error *e);
/* Whose minted key this is, which may be long dead: fd is a pipe with it (one
 * newline at its end does not count). The HSM is asked for its keyed hash.
 * *out: {found, seq and lease_id of its mint, record: that line unless it was
 * pruned, lease where the store still has it}. */
MUST_CHECK enum code core_whose(struct core *c, int fd, json_t **out,
                                struct error *e);

#endif
