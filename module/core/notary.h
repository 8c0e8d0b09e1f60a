/* notary - the thread that has the log signed: checkpoints, anchors, and what
 * follows when the store is not the one that was signed last. spec/AUDIT.md.
 *
 * The keeper signs only a tree that extends the last one and holds every call
 * that it executed; the notary shows it the leaves. It alone speaks the
 * keeper's verbs about the log, so none of them meets another.
 */
#ifndef HSMINT_CORE_NOTARY_H
#define HSMINT_CORE_NOTARY_H

#include "module/core/core.h"

/* True while the store may be a copy or an old state: nothing that the store
 * does not know may be deleted. *why: text. */
bool notary_rolled_back(struct core *c, struct error *why);
/* Compares store and anchor now (before reconcile deletes): OK, or
 * ERR_ROLLED_BACK; any other error: they cannot be compared, and nothing may
 * be deleted either. */
MUST_CHECK enum code notary_compare(struct core *c, struct error *e);

/* An administrator has looked at the rollback. The reason is recorded.
 * ERR_NOT_FOUND: there is none. */
MUST_CHECK enum code core_accept_rollback(struct core *c,
                                          const struct caller *by,
                                          const char *reason, struct error *e);

#endif
