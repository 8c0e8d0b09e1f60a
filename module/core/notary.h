/* notary - the thread that has the log signed: checkpoints, anchors, and what
 * follows when the store is not the one that was signed last. spec/AUDIT.md.
 *
 * The keeper signs only a tree that extends the last one and holds the calls
 * that it made; the notary shows it the leaves (core/checkpoint.h). A keeper
 * that was started again is attached first: its tree and the anchor on the HSM
 * are compared with the store's. No call is made by one that is not.
 */
#ifndef HSMINT_CORE_NOTARY_H
#define HSMINT_CORE_NOTARY_H

#include "common/note.h"
#include "module/core/core.h"

#include <pthread.h>
#include <stdatomic.h>

struct notary {
    pthread_t thread;
    pthread_mutex_t lock; /* guards all below but what is said to be another's */
    pthread_cond_t changed;
    bool started, stop;
    atomic_int fresh;     /* records since the last look at the store */
    uint64_t asked, done; /* rounds */
    int64_t due_ms;       /* monotonic; the next round that nobody asks for */
    int64_t rested_ms;    /* … that records or calls ask for, at the earliest */
    /* Calls that the keeper may remember: entered - covered. */
    uint64_t entered; /* that may reach it */
    uint64_t logged;  /* whose records are committed */
    uint64_t covered; /* whose records are in a signed tree */
    uint64_t attached; /* the keeper's generation that goes on from our tree */
    struct error failure; /* of the last round; code OK: it went well */
    int failures;         /* rounds in a row that failed */
    bool wants_anchor;    /* the next round writes one */
    bool refused;         /* calls were, for want of a checkpoint */
    bool rolled_back;
    char why[ERROR_TEXT_MAX];
    char origin[NOTE_NAME_MAX]; /* "" until a keeper was attached */
    /* The thread's own. */
    uint64_t size; /* of the tree that the keeper has */
    bool by_time;  /* nobody asked for this round */
    bool is_last;  /* the round at the daemon's end is under way */
    bool met;      /* the first checkpoint of this daemon was signed */
    bool told_failed, told_stop;
    int64_t failing_ms, logged_ms; /* monotonic; 0: not */
    char *unsaved;                 /* a note that the store did not take */
    uint64_t unsaved_size;
};
#define NOTARY_INIT                                                            \
    {                                                                          \
        .lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER \
    }
/* Of the keeper's bound of 1024: calls wait before it is reached. */
#define NOTARY_CALLS_MAX 768

MUST_CHECK enum code notary_start(struct core *c, struct error *e);
/* With a last checkpoint, anchored, where the HSM answers within seconds. */
void notary_stop(struct core *c);

/* ---- for those who write records, and for the gate ---- */
/* A record was added, if its transaction comes to its end. */
void notary_note(struct core *c);
/* Before a call is signed: waits for a keeper that is attached and has room.
 * ERR_NOT_LOGGED: it has none, and why. *generation: the keeper's. One of the
 * two below has to follow. */
MUST_CHECK enum code notary_enter(struct core *c, uint64_t *generation,
                                  struct error *e);
void notary_logged(struct core *c); /* the intent is durable */
void notary_left(struct core *c);   /* there is none */
/* The keeper refused a call with ERR_NOT_LOGGED. */
void notary_refused(struct core *c);
/* HSM and keeper are ready, or may be: look now. */
void notary_wake(struct core *c);

/* ---- for all ---- */
/* A checkpoint of all that is in the store by now; `anchor`: on the HSM, too,
 * whose memory wears. */
MUST_CHECK enum code notary_sign(struct core *c, bool anchor, struct error *e);
/* The log's new key takes over: a checkpoint that the old one signs beside it is
 * kept, of *size records, and is the anchor. ERR_NOT_LOGGED: the old one has not
 * signed; ERR_HSM_FAILED: the anchor on the HSM is an older one; ERR_IO: the
 * store has not kept that checkpoint, and the next round makes another. */
MUST_CHECK enum code notary_hand_over(struct core *c, uint64_t *size,
                                      struct error *e);
/* Is the last checkpoint that is kept signed by a key of before, too? For
 * notary_hand_over (core/auditkeys.c). */
MUST_CHECK enum code notary_check_old(struct core *c, const char *note,
                                      const char *origin, struct error *e);
/* True while the store may be a copy or an old state: nothing that the store
 * does not know may be deleted. *why (may be NULL): text. */
bool notary_rolled_back(struct core *c, struct error *why);
/* Compares store and anchor now (before reconcile deletes): OK, or
 * ERR_ROLLED_BACK; any other error: they cannot be compared, and nothing may
 * be deleted either. */
MUST_CHECK enum code notary_compare(struct core *c, struct error *e);
/* The least size of a tree that has still to be compared with. */
MUST_CHECK enum code notary_anchored(struct core *c, uint64_t *size,
                                     struct error *e);
/* The log's name, of its present epoch; "" before `hsmint init`. */
MUST_CHECK enum code notary_origin(struct core *c, char origin[NOTE_NAME_MAX],
                                   struct error *e);
/* [vkey] of the HSM's keys that sign the log of this name, as pinned. */
MUST_CHECK enum code notary_keys(struct core *c, const char *origin,
                                 json_t **out, struct error *e);
/* The same of pins that are not stored yet. */
MUST_CHECK enum code notary_keys_of(const json_t *pins, const char *origin,
                                    json_t **out, struct error *e);
/* An administrator has looked at the rollback. The reason is recorded.
 * ERR_NOT_FOUND: there is none. */
MUST_CHECK enum code core_accept_rollback(struct core *c,
                                          const struct caller *by,
                                          const char *reason, struct error *e);

#endif
