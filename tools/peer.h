/* peer - who is on the other end of a socket. spec/POLICY.md, "Identity".
 *
 * All is as it was at connect, and stays so: groups changed later do not count,
 * and a connected socket that is passed on still speaks for whoever connected.
 */
#ifndef HSMINT_PEER_H
#define HSMINT_PEER_H

#include "common/wire.h"
#include "module/core/identity.h"

/* `peer` is wire_peer() of the same socket and stays the caller's. OK also for
 * a process that has ended or cannot be seen: the identity is then borrowed,
 * without unit and executable, and matches nothing by itself. *out is the
 * caller's (identity_clear). Waits for nobody. */
MUST_CHECK enum code peer_identify(int fd, const struct wire_peer *peer,
                                   struct identity *out, struct error *e);

#endif
