/* Opening a connection: connect, look who listens, attach or join. */
#include "config.h"

#include "common/client_link.h"

#include "common/client_socket.h"
#include "common/deadline.h"
#include "common/file.h"

#include <stdio.h>
#include <string.h>

enum code client_wait_change(struct client *c, int64_t end, struct error *e)
{
    struct timespec t = {.tv_sec = end / 1000, .tv_nsec = end % 1000 * 1000000};
    int rc = end < 0 ? pthread_cond_wait(&c->changed, &c->lock)
                     : pthread_cond_timedwait(&c->changed, &c->lock, &t);
    if (rc == 0)
        return OK;
    return error_set(e, ERR_DEADLINE,
                     "no connection to the daemon became free in time");
}

bool client_may_start(const struct client *c)
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
    if (rc != ERR_DAEMON_DOWN || !starts || !client_may_start(c))
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

enum code client_exchange(struct wire *w, const json_t *message,
                          const struct secret *in, int64_t end,
                          json_t **answer, int *fd, bool *broken,
                          struct error *e)
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
        rc = client_wait_change(c, end, e);
    memcpy(token, c->token, sizeof c->token);
    if (!rc && !token[0])
        c->attaching = true;
    pthread_mutex_unlock(&c->lock);
    return rc;
}

void client_login_of(json_t *parameters, char login[LOGIN_NAME_MAX + 1])
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
    enum code rc =
        client_exchange(w, message, NULL, end, &answer, &fd, &broken, e);
    if (!rc)
        rc = wire_parse_reply(answer, &parameters, e);
    if (rc)
        return rc;
    const char *given = json_string_value(json_object_get(parameters, "token"));
    if (!given || strlen(given) != WIRE_TOKEN_HEX)
        return error_set(e, ERR_PROTOCOL, "the daemon gave no attach token");
    memcpy(got->token, given, sizeof got->token);
    client_login_of(parameters, got->login);
    return OK;
}

enum code client_open_link(struct client *c, bool starts, int64_t end,
                           struct wire **out, struct error *e)
{
    bool refused = false, left = false; /* once each, maybe one after the other */
    for (;;) {
        char token[WIRE_TOKEN_HEX + 1];
        struct attached got;
        struct wire *w CLEANUP(wire_freep) = NULL;
        enum code rc = open_wire(c, starts, &end, &w, e);
        if (rc)
            return rc;
        rc = begin_attach(c, token, end, e);
        if (rc)
            return rc;
        rc = attach(c, w, token, end, &got, e);
        end_attach(c, token, rc ? NULL : &got);
        wipe(&got, sizeof got);
        bool unknown = rc == ERR_NOT_FOUND && token[0];
        if (unknown)
            forget_token(c, token);
        wipe(token, sizeof token);
        if (!rc) {
            *out = w;
            w = NULL;
            return OK;
        }
        /* A daemon that leaves cuts what it had accepted; who waits in the
         * socket is for the next one. */
        bool cut = rc == ERR_DAEMON_DOWN || rc == ERR_IO;
        if (unknown ? refused : !cut || left)
            return rc;
        refused = refused || unknown;
        left = left || cut;
    }
}
