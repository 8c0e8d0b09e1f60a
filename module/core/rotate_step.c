/* rotate_step - see rotate_step.h. */
#include "config.h"

#include "module/core/rotate_parts.h"

#include "common/base64.h"
#include "common/clock.h"
#include "common/file.h"
#include "common/log.h"
#include "common/text.h"
#include "module/core/gate.h"
#include "module/core/internal.h"
#include "module/core/lease.h"
#include "module/core/logbook.h"
#include "module/core/marker.h"
#include "module/core/schedule.h"

#include <stdlib.h>
#include <string.h>

enum {
    BLOB_MAX = 16384
};
#define TIME_MAX_S INT64_C(253402300800) /* the year 10000 */

void rotate_step_clear(struct rotate_step *s)
{
    store_org_clear(&s->org);
    config_clear(&s->config);
    rotation_clear(&s->r);
}
enum code rotate_step_load(struct rotate_step *s, const char *org,
                           struct error *e)
{
    enum code code = core_org(s->core, org, &s->org, e);

    if (!code)
        code = config_parse(&s->config, s->org.config, e);
    return code ? code : rotate_adopt(s, e);
}

enum code rotate_step_begin(struct rotate_step *s, const char *cause,
                            struct error *e)
{
    struct rotation *r = &s->r;
    char marker[TEMPLATE_MARKER_LEN + 1];
    enum code code;

    if (!s->org.admin_blob || !*s->config.admin_api_key_id)
        return error_set(e, ERR_NO_ADMIN_KEY,
                         "organisation %s has no admin key to rotate",
                         s->org.name);
    code = rotation_none(s->core->store, s->org.name, e);
    if (code)
        return code;
    *r = (struct rotation){.begun_ms = steady_ms(s->core)};
    r->due_ms = r->begun_ms + ROTATE_LOOK_MS;
    snprintf(r->org, sizeof(r->org), "%s", s->org.name);
    snprintf(r->cause, sizeof(r->cause), "%s", cause);
    snprintf(r->old_id, sizeof(r->old_id), "%s", s->config.admin_api_key_id);
    r->old_sealed = malloc(s->org.admin_blob_len);
    if (!r->old_sealed)
        return error_set(e, ERR_NOMEM, "no memory for a rotation");
    memcpy(r->old_sealed, s->org.admin_blob, s->org.admin_blob_len);
    r->old_sealed_len = s->org.admin_blob_len;
    code = marker_take(s->core, marker, e);
    snprintf(r->name, sizeof(r->name), "hsmint-%s-%s", s->org.name, marker);
    return code;
}

static void note_error(struct rotation *r, const struct error *why)
{
    const char *text = why ? why->text : "";

    text_escape(r->error, sizeof(r->error), text, strlen(text));
}

/* ---- rows ---- */

static enum code put_blob(struct store_tx *tx, const struct rotate_step *s,
                          struct error *e)
{
    const struct rotation *n = &s->r;
    enum code code =
        store_org_set_blob(tx, s->org.id, n->sealed, n->sealed_len, e);

    if (code)
        return code;
    const struct logbook_entry r = {
        .kind = RECORD_SEAL,
        .by = s->by,
        .org = s->org.name,
        .more = logbook_seal(n->new_id, n->sealed, n->sealed_len)};

    return logbook_add(s->core, tx, &r, e);
}

/* The new key is taken in the transaction that says that it works. */
static enum code put_config(struct store_tx *tx, const struct rotate_step *s,
                            struct error *e)
{
    FREE char *text = NULL;
    enum code code = config_text(&s->config, &text, e);

    if (!code)
        code = store_org_set_config(tx, s->org.id, text, e);
    return code || s->r.state != ROTATION_RETIRE ? code : put_blob(tx, s, e);
}

static enum code record(struct store_tx *tx, const struct rotate_step *s,
                        struct error *e)
{
    const struct rotation *n = &s->r;
    const struct logbook_entry r = {
        .kind = RECORD_ROTATE,
        .by = s->by,
        .org = s->org.name,
        .more = json_pack("{ss ss ss ss ss si}", "state",
                          rotation_state_name(n->state), "cause", n->cause,
                          "name", n->name, "new",
                          n->new_id, "old", n->old_id, "tries",
                          (int)n->tries)};

    return logbook_add(s->core, tx, &r, e);
}

static enum code save(struct store_tx *tx, void *ctx, struct error *e)
{
    const struct rotate_step *s = ctx;
    enum code code = rotation_save(tx, &s->r, e);

    if (!code && s->new_config)
        code = put_config(tx, s, e);
    return code ? code : record(tx, s, e);
}

static enum code commit(struct rotate_step *s, const struct gate_call *call,
                        const struct gate_reply *reply, const struct error *why,
                        struct error *e)
{
    enum code code = reply ? gate_settle(s->core, call, reply, why, save, s, e)
                           : store_commit(s->core->store, STORE_RESERVE, save,
                                          s, e);

    s->new_config = false;
    if (!code)
        rotation_saved(&s->r);
    return code;
}

/* The event's state, due at once, with the outcome of `reply` (may be NULL). */
enum code rotate_advance(struct rotate_step *s, enum rotation_event event,
                         const struct gate_call *call,
                         const struct gate_reply *reply, int64_t wait_ms,
                         struct error *e)
{
    int64_t now = steady_ms(s->core);
    enum code code = rotation_next(s->r.state, event, &s->r.state, e);

    if (code)
        return code;
    s->r.begun_ms = now;
    s->r.due_ms = now + wait_ms;
    s->r.tries = 0;
    note_error(&s->r, NULL);
    return commit(s, call, reply, NULL, e);
}

/* The same state, later; `why` is kept. */
enum code rotate_later(struct rotate_step *s, const struct gate_call *call,
                           const struct gate_reply *reply, int64_t wait_ms,
                           const struct error *why, struct error *e)
{
    int64_t now = steady_ms(s->core);

    s->r.tries++;
    s->r.due_ms = now + wait_ms;
    if (s->r.begun_ms > now) /* a clock that was set back */
        s->r.begun_ms = now;
    note_error(&s->r, why);
    return commit(s, call, reply, why, e);
}

static enum code put_want(struct store_tx *tx, void *ctx, struct error *e)
{
    const struct rotate_step *s = ctx;
    FREE char *text = NULL;
    struct logbook_entry r = {
        .kind = RECORD_CONFIG, .by = s->by, .org = s->org.name};
    enum code code = config_text(&s->config, &text, e);

    if (!code)
        code = store_org_set_config(tx, s->org.id, text, e);
    if (code)
        return code;
    r.more = logbook_change(s->org.name, s->config.rotation_wanted,
                            s->org.config, text);
    return logbook_add(s->core, tx, &r, e);
}

enum code rotate_step_want(struct rotate_step *s, const char *cause,
                           struct error *e)
{
    struct config *c = &s->config;

    if (!s->org.admin_blob)
        return error_set(e, ERR_NO_ADMIN_KEY,
                         "organisation %s has no admin key to rotate",
                         s->org.name);
    snprintf(c->rotation_wanted, sizeof(c->rotation_wanted), "%s", cause);
    c->wanted_ms = clock_wall_ms();
    return store_commit(s->core->store, STORE_RESERVE, put_want, s, e);
}

enum code rotate_step_hurry(struct rotate_step *s, const char *cause,
                            struct error *e)
{
    snprintf(s->r.cause, sizeof(s->r.cause), "%s", cause);
    s->r.due_ms = steady_ms(s->core);
    return commit(s, NULL, NULL, NULL, e);
}

/* ---- make ---- */

static enum code insert(struct store_tx *tx, void *ctx, struct error *e)
{
    return rotation_save(tx, ctx, e);
}

/* An id that is taken: the new key's own would be lost with the answer, and at
 * its end another would be deleted. */
static enum code is_same_id(const struct rotation *r, void *ctx,
                            struct error *e)
{
    const char *id = ctx;

    if (strcmp(r->old_id, id) != 0 && strcmp(r->new_id, id) != 0)
        return OK;
    return error_set(e, ERR_SERVICE_REPLY,
                     "the service gave the new admin key the id of another "
                     "one, %s",
                     id);
}

static enum code check_id(struct rotate_step *s, const char *id,
                          struct error *e)
{
    FREE char *copy = strdup(id);

    if (!copy)
        return error_set(e, ERR_NOMEM, "no memory for a rotation");
    return rotation_each(s->core->store, s->org.name, is_same_id, copy, e);
}

static enum code take_made(struct rotate_step *s,
                           const struct gate_reply *reply, struct error *e)
{
    const char *id = "", *sealed = "", *name = "";
    json_int_t expires = 0;
    JSON body = NULL;
    const struct json_field fields[] = {
        {"id", FIELD_STRING, true, &id, NULL},
        {"name", FIELD_STRING, false, &name, NULL},
        {"sealed", FIELD_STRING, true, &sealed, NULL},
        {"expires_at", FIELD_INT, false, &expires, NULL},
    };
    enum code code = json_parse(reply->http.body, reply->http.body_len,
                                "the new admin key", &body, e);

    if (!code)
        code = json_decode(body, JSON_FIELDS(fields), true, "new admin key", e);
    if (!code)
        code = text_check_service_id("admin key id", id, e);
    if (code)
        return error_set(e, ERR_SERVICE_REPLY,
                         "the service's answer names no new admin key");
    /* Somebody else's is neither taken nor, later, deleted. */
    if (*name && strcmp(name, s->r.name) != 0)
        return error_set(e, ERR_SERVICE_REPLY,
                         "the service answered for another admin key than the "
                         "one asked for: does a proxy mix replies up?");
    code = check_id(s, id, e);
    if (code)
        return code;
    s->r.sealed = malloc(BLOB_MAX);
    if (!s->r.sealed)
        return error_set(e, ERR_NOMEM, "no memory for a rotation");
    if (!base64_decode(sealed, strlen(sealed), s->r.sealed, BLOB_MAX,
                       &s->r.sealed_len))
        return error_set(e, ERR_KEEPER, "the keeper sealed no new admin key");
    snprintf(s->r.new_id, sizeof(s->r.new_id), "%s", id);
    s->r.expires_ms = expires > 0 && expires < TIME_MAX_S
                          ? (int64_t)expires * 1000
                          : 0;
    return OK;
}

static bool is_refusal(const struct gate_reply *r)
{
    return r->fate == GATE_NOT_SENT ||
           (r->fate == GATE_ANSWERED && r->http.status >= 300 &&
            r->http.status < 500 && r->http.status != 408);
}

/* Nothing was made, or it is not known: then it is looked for by its name. */
static enum code not_made(struct rotate_step *s, const struct gate_call *call,
                          const struct gate_reply *reply, struct error *e)
{
    struct error why = *e, local = {0};
    enum code code;

    if (reply->fate == GATE_NOTHING)
        return why.code;
    code = is_refusal(reply)
               ? rotate_advance(s, ROTATION_NOTHING, call, reply, 0, &local)
               : rotate_later(s, call, reply, ROTATE_LOOK_MS, &why, &local);
    if (code)
        log_failure(&local, "rotation of %s: its step is not kept",
                    s->org.name);
    *e = why;
    return why.code;
}

enum code rotate_step_make(struct rotate_step *s, struct error *e)
{
    CLEANUP(openai_request_clear) struct openai_request request = {0};
    GATE_REPLY reply = GATE_REPLY_INIT;
    struct gate_call call = {.org = s->org.name,
                             .purpose = "rotate",
                             .by = s->by,
                             .request = &request,
                             .urgency = STORE_NORMAL,
                             .intent = insert,
                             .intent_ctx = &s->r};
    struct error why = {0};
    int64_t life_s = schedule_life_s(&s->config, clock_wall_ms());
    enum code code = openai_admin_key_create(&request, s->r.name, life_s, &why);

    if (code)
        reply.fate = GATE_NOTHING;
    if (!code)
        code = gate_send(s->core, &call, &reply, &why);
    if (reply.fate != GATE_NOTHING)
        rotation_saved(&s->r);
    if (!code)
        code = take_made(s, &reply, &why);
    if (!code)
        code = rotate_advance(s, ROTATION_MADE, &call, &reply, 0, &why);
    else
        code = not_made(s, &call, &reply, &why);
    if (code && e)
        *e = why;
    return code;
}

/* ---- prove ---- */

static enum code pass(const struct openai_admin_key *k, void *ctx,
                      struct error *e)
{
    (void)k, (void)ctx, (void)e;
    return OK;
}

/* A call with a key that is only tried: OK, or what the service says. */
enum code rotate_try(struct rotate_step *s, const uint8_t *blob, size_t len,
                         struct error *e)
{
    CLEANUP(openai_request_clear) struct openai_request request = {0};
    GATE_REPLY reply = GATE_REPLY_INIT;
    FREE char *after = NULL;
    struct gate_call call = {.org = s->org.name,
                             .candidate = true,
                             .purpose = "rotate",
                             .by = s->by,
                             .request = &request,
                             .urgency = STORE_RESERVE};
    enum code code = rotate_use(s, blob, len, USE_TRY, e);

    if (!code)
        code = openai_admin_key_list(&request, NULL, e);
    if (!code)
        code = gate_ask(s->core, &call, &reply, e);
    /* What answers 200 to everything is not the service. */
    return code ? code
                : openai_decode_admin_key_list(&reply.http, pass, NULL, &after,
                                               e);
}

static enum code take_text(char **field, const char *text, struct error *e)
{
    char *copy = strdup(text);

    if (!copy)
        return error_set(e, ERR_NOMEM, "no memory for a configuration");
    free(*field);
    *field = copy;
    return OK;
}

int64_t rotate_overlap_ms(const struct core *c, const char *cause)
{
    const struct settings *s = c->settings;

    if (strcmp(cause, ROTATE_COMPROMISED) == 0)
        return 0;
    return s->hsm_deadline_ms + s->connect_ms + s->call_ms;
}

static enum code take_key(struct rotate_step *s, struct error *e)
{
    enum code code =
        take_text(&s->config.admin_api_key_id, s->r.new_id, e);

    if (code)
        return code;
    s->config.last_rotated_ms = clock_wall_ms();
    s->config.key_expires_ms = s->r.expires_ms;
    s->config.by_hand = false;
    s->config.rotation_wanted[0] = '\0';
    s->config.wanted_ms = 0;
    s->new_config = true;
    code = rotate_advance(s, ROTATION_WORKS, NULL, NULL,
                   rotate_overlap_ms(s->core, s->r.cause), e);
    if (!code)
        code = rotate_step_use(s, s->r.sealed, s->r.sealed_len, e);
    if (code)
        return error_prefix(e, "the new admin key is stored and taken at the "
                               "next start, but not yet in use");
    health_key(s->core, s->org.name, &s->config);
    log_info("organisation %s: admin key %s took the place of %s", s->org.name,
             s->r.new_id, s->r.old_id);
    return OK;
}

static enum code prove(struct rotate_step *s, struct error *e)
{
    struct error why = {0};
    enum code code = rotate_try(s, s->r.sealed, s->r.sealed_len, &why);
    bool is_late = steady_ms(s->core) >= s->r.begun_ms + ROTATE_PROVE_MS;

    if (!code)
        return take_key(s, e);
    if ((code == ERR_SERVICE_AUTH || code == ERR_SERVICE_FORBIDDEN) && is_late)
        return rotate_advance(s, ROTATION_USELESS, NULL, NULL, 0, e);
    return rotate_later(s, NULL, NULL,
                     code == ERR_SERVICE_AUTH
                         ? ROTATE_LOOK_MS
                         : lease_backoff_ms(s->r.tries, why.retry_after_ms),
                     &why, e);
}

struct goes {
    const char *id, *endpoint;
    bool used;
};

static enum code is_used(const struct store_org *org, void *ctx,
                         struct error *e)
{
    struct goes *g = ctx;
    CONFIG config = {0};
    enum code code = config_parse(&config, org->config, e);

    if (!code && strcmp(config.admin_api_key_id, g->id) == 0 &&
        strcmp(config.api_endpoint, g->endpoint) == 0)
        g->used = true;
    return code;
}

/* What is to go is the organisation's key again, or another one's of ours. */
static enum code look_if_kept(struct rotate_step *s, bool *kept,
                              struct error *e)
{
    struct goes g = {
        .id = s->r.state == ROTATION_DROP ? s->r.new_id : s->r.old_id,
        .endpoint = s->config.api_endpoint};
    enum code code = s->r.state < ROTATION_RETIRE
                         ? OK
                         : store_org_each(s->core->store, is_used, &g, e);

    *kept = g.used;
    return code;
}

enum code rotate_step_take(struct rotate_step *s, struct error *e)
{
    enum code code;
    bool kept;

    if (!s->org.admin_blob)
        return error_set(e, ERR_NO_ADMIN_KEY,
                         "organisation %s has no admin key", s->org.name);
    code = look_if_kept(s, &kept, e);
    if (code)
        return code;
    if (kept)
        return rotate_advance(s, ROTATION_KEPT, NULL, NULL, 0, e);
    switch (s->r.state) {
    case ROTATION_MAKE:
        return rotate_find(s, e);
    case ROTATION_PROVE:
        return prove(s, e);
    case ROTATION_RETIRE:
        return rotate_delete(s, s->r.old_id, e);
    case ROTATION_CONFIRM:
        return rotate_confirm(s, e);
    case ROTATION_DROP:
        return rotate_delete(s, s->r.new_id, e);
    default:
        return OK;
    }
}
