/* callrecord - the log's record of a call, as the daemon says it will be: is it
 * of the call that was signed? spec/AUDIT.md, kind "call". */
#ifndef HSMINT_CALLRECORD_H
#define HSMINT_CALLRECORD_H

#include "common/merkle.h"
#include "hsm/call.h"

#define CALLRECORD_MAX 65535 /* bytes of a line: c2sp.org/tlog-tiles */

/* ERR_NOT_LOGGED with the member that differs. *leaf: its hash. */
MUST_CHECK enum code callrecord_check(const void *line, size_t len,
                                      const struct call *c,
                                      struct merkle_hash *leaf,
                                      struct error *e);

#endif
