/* auditkeys - the public halves of the HSM's keys that sign the log, as they
 * were pinned: known while the HSM is locked or away, too. */
#include "config.h"

#include "module/core/internal.h"

#include "common/file.h"

#include <string.h>

static enum code append_log_key(json_t *out, json_t *key, struct error *e)
{
    const char *use = NULL, *label = NULL, *id = NULL, *public_key = NULL;
    const struct json_field fields[] = {
        {"use", FIELD_STRING, true, &use, NULL},
        {"label", FIELD_STRING, true, &label, NULL},
        {"id", FIELD_STRING, true, &id, NULL},
        {"public_key", FIELD_STRING, false, &public_key, NULL},
    };
    enum code code =
        json_decode(key, JSON_FIELDS(fields), true, "pinned HSM key", e);

    if (code || !public_key ||
        (strcmp(use, "log") != 0 && strcmp(use, "log-ed25519") != 0))
        return code;
    if (json_array_append_new(out, json_pack("{ss ss ss}", "label", label, "id",
                                             id, "public_key", public_key)) !=
        0)
        return error_set(e, ERR_NOMEM, "no memory for the log's keys");
    return OK;
}

enum code core_audit_keys(struct core *c, json_t **out, struct error *e)
{
    JSON keys = json_array();
    JSON pins = NULL;
    FREE void *text = NULL;
    size_t len;
    enum code code = store_meta_get(c->store, META_PINS, &text, &len, e);

    if (code == ERR_NOT_FOUND) /* before `hsmint init` */
        error_clear(e);
    else if (code ||
             (code = json_parse(text, len, "pinned HSM keys", &pins, e)))
        return code;
    json_t *all = json_object_get(pins, "keys");
    for (size_t i = 0; i < json_array_size(all); i++) {
        code = append_log_key(keys, json_array_get(all, i), e);
        if (code)
            return code;
    }
    if (!keys)
        return error_set(e, ERR_NOMEM, "no memory for the log's keys");
    *out = json_incref(keys);
    return OK;
}
