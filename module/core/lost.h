/* lost - what goes with an HSM that is gone: all that its keys sealed. Counted
 * beforehand, and let go in the transaction that pins the keys of another HSM,
 * so that no state has both.
 *
 * Leases go on to their end. An admin key whose value is gone is deleted at the
 * service by its id, by the next one: it is on the books as a rotation in state
 * retire. spec/SEAL.md, "Another HSM".
 */
#ifndef HSMINT_CORE_LOST_H
#define HSMINT_CORE_LOST_H

#include "module/core/core.h"
#include "module/core/rotation.h"

#define LOST_CAUSE "hsm-lost" /* of those rotations */

struct lost_org;
struct lost {
    struct core *core;
    const struct caller *by;
    bool keeps_hmac; /* the HMAC key was given by hand */
    struct store_seals seals;
    struct lost_org *orgs; /* all; their "config" is held */
    size_t orgs_n;
    struct rotation *rotations; /* all that are under way */
    size_t rotations_n;
    json_t *logins; /* [name] */
};
void lost_clear(struct lost *l);
#define LOST CLEANUP(lost_clear) struct lost

/* Others go on; the rest stays. */
void lost_leave(struct lost *l);

/* What there is. hold: nobody changes an organisation's configuration, nor takes
 * a step of a rotation, before lost_clear(). core and by are set. */
MUST_CHECK enum code lost_look(struct lost *l, bool hold, struct error *e);
/* {sealed_values, proofs, rotations, organisations: [{org, admin_api_key_id}],
 * mints_told, logins: [name]}: the last two are empty where the HMAC key is
 * kept. NULL: no memory. */
json_t *lost_json(const struct lost *l);
/* l is held. */
MUST_CHECK enum code lost_write(struct store_tx *tx, struct lost *l,
                                struct error *e);

/* The HMAC key was lost with an HSM: what was hashed up to here cannot be told
 * any more. *seq 0: never. */
MUST_CHECK enum code lost_hashes(struct core *c, int64_t *seq,
                                 int64_t *since_ms, struct error *e);

#endif
