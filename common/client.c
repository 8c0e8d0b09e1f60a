#include "config.h"

#include "common/client.h"
#include "common/client_link.h"
#include "common/deadline.h"
#include "common/file.h"

#include <poll.h>
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
#define LOGIN_WAIT_MS 5000 /* as long as a daemon asks for after wrong ones */

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
        rc = client_wait_change(c, end, e);
    if (!rc)
        l->taken = true;
    pthread_mutex_unlock(&c->lock);
    if (rc)
        return rc;
    struct wire *w = NULL;
    if (!l->wire) {
        rc = client_open_link(c, starts, end, &w, e);
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
    bool patient = client_may_start(c);
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
        client_login_of(parameters, login);
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
    rc = client_exchange(l->wire, k->message, k->in, k->end, &k->answer,
                         &k->fd, broken, e);
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

enum code client_fetch(struct client *c, const char *method, json_t *parameters,
                       json_t **reply, int *fd, struct error *e)
{
    CLEANUP(call_clear)
    struct call k = {
        .message = request(method, parameters),
        .method = method,
        .starts = true,
        .end = deadline_after(c->call_ms),
        .fd = -1,
    };
    *reply = NULL;
    *fd = -1;
    enum code rc = run(c, &k, reply, NULL, e);
    if (rc)
        return rc;
    if (k.fd < 0)
        return error_set(e, ERR_PROTOCOL, "%s brought no descriptor", method);
    *fd = k.fd;
    k.fd = -1;
    return OK;
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
