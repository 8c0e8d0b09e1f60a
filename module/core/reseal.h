/* reseal - a walk over all that is sealed: what a key of before sealed is sealed
 * anew by the one in use, in the keeper. The organisations' admin keys first,
 * with those that their rotations have and the HSM's own copies; then the minted
 * keys of leases, in batches. All else goes on: an organisation's configuration
 * is held for the moment, leases are changed only where they still have what was
 * read. It may be broken off anywhere and begun anew.
 */
#ifndef HSMINT_CORE_RESEAL_H
#define HSMINT_CORE_RESEAL_H

#include "module/core/core.h"
#include "module/core/sealed.h"

#include <stdbool.h>

struct reseal_walk {
    bool begun;
    bool prove; /* the admin keys are opened, too, where nothing is to be done */
    char label[SEALED_LABEL_MAX]; /* of the seal key in use */
    size_t org;                   /* the next one */
    char lease[32];               /* behind this one; "": the first */
    int64_t of;                   /* how many there were when it began */
    int64_t seen, anew;           /* looked at; sealed anew */
    int64_t left;                 /* could not be */
    int64_t busy; /* organisations that somebody else works on: look again */
    char what[256];               /* the first of these, why, and what helps */
};

/* Begins, where it has not begun. */
MUST_CHECK enum code reseal_begin(struct core *c, struct reseal_walk *w,
                                  bool prove, struct error *e);
/* Goes on until the end (*over), or until_ms (monotonic). What one blob fails
 * with is counted in `left`; an error is something else, and the walk goes on
 * from there when it is called again. */
MUST_CHECK enum code reseal_walk(struct core *c, const struct caller *by,
                                 struct reseal_walk *w, int64_t until_ms,
                                 bool *over, struct error *e);
/* A key of before opens still: there may be something that it sealed. */
MUST_CHECK enum code reseal_is_wanted(struct core *c, bool *wanted,
                                      struct error *e);
/* How much is sealed by the key of this label. */
MUST_CHECK enum code reseal_count(struct core *c, const char *label, int64_t *n,
                                  struct error *e);

#endif
