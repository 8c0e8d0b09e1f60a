/* notary - see notary.h. */
#include "config.h"

#include "module/core/notary.h"

bool notary_rolled_back(struct core *c, struct error *why)
{
    (void)c, (void)why;
    return false;
}

enum code notary_compare(struct core *c, struct error *e)
{
    (void)c, (void)e;
    return OK;
}

enum code core_accept_rollback(struct core *c, const struct caller *by,
                               const char *reason, struct error *e)
{
    (void)c, (void)by, (void)reason;
    return error_set(e, ERR_NOT_FOUND, "the store was not rolled back");
}
