/* hsmrestore - the HSM is gone, hsmint.conf names another one: this instance gets
 * keys there, and goes on. `hsmint hsm restore`; spec/SEAL.md, "Another HSM".
 *
 *   make  keys of these versions and ids may be on the new HSM; nobody uses them
 *   done  they are pinned, and what the old ones sealed is let go
 *
 * One document of kind "hsm-restore", written before each; cut off anywhere, the
 * same command goes on. It stays when it is done: it tells what was lost, and
 * which organisations still have no admin key.
 */
#ifndef HSMINT_CORE_HSMRESTORE_H
#define HSMINT_CORE_HSMRESTORE_H

#include "module/core/core.h"

/* This organisation's admin key was lost with an HSM, and none was given since
 * (it has none now): *text says what to do. */
bool hsmrestore_waits(struct core *c, const char *org, char *text, size_t size);

/* ---- the log, for the notary ---- */
/* An HSM was lost, and no keeper has begun the log on the new one yet. */
MUST_CHECK enum code hsmrestore_is_new(struct core *c, bool *is,
                                       struct error *e);
MUST_CHECK enum code hsmrestore_begun(struct core *c, struct error *e);

#endif
