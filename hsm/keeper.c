/* keeper - see keeper.h. */
#include "config.h"

#include "hsm/keeper.h"

#include "hsm/call.h"
#include "hsm/ledger.h"
#include "hsm/orgkey.h"

#include <stdio.h>
#include <string.h>

#define OWN_STATE_DIR "/var/lib/hsmint-keeper"

static enum code place_state(struct keeper *k, const char *state_dir,
                             struct error *e)
{
    const struct settings *s = k->settings;
    int n = s->keeper_state_dir
                ? asprintf(&k->state_dir, "%s", s->keeper_state_dir)
            : state_dir ? asprintf(&k->state_dir, "%s/keeper", state_dir)
                        : asprintf(&k->state_dir, OWN_STATE_DIR);
    if (n >= 0)
        return OK;
    k->state_dir = NULL;
    return error_set(e, ERR_NOMEM, "no memory for a path");
}

enum code keeper_init(struct keeper *k, const struct settings *s,
                      const char *state_dir, struct error *e)
{
    enum code rc;
    *k = (struct keeper){.settings = s};
    if ((rc = calls_new(&k->calls, e)) || (rc = orgkeys_new(&k->orgkeys, e)) ||
        (rc = hsm_new(&k->hsm, s, e)) || (rc = place_state(k, state_dir, e)))
        return rc;
    return ledger_new(&k->ledger, k->hsm, k->state_dir,
                      s->audit.anchor_s * 1000, e);
}
