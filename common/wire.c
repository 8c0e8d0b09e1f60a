#include "config.h"

#include "common/buffer.h"
#include "common/deadline.h"
#include "common/file.h"
#include "common/socket.h"
#include "common/text.h"
#include "common/wire.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#define INTERFACE "org.hsmint."
#define KEEP_BYTES 65536 /* a larger buffer is given back when it is empty */

#ifndef SO_PEERPIDFD
#define SO_PEERPIDFD 77 /* Linux 6.5 */
#endif

struct wire {
    int fd;
    struct buffer in;
    struct buffer out;
    size_t scanned;   /* of `in`: no NUL before */
    int passed;       /* descriptor that came, -1 */
    size_t passed_at; /* … with this byte of `in` as the last of its read */
    size_t sent;      /* of `out` */
    int passing;      /* descriptor that goes with the first byte of it, -1 */
    bool lost_in, lost_out; /* the stream's place, in one direction: a peer
                               that sent nonsense can still be told so */
};

enum code wire_new(struct wire **out, int fd, struct error *e)
{
    struct wire *w = calloc(1, sizeof *w);
    *out = w;
    if (!w) {
        fd_closep(&fd);
        return error_set(e, ERR_NOMEM, "no memory for a connection");
    }
    w->fd = fd;
    w->passed = w->passing = -1;
    w->in.max = w->out.max = WIRE_MESSAGE_MAX + 1;
    return OK;
}

void wire_free(struct wire *w)
{
    if (!w)
        return;
    buffer_free(&w->in);
    buffer_free(&w->out);
    fd_closep(&w->passed);
    fd_closep(&w->passing);
    fd_closep(&w->fd);
    free(w);
}

void wire_freep(struct wire **w)
{
    wire_free(*w);
    *w = NULL;
}

int wire_fd(const struct wire *w)
{
    return w->fd;
}

bool wire_buffered(const struct wire *w)
{
    return w->in.len > 0;
}

size_t wire_memory(const struct wire *w)
{
    return w->in.cap + w->out.cap;
}

bool wire_holds_descriptor(const struct wire *w)
{
    return w->passed >= 0;
}

bool wire_hang_up(struct wire *w)
{
    int unread = 0;
    /* Behind it nothing comes any more. */
    return shutdown(w->fd, SHUT_RDWR) == 0 && w->passed < 0 &&
           ioctl(w->fd, FIONREAD, &unread) == 0 && unread == 0;
}

static enum code check_whole(bool lost, struct error *e)
{
    if (lost)
        return error_set(e, ERR_PROTOCOL,
                         "the connection is unusable after an earlier error");
    return OK;
}

/* Back to nothing; a large buffer is given back. */
static void out_done(struct wire *w, size_t keep)
{
    w->out.len = w->sent = 0;
    if (w->out.cap > keep)
        buffer_free(&w->out);
}

static enum code put_message(struct wire *w, const json_t *message,
                             struct error *e)
{
    enum code rc = check_whole(w->lost_out, e);
    if (rc)
        return rc;
    w->out.len = w->sent = 0;
    rc = buffer_append_json(&w->out, message, JSON_COMPACT, e);
    return rc ? rc : buffer_append(&w->out, "", 1, e);
}

enum code wire_send(struct wire *w, const json_t *message, int fd,
                    int deadline_ms, struct error *e)
{
    enum code rc = put_message(w, message, e);
    if (rc)
        return rc;
    struct iovec part = {w->out.data, w->out.len};
    rc = socket_send(w->fd, &part, 1, fd, deadline_after(deadline_ms), e);
    w->lost_out = rc != OK;
    out_done(w, KEEP_BYTES);
    return rc;
}

enum code wire_put(struct wire *w, const json_t *message, int *fd,
                   struct error *e)
{
    enum code rc = put_message(w, message, e);
    if (rc) {
        out_done(w, 0);
        return rc;
    }
    w->passing = *fd;
    *fd = -1;
    return OK;
}

enum code wire_flush(struct wire *w, bool *done, struct error *e)
{
    enum code rc = OK;
    *done = false;
    while (w->sent < w->out.len) {
        struct iovec part = {w->out.data + w->sent, w->out.len - w->sent};
        size_t sent = 0;
        rc = socket_send_some(w->fd, &part, 1, w->passing, &sent, e);
        if (rc)
            break;
        if (sent == 0)
            return OK;
        w->sent += sent;
        fd_closep(&w->passing);
    }
    w->lost_out = rc != OK;
    fd_closep(&w->passing);
    out_done(w, 0);
    *done = rc == OK;
    return rc;
}

/* What was read, `n` bytes and perhaps a descriptor. A read ends with the bytes
 * that its descriptor came with, so it belongs to the message of the read's
 * last byte. */
static void took(struct wire *w, size_t n, bool had, int fd)
{
    w->passed = fd;
    w->in.len += n;
    if (!had && fd >= 0)
        w->passed_at = w->in.len - 1;
}

/* One read into the buffer. */
static enum code fill(struct wire *w, int64_t end, struct error *e)
{
    enum code rc = buffer_reserve(&w->in, 1, e);
    if (rc)
        return rc;
    bool had = w->passed >= 0;
    int fd = w->passed;
    size_t n = 0;
    rc = socket_recv(w->fd, w->in.data + w->in.len, w->in.cap - w->in.len, &n,
                     &fd, end, e);
    took(w, n, had, fd);
    return rc;
}

/* Is the first message whole? Its length without the NUL. */
static bool whole(struct wire *w, size_t *len)
{
    char *nul =
        w->in.len > w->scanned
            ? memchr(w->in.data + w->scanned, '\0', w->in.len - w->scanned)
            : NULL;
    w->scanned = nul ? (size_t)(nul - w->in.data) : w->in.len;
    *len = w->scanned;
    return nul != NULL;
}

enum code wire_fill(struct wire *w, bool *is_whole, struct error *e)
{
    size_t len = 0, n = 0;
    enum code rc = check_whole(w->lost_in, e);
    *is_whole = rc == OK && whole(w, &len);
    if (rc || *is_whole)
        return rc;
    rc = buffer_reserve(&w->in, 1, e);
    if (rc == OK) {
        bool had = w->passed >= 0;
        int fd = w->passed;
        rc = socket_recv_some(w->fd, w->in.data + w->in.len,
                              w->in.cap - w->in.len, &n, &fd, MSG_DONTWAIT, e);
        took(w, n, had, fd);
    }
    w->lost_in = rc != OK;
    if (w->in.len == 0)
        buffer_free(&w->in);
    *is_whole = rc == OK && whole(w, &len);
    return rc;
}

static void take_passed(struct wire *w, size_t message_end, int *fd)
{
    if (w->passed < 0)
        return;
    if (w->passed_at > message_end) {
        w->passed_at -= message_end + 1;
        return;
    }
    *fd = w->passed;
    w->passed = -1;
}

/* The first message, `len` bytes, out of the buffer. */
static enum code take_message(struct wire *w, size_t len, json_t **message,
                              int *fd, struct error *e)
{
    FD passed = -1;
    take_passed(w, len, &passed);
    enum code rc = json_parse(w->in.data, len, "message", message, e);
    wipe(w->in.data, len);
    buffer_consume(&w->in, len + 1);
    w->scanned = 0;
    if (!rc && !json_is_object(*message))
        rc = error_set(e, ERR_PROTOCOL, "message: not a JSON object");
    if (rc) {
        json_freep(message);
        w->lost_in = true;
        if (e)
            e->code = ERR_PROTOCOL;
        return ERR_PROTOCOL;
    }
    *fd = passed;
    passed = -1;
    return OK;
}

enum code wire_recv(struct wire *w, json_t **message, int *fd, int deadline_ms,
                    struct error *e)
{
    *message = NULL;
    *fd = -1;
    size_t len = 0;
    int64_t end = deadline_after(deadline_ms);
    enum code rc = check_whole(w->lost_in, e);
    if (rc)
        return rc;
    while (!whole(w, &len)) {
        rc = fill(w, end, e);
        if (rc) {
            w->lost_in = rc != ERR_DEADLINE; /* what came so far is kept */
            return rc;
        }
    }
    rc = take_message(w, len, message, fd, e);
    if (w->in.len == 0 && w->in.cap > KEEP_BYTES)
        buffer_free(&w->in);
    return rc;
}

enum code wire_take(struct wire *w, size_t values_max, json_t **message,
                    int *fd, struct error *e)
{
    size_t len = 0;
    *message = NULL;
    *fd = -1;
    enum code rc = check_whole(w->lost_in, e);
    if (rc == OK && !whole(w, &len))
        rc = error_set(e, ERR_INTERNAL, "no whole message to take");
    if (rc == OK && json_values(w->in.data, len) > values_max) {
        w->lost_in = true;
        rc = error_set(e, ERR_PROTOCOL, "message: more than %zu values",
                       values_max);
    }
    if (rc == OK)
        rc = take_message(w, len, message, fd, e);
    if (w->in.len == 0 || w->lost_in)
        buffer_free(&w->in);
    return rc;
}

int wire_pidfd(int fd, pid_t pid, bool *lasts)
{
    int pidfd = -1;
    socklen_t len = sizeof pidfd;
    *lasts = true;
    if (getsockopt(fd, SOL_SOCKET, SO_PEERPIDFD, &pidfd, &len) == 0)
        return pidfd;
    if (errno != ENOPROTOOPT) /* it has ended; its number may be another's */
        return -1;
    *lasts = false;
    return pid > 0 ? (int)syscall(SYS_pidfd_open, pid, 0) : -1;
}

enum code wire_peer(int fd, struct wire_peer *peer, struct error *e)
{
    struct ucred cred;
    socklen_t len = sizeof cred;
    *peer = (struct wire_peer){
        .uid = (uid_t)-1, .gid = (gid_t)-1, .pidfd = -1};
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) != 0)
        return error_errno(e, errno, "SO_PEERCRED");
    peer->uid = cred.uid;
    peer->gid = cred.gid;
    peer->pid = cred.pid;
    peer->pidfd = wire_pidfd(fd, cred.pid, &peer->vouched);
    return OK;
}

static enum code address(const char *path, struct sockaddr_un *a,
                         struct error *e)
{
    *a = (struct sockaddr_un){.sun_family = AF_UNIX};
    size_t len = strlen(path);
    if (len == 0 || len >= sizeof a->sun_path)
        return error_set(e, ERR_CONFIG,
                         "socket %s: the path must have 1 to %zu bytes", path,
                         sizeof a->sun_path - 1);
    memcpy(a->sun_path, path, len);
    return OK;
}

/* A socket that nobody listens on may go; anything else stays. */
static enum code remove_stale(const char *path, struct error *e)
{
    struct stat st;
    if (lstat(path, &st) != 0)
        return errno == ENOENT ? OK : error_errno(e, errno, "socket %s", path);
    if (!S_ISSOCK(st.st_mode))
        return error_set(e, ERR_CONFIG, "%s: is there and no socket: remove it",
                         path);
    FD probe = -1;
    enum code rc = wire_connect(path, 100, &probe, e);
    if (rc != ERR_DAEMON_DOWN)
        return error_set(e, ERR_BUSY, "socket %s: another process listens",
                         path);
    if (unlink(path) != 0)
        return error_errno(e, errno, "socket %s", path);
    return OK;
}

enum code wire_listen(const char *path, mode_t mode, int *fd, struct error *e)
{
    struct sockaddr_un a;
    *fd = -1;
    enum code rc = address(path, &a, e);
    if (!rc)
        rc = remove_stale(path, e);
    if (rc)
        return rc;
    FD s = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    /* Before listen() nobody can connect: the mode is in place by then. */
    if (s < 0 || bind(s, (struct sockaddr *)&a, sizeof a) != 0 ||
        chmod(path, mode) != 0 || listen(s, SOMAXCONN) != 0)
        return error_errno(e, errno, "socket %s", path);
    *fd = s;
    s = -1;
    return OK;
}

static enum code connect_error(struct error *e, int errnum, const char *path)
{
    switch (errnum) {
    case ENOENT:
    case ENOTDIR:
    case ECONNREFUSED:
        return error_set(e, ERR_DAEMON_DOWN, "no daemon listens on %s", path);
    case EAGAIN:
        return error_set(e, ERR_DEADLINE,
                         "the daemon on %s does not take connections", path);
    case EACCES:
        return error_set(e, ERR_DENIED, "socket %s: no permission", path);
    default:
        return error_errno(e, errnum, "socket %s", path);
    }
}

enum code wire_connect(const char *path, int deadline_ms, int *fd,
                       struct error *e)
{
    struct sockaddr_un a;
    *fd = -1;
    enum code rc = address(path, &a, e);
    if (rc)
        return rc;
    FD s = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (s < 0)
        return error_errno(e, errno, "socket");
    /* connect() to a full queue waits for as long as a send would. */
    struct timeval t = {0};
    if (deadline_ms >= 0) {
        int ms = deadline_ms ? deadline_ms : 1;
        t = (struct timeval){ms / 1000, ms % 1000 * 1000};
        if (setsockopt(s, SOL_SOCKET, SO_SNDTIMEO, &t, sizeof t) != 0)
            return error_errno(e, errno, "socket");
    }
    int64_t end = deadline_after(deadline_ms);
    while (connect(s, (struct sockaddr *)&a, sizeof a) != 0) {
        if (errno != EINTR || deadline_left(end) == 0)
            return connect_error(e, errno == EINTR ? EAGAIN : errno, path);
    }
    *fd = s;
    s = -1;
    return OK;
}

/* {name: value, "parameters": parameters}; steals both. */
static json_t *envelope(const char *name, json_t *value, json_t *parameters)
{
    JSON message = json_object();
    if (!parameters)
        parameters = json_object();
    int rc = name ? json_object_set_new(message, name, value) : 0;
    rc |= json_object_set_new(message, "parameters", parameters);
    if (rc)
        return NULL;
    json_t *whole = message;
    message = NULL;
    return whole;
}

json_t *wire_request(const char *method, json_t *parameters)
{
    return envelope("method", json_string(method), parameters);
}

json_t *wire_reply(json_t *parameters)
{
    return envelope(NULL, NULL, parameters);
}

json_t *wire_error_reply(const struct error *e)
{
    char name[64];
    snprintf(name, sizeof name, INTERFACE "%s", error_name(e->code));
    const char *text = e->text[0] ? e->text : error_default_text(e->code);
    return envelope("error", json_string(name),
                    json_pack("{s:s, s:s, s:I}", "text", text,
                              "service_request_id", e->service_request_id,
                              "retry_after_ms", (json_int_t)e->retry_after_ms));
}

enum code wire_parse_request(json_t *message, const char **method,
                             json_t **parameters, struct error *e)
{
    *method = NULL;
    *parameters = NULL;
    const struct json_field fields[] = {
        {"method", FIELD_STRING, true, method, NULL},
        {"parameters", FIELD_OBJECT, false, parameters, NULL},
    };
    enum code rc =
        json_decode(message, JSON_FIELDS(fields), false, "request", e);
    if (rc)
        return rc;
    if (*parameters)
        return OK;
    *parameters = json_object();
    if (json_object_set_new(message, "parameters", *parameters) != 0)
        return error_set(e, ERR_NOMEM, "request: out of memory");
    return OK;
}

static enum code carried_error(const char *name, json_t *parameters,
                               struct error *e)
{
    const char *text = "", *id = "";
    json_int_t retry = 0;
    const struct json_field fields[] = {
        {"text", FIELD_STRING, false, &text, NULL},
        {"service_request_id", FIELD_STRING, false, &id, NULL},
        {"retry_after_ms", FIELD_INT, false, &retry, NULL},
    };
    if (strncmp(name, INTERFACE, strlen(INTERFACE)) != 0)
        return error_set(e, ERR_PROTOCOL, "the daemon answered %s", name);
    enum code code = error_from_name(name + strlen(INTERFACE));
    enum code rc =
        json_decode(parameters, JSON_FIELDS(fields), true, "error reply", e);
    if (rc)
        return error_set(e, code, "%s", error_default_text(code));
    error_set(e, code, "%s", *text ? text : error_default_text(code));
    if (!e)
        return code;
    text_escape(e->service_request_id, sizeof e->service_request_id, id,
                strlen(id));
    if (retry > 0)
        e->retry_after_ms = retry < UINT32_MAX ? (uint32_t)retry : UINT32_MAX;
    return code;
}

enum code wire_parse_reply(json_t *message, json_t **parameters,
                           struct error *e)
{
    const char *name = NULL;
    json_t *carried = NULL;
    bool continues = false;
    const struct json_field fields[] = {
        {"error", FIELD_STRING, false, &name, NULL},
        {"parameters", FIELD_OBJECT, false, &carried, NULL},
        {"continues", FIELD_BOOL, false, &continues, NULL},
    };
    *parameters = NULL;
    enum code rc = json_decode(message, JSON_FIELDS(fields), true, "reply", e);
    if (rc || continues)
        return error_set(e, ERR_PROTOCOL, "a reply that is none of Varlink's");
    if (!carried) {
        carried = json_object();
        if (json_object_set_new(message, "parameters", carried) != 0)
            return error_set(e, ERR_NOMEM, "reply: out of memory");
    }
    if (name)
        return carried_error(name, carried, e);
    *parameters = carried;
    return OK;
}
