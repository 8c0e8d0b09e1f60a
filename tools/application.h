/* application - one client process as the daemon knows it.
 *
 * An application begins with its first Attach and has a random token that
 * joins further connections; the daemon keeps only the token's SHA-256. It
 * ends when its process ends (pidfd) or its last connection does, whichever is
 * first: a forked child that still holds the socket does not keep it alive.
 * Then its bound leases and its login are handed to the sweeper at once.
 *
 * After a restart of the daemon nobody is attached. For APPLICATION_GRACE_MS a
 * client may join again with the token that it has, if the store holds a login
 * for the token's hash, of the same uid, unit and vouching, or a bound lease of
 * its uid carries it; then leases and logins of all that did not are ended. A
 * login that is over, or not for its uid any more, is back to be told of: at
 * each call until it logs in or out.
 *
 * Thread-safe: one lock in the table, never held across a call of core.
 */
#ifndef HSMINT_APPLICATION_H
#define HSMINT_APPLICATION_H

#include "common/error.h"
#include "common/wire.h"
#include "module/core/core.h"
#include "module/core/logins.h"
#include "module/store/store.h"

#include <stdbool.h>
#include <stdint.h>

#define APPLICATION_GRACE_MS 10000
#define APPLICATION_PROGRAM_MAX 128
#define APPLICATION_HELD_MAX 65536 /* logins of before, at a start */
#define APPLICATION_NUMBERS                                                    \
    ((uint64_t)1 << 32) /* all are above: epoll data                           \
                         */

struct application {
    /* Set once, read without the lock. */
    char hash[WIRE_TOKEN_HEX + 1];
    char program[APPLICATION_PROGRAM_MAX]; /* escaped */
    uid_t uid;
    bool borrowed;
    char *unit; /* owned */
    pid_t pid;
    uint64_t number; /* of this daemon; names its pidfd in epoll */

    /* The table's lock guards these. */
    struct application *next;
    int pidfd;
    int connections;
    int bound; /* leases that it may have and that end with it */
    bool dead;
    struct core_login login; /* name "": none; accessor "": not for it any
                                more */
};

struct applications;

/* epoll: gets the pidfds, with an application's number as data. */
MUST_CHECK enum code applications_new(struct applications **out,
                                      struct core *core, struct store *store,
                                      int epoll, struct error *e);
/* How many there may be, in all and of one uid: one more is ERR_LIMIT. Without
 * this call there is no limit. */
void applications_limit(struct applications *t, int total, int of_uid);
/* Every connection has been detached. */
void applications_free(struct applications *t);

/* token NULL: a new application, whose token is written. Else joins the one
 * with this token: ERR_NOT_FOUND when it is unknown, over, or another uid's or
 * unit's, and the client attaches anew. Takes peer->pidfd (sets it to -1) for
 * a new application. `id` is the peer's identity. */
MUST_CHECK enum code
application_attach(struct applications *t, struct wire_peer *peer,
                   const struct identity *id, const char *program,
                   const char *token, char new_token[WIRE_TOKEN_HEX + 1],
                   struct application **out, struct error *e);
/* What it is logged in as, name "": nobody; unless a later change is here. */
void application_set_login(struct applications *t, struct application *a,
                           const struct core_login *login);
void application_login(struct applications *t, const struct application *a,
                       struct core_login *out);
/* A lease that is bound to it (or one of its sessions) is about to be minted,
 * or was not after all. Without any, its end is nothing to core: who attaches
 * and leaves all day long makes no work for the sweeper. */
void application_bind(struct applications *t, struct application *a, bool is);
bool application_bound(struct applications *t, struct application *a);
/* One connection less; the last one ends the application. */
void application_detach(struct applications *t, struct application *a);
bool application_dead(struct applications *t, struct application *a);

/* Its process ended, and so does it; the caller cuts the connections that it
 * may have left. */
void applications_exited(struct applications *t, uint64_t number);

/* The grace is over: end bound leases and logins of applications that did not
 * return. Nothing after applications_retire(): the next daemon's grace counts. */
void applications_end_grace(struct applications *t);
/* The daemon leaves: connections that end now end no application, so that its
 * clients find their leases and logins at the next one. */
void applications_retire(struct applications *t);
size_t applications_count(struct applications *t);

#endif
