/* keystates - the states of all keys of the HSM's, as pins and rotation have
 * them: written down, with their dates, and recorded in the log (`key-state`)
 * in the transaction of what changes them. keystate.h has the table.
 */
#ifndef HSMINT_CORE_KEYSTATES_H
#define HSMINT_CORE_KEYSTATES_H

#include "module/core/core.h"
#include "module/core/keystate.h"

#include <pthread.h>

/* What the keeper last read back of them. */
struct keystates {
    pthread_mutex_t lock;
    json_t *attributes; /* by label: {id, local, …} as the HSM said, or null */
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
/* The key in use is compromised, an administrator says: told in the log by
 * whoever calls. Again is OK; the first time counts. */
MUST_CHECK enum code keystates_declare(struct store_tx *tx, const char *use,
                                       struct error *e);
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

#endif
