/* keyring - the public keys that a log is verified with: the log's own, those
 * of witnesses, those of calls.
 *
 * Keys of the log come from the person who verifies, or else from the log's
 * own `keys` records; keys of calls come from those records always. The log's
 * signature covers those, and does not say that they are true.
 */
#ifndef HSMINT_AUDIT_KEYRING_H
#define HSMINT_AUDIT_KEYRING_H

#include "common/json.h"
#include "common/note.h"

#define KEYRING_MAX 512 /* of each kind */

struct keyring;

MUST_CHECK enum code keyring_new(struct keyring **out, struct error *e);
void keyring_free(struct keyring *k); /* takes NULL */
void keyring_freep(struct keyring **k);

/* A key that was given: of the log (from then on those of records count for
 * checkpoints only when one introduces them), or of a witness. */
MUST_CHECK enum code keyring_give(struct keyring *k, const struct note_key *key,
                                  struct error *e);
bool keyring_was_given(const struct keyring *k);
/* The members `log` ([vkey]) and `call` ([{keyid, public_key}]) of a record.
 * ERR_INVALID. Known ones are passed over; ERR_SEAL: another key under a known
 * keyid. */
MUST_CHECK enum code keyring_learn(struct keyring *k, json_t *record,
                                   struct error *e);
/* How many keys of calls are known, and the keyid of each, in the order in
 * which they came. */
size_t keyring_calls(const struct keyring *k);
const char *keyring_call_id(const struct keyring *k, size_t i);
/* The record with this seq says that the key is compromised (`key`: its label,
 * `fingerprint`): from that record on nothing that it signed holds. */
MUST_CHECK enum code keyring_compromise(struct keyring *k, int64_t seq,
                                        const char *label,
                                        const char *fingerprint,
                                        struct error *e);
/* The seq of that record, of the key with this keyid; 0: there was none. */
int64_t keyring_compromised_call(const struct keyring *k, const char *keyid);
/* A good signature of a key of the log, and none of one that a record says to be
 * compromised which the checkpoint covers. ERR_SEAL: bad, or none. */
MUST_CHECK enum code keyring_check_note(const struct keyring *k,
                                        const struct note *n,
                                        const char *origin, struct error *e);
/* A checkpoint that holds introduces keys: those of the log's records that have
 * signed it beside a key that was given count from then on like that one. */
void keyring_introduce(struct keyring *k, const struct note *n,
                       const char *origin);
/* A good cosignature of each witness that was given. ERR_SEAL. */
MUST_CHECK enum code keyring_check_witnesses(const struct keyring *k,
                                             const struct note *n,
                                             struct error *e);
/* `signature`: 64 bytes r‖s over `base`. ERR_NOT_FOUND: unknown keyid;
 * ERR_SEAL. */
MUST_CHECK enum code keyring_check_call(const struct keyring *k,
                                        const char *keyid, const void *base,
                                        size_t len, const uint8_t signature[64],
                                        struct error *e);

#endif
