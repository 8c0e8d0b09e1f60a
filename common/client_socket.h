/* client_socket - who listens on the daemon's socket. Of client.c alone. */
#ifndef HSMINT_CLIENT_SOCKET_H
#define HSMINT_CLIENT_SOCKET_H

#include "common/error.h"

/* ERR_DENIED unless we, root, or a system daemon in its place listens. */
MUST_CHECK enum code client_check_peer(const char *path, int fd,
                                       struct error *e);

#endif
