/* rotate_step - see rotate_step.h. */
#include "config.h"

#include "module/core/rotate_step.h"

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
#include "module/core/search.h"

#include <stdlib.h>
#include <string.h>

enum {
    PROVE_MS = 60000,   /* a fresh key may be refused for so long */
    CONFIRM_MS = 60000, /* a deleted key may open for so long */
    PAGES_MAX = 1000,
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

    return code ? code : config_parse(&s->config, s->org.config, e);
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
static enum code advance(struct rotate_step *s, enum rotation_event event,
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
static enum code try_later(struct rotate_step *s, const struct gate_call *call,
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

enum code rotate_step_hurry(struct rotate_step *s, const char *cause,
                            struct error *e)
{
    snprintf(s->r.cause, sizeof(s->r.cause), "%s", cause);
    s->r.due_ms = steady_ms(s->core);
    return commit(s, NULL, NULL, NULL, e);
}

/* ---- the keeper ---- */

enum use {
    USE_TRY,  /* only by calls that say `candidate` */
    USE_HERE, /* the organisation's, in the keeper alone */
    USE       /* and written to the HSM */
};

static enum code use_key(struct rotate_step *s, const uint8_t *blob, size_t len,
                         enum use how, struct error *e)
{
    FRAME request = FRAME_INIT;
    FRAME reply = FRAME_INIT;

    request.verb = VERB_USE_KEY;
    request.head = json_pack("{ss sb sb}", "org", s->org.name, "publish",
                             how == USE, "try", how == USE_TRY);
    request.body = malloc(len);
    if (!request.head || !request.body)
        return error_set(e, ERR_NOMEM, "no memory to use a key");
    memcpy(request.body, blob, len);
    request.body_len = len;
    return unlock_call(s->core, &request,
                       (int)s->core->settings->hsm_deadline_ms, &reply, NULL,
                       e);
}

/* ---- make ---- */

static enum code insert(struct store_tx *tx, void *ctx, struct error *e)
{
    return rotation_save(tx, ctx, e);
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
               ? advance(s, ROTATION_NOTHING, call, reply, 0, &local)
               : try_later(s, call, reply, ROTATE_LOOK_MS, &why, &local);
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
        code = advance(s, ROTATION_MADE, &call, &reply, 0, &why);
    else
        code = not_made(s, &call, &reply, &why);
    if (code && e)
        *e = why;
    return code;
}

/* ---- looking for a key whose answer was lost ---- */

static enum code match(const struct openai_admin_key *k, void *ctx,
                       struct error *e)
{
    struct rotation *r = ctx;

    (void)e;
    if (k->name && strcmp(k->name, r->name) == 0)
        snprintf(r->new_id, sizeof(r->new_id), "%s", k->id);
    return OK;
}

static enum code list_page(struct rotate_step *s, char **after, struct error *e)
{
    CLEANUP(openai_request_clear) struct openai_request request = {0};
    GATE_REPLY reply = GATE_REPLY_INIT;
    struct gate_call call = {.org = s->org.name,
                             .purpose = "rotate",
                             .request = &request,
                             .urgency = STORE_RESERVE};
    enum code code = openai_admin_key_list(&request, *after, e);

    if (!code)
        code = gate_ask(s->core, &call, &reply, e);
    free_p(after);
    *after = NULL;
    return code ? code
                : openai_decode_admin_key_list(&reply.http, match, &s->r, after,
                                               e);
}

static enum code list_all(struct rotate_step *s, struct error *e)
{
    FREE char *after = NULL;
    int pages = 0;

    do {
        enum code code = list_page(s, &after, e);

        if (code)
            return code;
        if (++pages == PAGES_MAX)
            return error_set(e, ERR_SERVICE_REPLY,
                             "the list of admin keys does not end");
    } while (after);
    return OK;
}

/* The value of the key that was made is lost: it goes, and another is made. */
static void want_again(struct rotate_step *s)
{
    struct config *c = &s->config;

    s->new_config = true;
    if (*c->rotation_wanted)
        return;
    snprintf(c->rotation_wanted, sizeof(c->rotation_wanted), "%s", s->r.cause);
    c->wanted_ms = clock_wall_ms();
}

/* When it is sure that none of this name will appear, there is none. */
static enum code look(struct rotate_step *s, struct error *e)
{
    int64_t now = steady_ms(s->core);
    int64_t next = search_next_look_ms(s->core, s->r.begun_ms, now);
    struct error why = {0};

    if (list_all(s, &why) != OK)
        return try_later(s, NULL, NULL,
                         lease_backoff_ms(s->r.tries, why.retry_after_ms), &why,
                         e);
    if (*s->r.new_id) {
        want_again(s);
        return advance(s, ROTATION_FOUND, NULL, NULL, 0, e);
    }
    if (next < 0)
        return advance(s, ROTATION_NOTHING, NULL, NULL, 0, e);
    return try_later(s, NULL, NULL, next > now ? next - now : ROTATE_LOOK_MS,
                     NULL, e);
}

/* ---- prove ---- */

/* A call with a key that is only tried: OK, or what the service says. */
static enum code try_key(struct rotate_step *s, const uint8_t *blob, size_t len,
                         struct error *e)
{
    CLEANUP(openai_request_clear) struct openai_request request = {0};
    GATE_REPLY reply = GATE_REPLY_INIT;
    struct gate_call call = {.org = s->org.name,
                             .candidate = true,
                             .purpose = "rotate",
                             .by = s->by,
                             .request = &request,
                             .urgency = STORE_RESERVE};
    enum code code = use_key(s, blob, len, USE_TRY, e);

    if (!code)
        code = openai_admin_key_list(&request, NULL, e);
    return code ? code : gate_ask(s->core, &call, &reply, e);
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

/* An HSM that stores no copy now keeps nobody from the new key: its copy is
 * written again before the old key goes. */
static enum code use_new(struct rotate_step *s, struct error *e)
{
    struct error why = {0};

    if (use_key(s, s->r.sealed, s->r.sealed_len, USE, &why) == OK)
        return OK;
    log_failure(&why, "organisation %s: its new admin key is not on the HSM",
                s->org.name);
    return use_key(s, s->r.sealed, s->r.sealed_len, USE_HERE, e);
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
    code = advance(s, ROTATION_WORKS, NULL, NULL,
                   rotate_overlap_ms(s->core, s->r.cause), e);
    if (!code)
        code = use_new(s, e);
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
    enum code code = try_key(s, s->r.sealed, s->r.sealed_len, &why);
    bool is_late = steady_ms(s->core) >= s->r.begun_ms + PROVE_MS;

    if (!code)
        return take_key(s, e);
    if ((code == ERR_SERVICE_AUTH || code == ERR_SERVICE_FORBIDDEN) && is_late)
        return advance(s, ROTATION_USELESS, NULL, NULL, 0, e);
    return try_later(s, NULL, NULL,
                     code == ERR_SERVICE_AUTH
                         ? ROTATE_LOOK_MS
                         : lease_backoff_ms(s->r.tries, why.retry_after_ms),
                     &why, e);
}

/* ---- the end of a key ---- */

/* A key that was tried in vain may not have shown itself yet: then the 404
 * says nothing. One that was found by its name had. */
static bool is_too_young(const struct rotate_step *s,
                         const struct gate_reply *reply)
{
    return reply->http.status == 404 && s->r.state == ROTATION_DROP &&
           s->r.sealed && steady_ms(s->core) < s->r.begun_ms + PROVE_MS;
}

static enum code delete_key(struct rotate_step *s, const char *id,
                            struct error *e)
{
    CLEANUP(openai_request_clear) struct openai_request request = {0};
    GATE_REPLY reply = GATE_REPLY_INIT;
    struct gate_call call = {.org = s->org.name,
                             .purpose = "rotate",
                             .request = &request,
                             .urgency = STORE_RESERVE};
    struct error why = {0};
    /* The key in use deletes: never the one that is to go. */
    enum code code = use_key(s, s->org.admin_blob, s->org.admin_blob_len, USE,
                             &why);

    if (!code)
        code = openai_admin_key_delete(&request, id, &why);
    if (code)
        reply.fate = GATE_NOTHING;
    if (!code)
        code = gate_send(s->core, &call, &reply, &why);
    if (!code && is_too_young(s, &reply))
        code = error_set(&why, ERR_NOT_FOUND,
                         "the new admin key does not show itself yet");
    if (!code)
        return advance(s, ROTATION_GONE, &call, &reply, 0, e);
    return try_later(s, &call, &reply,
                     lease_backoff_ms(s->r.tries, why.retry_after_ms), &why, e);
}

static enum code confirm(struct rotate_step *s, struct error *e)
{
    struct error why = {0};
    enum code code = try_key(s, s->r.old_sealed, s->r.old_sealed_len, &why);

    if (code == ERR_SERVICE_AUTH)
        return advance(s, ROTATION_DEAD, NULL, NULL, 0, e);
    if (!code && steady_ms(s->core) >= s->r.begun_ms + CONFIRM_MS)
        error_set(&why, ERR_SERVICE_REPLY,
                  "the service deleted admin key %s and still accepts it",
                  s->r.old_id);
    return try_later(s, NULL, NULL,
                     lease_backoff_ms(s->r.tries, why.retry_after_ms), &why, e);
}

/* What is to go is the organisation's key again. */
static bool is_kept(const struct rotate_step *s)
{
    const char *goes = s->r.state == ROTATION_DROP ? s->r.new_id : s->r.old_id;

    return s->r.state >= ROTATION_RETIRE &&
           strcmp(goes, s->config.admin_api_key_id) == 0;
}

enum code rotate_step_take(struct rotate_step *s, struct error *e)
{
    if (!s->org.admin_blob)
        return error_set(e, ERR_NO_ADMIN_KEY,
                         "organisation %s has no admin key", s->org.name);
    if (is_kept(s))
        return advance(s, ROTATION_KEPT, NULL, NULL, 0, e);
    switch (s->r.state) {
    case ROTATION_MAKE:
        return look(s, e);
    case ROTATION_PROVE:
        return prove(s, e);
    case ROTATION_RETIRE:
        return delete_key(s, s->r.old_id, e);
    case ROTATION_CONFIRM:
        return confirm(s, e);
    case ROTATION_DROP:
        return delete_key(s, s->r.new_id, e);
    default:
        return OK;
    }
}
