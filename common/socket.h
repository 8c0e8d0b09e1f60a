/* socket - bytes, and one descriptor with them, over AF_UNIX streams, by a
 * deadline. Under wire and frame. Never raises SIGPIPE. */
#ifndef HSMINT_SOCKET_H
#define HSMINT_SOCKET_H

#include "common/error.h"

#include <stdint.h>
#include <sys/uio.h>

#define SOCKET_PARTS 4

/* All of the parts, and `fd` (-1: none; stays the caller's) with the first
 * byte. `end` as deadline_after(). ERR_DAEMON_DOWN when the peer is gone. */
MUST_CHECK enum code socket_send(int sock, const struct iovec *parts, size_t n,
                                 int fd, int64_t end, struct error *e);
/* What goes without waiting: *sent bytes, 0 when none does now. The descriptor
 * has gone along as soon as *sent > 0. */
MUST_CHECK enum code socket_send_some(int sock, const struct iovec *parts,
                                      size_t n, int fd, size_t *sent,
                                      struct error *e);
/* Some bytes: *len > 0. ERR_DAEMON_DOWN at the peer's end. A descriptor that
 * came along is put into *fd, which must be -1 then: a second one is closed
 * and the bytes are refused (ERR_PROTOCOL). */
MUST_CHECK enum code socket_recv(int sock, void *to, size_t room, size_t *len,
                                 int *fd, int64_t end, struct error *e);
/* The same by one recvmsg(2) with `flags`; with MSG_DONTWAIT, *len 0 says that
 * nothing is there now. */
MUST_CHECK enum code socket_recv_some(int sock, void *to, size_t room,
                                      size_t *len, int *fd, int flags,
                                      struct error *e);

#endif
