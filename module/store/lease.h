/* lease - rows of the lease table as structs. Private to this room. */
#ifndef HSMINT_STORE_LEASE_H
#define HSMINT_STORE_LEASE_H

#include "module/store/state.h"

/* SEALED is a BLOB that is written once and then only taken away, or sealed anew
 * (store_lease_reseal): who has read the row before, and writes it back, does
 * not bring back what an older key sealed.
 *
 * Columns after `id`, in the order of every statement here: name, kind. The
 * first group never changes after insert. */
#define LEASE_FIXED(X)                                                         \
    X(org, INT)                                                                \
    X(role, TEXT) X(owner, TEXT) X(issued_ms, INT) X(request_id, TEXT)
#define LEASE_CHANGING(X)                                                      \
    X(program, TEXT)                                                           \
    X(application, TEXT)                                                       \
    X(session, INT)                                                            \
    X(state, STATE) X(bound, BOOL) X(reusable, BOOL) X(expires_ms, INT)        \
        X(max_expires_ms, INT) X(provider_expires_ms, INT) X(revoked_ms, INT)  \
            X(project, TEXT) X(account_name, TEXT) X(account_id, TEXT)         \
                X(key_id, TEXT) X(api_base, TEXT) X(label, TEXT)               \
                    X(cka_id, BLOB) X(sealed, SEALED) X(next_try_ms, INT)        \
                        X(tries, INT) X(last_error, TEXT) X(reason, TEXT)      \
                            X(answered_ms, INT)
/* Written by store_lease_prove() alone: a renewal at the same time changes the
 * others. */
#define LEASE_PROOF(X) X(proof, PROOF) X(proof_ms, INT) X(probe, SEALED)

#define LEASE_NAME(name, kind) ", " #name
#define LEASE_LIST                                                             \
    "id" LEASE_FIXED(LEASE_NAME) LEASE_CHANGING(LEASE_NAME)                    \
        LEASE_PROOF(LEASE_NAME)

/* Strings point into the row, until the next step. */
void lease_borrow(const struct query *q, struct store_lease *l);
/* Strings are the caller's: store_lease_clear(). */
MUST_CHECK enum code lease_dup(const struct query *q, struct store_lease *l,
                               struct error *e);
/* Each row that is left of a query for LEASE_LIST. */
MUST_CHECK enum code lease_each_row(struct query *q, store_lease_fn fn,
                                    void *ctx, struct error *e);

#endif
