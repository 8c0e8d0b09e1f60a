/* permit - the verbs, what each may bring along and what it needs; and the
 * thread that serves one channel. spec/KEEPER.md. */
#include "config.h"

#include "hsm/keeper.h"

#include "common/log.h"
#include "hsm/http.h"

#include <string.h>
#include <sys/socket.h>

#define REPLY_MS 30000 /* the daemon reads its replies at once */

enum {
    TAKES_BODY = 1, /* a body is part of the request */
    TAKES_FD = 2,   /* a descriptor is part of the request */
    NEEDS_READY = 4 /* logged in and provisioned */
};

static const struct permit {
    verb_fn fn;
    unsigned flags;
} permits[VERBS] = {
    [VERB_DESCRIBE] = {access_describe, 0},
    [VERB_LOGIN] = {access_login, TAKES_FD},
    [VERB_LOGOUT] = {access_logout, 0},
    [VERB_PROVISION] = {access_provision, 0},
    [VERB_SEAL_KEY] = {orgkey_seal, TAKES_FD | NEEDS_READY},
    [VERB_BIND_KEY] = {orgkey_bind, TAKES_BODY | NEEDS_READY},
    [VERB_USE_KEY] = {orgkey_use, TAKES_BODY | NEEDS_READY},
    [VERB_DROP_KEY] = {orgkey_drop, NEEDS_READY},
    [VERB_SIGN_CALL] = {execute_sign, TAKES_BODY | NEEDS_READY},
    [VERB_EXECUTE] = {execute_call, TAKES_BODY | NEEDS_READY},
    [VERB_PROBE] = {value_probe, TAKES_BODY | NEEDS_READY},
    [VERB_SEAL_VALUE] = {value_seal, TAKES_BODY | NEEDS_READY},
    [VERB_UNWRAP_VALUE] = {value_unwrap, TAKES_BODY | NEEDS_READY},
    [VERB_HMAC] = {marker_hmac, TAKES_BODY | NEEDS_READY},
    [VERB_RANDOM] = {random_bytes, 0},
    [VERB_MAKE_LOGIN] = {secretid_make, NEEDS_READY},
    [VERB_CHECK_LOGIN] = {secretid_check, TAKES_FD | NEEDS_READY},
    [VERB_REACH] = {reach_service, NEEDS_READY},
    [VERB_LOG_STATE] = {log_state, NEEDS_READY},
    [VERB_LOG_BEGIN] = {log_begin, TAKES_BODY | NEEDS_READY},
    [VERB_LOG_RESUME] = {log_resume, TAKES_BODY | NEEDS_READY},
    [VERB_SIGN_CHECKPOINT] = {log_sign, TAKES_BODY | NEEDS_READY},
    [VERB_ROTATE_KEY] = {rekey_rotate, NEEDS_READY},
    [VERB_DESTROY_KEY] = {rekey_destroy, NEEDS_READY},
    [VERB_CEREMONY] = {ceremony_state, TAKES_BODY | NEEDS_READY},
    [VERB_RESEAL] = {rekey_reseal, TAKES_BODY | NEEDS_READY},
    [VERB_RESTORE_KEYS] = {restore_keys, TAKES_FD},
    [VERB_ESCROW] = {escrow_give, NEEDS_READY},
};

/* Only when not ready, so what it costs does not matter. An absent HSM is left
 * to the verb itself: the HSM may have come back. */
static enum code not_ready(struct keeper *k, struct error *e)
{
    JSON state = NULL;
    enum code rc = hsm_describe(k->hsm, &state, e);
    if (rc)
        return rc;
    const char *name = json_string_value(json_object_get(state, "state"));
    if (name && strcmp(name, "locked") == 0)
        return error_set(e, ERR_LOCKED,
                         "the HSM is locked: log in with its user PIN, or run "
                         "`hsmint hsm unlock`");
    if (name && strcmp(name, "unprovisioned") == 0)
        return error_set(e, ERR_HSM_KEYS,
                         "the HSM's keys were not made or checked yet: run "
                         "`hsmint init`");
    return OK;
}

static enum code dispatch(struct channel *c, struct frame *in,
                          struct frame *out, struct error *e)
{
    const char *name = verb_name(in->verb);
    const struct permit *p = NULL;
    if (name && in->verb > 0 && in->verb < VERBS)
        p = &permits[in->verb];
    if (!p || !p->fn)
        return error_set(e, ERR_PROTOCOL, "the keeper knows no verb %d",
                         (int)in->verb);
    if (in->body_len > 0 && !(p->flags & TAKES_BODY))
        return error_set(e, ERR_PROTOCOL, "%s takes no body", name);
    if (in->fd >= 0 && !(p->flags & TAKES_FD))
        return error_set(e, ERR_PROTOCOL, "%s takes no descriptor", name);
    if (!in->head && !(in->head = json_object()))
        return error_set(e, ERR_NOMEM, "no memory for a request");
    if ((p->flags & NEEDS_READY) && !hsm_ready(c->keeper->hsm)) {
        enum code rc = not_ready(c->keeper, e);
        if (rc)
            return rc;
    }
    return p->fn(c, in, out, e);
}

/* OK: the channel goes on. */
static enum code serve_one(struct channel *c, struct error *e)
{
    FRAME in = FRAME_INIT;
    FRAME out = FRAME_INIT;
    enum code rc = frame_recv(c->sock, &in, -1, e);
    if (rc)
        return rc;
    struct error failure = {.code = OK};
    out.verb = in.verb;
    rc = dispatch(c, &in, &out, &failure);
    if (rc)
        return frame_send_error(c->sock, &failure, REPLY_MS);
    return frame_send(c->sock, &out, REPLY_MS, e);
}

void permit_serve(struct channel *c)
{
    struct error e = {.code = OK};
    while (serve_one(c, &e) == OK)
        secret_clear_registers();
    secret_clear_registers();
    log_debug("channel %d ended: %s", c->sock, e.text);
    http_free(c->http);
    c->http = NULL;
    /* Not closed: its number would go to another, and main() watches it. */
    shutdown(c->sock, SHUT_RDWR);
}
