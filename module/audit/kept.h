/* kept - the earlier checkpoints of a copy in tiles: each is of the log as it
 * was then, so a history that was rewritten shows.
 */
#ifndef HSMINT_AUDIT_KEPT_H
#define HSMINT_AUDIT_KEPT_H

#include "module/audit/keyring.h"

struct kept;

/* Of the directory's `checkpoints`; none is no error. */
MUST_CHECK enum code kept_open(struct kept **out, const char *dir,
                               struct error *e);
void kept_free(struct kept *k); /* takes NULL */
/* The size of the next one, in order; UINT64_MAX: no more. */
uint64_t kept_next(const struct kept *k);
/* That one, against the tree of its size (NULL: not) and with the keys (NULL:
 * not), to which it introduces others; goes on to the next. ERR_SEAL: it is another's; ERR_INVALID, and what
 * reading it fails with. */
MUST_CHECK enum code kept_check(struct kept *k, const struct merkle *tree,
                                struct keyring *keys, struct error *e);
void kept_rewind(struct kept *k); /* to the first */

#endif
