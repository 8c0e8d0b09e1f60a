/* search - which records somebody wants to see. */
#ifndef HSMINT_AUDIT_SEARCH_H
#define HSMINT_AUDIT_SEARCH_H

#include "module/audit/record.h"

struct search { /* NULL, 0: whatever it is */
    const char *org, *lease, *role;
    const char *owner;   /* "user:1000": the actor's */
    const char *request; /* the service's x-request-id, or a call's id */
    const char *kind;
    int64_t from_ms, until_ms; /* since 1970; until: not included */
};
bool search_matches(const struct search *s, const struct record *r);

#endif
