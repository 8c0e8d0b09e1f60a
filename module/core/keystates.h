/* keystates - the states of all keys of the HSM's, as pins and rotation have
 * them: written down, with their dates, and recorded in the log (`key-state`)
 * in the transaction of what changes them. keystate.h has the table.
 */
#ifndef HSMINT_CORE_KEYSTATES_H
#define HSMINT_CORE_KEYSTATES_H

#include "module/core/core.h"
#include "module/core/keystate.h"

#include <pthread.h>
#include <stdatomic.h>

/* What the keeper last read back of them. */
struct keystates {
    pthread_mutex_t lock;
    json_t *attributes; /* by label: {id, local, …} as the HSM said, or null */
    atomic_bool any_compromised; /* some key is, or is about to be */
};
#define KEYSTATES_INIT {.lock = PTHREAD_MUTEX_INITIALIZER}
void keystates_clear(struct core *c);
/* Takes the attributes out of a keeper's reply, where they are in it. */
void keystates_heard(struct core *c, json_t *reply);

/* In the caller's transaction, behind what changes pins or rotation. `pins`:
 * those that are in force from then on; NULL: they are what they were. `by`
 * NULL: nobody asked. */
MUST_CHECK enum code keystates_note(struct core *c, struct store_tx *tx,
                                    const struct caller *by, const char *pins,
                                    const char *reason, struct error *e);
/* The keys in use of "seal", "call" or "log" are compromised, an administrator
 * says: told in the log by whoever calls. Again is OK; the first time counts.
 * Their labels are added to `declared`. */
MUST_CHECK enum code keystates_declare(struct store_tx *tx, const char *which,
                                       json_t *declared, struct error *e);
/* Is a key in use of these declared compromised? */
bool keystates_is_declared(struct core *c, const char *which);
/* For an instance that has keys and no documents of them: an older version had
 * none. Its dates are those that are known. */
MUST_CHECK enum code keystates_begin(struct core *c, struct error *e);

/* [{label, use, version, id, fingerprint, state, since_ms, declared_ms, purpose,
 * missing, attributes, dates: [{state, at_ms, exact, reason}]}], those in use
 * first, then those being made, then those of before, the newest first. No HSM
 * is asked. Empty before init. */
MUST_CHECK enum code keystates_json(struct core *c, json_t **out,
                                    struct error *e);
/* The state of the key in use for this ("call"). ERR_NOT_FOUND. */
MUST_CHECK enum code keystates_in_use(struct core *c, const char *use,
                                      struct keystate_doc *d, struct error *e);

/* ERR_NOT_SIGNED: the key of this keyid ("LABEL:…") is compromised, as the
 * transaction sees it. */
MUST_CHECK enum code keystates_check_signer(struct core *c, struct store_tx *tx,
                                            const char *keyid,
                                            struct error *e);
/* When the last compromised key of this use was replaced: till then it was used.
 * 0: none was. */
MUST_CHECK enum code keystates_compromised_ms(struct core *c, const char *use,
                                              int64_t *ms, struct error *e);

#endif
