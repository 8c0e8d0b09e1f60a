/* hsm_status - see hsm_status.h. */
#include "config.h"

#include "module/core/hsm_status.h"

#include "common/log.h"
#include "module/core/internal.h"
#include "module/core/rotate_step.h"

#include <string.h>

enum { STATUS_WAIT_MS = 500 };

/* The keeper tells how the HSM is, not why hsmint could not use it. */
static json_t *explain(struct core *c, json_t *told)
{
    json_t *hsm = told ? json_copy(told) : json_object();
    const char *state = json_string_value(json_object_get(hsm, "state"));
    struct error why = {0};

    if (state && strcmp(state, "ready") != 0 &&
        !json_object_get(hsm, "error") && unlock_failure(c, &why))
        json_object_set_new(hsm, "error", json_string(why.text));
    return hsm;
}

json_t *hsm_status(struct core *c)
{
    JSON told = watch_hsm(c, STATUS_WAIT_MS);
    json_t *hsm = explain(c, told), *rotation = keyrotate_json(c);

    if (rotation)
        json_object_set_new(hsm, "rotation", rotation);
    return hsm;
}

/* ---- the HSM's keys ---- */

/* An HSM that is away leaves what was read back of the keys before. */
static void read_back(struct core *c)
{
    FRAME request = FRAME_INIT;
    FRAME reply = FRAME_INIT;
    struct error why = {0};
    uint64_t ready = atomic_load(&c->unlock.ready);

    request.verb = VERB_DESCRIBE;
    request.head = json_pack("{sb}", "attributes", 1);
    if (ready == 0 || !request.head)
        return;
    if (keeper_call(c->keeper, ready, &request,
                    (int)c->settings->hsm_deadline_ms, &reply, NULL,
                    &why) == OK)
        keystates_heard(c, reply.head);
    else
        log_failure(&why, "what the HSM says of its keys");
}

/* ---- admin keys ---- */

struct admin_keys {
    struct core *core;
    json_t *list;
};

static enum code add_key(struct admin_keys *a, const char *org, const char *id,
                         enum keystate state, int64_t since_ms,
                         const char *step, const char *error, struct error *e)
{
    if (!*id)
        return OK;
    return json_array_append_new(
               a->list, json_pack("{ss ss ss sI ss* ss*}", "org", org, "id", id,
                                  "state", keystate_name(state), "since_ms",
                                  (json_int_t)since_ms, "rotation", step,
                                  "error", error && *error ? error : NULL)) != 0
               ? error_set(e, ERR_NOMEM, "no memory for admin keys")
               : OK;
}

static enum code add_current(const struct store_org *org, void *ctx,
                             struct error *e)
{
    struct admin_keys *a = ctx;
    CONFIG config = {0};
    enum code code = config_parse(&config, org->config, e);

    if (code || !org->admin_blob)
        return code;
    return add_key(a, org->name, config.admin_api_key_id, KEYSTATE_ACTIVE,
                   config.last_rotated_ms, NULL, NULL, e);
}

/* Of each rotation the key that is not, or not any more, the organisation's. */
static enum code add_rotating(const struct rotation *r, void *ctx,
                              struct error *e)
{
    struct admin_keys *a = ctx;
    bool is_new = r->state < ROTATION_RETIRE;
    bool compromised = strcmp(r->cause, ROTATE_COMPROMISED) == 0;
    enum keystate state = is_new        ? KEYSTATE_PRE_ACTIVATION
                          : compromised ? KEYSTATE_COMPROMISED
                                        : KEYSTATE_DEACTIVATED;
    bool fresh = is_new || r->state == ROTATION_DROP;

    return add_key(a, r->org, fresh ? r->new_id : r->old_id, state,
                   steady_wall_ms(a->core, r->begun_ms),
                   rotation_state_name(r->state), r->error, e);
}

static enum code admin_keys(struct core *c, json_t **out, struct error *e)
{
    JSON list = json_array();
    struct admin_keys a = {c, list};
    enum code code = store_org_each(c->store, add_current, &a, e);

    if (!code)
        code = rotation_each(c->store, NULL, add_rotating, &a, e);
    if (!code)
        *out = json_incref(list);
    return code;
}

enum code core_hsm(struct core *c, json_t **out, struct error *e)
{
    JSON hsm = hsm_status(c);
    JSON keys = NULL;
    JSON admin = NULL;
    enum code code;

    read_back(c);
    code = keystates_json(c, &keys, e);
    if (!code)
        code = admin_keys(c, &admin, e);
    if (!code && (json_object_set_new(hsm, "periods", keyschedule_json(c)) != 0 ||
                  json_object_set(hsm, "keys", keys) != 0 ||
                  json_object_set(hsm, "admin_keys", admin) != 0))
        code = error_set(e, ERR_NOMEM, "no memory for the HSM's state");
    if (!code)
        *out = json_incref(hsm);
    return code;
}
