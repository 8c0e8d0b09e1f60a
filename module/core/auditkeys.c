/* auditkeys - the public halves of the HSM's keys that sign the log, as they
 * were pinned: known while the HSM is locked or away, too. */
#include "config.h"

#include "module/core/internal.h"

#include "common/base64.h"
#include "common/file.h"
#include "module/audit/keyring.h"
#include "module/core/checkpoint.h"

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

/* Those of before that still sign. */
static enum code old_keys_of(const json_t *pins, json_t **out, struct error *e)
{
    JSON keys = json_array();
    json_t *all = json_object_get(pins, "old");

    for (size_t i = 0; i < json_array_size(all); i++) {
        json_t *one = json_array_get(all, i);
        const char *role = json_string_value(json_object_get(one, "role"));
        enum code code =
            role && strcmp(role, "signs") == 0
                ? append_log_key(keys, json_object_get(one, "key"), e)
                : OK;

        if (code)
            return code;
    }
    if (!keys)
        return error_set(e, ERR_NOMEM, "no memory for the log's keys");
    *out = json_incref(keys);
    return OK;
}

static enum code keys_of(const json_t *pins, json_t **out, struct error *e)
{
    JSON keys = json_array();
    json_t *all = json_object_get(pins, "keys");

    for (size_t i = 0; i < json_array_size(all); i++) {
        enum code code = append_log_key(keys, json_array_get(all, i), e);

        if (code)
            return code;
    }
    if (!keys)
        return error_set(e, ERR_NOMEM, "no memory for the log's keys");
    *out = json_incref(keys);
    return OK;
}

/* *pins NULL: before `hsmint init`. */
static enum code read_pins(struct core *c, json_t **pins, struct error *e)
{
    enum code code = pins_get(c, pins, e);

    if (code != ERR_NOT_FOUND)
        return code;
    error_clear(e);
    return OK;
}

enum code core_audit_keys(struct core *c, json_t **out, struct error *e)
{
    JSON pins = NULL;
    enum code code = read_pins(c, &pins, e);

    return code ? code : keys_of(pins, out, e);
}

/* ---- as keys of signed notes ---- */

static const uint8_t ed25519_spki[] = {0x30, 0x2a, 0x30, 0x05, 0x06, 0x03,
                                       0x2b, 0x65, 0x70, 0x03, 0x21, 0x00};
#define ED25519_KEY 32

static enum code vkey(const char *origin, json_t *key, struct note_key *out,
                      struct error *e)
{
    const char *text = json_string_value(json_object_get(key, "public_key"));
    uint8_t spki[512];
    size_t len, head = sizeof(ed25519_spki);

    if (!base64_decode(text, strlen(text), spki, sizeof(spki), &len))
        return error_set(e, ERR_INVALID, "a pinned HSM key is no public key");
    if (len == head + ED25519_KEY && memcmp(spki, ed25519_spki, head) == 0)
        return note_key(out, origin, NOTE_ED25519, spki + head, ED25519_KEY, e);
    return note_key(out, origin, NOTE_ECDSA, spki, len, e);
}

static enum code vkeys(json_t *keys, const char *origin, json_t **out,
                       struct error *e)
{
    JSON list = json_array();
    enum code code = OK;

    for (size_t i = 0; !code && *origin && i < json_array_size(keys); i++) {
        FREE char *text = NULL;
        struct note_key k;

        code = vkey(origin, json_array_get(keys, i), &k, e);
        if (!code)
            code = note_key_format(&k, &text, e);
        if (!code && json_array_append_new(list, json_string(text)) != 0)
            code = error_set(e, ERR_NOMEM, "no memory for the log's keys");
    }
    *out = code ? NULL : json_incref(list);
    return code;
}

enum code notary_keys(struct core *c, const char *origin, json_t **out,
                      struct error *e)
{
    JSON keys = NULL;
    enum code code = core_audit_keys(c, &keys, e);

    return code ? code : vkeys(keys, origin, out, e);
}

enum code notary_keys_of(const json_t *pins, const char *origin, json_t **out,
                         struct error *e)
{
    JSON keys = NULL;
    enum code code = keys_of(pins, &keys, e);

    return code ? code : vkeys(keys, origin, out, e);
}

static enum code check_note(json_t *keys, const struct note *n,
                            const char *origin, struct error *e)
{
    CLEANUP(keyring_freep) struct keyring *ring = NULL;
    enum code code = keyring_new(&ring, e);

    for (size_t i = 0; !code && i < json_array_size(keys); i++) {
        struct note_key k;

        code = vkey(origin, json_array_get(keys, i), &k, e);
        if (!code)
            code = keyring_give(ring, &k, e);
    }
    return code ? code : keyring_check_note(ring, n, origin, e);
}

enum code checkpoint_verify(struct core *c, const struct note *n,
                            const char *origin, struct error *e)
{
    JSON keys = NULL;
    enum code code = core_audit_keys(c, &keys, e);

    return code ? code : check_note(keys, n, origin, e);
}

enum code notary_check_old(struct core *c, const char *text, const char *origin,
                           struct error *e)
{
    JSON pins = NULL;
    JSON keys = NULL;
    struct note note;
    enum code code = read_pins(c, &pins, e);

    if (!code)
        code = old_keys_of(pins, &keys, e);
    if (!code)
        code = note_parse(&note, text, strlen(text), e);
    /* A compromised one signs no more. */
    if (!code && json_array_size(keys) > 0 &&
        check_note(keys, &note, origin, NULL) != OK)
        code = error_set(e, ERR_NOT_LOGGED,
                         "the log's old key has not signed its last checkpoint "
                         "beside the new one: is it on the HSM?");
    return code;
}
