/* What the HSM says of its keys: keys_tell of keys.h, hsm_attributes of hsm.h. */
#include "config.h"

#include "common/text.h"
#include "hsm/object.h"
#include "hsm/state.h"

#include <string.h>

static const struct {
    CK_ATTRIBUTE_TYPE type;
    const char *member;
    bool of_origin; /* whether it was made here, and never left */
} told[] = {
    {CKA_LOCAL, "local", true},
    {CKA_NEVER_EXTRACTABLE, "never_extractable", true},
    {CKA_ALWAYS_SENSITIVE, "always_sensitive", true},
    {CKA_EXTRACTABLE, "extractable", true},
    {CKA_SENSITIVE, "sensitive", false},
    {CKA_TOKEN, "token", false},
    {CKA_PRIVATE, "private", false},
    {CKA_MODIFIABLE, "modifiable", false},
    {CKA_COPYABLE, "copyable", false},
    {CKA_ENCRYPT, "encrypt", false},
    {CKA_DECRYPT, "decrypt", false},
    {CKA_SIGN, "sign", false},
    {CKA_VERIFY, "verify", false},
    {CKA_WRAP, "wrap", false},
    {CKA_UNWRAP, "unwrap", false},
    {CKA_DERIVE, "derive", false},
};

enum code keys_tell(struct session *s, const char *label,
                    CK_OBJECT_HANDLE object, bool all, json_t *out,
                    struct error *e)
{
    for (size_t i = 0; i < sizeof told / sizeof told[0]; i++) {
        enum code rc = all || told[i].of_origin
                           ? object_tell(s, label, object, told[i].type, out,
                                         told[i].member, e)
                           : OK;
        if (rc)
            return rc;
    }
    return OK;
}

struct reading {
    const json_t *pins;
    json_t *out;
};

static enum code read_id(struct session *s, const char *label,
                         CK_OBJECT_HANDLE object, json_t *out, struct error *e)
{
    uint8_t id[64];
    char hex[2 * sizeof id + 1] = "";
    CK_ULONG len = 0;
    enum code rc =
        object_read(s, label, object, CKA_ID, id, sizeof id, &len, e);
    if (rc)
        return rc;
    bool there = len <= sizeof id;
    if (there)
        text_hex(hex, id, len);
    return json_object_set_new(out, "id",
                               there ? json_string(hex) : json_null())
               ? error_set(e, ERR_NOMEM, "HSM: attributes")
               : OK;
}

/* The key itself, which is secret or private; of several the one that is
 * pinned, where it is among them. */
static enum code find_key(struct session *s, const json_t *key,
                          const char *label, CK_OBJECT_HANDLE *object,
                          size_t *n, struct error *e)
{
    const char *use = json_string_value(json_object_get(key, "use"));
    const char *hex = json_string_value(json_object_get(key, "id"));
    bool aes = use && strcmp(use, keys_use_name(HSM_SEAL)) == 0 &&
               !json_is_string(json_object_get(key, "public_key"));
    CK_OBJECT_CLASS class = aes ? CKO_SECRET_KEY : CKO_PRIVATE_KEY;
    CK_OBJECT_HANDLE found[OBJECTS_MAX] = {CK_INVALID_HANDLE};
    uint8_t id[KEY_ID];
    size_t len = 0;
    CK_ATTRIBUTE match[] = {ATTR(CKA_CLASS, class),
                            ATTR_TEXT(CKA_LABEL, label), ATTR(CKA_ID, id)};
    enum code rc = text_unhex(id, sizeof id, &len, hex ? hex : "", e);
    if (rc == OK)
        rc = object_find(s, label, match, 3, found, n, e);
    if (rc == OK && *n == 0)
        rc = object_find(s, label, match, 2, found, n, e);
    *object = found[0];
    return rc;
}

static enum code read_one(struct session *s, const json_t *key, json_t *out,
                          struct error *e)
{
    const char *label = json_string_value(json_object_get(key, "label"));
    CK_OBJECT_HANDLE object = CK_INVALID_HANDLE;
    JSON one = json_object();
    size_t n = 0;
    if (!label)
        return error_set(e, ERR_INVALID, "pins: a key has no label");
    enum code rc = find_key(s, key, label, &object, &n, e);
    if (rc == OK && n > 0)
        rc = read_id(s, label, object, one, e);
    if (rc == OK && n > 0)
        rc = keys_tell(s, label, object, false, one, e);
    if (rc)
        return rc;
    return json_object_set(out, label, n > 0 ? one : json_null())
               ? error_set(e, ERR_NOMEM, "HSM: attributes")
               : OK;
}

static enum code op_read(struct hsm *h, struct session *s, void *arg,
                         struct error *e)
{
    struct reading *r = arg;
    const json_t *keys = json_object_get(r->pins, "keys");
    const json_t *old = json_object_get(r->pins, "old");
    enum code rc = OK;
    (void)h;
    for (size_t i = 0; rc == OK && i < json_array_size(keys); i++)
        rc = read_one(s, json_array_get(keys, i), r->out, e);
    for (size_t i = 0; rc == OK && i < json_array_size(old); i++)
        rc = read_one(s, json_object_get(json_array_get(old, i), "key"),
                      r->out, e);
    return rc;
}

enum code hsm_attributes(struct hsm *h, const json_t *pins, json_t **out,
                         struct error *e)
{
    const struct keyset *k = atomic_load(&h->keys);
    JSON known = NULL;
    JSON list = json_object();
    enum code rc = OK;
    if (!pins && !k)
        return error_set(e, ERR_HSM_KEYS,
                         "HSM: no keys of hsmint yet: run `hsmint init`");
    if (!pins)
        rc = keyset_json(k, &known, e);
    struct reading r = {pins ? pins : json_object_get(known, "pins"), list};
    if (rc == OK)
        rc = hsm_run(h, NEED_LOGIN, true, op_read, &r, e);
    if (rc)
        return rc;
    *out = list;
    list = NULL;
    return OK;
}
