/* gate - see gate.h. */
#include "config.h"

#include "module/core/gate.h"

#include "common/clock.h"
#include "common/file.h"
#include "module/core/internal.h"
#include "module/core/logbook.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define SUPERSEDED_NAP_MS 50
#define EXECUTE_SLACK_MS 1000 /* for the keeper to notice its own deadline */
#define TEXT_SHOWN 1024        /* of an error's, in a record */

void gate_reply_clear(struct gate_reply *r)
{
    frame_clear(&r->frame);
}

/* ---- records ---- */

struct intent {
    struct core *core;
    const struct gate_call *call;
    const char *id;
    json_t *signed_call; /* the keeper's answer to sign-call */
    char *line;          /* of the record; may be made twice */
    bool superseded;     /* its signature is of a compromised key */
};

static void intent_clear(struct intent *i)
{
    free(i->line);
}

static struct logbook_entry entry(const struct gate_call *call,
                                  enum record_kind kind, json_t *more)
{
    return (struct logbook_entry){.kind = kind,
                                  .by = call->by,
                                  .org = call->org,
                                  .role = call->role,
                                  .lease = call->lease,
                                  .more = more};
}

static enum code commit_intent(struct store_tx *tx, void *ctx, struct error *e)
{
    struct intent *i = ctx;
    const struct gate_call *call = i->call;
    JSON parts = json_copy(i->signed_call);
    struct logbook_entry r;
    enum code code = OK;

    code = keystates_check_signer(
        i->core, tx, json_string_value(json_object_get(parts, "keyid")), e);
    i->superseded = code == ERR_NOT_SIGNED;
    if (!code && call->intent)
        code = call->intent(tx, call->intent_ctx, e);
    if (code)
        return code;
    json_object_del(parts, "call"); /* the keeper's handle */
    r = entry(call, RECORD_CALL,
              json_pack("{ss ss ss ss* sO}", "call", i->id, "purpose",
                        call->purpose, "method", call->request->method, "body",
                        call->request->body, "signed", parts));
    free(i->line);
    return logbook_add_line(i->core, tx, &r, &i->line, e);
}

struct outcome {
    struct core *core;
    const struct gate_call *call;
    const struct gate_reply *reply;
    const struct error *result;
    store_fn fn;
    void *ctx;
};

/* Status, result and text are what came of it; the text may quote the service.
 */
static json_t *outcome_json(const struct outcome *o)
{
    static const char *const fates[] = {"nothing", "not sent", "unknown",
                                        "answered"};
    const struct gate_reply *r = o->reply;
    const char *text = o->result->text, *id = r->http.request_id;
    JSON j = json_pack("{ss ss sI ss sI}", "call", r->call, "fate",
                       fates[r->fate], "status", (json_int_t)r->http.status,
                       "result",
                       o->result->code ? error_name(o->result->code) : "ok",
                       "duration_us", (json_int_t)r->duration_us);

    /* One that cannot be told whole is not told at all: what it ends goes on. */
    if (!j ||
        (*text && json_object_set_new(
                      j, "text", logbook_error_text(text, TEXT_SHOWN)) != 0) ||
        (*id && json_object_set_new(j, "service_request_id",
                                    logbook_error_text(id, TEXT_SHOWN)) != 0))
        return NULL;
    return json_incref(j);
}

static enum code commit_outcome(struct store_tx *tx, void *ctx, struct error *e)
{
    struct outcome *o = ctx;
    struct logbook_entry r;
    enum code code = OK;

    if (o->reply->fate != GATE_NOTHING) {
        r = entry(o->call, RECORD_OUTCOME, outcome_json(o));
        code = logbook_add(o->core, tx, &r, e);
    }
    return !code && o->fn ? o->fn(tx, o->ctx, e) : code;
}

/* ---- the steps ---- */

static enum code sign(struct core *c, const struct gate_call *call,
                      struct frame *reply, uint64_t *generation,
                      struct error *e)
{
    const struct openai_request *r = call->request;
    FRAME request = FRAME_INIT;

    request.verb = VERB_SIGN_CALL;
    request.head =
        json_pack("{ss sb ss ss}", "org", call->org, "candidate",
                  call->candidate, "method", r->method, "path", r->path);
    if (r->body) {
        request.body = (uint8_t *)strdup(r->body);
        request.body_len = strlen(r->body);
    }
    if (!request.head || (r->body && !request.body))
        return error_set(e, ERR_NOMEM, "no memory to sign a call");
    return unlock_call(c, &request, (int)c->settings->hsm_deadline_ms, reply,
                       generation, e);
}

/* The keeper's errors that say for sure that nothing left the host. */
static bool is_not_sent(enum code code)
{
    switch (code) {
    case ERR_SERVICE_DOWN:
    case ERR_NOT_SIGNED:
    case ERR_NOT_LOGGED:
    case ERR_NO_ADMIN_KEY:
    case ERR_LOCKED:
    case ERR_SEAL:
    case ERR_HSM_ABSENT:
    case ERR_HSM_KEYS:
    case ERR_HSM_FAILED:
        return true;
    default:
        return false;
    }
}

static enum code decode_answer(struct gate_reply *r, struct error *e)
{
    json_int_t status = 0, retry = 0, duration = 0;
    const char *request_id = "";
    json_t *rate = NULL;
    const struct json_field fields[] = {
        {"status", FIELD_INT, true, &status, NULL},
        {"request_id", FIELD_STRING, false, &request_id, NULL},
        {"retry_after_ms", FIELD_INT, false, &retry, NULL},
        {"duration_us", FIELD_INT, false, &duration, NULL},
        {"value_hmac", FIELD_STRING, false, &r->key_hmac, NULL},
        {"rate", FIELD_OBJECT, false, &rate, NULL},
    };
    enum code code = json_decode(r->frame.head, JSON_FIELDS(fields), true,
                                 "the keeper's reply", e);

    if (code)
        return code;
    r->http = (struct openai_reply){
        .status = (long)status,
        .body = r->frame.body ? (const char *)r->frame.body : "",
        .body_len = r->frame.body_len,
        .request_id = request_id,
        .retry_after_ms =
            retry > 0 && retry <= UINT32_MAX ? (uint32_t)retry : 0};
    r->duration_us = duration;
    r->told = (struct pace_told){
        .refused = status == 429,
        .answered = status == 200,
        .retry_after_ms = r->http.retry_after_ms,
        .limit = json_integer_value(json_object_get(rate, "limit")),
        .remaining = json_integer_value(json_object_get(rate, "remaining")),
        .reset_ms = json_integer_value(json_object_get(rate, "reset_ms"))};
    return OK;
}

/* The longest that a call may take. */
static int service_ms(const struct core *c)
{
    const struct settings *s = c->settings;

    return (int)(s->hsm_deadline_ms + s->connect_ms + s->call_ms) +
           EXECUTE_SLACK_MS;
}

/* The record's line goes along: the keeper makes no call that is not logged. */
static enum code execute(struct core *c, struct intent *i, uint64_t generation,
                         struct gate_reply *r, struct error *e)
{
    FRAME request = FRAME_INIT;
    bool handed = false;
    enum code code;

    request.verb = VERB_EXECUTE;
    request.head =
        json_pack("{sO*}", "call", json_object_get(i->signed_call, "call"));
    r->fate = GATE_NOT_SENT;
    if (!request.head)
        return error_set(e, ERR_NOMEM, "no memory to send a call");
    request.body = (uint8_t *)i->line;
    request.body_len = strlen(i->line);
    i->line = NULL;
    code = keeper_call(c->keeper, generation, &request,
                       service_ms(c), &r->frame, &handed, e);
    if (!code)
        code = decode_answer(r, e);
    if (!code)
        r->fate = GATE_ANSWERED;
    else if (handed && !is_not_sent(code))
        r->fate = GATE_UNKNOWN;
    return code;
}

static void count(struct core *c, const struct gate_call *call,
                  const struct gate_reply *r)
{
    const char *method = call->request->method;

    if (r->fate == GATE_NOTHING)
        return;
    if (r->fate != GATE_ANSWERED) {
        metrics_request(&c->metrics, method, 0,
                        r->fate == GATE_UNKNOWN ? "unknown" : "not-sent");
        return;
    }
    metrics_request(&c->metrics, method, r->http.status, NULL);
    metrics_time(&c->metrics, METRICS_REQUEST_SECONDS, r->duration_us);
}

/* The keeper will want to see it in a signed tree: nothing is signed, and no
 * intent committed, that it would refuse. One that is started meanwhile has to
 * be shown the log before it signs. */
static enum code sign_logged(struct core *c, const struct gate_call *call,
                             struct frame *reply, uint64_t *generation,
                             struct error *e)
{
    uint64_t attached = 0;

    for (int tries = 0;; tries++) {
        enum code code = notary_enter(c, &attached, e);

        if (code)
            return code;
        code = sign(c, call, reply, generation, e);
        if (!code && (*generation == attached || tries > 0))
            return OK;
        notary_left(c);
        if (code)
            return code;
        frame_clear(reply);
    }
}

static enum code commit_logged(struct core *c, struct intent *i,
                               struct error *e)
{
    enum code code =
        store_commit(c->store, i->call->urgency, commit_intent, i, e);

    if (code)
        notary_left(c);
    else
        notary_logged(c);
    return code;
}

/* Once a key is told to be compromised, no record has a signature of it: until
 * the keeper has the next one, it is signed again. */
static enum code sign_and_commit(struct core *c, struct intent *i,
                                 struct frame *reply, uint64_t *generation,
                                 struct error *e)
{
    int64_t end = clock_monotonic_ms() + c->settings->hsm_deadline_ms;
    enum code code;

    for (;;) {
        code = sign_logged(c, i->call, reply, generation, e);
        i->signed_call = reply->head;
        if (!code)
            code = commit_logged(c, i, e);
        if (!code || !i->superseded || clock_monotonic_ms() >= end)
            return code;
        i->superseded = false;
        frame_clear(reply);
        *reply = (struct frame)FRAME_INIT;
        usleep(SUPERSEDED_NAP_MS * 1000);
    }
}

enum code gate_send(struct core *c, const struct gate_call *call,
                    struct gate_reply *r, struct error *e)
{
    FRAME signed_call = FRAME_INIT;
    SHARE share = {NULL, NULL};
    CLEANUP(intent_clear)
    struct intent intent = {.core = c, .call = call, .id = r->call};
    uint64_t generation = 0;
    struct error *why = &r->error;
    enum code code;

    r->fate = GATE_NOTHING;
    r->http.request_id = "";
    error_clear(why);
    if (call->by)
        crew_caller(c, true);
    code = text_id(r->call, why);
    /* Before it is signed: a signature is good for a minute only. */
    if (!code && call->by)
        code = share_enter(&c->shares, call->by->uid, service_ms(c), &share,
                           why);
    if (!code)
        code = sign_and_commit(c, &intent, &signed_call, &generation, why);
    if (!code)
        code = execute(c, &intent, generation, r, why);
    if (code == ERR_NOT_LOGGED && r->fate == GATE_NOT_SENT)
        notary_refused(c);
    count(c, call, r);
    if (r->fate == GATE_ANSWERED)
        crew_hear(c, call->org, &r->told);
    if (call->by)
        crew_caller(c, false);
    if (!code)
        code = openai_check(call->request, &r->http, why);
    if (r->fate == GATE_NOTHING)
        health_note(c, call, r, why);
    if (code && e)
        *e = *why;
    return code;
}

enum code gate_settle(struct core *c, const struct gate_call *call,
                      const struct gate_reply *r, const struct error *result,
                      store_fn fn, void *ctx, struct error *e)
{
    struct outcome o = {c, call, r, result ? result : &r->error, fn, ctx};

    if (r->fate != GATE_NOTHING)
        health_note(c, call, r, o.result);
    if (r->fate == GATE_NOTHING && !fn)
        return OK;
    return store_commit(c->store, STORE_RESERVE, commit_outcome, &o, e);
}

enum code gate_ask(struct core *c, const struct gate_call *call,
                   struct gate_reply *r, struct error *e)
{
    enum code code = gate_send(c, call, r, e);
    enum code settled =
        gate_settle(c, call, r, NULL, NULL, NULL, code ? NULL : e);

    return code ? code : settled;
}
