/* handover - how a keeper that the daemon did not start gets its channels:
 * one message on the control connection, with all of them as descriptors.
 * spec/KEEPER.md, "A keeper of its own user".
 */
#ifndef HSMINT_HANDOVER_H
#define HSMINT_HANDOVER_H

#include "common/error.h"

#define HANDOVER_MAX 64 /* channels */

struct handover {
    int fd[HANDOVER_MAX];
    int n;
};
void handover_clear(struct handover *h); /* closes them */
#define HANDOVER CLEANUP(handover_clear) struct handover

/* The descriptors stay the caller's. ERR_DAEMON_DOWN when the peer is gone. */
MUST_CHECK enum code handover_send(int sock, const int *fds, int n,
                                   int deadline_ms, struct error *e);
/* Into *h, empty before; each is a connected AF_UNIX stream. ERR_PROTOCOL for
 * anything else, after which nothing is left open. */
MUST_CHECK enum code handover_recv(int sock, struct handover *h,
                                   int deadline_ms, struct error *e);

#endif
