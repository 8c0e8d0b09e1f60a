#include "config.h"

#include "tools/server.h"

#include "common/clock.h"
#include "common/file.h"
#include "common/log.h"
#include "common/wire.h"
#include "tools/method.h"
#include "tools/peer.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <unistd.h>

#define STACK_BYTES (256 * 1024)
#define LISTENERS_MAX 4
#define TURNED_AWAY_MAX 16 /* strangers may not take the place of others */
#define TURNED_AWAY_MS 1000
#define IDLE_CHECK_MS 5000

/* What an event is about; beyond APPLICATION_NUMBERS, an application's pidfd.
 */
enum tag { TAG_SIGNAL, TAG_STOP, TAG_LISTENER };

struct connection {
    struct connection *next, **link;
    struct server *server;
    struct wire *wire;
    struct wire_peer peer;
    char owner[IDENTITY_OWNER_MAX];
    struct identity id;
    struct application *application; /* set by its thread, under the lock */
    struct error refusal;            /* code OK: served */
};

struct server {
    struct daemon *daemon;
    int epoll, signals, stop_event;
    int listeners[LISTENERS_MAX];
    size_t listeners_n;
    atomic_bool stopping;
    int64_t grace_ends_ms, idle_since_ms, idle_checked_ms, stranger_told_ms;
    pthread_attr_t thread_attr;

    pthread_mutex_t lock; /* guards all below */
    pthread_cond_t ended;
    struct connection *connections;
    int served, turned_away;
};

/* ---- connections ---- */

/* In system mode everybody may ask: policies say what is answered. */
static bool served_here(const struct daemon *d, uid_t uid)
{
    return uid == d->uid || d->settings->mode == MODE_SYSTEM;
}

/* Wait for the first byte of a request; false when the connection is over. */
static bool wait_request(struct connection *c)
{
    struct pollfd p = {.fd = wire_fd(c->wire), .events = POLLIN};
    while (!wire_buffered(c->wire)) {
        int n = poll(&p, 1, -1);
        if (n > 0)
            return true;
        if (n < 0 && errno != EINTR)
            return false;
    }
    return true;
}

static void send_error(struct connection *c, const struct error *why)
{
    JSON reply = wire_error_reply(why);
    struct error e = {.code = OK};
    if (!reply || wire_send(c->wire, reply, -1, TURNED_AWAY_MS, &e))
        log_debug("process %d did not take its error", (int)c->peer.pid);
}

/* A connection's application changes under the lock, because the main thread
 * looks at it when a process has ended. */
static void set_application(struct connection *c, struct application *a)
{
    pthread_mutex_lock(&c->server->lock);
    c->application = a;
    pthread_mutex_unlock(&c->server->lock);
}

static bool serve_request(struct connection *c)
{
    struct error e = {.code = OK};
    JSON message = NULL;
    FD in = -1;
    FD out = -1;
    enum code rc = wire_recv(c->wire, &message, &in, SERVER_REQUEST_MS, &e);
    if (rc == ERR_DAEMON_DOWN) /* it has left */
        return false;
    if (rc == ERR_DEADLINE)
        error_set(&e, rc, "request: not whole within %d s",
                  SERVER_REQUEST_MS / 1000);
    if (rc) {
        send_error(c, &e);
        return false;
    }
    struct application *a = c->application;
    struct call call = {
        .daemon = c->server->daemon,
        .peer = &c->peer,
        .owner = c->owner,
        .id = &c->id,
        .application = &a,
        .fd_in = in,
        .fd_out = -1,
    };
    JSON reply = method_answer(&call, message);
    out = call.fd_out;
    if (a != c->application)
        set_application(c, a);
    if (reply && wire_send(c->wire, reply, out, SERVER_REPLY_MS, &e) == OK)
        return true;
    log_debug("reply to process %d: %s", (int)c->peer.pid,
              reply ? e.text : "no memory");
    return false;
}

/* One error for the first request, which is not looked at. */
static void turn_away(struct connection *c)
{
    JSON message = NULL;
    FD in = -1;
    if (wire_recv(c->wire, &message, &in, TURNED_AWAY_MS, NULL) == OK)
        send_error(c, &c->refusal);
}

static void connection_free(struct connection *c)
{
    wire_free(c->wire);
    fd_closep(&c->peer.pidfd);
    identity_clear(&c->id);
    free(c);
}

static void leave(struct connection *c)
{
    struct server *s = c->server;
    struct application *a = c->application;
    pthread_mutex_lock(&s->lock);
    *c->link = c->next;
    if (c->next)
        c->next->link = c->link;
    pthread_mutex_unlock(&s->lock);
    application_detach(s->daemon->applications, a);

    bool served = c->refusal.code == OK;
    connection_free(c);
    /* Last: after this the server may be gone. */
    pthread_mutex_lock(&s->lock);
    served ? s->served-- : s->turned_away--;
    pthread_cond_signal(&s->ended);
    pthread_mutex_unlock(&s->lock);
}

static void *connection_main(void *arg)
{
    struct connection *c = arg;
    if (c->refusal.code)
        turn_away(c);
    else
        while (!atomic_load(&c->server->stopping) && wait_request(c) &&
               serve_request(c))
            ;
    leave(c);
    return NULL;
}

/* ---- accepting ---- */

/* One line a second: a stranger must not fill the log. */
static void tell_stranger(struct server *s, const struct wire_peer *peer)
{
    int64_t now = clock_monotonic_ms();
    if (s->stranger_told_ms && now - s->stranger_told_ms < 1000)
        return;
    s->stranger_told_ms = now;
    log_warning("turned away: uid %lu, process %d", (unsigned long)peer->uid,
                (int)peer->pid);
}

static void judge(struct server *s, struct connection *c)
{
    const struct daemon *d = s->daemon;
    identity_owner(&c->id, c->owner);
    if (!served_here(d, c->peer.uid)) {
        tell_stranger(s, &c->peer);
        error_set(&c->refusal, ERR_DENIED,
                  "uid %lu is not served here: this daemon belongs to uid %lu",
                  (unsigned long)c->peer.uid, (unsigned long)d->uid);
    } else if (s->served >= d->settings->max_connections) {
        error_set(&c->refusal, ERR_LIMIT,
                  "%d connections are open, which is the limit: close some, "
                  "or raise max_connections",
                  s->served);
    }
}

/* Count and link it, with a thread of its own. The lock is held. */
static bool enter(struct server *s, struct connection *c)
{
    pthread_t thread;
    bool served = c->refusal.code == OK;
    if (!served && s->turned_away >= TURNED_AWAY_MAX)
        return false;
    int rc = pthread_create(&thread, &s->thread_attr, connection_main, c);
    if (rc) {
        log_warning("no thread for process %d: %s", (int)c->peer.pid,
                    strerror(rc));
        return false;
    }
    served ? s->served++ : s->turned_away++;
    c->link = &s->connections;
    c->next = s->connections;
    if (c->next)
        c->next->link = &c->next;
    s->connections = c;
    return true;
}

static void accept_one(struct server *s, int listener)
{
    struct error e = {.code = OK};
    int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
    if (fd < 0) {
        if (errno == EMFILE || errno == ENFILE || errno == ENOMEM) {
            log_warning("cannot accept a connection: %s", strerror(errno));
            usleep(100 * 1000); /* it stays readable: do not spin */
        }
        return;
    }
    struct connection *c = calloc(1, sizeof *c);
    if (!c) {
        close(fd);
        return;
    }
    c->server = s;
    c->peer.pidfd = -1;
    enum code rc = wire_peer(fd, &c->peer, &e);
    if (rc == OK)
        rc = peer_identify(fd, &c->peer, &c->id, &e);
    if (rc)
        close(fd);
    else
        rc = wire_new(&c->wire, fd, &e); /* takes fd, whatever comes */
    if (rc) {
        log_failure(&e, "new connection");
        connection_free(c);
        return;
    }
    /* Under the lock, so that it cannot leave before it has entered. */
    pthread_mutex_lock(&s->lock);
    judge(s, c);
    bool in = enter(s, c);
    pthread_mutex_unlock(&s->lock);
    if (!in)
        connection_free(c);
}

/* A process has ended: its application has, and so have the connections that
 * a forked child may still hold. An application lives as long as a linked
 * connection has it. */
static void process_exited(struct server *s, uint64_t number)
{
    applications_exited(s->daemon->applications, number);
    pthread_mutex_lock(&s->lock);
    for (struct connection *c = s->connections; c; c = c->next)
        if (c->application && c->application->number == number)
            shutdown(wire_fd(c->wire), SHUT_RDWR);
    pthread_mutex_unlock(&s->lock);
}

/* ---- the loop ---- */

static enum code watch(struct server *s, int fd, uint64_t data, struct error *e)
{
    struct epoll_event ev = {.events = EPOLLIN, .data.u64 = data};
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0)
        return error_errno(e, errno, "descriptor %d", fd);
    if (epoll_ctl(s->epoll, EPOLL_CTL_ADD, fd, &ev) < 0)
        return error_errno(e, errno, "watch descriptor %d", fd);
    return OK;
}

static enum code open_loop(struct server *s, struct error *e)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGHUP);
    s->epoll = epoll_create1(EPOLL_CLOEXEC);
    s->signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    s->stop_event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (s->epoll < 0 || s->signals < 0 || s->stop_event < 0)
        return error_errno(e, errno, "make the main loop");
    enum code rc = watch(s, s->signals, TAG_SIGNAL, e);
    if (rc == OK)
        rc = watch(s, s->stop_event, TAG_STOP, e);
    for (size_t i = 0; rc == OK && i < s->listeners_n; i++)
        rc = watch(s, s->listeners[i], TAG_LISTENER + i, e);
    return rc;
}

enum code server_new(struct server **out, struct daemon *d,
                     const int *listeners, size_t listeners_n, struct error *e)
{
    if (listeners_n > LISTENERS_MAX)
        return error_set(e, ERR_CONFIG, "more than %d sockets", LISTENERS_MAX);
    struct server *s = calloc(1, sizeof *s);
    if (!s)
        return error_set(e, ERR_NOMEM, "server");
    s->daemon = d;
    s->epoll = s->signals = s->stop_event = -1;
    memcpy(s->listeners, listeners, listeners_n * sizeof *listeners);
    s->listeners_n = listeners_n;
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->ended, NULL);
    pthread_attr_init(&s->thread_attr);
    pthread_attr_setdetachstate(&s->thread_attr, PTHREAD_CREATE_DETACHED);
    pthread_attr_setstacksize(&s->thread_attr, STACK_BYTES);
    enum code rc = open_loop(s, e);
    if (rc == OK)
        rc = applications_new(&d->applications, d->core, d->store, s->epoll, e);
    if (rc) {
        server_free(s);
        return rc;
    }
    d->server = s;
    *out = s;
    return OK;
}

void server_free(struct server *s)
{
    if (!s)
        return;
    applications_free(s->daemon->applications);
    s->daemon->applications = NULL;
    fd_closep(&s->epoll);
    fd_closep(&s->signals);
    fd_closep(&s->stop_event);
    pthread_attr_destroy(&s->thread_attr);
    pthread_cond_destroy(&s->ended);
    pthread_mutex_destroy(&s->lock);
    free(s);
}

void server_stop(struct server *s)
{
    uint64_t one = 1;
    if (write(s->stop_event, &one, sizeof one) < 0)
        log_error("ask the main loop to end: %s", strerror(errno));
}

size_t server_connections(struct server *s)
{
    pthread_mutex_lock(&s->lock);
    size_t n = (size_t)s->served;
    pthread_mutex_unlock(&s->lock);
    return n;
}

void server_figures(struct server *s, struct metrics_server *out)
{
    *out = (struct metrics_server){
        .connections = (int64_t)server_connections(s),
        .applications = (int64_t)applications_count(s->daemon->applications)};
}

static void take_signals(struct server *s)
{
    struct signalfd_siginfo info;
    while (read(s->signals, &info, sizeof info) == (ssize_t)sizeof info) {
        if (info.ssi_signo == SIGHUP) {
            log_info("SIGHUP: settings are read at the start only");
            continue;
        }
        log_info("signal %u from process %u: leaving", info.ssi_signo,
                 info.ssi_pid);
        atomic_store(&s->stopping, true);
    }
}

static void take_event(struct server *s, uint64_t data)
{
    if (data == TAG_SIGNAL)
        take_signals(s);
    else if (data == TAG_STOP)
        atomic_store(&s->stopping, true);
    else if (data < APPLICATION_NUMBERS)
        accept_one(s, s->listeners[data - TAG_LISTENER]);
    else
        process_exited(s, data);
}

/* A user daemon leaves when nobody was connected, no lease lived and nothing
 * was pending for a while. */
static void check_idle(struct server *s, int64_t now)
{
    const struct settings *set = s->daemon->settings;
    if (set->mode != MODE_USER || set->idle_exit_s == 0 ||
        now < s->idle_checked_ms + 1000)
        return;
    s->idle_checked_ms = now;
    if (server_connections(s) || core_busy(s->daemon->core)) {
        s->idle_since_ms = now;
    } else if (now - s->idle_since_ms >= set->idle_exit_s * 1000) {
        log_info("idle for %lld s: leaving", (long long)set->idle_exit_s);
        atomic_store(&s->stopping, true);
    }
}

static int timeout_ms(const struct server *s, int64_t now)
{
    const struct settings *set = s->daemon->settings;
    int64_t wait = -1;
    if (s->grace_ends_ms)
        wait = s->grace_ends_ms > now ? s->grace_ends_ms - now : 0;
    if (set->mode != MODE_USER || set->idle_exit_s == 0)
        return (int)wait;
    int64_t check = set->idle_exit_s * 1000;
    if (check > IDLE_CHECK_MS)
        check = IDLE_CHECK_MS;
    return (int)(wait < 0 || wait > check ? check : wait);
}

static void tick(struct server *s, int64_t now)
{
    if (s->grace_ends_ms && now >= s->grace_ends_ms) {
        s->grace_ends_ms = 0;
        applications_end_grace(s->daemon->applications);
    }
    check_idle(s, now);
}

/* New calls are refused by closed listeners and read ends; those in flight
 * may finish and send their replies. */
static bool drain(struct server *s)
{
    applications_retire(s->daemon->applications);
    for (size_t i = 0; i < s->listeners_n; i++)
        fd_closep(&s->listeners[i]);
    struct timespec until;
    clock_gettime(CLOCK_MONOTONIC, &until);
    until.tv_sec += SERVER_DRAIN_MS / 1000;
    pthread_mutex_lock(&s->lock);
    for (struct connection *c = s->connections; c; c = c->next)
        shutdown(wire_fd(c->wire), SHUT_RD);
    int rc = 0;
    while (s->served + s->turned_away > 0 && rc == 0)
        rc = pthread_cond_clockwait(&s->ended, &s->lock, CLOCK_MONOTONIC,
                                    &until);
    int left = s->served + s->turned_away;
    pthread_mutex_unlock(&s->lock);
    if (left)
        log_warning("%d calls did not end within %d s: left behind", left,
                    SERVER_DRAIN_MS / 1000);
    return left == 0;
}

enum code server_run(struct server *s, bool *drained, struct error *e)
{
    enum code rc = OK;
    int64_t now = clock_monotonic_ms();
    s->grace_ends_ms = now + APPLICATION_GRACE_MS;
    s->idle_since_ms = s->idle_checked_ms = now;
    while (!atomic_load(&s->stopping)) {
        struct epoll_event events[32];
        int n = epoll_wait(s->epoll, events, 32, timeout_ms(s, now));
        if (n < 0 && errno != EINTR) {
            rc = error_errno(e, errno, "wait for events");
            break;
        }
        for (int i = 0; i < n; i++)
            take_event(s, events[i].data.u64);
        now = clock_monotonic_ms();
        tick(s, now);
    }
    atomic_store(&s->stopping, true);
    *drained = drain(s);
    return rc;
}
