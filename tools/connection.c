#include "config.h"

#include "tools/connection.h"

#include "common/clock.h"
#include "common/file.h"
#include "common/log.h"
#include "common/wire.h"
#include "tools/method.h"
#include "tools/peer.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <unistd.h>

#define VALUES_MAX 4096 /* of a request: a MiB or so once it is decoded */

/* ---- lines ---- */

static void leave_line(struct connection *c)
{
    struct loop_times *t = c->line;
    if (!t)
        return;
    *(c->earlier ? &c->earlier->later : &t->first) = c->later;
    *(c->later ? &c->later->earlier : &t->last) = c->earlier;
    c->later = c->earlier = NULL;
    c->line = NULL;
}

static void join_line(struct connection *c, enum loop_line which)
{
    struct loop_times *t = &c->loop->lines[which];
    leave_line(c);
    c->line = t;
    c->due_ms = clock_monotonic_ms() + t->ms;
    c->earlier = t->last;
    *(t->last ? &t->last->later : &t->first) = c;
    t->last = c;
}

/* ---- its end ---- */

static void hand_out(struct connection *c)
{
    c->work.application = c->application;
    workers_put(c->loop->workers, &c->quota->flow, &c->item);
}

/* Nothing of it is open any more. */
static void leave(struct connection *c)
{
    struct loop *l = c->loop;
    quota_release(&l->quotas, c->quota, &c->share);
    if (c->refusal) {
        quota_turned(&l->quotas, c->quota);
    } else {
        quota_leave(&l->quotas, c->quota);
        atomic_fetch_sub(&l->served, 1);
    }
    *(c->previous ? &c->previous->next : &l->connections) = c->next;
    if (c->next)
        c->next->previous = c->previous;
    c->state = CONNECTION_DEAD;
    c->next = l->dead;
    l->dead = c;
}

/* The last close() of what a peer has passed may wait for as long as the peer
 * likes (SO_LINGER, a file system of its own): never here. */
static void end(struct connection *c)
{
    struct loop *l = c->loop;
    leave_line(c);
    application_detach(l->daemon->applications, c->application);
    c->application = NULL;
    /* Else a child that was just started could keep it in epoll. */
    if (c->watched)
        epoll_ctl(l->epoll, EPOLL_CTL_DEL, wire_fd(c->wire), NULL);
    if (wire_hang_up(c->wire)) {
        leave(c);
        return;
    }
    c->state = CONNECTION_CLOSING;
    hand_out(c);
}

static void connection_free(struct connection *c)
{
    wire_free(c->wire);
    fd_closep(&c->peer.pidfd);
    identity_clear(&c->id);
    free(c->refusal);
    free(c);
}

void connections_bury(struct loop *l)
{
    struct connection *c;
    while ((c = l->dead)) {
        l->dead = c->next;
        connection_free(c);
    }
}

static bool with_worker(const struct connection *c)
{
    return c->state == CONNECTION_NEW || c->state == CONNECTION_WORKING ||
           c->state == CONNECTION_CLOSING;
}

static void cut(struct connection *c)
{
    if (!with_worker(c)) {
        end(c);
        return;
    }
    c->cut = true;
    shutdown(wire_fd(c->wire), SHUT_RDWR);
}

/* One message, if it goes at once, and the end. */
static void tell_and_end(struct connection *c, const struct error *why)
{
    JSON reply = wire_error_reply(why);
    bool done = false;
    int none = -1;
    if (!reply || wire_put(c->wire, reply, &none, NULL) ||
        wire_flush(c->wire, &done, NULL) || !done)
        log_debug("process %d did not take its error", (int)c->peer.pid);
    end(c);
}

/* ---- in the loop ---- */

/* Once: until it is asked for again, nobody else looks at it. */
static void watch(struct connection *c, uint32_t events)
{
    struct epoll_event ev = {.events = events | EPOLLONESHOT,
                             .data.u64 = LOOP_CONNECTION | (uintptr_t)c};
    int op = c->watched ? EPOLL_CTL_MOD : EPOLL_CTL_ADD;
    if (epoll_ctl(c->loop->epoll, op, wire_fd(c->wire), &ev) < 0) {
        log_warning("cannot watch a connection: %s", strerror(errno));
        end(c);
        return;
    }
    c->watched = true;
}

/* Do its buffers and descriptors stay within bounds? */
static enum code hold(struct connection *c, struct error *e)
{
    return quota_hold(&c->loop->quotas, c->quota, &c->share,
                      wire_memory(c->wire), wire_holds_descriptor(c->wire), e);
}

/* It holds less than before. */
static void let_go(struct connection *c)
{
    if (hold(c, NULL))
        log_debug("uid %lu is beyond its limits", (unsigned long)c->peer.uid);
}

/* A worker reads, and answers what is whole. */
static void work(struct connection *c)
{
    c->state = CONNECTION_WORKING;
    c->late = false;
    hand_out(c);
}

/* Between two requests. */
static void next_request(struct connection *c)
{
    leave_line(c);
    c->state = CONNECTION_IDLE;
    if (c->loop->stopping)
        end(c);
    else if (wire_buffered(c->wire))
        work(c);
    else
        watch(c, EPOLLIN);
}

static void after_reply(struct connection *c)
{
    if (c->work.end)
        end(c);
    else
        next_request(c);
}

static void write_some(struct connection *c)
{
    struct error e = {.code = OK};
    bool done = false;
    if (wire_flush(c->wire, &done, &e)) {
        log_debug("reply to process %d: %s", (int)c->peer.pid, e.text);
        end(c);
    } else if (done) {
        let_go(c);
        after_reply(c);
    } else {
        watch(c, EPOLLOUT);
    }
}

/* ---- with a worker ---- */

static void hand_back(struct connection *c)
{
    struct loop *l = c->loop;
    uint64_t one = 1;
    pthread_mutex_lock(&l->lock);
    bool first = !l->returned;
    c->next_returned = l->returned;
    l->returned = c;
    pthread_mutex_unlock(&l->lock);
    /* From here on it may be gone; the loop and its event are not. */
    if (first && write(l->returned_event, &one, sizeof one) < 0)
        log_error("wake the main loop: %s", strerror(errno));
}

/* Here and not in the loop, because it takes a dozen system calls. Before the
 * first byte of a request is looked at. */
static void identify(struct connection *c)
{
    struct error e = {.code = OK};
    if (peer_identify(wire_fd(c->wire), &c->peer, &c->id, &e)) {
        log_failure(&e, "new connection");
        c->work.gone = true;
        return;
    }
    identity_owner(&c->id, c->owner);
    /* An idle connection costs one descriptor, where one can do. */
    if (c->peer.vouched)
        fd_closep(&c->peer.pidfd);
}

/* The reply to the request that is there; *fd goes along. */
static json_t *answer(struct connection *c, int *fd)
{
    struct error e = {.code = OK};
    JSON message = NULL;
    FD in = -1;
    if (wire_take(c->wire, VALUES_MAX, &message, &in, &e)) {
        c->work.end = true;
        return wire_error_reply(&e);
    }
    if (!c->work.application && c->peer.vouched)
        c->peer.pidfd =
            wire_pidfd(wire_fd(c->wire), c->peer.pid, &c->peer.vouched);
    struct call call = {
        .daemon = c->loop->daemon,
        .peer = &c->peer,
        .owner = c->owner,
        .id = &c->id,
        .application = &c->work.application,
        .fd_in = in,
        .fd_out = -1,
    };
    json_t *reply = method_answer(&call, message);
    *fd = call.fd_out;
    if (c->peer.vouched || c->work.application)
        fd_closep(&c->peer.pidfd);
    return reply;
}

static void send_reply(struct connection *c, json_t *reply, int *fd)
{
    struct error e = {.code = OK};
    bool done = false;
    enum code rc = reply ? wire_put(c->wire, reply, fd, &e)
                         : error_set(&e, ERR_NOMEM, "no memory");
    if (rc == OK)
        rc = wire_flush(c->wire, &done, &e);
    c->work.unsent = !done;
    c->work.gone = rc != OK;
    if (rc)
        log_debug("reply to process %d: %s", (int)c->peer.pid, e.text);
}

static void serve(struct connection *c)
{
    FD fd = -1;
    JSON reply = answer(c, &fd);
    send_reply(c, reply, &fd);
}

/* One read: whoever sends in many pieces waits for its turn with each. */
static void read_some(struct connection *c)
{
    struct error e = {.code = OK};
    int none = -1;
    bool whole = false;
    enum code rc = wire_fill(c->wire, &whole, &e);
    c->work.gone = rc == ERR_DAEMON_DOWN; /* it has left */
    if (c->work.gone)
        return;
    if (c->refusal || rc) {
        JSON reply = wire_error_reply(c->refusal ? c->refusal : &e);
        c->work.end = true;
        send_reply(c, reply, &none);
    } else if (whole) {
        serve(c);
    } else {
        c->work.part = true;
    }
}

void connection_work(struct queue_item *i)
{
    struct connection *c = (struct connection *)i;
    c->work.part = c->work.unsent = false;
    if (c->state == CONNECTION_NEW)
        identify(c);
    else if (c->state == CONNECTION_CLOSING)
        wire_freep(&c->wire);
    else
        read_some(c);
    hand_back(c);
}

/* Not whole: the rest has to come in the time that its first bytes began. */
static void wait_for_rest(struct connection *c)
{
    struct error e = {.code = OK};
    if (c->late)
        error_set(&e, ERR_DEADLINE, "request: not whole within %lld s",
                  (long long)c->loop->lines[LINE_REQUEST].ms / 1000);
    if (c->late || hold(c, &e)) {
        tell_and_end(c, &e);
        return;
    }
    c->state = CONNECTION_IDLE;
    if (wire_buffered(c->wire)) {
        c->state = CONNECTION_READING;
        if (!c->line)
            join_line(c, LINE_REQUEST);
    }
    watch(c, EPOLLIN);
}

static void take_back(struct connection *c)
{
    struct applications *table = c->loop->daemon->applications;
    if (c->state == CONNECTION_CLOSING) {
        leave(c);
        return;
    }
    c->application = c->work.application;
    if (!c->work.part)
        leave_line(c);
    if (c->cut || c->work.gone ||
        (c->application && application_dead(table, c->application))) {
        end(c);
    } else if (c->work.part) {
        wait_for_rest(c);
    } else if (c->work.unsent) {
        c->state = CONNECTION_WRITING;
        join_line(c, LINE_REPLY);
        if (hold(c, NULL)) {
            log_warning("uid %lu does not read its replies: cut",
                        (unsigned long)c->peer.uid);
            end(c);
        } else {
            watch(c, EPOLLOUT);
        }
    } else {
        let_go(c);
        after_reply(c);
    }
}

void connections_returned(struct loop *l)
{
    pthread_mutex_lock(&l->lock);
    struct connection *c = l->returned;
    l->returned = NULL;
    pthread_mutex_unlock(&l->lock);
    while (c) {
        struct connection *next = c->next_returned;
        take_back(c);
        c = next;
    }
}

/* ---- accepting ---- */

/* One line a second: a stranger must not fill the log. */
static void tell_stranger(struct loop *l, const struct wire_peer *peer)
{
    int64_t now = clock_monotonic_ms();
    if (l->stranger_told_ms && now - l->stranger_told_ms < 1000)
        return;
    l->stranger_told_ms = now;
    log_warning("turned away: uid %lu, process %d", (unsigned long)peer->uid,
                (int)peer->pid);
}

/* In system mode everybody may ask: policies say what is answered. */
static enum code judge(struct connection *c, struct error *e)
{
    const struct daemon *d = c->loop->daemon;
    if (c->peer.uid == d->uid || d->settings->mode == MODE_SYSTEM)
        return quota_enter(&c->loop->quotas, c->quota, e);
    tell_stranger(c->loop, &c->peer);
    return error_set(e, ERR_DENIED,
                     "uid %lu is not served here: this daemon belongs to uid "
                     "%lu",
                     (unsigned long)c->peer.uid, (unsigned long)d->uid);
}

/* Its socket's facts, its wire and its quota; takes fd. */
static enum code begin(struct connection *c, int fd, struct error *e)
{
    enum code rc = wire_peer(fd, &c->peer, e);
    if (rc) {
        close(fd);
        return rc;
    }
    rc = wire_new(&c->wire, fd, e);
    if (rc)
        return rc;
    c->quota = quota_of(&c->loop->quotas, c->peer.uid);
    return c->quota ? OK : error_set(e, ERR_NOMEM, "quota");
}

static void enter(struct connection *c)
{
    struct loop *l = c->loop;
    c->next = l->connections;
    if (c->next)
        c->next->previous = c;
    l->connections = c;
}

static void refuse(struct connection *c, const struct error *why)
{
    struct loop *l = c->loop;
    c->refusal = malloc(sizeof *c->refusal);
    bool told = c->refusal && quota_turn_away(&l->quotas, c->quota, false);
    if (!c->refusal || (!told && wire_hang_up(c->wire))) {
        connection_free(c);
        return;
    }
    *c->refusal = *why;
    c->state = CONNECTION_REFUSED;
    enter(c);
    if (told) {
        join_line(c, LINE_REFUSED);
        watch(c, EPOLLIN);
    } else if (quota_turn_away(&l->quotas, c->quota, true)) {
        end(c);
    }
}

void connection_accept(struct loop *l, int fd)
{
    struct error e = {.code = OK};
    struct connection *c = calloc(1, sizeof *c);
    if (!c) {
        close(fd);
        return;
    }
    c->loop = l;
    c->peer.pidfd = -1;
    if (begin(c, fd, &e)) {
        log_failure(&e, "new connection");
        connection_free(c);
        return;
    }
    if (judge(c, &e)) {
        refuse(c, &e);
        return;
    }
    atomic_fetch_add(&l->served, 1);
    c->state = CONNECTION_NEW;
    enter(c);
    hand_out(c);
}

/* ---- what happens to it ---- */

void connection_event(struct connection *c, uint32_t events)
{
    if (c->state == CONNECTION_WRITING)
        write_some(c);
    else if (c->state == CONNECTION_DEAD || with_worker(c))
        return;
    else if ((events & EPOLLHUP) && wire_hang_up(c->wire))
        end(c);
    else
        work(c);
}

static void time_is_up(struct connection *c)
{
    struct error e = {.code = OK};
    atomic_fetch_add(&c->loop->quotas.hits[QUOTA_LIMIT_TIME], 1);
    if (with_worker(c)) {
        leave_line(c);
        c->late = true;
        return;
    }
    if (c->state != CONNECTION_READING) {
        log_debug("process %d is cut: it neither read nor wrote in time",
                  (int)c->peer.pid);
        end(c);
        return;
    }
    error_set(&e, ERR_DEADLINE, "request: not whole within %lld s",
              (long long)c->line->ms / 1000);
    tell_and_end(c, &e);
}

void connections_tick(struct loop *l, int64_t now_ms)
{
    for (int i = 0; i < LINES; i++)
        while (l->lines[i].first && l->lines[i].first->due_ms <= now_ms)
            time_is_up(l->lines[i].first);
}

int64_t connections_due(const struct loop *l)
{
    int64_t due = INT64_MAX;
    for (int i = 0; i < LINES; i++)
        if (l->lines[i].first && l->lines[i].first->due_ms < due)
            due = l->lines[i].first->due_ms;
    return due;
}

void connections_exited(struct loop *l, uint64_t application)
{
    struct connection *next;
    for (struct connection *c = l->connections; c; c = next) {
        next = c->next;
        if (c->application && c->application->number == application)
            cut(c);
    }
}

void connections_drain(struct loop *l)
{
    struct connection *next;
    l->stopping = true;
    for (struct connection *c = l->connections; c; c = next) {
        next = c->next;
        if (!with_worker(c) && c->state != CONNECTION_WRITING)
            end(c);
    }
}
