#include "config.h"

#include "module/pkcs11/kinds.h"

#include <stdio.h>
#include <string.h>

/* The public half of the HSM's key that signs the audit log: what a verifier
 * of the log needs. An EC key on P-256, public; the daemon knows it without the
 * HSM. To check signatures with it is the verifier's matter. */

#define POINT_LEN 65 /* 04, x, y */

/* SubjectPublicKeyInfo of such a key, up to its point. */
static const uint8_t spki_head[] = {
    0x30, 0x59, 0x30, 0x13, 0x06, 0x07, 0x2a, 0x86, 0x48,
    0xce, 0x3d, 0x02, 0x01, 0x06, 0x08, 0x2a, 0x86, 0x48,
    0xce, 0x3d, 0x03, 0x01, 0x07, 0x03, 0x42, 0x00,
};
#define SPKI_LEN (sizeof(spki_head) + POINT_LEN)
/* In there: the curve's name, which is CKA_EC_PARAMS. */
#define CURVE_AT 13
#define CURVE_LEN 10

/* ---- attributes ---- */

/* The facts hold it in hex. */
static CK_RV read_bytes(const struct object *o, const char *member,
                        struct attribute_value *v)
{
    const char *hex = "";
    object_text(o, member, &hex);
    v->data = v->room.bytes;
    if (text_unhex(v->room.bytes, sizeof(v->room.bytes), &v->len, hex, NULL))
        v->len = 0;
    return CKR_OK;
}

static CK_RV read_spki(const struct object *o, struct attribute_value *v)
{
    return read_bytes(o, "spki", v);
}

static CK_RV read_id(const struct object *o, struct attribute_value *v)
{
    return read_bytes(o, "id", v);
}

static CK_RV read_curve(const struct object *o, struct attribute_value *v)
{
    (void)o;
    v->data = spki_head + CURVE_AT;
    v->len = CURVE_LEN;
    return CKR_OK;
}

/* DER: the point in an OCTET STRING. */
static CK_RV read_point(const struct object *o, struct attribute_value *v)
{
    CK_RV rv = read_spki(o, v);
    if (v->len != SPKI_LEN)
        return rv;
    memmove(v->room.bytes + 2, v->room.bytes + sizeof(spki_head), POINT_LEN);
    v->room.bytes[0] = 0x04;
    v->room.bytes[1] = POINT_LEN;
    v->len = POINT_LEN + 2;
    return rv;
}

static const struct attribute_rule rules[] = {
    {.type = CKA_CLASS,
     .shape = SHAPE_ULONG,
     .use = USE_FIXED,
     .fixed = CKO_PUBLIC_KEY},
    {.type = CKA_KEY_TYPE,
     .shape = SHAPE_ULONG,
     .use = USE_FIXED,
     .fixed = CKK_EC},
    {.type = CKA_LABEL, .shape = SHAPE_TEXT, .member = "label"},
    {.type = CKA_ID, .shape = SHAPE_BYTES, .read = read_id},
    {.type = CKA_UNIQUE_ID, .shape = SHAPE_TEXT, .member = "unique"},
    {.type = CKA_EC_PARAMS, .shape = SHAPE_BYTES, .read = read_curve},
    {.type = CKA_EC_POINT, .shape = SHAPE_BYTES, .read = read_point},
    {.type = CKA_PUBLIC_KEY_INFO, .shape = SHAPE_BYTES, .read = read_spki},
    {.type = CKA_SUBJECT, .shape = SHAPE_BYTES},
    {.type = CKA_START_DATE, .shape = SHAPE_DATE},
    {.type = CKA_END_DATE, .shape = SHAPE_DATE},
    {.type = CKA_KEY_GEN_MECHANISM,
     .shape = SHAPE_ULONG,
     .fixed = CKM_EC_KEY_PAIR_GEN},
    ATTRIBUTE_ALWAYS(CKA_TOKEN, CK_TRUE),
    ATTRIBUTE_ALWAYS(CKA_LOCAL, CK_TRUE), /* the HSM made it */
    ATTRIBUTE_ALWAYS(CKA_PRIVATE, CK_FALSE),
    ATTRIBUTE_ALWAYS(CKA_MODIFIABLE, CK_FALSE),
    ATTRIBUTE_ALWAYS(CKA_COPYABLE, CK_FALSE),
    ATTRIBUTE_ALWAYS(CKA_DESTROYABLE, CK_FALSE),
    ATTRIBUTE_ALWAYS(CKA_TRUSTED, CK_FALSE),
    /* This module computes nothing with it. */
    ATTRIBUTE_ALWAYS(CKA_ENCRYPT, CK_FALSE),
    ATTRIBUTE_ALWAYS(CKA_VERIFY, CK_FALSE),
    ATTRIBUTE_ALWAYS(CKA_VERIFY_RECOVER, CK_FALSE),
    ATTRIBUTE_ALWAYS(CKA_WRAP, CK_FALSE),
    ATTRIBUTE_ALWAYS(CKA_DERIVE, CK_FALSE),
};

/* ---- from the daemon ---- */

static int base64_digit(char c)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                 "abcdefghijklmnopqrstuvwxyz0123456789+/";
    const char *at = c ? strchr(digits, c) : NULL;
    return at ? (int)(at - digits) : -1;
}

/* The fixed length tells what the text has to be: n bytes, padded. */
static bool base64_read(uint8_t *out, size_t n, const char *text)
{
    if (strlen(text) != (n + 2) / 3 * 4)
        return false;
    for (size_t i = 0; i < n; i++) {
        const char *at = text + i / 3 * 4 + i % 3;
        int high = base64_digit(at[0]), low = base64_digit(at[1]);
        if (high < 0 || low < 0)
            return false;
        int shift = 2 * (int)(i % 3) + 2;
        out[i] = (uint8_t)(high << shift | low >> (6 - shift));
    }
    return true;
}

/* Facts of a key, or NULL: none of this kind, or no memory. */
static json_t *facts_of(json_t *key)
{
    const char *label = NULL, *id = NULL, *text = NULL;
    const struct json_field fields[] = {
        {"label", FIELD_STRING, true, &label, NULL},
        {"id", FIELD_STRING, true, &id, NULL},
        {"public_key", FIELD_STRING, true, &text, NULL},
    };
    uint8_t spki[SPKI_LEN];
    char hex[2 * SPKI_LEN + 1];
    struct error e;
    if (json_decode(key, JSON_FIELDS(fields), true, "key", &e) ||
        !base64_read(spki, sizeof(spki), text) ||
        memcmp(spki, spki_head, sizeof(spki_head)) != 0)
        return NULL;
    text_hex(hex, spki, sizeof(spki));
    return json_pack("{ss ss ss ss+}", "label", label, "id", id, "spki", hex,
                     "unique", "key/", label);
}

static CK_RV gather_key(struct call *c, json_t *key, const struct template *t,
                        struct handles *out)
{
    json_t *facts = facts_of(key);
    if (!facts)
        return CKR_OK;
    return object_gather(c, &kind_audit_key,
                         json_string_value(json_object_get(key, "label")),
                         facts, t, out);
}

/* Public, so looked for without a login: what keeps the daemon from telling is
 * no error of the search. */
static CK_RV audit_key_gather(struct call *c, const struct template *t,
                              struct handles *out)
{
    JSON reply = NULL;
    struct error saved = c->e;
    if (module_ask(c, "AuditKeys", NULL, NULL, &reply, NULL)) {
        c->e = saved;
        return CKR_OK;
    }
    json_t *keys = json_object_get(reply, "keys");
    CK_RV rv = CKR_OK;
    for (size_t i = 0; rv == CKR_OK && i < json_array_size(keys); i++)
        rv = gather_key(c, json_array_get(keys, i), t, out);
    return rv;
}

const struct object_kind kind_audit_key = {
    .schema = ATTRIBUTE_SCHEMA("audit key", rules),
    .gather = audit_key_gather,
};
