/* A keyset to and from its pins (JSON); keyset_* of keys.h. */
#include "config.h"

#include "hsm/keys.h"

#include "common/base64.h"
#include "common/file.h"
#include "common/text.h"
#include "hsm/soft.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define PINS_FORMAT 1

void keyset_free(struct keyset *k)
{
    if (!k)
        return;
    for (int use = 0; use < HSM_USES; use++) {
        EVP_PKEY_free(k->keys[use].public);
        free(k->keys[use].spki);
    }
    free(k->probe);
    free(k->hmac);
    free(k);
}

void keyset_freep(struct keyset **k)
{
    keyset_free(*k);
}

static void key_name(struct key *k)
{
    /* Labels of ours are short (keys_label). */
    snprintf(k->keyid, sizeof k->keyid, "%.40s:%.16s", k->label,
             k->fingerprint);
}

enum code key_complete(struct key *k, struct error *e)
{
    uint8_t digest[32];
    enum code rc =
        soft_public(k->spki, k->spki_len,
                    k->use == HSM_SEAL          ? SOFT_RSA
                    : k->use == HSM_LOG_ED25519 ? SOFT_ED25519
                                                : SOFT_EC,
                    &k->public, e);
    if (rc)
        return rc;
    soft_sha256(k->spki, k->spki_len, digest);
    text_hex(k->fingerprint, digest, sizeof digest);
    key_name(k);
    return OK;
}

void keyset_fingerprint_probe(struct keyset *k)
{
    struct key *seal = &k->keys[HSM_SEAL];
    if (seal->public)
        return;
    uint8_t digest[32];
    soft_sha256(k->probe, k->probe_len, digest);
    text_hex(seal->fingerprint, digest, sizeof digest);
    key_name(seal);
}

/* ---- to JSON ---- */

static json_t *base64(const uint8_t *data, size_t len)
{
    FREE char *text = data ? base64_encode(data, len) : NULL;
    return data ? json_string(text) : json_null();
}

static json_t *key_json(const struct key *k)
{
    char id[2 * KEY_ID + 1];
    text_hex(id, k->id, KEY_ID);
    return json_pack("{ss ss ss si ss so}", "use", keys_use_name(k->use),
                     "label", k->label, "id", id, "version", (int)k->version,
                     "fingerprint", k->fingerprint, "public_key",
                     base64(k->spki, k->spki_len));
}

json_t *keyset_keys_json(const struct keyset *k)
{
    JSON keys = json_array();
    for (int use = 0; keys && use < HSM_USES; use++)
        if (keyset_has(k, (enum hsm_use)use) &&
            json_array_append_new(keys, key_json(&k->keys[use])) < 0)
            return NULL;
    json_t *out = keys;
    keys = NULL;
    return out;
}

enum code keyset_json(const struct keyset *k, json_t **out, struct error *e)
{
    JSON pins = json_pack(
        "{si ss si so so so}", "format", PINS_FORMAT, "instance", k->instance,
        "mechanism", (int)k->mechanism, "keys", keyset_keys_json(k), "probe",
        base64(k->probe, k->probe_len), "hmac", base64(k->hmac, k->hmac_len));
    *out = !pins ? NULL
                 : json_pack("{ss ss so sO}", "instance", k->instance,
                             "mechanism", seal_name(k->mechanism), "keys",
                             keyset_keys_json(k), "pins", pins);
    return *out ? OK : error_set(e, ERR_NOMEM, "HSM: pins");
}

/* ---- from JSON ---- */

static enum code unbase64(const char *what, const char *text, size_t max,
                          uint8_t **out, size_t *len, struct error *e)
{
    FREE uint8_t *data = malloc(max);
    if (!data)
        return error_set(e, ERR_NOMEM, "HSM: pins");
    if (!base64_decode(text, strlen(text), data, max, len))
        return error_set(e, ERR_HSM_KEYS, "pins: %s is no base64", what);
    *out = data;
    data = NULL;
    return OK;
}

static enum code parse_id(struct key *k, const char *hex, struct error *e)
{
    size_t len = 0;
    enum code rc = text_unhex(k->id, KEY_ID, &len, hex, e);
    if (rc || len != KEY_ID)
        return error_set(e, ERR_HSM_KEYS, "pins: the id of %s is no id",
                         k->label);
    return OK;
}

static enum code parse_key(const json_t *object, struct key *k,
                           enum hsm_use use, bool public, struct error *e)
{
    const char *name, *label, *id, *fingerprint, *spki = NULL;
    json_int_t version;
    struct json_field fields[] = {
        {"use", FIELD_STRING, true, &name, NULL},
        {"label", FIELD_STRING, true, &label, NULL},
        {"id", FIELD_STRING, true, &id, NULL},
        {"version", FIELD_INT, true, &version, NULL},
        {"fingerprint", FIELD_STRING, true, &fingerprint, NULL},
        {"public_key", FIELD_STRING, public, &spki, NULL},
    };
    enum code rc = json_decode((json_t *)(uintptr_t)object, JSON_FIELDS(fields),
                               false, "pins: key", e);
    if (rc)
        return rc;
    *k = (struct key){.use = use, .version = (uint32_t)version};
    keys_label(use, k->version, k->label);
    if (version < 1 || version > 255 || strcmp(name, keys_use_name(use)) != 0 ||
        strcmp(label, k->label) != 0 || (spki != NULL) != public)
        return error_set(e, ERR_HSM_KEYS, "pins: the %s key is not whole",
                         keys_use_name(use));
    rc = parse_id(k, id, e);
    if (!rc && public)
        rc = unbase64("public_key", spki, 4096, &k->spki, &k->spki_len, e);
    if (!rc && public)
        rc = key_complete(k, e);
    if (!rc && public && strcmp(fingerprint, k->fingerprint) != 0)
        rc = error_set(e, ERR_HSM_KEYS,
                       "pins: fingerprint and public key of %s differ",
                       k->label);
    return rc;
}

static enum code parse_keys(json_t *array, struct keyset *k, struct error *e)
{
    int n = (int)json_array_size(array);
    if (n != HSM_USES && n != HSM_LOG_ED25519) /* without the last */
        return error_set(e, ERR_HSM_KEYS, "pins: %d keys are needed, not %d",
                         HSM_USES, n);
    for (int use = 0; use < n; use++) {
        bool public = use != HSM_SEAL || seal_is_rsa(k->mechanism);
        enum code rc = parse_key(json_array_get(array, (size_t)use),
                                 &k->keys[use], (enum hsm_use)use, public, e);
        if (rc)
            return rc;
    }
    return OK;
}

/* An AES key's fingerprint is that of the probe. */
static enum code check_probe(json_t *array, struct keyset *k, struct error *e)
{
    const char *pinned = json_string_value(
        json_object_get(json_array_get(array, HSM_SEAL), "fingerprint"));
    keyset_fingerprint_probe(k);
    if (!pinned || strcmp(pinned, k->keys[HSM_SEAL].fingerprint) != 0)
        return error_set(e, ERR_HSM_KEYS,
                         "pins: fingerprint and probe of %s differ",
                         k->keys[HSM_SEAL].label);
    return OK;
}

static enum code parse_instance(struct keyset *k, const char *hex,
                                struct error *e)
{
    uint8_t id[16];
    size_t len = 0;
    enum code rc = text_unhex(id, sizeof id, &len, hex, e);
    if (rc || len != sizeof id)
        return error_set(e, ERR_HSM_KEYS, "pins: instance is no id");
    text_hex(k->instance, id, sizeof id);
    return OK;
}

enum code keyset_parse(const json_t *pins, struct keyset **out, struct error *e)
{
    const char *instance, *probe, *hmac;
    json_int_t format, mechanism;
    json_t *keys;
    struct json_field fields[] = {
        {"format", FIELD_INT, true, &format, NULL},
        {"instance", FIELD_STRING, true, &instance, NULL},
        {"mechanism", FIELD_INT, true, &mechanism, NULL},
        {"keys", FIELD_ARRAY, true, &keys, NULL},
        {"probe", FIELD_STRING, true, &probe, NULL},
        {"hmac", FIELD_STRING, true, &hmac, NULL},
    };
    enum code rc = json_decode((json_t *)(uintptr_t)pins, JSON_FIELDS(fields),
                               false, "pins", e);
    if (rc)
        return rc;
    if (format != PINS_FORMAT || mechanism < 1 || mechanism >= MECHS)
        return error_set(e, ERR_HSM_KEYS,
                         "pins: written by another version (format %lld, "
                         "mechanism %lld)",
                         (long long)format, (long long)mechanism);
    struct keyset *k CLEANUP(keyset_freep) = calloc(1, sizeof *k);
    if (!k)
        return error_set(e, ERR_NOMEM, "HSM: pins");
    k->mechanism = (enum seal_mechanism)mechanism;
    rc = parse_instance(k, instance, e);
    if (!rc)
        rc = parse_keys(keys, k, e);
    if (!rc)
        rc = unbase64("probe", probe, SEAL_BLOB_MAX, &k->probe, &k->probe_len,
                      e);
    if (!rc)
        rc = unbase64("hmac", hmac, SEAL_BLOB_MAX, &k->hmac, &k->hmac_len, e);
    if (!rc)
        rc = check_probe(keys, k, e);
    if (rc)
        return rc;
    *out = k;
    k = NULL;
    return OK;
}
