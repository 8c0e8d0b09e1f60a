/* checkpoint - the keeper's verbs about the log from the daemon's side, and the
 * comparison of its trees with the store's: spec/KEEPER.md, "The ledger".
 */
#ifndef HSMINT_CORE_CHECKPOINT_H
#define HSMINT_CORE_CHECKPOINT_H

#include "common/note.h"
#include "module/core/core.h"

struct checkpoint_state { /* log-state */
    bool begun;             /* the keeper has a tree that it extends */
    struct checkpoint tree; /* origin "": it knows no log */
    int64_t outstanding;    /* calls that are in no signed tree yet */
    bool anchored;
    struct checkpoint anchor;
};
MUST_CHECK enum code checkpoint_look(struct core *c, uint64_t generation,
                                     struct checkpoint_state *s,
                                     struct error *e);
/* Is that tree the beginning of the store's? ERR_ROLLED_BACK: no. */
MUST_CHECK enum code checkpoint_compare(struct core *c,
                                        const struct checkpoint *with,
                                        const char *whose, struct error *e);
/* The anchor, and what the keeper remembers where that is not older. */
MUST_CHECK enum code checkpoint_compare_all(struct core *c,
                                            const struct checkpoint_state *s,
                                            struct error *e);

/* By a pinned key that signs the log (core/auditkeys.c). */
MUST_CHECK enum code checkpoint_verify(struct core *c, const struct note *n,
                                       const char *origin, struct error *e);

struct checkpoint_note {
    char *note;
    struct checkpoint checkpoint;
};
void checkpoint_note_clear(struct checkpoint_note *n);
/* What they give was compared with the store: its size and root. `before`: the
 * last checkpoint, where the HSM that signed it is gone; or NULL. */
MUST_CHECK enum code checkpoint_begin(struct core *c, uint64_t generation,
                                      const char *base, uint64_t size,
                                      const char *before,
                                      struct checkpoint_note *n,
                                      struct error *e);
MUST_CHECK enum code checkpoint_resume(struct core *c, uint64_t generation,
                                       uint64_t size, struct checkpoint_note *n,
                                       struct error *e);
/* The leaves from `from` up to `size`. */
MUST_CHECK enum code checkpoint_sign(struct core *c, uint64_t generation,
                                     uint64_t from, uint64_t size, bool anchor,
                                     struct checkpoint_note *n,
                                     struct error *e);

#endif
