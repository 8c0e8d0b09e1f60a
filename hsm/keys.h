/* keys - the keys on the HSM, and what was pinned of them: four, and an Ed25519
 * one of the log where the HSM can.
 *
 * A keyset is what the daemon stores ("pins") and gives at each start: labels,
 * ids, fingerprints and public keys, the probe and the sealed HMAC key, and the
 * keys that were in use before. It does not change once made; a rotation makes
 * another one (rekey.h). Handles belong to one initialisation of the HSM;
 * keys_check() finds them anew and trusts nothing but the pins. */
#ifndef HSMINT_KEYS_H
#define HSMINT_KEYS_H

#include "hsm/blob.h"
#include "hsm/pool.h"
#include "hsm/seal.h"

#include <openssl/evp.h>

#define KEY_ID 16
#define KEY_VERSION_MAX 255 /* its last byte */

struct key {
    enum hsm_use use;
    char label[BLOB_LABEL_MAX];
    uint32_t version;
    uint8_t id[KEY_ID];   /* random, the version in its last byte */
    char fingerprint[65]; /* SHA-256 of the public key; AES: of the probe */
    char keyid[64];
    uint8_t *spki; /* SubjectPublicKeyInfo; NULL for AES */
    size_t spki_len;
    EVP_PKEY *public;
};

enum old_role {    /* what a key that was followed by another is still for */
    OLD_KEPT,      /* its public half verifies what it signed */
    OLD_OPENS,     /* seal, blob: it opens what it sealed, while it is there */
    OLD_SIGNS,     /* log: it signs each checkpoint beside the new one */
    OLD_DESTROYED, /* it is not on the HSM any more */
    OLD_ROLES
};
struct old_key {
    enum old_role role;
    struct key key;
};
#define KEYS_OLD_MAX 64

struct keyset {
    char instance[33];
    enum seal_mechanism mechanism;
    struct key keys[HSM_USES];
    struct old_key old[KEYS_OLD_MAX]; /* the oldest first */
    size_t old_n;
    struct keyset *before; /* that this one took the place of. Owned */
    uint8_t *probe; /* a blob that must still open */
    size_t probe_len;
    uint8_t *hmac; /* the sealed HMAC key */
    size_t hmac_len;
};

/* A keyset with the handles of this initialisation. */
struct keyring {
    const struct keyset *set;
    CK_OBJECT_HANDLE handles[HSM_USES];
    CK_OBJECT_HANDLE old[KEYS_OLD_MAX]; /* 0: not there, or of no use */
};

static inline bool keyset_has(const struct keyset *k, enum hsm_use use)
{
    return k->keys[use].label[0] != '\0';
}

void keyset_free(struct keyset *k);
void keyset_freep(struct keyset **k);

/* ERR_HSM_KEYS for pins that are not whole. */
MUST_CHECK enum code keyset_parse(const json_t *pins, struct keyset **out,
                                  struct error *e);
/* hsm_provision's *out. */
MUST_CHECK enum code keyset_json(const struct keyset *k, json_t **out,
                                 struct error *e);
/* The "keys" array of it alone. NULL without memory. */
json_t *keyset_keys_json(const struct keyset *k);
/* Fill fingerprint, keyid and `public` from the spki. */
MUST_CHECK enum code key_complete(struct key *k, struct error *e);
/* The AES key's fingerprint comes from the probe. */
void keyset_fingerprint_probe(struct keyset *k);

const char *keys_use_name(enum hsm_use use);
bool keys_find_use(const char *name, enum hsm_use *use);
/* OK where `next` may take the place of `now`: the same instance, and no key of
 * an earlier version. ERR_HSM_KEYS. */
MUST_CHECK enum code keyset_follows(const struct keyset *now,
                                    const struct keyset *next,
                                    struct error *e);
MUST_CHECK enum code keyset_dup(const struct keyset *k, struct keyset **out,
                                struct error *e);
/* The key of this use becomes an old one, and `next` (emptied) has its place.
 * ERR_LIMIT: there are too many. */
MUST_CHECK enum code keyset_replace(struct keyset *k, struct key *next,
                                    enum old_role role, struct error *e);
void key_clear(struct key *k);
void keys_label(enum hsm_use use, uint32_t version, char label[BLOB_LABEL_MAX]);

struct seal_key keyring_seal_key(const struct keyring *r);
/* EC: `len` is 32, a digest. Ed25519: a whole text. */
MUST_CHECK enum code keys_sign(struct session *s, const struct key *k,
                               CK_OBJECT_HANDLE handle, const void *data,
                               size_t len, uint8_t signature[64],
                               struct error *e);
MUST_CHECK enum code keyring_sign(struct session *s, const struct keyring *r,
                                  enum hsm_use use, const uint8_t digest[32],
                                  uint8_t signature[64], struct error *e);

MUST_CHECK enum code keyring_sign_ed25519(struct session *s,
                                          const struct keyring *r,
                                          const void *text, size_t len,
                                          uint8_t signature[64],
                                          struct error *e);

/* How many objects of any class carry the label. */
MUST_CHECK enum code keys_count(struct session *s, const char *label, size_t *n,
                                struct error *e);
/* Find each pinned key once and only once, with its id and the attributes of
 * a key that was made here and never left, and let it prove itself. */
MUST_CHECK enum code keys_check(struct session *s, struct keyring *r,
                                struct error *e);

/* Make the keys, probe and HMAC key. `try`: mechanisms, best first. What
 * was made is destroyed again on failure. */
MUST_CHECK enum code keys_make(struct session *s,
                               const enum seal_mechanism *try, size_t n,
                               struct keyset **out, struct keyring *r,
                               struct error *e);
/* Give a keyset, which nobody else has yet, the log's Ed25519 key. OK without
 * one: the HSM cannot, or another object has its name; why goes to the log. */
MUST_CHECK enum code keys_add_ed25519(struct session *s, struct keyset *k,
                                      struct keyring *r, struct error *e);

/* A key of this use, version, label and id, of the set's mechanism. It is there,
 * with its public half, and is not checked yet. */
MUST_CHECK enum code keys_make_one(struct session *s,
                                   enum seal_mechanism mechanism, struct key *k,
                                   CK_OBJECT_HANDLE *handle, struct error *e);
/* A new probe, and `hmac` sealed, with the ring's keys, for `k`, its set. */
MUST_CHECK enum code keys_make_blobs(struct session *s, struct keyset *k,
                                     const struct keyring *r,
                                     const struct secret *hmac,
                                     struct error *e);
/* An HSM in software keeps its keys in files that it does not sync. What is told
 * of them, and then kept, must not outlive them when the power goes. One that
 * says it is hardware has none: and to sync all file systems may take as long as
 * the slowest of them. */
bool keys_are_files(struct session *s);
/* Best in no use of the pool: it may take long. */
void keys_settle(bool are_files);
/* The keys of an instance again, on another HSM: of the uses, versions and ids
 * of `planned` (log-ed25519 where the HSM can), `hmac` sealed by them. What was
 * made is destroyed again on failure. */
MUST_CHECK enum code keys_make_planned(struct session *s,
                                       const enum seal_mechanism *try, size_t n,
                                       const char *instance,
                                       const struct key planned[HSM_USES],
                                       const struct secret *hmac,
                                       struct keyset **out, struct error *e);
/* A key that is to be made: {use, version, id}. */
MUST_CHECK enum code keys_planned(const json_t *one, struct key *k,
                                  struct error *e);
/* What an attempt that was cut off left of a planned key goes. ERR_HSM_KEYS:
 * something else goes by its name. */
MUST_CHECK enum code keys_clear_left(struct session *s, const struct key *k,
                                     struct error *e);
/* All objects of the label. */
MUST_CHECK enum code keys_destroy(struct session *s, const char *label,
                                  struct error *e);
/* Its CKA_ID. ERR_HSM_KEYS: another. */
MUST_CHECK enum code keys_check_id(struct session *s, const struct key *k,
                                   CK_OBJECT_HANDLE handle, struct error *e);

/* Puts what the HSM says of a key: {local, never_extractable, always_sensitive,
 * extractable}, and `all`: what it may be used for, too; null where it says
 * nothing. */
MUST_CHECK enum code keys_tell(struct session *s, const char *label,
                               CK_OBJECT_HANDLE object, bool all, json_t *out,
                               struct error *e);

/* ---- the rules of a key's attributes: one table to make and to check ---- */

enum key_kind {
    KEY_AES = 1,
    KEY_EC = 2,
    KEY_EC_PUBLIC = 4,
    KEY_RSA = 8,
    KEY_RSA_PUBLIC = 16
};
enum rule_how {
    RULE_NEEDED, /* in each template; must be readable and right */
    RULE_STRICT, /* in the template where the HSM takes it; must not be wrong */
    RULE_CHECKED, /* set by the HSM itself; must be readable and right */
    RULE_WISHED   /* in the template where the HSM takes it; not checked */
};
struct key_rule {
    CK_ATTRIBUTE_TYPE type;
    const char *name;
    unsigned kinds;
    bool value;
    enum rule_how how;
};
extern const struct key_rule key_rules[];
extern const size_t key_rules_count;

#endif
