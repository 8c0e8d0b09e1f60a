/* internal - what the files of core share: the one struct core.
 *
 * Lock order: each noun has a mutex of its own, held for a few lines, never
 * two at once, never across HSM, network or a commit. Only that of warnings
 * may be taken while another is held.
 */
#ifndef HSMINT_CORE_INTERNAL_H
#define HSMINT_CORE_INTERNAL_H

#include "common/text.h"
#include "module/core/core.h"
#include "module/core/crew.h"
#include "module/core/ended.h"
#include "module/core/entrance.h"
#include "module/core/expiry.h"
#include "module/core/halt.h"
#include "module/core/health.h"
#include "module/core/hsm_status.h"
#include "module/core/inflight.h"
#include "module/core/keeper.h"
#include "module/core/keyrotate.h"
#include "module/core/keyschedule.h"
#include "module/core/keystates.h"
#include "module/core/marker.h"
#include "module/core/metrics.h"
#include "module/core/notary.h"
#include "module/core/permit.h"
#include "module/core/pins.h"
#include "module/core/reconcile.h"
#include "module/core/refusals.h"
#include "module/core/release.h"
#include "module/core/restored.h"
#include "module/core/revoke_all.h"
#include "module/core/rotate.h"
#include "module/core/sealing.h"
#include "module/core/share.h"
#include "module/core/steady.h"
#include "module/core/sweep.h"
#include "module/core/unlock.h"
#include "module/core/warnings.h"
#include "module/core/watch.h"

#include <stdatomic.h>

#define CORE_DEFAULT_ORG "default"
#define META_INSTANCE "instance"

struct core_org_name {
    int64_t id;
    char name[64];
};

struct core {
    struct store *store;
    const struct settings *settings;
    uid_t uid; /* the daemon's own */
    char run[TEXT_ID_LEN + 1]; /* names this core among those before it */
    bool recorded; /* its start is */
    bool hsm_lost; /* as the last record about it says; the watch's alone */
    _Atomic uint64_t turns;    /* numbers what changes held logins */
    struct keeper *keeper;
    struct unlock unlock;
    struct markers markers;
    struct inflight inflight;
    struct halt halt;
    struct revoke_all revoke_all;
    struct warnings warnings;
    struct ended ended;
    struct shares shares;
    struct steady steady;
    struct expiry_memory expiry;
    struct sweep sweep;
    struct crew crew;
    struct entrances entrances;
    struct metrics metrics;
    struct watch watch;
    struct health health;
    struct rotate rotate;
    struct keyrotate keyrotate;
    struct sealing sealing;
    struct notary notary;
    struct keystates keystates;
    struct keyschedule keyschedule;
    struct reconcile reconcile;
    struct restored restored;
    struct policies policies;
    struct refusals refusals;
    struct releases releases;

    pthread_mutex_t orgs_lock;
    struct core_org_name *orgs; /* they come, and never go */
    size_t n_orgs;
};

/* As core_open(), with a keeper that `start` makes; for tests. */
MUST_CHECK enum code core_open_with(struct core **out,
                                    const struct core_options *o,
                                    keeper_start_fn start, void *start_ctx,
                                    struct error *e);
/* Organisation by name; NULL or "" is the default one. */
MUST_CHECK enum code core_org(struct core *c, const char *name,
                              struct store_org *org, struct error *e);
/* Waits until nobody else changes the organisation's configuration or rotates
 * its key. What is written back has to be read while it is held. */
MUST_CHECK enum code core_hold_config(struct core *c, const char *org,
                                      struct inflight_hold *h, struct error *e);
/* 0 if unknown. */
int64_t core_org_id(struct core *c, const char *name);
/* "" if unknown. */
void core_org_name(struct core *c, int64_t id, char name[64]);
MUST_CHECK enum code core_org_note(struct core *c, int64_t id, const char *name,
                                   struct error *e);
/* The organisation's part of status, also core_config_get()'s answer. */
MUST_CHECK enum code core_config_json(const struct store_org *org, json_t **out,
                                      struct error *e);

#endif
