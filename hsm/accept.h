/* accept - the connection by which a daemon asks for a keeper of another user:
 * one connection, one keeper process. spec/KEEPER.md, "A keeper of its own
 * user".
 */
#ifndef HSMINT_ACCEPT_H
#define HSMINT_ACCEPT_H

#include "common/error.h"
#include "common/handover.h"
#include "common/settings.h"

#include <sys/types.h>

/* Accept=yes of systemd, and of our own --listen: LISTEN_FDS=1, LISTEN_PID
 * this process, descriptor 3 a connected AF_UNIX stream. To be asked before
 * the environment is cleared. */
#define ACCEPT_FD 3
MUST_CHECK enum code accept_check_environment(struct error *e);

/* [daemon] user as a number; ERR_CONFIG where there is no such user. */
MUST_CHECK enum code accept_daemon_uid(const struct settings *s, uid_t *uid,
                                       struct error *e);
/* Is the peer on `sock` [daemon] user? ERR_DENIED. */
MUST_CHECK enum code accept_check_peer(int sock, const struct settings *s,
                                       struct error *e);
/* The peer's channels into *h. */
MUST_CHECK enum code accept_channels(const struct settings *s,
                                     struct handover *h, struct error *e);
/* Tell the peer that we serve; from now on the process ends as soon as the
 * connection does, whatever its other threads do. */
MUST_CHECK enum code accept_ready(struct error *e);
/* Tell the peer why we do not. */
void accept_refuse(int sock, const struct error *why);

#endif
