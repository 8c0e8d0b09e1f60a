/* policy - see policy.h. */
#include "config.h"

#include "module/core/policy.h"

#include <string.h>

/* ---- capabilities ---- */

static const struct {
    const char *name;
    bool about_roles;
} capabilities[CAPABILITIES] = {
    [CAP_MINT] = {"mint", true},
    [CAP_RENEW] = {"renew", true},
    [CAP_REVOKE_OWN] = {"revoke-own", true},
    [CAP_READ] = {"read", true},
    [CAP_LIST_OWN] = {"list-own", true},
    [CAP_LIST_ANY] = {"list-any", true},
    [CAP_REVOKE_ANY] = {"revoke-any", true},
    [CAP_ADMINISTER] = {"administer", false},
    [CAP_ROTATE] = {"rotate", false},
    [CAP_AUDIT] = {"audit", false},
    [CAP_STATUS] = {"status", false},
};

const char *capability_name(enum capability c)
{
    return (unsigned)c < CAPABILITIES ? capabilities[c].name : "unknown";
}

bool capability_is_about_roles(enum capability c)
{
    return (unsigned)c < CAPABILITIES && capabilities[c].about_roles;
}

enum code capability_parse(const char *name, enum capability *c,
                           struct error *e)
{
    for (unsigned i = 0; i < CAPABILITIES; i++) {
        if (strcmp(capabilities[i].name, name) == 0) {
            *c = (enum capability)i;
            return OK;
        }
    }
    return error_set(e, ERR_INVALID, "\"%.64s\" is no capability", name);
}
