/* keeper - see keeper.h. */
#include "config.h"

#include "hsm/keeper.h"

#include "hsm/call.h"
#include "hsm/orgkey.h"

enum code keeper_init(struct keeper *k, const struct settings *s,
                      struct error *e)
{
    enum code rc;
    *k = (struct keeper){.settings = s};
    if ((rc = calls_new(&k->calls, e)) || (rc = orgkeys_new(&k->orgkeys, e)))
        return rc;
    return hsm_new(&k->hsm, s, e);
}
