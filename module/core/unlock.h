/* unlock - from a keeper that knows nothing to one that can sign: PIN, pinned
 * HSM keys, sealed admin keys. Done at start, by login, and by itself when the
 * keeper was started again. One thread does it, others wait; no mutex is held
 * meanwhile.
 */
#ifndef HSMINT_CORE_UNLOCK_H
#define HSMINT_CORE_UNLOCK_H

#include "common/error.h"
#include "common/frame.h"
#include "common/json.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

struct core;

struct unlock {
    atomic_uint_fast64_t
        ready;            /* the keeper's generation that is ready, or 0 */
    atomic_uint pin;      /* PIN_* below, as the HSM last told */
    pthread_mutex_t lock; /* guards all below */
    pthread_cond_t changed;
    bool busy;            /* somebody unlocks */
    bool locked_by_hand;  /* until the next login */
    bool paused;          /* no keeper gets ready: pins are being put back */
    int escrow;           /* pipe with the PIN, held unread; -1 */
    int64_t failed_at_ms; /* monotonic; an attempt is repeated after … */
    struct error failure; /* … UNLOCK_RETRY_MS; until then this is told */
};
#define UNLOCK_INIT                                                            \
    {                                                                          \
        .lock = PTHREAD_MUTEX_INITIALIZER,                                     \
        .changed = PTHREAD_COND_INITIALIZER, .escrow = -1                      \
    }
#define UNLOCK_RETRY_MS 1000

enum { PIN_COUNT_LOW = 1, PIN_FINAL_TRY = 2, PIN_IS_LOCKED = 4 };
/* What the keeper described: its "pin" is remembered. */
void unlock_note_pin(struct core *c, json_t *hsm);
/* {count_low, final_try, locked}. Asks nobody. */
json_t *unlock_pin(struct core *c);

/* The PIN from pin_fd, or -1: as configured; then all the rest. Without
 * provisioned keys it ends after the login, with OK. */
MUST_CHECK enum code unlock_login(struct core *c, int pin_fd, bool force,
                                  struct error *e);
MUST_CHECK enum code unlock_lock(struct core *c, struct error *e);
/* ERR_LOCKED, ERR_HSM_*, ERR_KEEPER … when it cannot be made ready. */
MUST_CHECK enum code unlock_ready(struct core *c, uint64_t *generation,
                                  struct error *e);
/* Keys were made or checked outside (init): this generation is ready. */
void unlock_note_ready(struct core *c, uint64_t generation);
/* Why the last attempt failed, where none has succeeded since. */
bool unlock_failure(struct core *c, struct error *why);
/* Makes a keeper ready that was started again meanwhile, where that needs
 * nobody. false: it was ready, or nothing can be done now. */
bool unlock_again(struct core *c);
/* Somebody has to log in: nothing here can unlock by itself. */
bool unlock_is_locked(struct core *c);
/* The HSM's PIN is configured. */
bool unlock_has_source(const struct core *c);
/* The keeper ends, and none gets ready until unlock_go_on: nothing is signed,
 * sealed or opened in between, and nobody waits for it. */
void unlock_pause(struct core *c);
void unlock_go_on(struct core *c);
/* Other pins were stored: OK once the keeper works with them. */
MUST_CHECK enum code unlock_take_pins(struct core *c, struct error *e);
/* Pins of another HSM were stored: the keeper is ended, OK once another one works
 * with them. */
MUST_CHECK enum code unlock_afresh(struct core *c, struct error *e);
void unlock_clear(struct core *c);

/* keeper_call() on a keeper that is ready; made ready and asked once more
 * when it broke off early or had lost its login. For verbs that may be
 * repeated. *generation (may be NULL): who answered. */
MUST_CHECK enum code unlock_call(struct core *c, const struct frame *request,
                                 int deadline_ms, struct frame *reply,
                                 uint64_t *generation, struct error *e);

#endif
