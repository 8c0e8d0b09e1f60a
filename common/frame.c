#include "config.h"

#include "common/buffer.h"
#include "common/deadline.h"
#include "common/file.h"
#include "common/frame.h"
#include "common/secret.h"
#include "common/socket.h"
#include "common/text.h"

#include <stdlib.h>
#include <string.h>

struct header {
    uint32_t magic;
    uint16_t verb;
    uint16_t status;
    uint32_t head_len;
    uint32_t body_len;
};
_Static_assert(sizeof(struct header) == 16, "spec/KEEPER.md");

#define FIRST_READ 8192 /* a whole frame, nearly always */

static const char *const verb_names[VERBS] = {
    [VERB_DESCRIBE] = "describe",
    [VERB_LOGIN] = "login",
    [VERB_LOGOUT] = "logout",
    [VERB_PROVISION] = "provision",
    [VERB_SEAL_KEY] = "seal-key",
    [VERB_BIND_KEY] = "bind-key",
    [VERB_USE_KEY] = "use-key",
    [VERB_DROP_KEY] = "drop-key",
    [VERB_SIGN_CALL] = "sign-call",
    [VERB_EXECUTE] = "execute",
    [VERB_PROBE] = "probe",
    [VERB_SEAL_VALUE] = "seal-value",
    [VERB_UNWRAP_VALUE] = "unwrap-value",
    [VERB_HMAC] = "hmac",
    [VERB_RANDOM] = "random",
    [VERB_MAKE_LOGIN] = "make-login",
    [VERB_CHECK_LOGIN] = "check-login",
    [VERB_REACH] = "reach",
    [VERB_LOG_STATE] = "log-state",
    [VERB_LOG_BEGIN] = "log-begin",
    [VERB_LOG_RESUME] = "log-resume",
    [VERB_SIGN_CHECKPOINT] = "sign-checkpoint",
    [VERB_ROTATE_KEY] = "rotate-key",
    [VERB_DESTROY_KEY] = "destroy-key",
    [VERB_CEREMONY] = "ceremony",
    [VERB_RESEAL] = "reseal",
    [VERB_RESTORE_KEYS] = "restore-keys",
    [VERB_ESCROW] = "escrow",
};

const char *verb_name(enum verb v)
{
    return (unsigned)v < VERBS ? verb_names[v] : NULL;
}

void frame_clear(struct frame *f)
{
    json_freep(&f->head);
    if (f->body)
        wipe(f->body, f->body_len);
    free(f->body);
    fd_closep(&f->fd);
    *f = (struct frame)FRAME_INIT;
}

/* Whatever ends a channel is the keeper's matter to the daemon; the keeper
 * itself just leaves. */
static enum code as_keeper(enum code rc, struct error *e)
{
    if (rc != ERR_DAEMON_DOWN)
        return rc;
    return error_set(e, ERR_KEEPER, "the channel to the keeper was closed");
}

enum code frame_send(int sock, const struct frame *f, int deadline_ms,
                     struct error *e)
{
    BUFFER head = BUFFER_INIT(FRAME_HEAD_MAX);
    if (f->head) {
        enum code rc = buffer_append_json(&head, f->head, JSON_COMPACT, e);
        if (rc)
            return rc;
    }
    if (f->body_len > FRAME_BODY_MAX)
        return error_set(e, ERR_PROTOCOL, "a frame's body of %zu bytes",
                         f->body_len);
    struct header h = {FRAME_MAGIC, (uint16_t)f->verb, (uint16_t)f->status,
                       (uint32_t)head.len, (uint32_t)f->body_len};
    const struct iovec parts[] = {
        {&h, sizeof h}, {head.data, head.len}, {f->body, f->body_len}};
    return as_keeper(
        socket_send(sock, parts, 3, f->fd, deadline_after(deadline_ms), e), e);
}

/* One frame on its way in: the first bytes land here, the rest goes straight
 * to its place. */
struct arrival {
    int sock;
    int64_t end;
    int *fd;
    uint8_t first[FIRST_READ];
    size_t len; /* of first */
    size_t used;
};

static enum code receive(struct arrival *a, void *to, size_t room, size_t *n,
                         struct error *e)
{
    return as_keeper(socket_recv(a->sock, to, room, n, a->fd, a->end, e), e);
}

/* The next `want` bytes of the frame. */
static enum code take_bytes(struct arrival *a, void *to, size_t want,
                            struct error *e)
{
    uint8_t *p = to;
    size_t here = a->len - a->used < want ? a->len - a->used : want;
    memcpy(p, a->first + a->used, here);
    a->used += here;
    while (here < want) {
        size_t n = 0;
        enum code rc = receive(a, p + here, want - here, &n, e);
        if (rc)
            return rc;
        here += n;
    }
    return OK;
}

static enum code take_header(struct arrival *a, struct header *h,
                             struct error *e)
{
    while (a->len < sizeof *h) {
        size_t n = 0;
        enum code rc =
            receive(a, a->first + a->len, sizeof a->first - a->len, &n, e);
        if (rc)
            return rc;
        a->len += n;
    }
    memcpy(h, a->first, sizeof *h);
    a->used = sizeof *h;
    if (h->magic != FRAME_MAGIC || h->verb >= VERBS || h->status >= ERR_CODES)
        return error_set(e, ERR_PROTOCOL, "not a frame");
    if (h->head_len > FRAME_HEAD_MAX || h->body_len > FRAME_BODY_MAX)
        return error_set(e, ERR_PROTOCOL, "a frame of %u and %u bytes",
                         h->head_len, h->body_len);
    /* One request, one reply: nothing may come behind a frame. */
    if (a->len - sizeof *h > (size_t)h->head_len + h->body_len)
        return error_set(e, ERR_PROTOCOL, "bytes behind a frame");
    return OK;
}

static enum code take_head(struct arrival *a, struct frame *f, size_t len,
                           struct error *e)
{
    if (len == 0)
        return OK;
    BUFFER text = BUFFER_INIT(FRAME_HEAD_MAX);
    enum code rc = buffer_reserve(&text, len, e);
    if (!rc)
        rc = take_bytes(a, text.data, len, e);
    if (rc)
        return rc;
    rc = json_parse(text.data, len, "frame", &f->head, e);
    if (rc || !json_is_object(f->head))
        return error_set(e, ERR_PROTOCOL, "a frame's head is no JSON object");
    return OK;
}

static enum code take_body(struct arrival *a, struct frame *f, size_t len,
                           struct error *e)
{
    if (len == 0)
        return OK;
    f->body = malloc(len);
    if (!f->body)
        return error_set(e, ERR_NOMEM, "no memory for %zu bytes", len);
    f->body_len = len;
    return take_bytes(a, f->body, len, e);
}

enum code frame_recv(int sock, struct frame *f, int deadline_ms,
                     struct error *e)
{
    struct arrival a;
    struct header h;
    frame_clear(f);
    a.sock = sock;
    a.end = deadline_after(deadline_ms);
    a.fd = &f->fd;
    a.len = a.used = 0;
    enum code rc = take_header(&a, &h, e);
    if (!rc) {
        f->verb = (enum verb)h.verb;
        f->status = (enum code)h.status;
        rc = take_head(&a, f, h.head_len, e);
    }
    if (!rc)
        rc = take_body(&a, f, h.body_len, e);
    wipe(a.first, a.len);
    if (rc)
        frame_clear(f);
    return rc;
}

enum code frame_send_error(int sock, const struct error *e, int deadline_ms)
{
    FRAME f = FRAME_INIT;
    f.status = e->code ? e->code : ERR_INTERNAL;
    f.head = json_pack("{s:s, s:s, s:I}", "text", e->text, "request_id",
                       e->service_request_id, "retry_after_ms",
                       (json_int_t)e->retry_after_ms);
    return frame_send(sock, &f, deadline_ms, NULL);
}

enum code frame_result(const struct frame *reply, struct error *e)
{
    if (reply->status == OK)
        return OK;
    const char *text = "", *id = "";
    json_int_t retry = 0;
    const struct json_field fields[] = {
        {"text", FIELD_STRING, false, &text, NULL},
        {"request_id", FIELD_STRING, false, &id, NULL},
        {"retry_after_ms", FIELD_INT, false, &retry, NULL},
    };
    enum code rc = reply->head ? json_decode(reply->head, JSON_FIELDS(fields),
                                             true, "the keeper's error", e)
                               : OK;
    if (rc)
        return error_set(e, ERR_KEEPER, "the keeper's error is malformed");
    error_set(e, reply->status, "%s",
              *text ? text : error_default_text(reply->status));
    if (!e)
        return reply->status;
    text_escape(e->service_request_id, sizeof e->service_request_id, id,
                strlen(id));
    if (retry > 0)
        e->retry_after_ms = retry < UINT32_MAX ? (uint32_t)retry : UINT32_MAX;
    return reply->status;
}
