/* lease - the steps that mint, renew and revoke share with the sweeper: events,
 * the actions that lease_table.h has for them, the rows that they change. */
#ifndef HSMINT_CORE_LEASE_H
#define HSMINT_CORE_LEASE_H

#include "common/error.h"
#include "module/core/gate.h"
#include "module/core/lease_table.h"
#include "module/core/policy.h"
#include "module/store/store.h"

#define LEASE_SLACK_S                                                          \
    60 /* the key outlives the lease by this, at the service */

#define LEASE_OWNER_SELF                                                       \
    "hsmintd" /* of rows that reconcile made, for accounts without one */

/* The reason of those whose end has come, unless they are renewed in the very
 * moment. */
#define LEASE_EXPIRED "expired"

#define LEASE CLEANUP(store_lease_clear) struct store_lease

/* Replaces an owned text. */
MUST_CHECK enum code lease_text(char **field, const char *text,
                                struct error *e);
/* A whole copy, sealed value included. */
MUST_CHECK enum code lease_copy(struct store_lease *to,
                                const struct store_lease *from,
                                struct error *e);

/* What the table says of `event`, done to the struct alone: its state, when it
 * is due, what it forgets. *action (may be NULL) is what was done. `retry_ms`:
 * as long as the service asked to wait, 0 if it did not. */
MUST_CHECK enum code lease_apply(struct core *c, struct store_lease *l,
                                 enum lease_event event, uint32_t retry_ms,
                                 enum lease_action *action, struct error *e);
/* The same, committed with the outcome of `r` (NULL: with no call). ERR_EXISTS:
 * somebody else changed its state meanwhile; then the struct's is as it was. */
struct lease_change {
    struct store_lease *lease; /* as it is to be, but for what the table does */
    enum lease_event event;
    const struct gate_call *call; /* with r: whose outcome this is */
    const struct gate_reply *r;
    const struct error *result; /* NULL: r's */
    const struct caller *by;    /* without call: who did it, for the record */
    enum lease_action action;   /* what was done */
};
MUST_CHECK enum code lease_change(struct core *c, struct lease_change *ch,
                                  struct error *e);
/* LEASE_END without a call. */
MUST_CHECK enum code lease_end(struct core *c, struct store_lease *l,
                               const char *reason, const struct caller *by,
                               struct error *e);
/* The same in a transaction, of the row as that sees it. OK, too, if it ended
 * before. The sweeper is the caller's to wake. */
MUST_CHECK enum code lease_end_in(struct core *c, struct store_tx *tx,
                                  const char *id, const char *reason,
                                  const struct caller *by, struct error *e);
/* Deletes the account of a lease whose account id is known, in any state but
 * revoked, and says so in its row. On failure the lease is in state revoking
 * and its row holds why and when the sweeper tries again. A 404 of an account
 * that may be too new to show itself is ERR_SERVICE_UNKNOWN to a caller. OK with
 * the lease still revoking: such a 404 to the daemon itself, or its account is
 * gone, and others of its name are looked for. */
MUST_CHECK enum code lease_delete(struct core *c, struct store_lease *l,
                                  const char *reason, const struct caller *by,
                                  struct error *e);
/* When to try again after `tries` failures that told `retry_after_ms`. */
int64_t lease_backoff_ms(int64_t tries, uint32_t retry_after_ms);

/* What is wanted of a lease: of one's own, and of anybody's. CAPABILITIES:
 * never. */
struct lease_right {
    enum capability own, any;
};
/* A lease that is not the caller's is ERR_NOT_FOUND, as if there were none,
 * unless a policy lets it see all leases of that role: then ERR_DENIED. */
MUST_CHECK enum code lease_get_for(struct core *c, const struct caller *by,
                                   struct lease_right right, const char *id,
                                   struct store_lease *l, struct error *e);
/* The sealed value, opened by the HSM. */
MUST_CHECK enum code lease_open_value(struct core *c,
                                      const struct store_lease *l,
                                      struct secret **value, struct error *e);
/* Seals the lease's value; *sealed is replaced. */
MUST_CHECK enum code lease_seal(struct core *c, const struct store_lease *l,
                                const struct secret *value, uint8_t **sealed,
                                size_t *len, struct error *e);

#endif
