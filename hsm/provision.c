/* Making the keys: keys_make of keys.h. */
#include "config.h"

#include "hsm/keys.h"

#include "common/log.h"
#include "common/text.h"
#include "hsm/envelope.h"
#include "hsm/object.h"
#include "hsm/soft.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define ATTRS_MAX 40
#define MODULUS_BITS 3072

/* ---- templates ---- */

struct template
{
    CK_ATTRIBUTE attrs[ATTRS_MAX];
    CK_ULONG n;      /* all */
    CK_ULONG needed; /* the first ones: without them no key is made */
};

static void add(struct template *t, CK_ATTRIBUTE_TYPE type, const void *value,
                size_t len)
{
    t->attrs[t->n++] =
        (CK_ATTRIBUTE){type, (void *)(uintptr_t)value, (CK_ULONG)len};
}

static void add_rules(struct template *t, enum key_kind kind, enum rule_how how)
{
    static const CK_BBOOL yes = CK_TRUE, no = CK_FALSE;
    for (size_t i = 0; i < key_rules_count; i++) {
        const struct key_rule *r = &key_rules[i];
        if ((r->kinds & kind) && r->how == how)
            add(t, r->type, r->value ? &yes : &no, sizeof(CK_BBOOL));
    }
}

static void template_make(struct template *t, enum key_kind kind,
                          const struct key *k, const CK_ATTRIBUTE *more,
                          size_t n)
{
    t->n = 0;
    add(t, CKA_LABEL, k->label, strlen(k->label));
    add(t, CKA_ID, k->id, KEY_ID);
    for (size_t i = 0; i < n; i++)
        t->attrs[t->n++] = more[i];
    add_rules(t, kind, RULE_NEEDED);
    t->needed = t->n;
    add_rules(t, kind, RULE_STRICT);
    add_rules(t, kind, RULE_WISHED);
}

/* HSMs differ in what they take of a template: all of it, all but what is only
 * wished for (the last), or only what is needed. keys_check() reads what came
 * of it. */
static bool template_refused(CK_RV rv)
{
    return rv == CKR_TEMPLATE_INCONSISTENT ||
           rv == CKR_ATTRIBUTE_TYPE_INVALID ||
           rv == CKR_ATTRIBUTE_VALUE_INVALID || rv == CKR_ATTRIBUTE_READ_ONLY;
}

static CK_ULONG template_count(const struct template *t, int attempt)
{
    return attempt == 0 ? t->n : attempt == 1 ? t->n - 1 : t->needed;
}
#define TEMPLATE_ATTEMPTS 3

/* ---- one key ---- */

/* What a set of keys is made from. */
struct recipe {
    const enum seal_mechanism *try;
    size_t n;
    const char *instance;       /* NULL: a new one */
    const struct key *planned;  /* by use; NULL: the first of their kind */
    const struct secret *hmac;  /* NULL: a new one */
};

static enum code new_key(const struct recipe *from, struct key *k,
                         enum hsm_use use, struct error *e)
{
    *k = (struct key){.use = use, .version = 1};
    if (from && from->planned) {
        *k = from->planned[use];
        return OK;
    }
    keys_label(use, k->version, k->label);
    enum code rc = text_random(k->id, KEY_ID, e);
    k->id[KEY_ID - 1] = (uint8_t)k->version;
    return rc;
}

static enum code make_secret(struct session *s, struct key *k,
                             CK_OBJECT_HANDLE *handle, struct error *e)
{
    CK_ULONG len = 32;
    CK_ATTRIBUTE more[] = {ATTR(CKA_VALUE_LEN, len)};
    CK_MECHANISM m = {CKM_AES_KEY_GEN, NULL, 0};
    struct template t;
    template_make(&t, KEY_AES, k, more, 1);
    CK_RV rv = CKR_OK;
    for (int i = 0; i < TEMPLATE_ATTEMPTS; i++) {
        rv = s->pool->f->C_GenerateKey(s->handle, &m, t.attrs,
                                       template_count(&t, i), handle);
        if (!template_refused(rv))
            break;
    }
    return session_check(s, rv, "C_GenerateKey", k->label, e);
}

struct pair {
    CK_OBJECT_HANDLE public, private;
};

static enum code make_pair(struct session *s, struct key *k, bool ec,
                           struct pair *pair, struct error *e)
{
    static const uint8_t p256[] = {0x06, 0x08, 0x2a, 0x86, 0x48,
                                   0xce, 0x3d, 0x03, 0x01, 0x07};
    static const uint8_t exponent[] = {1, 0, 1};
    CK_ULONG bits = MODULUS_BITS;
    CK_ATTRIBUTE curve[] = {ATTR(CKA_EC_PARAMS, p256)};
    CK_ATTRIBUTE rsa[] = {ATTR(CKA_MODULUS_BITS, bits),
                          ATTR(CKA_PUBLIC_EXPONENT, exponent)};
    CK_MECHANISM m = {ec ? CKM_EC_KEY_PAIR_GEN : CKM_RSA_PKCS_KEY_PAIR_GEN,
                      NULL, 0};
    struct template pub, prv;
    template_make(&pub, ec ? KEY_EC_PUBLIC : KEY_RSA_PUBLIC, k,
                  ec ? curve : rsa, ec ? 1 : 2);
    template_make(&prv, ec ? KEY_EC : KEY_RSA, k, NULL, 0);
    CK_RV rv = CKR_OK;
    for (int i = 0; i < TEMPLATE_ATTEMPTS; i++) {
        rv = s->pool->f->C_GenerateKeyPair(
            s->handle, &m, pub.attrs, template_count(&pub, i), prv.attrs,
            template_count(&prv, i), &pair->public, &pair->private);
        if (!template_refused(rv))
            break;
    }
    return session_check(s, rv, "C_GenerateKeyPair", k->label, e);
}

static enum code read_public(struct session *s, struct key *k, bool ec,
                             CK_OBJECT_HANDLE handle, struct error *e)
{
    uint8_t a[1024], b[16];
    CK_ULONG a_len = 0, b_len = 0;
    enum code rc =
        object_read(s, k->label, handle, ec ? CKA_EC_POINT : CKA_MODULUS, a,
                    sizeof a, &a_len, e);
    if (!rc && !ec)
        rc = object_read(s, k->label, handle, CKA_PUBLIC_EXPONENT, b, sizeof b,
                         &b_len, e);
    if (rc)
        return rc;
    if (a_len > sizeof a || b_len > sizeof b)
        return error_set(e, ERR_HSM_KEYS,
                         "HSM: the public key of %s cannot be read", k->label);
    rc = ec ? soft_ec_spki(a, a_len, &k->spki, &k->spki_len, e)
            : soft_rsa_spki(a, a_len, b, b_len, &k->spki, &k->spki_len, e);
    return rc ? rc : key_complete(k, e);
}

/* ---- the log's Ed25519 key, where the HSM can ---- */

/* By its OID, or by the name that PKCS#11 3.0 has for it. */
static const uint8_t ed25519_oid[] = {0x06, 0x03, 0x2b, 0x65, 0x70};
static const uint8_t ed25519_name[] = {0x13, 0x0c, 'e', 'd', 'w', 'a', 'r',
                                       'd',  's',  '2', '5', '5', '1', '9'};

static CK_RV make_ed25519_pair(struct session *s, const struct key *k,
                               const CK_ATTRIBUTE *curve, struct pair *pair)
{
    CK_MECHANISM m = {CKM_EC_EDWARDS_KEY_PAIR_GEN, NULL, 0};
    struct template pub, prv;
    CK_RV rv = CKR_OK;
    template_make(&pub, KEY_EC_PUBLIC, k, curve, 1);
    template_make(&prv, KEY_EC, k, NULL, 0);
    for (int i = 0; i < TEMPLATE_ATTEMPTS; i++) {
        rv = s->pool->f->C_GenerateKeyPair(
            s->handle, &m, pub.attrs, template_count(&pub, i), prv.attrs,
            template_count(&prv, i), &pair->public, &pair->private);
        if (!template_refused(rv))
            break;
    }
    return rv;
}

static enum code read_ed25519(struct session *s, struct key *k,
                              CK_OBJECT_HANDLE handle, struct error *e)
{
    uint8_t point[64];
    CK_ULONG len = 0;
    enum code rc = object_read(s, k->label, handle, CKA_EC_POINT, point,
                               sizeof point, &len, e);
    if (!rc && len > sizeof point)
        rc = error_set(e, ERR_HSM_KEYS,
                       "HSM: the public key of %s cannot be read", k->label);
    if (!rc)
        rc = soft_ed25519_spki(point, len, &k->spki, &k->spki_len, e);
    return rc ? rc : key_complete(k, e);
}

static enum code make_ed25519(struct session *s, struct key *k,
                              CK_OBJECT_HANDLE *handle, struct error *e)
{
    const CK_ATTRIBUTE curves[] = {ATTR(CKA_EC_PARAMS, ed25519_oid),
                                   ATTR(CKA_EC_PARAMS, ed25519_name)};
    struct pair pair = {0};
    CK_RV rv = make_ed25519_pair(s, k, &curves[0], &pair);
    if (rv != CKR_OK && rv != CKR_MECHANISM_INVALID)
        rv = make_ed25519_pair(s, k, &curves[1], &pair);
    enum code rc = session_check(s, rv, "C_GenerateKeyPair", k->label, e);
    *handle = pair.private;
    return rc ? rc : read_ed25519(s, k, pair.public, e);
}

/* ---- any of them ---- */

enum code keys_make_one(struct session *s, enum seal_mechanism mechanism,
                        struct key *k, CK_OBJECT_HANDLE *handle,
                        struct error *e)
{
    bool ec = k->use != HSM_SEAL;
    struct pair pair = {0};
    if (k->use == HSM_LOG_ED25519)
        return make_ed25519(s, k, handle, e);
    if (!ec && !seal_is_rsa(mechanism))
        return make_secret(s, k, handle, e);
    enum code rc = make_pair(s, k, ec, &pair, e);
    *handle = pair.private;
    return rc ? rc : read_public(s, k, ec, pair.public, e);
}

static enum code make_first(struct session *s, const struct recipe *from,
                            struct keyset *k, struct keyring *r,
                            enum hsm_use use, struct error *e)
{
    enum code rc = new_key(from, &k->keys[use], use, e);
    return rc ? rc
              : keys_make_one(s, k->mechanism, &k->keys[use], &r->handles[use],
                              e);
}

bool keys_are_files(struct session *s)
{
    CK_SLOT_INFO info = {.flags = 0};
    return s->pool->f->C_GetSlotInfo(s->pool->slot, &info) != CKR_OK ||
           !(info.flags & CKF_HW_SLOT);
}

void keys_settle(bool are_files)
{
    if (are_files)
        sync();
}

/* ---- the seal key: the first mechanism that passes ---- */

enum code keys_destroy(struct session *s, const char *label, struct error *e)
{
    CK_OBJECT_HANDLE found[OBJECTS_MAX];
    size_t n = 0;
    CK_ATTRIBUTE match[] = {ATTR_TEXT(CKA_LABEL, label)};
    enum code rc = object_find(s, label, match, 1, found, &n, e);
    for (size_t i = 0; !rc && i < n; i++)
        rc = object_destroy(s, label, found[i], e);
    return rc;
}

/* What goes by our labels now was made here: keys_make looked before. */
static void destroy_label(struct session *s, const char *label)
{
    struct error none = {.code = OK};
    if (keys_destroy(s, label, &none))
        log_warning("HSM: %s is left: %s", label, none.text);
}

static void drop_key(struct session *s, struct key *key)
{
    if (key->label[0])
        destroy_label(s, key->label);
    key_clear(key);
}

static enum code choose_seal(struct session *s, const struct recipe *from,
                             struct keyset *k, struct keyring *r,
                             struct error *e)
{
    const enum seal_mechanism *try = from->try;
    size_t n = from->n;
    enum code rc = error_set(e, ERR_HSM_FAILED,
                             "HSM: no mechanism to seal with is allowed");
    enum made { NONE, AES, RSA } have = NONE;
    for (size_t i = 0; i < n; i++) {
        enum made want = seal_is_rsa(try[i]) ? RSA : AES;
        k->mechanism = try[i];
        if (have != want) {
            drop_key(s, &k->keys[HSM_SEAL]);
            have = NONE;
            rc = make_first(s, from, k, r, HSM_SEAL, e);
            if (rc)
                continue;
            have = want;
        }
        struct seal_key key = keyring_seal_key(r);
        rc = seal_self_test(s, &key, e);
        if (!rc)
            return OK;
    }
    (void)error_prefix(e, "HSM: none of the ways to seal works; the last");
    return rc;
}

/* ---- the log's Ed25519 key, where the HSM can ---- */

static enum code is_free(struct session *s, const char *label, bool *free,
                         struct error *e)
{
    size_t n = 0;
    enum code rc = keys_count(s, label, &n, e);
    *free = rc == OK && n == 0;
    if (n > 0)
        log_warning("HSM: %s is on the token, and this state does not know it; "
                    "checkpoints are signed without. Delete it, and it is made "
                    "anew at the next start",
                    label);
    return rc;
}

/* OK without one: why goes to the log. */
static enum code add_ed25519(struct session *s, const struct key *wanted,
                             struct keyset *k, struct keyring *r,
                             struct error *e)
{
    struct key *key = &k->keys[HSM_LOG_ED25519];
    struct error why = {.code = OK};
    bool free = false;
    enum code rc = is_free(s, wanted->label, &free, e);
    if (rc || !free)
        return rc;
    *key = *wanted;
    rc = keys_make_one(s, k->mechanism, key, &r->handles[HSM_LOG_ED25519],
                       &why);
    if (!rc)
        rc = keys_check(s, r, &why);
    keys_settle(keys_are_files(s));
    if (!rc)
        return OK;
    drop_key(s, key);
    if (rc == ERR_HSM_ABSENT || rc == ERR_NOMEM)
        return error_set(e, rc, "%s", why.text);
    log_info("HSM: the log gets no Ed25519 key: %s", why.text);
    return OK;
}

/* Its version follows on those of before: an HSM that could not may have been
 * between two that can. */
enum code keys_add_ed25519(struct session *s, struct keyset *k,
                           struct keyring *r, struct error *e)
{
    struct key next;
    enum code rc = new_key(NULL, &next, HSM_LOG_ED25519, e);
    for (size_t i = 0; i < k->old_n; i++)
        if (k->old[i].key.use == HSM_LOG_ED25519 &&
            k->old[i].key.version >= next.version)
            next.version = k->old[i].key.version + 1;
    if (rc || next.version > KEY_VERSION_MAX)
        return rc;
    keys_label(HSM_LOG_ED25519, next.version, next.label);
    next.id[KEY_ID - 1] = (uint8_t)next.version;
    return add_ed25519(s, &next, k, r, e);
}

/* ---- probe and HMAC key ---- */

static enum code make_blob(struct session *s, const struct keyring *r,
                           enum seal_kind kind, const struct secret *plain,
                           uint8_t **out, size_t *len, struct error *e)
{
    struct seal_subject subject = {.kind = kind, .version = 1};
    memcpy(subject.key_id, r->set->instance, sizeof r->set->instance);
    return envelope_make(s, r, &subject, plain, out, len, e);
}

enum code keys_make_blobs(struct session *s, struct keyset *k,
                          const struct keyring *r, const struct secret *hmac,
                          struct error *e)
{
    SECRET probe = NULL;
    free(k->probe);
    free(k->hmac);
    k->probe = k->hmac = NULL;
    enum code rc = secret_dup(&probe, k->instance, strlen(k->instance), e);
    if (!rc)
        rc = make_blob(s, r, SEAL_PROBE, probe, &k->probe, &k->probe_len, e);
    if (rc)
        return rc;
    keyset_fingerprint_probe(k);
    return make_blob(s, r, SEAL_HMAC_KEY, hmac, &k->hmac, &k->hmac_len, e);
}

static enum code make_blobs(struct session *s, const struct recipe *from,
                            struct keyset *k, const struct keyring *r,
                            struct error *e)
{
    SECRET hmac = NULL;
    if (from->hmac)
        return keys_make_blobs(s, k, r, from->hmac, e);
    enum code rc = secret_new(&hmac, 32, e);
    if (!rc)
        rc = text_random(secret_bytes(hmac), 32, e);
    if (rc)
        return rc;
    secret_set_len(hmac, 32);
    return keys_make_blobs(s, k, r, hmac, e);
}

/* ---- all ---- */

static enum code refuse_present(struct session *s, struct error *e)
{
    for (int use = 0; use < HSM_USES; use++) {
        char label[BLOB_LABEL_MAX];
        size_t n;
        keys_label((enum hsm_use)use, 1, label);
        enum code rc = keys_count(s, label, &n, e);
        if (rc)
            return rc;
        if (n > 0)
            return error_set(
                e, ERR_HSM_KEYS,
                "HSM: %s is on the token, and this state does not know it: it "
                "was planted, belongs to another instance, or is left from an "
                "init that was cut off. Use that instance's state, another "
                "token, or delete the objects hsmint-*-1 (pkcs11-tool "
                "--delete-object)",
                label);
    }
    return OK;
}

static enum code make_instance(const struct recipe *from, struct keyset *k,
                               struct error *e)
{
    uint8_t instance[16];
    enum code rc = OK;
    if (from->instance) {
        memcpy(k->instance, from->instance, sizeof k->instance);
        return OK;
    }
    rc = text_random(instance, sizeof instance, e);
    text_hex(k->instance, instance, sizeof instance);
    return rc;
}

static enum code make_all(struct session *s, const struct recipe *from,
                          struct keyset *k, struct keyring *r, struct error *e)
{
    enum code rc = make_instance(from, k, e);
    for (int use = HSM_BLOB; !rc && use <= HSM_LOG; use++)
        rc = make_first(s, from, k, r, (enum hsm_use)use, e);
    if (!rc)
        rc = choose_seal(s, from, k, r, e);
    if (!rc)
        rc = make_blobs(s, from, k, r, e);
    if (!rc)
        rc = keys_check(s, r, e);
    if (rc)
        return rc;
    return from->planned
               ? add_ed25519(s, &from->planned[HSM_LOG_ED25519], k, r, e)
               : keys_add_ed25519(s, k, r, e);
}

static enum code make_set(struct session *s, const struct recipe *from,
                          struct keyset **out, struct keyring *r,
                          struct error *e)
{
    struct keyset *k CLEANUP(keyset_freep) = calloc(1, sizeof *k);
    if (!k)
        return error_set(e, ERR_NOMEM, "HSM: keys");
    r->set = k;
    enum code rc = make_all(s, from, k, r, e);
    keys_settle(keys_are_files(s));
    if (rc) {
        for (int use = 0; use < HSM_USES; use++)
            if (k->keys[use].label[0])
                destroy_label(s, k->keys[use].label);
        return rc;
    }
    *out = k;
    k = NULL;
    return OK;
}

enum code keys_make(struct session *s, const enum seal_mechanism *try, size_t n,
                    struct keyset **out, struct keyring *r, struct error *e)
{
    const struct recipe from = {.try = try, .n = n};
    enum code rc = refuse_present(s, e);
    return rc ? rc : make_set(s, &from, out, r, e);
}

enum code keys_make_planned(struct session *s, const enum seal_mechanism *try,
                            size_t n, const char *instance,
                            const struct key planned[HSM_USES],
                            const struct secret *hmac, struct keyset **out,
                            struct error *e)
{
    const struct recipe from = {.try = try,
                                .n = n,
                                .instance = instance,
                                .planned = planned,
                                .hmac = hmac};
    struct keyring ring = {.set = NULL};
    return make_set(s, &from, out, &ring, e);
}
