#include "config.h"

#include "hsm/keys.h"

#include "common/text.h"
#include "hsm/envelope.h"
#include "hsm/object.h"
#include "hsm/soft.h"

#include <stdio.h>
#include <string.h>

#define PRIVATES (KEY_AES | KEY_EC | KEY_RSA)
#define PUBLICS (KEY_EC_PUBLIC | KEY_RSA_PUBLIC)
#define RULE(attr, kinds, value, how)                                          \
    {                                                                          \
        CKA_##attr, #attr, kinds, value, how                                   \
    }

const struct key_rule key_rules[] = {
    RULE(TOKEN, PRIVATES | PUBLICS, true, RULE_NEEDED),
    RULE(PRIVATE, PRIVATES, true, RULE_NEEDED),
    RULE(PRIVATE, PUBLICS, false, RULE_NEEDED),
    RULE(SENSITIVE, PRIVATES, true, RULE_NEEDED),
    RULE(EXTRACTABLE, PRIVATES, false, RULE_NEEDED),
    RULE(ENCRYPT, KEY_AES | KEY_RSA_PUBLIC, true, RULE_NEEDED),
    RULE(DECRYPT, KEY_AES | KEY_RSA, true, RULE_NEEDED),
    RULE(SIGN, KEY_EC, true, RULE_NEEDED),
    RULE(VERIFY, KEY_EC_PUBLIC, true, RULE_NEEDED),
    RULE(ENCRYPT, KEY_EC_PUBLIC, false, RULE_STRICT),
    RULE(DECRYPT, KEY_EC, false, RULE_STRICT),
    RULE(SIGN, KEY_AES | KEY_RSA, false, RULE_STRICT),
    RULE(VERIFY, KEY_AES | KEY_RSA_PUBLIC, false, RULE_STRICT),
    RULE(WRAP, KEY_AES | PUBLICS, false, RULE_STRICT),
    RULE(UNWRAP, PRIVATES, false, RULE_STRICT),
    RULE(DERIVE, PRIVATES | PUBLICS, false, RULE_STRICT),
    RULE(SIGN_RECOVER, KEY_EC | KEY_RSA, false, RULE_STRICT),
    RULE(VERIFY_RECOVER, PUBLICS, false, RULE_STRICT),
    RULE(LOCAL, PRIVATES, true, RULE_CHECKED),
    RULE(NEVER_EXTRACTABLE, PRIVATES, true, RULE_CHECKED),
    RULE(ALWAYS_SENSITIVE, PRIVATES, true, RULE_CHECKED),
    RULE(MODIFIABLE, PRIVATES | PUBLICS, false, RULE_WISHED),
};
const size_t key_rules_count = sizeof key_rules / sizeof key_rules[0];

static const char *const use_names[HSM_USES] = {"seal", "blob", "call", "log",
                                                "log-ed25519"};

const char *keys_use_name(enum hsm_use use)
{
    return use < HSM_USES ? use_names[use] : "unknown";
}

bool keys_find_use(const char *name, enum hsm_use *use)
{
    for (int i = 0; i < HSM_USES; i++) {
        if (strcmp(use_names[i], name) == 0) {
            *use = (enum hsm_use)i;
            return true;
        }
    }
    return false;
}

void keys_label(enum hsm_use use, uint32_t version, char label[BLOB_LABEL_MAX])
{
    snprintf(label, BLOB_LABEL_MAX, "hsmint-%s-%u", keys_use_name(use),
             (unsigned)version);
}

struct seal_key keyring_seal_key(const struct keyring *r)
{
    const struct key *k = &r->set->keys[HSM_SEAL];
    return (struct seal_key){k->label, r->set->mechanism, r->handles[HSM_SEAL],
                             k->public};
}

enum code keys_sign(struct session *s, const struct key *k,
                    CK_OBJECT_HANDLE handle, const void *data, size_t len,
                    uint8_t signature[64], struct error *e)
{
    CK_MECHANISM m = {k->use == HSM_LOG_ED25519 ? CKM_EDDSA : CKM_ECDSA, NULL,
                      0};
    CK_ULONG n = 64;
    enum code rc = HSM_CALL(s, e, k->label, C_SignInit, &m, handle);
    if (!rc)
        rc = HSM_CALL(s, e, k->label, C_Sign, (CK_BYTE_PTR)(uintptr_t)data,
                      (CK_ULONG)len, signature, &n);
    if (!rc && n != 64)
        rc = error_set(e, ERR_HSM_FAILED,
                       "HSM: C_Sign on %s gave %lu bytes, not 64", k->label,
                       (unsigned long)n);
    return rc;
}

enum code keyring_sign(struct session *s, const struct keyring *r,
                       enum hsm_use use, const uint8_t digest[32],
                       uint8_t signature[64], struct error *e)
{
    return keys_sign(s, &r->set->keys[use], r->handles[use], digest, 32,
                     signature, e);
}

enum code keyring_sign_ed25519(struct session *s, const struct keyring *r,
                               const void *text, size_t len,
                               uint8_t signature[64], struct error *e)
{
    return keys_sign(s, &r->set->keys[HSM_LOG_ED25519],
                     r->handles[HSM_LOG_ED25519], text, len, signature, e);
}

/* ---- find and check ---- */

static enum code find_label(struct session *s, const char *label,
                            CK_OBJECT_HANDLE found[OBJECTS_MAX], size_t *n,
                            struct error *e)
{
    CK_ATTRIBUTE match[] = {ATTR_TEXT(CKA_LABEL, label)};
    return object_find(s, label, match, 1, found, n, e);
}

enum code keys_count(struct session *s, const char *label, size_t *n,
                     struct error *e)
{
    CK_OBJECT_HANDLE found[OBJECTS_MAX];
    return find_label(s, label, found, n, e);
}

/* The one key object of the label; beside it, one public key at most. */
static enum code find_one(struct session *s, const char *label,
                          CK_OBJECT_CLASS want, CK_OBJECT_HANDLE *handle,
                          struct error *e)
{
    CK_OBJECT_HANDLE found[OBJECTS_MAX];
    size_t n, keys = 0, publics = 0;
    enum code rc = find_label(s, label, found, &n, e);
    for (size_t i = 0; !rc && i < n; i++) {
        CK_OBJECT_CLASS class = CKO_VENDOR_DEFINED;
        CK_ULONG len;
        rc = object_read(s, label, found[i], CKA_CLASS, &class, sizeof class,
                         &len, e);
        if (class == want) {
            *handle = found[i];
            keys++;
        } else if (class == CKO_PUBLIC_KEY && want == CKO_PRIVATE_KEY) {
            publics++;
        } else {
            keys += 2; /* something else goes by our name */
        }
    }
    if (rc)
        return rc;
    if (keys == 0) /* its public half may be there */
        return error_set(e, ERR_HSM_KEYS,
                         "HSM: key %s is missing on the token: restore it from "
                         "the HSM's backup; what it sealed cannot be opened "
                         "without it. If that HSM is gone for good: `hsmint hsm "
                         "restore --dry-run`",
                         label);
    if (keys != 1 || publics > 1)
        return error_set(e, ERR_HSM_KEYS,
                         "HSM: several objects are called %s: somebody has put "
                         "another there; find out who, and delete the one "
                         "whose CKA_ID is not pinned",
                         label);
    return OK;
}

static enum code check_rules(struct session *s, const char *label,
                             CK_OBJECT_HANDLE handle, enum key_kind kind,
                             struct error *e)
{
    for (size_t i = 0; i < key_rules_count; i++) {
        const struct key_rule *r = &key_rules[i];
        if (!(r->kinds & kind) || r->how == RULE_WISHED)
            continue;
        bool missing = r->how == RULE_STRICT ? r->value : !r->value;
        bool value = missing;
        enum code rc =
            object_flag(s, label, handle, r->type, missing, &value, e);
        if (rc)
            return rc;
        if (value != r->value)
            return error_set(e, ERR_HSM_KEYS,
                             "HSM: key %s is refused: its CKA_%s is not %s, so "
                             "it is not one that hsmint made in the HSM",
                             label, r->name, r->value ? "TRUE" : "FALSE");
    }
    return OK;
}

enum code keys_check_id(struct session *s, const struct key *k,
                        CK_OBJECT_HANDLE handle, struct error *e)
{
    uint8_t id[KEY_ID];
    CK_ULONG len;
    enum code rc =
        object_read(s, k->label, handle, CKA_ID, id, sizeof id, &len, e);
    if (rc)
        return rc;
    if (len != KEY_ID || memcmp(id, k->id, KEY_ID) != 0)
        return error_set(e, ERR_HSM_KEYS,
                         "HSM: key %s has another CKA_ID than the one that was "
                         "pinned: it was replaced",
                         k->label);
    return OK;
}

/* It signs, and what it signs verifies with the pinned public key. */
static enum code prove_ec(struct session *s, const struct key *k,
                          CK_OBJECT_HANDLE handle, struct error *e)
{
    uint8_t digest[32], signature[64];
    enum code rc = text_random(digest, sizeof digest, e);
    if (!rc)
        rc = keys_sign(s, k, handle, digest, sizeof digest, signature, e);
    if (rc)
        return rc;
    if (k->use == HSM_LOG_ED25519
            ? !soft_verify_ed25519(k->public, digest, 32, signature)
            : !soft_verify(k->public, digest, signature))
        return error_set(e, ERR_HSM_KEYS,
                         "HSM: key %s is not the one that was pinned: its "
                         "signature does not verify",
                         k->label);
    return OK;
}

/* It opens the probe, which holds the instance's id. */
static enum code prove_seal(struct session *s, const struct keyring *r,
                            struct error *e)
{
    const struct keyset *k = r->set;
    struct blob b;
    SECRET plain = NULL;
    enum code rc = envelope_verify(k, k->probe, k->probe_len, &b, e);
    if (!rc)
        rc = envelope_open(s, r, k->probe, &b, &plain, e);
    if (rc && rc != ERR_SEAL && rc != ERR_HSM_FAILED)
        return rc;
    size_t len = strlen(k->instance);
    if (rc || b.subject.kind != SEAL_PROBE || secret_len(plain) != len ||
        memcmp(secret_data(plain), k->instance, len) != 0)
        return error_set(e, ERR_HSM_KEYS,
                         "HSM: key %s is not the one that was pinned: the "
                         "probe does not open",
                         k->keys[HSM_SEAL].label);
    return OK;
}

static enum key_kind kind_of(const struct keyset *k, enum hsm_use use)
{
    if (use != HSM_SEAL)
        return KEY_EC;
    return seal_is_rsa(k->mechanism) ? KEY_RSA : KEY_AES;
}

static CK_OBJECT_CLASS class_of(enum key_kind kind)
{
    return kind == KEY_AES ? CKO_SECRET_KEY : CKO_PRIVATE_KEY;
}

static enum code check_one(struct session *s, const struct keyset *set,
                           const struct key *k, CK_OBJECT_HANDLE *handle,
                           struct error *e)
{
    enum key_kind kind = kind_of(set, k->use);
    *handle = CK_INVALID_HANDLE;
    enum code rc = find_one(s, k->label, class_of(kind), handle, e);
    if (!rc)
        rc = keys_check_id(s, k, *handle, e);
    if (!rc)
        rc = check_rules(s, k->label, *handle, kind, e);
    if (!rc && kind == KEY_EC)
        rc = prove_ec(s, k, *handle, e);
    return rc;
}

/* Without a public half, which may outlive its key where a destruction was cut
 * off. */
static enum code count_keys(struct session *s, const struct keyset *set,
                            const struct key *k, size_t *n, struct error *e)
{
    CK_OBJECT_HANDLE found[OBJECTS_MAX];
    CK_OBJECT_CLASS class = class_of(kind_of(set, k->use));
    CK_ATTRIBUTE match[] = {ATTR(CKA_CLASS, class),
                            ATTR_TEXT(CKA_LABEL, k->label)};
    return object_find(s, k->label, match, 2, found, n, e);
}

/* It may be gone: what is sealed anew opens without it, and who was told of the
 * log's new key needs no other. */
static enum code check_old(struct session *s, struct keyring *r, size_t i,
                           struct error *e)
{
    const struct old_key *old = &r->set->old[i];
    size_t n = 0;
    r->old[i] = CK_INVALID_HANDLE;
    if (old->role != OLD_SIGNS &&
        (old->role != OLD_OPENS || old->key.use != HSM_SEAL))
        return OK;
    enum code rc = count_keys(s, r->set, &old->key, &n, e);
    if (rc || n == 0)
        return rc;
    return check_one(s, r->set, &old->key, &r->old[i], e);
}

/* Keys that are gone from every HSM but one that was given up. */
static bool was_given_up(struct session *s, const struct keyset *k)
{
    for (size_t i = 0; i < k->old_n; i++) {
        const struct key *old = &k->old[i].key;
        CK_OBJECT_HANDLE found[OBJECTS_MAX];
        CK_ATTRIBUTE match[] = {ATTR_TEXT(CKA_LABEL, old->label),
                                {CKA_ID, (void *)(uintptr_t)old->id, KEY_ID}};
        size_t n = 0;
        if (k->old[i].role == OLD_DESTROYED &&
            object_find(s, old->label, match, 2, found, &n, NULL) == OK &&
            n > 0)
            return true;
    }
    return false;
}

/* Which of two reasons it is. */
static enum code is_missing(struct session *s, const struct keyset *k,
                            const struct key *key, struct error *e)
{
    size_t n = 1;
    if (keys_count(s, key->label, &n, NULL) || n > 0 || !was_given_up(s, k))
        return ERR_HSM_KEYS;
    return error_set(e, ERR_HSM_KEYS,
                     "HSM: key %s is missing, and the token has keys that this "
                     "state gave up (`hsmint hsm restore`, `hsm destroy`): it "
                     "is the HSM of before. Name the other one in [hsm] uri",
                     key->label);
}

enum code keys_check(struct session *s, struct keyring *r, struct error *e)
{
    for (int use = 0; use < HSM_USES; use++) {
        if (!keyset_has(r->set, (enum hsm_use)use))
            continue;
        enum code rc =
            check_one(s, r->set, &r->set->keys[use], &r->handles[use], e);
        if (rc == ERR_HSM_KEYS)
            return is_missing(s, r->set, &r->set->keys[use], e);
        if (rc)
            return rc;
    }
    for (size_t i = 0; i < r->set->old_n; i++) {
        enum code rc = check_old(s, r, i, e);
        if (rc)
            return rc;
    }
    return prove_seal(s, r, e);
}
