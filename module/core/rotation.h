/* rotation - the steps of one rotation of an admin key, as the store has them:
 * documents of kind "rotation", written before each step. An organisation has
 * one for the key that is being made, and one for each key that is to go, so
 * that a service that does not let one go holds up no rotation.
 *
 *   make     a key of this name may be at the service, its value unknown
 *   prove    it is sealed here and is being tried
 *   retire   it is the organisation's key; the old one is deleted
 *   confirm  the service says that the old one is gone; it is tried
 *   drop     a key of ours that is of no use is deleted
 *   done     no document
 */
#ifndef HSMINT_CORE_ROTATION_H
#define HSMINT_CORE_ROTATION_H

#include "common/error.h"
#include "common/json.h"
#include "module/store/store.h"

#include <stdbool.h>

enum rotation_state {
    ROTATION_MAKE,
    ROTATION_PROVE,
    ROTATION_RETIRE,
    ROTATION_CONFIRM,
    ROTATION_DROP,
    ROTATION_DONE,
    ROTATION_STATES
};
enum rotation_event {
    ROTATION_MADE,    /* the service answered, the keeper sealed the key */
    ROTATION_FOUND,   /* by its name: it was made, and its value is lost */
    ROTATION_NOTHING, /* for sure: refused, not sent, or never arrived */
    ROTATION_WORKS,   /* the new key was accepted, and is in use from here */
    ROTATION_USELESS, /* it was not, for too long */
    ROTATION_GONE,    /* the key that was to go is not there any more */
    ROTATION_DEAD,    /* and it opens nothing */
    ROTATION_KEPT,    /* an organisation uses it (again): it stays */
    ROTATION_EVENTS
};
const char *rotation_state_name(enum rotation_state s);
/* ERR_INTERNAL for an event that cannot be in this state. */
MUST_CHECK enum code rotation_next(enum rotation_state state,
                                   enum rotation_event event,
                                   enum rotation_state *next, struct error *e);

#define ROTATION_DOCUMENT_MAX 200 /* "ORG", or "ORG KEY-ID" of what is to go */

struct rotation {
    char document[ROTATION_DOCUMENT_MAX]; /* as it is stored; "": it is not */
    char org[64];
    char cause[16]; /* "command", or as schedule.h has it */
    enum rotation_state state;
    char name[128];   /* of the new key, unique */
    char new_id[132]; /* "" until known */
    char old_id[132];
    uint8_t *sealed; /* the new key; NULL until made. Owned */
    size_t sealed_len;
    uint8_t *old_sealed; /* to see it refused. Owned */
    size_t old_sealed_len;
    int64_t expires_ms; /* of the new key; 0: never */
    int64_t begun_ms;   /* this state, by steady.h */
    int64_t due_ms;     /* when to act again, by steady.h */
    int64_t tries;      /* in this state, in vain */
    char error[256];    /* of the last one */
};
void rotation_clear(struct rotation *r);
#define ROTATION CLEANUP(rotation_clear) struct rotation

/* By a document's name; that of an organisation is the key that is being made.
 * ERR_NOT_FOUND: there is none. */
MUST_CHECK enum code rotation_load(struct store *s, const char *document,
                                   struct rotation *r, struct error *e);
/* Begun later than now: it cannot be told when, so it is. */
bool rotation_is_due(const struct rotation *r, int64_t now_ms);
/* {state, new, old, cause, tries, error}; NULL: no memory. */
json_t *rotation_json(const struct rotation *r);
/* ERR_EXISTS: a key is being made. */
MUST_CHECK enum code rotation_none(struct store *s, const char *org,
                                   struct error *e);
/* In ROTATION_DONE the document is deleted. Where the state gives it another
 * name it moves: say so with rotation_saved() once that is committed. */
MUST_CHECK enum code rotation_save(struct store_tx *tx,
                                   const struct rotation *r, struct error *e);
void rotation_saved(struct rotation *r);
/* An administrator gave another key: a new one that was being tried is not
 * taken any more, and goes. */
MUST_CHECK enum code rotation_supersede(struct store_tx *tx, const char *org,
                                        struct error *e);
/* All of an organisation, or of all (NULL). */
typedef enum code (*rotation_fn)(const struct rotation *r, void *ctx,
                                 struct error *e);
MUST_CHECK enum code rotation_each(struct store *s, const char *org,
                                   rotation_fn fn, void *ctx, struct error *e);

#endif
