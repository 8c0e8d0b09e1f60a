#include "config.h"

#include "tools/server.h"

#include "common/clock.h"
#include "common/file.h"
#include "common/log.h"
#include "tools/connection.h"
#include "tools/supervisor.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <unistd.h>

#define LISTENERS_MAX 4
#define ACCEPT_BATCH 64
#define ACCEPT_AGAIN_MS 100 /* after a failure that would come again at once */
#define REFUSED_MS 1000
#define IDLE_CHECK_MS 5000
#define PRUNE_MS 1000
#define TELL_MS 1000        /* an alarm's text is renewed, at most */
#define CALM_MS 10000       /* and it is over after that long */
#define OWN_DESCRIPTORS 768 /* kept for store, keeper, pipes and messages */

struct server {
    struct loop loop;
    struct daemon *daemon;
    int signals, stop_event;
    int listeners[LISTENERS_MAX];
    size_t listeners_n;
    int64_t grace_ends_ms, idle_since_ms, idle_checked_ms;
    int64_t accept_again_ms; /* 0: listeners are watched */
    int64_t prune_ms, workers_due_ms, supervisor_due_ms;
    struct told { /* the alarm about a limit */
        uint64_t hits;
        int64_t at_ms; /* 0: it is not up */
    } told[QUOTA_LIMITS];
};

/* ---- accepting ---- */

static void watch_listeners(struct server *s, bool on)
{
    for (size_t i = 0; i < s->listeners_n; i++) {
        struct epoll_event ev = {.events = on ? EPOLLIN : 0,
                                 .data.u64 = TAG_LISTENER + i};
        epoll_ctl(s->loop.epoll, EPOLL_CTL_MOD, s->listeners[i], &ev);
    }
    s->accept_again_ms = on ? 0 : clock_monotonic_ms() + ACCEPT_AGAIN_MS;
}

/* Accepting is cheap whoever connects, and never waits: a flood of one uid is
 * turned away as fast as it comes, and the others' turn comes with it. */
static void accept_some(struct server *s, int listener)
{
    for (int i = 0; i < ACCEPT_BATCH; i++) {
        if (s->loop.quotas.turned_away >= QUOTA_TURNED_AWAY_STOP) {
            log_warning("uid %lu was turned away and its descriptors do not "
                        "close: nobody else can connect meanwhile",
                        (unsigned long)s->loop.quotas
                            .hit_by[QUOTA_LIMIT_CONNECTIONS]);
            watch_listeners(s, false);
            return;
        }
        int fd = accept4(listener, NULL, NULL, SOCK_CLOEXEC);
        if (fd >= 0) {
            connection_accept(&s->loop, fd);
            continue;
        }
        if (errno == ECONNABORTED || errno == EINTR)
            continue;
        if (errno != EAGAIN) {
            log_warning("cannot accept a connection: %s", strerror(errno));
            watch_listeners(s, false);
        }
        return;
    }
}

/* A process has ended: its application has, and so have the connections that
 * a forked child may still hold. */
static void process_exited(struct server *s, uint64_t number)
{
    connections_exited(&s->loop, number);
    applications_exited(s->daemon->applications, number);
}

/* ---- the loop ---- */

static enum code watch(struct server *s, int fd, uint64_t data, struct error *e)
{
    struct epoll_event ev = {.events = EPOLLIN, .data.u64 = data};
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0)
        return error_errno(e, errno, "descriptor %d", fd);
    if (epoll_ctl(s->loop.epoll, EPOLL_CTL_ADD, fd, &ev) < 0)
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
    s->loop.epoll = epoll_create1(EPOLL_CLOEXEC);
    s->signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    s->stop_event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    s->loop.returned_event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (s->loop.epoll < 0 || s->signals < 0 || s->stop_event < 0 ||
        s->loop.returned_event < 0)
        return error_errno(e, errno, "make the main loop");
    enum code rc = watch(s, s->signals, TAG_SIGNAL, e);
    if (rc == OK)
        rc = watch(s, s->stop_event, TAG_STOP, e);
    if (rc == OK)
        rc = watch(s, s->loop.returned_event, TAG_RETURNED, e);
    for (size_t i = 0; rc == OK && i < s->listeners_n; i++)
        rc = watch(s, s->listeners[i], TAG_LISTENER + i, e);
    return rc;
}

/* A connection costs a descriptor, an application another. */
static int connections_max(const struct settings *set, int *applications)
{
    struct rlimit files;
    rlim_t room = RLIM_INFINITY;
    if (getrlimit(RLIMIT_NOFILE, &files) == 0)
        room = files.rlim_cur;
    room = room > 2 * OWN_DESCRIPTORS ? room - OWN_DESCRIPTORS : room / 2;
    int max = set->max_connections;
    if (room < INT_MAX / 2 && (rlim_t)max > room * 2 / 3)
        max = (int)(room * 2 / 3);
    *applications = room - (rlim_t)max < (rlim_t)max ? (int)room - max : max;
    return max;
}

void server_settings(struct server *s)
{
    const struct settings *set = s->daemon->settings;
    int applications = 0;
    s->loop.quotas.limits = set->limits;
    s->loop.quotas.connections_max = connections_max(set, &applications);
    applications_limit(s->daemon->applications, applications,
                       set->limits.applications);
}

static enum code open_limits(struct server *s, struct error *e)
{
    const struct settings *set = s->daemon->settings;
    struct loop *l = &s->loop;
    server_settings(s);
    l->lines[LINE_REQUEST].ms = set->limits.message_ms;
    l->lines[LINE_REPLY].ms = set->limits.reply_ms;
    l->lines[LINE_REFUSED].ms = REFUSED_MS;
    bool others = set->mode == MODE_SYSTEM; /* else there is one identity */
    const struct workers_options o = {
        .rate = {.per_second = others ? set->limits.rate : 0,
                 .burst = set->limits.burst},
        .threads = set->limits.workers,
        .shared = others,
        .work = connection_work,
    };
    return workers_new(&l->workers, &o, e);
}

enum code server_new(struct server **out, struct daemon *d,
                     const int *listeners, size_t listeners_n, struct error *e)
{
    if (listeners_n > LISTENERS_MAX)
        return error_set(e, ERR_CONFIG, "more than %d sockets", LISTENERS_MAX);
    struct server *s = calloc(1, sizeof *s);
    if (!s)
        return error_set(e, ERR_NOMEM, "server");
    s->daemon = s->loop.daemon = d;
    s->loop.epoll = s->loop.returned_event = s->signals = s->stop_event = -1;
    s->workers_due_ms = INT64_MAX;
    memcpy(s->listeners, listeners, listeners_n * sizeof *listeners);
    s->listeners_n = listeners_n;
    pthread_mutex_init(&s->loop.lock, NULL);
    enum code rc = open_loop(s, e);
    if (rc == OK)
        rc = applications_new(&d->applications, d->core, d->store,
                              s->loop.epoll, e);
    if (rc == OK)
        rc = open_limits(s, e);
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
    workers_free(s->loop.workers);
    quotas_clear(&s->loop.quotas);
    applications_free(s->daemon->applications);
    s->daemon->applications = NULL;
    fd_closep(&s->loop.epoll);
    fd_closep(&s->loop.returned_event);
    fd_closep(&s->signals);
    fd_closep(&s->stop_event);
    pthread_mutex_destroy(&s->loop.lock);
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
    return (size_t)atomic_load(&s->loop.served);
}

void server_figures(struct server *s, struct metrics_server *out)
{
    *out = (struct metrics_server){
        .connections = (int64_t)server_connections(s),
        .applications = (int64_t)applications_count(s->daemon->applications),
        .in_flight = workers_busy(s->loop.workers),
        .limits_n = QUOTA_LIMITS};
    for (unsigned i = 0; i < QUOTA_LIMITS; i++) {
        out->limits[i].name = quota_limit_name((enum quota_limit)i);
        out->limits[i].hits = atomic_load(&s->loop.quotas.hits[i]);
    }
}

/* SIGHUP. */
static void reload(struct server *s)
{
    if (s->daemon->supervisor)
        supervisor_reload(s->daemon->supervisor);
}

/* In one breath: a connection that comes back from its worker in this very
 * round is ended, and its application is not. */
static void leave(struct server *s)
{
    applications_retire(s->daemon->applications);
    s->loop.stopping = true;
}

static void take_signals(struct server *s)
{
    struct signalfd_siginfo info;
    while (read(s->signals, &info, sizeof info) == (ssize_t)sizeof info) {
        if (info.ssi_signo == SIGHUP) {
            reload(s);
            continue;
        }
        log_info("signal %u from process %u: leaving", info.ssi_signo,
                 info.ssi_pid);
        leave(s);
    }
}

static void take_returned(struct server *s)
{
    uint64_t n;
    if (read(s->loop.returned_event, &n, sizeof n) < 0 && errno != EAGAIN)
        log_error("main loop: %s", strerror(errno));
    connections_returned(&s->loop);
}

static void take_event(struct server *s, const struct epoll_event *ev)
{
    uint64_t data = ev->data.u64;
    if (data & LOOP_CONNECTION)
        connection_event(
            (struct connection *)(uintptr_t)(data & ~LOOP_CONNECTION),
            ev->events);
    else if (data >= APPLICATION_NUMBERS)
        process_exited(s, data);
    else if (data == TAG_SIGNAL)
        take_signals(s);
    else if (data == TAG_STOP)
        leave(s);
    else if (data == TAG_RETURNED)
        take_returned(s);
    else
        accept_some(s, s->listeners[data - TAG_LISTENER]);
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
        leave(s);
    }
}

/* A limit that held somebody back is an alarm for a while. A peer that is slow
 * is none: that is its own matter. */
static void tell_limits(struct server *s, int64_t now)
{
    for (unsigned i = 0; i < QUOTA_LIMIT_TIME; i++) {
        const char *name = quota_limit_name((enum quota_limit)i);
        uint64_t hits = atomic_load(&s->loop.quotas.hits[i]);
        struct told *t = &s->told[i];
        char text[160];
        if (hits != t->hits && now >= t->at_ms + TELL_MS) {
            snprintf(text, sizeof text,
                     "uid %lu was held back; that happened %llu times since "
                     "the daemon's start",
                     (unsigned long)s->loop.quotas.hit_by[i],
                     (unsigned long long)hits);
            core_alarm(s->daemon->core, ALARM_LIMITS, name, text);
            *t = (struct told){hits, now};
        } else if (hits == t->hits && t->at_ms && now >= t->at_ms + CALM_MS) {
            core_alarm(s->daemon->core, ALARM_LIMITS, name, NULL);
            t->at_ms = 0;
        }
    }
}

static int64_t limits_due(const struct server *s)
{
    int64_t first = INT64_MAX;
    for (unsigned i = 0; i < QUOTA_LIMIT_TIME; i++) {
        const struct told *t = &s->told[i];
        bool more = atomic_load(&s->loop.quotas.hits[i]) != t->hits;
        int64_t due = t->at_ms + (more ? TELL_MS : CALM_MS);
        if ((more || t->at_ms) && due < first)
            first = due;
    }
    return first;
}

static int64_t idle_check_due(const struct server *s, int64_t now)
{
    const struct settings *set = s->daemon->settings;
    if (set->mode != MODE_USER || set->idle_exit_s == 0)
        return INT64_MAX;
    int64_t check = set->idle_exit_s * 1000;
    return now + (check > IDLE_CHECK_MS ? IDLE_CHECK_MS : check);
}

static int timeout_ms(const struct server *s, int64_t now)
{
    const int64_t due[] = {
        s->grace_ends_ms ? s->grace_ends_ms : INT64_MAX,
        s->accept_again_ms ? s->accept_again_ms : INT64_MAX,
        s->loop.quotas.unused ? s->prune_ms : INT64_MAX,
        s->workers_due_ms,
        s->supervisor_due_ms,
        connections_due(&s->loop),
        idle_check_due(s, now),
        limits_due(s),
    };
    int64_t first = INT64_MAX;
    for (size_t i = 0; i < sizeof due / sizeof due[0]; i++)
        if (due[i] < first)
            first = due[i];
    if (first == INT64_MAX)
        return -1;
    int64_t wait = first > now ? first - now : 0;
    return wait > INT_MAX ? INT_MAX : (int)wait;
}

static bool flow_idle(void *ctx, const struct quota *q)
{
    struct server *s = ctx;
    return workers_flow_idle(s->loop.workers, &q->flow, clock_monotonic_ms());
}

/* What is due by time, in each round of the loop. */
static void tick(struct server *s, int64_t now)
{
    if (s->grace_ends_ms && now >= s->grace_ends_ms) {
        s->grace_ends_ms = 0;
        applications_end_grace(s->daemon->applications);
    }
    if (s->accept_again_ms && now >= s->accept_again_ms)
        watch_listeners(s, true);
    connections_tick(&s->loop, now);
    if (s->loop.quotas.unused && now >= s->prune_ms) {
        quotas_prune(&s->loop.quotas, flow_idle, s);
        s->prune_ms = now + PRUNE_MS;
    }
    s->workers_due_ms = workers_tick(s->loop.workers, now);
    tell_limits(s, now);
    if (now >= s->supervisor_due_ms)
        s->supervisor_due_ms = supervisor_tick(s->daemon->supervisor, now);
}

static enum code one_round(struct server *s, int64_t *now, int timeout,
                           struct error *e)
{
    struct epoll_event events[64];
    int n = epoll_wait(s->loop.epoll, events, 64, timeout);
    if (n < 0 && errno != EINTR)
        return error_errno(e, errno, "wait for events");
    for (int i = 0; i < n; i++)
        take_event(s, &events[i]);
    *now = clock_monotonic_ms();
    tick(s, *now);
    connections_bury(&s->loop);
    return OK;
}

/* New calls are refused by closed sockets; those that are with a worker may
 * finish and send their replies. */
static bool drain(struct server *s)
{
    struct error e;
    int64_t now = clock_monotonic_ms(), until = now + SERVER_DRAIN_MS;
    leave(s); /* the loop may have failed */
    for (size_t i = 0; i < s->listeners_n; i++) {
        /* systemd keeps them for the next one: closed by us, they would still
         * be told of, and could not be accepted from. */
        epoll_ctl(s->loop.epoll, EPOLL_CTL_DEL, s->listeners[i], NULL);
        fd_closep(&s->listeners[i]);
    }
    s->listeners_n = 0;
    connections_drain(&s->loop);
    connections_bury(&s->loop);
    while (s->loop.connections && now < until) {
        int64_t left = until - now;
        int wait = timeout_ms(s, now);
        if (one_round(s, &now, wait < 0 || wait > left ? (int)left : wait, &e))
            break;
    }
    int left = atomic_load(&s->loop.served);
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
    s->supervisor_due_ms = s->daemon->supervisor ? 0 : INT64_MAX;
    while (rc == OK && !s->loop.stopping) {
        rc = one_round(s, &now, timeout_ms(s, now), e);
        check_idle(s, now);
    }
    if (s->daemon->supervisor)
        supervisor_stopping(s->daemon->supervisor);
    *drained = drain(s);
    return rc;
}
