/* mint_settle - what becomes of the reply to a mint: the key is kept, proven,
 * handed out; or its lease is left to the sweeper. Outcome and record are in
 * one transaction. spec/LEASES.md, "The table".
 */
#ifndef HSMINT_CORE_MINT_SETTLE_H
#define HSMINT_CORE_MINT_SETTLE_H

#include "module/core/internal.h"
#include "module/core/role.h"

struct mint { /* one, from what is asked to its answer */
    struct core *core;
    const struct caller *by;
    const struct mint_request *asked;
    struct store_org org;
    struct role role;
    char role_name[64];
    struct permit_lease permit;
    int64_t began_ms; /* monotonic */
    int64_t ttl, max_ttl; /* seconds, by role and policy */
    struct store_lease lease;
    bool inserted;     /* the lease's row is in the store */
    bool guarded;      /* halt or guard refused inside the transaction */
    int64_t expires_s; /* asked of the service; 0: it refuses that */
    struct openai_account account;
    json_t *warnings;
};

/* The reply's account into m->account. ERR_SERVICE_REPLY: it is another's. */
MUST_CHECK enum code mint_decode(struct mint *m, const struct gate_reply *r,
                                 struct error *e);
/* m->account was made. ERR_DENIED: its lease ended meanwhile, and the key does
 * not live on. */
MUST_CHECK enum code mint_made(struct mint *m, const struct gate_call *call,
                               const struct gate_reply *r, struct error *e);
/* It was not, or nobody knows. Returns e's code; e (may be NULL) stays. */
MUST_CHECK enum code mint_failed(struct mint *m, const struct gate_call *call,
                                 const struct gate_reply *r, struct error *e);
/* A guard's or the halt's refusal, as a record. */
void mint_tell_refused(struct mint *m, const struct error *why);

#endif
