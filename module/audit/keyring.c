/* keyring - see keyring.h. */
#include "config.h"

#include "module/audit/keyring.h"

#include "common/base64.h"
#include "common/text.h"

#include <openssl/ec.h>
#include <openssl/evp.h>
#include <openssl/x509.h>
#include <stdlib.h>
#include <string.h>

#define KEYID_MAX 128
#define FINGERPRINT_SHOWN 16 /* of it, in a keyid: spec/SEAL.md */

struct call_key {
    char keyid[KEYID_MAX];
    EVP_PKEY *key;
};

struct mark {
    int64_t seq;
    char label[64], fingerprint[65];
};

struct keyring {
    struct mark marks[KEYRING_MAX]; /* compromised ones */
    size_t marks_n;
    struct note_key logs[KEYRING_MAX];
    size_t logs_n;
    bool given;
    struct note_key others[KEYRING_MAX]; /* of records, where some were given */
    size_t others_n;
    struct note_key witnesses[KEYRING_MAX];
    size_t witnesses_n;
    struct call_key calls[KEYRING_MAX];
    size_t calls_n;
};

enum code keyring_new(struct keyring **out, struct error *e)
{
    *out = calloc(1, sizeof **out);
    return *out ? OK : error_set(e, ERR_NOMEM, "keys of a log");
}

void keyring_free(struct keyring *k)
{
    if (!k)
        return;
    for (size_t i = 0; i < k->calls_n; i++)
        EVP_PKEY_free(k->calls[i].key);
    free(k);
}

void keyring_freep(struct keyring **k)
{
    keyring_free(*k);
}

/* ---- keys of the log ---- */

static enum code add(struct note_key keys[KEYRING_MAX], size_t *n,
                     const struct note_key *key, struct error *e)
{
    for (size_t i = 0; i < *n; i++)
        if (memcmp(keys[i].id, key->id, sizeof key->id) == 0 &&
            strcmp(keys[i].name, key->name) == 0)
            return OK;
    if (*n == KEYRING_MAX)
        return error_set(e, ERR_LIMIT, "more than %d keys of a log",
                         KEYRING_MAX);
    keys[(*n)++] = *key;
    return OK;
}

enum code keyring_give(struct keyring *k, const struct note_key *key,
                       struct error *e)
{
    if (key->algorithm == NOTE_COSIGNATURE)
        return add(k->witnesses, &k->witnesses_n, key, e);
    if (!k->given)
        k->logs_n = 0;
    k->given = true;
    return add(k->logs, &k->logs_n, key, e);
}

bool keyring_was_given(const struct keyring *k)
{
    return k->given;
}

/* The last of the origin's parts may be a number: it counts rollbacks. */
static bool is_of(const struct note_key *key, const char *origin)
{
    size_t n = strlen(key->name);
    if (strncmp(origin, key->name, n) != 0)
        return false;
    return !origin[n] ||
           (origin[n] == '/' && origin[n + 1] &&
            strspn(origin + n + 1, "0123456789") == strlen(origin + n + 1));
}

/* *found: a good signature of this key, by the origin's name. */
static enum code check_one(const struct note_key *known, const struct note *n,
                           const char *origin, bool *found, struct error *e)
{
    struct note_key key;
    *found = false;
    if (!is_of(known, origin))
        return OK;
    enum code rc = note_key(&key, origin, known->algorithm, known->key,
                            known->key_len, e);
    return rc ? rc : note_verify(n, &key, found, e);
}

/* ---- compromised ones ---- */

enum code keyring_compromise(struct keyring *k, int64_t seq, const char *label,
                             const char *fingerprint, struct error *e)
{
    struct mark *m = &k->marks[k->marks_n];
    for (size_t i = 0; i < k->marks_n; i++)
        if (strcmp(k->marks[i].fingerprint, fingerprint) == 0)
            return OK;
    if (k->marks_n == KEYRING_MAX || strlen(label) >= sizeof m->label ||
        strlen(fingerprint) + 1 != sizeof m->fingerprint)
        return error_set(e, ERR_INVALID,
                         "a compromised key has no fingerprint, or there are "
                         "more than %d",
                         KEYRING_MAX);
    m->seq = seq;
    strcpy(m->label, label);
    strcpy(m->fingerprint, fingerprint);
    k->marks_n++;
    return OK;
}

int64_t keyring_compromised_call(const struct keyring *k, const char *keyid)
{
    const char *colon = strrchr(keyid, ':');
    for (size_t i = 0; colon && i < k->marks_n; i++) {
        const struct mark *m = &k->marks[i];
        size_t len = (size_t)(colon - keyid);
        if (strlen(m->label) == len && memcmp(m->label, keyid, len) == 0 &&
            strlen(colon + 1) == FINGERPRINT_SHOWN &&
            memcmp(m->fingerprint, colon + 1, FINGERPRINT_SHOWN) == 0)
            return m->seq;
    }
    return 0;
}

/* Of the SubjectPublicKeyInfo, as pins have it. */
static bool fingerprint_of(const struct note_key *key, char hex[65])
{
    static const uint8_t head[] = {0x30, 0x2a, 0x30, 0x05, 0x06, 0x03,
                                   0x2b, 0x65, 0x70, 0x03, 0x21, 0x00};
    uint8_t spki[sizeof key->key + sizeof head], digest[32];
    size_t n = key->algorithm == NOTE_ED25519 ? sizeof head : 0;
    memcpy(spki, head, n);
    memcpy(spki + n, key->key, key->key_len);
    if (EVP_Digest(spki, n + key->key_len, digest, NULL, EVP_sha256(), NULL) !=
        1)
        return false;
    text_hex(hex, digest, sizeof digest);
    return true;
}

static const struct mark *mark_of(const struct keyring *k,
                                  const struct note_key *key)
{
    char hex[65];
    if (k->marks_n == 0 || !fingerprint_of(key, hex))
        return NULL;
    for (size_t i = 0; i < k->marks_n; i++)
        if (strcmp(k->marks[i].fingerprint, hex) == 0)
            return &k->marks[i];
    return NULL;
}

/* A checkpoint that covers the record says that its own key is compromised. */
static enum code check_marks(const struct keyring *k,
                             const struct note_key *keys, size_t keys_n,
                             const struct note *n, const char *origin,
                             struct error *e)
{
    struct checkpoint c;
    if (k->marks_n == 0 || checkpoint_parse(&c, n->text, n->text_len, NULL))
        return OK;
    for (size_t i = 0; i < keys_n; i++) {
        const struct mark *m = mark_of(k, &keys[i]);
        bool found = false;
        if (!m || c.size < (uint64_t)m->seq)
            continue;
        if (check_one(&keys[i], n, origin, &found, NULL) == OK && found)
            return error_set(e, ERR_SEAL,
                             "it is signed by %s, which is compromised since "
                             "record %lld",
                             m->label, (long long)m->seq);
    }
    return OK;
}

static enum code none_known(const struct keyring *k, const char *origin,
                            struct error *e)
{
    for (size_t i = 0; i < k->logs_n; i++) {
        const struct mark *m = mark_of(k, &k->logs[i]);
        if (m)
            return error_set(e, ERR_SEAL,
                             "no signature of a known key of %s: %s is "
                             "compromised since record %lld, and introduces no "
                             "other; take the key after it from where the log "
                             "is made (`hsmint audit key`)",
                             origin, m->label, (long long)m->seq);
    }
    return error_set(e, ERR_SEAL, "no signature of a known key of %s", origin);
}

void keyring_introduce(struct keyring *k, const struct note *n,
                       const char *origin)
{
    bool found;
    if (keyring_check_note(k, n, origin, NULL))
        return;
    for (size_t i = 0; i < k->others_n; i++)
        if (check_one(&k->others[i], n, origin, &found, NULL) == OK && found &&
            add(k->logs, &k->logs_n, &k->others[i], NULL))
            return; /* there is no room for more */
}

enum code keyring_check_note(const struct keyring *k, const struct note *n,
                             const char *origin, struct error *e)
{
    bool good = false;
    for (size_t i = 0; i < k->logs_n; i++) {
        bool found;
        enum code rc = check_one(&k->logs[i], n, origin, &found, e);
        if (rc)
            return rc;
        good = good || found;
    }
    if (!good)
        return none_known(k, origin, e);
    enum code rc = check_marks(k, k->logs, k->logs_n, n, origin, e);
    return rc ? rc : check_marks(k, k->others, k->others_n, n, origin, e);
}

enum code keyring_check_witnesses(const struct keyring *k,
                                  const struct note *n, struct error *e)
{
    for (size_t i = 0; i < k->witnesses_n; i++) {
        bool found;
        enum code rc = note_verify(n, &k->witnesses[i], &found, e);
        if (rc)
            return rc;
        if (!found)
            return error_set(e, ERR_SEAL, "witness %s has not signed it",
                             k->witnesses[i].name);
    }
    return OK;
}

/* ---- keys of calls ---- */

static enum code add_call(struct keyring *k, const char *keyid,
                          const char *public_key, struct error *e)
{
    uint8_t spki[512];
    const unsigned char *at = spki;
    size_t len;
    if (strlen(keyid) >= KEYID_MAX ||
        !base64_decode(public_key, strlen(public_key), spki, sizeof spki, &len))
        return error_set(e, ERR_INVALID, "key %s is no public key", keyid);
    EVP_PKEY *key = d2i_PUBKEY(NULL, &at, (long)len);
    if (!key || !EVP_PKEY_is_a(key, "EC")) {
        EVP_PKEY_free(key);
        return error_set(e, ERR_INVALID, "key %s is no public key", keyid);
    }
    for (size_t i = 0; i < k->calls_n; i++) {
        if (strcmp(k->calls[i].keyid, keyid) != 0)
            continue;
        bool same = EVP_PKEY_eq(k->calls[i].key, key) == 1;
        EVP_PKEY_free(key);
        return same ? OK : error_set(e, ERR_SEAL, "two keys are %s", keyid);
    }
    if (k->calls_n == KEYRING_MAX) {
        EVP_PKEY_free(key);
        return error_set(e, ERR_LIMIT, "more than %d keys of calls",
                         KEYRING_MAX);
    }
    strcpy(k->calls[k->calls_n].keyid, keyid);
    k->calls[k->calls_n++].key = key;
    return OK;
}

size_t keyring_calls(const struct keyring *k)
{
    return k->calls_n;
}

const char *keyring_call_id(const struct keyring *k, size_t i)
{
    return k->calls[i].keyid;
}

static enum code learn_log(struct keyring *k, const struct note_key *key,
                           struct error *e)
{
    if (key->algorithm == NOTE_COSIGNATURE)
        return error_set(e, ERR_INVALID, "log: a witness's key");
    return k->given ? add(k->others, &k->others_n, key, e)
                    : add(k->logs, &k->logs_n, key, e);
}

static enum code learn_call(struct keyring *k, json_t *one, struct error *e)
{
    const char *keyid = "", *public_key = "";
    const struct json_field fields[] = {
        {"keyid", FIELD_STRING, true, &keyid, NULL},
        {"public_key", FIELD_STRING, true, &public_key, NULL},
    };
    enum code rc = json_decode(one, JSON_FIELDS(fields), true, "key", e);
    return rc ? rc : add_call(k, keyid, public_key, e);
}

enum code keyring_learn(struct keyring *k, json_t *record, struct error *e)
{
    json_t *logs = NULL, *calls = NULL, *one;
    const struct json_field fields[] = {
        {"log", FIELD_ARRAY, true, &logs, NULL},
        {"call", FIELD_ARRAY, true, &calls, NULL},
    };
    size_t i;
    enum code rc = json_decode(record, JSON_FIELDS(fields), true, "keys", e);
    json_array_foreach(calls, i, one)
    {
        if (rc == OK)
            rc = learn_call(k, one, e);
    }
    json_array_foreach(logs, i, one)
    {
        struct note_key key;
        const char *text = json_string_value(one);
        if (rc == OK)
            rc = note_key_parse(&key, text ? text : "", e);
        if (rc == OK)
            rc = learn_log(k, &key, e);
    }
    return rc;
}

static void sig_freep(ECDSA_SIG **sig)
{
    ECDSA_SIG_free(*sig);
}

static void md_ctx_freep(EVP_MD_CTX **ctx)
{
    EVP_MD_CTX_free(*ctx);
}

/* r‖s as DER, which OpenSSL wants. False: no memory, no numbers. */
static bool to_der(const uint8_t signature[64], uint8_t der[80], size_t *len)
{
    CLEANUP(sig_freep) ECDSA_SIG *sig = ECDSA_SIG_new();
    BIGNUM *r = BN_bin2bn(signature, 32, NULL);
    BIGNUM *s = BN_bin2bn(signature + 32, 32, NULL);
    if (!sig || !r || !s || ECDSA_SIG_set0(sig, r, s) != 1) {
        BN_free(r);
        BN_free(s);
        return false;
    }
    int n = i2d_ECDSA_SIG(sig, &der);
    *len = n > 0 ? (size_t)n : 0;
    return n > 0;
}

enum code keyring_check_call(const struct keyring *k, const char *keyid,
                             const void *base, size_t len,
                             const uint8_t signature[64], struct error *e)
{
    uint8_t der[80];
    size_t der_len, i = 0;
    while (i < k->calls_n && strcmp(k->calls[i].keyid, keyid) != 0)
        i++;
    if (i == k->calls_n)
        return error_set(e, ERR_NOT_FOUND, "no record introduced key %s",
                         keyid);
    CLEANUP(md_ctx_freep) EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    if (!ctx || !to_der(signature, der, &der_len) ||
        EVP_DigestVerifyInit(ctx, NULL, EVP_sha256(), NULL, k->calls[i].key) !=
            1)
        return error_set(e, ERR_NOMEM, "check of a call's signature");
    return EVP_DigestVerify(ctx, der, der_len, base, len) == 1
               ? OK
               : error_set(e, ERR_SEAL,
                           "the signature is not that of key %s over this "
                           "call",
                           keyid);
}
