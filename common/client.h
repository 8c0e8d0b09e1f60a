/* client - one application's link to the daemon.
 *
 * Thread-safe: each call takes an idle connection or opens one more (at most
 * CLIENT_CONNECTIONS; further callers wait). The first connection attaches and
 * gets a token; later ones and reconnects join with it. A call whose
 * connection broke is sent once more over a new one with the same request_id,
 * so it happens once; reconnect_ms lets it wait for a daemon that restarts. The
 * peer's uid is checked before anything is sent.
 *
 * After a login by name (method Login), calls are made by that name or not at
 * all: when the daemon has lost it, they are ERR_NOT_LOGGED_IN, once, and from
 * then on the application is what its socket shows. The secret id is not kept.
 */
#ifndef HSMINT_CLIENT_H
#define HSMINT_CLIENT_H

#include "common/secret.h"
#include "common/wire.h"

#define CLIENT_CONNECTIONS 32
#define CLIENT_PROTOCOL 1 /* version sent in Attach */

struct client_options {
    const char *socket;    /* NULL: client_default_socket() */
    const char *program;   /* told to the daemon, for lists and the log */
    int connect_ms;        /* 0: 100 */
    int call_ms;           /* 0: 90 000 */
    int reconnect_ms;      /* so long a daemon that went away during a call
                              may take to come back; 0: no time */
    bool start_daemon;     /* user mode: start it when nobody listens */
    bool allow_root_start; /* only the command line says true */
};

struct client;

/* Touches no socket. */
MUST_CHECK enum code client_new(struct client **out,
                                const struct client_options *o,
                                struct error *e);
void client_free(struct client *c); /* closes: the daemon sees us leave */
void client_freep(struct client **c);
/* After fork, in the child: forget all, closing without a word. */
void client_abandon(struct client *c);
/* No: the client only leaves; no daemon is started for it or waited for. */
void client_allow_start(struct client *c, bool allow);
/* Connect and attach now: within connect_ms where no daemon may be started. */
MUST_CHECK enum code client_connect(struct client *c, struct error *e);

/* method: without "org.hsmint.". parameters: stolen, NULL for none; the
 * caller puts request_id (text_id) in where the method wants it. `in` (may be
 * NULL) goes along as a pipe; `out` (may be NULL) takes the secret that came
 * along, NULL if none did. *reply (may be NULL) is the caller's. */
MUST_CHECK enum code client_call(struct client *c, const char *method,
                                 json_t *parameters, const struct secret *in,
                                 json_t **reply, struct secret **out,
                                 struct error *e);
/* The same, where a file comes along: *fd is the caller's. */
MUST_CHECK enum code client_fetch(struct client *c, const char *method,
                                  json_t *parameters, json_t **reply, int *fd,
                                  struct error *e);
/* Say that something is over, where the daemon learns it by our leaving too:
 * no daemon is started for it or waited for, and one that hangs holds the
 * caller up for two seconds, no longer. */
MUST_CHECK enum code client_tell(struct client *c, const char *method,
                                 json_t *parameters, struct error *e);

/* $HSMINT_SOCKET, else /run/hsmint/socket when it is there, else
 * $XDG_RUNTIME_DIR/hsmint/socket, else /run/user/UID/hsmint/socket where that
 * directory is ours, else ERR_CONFIG. secure_getenv: nothing under AT_SECURE.
 */
#define CLIENT_SYSTEM_SOCKET "/run/hsmint/socket"
MUST_CHECK enum code client_default_socket(char *path, size_t cap,
                                           struct error *e);

/* Start `hsmintd --user --socket PATH` from its compiled-in path: a
 * double fork without SIGCHLD, an empty environment, closed descriptors.
 * Refused under AT_SECURE, and for uid 0 unless allow_root. Then waits up to
 * 5 s for the socket. */
MUST_CHECK enum code client_start_daemon(const char *socket, bool allow_root,
                                         struct error *e);

#endif
