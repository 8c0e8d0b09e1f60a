#include "config.h"

#include "common/client.h"
#include "common/client_socket.h"
#include "common/deadline.h"
#include "common/file.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define CONNECT_MS 100
#define CALL_MS 90000
#define PATIENT_MS 5000
#define TELL_MS 2000
#define RECONNECT_EVERY_MS 20
#define LOGIN_NAME_MAX 63
#define LOGIN_WAIT_MS 5000 /* as long as a daemon asks for after wrong ones */

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

static char *copy(const char *s)
{
    return s ? strdup(s) : NULL;
}

static void init_lock(struct client *c)
{
    pthread_condattr_t attr;
    pthread_mutex_init(&c->lock, NULL);
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(&c->changed, &attr);
    pthread_condattr_destroy(&attr);
}

enum code client_new(struct client **out, const struct client_options *o,
                     struct error *e)
{
    *out = NULL;
    struct client *c = calloc(1, sizeof *c);
    if (!c)
        return error_set(e, ERR_NOMEM, "no memory for a client");
    init_lock(c);
    c->socket = copy(o->socket);
    c->program = copy(o->program ? o->program : "");
    c->connect_ms = o->connect_ms ? o->connect_ms : CONNECT_MS;
    c->call_ms = o->call_ms ? o->call_ms : CALL_MS;
    c->reconnect_ms = o->reconnect_ms;
    c->start_daemon = o->start_daemon;
    c->allow_root_start = o->allow_root_start;
    c->allow_start = true;
    c->pid = getpid();
    if (!c->program || (o->socket && !c->socket)) {
        client_free(c);
        return error_set(e, ERR_NOMEM, "no memory for a client");
    }
    *out = c;
    return OK;
}

static bool is_ours(const struct client *c)
{
    return c->pid == getpid();
}

void client_free(struct client *c)
{
    if (!c)
        return;
    if (!is_ours(c))
        client_abandon(c);
    for (size_t i = 0; i < CLIENT_CONNECTIONS; i++)
        wire_free(c->links[i].wire);
    if (is_ours(c)) {
        pthread_cond_destroy(&c->changed);
        pthread_mutex_destroy(&c->lock);
    }
    wipe(c->token, sizeof c->token);
    free(c->socket);
    free(c->program);
    free(c);
}

void client_freep(struct client **c)
{
    client_free(*c);
    *c = NULL;
}

void client_abandon(struct client *c)
{
    /* No lock: the thread that held it may not exist in this process. A link
     * that was in use then is in no known state: only its socket is closed. */
    for (size_t i = 0; i < CLIENT_CONNECTIONS; i++) {
        struct link *l = &c->links[i];
        if (l->wire && l->taken)
            close(wire_fd(l->wire));
        else
            wire_free(l->wire);
        l->wire = NULL;
        l->taken = false;
    }
    wipe(c->token, sizeof c->token);
    c->pid = -1;
}

void client_allow_start(struct client *c, bool allow)
{
    c->allow_start = allow;
}

/* With the lock held, until somebody changed something. */
static enum code wait_change(struct client *c, int64_t end, struct error *e)
{
    struct timespec t = {.tv_sec = end / 1000, .tv_nsec = end % 1000 * 1000000};
    int rc = end < 0 ? pthread_cond_wait(&c->changed, &c->lock)
                     : pthread_cond_timedwait(&c->changed, &c->lock, &t);
    if (rc == 0)
        return OK;
    return error_set(e, ERR_DEADLINE,
                     "no connection to the daemon became free in time");
}

/* ---- opening a connection ---------------------------------------------- */

static bool may_start_daemon(const struct client *c)
{
    return c->start_daemon && c->allow_start;
}

/* No later than `end`; unless a daemon has to be started first, which takes
 * its own time: then the end moves. */
static enum code connect_socket(struct client *c, const char *path, bool starts,
                                int64_t *end, int *fd, struct error *e)
{
    int left = deadline_left(*end);
    int ms = left >= 0 && left < c->connect_ms ? left : c->connect_ms;
    enum code rc = wire_connect(path, ms, fd, e);
    if (rc != ERR_DAEMON_DOWN || !starts || !may_start_daemon(c))
        return rc;
    rc = client_start_daemon(path, c->allow_root_start, e);
    if (rc)
        return rc;
    int64_t later = deadline_after(c->connect_ms);
    if (*end >= 0 && later > *end)
        *end = later;
    return wire_connect(path, c->connect_ms, fd, e);
}

static enum code open_wire(struct client *c, bool starts, int64_t *end,
                           struct wire **out, struct error *e)
{
    char found[256];
    const char *path = c->socket;
    enum code rc = OK;
    *out = NULL;
    if (!path) {
        rc = client_default_socket(found, sizeof found, e);
        path = found;
    }
    FD fd = -1;
    if (!rc)
        rc = connect_socket(c, path, starts, end, &fd, e);
    if (!rc)
        rc = client_check_peer(path, fd, e);
    if (rc)
        return rc;
    int taken = fd;
    fd = -1;
    return wire_new(out, taken, e);
}

/* Send and take the answer of one message. *broken: the connection ended
 * before an answer came, so the daemon may not have seen the message. */
static enum code exchange(struct wire *w, const json_t *message,
                          const struct secret *in, int64_t end, json_t **answer,
                          int *fd, bool *broken, struct error *e)
{
    FD pipe = -1;
    enum code rc = in ? secret_to_pipe(in, &pipe, e) : OK;
    *broken = false;
    *answer = NULL;
    *fd = -1;
    if (rc)
        return rc;
    rc = wire_send(w, message, pipe, deadline_left(end), e);
    if (!rc)
        rc = wire_recv(w, answer, fd, deadline_left(end), e);
    *broken = rc == ERR_DAEMON_DOWN || rc == ERR_IO;
    return rc;
}

/* The token to join with, "" when this thread is the one to get it. */
static enum code begin_attach(struct client *c, char *token, int64_t end,
                              struct error *e)
{
    enum code rc = OK;
    pthread_mutex_lock(&c->lock);
    while (!rc && !c->token[0] && c->attaching)
        rc = wait_change(c, end, e);
    memcpy(token, c->token, sizeof c->token);
    if (!rc && !token[0])
        c->attaching = true;
    pthread_mutex_unlock(&c->lock);
    return rc;
}

/* Member "login" of what the daemon answered, "" without. */
static void login_of(json_t *parameters, char login[LOGIN_NAME_MAX + 1])
{
    const char *name = json_string_value(json_object_get(parameters, "login"));
    snprintf(login, LOGIN_NAME_MAX + 1, "%s", name ? name : "");
}

/* What attaching gave. */
struct attached {
    char token[WIRE_TOKEN_HEX + 1];
    char login[LOGIN_NAME_MAX + 1];
};

/* `got` is NULL when the daemon did not let us. */
static void end_attach(struct client *c, const char *used,
                       const struct attached *got)
{
    pthread_mutex_lock(&c->lock);
    if (got)
        memcpy(c->told, got->login, sizeof c->told);
    if (!used[0])
        c->attaching = false;
    if (got && !used[0])
        memcpy(c->token, got->token, sizeof c->token);
    pthread_cond_broadcast(&c->changed);
    pthread_mutex_unlock(&c->lock);
}

/* The daemon does not know this token any more; another thread may have got
 * a new one meanwhile. */
static void forget_token(struct client *c, const char *token)
{
    pthread_mutex_lock(&c->lock);
    if (strcmp(c->token, token) == 0)
        wipe(c->token, sizeof c->token);
    pthread_mutex_unlock(&c->lock);
}

static enum code attach(struct client *c, struct wire *w, const char *token,
                        int64_t end, struct attached *got, struct error *e)
{
    JSON answer = NULL;
    JSON message = wire_request(
        "org.hsmint.Attach",
        json_pack("{s:i, s:s, s:s*}", "version", CLIENT_PROTOCOL, "program",
                  c->program, "token", token[0] ? token : NULL));
    bool broken;
    FD fd = -1;
    json_t *parameters = NULL;
    if (!message)
        return error_set(e, ERR_NOMEM, "no memory for a message");
    enum code rc = exchange(w, message, NULL, end, &answer, &fd, &broken, e);
    if (!rc)
        rc = wire_parse_reply(answer, &parameters, e);
    if (rc)
        return rc;
    const char *given = json_string_value(json_object_get(parameters, "token"));
    if (!given || strlen(given) != WIRE_TOKEN_HEX)
        return error_set(e, ERR_PROTOCOL, "the daemon gave no attach token");
    memcpy(got->token, given, sizeof got->token);
    login_of(parameters, got->login);
    return OK;
}

/* Connect and attach. A token that the daemon refuses (it lost its state, or
 * forgot us) is given up for a new one, once. */
static enum code open_link(struct client *c, bool starts, int64_t end,
                           struct wire **out, struct error *e)
{
    enum code rc = OK;
    for (int round = 0; round < 2; round++) {
        char token[WIRE_TOKEN_HEX + 1];
        struct attached got;
        struct wire *w CLEANUP(wire_freep) = NULL;
        rc = open_wire(c, starts, &end, &w, e);
        if (rc)
            return rc;
        rc = begin_attach(c, token, end, e);
        if (rc)
            return rc;
        rc = attach(c, w, token, end, &got, e);
        end_attach(c, token, rc ? NULL : &got);
        wipe(&got, sizeof got);
        bool refused = rc == ERR_NOT_FOUND && token[0];
        if (refused)
            forget_token(c, token);
        wipe(token, sizeof token);
        if (!rc) {
            *out = w;
            w = NULL;
            return OK;
        }
        /* A daemon that leaves cuts what it had accepted; who waits in the
         * socket is for the next one. */
        bool left = rc == ERR_DAEMON_DOWN || rc == ERR_IO;
        if (!refused && !left)
            return rc;
    }
    return rc;
}

/* ---- the pool ---------------------------------------------------------- */

/* An idle link, else an empty place, else NULL. */
static struct link *choose(struct client *c)
{
    struct link *empty = NULL;
    for (size_t i = 0; i < CLIENT_CONNECTIONS; i++) {
        struct link *l = &c->links[i];
        if (l->taken)
            continue;
        if (l->wire)
            return l;
        if (!empty)
            empty = l;
    }
    return empty;
}

static void give_back(struct client *c, struct link *l, struct wire *w)
{
    pthread_mutex_lock(&c->lock);
    l->wire = w;
    l->taken = false;
    pthread_cond_signal(&c->changed);
    pthread_mutex_unlock(&c->lock);
}

static void close_link(struct client *c, struct link *l)
{
    pthread_mutex_lock(&c->lock);
    struct wire *w = l->wire;
    l->wire = NULL;
    pthread_mutex_unlock(&c->lock);
    wire_free(w);
    give_back(c, l, NULL);
}

static enum code take_link(struct client *c, bool starts, int64_t end,
                           struct link **out, struct error *e)
{
    *out = NULL;
    if (!is_ours(c))
        return error_set(e, ERR_DAEMON_DOWN,
                         "this connection was made before a fork: open a new "
                         "one in the child");
    enum code rc = OK;
    struct link *l = NULL;
    pthread_mutex_lock(&c->lock);
    while (!rc && !(l = choose(c)))
        rc = wait_change(c, end, e);
    if (!rc)
        l->taken = true;
    pthread_mutex_unlock(&c->lock);
    if (rc)
        return rc;
    struct wire *w = NULL;
    if (!l->wire) {
        rc = open_link(c, starts, end, &w, e);
        pthread_mutex_lock(&c->lock);
        l->wire = w;
        pthread_mutex_unlock(&c->lock);
    }
    if (rc) {
        give_back(c, l, NULL);
        return rc;
    }
    *out = l;
    return OK;
}

/* The daemon went away: what is idle is as dead as what just broke. */
static void close_idle(struct client *c)
{
    struct wire *dead[CLIENT_CONNECTIONS];
    size_t n = 0;
    pthread_mutex_lock(&c->lock);
    for (size_t i = 0; i < CLIENT_CONNECTIONS; i++) {
        struct link *l = &c->links[i];
        if (l->taken || !l->wire)
            continue;
        dead[n++] = l->wire;
        l->wire = NULL;
    }
    pthread_mutex_unlock(&c->lock);
    while (n)
        wire_free(dead[--n]);
}

enum code client_connect(struct client *c, struct error *e)
{
    struct link *l;
    /* Who may start a daemon may also wait for one that is busy. */
    bool patient = may_start_daemon(c);
    int ms = patient ? PATIENT_MS : c->connect_ms;
    if (c->call_ms < ms)
        ms = c->call_ms;
    enum code rc = take_link(c, true, deadline_after(ms), &l, e);
    if (!rc)
        give_back(c, l, l->wire);
    return rc;
}

/* ---- calls ------------------------------------------------------------- */

struct call {
    json_t *message;
    const char *method;
    char login[LOGIN_NAME_MAX + 1]; /* the client's, as the call began */
    const struct secret *in;
    bool starts; /* a daemon, or waits for one, where there is none */
    int64_t end;
    json_t *answer;
    int fd; /* that came with the answer */
};

static void call_clear(struct call *k)
{
    json_freep(&k->message);
    json_freep(&k->answer);
    fd_closep(&k->fd);
}

static bool is_about_login(const struct call *k)
{
    return strcmp(k->method, "Login") == 0 || strcmp(k->method, "Logout") == 0;
}

static void set_login(struct client *c, const char *login)
{
    pthread_mutex_lock(&c->lock);
    snprintf(c->login, sizeof c->login, "%s", login);
    snprintf(c->told, sizeof c->told, "%s", login);
    pthread_mutex_unlock(&c->lock);
}

/* A daemon that was started anew gives our login back, unless it ended or we
 * come too late: what a caller meant to do by that name must not be done as
 * the uid that it has beside. */
static enum code check_login(struct client *c, const struct call *k,
                             struct error *e)
{
    pthread_mutex_lock(&c->lock);
    bool same = strcmp(k->login, c->told) == 0;
    if (!same && strcmp(k->login, c->login) == 0)
        c->login[0] = '\0'; /* told now: calls that begin later know */
    pthread_mutex_unlock(&c->lock);
    if (same || is_about_login(k))
        return OK;
    return error_set(e, ERR_NOT_LOGGED_IN,
                     "login \"%s\": the daemon does not know it any more (it "
                     "was started anew, or the login ended): log in again",
                     k->login);
}

/* What the answer says of it. */
static void note_login(struct client *c, const struct call *k, enum code rc,
                       json_t *parameters)
{
    char login[LOGIN_NAME_MAX + 1] = "";
    if (!rc && strcmp(k->method, "Login") == 0)
        login_of(parameters, login);
    if (rc == ERR_NOT_LOGGED_IN || (!rc && is_about_login(k)))
        set_login(c, login);
}

static enum code attempt(struct client *c, struct call *k, bool *broken,
                         struct error *e)
{
    struct link *l;
    *broken = false;
    enum code rc = take_link(c, k->starts, k->end, &l, e);
    if (rc)
        return rc;
    rc = check_login(c, k, e);
    if (rc) {
        give_back(c, l, l->wire);
        return rc;
    }
    rc = exchange(l->wire, k->message, k->in, k->end, &k->answer, &k->fd,
                  broken, e);
    if (rc)
        close_link(c, l); /* a late answer would be taken for the next one */
    else
        give_back(c, l, l->wire);
    return rc;
}

static enum code finish(struct client *c, struct call *k, json_t **reply,
                        struct secret **out, struct error *e)
{
    json_t *parameters = NULL;
    enum code rc = wire_parse_reply(k->answer, &parameters, e);
    note_login(c, k, rc, parameters);
    if (rc)
        return rc;
    if (out && k->fd >= 0)
        rc = secret_from_fd(out, k->fd, SECRET_MAX, deadline_left(k->end), true,
                            e);
    if (!rc && reply)
        *reply = json_incref(parameters);
    return rc;
}

/* The connection broke, and the daemon may be starting anew: once more, with
 * the same request_id, so that what was done already is not done again. */
static enum code repeat(struct client *c, struct call *k, struct error *e)
{
    int64_t end = deadline_after(k->starts ? c->reconnect_ms : 0);
    close_idle(c);
    for (;;) {
        bool broken;
        enum code rc = attempt(c, k, &broken, e);
        if (rc != ERR_DAEMON_DOWN || broken || !c->allow_start ||
            deadline_left(end) == 0 || deadline_left(k->end) == 0)
            return rc;
        poll(NULL, 0, RECONNECT_EVERY_MS);
    }
}

static enum code run(struct client *c, struct call *k, json_t **reply,
                     struct secret **out, struct error *e)
{
    bool broken;
    if (!k->message)
        return error_set(e, ERR_NOMEM, "no memory for a message");
    pthread_mutex_lock(&c->lock);
    memcpy(k->login, c->login, sizeof k->login);
    pthread_mutex_unlock(&c->lock);
    enum code rc = attempt(c, k, &broken, e);
    if (broken)
        rc = repeat(c, k, e);
    return rc ? rc : finish(c, k, reply, out, e);
}

/* After a wrong PIN or secret id, of whatever program of this uid, the next one
 * has to wait: it is not the caller's to do, unless it is for minutes. */
static bool waits_for_login(const struct call *k, enum code rc,
                            const struct error *e)
{
    if (rc != ERR_PIN_HELD || !is_about_login(k) || !e ||
        e->retry_after_ms <= 0 || e->retry_after_ms > LOGIN_WAIT_MS)
        return false;
    poll(NULL, 0, (int)e->retry_after_ms + 1);
    return deadline_left(k->end) != 0;
}

static json_t *request(const char *method, json_t *parameters)
{
    char name[64];
    snprintf(name, sizeof name, "org.hsmint.%s", method);
    return wire_request(name, parameters);
}

enum code client_call(struct client *c, const char *method, json_t *parameters,
                      const struct secret *in, json_t **reply,
                      struct secret **out, struct error *e)
{
    CLEANUP(call_clear)
    struct call k = {
        .message = request(method, parameters),
        .method = method,
        .in = in,
        .starts = true,
        .end = deadline_after(c->call_ms),
        .fd = -1,
    };
    if (reply)
        *reply = NULL;
    if (out)
        *out = NULL;
    enum code rc = run(c, &k, reply, out, e);
    if (!waits_for_login(&k, rc, e))
        return rc;
    json_freep(&k.answer);
    return run(c, &k, reply, out, e);
}

enum code client_tell(struct client *c, const char *method, json_t *parameters,
                      struct error *e)
{
    CLEANUP(call_clear)
    struct call k = {
        .message = request(method, parameters),
        .method = method,
        .end = deadline_after(c->call_ms < TELL_MS ? c->call_ms : TELL_MS),
        .fd = -1,
    };
    return run(c, &k, NULL, NULL, e);
}
