/* lease_table - see lease_table.h. */
#include "config.h"

#include "module/core/lease_table.h"

const struct lease_step lease_table[] = {
    {LEASE_PENDING, LEASE_MADE, LEASE_HAND_OUT, LEASE_ACTIVE},
    {LEASE_PENDING, LEASE_NOT_MADE, LEASE_CLOSE, LEASE_REVOKED},
    {LEASE_PENDING, LEASE_UNKNOWN, LEASE_SEARCH, LEASE_PENDING},
    {LEASE_PENDING, LEASE_DUPLICATE, LEASE_SEARCH, LEASE_PENDING},
    {LEASE_PENDING, LEASE_END, LEASE_SEARCH, LEASE_REVOKING},
    {LEASE_PENDING, LEASE_FOUND, LEASE_DELETE, LEASE_REVOKING},
    {LEASE_PENDING, LEASE_UNSEEN, LEASE_LOOK, LEASE_PENDING},
    {LEASE_PENDING, LEASE_GONE, LEASE_CLOSE, LEASE_REVOKED},
    {LEASE_PENDING, LEASE_FAILED, LEASE_WAIT, LEASE_PENDING},

    {LEASE_ACTIVE, LEASE_END, LEASE_DELETE, LEASE_REVOKING},
    {LEASE_ACTIVE, LEASE_UNSEEN, LEASE_KEEP, LEASE_ACTIVE},

    {LEASE_REVOKING, LEASE_MADE, LEASE_DELETE, LEASE_REVOKING},
    {LEASE_REVOKING, LEASE_NOT_MADE, LEASE_CLOSE, LEASE_REVOKED},
    {LEASE_REVOKING, LEASE_UNKNOWN, LEASE_SEARCH, LEASE_REVOKING},
    {LEASE_REVOKING, LEASE_DUPLICATE, LEASE_SEARCH, LEASE_REVOKING},
    {LEASE_REVOKING, LEASE_END, LEASE_DELETE, LEASE_REVOKING},
    {LEASE_REVOKING, LEASE_FOUND, LEASE_DELETE, LEASE_REVOKING},
    {LEASE_REVOKING, LEASE_UNSEEN, LEASE_LOOK, LEASE_REVOKING},
    {LEASE_REVOKING, LEASE_GONE, LEASE_CLOSE, LEASE_REVOKED},
    {LEASE_REVOKING, LEASE_ONE_GONE, LEASE_SEARCH, LEASE_REVOKING},
    {LEASE_REVOKING, LEASE_EARLY, LEASE_LOOK, LEASE_REVOKING},
    {LEASE_REVOKING, LEASE_FAILED, LEASE_WAIT, LEASE_REVOKING},

    /* An account that turns up after it was given up goes all the same. */
    {LEASE_REVOKED, LEASE_MADE, LEASE_DELETE, LEASE_REVOKING},
    {LEASE_REVOKED, LEASE_NOT_MADE, LEASE_KEEP, LEASE_REVOKED},
    {LEASE_REVOKED, LEASE_UNKNOWN, LEASE_SEARCH, LEASE_REVOKING},
    {LEASE_REVOKED, LEASE_DUPLICATE, LEASE_SEARCH, LEASE_REVOKING},
    {LEASE_REVOKED, LEASE_END, LEASE_KEEP, LEASE_REVOKED},
    {LEASE_REVOKED, LEASE_FOUND, LEASE_DELETE, LEASE_REVOKING},
    {LEASE_REVOKED, LEASE_GONE, LEASE_KEEP, LEASE_REVOKED},
};
const size_t lease_table_n = sizeof(lease_table) / sizeof(lease_table[0]);

const char *lease_event_name(enum lease_event event)
{
    static const char *const names[LEASE_EVENTS] = {
        [LEASE_MADE] = "made",           [LEASE_NOT_MADE] = "not-made",
        [LEASE_UNKNOWN] = "unknown",     [LEASE_DUPLICATE] = "duplicate",
        [LEASE_END] = "end",             [LEASE_FOUND] = "found",
        [LEASE_UNSEEN] = "unseen",       [LEASE_GONE] = "gone",
        [LEASE_ONE_GONE] = "one-gone",   [LEASE_EARLY] = "early",
        [LEASE_FAILED] = "failed",
    };

    return event < LEASE_EVENTS ? names[event] : "?";
}

const char *lease_action_name(enum lease_action action)
{
    static const char *const names[LEASE_ACTIONS] = {
        [LEASE_HAND_OUT] = "hand-out", [LEASE_SEARCH] = "search",
        [LEASE_LOOK] = "look",         [LEASE_DELETE] = "delete",
        [LEASE_WAIT] = "wait",         [LEASE_CLOSE] = "close",
        [LEASE_KEEP] = "keep",
    };

    return action < LEASE_ACTIONS ? names[action] : "?";
}

enum code lease_step(enum lease_state state, enum lease_event event,
                     const struct lease_step **step, struct error *e)
{
    for (size_t i = 0; i < lease_table_n; i++) {
        *step = &lease_table[i];
        if ((*step)->state == state && (*step)->event == event)
            return OK;
    }
    *step = NULL;
    return error_set(e, ERR_INTERNAL, "lease: %s cannot be in state %s",
                     lease_event_name(event), lease_state_name(state));
}
