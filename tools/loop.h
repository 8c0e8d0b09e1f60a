/* loop - what the loop and its connections share (server.c, connection.c).
 *
 * All is the main thread's, but for what the lock guards.
 */
#ifndef HSMINT_LOOP_H
#define HSMINT_LOOP_H

#include "tools/daemon.h"
#include "tools/quota.h"
#include "tools/worker.h"

#include <pthread.h>
#include <stdatomic.h>

/* What an event is about: one of these, an application's pidfd (above
 * APPLICATION_NUMBERS), or a connection (the highest bit and its address). */
enum loop_tag { TAG_SIGNAL, TAG_STOP, TAG_RETURNED, TAG_LISTENER };
#define LOOP_CONNECTION ((uint64_t)1 << 63)

/* Connections that wait with a time limit, the same for all of one line: so
 * the first is the first whose time is up. */
enum loop_line {
    LINE_REQUEST, /* for the rest of a request */
    LINE_REPLY,   /* for the peer to read */
    LINE_REFUSED, /* for a request that is not looked at */
    LINES
};

struct connection;

struct loop_times {
    struct connection *first, *last;
    int64_t ms;
};

struct loop {
    struct daemon *daemon;
    int epoll;
    int returned_event;
    bool stopping;
    struct workers *workers;
    struct quotas quotas;
    struct loop_times lines[LINES];
    struct connection *connections; /* all */
    struct connection *dead;        /* to be freed after this round */
    int64_t stranger_told_ms;
    atomic_int served; /* read by any thread */

    pthread_mutex_t lock;
    struct connection *returned; /* by workers, newest first */
};

#endif
