/* proof - of death: a key is dead when the request that it was answered 200 to
 * while it lived, GET {api_base}/models, is answered 401 invalid_api_key.
 *
 * For roles with prove_death the key is sealed when it is minted (`probe`),
 * used once while it lives, and from its account's end on until it is refused.
 * Any other refusal proves nothing. Not dead PROOF_BOUND_MS after its account
 * went is an alarm; it is used on, ever less often, until it is dead or
 * PROOF_END_MS have passed. Then the sealed key is wiped.
 */
#ifndef HSMINT_CORE_PROOF_H
#define HSMINT_CORE_PROOF_H

#include "common/secret.h"
#include "module/store/store.h"

struct core;

#define PROOF_BOUND_MS 60000
#define PROOF_END_MS 86400000

/* Seals the new key of a lease whose role wants the proof. */
MUST_CHECK enum code proof_prepare(struct core *c, struct store_lease *l,
                                   const struct secret *value,
                                   struct error *e);
/* Its account is about to be deleted: used once more if it was not seen to
 * live yet. No failure: then the proof is not to be had. */
void proof_before_end(struct core *c, struct store_lease *l);
/* Its state became LEASE_REVOKED, at now_ms. */
void proof_after_end(struct store_lease *l, int64_t now_ms);
bool proof_is_due(const struct store_lease *l, int64_t now_ms);
/* One use of the key and what follows from it, committed. */
MUST_CHECK enum code proof_step(struct core *c, struct store_lease *l,
                                struct error *e);

#endif
