/* ledger - the keeper's knowledge of the audit log: the right edge of the last
 * tree that it signed, and the records of calls that it made and has not seen
 * in a tree since. spec/KEEPER.md, "The ledger"; spec/AUDIT.md, "Forced audit".
 *
 * Thread-safe. One lock, held for memory and the ledger's file, never across
 * the HSM; what uses the HSM takes turns.
 */
#ifndef HSMINT_LEDGER_H
#define HSMINT_LEDGER_H

#include "common/settings.h"
#include "hsm/anchor.h"
#include "hsm/leaves.h"

#define LEDGER_OPEN_MS (60 * 1000) /* a call may be unseen so long */

struct ledger;

/* `dir`: of its file; outlives us. Reads nothing yet: the HSM may be locked. */
MUST_CHECK enum code ledger_new(struct ledger **out, struct hsm *h,
                                const char *dir, int64_t anchor_ms,
                                struct error *e);

void ledger_free(struct ledger *l); /* takes NULL; nobody uses it any more */

struct ledger_state {
    bool begun; /* it has a tree to extend */
    char origin[NOTE_NAME_MAX];
    uint32_t epoch;
    uint64_t size, lost, resumed;
    struct merkle_hash root;
    size_t outstanding;
    int64_t oldest_ms; /* its age */
    bool anchored;
    struct anchor anchor;
};
MUST_CHECK enum code ledger_look(struct ledger *l, struct ledger_state *s,
                                 struct error *e);

/* A right edge: tree->full of the bits that are set in tree->size. *note:
 * signed, caller frees; it is the anchor then. */
/* The first start of the log, or its next epoch. What is outstanding is given
 * up, and told in each checkpoint from then on. On an HSM in the place of one
 * that is gone, neither is: the file of before goes on where `tree` is its, and
 * `before` (or NULL), the last checkpoint that the daemon has, counts epochs. */
MUST_CHECK enum code ledger_begin(struct ledger *l, const char *base,
                                  const struct merkle *tree,
                                  const char *before, char **note,
                                  struct error *e);
/* Go on from the anchor, where the file is gone. ERR_NOT_LOGGED: another
 * tree. */
MUST_CHECK enum code ledger_resume(struct ledger *l, const struct merkle *tree,
                                   char **note, struct error *e);

/* Leaves from index `from` on, behind the signed tree or behind those that
 * were shown since. ERR_INVALID: they are elsewhere. */
MUST_CHECK enum code ledger_extend(struct ledger *l, uint64_t from,
                                   const struct merkle_hash *leaves, size_t n,
                                   struct error *e);
/* Sign the tree of what was shown. ERR_NOT_LOGGED: a call is missing that was
 * made before the last checkpoint was signed. `anchor`: write it to the HSM in
 * any case. */
MUST_CHECK enum code ledger_sign(struct ledger *l, bool anchor, char **note,
                                 uint64_t *size, bool *anchored,
                                 struct error *e);

/* Where the record of a ceremony is in the tree that was signed last: it has to
 * be among its last leaves, and behind any that was taken before. *index: from
 * 0. ERR_NOT_LOGGED. */
struct ledger_place {
    struct checkpoint checkpoint;
    uint64_t index;
};
MUST_CHECK enum code ledger_take(struct ledger *l,
                                 const struct merkle_hash *leaf,
                                 struct ledger_place *out, struct error *e);

/* Grows with each ledger_begin and ledger_resume: a call that was signed
 * before is not made after it. */
uint32_t ledger_era(struct ledger *l);
/* Before a call is sent: remember its record. ERR_NOT_LOGGED: too many are
 * outstanding, or one for too long. */
MUST_CHECK enum code ledger_remember(struct ledger *l, uint32_t era,
                                     const struct merkle_hash *leaf,
                                     struct error *e);

#endif
