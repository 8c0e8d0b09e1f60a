/* keystate - the state of a key of the HSM's by NIST SP 800-57 part 1, section
 * 7, and the days on which it changed: one document of kind "hsm-key" a key,
 * its name the label. spec/SEAL.md, "States".
 *
 * A state is derived, never chosen: from the place that the pins or a rotation
 * give the key, and from whether it was declared compromised. "Suspended" is
 * not used: a key that is not to sign for a while is rotated.
 */
#ifndef HSMINT_CORE_KEYSTATE_H
#define HSMINT_CORE_KEYSTATE_H

#include "common/error.h"
#include "common/json.h"
#include "module/store/store.h"

enum keystate {
    KEYSTATE_PRE_ACTIVATION,
    KEYSTATE_ACTIVE,
    KEYSTATE_DEACTIVATED,
    KEYSTATE_COMPROMISED,
    KEYSTATE_DESTROYED,
    KEYSTATE_DESTROYED_COMPROMISED,
    KEYSTATES
};
const char *keystate_name(enum keystate s); /* "pre-activation" */
bool keystate_find(const char *name, enum keystate *s);
bool keystate_is_destroyed(enum keystate s);

enum keyplace {
    KEYPLACE_PLANNED,   /* by a rotation: it may be on the HSM, and is not used */
    KEYPLACE_IN_USE,    /* the pins have it among `keys` */
    KEYPLACE_SIGNS,     /* these: among those of before, by their role */
    KEYPLACE_OPENS,
    KEYPLACE_KEPT,
    KEYPLACE_DESTROYED,
    KEYPLACE_NONE,      /* nowhere any more: what was planned is not made */
    KEYPLACES
};
/* A key that was declared compromised and is in use still is active until
 * another has its place, which is begun at once: what it signs till then was
 * made by this keeper. */
enum keystate keystate_of(enum keyplace place, bool compromised);
/* The place of an old key's role ("kept"); false: there is no such role. */
bool keyplace_of_role(const char *role, enum keyplace *place);
/* What a key is still for: "signs calls", "verifies". `use`: "call". */
const char *keyplace_purpose(const char *use, enum keyplace place);

/* ---- the document ---- */

#define KEYSTATE_LABEL_MAX 64
#define KEYSTATE_DATES_MAX 32

struct keystate_date {
    enum keystate state;
    int64_t at_ms; /* wall */
    bool exact;    /* false: it was so by then at the latest */
    char reason[64];
};

struct keystate_doc {
    char label[KEYSTATE_LABEL_MAX], use[16];
    char id[33], fingerprint[65]; /* "" while they are not known */
    int64_t version;
    int64_t declared_ms; /* compromised, by an administrator; 0: not */
    struct keystate_date dates[KEYSTATE_DATES_MAX]; /* the last is the present */
    size_t n;
};
/* The present state; `n` is at least 1. */
const struct keystate_date *keystate_now(const struct keystate_doc *d);
/* Another date; of too many, the second goes: the first is its making. */
void keystate_add(struct keystate_doc *d, const struct keystate_date *date);
/* When it was in that state first; NULL: never. */
const struct keystate_date *keystate_first(const struct keystate_doc *d,
                                           enum keystate state);

/* ERR_SCHEMA: another version wrote it. */
MUST_CHECK enum code keystate_parse(struct keystate_doc *d, const char *label,
                                    const char *body, struct error *e);
/* Its body; NULL: no memory. The caller frees. */
char *keystate_format(const struct keystate_doc *d);

#define KEYSTATE_KIND "hsm-key"
/* ERR_NOT_FOUND */
MUST_CHECK enum code keystate_get(struct store *s, const char *label,
                                  struct keystate_doc *d, struct error *e);
MUST_CHECK enum code keystate_tx_get(struct store_tx *tx, const char *label,
                                     struct keystate_doc *d, struct error *e);
MUST_CHECK enum code keystate_put(struct store_tx *tx,
                                  const struct keystate_doc *d,
                                  struct error *e);
typedef enum code (*keystate_fn)(const struct keystate_doc *d, void *ctx,
                                 struct error *e);
/* By label. */
MUST_CHECK enum code keystate_each(struct store *s, keystate_fn fn, void *ctx,
                                   struct error *e);

#endif
