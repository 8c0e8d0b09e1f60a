/* wire - Varlink framing on an AF_UNIX stream: JSON messages ended by NUL.
 *
 * One `struct wire` is one connection, used by one thread at a time. A message
 * may carry one descriptor (SCM_RIGHTS), sent with its first byte. No secret
 * is ever in a JSON message: PINs and keys travel as the read end of a pipe
 * (secret_to_pipe), so that neither side's JSON buffers can hold one.
 *
 * Bounds: a message is at most WIRE_MESSAGE_MAX bytes; each send and receive
 * has a deadline; more than one descriptor is closed and refused. SIGPIPE is
 * never raised (MSG_NOSIGNAL).
 */
#ifndef HSMINT_WIRE_H
#define HSMINT_WIRE_H

#include "common/error.h"
#include "common/json.h"

#include <stdbool.h>
#include <sys/types.h>

#define WIRE_MESSAGE_MAX (1024 * 1024)
#define WIRE_TOKEN_HEX 64 /* attach token: 256 bits in hex */

struct wire;

MUST_CHECK enum code wire_new(struct wire **out, int fd /* taken */,
                              struct error *e);
void wire_free(struct wire *w); /* closes */
void wire_freep(struct wire **w);
int wire_fd(const struct wire *w);
/* Bytes are waiting that belong to the next message. */
bool wire_buffered(const struct wire *w);

/* What its buffers hold of the heap, in bytes. */
size_t wire_memory(const struct wire *w);
/* Nothing goes or comes any more. False: what the peer has passed, read or not,
 * is closed with the wire, and close() may wait for as long as the peer wants.
 */
bool wire_hang_up(struct wire *w);
/* A descriptor came that belongs to a message which is not taken yet. */
bool wire_holds_descriptor(const struct wire *w);

/* deadline_ms: from now; -1 none. fd: -1 none; stays the caller's. */
MUST_CHECK enum code wire_send(struct wire *w, const json_t *message, int fd,
                               int deadline_ms, struct error *e);
/* *fd is -1 or the caller's. The peer's orderly end is ERR_DAEMON_DOWN. */
MUST_CHECK enum code wire_recv(struct wire *w, json_t **message, int *fd,
                               int deadline_ms, struct error *e);

/* The same without waiting, for a loop. Buffers are given back whenever they
 * are empty, so that an idle connection costs next to nothing.
 *
 * fill: one read, unless a message is whole already. ERR_DAEMON_DOWN at the
 * peer's end; ERR_PROTOCOL: nothing more is read.
 * take: the whole message. More than values_max values: ERR_PROTOCOL (a short
 * text can stand for much memory). */
MUST_CHECK enum code wire_fill(struct wire *w, bool *whole, struct error *e);
MUST_CHECK enum code wire_take(struct wire *w, size_t values_max,
                               json_t **message, int *fd, struct error *e);
/* put: a message in place of the last; takes *fd (-1: none) unless it fails.
 * flush: what goes now of it; *done: all has gone. */
MUST_CHECK enum code wire_put(struct wire *w, const json_t *message, int *fd,
                              struct error *e);
MUST_CHECK enum code wire_flush(struct wire *w, bool *done, struct error *e);

struct wire_peer {
    uid_t uid;
    gid_t gid;
    pid_t pid;
    int pidfd;    /* -1 where it could not be opened */
    bool vouched; /* it is of the very process that connected (Linux 6.5); else
                     of whoever has its number now */
};
MUST_CHECK enum code wire_peer(int fd, struct wire_peer *peer, struct error *e);
/* The peer's pidfd, -1 without. *lasts: it can be asked for again later, and
 * will be the same process's (Linux 6.5); else by its number, so at once. */
int wire_pidfd(int fd, pid_t pid, bool *lasts);

/* Listening socket at `path` (mode 0600 or 0666 as `mode`), stale one
 * replaced; the caller holds the state's lock. */
MUST_CHECK enum code wire_listen(const char *path, mode_t mode, int *fd,
                                 struct error *e);
/* Connect within deadline_ms. ERR_DAEMON_DOWN when nobody listens. */
MUST_CHECK enum code wire_connect(const char *path, int deadline_ms, int *fd,
                                  struct error *e);

/* Messages of Varlink. `parameters` is stolen. */
json_t *wire_request(const char *method, json_t *parameters);
json_t *wire_reply(json_t *parameters);
json_t *wire_error_reply(const struct error *e);
/* Split a request; both borrowed. Unknown members, "oneway", "more" and
 * "upgrade" are refused. */
MUST_CHECK enum code wire_parse_request(json_t *message, const char **method,
                                        json_t **parameters, struct error *e);
/* Borrowed parameters of a reply, or the error that it carries, put in *e. */
MUST_CHECK enum code wire_parse_reply(json_t *message, json_t **parameters,
                                      struct error *e);

#endif
