/* hsm - the keeper's view of the HSM: log in, keys, seal, sign.
 *
 * Loaded by the keeper only, one PKCS#11 module by absolute path through
 * p11-kit. Thread-safe; sessions come from a bounded pool. An HSM that goes
 * away gives ERR_HSM_ABSENT and is found again by the next call once it is
 * back (C_Finalize, C_Initialize, find slot, log in anew with the PIN that the
 * configuration names, or ERR_LOCKED). Every CK_RV passes one wrapper, which
 * names function, code and object in the error.
 */
#ifndef HSMINT_HSM_H
#define HSMINT_HSM_H

#include "common/error.h"
#include "common/json.h"
#include "common/secret.h"
#include "common/settings.h"

#include <stdbool.h>
#include <stdint.h>

struct hsm;

enum hsm_use {      /* one key each, labels "hsmint-<use>-<version>" */
    HSM_SEAL,       /* AES-256, or RSA-3072 where GCM is not to be had */
    HSM_BLOB,       /* EC P-256: signs sealed blobs */
    HSM_CALL,       /* EC P-256: signs Admin API calls */
    HSM_LOG,        /* EC P-256: signs checkpoints */
    HSM_LOG_ED25519, /* signs them, too, where the HSM can: witnesses ask for
                        it. Instances of before it was have none */
    HSM_USES
};

/* Loads nothing yet; a missing module shows at the first call. */
MUST_CHECK enum code hsm_new(struct hsm **out, const struct settings *s,
                             struct error *e);
void hsm_free(struct hsm *h);

/* State "absent", "locked" (not logged in), "unprovisioned", "ready"; maker,
 * model, serial, label, firmware; PIN flags; keys with fingerprints; seal
 * mechanism; sessions open and allowed. Never fails for an absent HSM. */
MUST_CHECK enum code hsm_describe(struct hsm *h, json_t **out,
                                  struct error *e);

/* PIN rules of spec/KEEPER.md. pin NULL: from the configured source. When
 * already logged in, checks against the verifier only. *by_hsm: the HSM itself
 * was asked. `force`: an administrator said `hsmint hsm unlock`.
 * ERR_PIN_WRONG, ERR_PIN_HELD, ERR_PIN_LOCKED, ERR_HSM_ABSENT. */
MUST_CHECK enum code hsm_login(struct hsm *h, const struct secret *pin,
                               bool force, bool *by_hsm, struct error *e);
MUST_CHECK enum code hsm_logout(struct hsm *h, struct error *e);

/* create: make the keys; with pins, HSM_LOG_ED25519 only, where they have none
 * and the HSM can (any other that is missing is ERR_HSM_KEYS): *out has other
 * pins then. pins NULL: none yet. *out: {"instance",
 * "mechanism", "keys": [{use, label, id, version, fingerprint, public_key}],
 * "pins": {…}}; pins is what the daemon stores and gives again at each start.
 * Checks LOCAL, NEVER_EXTRACTABLE, ALWAYS_SENSITIVE, single use, fingerprint,
 * duplicates. Holds the sealed HMAC key too. */
MUST_CHECK enum code hsm_provision(struct hsm *h, bool create,
                                   const json_t *pins, json_t **out,
                                   struct error *e);
/* What the HSM says now of each key of these pins, those of before too (NULL:
 * of the pins in use): {label: {id (hex), local, never_extractable,
 * always_sensitive, extractable}}. A member is null where the HSM does not
 * say, and so is the whole of a key that is not there. */
MUST_CHECK enum code hsm_attributes(struct hsm *h, const json_t *pins,
                                    json_t **out, struct error *e);
bool hsm_ready(struct hsm *h); /* logged in and provisioned */

/* ---- rotation of the HSM's keys: spec/SEAL.md ---- */
/* `which`: "seal" (and the key that signs what it sealed), "call", "log" (both
 * of it). *keys: [{use, version, id}], what is to be made; nothing is yet. */
MUST_CHECK enum code hsm_rekey_plan(struct hsm *h, const char *which,
                                    json_t **keys, struct error *e);
/* Make them, anew where an attempt that was cut off left some. *out: as of
 * hsm_provision, with pins in which the old keys are such; all goes on with
 * the old ones until hsm_provision is given those. compromised: then the old
 * ones sign nothing, not even beside the new. After an error keys may be left:
 * hsm_rekey_clear. */
MUST_CHECK enum code hsm_rekey_make(struct hsm *h, const char *which,
                                    const json_t *plan, bool compromised,
                                    json_t **out, struct error *e);

/* Destroys what an attempt to make them left: what has a planned name and id.
 * OK: nothing of it is on the HSM. ERR_INVALID: one of them is pinned. */
MUST_CHECK enum code hsm_rekey_clear(struct hsm *h, const json_t *plan,
                                     struct error *e);

/* Destroys a key of before that is of no use any more: not one that this process
 * has worked with, or opened something with. Again is OK. *out:
 * as of hsm_provision, with pins that say so. ERR_NOT_FOUND, ERR_INVALID. */
MUST_CHECK enum code hsm_destroy(struct hsm *h, const char *label, json_t **out,
                                 struct error *e);

/* ---- another HSM in the place of one that is gone: spec/SEAL.md ---- */
/* `pins`: of the one that is gone. Logged in is enough. ERR_EXISTS: it is not,
 * keys of the pins are here; ERR_HSM_KEYS: this token has been used by hsmint.
 * *keys as of hsm_rekey_plan; those of `before` (or NULL), a plan whose keys may
 * be here already. */
MUST_CHECK enum code hsm_restore_plan(struct hsm *h, const json_t *pins,
                                      const json_t *before, json_t **keys,
                                      struct error *e);
/* Makes them, anew where an attempt that was cut off left some; `hmac` is sealed
 * by them, NULL: a new one. *out: as of hsm_provision. Nothing is used before
 * hsm_provision is given those pins. */
MUST_CHECK enum code hsm_restore_make(struct hsm *h, const json_t *pins,
                                      json_t *plan, const struct secret *hmac,
                                      json_t **out, struct error *e);

/* Raw r||s over a SHA-256 digest (ecdsa-p256-sha256). HSM_BLOB, _CALL, _LOG. */
MUST_CHECK enum code hsm_sign(struct hsm *h, enum hsm_use use,
                              const uint8_t digest[32], uint8_t signature[64],
                              struct error *e);
/* "hsmint-call-1:<16 hex of fingerprint>": keyid of signatures. */
MUST_CHECK enum code hsm_keyid(struct hsm *h, enum hsm_use use, char id[64],
                               struct error *e);

/* HSM_LOG_ED25519 over the whole text. ERR_NOT_FOUND: there is none. */
MUST_CHECK enum code hsm_sign_ed25519(struct hsm *h, const void *text,
                                      size_t len, uint8_t signature[64],
                                      struct error *e);
/* The log's key of before that signs beside the one in use, until it is
 * destroyed. ERR_NOT_FOUND: there is none, or no more of this use. */
#define HSM_SPKI_MAX 128
struct hsm_co_signer {
    char label[64];
    uint8_t spki[HSM_SPKI_MAX];
    size_t len;
};
MUST_CHECK enum code hsm_co_signer(struct hsm *h, enum hsm_use use,
                                   struct hsm_co_signer *out, struct error *e);
/* The log's keys of before, whatever became of them: the i-th ECDSA one.
 * ERR_NOT_FOUND: there are no more. */
MUST_CHECK enum code hsm_old_log(struct hsm *h, size_t i,
                                 struct hsm_co_signer *out, struct error *e);
/* The last one before the one in use, whether it signs beside it or, being
 * compromised, does not: what it left on the HSM is ours until the one in use has
 * taken its place there. ERR_NOT_FOUND: there is none, or it is destroyed. */
MUST_CHECK enum code hsm_signer_before(struct hsm *h, enum hsm_use use,
                                       struct hsm_co_signer *out,
                                       struct error *e);
/* As hsm_sign (`len` is 32, a digest) or hsm_sign_ed25519, with that key.
 * ERR_NOT_FOUND: it is not on the HSM any more. */
MUST_CHECK enum code hsm_co_sign(struct hsm *h, const struct hsm_co_signer *by,
                                 const void *data, size_t len,
                                 uint8_t signature[64], struct error *e);
/* The public key, SubjectPublicKeyInfo. Not HSM_SEAL. ERR_NOT_FOUND. */
MUST_CHECK enum code hsm_public(struct hsm *h, enum hsm_use use,
                                uint8_t spki[HSM_SPKI_MAX], size_t *len,
                                struct error *e);

/* ---- sealed blobs, spec/SEAL.md ---- */
enum seal_kind { SEAL_ADMIN_KEY = 1, SEAL_HMAC_KEY = 2, SEAL_VALUE = 3 };
#define SEAL_TEXT_MAX 256
struct seal_subject { /* what the blob is bound to (additional data) */
    enum seal_kind kind;
    uint32_t version;                    /* grows with each sealing */
    char org[SEAL_TEXT_MAX];             /* hsmint's name of the organisation */
    char key_id[SEAL_TEXT_MAX];          /* key_…; or the lease id */
    char endpoint[SEAL_TEXT_MAX];        /* the only base it may be sent to */
    char organization_id[SEAL_TEXT_MAX]; /* OpenAI-Organization; or "" */
};
#define SEAL_BLOB_MAX 65536
MUST_CHECK enum code hsm_seal(struct hsm *h, const struct seal_subject *s,
                              const struct secret *plain, uint8_t **blob,
                              size_t *len, struct error *e);
/* Check format and signature and tell the subject; opens nothing. */
MUST_CHECK enum code hsm_verify(struct hsm *h, const uint8_t *blob, size_t len,
                                struct seal_subject *s, struct error *e);
/* Verify and open. The caller compares the subject first or after. */
MUST_CHECK enum code hsm_unseal(struct hsm *h, const uint8_t *blob, size_t len,
                                struct seal_subject *s, struct secret **plain,
                                struct error *e);

/* Sealed by the key in use, not by one of before; not verified. */
bool hsm_is_current(struct hsm *h, const uint8_t *blob, size_t len);
/* An admin key or a minted one, sealed anew by the key in use for the same
 * subject; what came of it was opened and compared. One of the key in use is
 * opened, and comes back as it is. */
MUST_CHECK enum code hsm_reseal(struct hsm *h, const uint8_t *blob, size_t len,
                                uint8_t **out, size_t *out_len,
                                struct error *e);

/* Private CKO_DATA objects, application "hsmint". put: the new one is made
 * before older ones of the label go. get: of several, all are given to fn. */
MUST_CHECK enum code hsm_data_put(struct hsm *h, const char *label,
                                  const uint8_t *data, size_t len,
                                  struct error *e);
typedef enum code (*hsm_data_fn)(const uint8_t *data, size_t len, void *ctx,
                                 struct error *e);
MUST_CHECK enum code hsm_data_get(struct hsm *h, const char *label,
                                  hsm_data_fn fn, void *ctx, struct error *e);
MUST_CHECK enum code hsm_data_delete(struct hsm *h, const char *label,
                                     struct error *e);

/* From the token's generator, without a login. */
MUST_CHECK enum code hsm_random(struct hsm *h, uint8_t *out, size_t len,
                                struct error *e);

/* The HMAC key itself: for its escrow alone. */
MUST_CHECK enum code hsm_hmac_key(struct hsm *h, struct secret **key,
                                  struct error *e);
/* HMAC-SHA256 under a key that was given. */
MUST_CHECK enum code hsm_mac(const struct secret *key, const void *data,
                             size_t len, uint8_t mac[32], struct error *e);
/* HMAC-SHA256 under the sealed HMAC key, unwrapped for this call only. */
MUST_CHECK enum code hsm_hmac(struct hsm *h, const void *data, size_t len,
                              uint8_t mac[32], struct error *e);
/* Many at once for one unwrap. */
MUST_CHECK enum code hsm_hmac_many(struct hsm *h, const char *const *texts,
                                   size_t n, uint8_t (*macs)[32],
                                   struct error *e);

#endif
