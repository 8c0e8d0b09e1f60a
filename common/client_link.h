/* client_link - what a client is made of, and how it opens a connection. Of
 * client.c alone. */
#ifndef HSMINT_CLIENT_LINK_H
#define HSMINT_CLIENT_LINK_H

#include "common/client.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <sys/types.h>

#define LOGIN_NAME_MAX 63

/* One of the connections: no wire yet while it is being opened. */
struct link {
    struct wire *wire;
    bool taken; /* by the one thread that uses it */
};

/* `lock` guards everything below it; it is never held during I/O. */
struct client {
    char *socket; /* NULL: the default one, looked up at each connect */
    char *program;
    int connect_ms, call_ms, reconnect_ms;
    bool start_daemon, allow_root_start;
    _Atomic bool allow_start;
    pid_t pid; /* who made it: a forked child may not speak for its parent */

    pthread_mutex_t lock;
    pthread_cond_t changed; /* a link is free, or the token is settled */
    struct link links[CLIENT_CONNECTIONS];
    bool attaching; /* somebody is asking for the token */
    char token[WIRE_TOKEN_HEX + 1];
    /* The named login that we logged in by, and the one that the daemon told
     * it has for us; "" for none. */
    char login[LOGIN_NAME_MAX + 1], told[LOGIN_NAME_MAX + 1];
};

/* With the lock held, until somebody changed something. */
MUST_CHECK enum code client_wait_change(struct client *c, int64_t end,
                                        struct error *e);
bool client_may_start(const struct client *c);
/* Send and take the answer of one message. *broken: the connection ended
 * before an answer came, so the daemon may not have seen the message. */
MUST_CHECK enum code client_exchange(struct wire *w, const json_t *message,
                                     const struct secret *in, int64_t end,
                                     json_t **answer, int *fd, bool *broken,
                                     struct error *e);
/* Member "login" of what the daemon answered, "" without. */
void client_login_of(json_t *parameters, char login[LOGIN_NAME_MAX + 1]);
/* Connect and attach. A token that the daemon refuses (it lost its state, or
 * forgot us) is given up for a new one, once. Without the lock. */
MUST_CHECK enum code client_open_link(struct client *c, bool starts,
                                      int64_t end, struct wire **out,
                                      struct error *e);

#endif
