/* again - a key that is there already: of the same request sent once more, or
 * the caller's live one (`hsmint key`).
 *
 * Both leave *value NULL where there is none; else *lease and *value are the
 * caller's. */
#ifndef HSMINT_CORE_AGAIN_H
#define HSMINT_CORE_AGAIN_H

#include "common/error.h"
#include "common/secret.h"
#include "module/core/core.h"
#include "module/store/store.h"

struct again_wanted {
    const char *owner, *role, *project;
    int64_t org;
    int64_t ttl_s; /* what the caller named; 0: nothing */
    int64_t max_ttl_s; /* by role and policy of today */
    bool worn; /* with less than half of its life left, too */
};
/* The key went to a caller that never got it: unless it was kept, that lease
 * ends, and a new one takes its place. ERR_INVALID: the id was used for
 * another method, or for a role that the caller was not permitted just now. */
MUST_CHECK enum code again_retry(struct core *c, const struct again_wanted *w,
                                 const char *request_id, const char *method,
                                 struct store_lease *lease,
                                 struct secret **value, struct error *e);
/* The owner's newest reusable one, with more than half of its life left (worn:
 * with some seconds), in
 * the role's project of today, not made for a shorter life than asked, and
 * not for longer than today is allowed. */
MUST_CHECK enum code again_reuse(struct core *c, const struct again_wanted *w,
                                 struct store_lease *lease,
                                 struct secret **value, struct error *e);

#endif
