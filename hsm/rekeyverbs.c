/* The verbs rotate-key, destroy-key and reseal: another generation of the HSM's
 * keys, and what the one before had sealed. */
#include "config.h"

#include "hsm/keeper.h"

#include "hsm/anchor.h"

#include <string.h>

enum code rekey_rotate(struct channel *c, struct frame *in, struct frame *out,
                       struct error *e)
{
    const char *which = NULL, *step = NULL;
    json_t *plan = NULL;
    bool compromised = false;
    const struct json_field fields[] = {
        {"which", FIELD_STRING, true, &which, NULL},
        {"step", FIELD_STRING, true, &step, NULL},
        {"keys", FIELD_ARRAY, false, &plan, NULL},
        {"compromised", FIELD_BOOL, false, &compromised, NULL},
    };
    struct hsm *h = c->keeper->hsm;
    JSON keys = NULL;
    enum code rc =
        json_decode(in->head, JSON_FIELDS(fields), false, "rotate-key", e);
    if (rc)
        return rc;
    if (strcmp(step, "make") == 0 && plan) {
        rc = hsm_rekey_make(h, which, plan, compromised, &out->head, e);
        if (rc == OK)
            access_tell_attributes(c->keeper, out->head);
        return rc;
    }
    if (strcmp(step, "clear") == 0 && plan)
        return hsm_rekey_clear(h, plan, e);
    if (strcmp(step, "plan") != 0 || plan)
        return error_set(e, ERR_INVALID,
                         "rotate-key: \"plan\", or \"make\" or \"clear\" "
                         "with its keys");
    /* One that is signed by the key before the last is nobody's. */
    rc = strcmp(which, "log") == 0 ? anchor_is_handed_over(h, e) : OK;
    if (!rc)
        rc = hsm_rekey_plan(h, which, &keys, e);
    if (rc)
        return rc;
    out->head = json_pack("{sO}", "keys", keys);
    return out->head ? OK : error_set(e, ERR_NOMEM, "no memory for a reply");
}

enum code rekey_destroy(struct channel *c, struct frame *in, struct frame *out,
                        struct error *e)
{
    const char *label = NULL;
    const struct json_field fields[] = {
        {"label", FIELD_STRING, true, &label, NULL},
    };
    struct hsm *h = c->keeper->hsm;
    enum code rc =
        json_decode(in->head, JSON_FIELDS(fields), false, "destroy-key", e);
    if (rc == OK)
        rc = anchor_is_handed_over(h, e);
    if (rc == OK)
        rc = hsm_destroy(h, label, &out->head, e);
    if (rc == OK)
        access_tell_attributes(c->keeper, out->head);
    return rc;
}

enum code rekey_reseal(struct channel *c, struct frame *in, struct frame *out,
                       struct error *e)
{
    struct hsm *h = c->keeper->hsm;
    enum code rc = json_decode(in->head, NULL, 0, false, "reseal", e);
    if (rc == OK)
        rc = hsm_reseal(h, in->body, in->body_len, &out->body, &out->body_len,
                        e);
    return rc;
}
