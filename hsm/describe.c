/* hsm_describe of hsm.h. */
#include "config.h"

#include "hsm/state.h"

#include <stdio.h>

struct description {
    CK_TOKEN_INFO info;
    bool logged_in;
};

static enum code op_look(struct hsm *h, struct session *s, void *arg,
                         struct error *e)
{
    struct description *d = arg;
    d->logged_in = h->logged_in;
    enum code code = session_check(
        s, s->pool->f->C_GetTokenInfo(s->pool->slot, &d->info),
        "C_GetTokenInfo", "the token", e);
    /* Whatever it says (SoftHSM: CKR_GENERAL_ERROR): no other session would
     * know better, so the next look begins anew. */
    if (code)
        atomic_store(&s->pool->gone, true);
    return code;
}

static json_t *token_json(const CK_TOKEN_INFO *i)
{
    char maker[4 * 32 + 1], model[4 * 16 + 1], serial[4 * 16 + 1],
        label[4 * 32 + 1], firmware[16];
    TOKEN_TEXT(maker, i->manufacturerID);
    TOKEN_TEXT(model, i->model);
    TOKEN_TEXT(serial, i->serialNumber);
    TOKEN_TEXT(label, i->label);
    snprintf(firmware, sizeof firmware, "%d.%d", i->firmwareVersion.major,
             i->firmwareVersion.minor);
    return json_pack("{ss ss ss ss ss s{sb sb sb}}", "manufacturer", maker,
                     "model", model, "serial", serial, "label", label,
                     "firmware", firmware, "pin", "count_low",
                     (i->flags & CKF_USER_PIN_COUNT_LOW) != 0, "final_try",
                     (i->flags & CKF_USER_PIN_FINAL_TRY) != 0, "locked",
                     (i->flags & CKF_USER_PIN_LOCKED) != 0);
}

static const char *state_name(struct hsm *h, enum code looked,
                              const struct description *d)
{
    if (looked)
        return "absent";
    if (!d->logged_in)
        return "locked";
    return hsm_ready(h) ? "ready" : "unprovisioned";
}

enum code hsm_describe(struct hsm *h, json_t **out, struct error *e)
{
    struct description d = {.logged_in = false};
    struct error why = {.code = OK};
    /* A PIN or keys that changed are told once by the attempt to bring the HSM
     * back; it is there all the same, so look again. */
    enum code looked = hsm_run(h, NEED_TOKEN, true, op_look, &d, &why);
    if (looked && looked != ERR_HSM_ABSENT && looked != ERR_DEADLINE)
        looked = hsm_run(h, NEED_TOKEN, true, op_look, &d, NULL);
    int open, busy, limit;
    pool_count(&h->pool, &open, &busy, &limit);
    const struct keyset *k = atomic_load(&h->keys);
    JSON o = looked ? json_object() : token_json(&d.info);
    JSON more =
        json_pack("{ss s{si si si}}", "state", state_name(h, looked, &d),
                  "sessions", "open", open, "busy", busy, "allowed", limit);
    int bad = !o || !more || json_object_update(o, more) < 0;
    if (!bad && why.code)
        bad |= json_object_set_new(o, "error", json_string(why.text));
    if (!bad && k) {
        bad |= json_object_set_new(o, "instance", json_string(k->instance));
        bad |= json_object_set_new(o, "mechanism",
                                   json_string(seal_name(k->mechanism)));
        bad |= json_object_set_new(o, "keys", keyset_keys_json(k));
    }
    if (bad)
        return error_set(e, ERR_NOMEM, "HSM: description");
    *out = o;
    o = NULL;
    return OK;
}
