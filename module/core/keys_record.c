/* keys_record - see keys_record.h. */
#include "config.h"

#include "module/core/keys_record.h"

#include "common/file.h"
#include "module/core/internal.h"
#include "module/core/logbook.h"
#include "module/core/notary.h"
#include "module/core/pins.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define META_KEYS "audit.keys" /* the members of the last record */
#define FINGERPRINT_SHOWN 16   /* of it, in a keyid: spec/SEAL.md */

static enum code append_call_key(json_t *out, json_t *key, struct error *e)
{
    const char *use = NULL, *label = NULL, *print = "", *public_key = NULL;
    FREE char *keyid = NULL;
    const struct json_field fields[] = {
        {"use", FIELD_STRING, true, &use, NULL},
        {"label", FIELD_STRING, true, &label, NULL},
        {"fingerprint", FIELD_STRING, false, &print, NULL},
        {"public_key", FIELD_STRING, false, &public_key, NULL},
    };
    enum code code =
        json_decode(key, JSON_FIELDS(fields), true, "pinned HSM key", e);

    if (code || strcmp(use, "call") != 0 || !public_key)
        return code;
    if (asprintf(&keyid, "%s:%.*s", label, FINGERPRINT_SHOWN, print) < 0)
        keyid = NULL;
    if (json_array_append_new(out, json_pack("{ss ss}", "keyid", keyid,
                                             "public_key", public_key)) != 0)
        return error_set(e, ERR_NOMEM, "no memory for the calls' keys");
    return OK;
}

/* *out NULL: the log has no name yet. */
static enum code members(struct core *c, const char *pins_text, json_t **out,
                         struct error *e)
{
    char origin[NOTE_NAME_MAX];
    JSON pins = NULL;
    JSON calls = json_array();
    JSON logs = NULL;
    enum code code =
        json_parse(pins_text, strlen(pins_text), "pinned HSM keys", &pins, e);
    json_t *all = json_object_get(pins, "keys");

    for (size_t i = 0; !code && i < json_array_size(all); i++)
        code = append_call_key(calls, json_array_get(all, i), e);
    if (!code)
        code = notary_origin(c, origin, e);
    if (!code && !*origin)
        return OK;
    if (!code)
        code = notary_keys_of(pins, origin, &logs, e);
    if (code)
        return code;
    *out = json_pack("{sO sO sO* so}", "call", calls, "log", logs, "mechanism",
                     json_object_get(pins, "mechanism"), "pins",
                     logbook_digest(pins_text));
    return *out ? OK : error_set(e, ERR_NOMEM, "no memory for the log's keys");
}

/* *more NULL: nothing that `last_text` (NULL: none) does not say. Before the log
 * has a name there is nothing to say: its notary does, before the first call. */
static enum code news(struct core *c, const char *pins, const char *last_text,
                      json_t **more, struct error *e)
{
    JSON last = NULL;
    JSON now = NULL;
    enum code code = OK;

    *more = NULL;
    if (last_text)
        code = json_parse(last_text, strlen(last_text), META_KEYS, &last, e);
    if (!code)
        code = members(c, pins, &now, e);
    if (!code && now && !json_equal(last, now))
        *more = json_incref(now);
    return code;
}

/* ERR_NOT_FOUND is none. */
static enum code or_none(enum code code, struct error *e)
{
    if (code != ERR_NOT_FOUND)
        return code;
    error_clear(e);
    return OK;
}

enum code keys_record_put(struct core *c, struct store_tx *tx, const char *pins,
                          struct error *e)
{
    FREE void *last = NULL;
    FREE char *text = NULL;
    JSON more = NULL;
    size_t len;
    enum code code =
        or_none(store_tx_meta_get(tx, META_KEYS, &last, &len, e), e);

    if (!code)
        code = news(c, pins, last, &more, e);
    if (code || !more)
        return code;
    text = json_text(more, JSON_COMPACT);
    if (!text)
        return error_set(e, ERR_NOMEM, "no memory for the log's keys");
    const struct logbook_entry r = {.kind = RECORD_KEYS,
                                    .more = json_incref(more)};

    code = logbook_add(c, tx, &r, e);
    return code ? code : store_meta_put(tx, META_KEYS, text, strlen(text), e);
}

struct keys {
    struct core *core;
    const char *pins;
};

static enum code write_keys(struct store_tx *tx, void *ctx, struct error *e)
{
    const struct keys *k = ctx;

    return keys_record_put(k->core, tx, k->pins, e);
}

enum code keys_record_write(struct core *c, struct error *e)
{
    FREE void *pins = NULL;
    FREE void *last = NULL;
    JSON more = NULL;
    size_t len;
    enum code code = or_none(store_meta_get(c->store, META_PINS, &pins, &len, e),
                             e);

    if (!code && pins)
        code = or_none(store_meta_get(c->store, META_KEYS, &last, &len, e), e);
    if (!code && pins)
        code = news(c, pins, last, &more, e);
    if (code || !more)
        return code;
    struct keys k = {c, pins};
    return store_commit(c->store, STORE_RESERVE, write_keys, &k, e);
}
