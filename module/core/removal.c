/* removal - an organisation's configuration and its admin key go. */
#include "config.h"

#include "common/file.h"
#include "common/log.h"
#include "module/core/gate.h"
#include "module/core/internal.h"
#include "module/core/logbook.h"
#include "module/core/orgconfig.h"
#include "module/core/revoke.h"
#include "module/core/rotate_step.h"
#include "module/core/rotation.h"

#include <string.h>

enum { DELETE_WAIT_MS = 20000 };

struct removal {
    struct core *core;
    const struct caller *by;
    struct store_org org;
    bool halted;
    struct store_counts n;
    json_t *warnings; /* texts for who asked */
};

static enum code delete_rows(struct store_tx *tx, void *ctx, struct error *e)
{
    const struct removal *r = ctx;
    struct logbook_entry entry = {
        .kind = RECORD_CONFIG, .by = r->by, .org = r->org.name};
    enum code code = store_org_set_config(tx, r->org.id, "{}", e);

    if (!code)
        code = store_org_set_blob(tx, r->org.id, NULL, 0, e);
    if (code)
        return code;
    entry.more = logbook_change(r->org.name, "delete", r->org.config, NULL);
    return logbook_add(r->core, tx, &entry, e);
}

/* The HSM's copy goes first: if that fails, nothing has changed. */
static enum code drop_key(struct removal *r, struct error *e)
{
    FRAME request = FRAME_INIT;
    FRAME reply = FRAME_INIT;

    if (!r->org.admin_blob)
        return OK;
    request.verb = VERB_DROP_KEY;
    request.head = json_pack("{ss}", "org", r->org.name);
    if (!request.head)
        return error_set(e, ERR_NOMEM, "no memory to drop a key");
    return unlock_call(r->core, &request,
                       (int)r->core->settings->hsm_deadline_ms, &reply, NULL,
                       e);
}

/* What has still to be deleted needs the key. */
static enum code is_under_way(const struct rotation *r, void *ctx,
                              struct error *e)
{
    (void)ctx;
    return error_set(e, ERR_EXISTS,
                     "a rotation of %s's admin key is under way (%s%s%s): it "
                     "ends by itself",
                     r->org, rotation_state_name(r->state),
                     *r->error ? ": " : "", r->error);
}

static enum code count_rows(struct store_tx *tx, void *ctx, struct error *e)
{
    struct removal *r = ctx;

    return store_tx_lease_counts(tx, r->org.id, NULL, &r->n, e);
}

static int64_t live(const struct store_counts *n)
{
    return n->pending + n->active + n->revoking;
}

/* In a transaction: what was inserted before the halt is in it. */
static enum code end_leases(struct removal *r, bool revoke, struct error *e)
{
    struct core *c = r->core;
    int64_t left = 0;
    enum code code = store_commit(c->store, STORE_RESERVE, count_rows, r, e);

    if (code || live(&r->n) == 0)
        return code;
    if (!revoke)
        return error_set(e, ERR_EXISTS,
                         "organisation %s has live leases, which only its "
                         "admin key can revoke; revoke them first, or with it "
                         "(`hsmint config delete --revoke`)",
                         r->org.name);
    code = revoke_mark(c, r->org.id, NULL, "configuration deleted", r->by, e);
    if (!code)
        code = revoke_wait(c, r->org.id, NULL, DELETE_WAIT_MS, &left, e);
    if (code || left == 0)
        return code;
    return error_set(e, ERR_EXISTS,
                     "%lld leases of organisation %s still wait for the "
                     "service to delete their accounts, which needs the admin "
                     "key: it stays; they go on being revoked; try again",
                     (long long)left, r->org.name);
}

/* ---- the key at the service ---- */

static bool is_of_service(enum code code)
{
    return code >= ERR_SERVICE_DOWN && code <= ERR_SERVICE_REPLY;
}

/* Nobody has a key that hsmint made: it goes by its own hand, and who asked
 * hears of one that does not. A person's is that person's. */
static enum code delete_own(struct removal *r, const struct config *config,
                            struct error *e)
{
    CLEANUP(openai_request_clear) struct openai_request request = {0};
    GATE_REPLY reply = GATE_REPLY_INIT;
    struct gate_call call = {.org = r->org.name,
                             .purpose = "delete configuration",
                             .by = r->by,
                             .request = &request,
                             .urgency = STORE_RESERVE};
    struct error why = {0};
    enum code code;

    if (!r->org.admin_blob || config->by_hand)
        return OK;
    code = openai_admin_key_delete(&request, config->admin_api_key_id, &why);
    if (!code)
        code = gate_ask(r->core, &call, &reply, &why);
    if (!code || code == ERR_SERVICE_AUTH)
        return OK;
    if (!is_of_service(code)) {
        if (e)
            *e = why;
        return code;
    }
    json_array_append_new(
        r->warnings,
        json_sprintf("admin key %s, which hsmint made and nobody has, stays at "
                     "the service: delete it there (%s)",
                     config->admin_api_key_id, why.text));
    return OK;
}

static enum code delete_key(struct removal *r, struct error *e)
{
    ROTATE_STEP s = {.core = r->core, .by = r->by}; /* asks the HSM, too */
    enum code code = rotate_step_load(&s, r->org.name, e);

    if (!code)
        code = delete_own(r, &s.config, e);
    return code ? code : drop_key(r, e);
}

static void removal_clear(struct removal *r)
{
    if (r->halted)
        halt_end(&r->core->halt, r->org.id);
    store_org_clear(&r->org);
    json_decref(r->warnings);
}

enum code core_config_delete(struct core *c, const struct caller *by,
                             const char *name, bool revoke, json_t **out,
                             struct error *e)
{
    CLEANUP(removal_clear)
    struct removal r = {.core = c, .by = by, .warnings = json_array()};
    INFLIGHT hold = {0};
    enum code code = core_hold_config(c, name, &hold, e);

    if (!code)
        code = core_org(c, name, &r.org, e);
    if (!code)
        code = rotation_each(c->store, r.org.name, is_under_way, NULL, e);
    if (!code)
        code = halt_begin(&c->halt, r.org.id, "its configuration is deleted",
                          e);
    r.halted = !code;
    if (!code)
        code = end_leases(&r, revoke, e);
    if (!code)
        code = delete_key(&r, e);
    if (!code)
        code = store_commit(c->store, STORE_NORMAL, delete_rows, &r, e);
    if (code)
        return code;
    health_key(c, r.org.name, NULL);
    warnings_drop(&c->warnings, ALARM_ADMIN_KEY, r.org.name);
    *out = json_pack("{sO}", "warnings", r.warnings);
    return *out ? OK : error_set(e, ERR_NOMEM, "no memory for a reply");
}
