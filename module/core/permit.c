/* permit - see permit.h. */
#include "config.h"

#include "module/core/permit.h"

#include "module/core/internal.h"

static bool is_ours(const struct core *c, const struct caller *by)
{
    return c->settings->mode == MODE_USER && by->uid == c->uid;
}

bool core_may(struct core *c, const struct caller *by, uint32_t caps,
              const char *org, const char *role)
{
    (void)caps, (void)org, (void)role;
    return is_ours(c, by);
}

enum code core_permit_any(struct core *c, const struct caller *by,
                          uint32_t caps, const char *org, const char *role,
                          struct error *e)
{
    if (core_may(c, by, caps, org, role))
        return OK;
    return error_set(e, ERR_DENIED, "no policy lets %s do this", by->owner);
}

enum code core_permit(struct core *c, const struct caller *by,
                      enum capability cap, const char *org, const char *role,
                      struct error *e)
{
    return core_permit_any(c, by, CAPABILITY_BIT(cap), org, role, e);
}
