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

/* 2 has the keys of before; without any it is written as 1, which older
 * versions read. */
#define PINS_FORMAT 1
#define PINS_FORMAT_OLD 2

static const char *const role_names[OLD_ROLES] = {"kept", "opens", "signs",
                                                  "destroyed"};

void key_clear(struct key *k)
{
    EVP_PKEY_free(k->public);
    free(k->spki);
    *k = (struct key){.label = ""};
}

static void clear(struct keyset *k)
{
    for (int use = 0; use < HSM_USES; use++)
        key_clear(&k->keys[use]);
    for (size_t i = 0; i < k->old_n; i++)
        key_clear(&k->old[i].key);
    free(k->probe);
    free(k->hmac);
    free(k);
}

void keyset_free(struct keyset *k)
{
    while (k) {
        struct keyset *before = k->before;
        clear(k);
        k = before;
    }
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

static json_t *old_json(const struct keyset *k)
{
    JSON list = json_array();
    for (size_t i = 0; list && i < k->old_n; i++)
        if (json_array_append_new(
                list, json_pack("{ss so}", "role", role_names[k->old[i].role],
                                "key", key_json(&k->old[i].key))) < 0)
            return NULL;
    json_t *out = list;
    list = NULL;
    return out;
}

enum code keyset_json(const struct keyset *k, json_t **out, struct error *e)
{
    JSON pins = json_pack(
        "{si ss si so so so so*}", "format",
        k->old_n ? PINS_FORMAT_OLD : PINS_FORMAT, "instance", k->instance,
        "mechanism", (int)k->mechanism, "keys", keyset_keys_json(k), "probe",
        base64(k->probe, k->probe_len), "hmac", base64(k->hmac, k->hmac_len),
        "old", k->old_n ? old_json(k) : NULL);
    if (k->old_n && !json_object_get(pins, "old"))
        return error_set(e, ERR_NOMEM, "HSM: pins");
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

/* ---- keys of before ---- */

static enum code parse_role(const char *name, enum hsm_use use,
                            enum old_role *role, struct error *e)
{
    bool seals = use == HSM_SEAL || use == HSM_BLOB;
    bool logs = use == HSM_LOG || use == HSM_LOG_ED25519;
    for (int i = 0; i < OLD_ROLES; i++) {
        if (strcmp(role_names[i], name) != 0 || (i == OLD_OPENS && !seals) ||
            (i == OLD_SIGNS && !logs))
            continue;
        *role = (enum old_role)i;
        return OK;
    }
    return error_set(e, ERR_HSM_KEYS, "pins: an old %s key cannot be \"%.16s\"",
                     keys_use_name(use), name);
}

static enum code check_fingerprint(struct key *k, const json_t *object,
                                   struct error *e)
{
    uint8_t digest[32];
    size_t len = 0;
    const char *hex =
        json_string_value(json_object_get(object, "fingerprint"));
    enum code rc = text_unhex(digest, sizeof digest, &len, hex ? hex : "", e);
    if (rc || len != sizeof digest)
        return error_set(e, ERR_HSM_KEYS,
                         "pins: the fingerprint of %s is none", k->label);
    text_hex(k->fingerprint, digest, sizeof digest);
    return OK;
}

static enum code parse_old(json_t *one, struct keyset *k, struct error *e)
{
    const char *role = "";
    json_t *object = NULL;
    struct json_field fields[] = {
        {"role", FIELD_STRING, true, &role, NULL},
        {"key", FIELD_OBJECT, true, &object, NULL},
    };
    struct old_key *old = &k->old[k->old_n];
    enum hsm_use use = HSM_USES;
    enum code rc = json_decode(one, JSON_FIELDS(fields), false, "pins: old", e);
    if (rc)
        return rc;
    const char *name = json_string_value(json_object_get(object, "use"));
    if (!name || !keys_find_use(name, &use))
        return error_set(e, ERR_HSM_KEYS, "pins: an old key has no use");
    /* One that was on another HSM may have been of another mechanism. */
    bool public = use != HSM_SEAL ||
                  json_is_string(json_object_get(object, "public_key"));
    k->old_n++; /* cleared with the set from here on */
    rc = parse_role(role, use, &old->role, e);
    if (!rc)
        rc = parse_key(object, &old->key, use, public, e);
    if (!rc && !public)
        rc = check_fingerprint(&old->key, object, e);
    if (!rc && keyset_has(k, use) && old->key.version >= k->keys[use].version)
        rc = error_set(e, ERR_HSM_KEYS,
                       "pins: the old key %s is not older than the one in use",
                       old->key.label);
    return rc;
}

static enum code parse_all_old(json_t *array, struct keyset *k, struct error *e)
{
    if (json_array_size(array) > KEYS_OLD_MAX)
        return error_set(e, ERR_HSM_KEYS, "pins: more than %d old keys",
                         KEYS_OLD_MAX);
    for (size_t i = 0; i < json_array_size(array); i++) {
        enum code rc = parse_old(json_array_get(array, i), k, e);
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
    json_t *keys, *old = NULL;
    struct json_field fields[] = {
        {"format", FIELD_INT, true, &format, NULL},
        {"instance", FIELD_STRING, true, &instance, NULL},
        {"mechanism", FIELD_INT, true, &mechanism, NULL},
        {"keys", FIELD_ARRAY, true, &keys, NULL},
        {"probe", FIELD_STRING, true, &probe, NULL},
        {"hmac", FIELD_STRING, true, &hmac, NULL},
        {"old", FIELD_ARRAY, false, &old, NULL},
    };
    enum code rc = json_decode((json_t *)(uintptr_t)pins, JSON_FIELDS(fields),
                               false, "pins", e);
    if (rc)
        return rc;
    if (format != (json_array_size(old) ? PINS_FORMAT_OLD : PINS_FORMAT) ||
        mechanism < 1 || mechanism >= MECHS)
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
    if (!rc)
        rc = parse_all_old(old, k, e);
    if (rc)
        return rc;
    *out = k;
    k = NULL;
    return OK;
}

/* ---- one after the other ---- */

enum code keyset_follows(const struct keyset *now, const struct keyset *next,
                         struct error *e)
{
    bool ok = strcmp(now->instance, next->instance) == 0 &&
              now->mechanism == next->mechanism;
    for (int use = 0; ok && use < HSM_USES; use++) {
        const struct key *a = &now->keys[use], *b = &next->keys[use];
        ok = !keyset_has(next, (enum hsm_use)use) || b->version > a->version ||
             strcmp(a->fingerprint, b->fingerprint) == 0;
    }
    return ok ? OK
              : error_set(e, ERR_HSM_KEYS,
                          "pins of another instance, or of before a rotation, "
                          "than those this keeper works with: start it anew");
}

enum code keyset_dup(const struct keyset *k, struct keyset **out,
                     struct error *e)
{
    JSON json = NULL;
    enum code rc = keyset_json(k, &json, e);
    return rc ? rc : keyset_parse(json_object_get(json, "pins"), out, e);
}

/* The log's own records have the public keys of those that go. */
static bool make_room(struct keyset *k)
{
    size_t i = 0;
    while (i < k->old_n && k->old[i].role != OLD_DESTROYED)
        i++;
    if (i == k->old_n)
        return false;
    key_clear(&k->old[i].key);
    memmove(&k->old[i], &k->old[i + 1], (--k->old_n - i) * sizeof k->old[0]);
    return true;
}

enum code keyset_replace(struct keyset *k, struct key *next,
                         enum old_role role, struct error *e)
{
    struct key *now = &k->keys[next->use];
    if (k->old_n == KEYS_OLD_MAX && !make_room(k))
        return error_set(e, ERR_LIMIT,
                         "HSM: %d keys of before are on it: destroy some that "
                         "are of no use any more (`hsmint hsm destroy`)",
                         KEYS_OLD_MAX);
    k->old[k->old_n++] = (struct old_key){role, *now};
    *now = *next;
    *next = (struct key){.label = ""};
    return OK;
}
