/* What the keys are for: sign, seal, verify, unseal, hash. */
#include "config.h"

#include "hsm/envelope.h"
#include "hsm/soft.h"
#include "hsm/state.h"

#include <openssl/core_names.h>
#include <openssl/params.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- sign ---- */

struct sign {
    enum hsm_use use;
    const uint8_t *digest;
    uint8_t *signature;
};

static enum code op_sign(struct hsm *h, struct session *s, void *arg,
                         struct error *e)
{
    struct sign *a = arg;
    return keyring_sign(s, &h->ring, a->use, a->digest, a->signature, e);
}

enum code hsm_sign(struct hsm *h, enum hsm_use use, const uint8_t digest[32],
                   uint8_t signature[64], struct error *e)
{
    if (use != HSM_BLOB && use != HSM_CALL && use != HSM_LOG)
        return error_set(e, ERR_INTERNAL, "HSM: no key to sign with: %d",
                         (int)use);
    struct sign a = {use, digest, signature};
    return hsm_run(h, NEED_READY, true, op_sign, &a, e);
}

/* A keyset never changes and is never freed: no session is needed. */
static enum code known_keys(struct hsm *h, const struct keyset **k,
                            struct error *e)
{
    *k = atomic_load(&h->keys);
    return *k ? OK
              : error_set(e, ERR_HSM_KEYS,
                          "HSM: no keys of hsmint yet: run `hsmint init`");
}

enum code hsm_keyid(struct hsm *h, enum hsm_use use, char id[64],
                    struct error *e)
{
    const struct keyset *k;
    enum code rc = known_keys(h, &k, e);
    if (!rc)
        snprintf(id, 64, "%s", k->keys[use < HSM_USES ? use : 0].keyid);
    return rc;
}

enum code hsm_public(struct hsm *h, enum hsm_use use,
                     uint8_t spki[HSM_SPKI_MAX], size_t *len, struct error *e)
{
    const struct keyset *k;
    enum code rc = known_keys(h, &k, e);
    if (rc)
        return rc;
    if (use >= HSM_USES || !k->keys[use].spki ||
        k->keys[use].spki_len > HSM_SPKI_MAX)
        return error_set(e, ERR_NOT_FOUND, "HSM: no public key of %s",
                         keys_use_name(use));
    memcpy(spki, k->keys[use].spki, k->keys[use].spki_len);
    *len = k->keys[use].spki_len;
    return OK;
}

struct sign_text {
    const void *text;
    size_t len;
    uint8_t *signature;
};

static enum code op_sign_text(struct hsm *h, struct session *s, void *arg,
                              struct error *e)
{
    struct sign_text *a = arg;
    return keyring_sign_ed25519(s, &h->ring, a->text, a->len, a->signature, e);
}

enum code hsm_sign_ed25519(struct hsm *h, const void *text, size_t len,
                           uint8_t signature[64], struct error *e)
{
    const struct keyset *k;
    struct sign_text a = {text, len, signature};
    enum code rc = known_keys(h, &k, e);
    if (rc)
        return rc;
    if (!keyset_has(k, HSM_LOG_ED25519))
        return error_set(e, ERR_NOT_FOUND, "HSM: no Ed25519 key of the log");
    return hsm_run(h, NEED_READY, true, op_sign_text, &a, e);
}

/* ---- the log's keys of before ---- */

static const struct old_key *find_co_signer(const struct keyset *k,
                                            enum hsm_use use)
{
    for (size_t i = 0; i < k->old_n; i++)
        if (k->old[i].role == OLD_SIGNS && k->old[i].key.use == use)
            return &k->old[i];
    return NULL;
}

static void tell_key(const struct key *k, struct hsm_co_signer *out)
{
    snprintf(out->label, sizeof out->label, "%s", k->label);
    memcpy(out->spki, k->spki, k->spki_len);
    out->len = k->spki_len;
}

static const struct old_key *find_before(const struct keyset *k,
                                         enum hsm_use use)
{
    const struct old_key *last = NULL;
    for (size_t i = 0; i < k->old_n; i++)
        if (k->old[i].key.use == use)
            last = &k->old[i];
    return last && last->role != OLD_DESTROYED ? last : NULL;
}

static enum code tell_signer(const struct old_key *old, enum hsm_use use,
                             struct hsm_co_signer *out, struct error *e)
{
    if (!old || old->key.spki_len > sizeof out->spki)
        return error_set(e, ERR_NOT_FOUND, "HSM: no %s key of before signs",
                         keys_use_name(use));
    tell_key(&old->key, out);
    return OK;
}

enum code hsm_old_log(struct hsm *h, size_t i, struct hsm_co_signer *out,
                      struct error *e)
{
    const struct keyset *k;
    enum code rc = known_keys(h, &k, e);
    if (rc)
        return rc;
    for (size_t at = 0; at < k->old_n; at++) {
        const struct key *old = &k->old[at].key;
        if (old->use != HSM_LOG || old->spki_len > sizeof out->spki || i-- > 0)
            continue;
        tell_key(old, out);
        return OK;
    }
    return error_set(e, ERR_NOT_FOUND, "HSM: the log had no other key");
}

enum code hsm_co_signer(struct hsm *h, enum hsm_use use,
                        struct hsm_co_signer *out, struct error *e)
{
    const struct keyset *k;
    enum code rc = known_keys(h, &k, e);
    return rc ? rc : tell_signer(find_co_signer(k, use), use, out, e);
}

enum code hsm_signer_before(struct hsm *h, enum hsm_use use,
                            struct hsm_co_signer *out, struct error *e)
{
    const struct keyset *k;
    enum code rc = known_keys(h, &k, e);
    return rc ? rc : tell_signer(find_before(k, use), use, out, e);
}

struct co_sign {
    const char *label;
    const void *data;
    size_t len;
    uint8_t *signature;
};

static enum code op_co_sign(struct hsm *h, struct session *s, void *arg,
                            struct error *e)
{
    struct co_sign *a = arg;
    const struct keyset *k = h->ring.set;
    for (size_t i = 0; i < k->old_n; i++) {
        if (k->old[i].role == OLD_SIGNS && h->ring.old[i] &&
            strcmp(k->old[i].key.label, a->label) == 0)
            return keys_sign(s, &k->old[i].key, h->ring.old[i], a->data, a->len,
                             a->signature, e);
    }
    return error_set(e, ERR_NOT_FOUND, "HSM: %s does not sign any more",
                     a->label);
}

enum code hsm_co_sign(struct hsm *h, const struct hsm_co_signer *by,
                      const void *data, size_t len, uint8_t signature[64],
                      struct error *e)
{
    struct co_sign a = {by->label, data, len, signature};
    return hsm_run(h, NEED_READY, true, op_co_sign, &a, e);
}

/* ---- good signatures, remembered ---- */

static uint8_t *verified_slot(struct hsm *h, const uint8_t digest[32])
{
    return h->verified[digest[0] % VERIFIED];
}

static bool verified_before(struct hsm *h, const uint8_t digest[32])
{
    (void)pthread_mutex_lock(&h->verified_lock);
    bool same = memcmp(verified_slot(h, digest), digest, 32) == 0;
    (void)pthread_mutex_unlock(&h->verified_lock);
    return same;
}

static void remember_verified(struct hsm *h, const uint8_t digest[32])
{
    (void)pthread_mutex_lock(&h->verified_lock);
    memcpy(verified_slot(h, digest), digest, 32);
    (void)pthread_mutex_unlock(&h->verified_lock);
}

/* The blob's signature is checked once: its whole bytes, signature included,
 * are then known by their digest. */
static enum code verify(struct hsm *h, const uint8_t *blob, size_t len,
                        struct blob *b, struct error *e)
{
    const struct keyset *k;
    uint8_t digest[32];
    enum code rc = known_keys(h, &k, e);
    if (rc)
        return rc;
    soft_sha256(blob, len, digest);
    if (verified_before(h, digest))
        return envelope_read(k, blob, len, b, e);
    rc = envelope_verify(k, blob, len, b, e);
    if (!rc)
        remember_verified(h, digest);
    return rc;
}

/* ---- seal, verify, unseal ---- */

struct make {
    const struct seal_subject *subject;
    const struct secret *plain;
    uint8_t **blob;
    size_t *len;
};

static enum code op_make(struct hsm *h, struct session *s, void *arg,
                         struct error *e)
{
    struct make *a = arg;
    return envelope_make(s, &h->ring, a->subject, a->plain, a->blob, a->len, e);
}

enum code hsm_seal(struct hsm *h, const struct seal_subject *s,
                   const struct secret *plain, uint8_t **blob, size_t *len,
                   struct error *e)
{
    if (s->kind < SEAL_ADMIN_KEY || s->kind > SEAL_VALUE)
        return error_set(e, ERR_INTERNAL, "seal: no such kind: %d",
                         (int)s->kind);
    struct make a = {s, plain, blob, len};
    return hsm_run(h, NEED_READY, true, op_make, &a, e);
}

enum code hsm_verify(struct hsm *h, const uint8_t *blob, size_t len,
                     struct seal_subject *s, struct error *e)
{
    struct blob b;
    enum code rc = verify(h, blob, len, &b, e);
    if (!rc)
        *s = b.subject;
    return rc;
}

struct open {
    const uint8_t *bytes;
    const struct blob *blob;
    struct secret **plain;
};

static enum code op_open(struct hsm *h, struct session *s, void *arg,
                         struct error *e)
{
    struct open *a = arg;
    if (!envelope_is_current(h->ring.set, a->blob))
        atomic_store(&h->opened_old, true);
    return envelope_open(s, &h->ring, a->bytes, a->blob, a->plain, e);
}

enum code hsm_unseal(struct hsm *h, const uint8_t *blob, size_t len,
                     struct seal_subject *s, struct secret **plain,
                     struct error *e)
{
    struct blob b;
    enum code rc = verify(h, blob, len, &b, e);
    if (rc)
        return rc;
    struct open a = {blob, &b, plain};
    rc = hsm_run(h, NEED_READY, true, op_open, &a, e);
    if (!rc)
        *s = b.subject;
    return rc;
}

/* ---- seal anew ---- */

bool hsm_is_current(struct hsm *h, const uint8_t *blob, size_t len)
{
    const struct keyset *k = atomic_load(&h->keys);
    struct blob b;
    return k && blob_parse(blob, len, &b, NULL) == OK &&
           envelope_is_current(k, &b);
}

struct reseal {
    const struct blob *blob;
    const uint8_t *bytes;
    uint8_t *out;
    size_t len;
};

/* Never hand out a blob that does not open to the same again. */
static enum code check_sealed(struct session *s, const struct keyring *r,
                              const struct reseal *a,
                              const struct secret *plain, struct error *e)
{
    struct blob b;
    SECRET again = NULL;
    enum code rc = envelope_verify(r->set, a->out, a->len, &b, e);
    if (!rc)
        rc = envelope_open(s, r, a->out, &b, &again, e);
    if (!rc && !secret_equal(plain, again))
        rc = error_set(e, ERR_HSM_FAILED,
                       "HSM: what was sealed anew does not open to the same");
    return rc;
}

static enum code op_reseal(struct hsm *h, struct session *s, void *arg,
                           struct error *e)
{
    struct reseal *a = arg;
    const struct keyring *r = &h->ring;
    SECRET plain = NULL;
    bool current = envelope_is_current(r->set, a->blob);
    if (!current)
        atomic_store(&h->opened_old, true);
    enum code rc = envelope_open(s, r, a->bytes, a->blob, &plain, e);
    if (rc || current)
        return rc;
    free(a->out); /* of a try that was cut off */
    a->out = NULL;
    rc = envelope_make(s, r, &a->blob->subject, plain, &a->out, &a->len, e);
    return rc ? rc : check_sealed(s, r, a, plain, e);
}

static enum code copy_blob(const uint8_t *blob, size_t len, uint8_t **out,
                           struct error *e)
{
    *out = malloc(len);
    if (!*out)
        return error_set(e, ERR_NOMEM, "no memory for a blob");
    memcpy(*out, blob, len);
    return OK;
}

enum code hsm_reseal(struct hsm *h, const uint8_t *blob, size_t len,
                     uint8_t **out, size_t *out_len, struct error *e)
{
    struct blob b;
    enum code rc = verify(h, blob, len, &b, e);
    if (!rc && b.subject.kind != SEAL_ADMIN_KEY && b.subject.kind != SEAL_VALUE)
        rc = error_set(e, ERR_SEAL, "the blob holds neither an admin key nor a "
                                    "minted one");
    if (rc)
        return rc;
    struct reseal a = {.blob = &b, .bytes = blob};
    rc = hsm_run(h, NEED_READY, true, op_reseal, &a, e);
    if (!rc && !a.out) {
        a.len = len;
        rc = copy_blob(blob, len, &a.out, e);
    }
    if (rc) {
        free(a.out);
        return rc;
    }
    *out = a.out;
    *out_len = a.len;
    return OK;
}

/* ---- random numbers ---- */

struct random {
    uint8_t *out;
    size_t len;
};

static enum code op_random(struct hsm *h, struct session *s, void *arg,
                           struct error *e)
{
    (void)h;
    struct random *a = arg;
    return HSM_CALL(s, e, "random numbers", C_GenerateRandom, a->out, a->len);
}

enum code hsm_random(struct hsm *h, uint8_t *out, size_t len, struct error *e)
{
    struct random a = {out, len};
    return hsm_run(h, NEED_TOKEN, true, op_random, &a, e);
}

/* ---- hmac ---- */

enum code hsm_hmac_key(struct hsm *h, struct secret **key, struct error *e)
{
    const struct keyset *k;
    struct seal_subject subject;
    enum code rc = known_keys(h, &k, e);
    if (!rc)
        rc = hsm_unseal(h, k->hmac, k->hmac_len, &subject, key, e);
    if (!rc && (subject.kind != SEAL_HMAC_KEY || secret_len(*key) != 32)) {
        secret_free(*key);
        *key = NULL;
        rc = error_set(e, ERR_HSM_KEYS, "pins: hmac holds no HMAC key");
    }
    return rc;
}

static void mac_ctx_freep(EVP_MAC_CTX **ctx)
{
    EVP_MAC_CTX_free(*ctx);
}

static EVP_MAC_CTX *mac_new(const struct secret *key)
{
    EVP_MAC *mac = EVP_MAC_fetch(NULL, "HMAC", NULL);
    EVP_MAC_CTX *ctx = mac ? EVP_MAC_CTX_new(mac) : NULL;
    EVP_MAC_free(mac);
    char sha256[] = "SHA256";
    OSSL_PARAM params[] = {
        OSSL_PARAM_construct_utf8_string(OSSL_MAC_PARAM_DIGEST, sha256, 0),
        OSSL_PARAM_construct_end()};
    if (ctx &&
        EVP_MAC_init(ctx, secret_data(key), secret_len(key), params) == 1)
        return ctx;
    EVP_MAC_CTX_free(ctx);
    return NULL;
}

/* A NULL key begins anew with the one that is there. */
static enum code mac_one(EVP_MAC_CTX *ctx, const void *data, size_t len,
                         uint8_t mac[32], struct error *e)
{
    size_t n = 0;
    if (!ctx || EVP_MAC_init(ctx, NULL, 0, NULL) != 1 ||
        EVP_MAC_update(ctx, data, len) != 1 ||
        EVP_MAC_final(ctx, mac, &n, 32) != 1 || n != 32)
        return error_set(e, ERR_NOMEM, "HMAC failed");
    return OK;
}

enum code hsm_hmac(struct hsm *h, const void *data, size_t len, uint8_t mac[32],
                   struct error *e)
{
    SECRET key = NULL;
    enum code rc = hsm_hmac_key(h, &key, e);
    if (rc)
        return rc;
    EVP_MAC_CTX *ctx CLEANUP(mac_ctx_freep) = mac_new(key);
    return mac_one(ctx, data, len, mac, e);
}

enum code hsm_mac(const struct secret *key, const void *data, size_t len,
                  uint8_t mac[32], struct error *e)
{
    EVP_MAC_CTX *ctx CLEANUP(mac_ctx_freep) = mac_new(key);
    return mac_one(ctx, data, len, mac, e);
}

enum code hsm_hmac_many(struct hsm *h, const char *const *texts, size_t n,
                        uint8_t (*macs)[32], struct error *e)
{
    SECRET key = NULL;
    enum code rc = hsm_hmac_key(h, &key, e);
    if (rc)
        return rc;
    EVP_MAC_CTX *ctx CLEANUP(mac_ctx_freep) = mac_new(key);
    for (size_t i = 0; !rc && i < n; i++)
        rc = mac_one(ctx, texts[i], strlen(texts[i]), macs[i], e);
    return rc;
}
