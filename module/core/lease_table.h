/* lease_table - the life of a minted key as one table: what happens to a lease
 * in a state, what is done about it, what state comes next. spec/LEASES.md is
 * the same for people; spec/models/lease.pml is checked by spin.
 *
 * Nothing here has a clock or a store. lease.c takes the action.
 */
#ifndef HSMINT_CORE_LEASE_TABLE_H
#define HSMINT_CORE_LEASE_TABLE_H

#include "common/error.h"
#include "module/store/store.h"

enum lease_event {
    /* Of the POST that makes the account. */
    LEASE_MADE,      /* answered: we know the account's id */
    LEASE_NOT_MADE,  /* for sure: refused, or nothing was sent */
    LEASE_UNKNOWN,   /* no reply, half of one, a 5xx: it may have been served */
    LEASE_DUPLICATE, /* refused, as the name is taken: by this POST, repeated
                        on its way, for nobody else has the name */
    /* Of us. */
    LEASE_END, /* expired, revoked, its session ended, the key lost */
    /* Of a search by name. */
    LEASE_FOUND,  /* the account is there */
    LEASE_UNSEEN, /* it is not, and may still come, or show itself */
    /* Of a DELETE, a whole search, a reconcile. */
    LEASE_GONE,     /* the account is gone, or was never made */
    LEASE_ONE_GONE, /* the one that a search found; another may have the name */
    LEASE_EARLY,    /* 404, of an account that may not show itself yet */
    LEASE_FAILED,   /* 429, 5xx, no reply; no signature from the HSM */
    LEASE_EVENTS
};

enum lease_action {
    LEASE_HAND_OUT, /* the key may go to its caller */
    LEASE_SEARCH,   /* look for the account by its name, now */
    LEASE_LOOK,     /* later, as the window allows: search, or DELETE, again */
    LEASE_DELETE,   /* DELETE the account, now; search first if its id is not
                       known */
    LEASE_WAIT,     /* the same once more, after a back-off; for ever */
    LEASE_CLOSE,    /* nothing is left to do; the row is kept for a while */
    LEASE_KEEP,     /* nothing */
    LEASE_ACTIONS
};

struct lease_step {
    enum lease_state state;
    enum lease_event event;
    enum lease_action action;
    enum lease_state next;
};
extern const struct lease_step lease_table[];
extern const size_t lease_table_n;

/* As spec/LEASES.md writes them: "not-made", "hand-out". */
const char *lease_event_name(enum lease_event event);
const char *lease_action_name(enum lease_action action);
/* ERR_INTERNAL for an event that cannot be in this state. */
MUST_CHECK enum code lease_step(enum lease_state state, enum lease_event event,
                                const struct lease_step **step,
                                struct error *e);

#endif
