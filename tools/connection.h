/* connection - one client's socket, from accept to its end.
 *
 *   NEW       a worker finds out who it is
 *   IDLE      nothing of a request has come; no time limit
 *   READING   some has, and the rest has to come in time
 *   WORKING   there is something to read: it waits for, or is with, a worker
 *   WRITING   the peer has to read its reply in time
 *   REFUSED   told why at its first bytes, which are not looked at, and cut
 *   CLOSING   a worker closes what the peer has passed, which may wait for it
 *   DEAD      freed after this round of the loop
 *
 * It belongs to the loop, but in NEW, WORKING and CLOSING to the worker, which may use
 * wire, peer, id and `work`, and hands it back by connection_return(). One
 * request at a time is taken off it, and answered before the next: who does not
 * read replies is not read from.
 */
#ifndef HSMINT_CONNECTION_H
#define HSMINT_CONNECTION_H

#include "module/core/identity.h"
#include "tools/loop.h"

enum connection_state {
    CONNECTION_NEW,
    CONNECTION_IDLE,
    CONNECTION_READING,
    CONNECTION_WORKING,
    CONNECTION_WRITING,
    CONNECTION_REFUSED,
    CONNECTION_CLOSING,
    CONNECTION_DEAD
};

struct connection {
    struct queue_item item; /* first */
    struct loop *loop;
    struct connection *next, *previous; /* of all; `next` also of the dead */
    struct connection *later, *earlier; /* in its line */
    struct connection *next_returned;
    int64_t due_ms;
    struct loop_times *line; /* NULL: without a time limit */
    struct quota *quota;
    struct quota_share share;
    enum connection_state state;
    bool watched; /* epoll knows it */
    bool cut;     /* the loop wants its end; a worker has it */
    bool late;    /* its time was up while a worker had it */

    struct wire *wire;
    struct wire_peer peer;
    char owner[IDENTITY_OWNER_MAX];
    struct identity id;
    struct application *application; /* as the loop knows it */
    struct {
        struct application *application;
        bool part;   /* the request is not whole */
        bool unsent; /* the reply is not all gone */
        bool end;    /* after the reply */
        bool gone;   /* at once */
    } work;
    struct error *refusal; /* why it is not served */
};

/* Takes fd; it may have been turned away, or be over, afterwards. */
void connection_accept(struct loop *l, int fd);
/* epoll said something of it. */
void connection_event(struct connection *c, uint32_t events);
/* Where workers begin (workers_options). */
void connection_work(struct queue_item *i);
/* Takes back what workers have done with. */
void connections_returned(struct loop *l);
/* Times that are up. */
void connections_tick(struct loop *l, int64_t now_ms);
/* When to call connections_tick(): INT64_MAX for no time. */
int64_t connections_due(const struct loop *l);
/* The process of this application has ended: cuts what it left. */
void connections_exited(struct loop *l, uint64_t application);
/* Those that nobody works for end; the others do after their reply. */
void connections_drain(struct loop *l);
/* After each round. */
void connections_bury(struct loop *l);

#endif
