/* lease - see lease.h. */
#include "config.h"

#include "module/core/lease.h"

#include "common/clock.h"
#include "common/text.h"
#include "module/core/internal.h"
#include "module/core/lease_record.h"
#include "module/core/proof.h"
#include "module/core/search.h"

#include <stdlib.h>
#include <string.h>

enum { BACKOFF_FIRST_MS = 250, BACKOFF_MAX_MS = 30000 };

enum code lease_text(char **field, const char *text, struct error *e)
{
    char *copy = strdup(text ? text : "");

    if (!copy)
        return error_set(e, ERR_NOMEM, "no memory for a lease");
    free(*field);
    *field = copy;
    return OK;
}

static enum code copy_bytes(uint8_t **to, const uint8_t *from, size_t len,
                            struct error *e)
{
    *to = NULL;
    if (!from)
        return OK;
    *to = malloc(len ? len : 1);
    if (!*to)
        return error_set(e, ERR_NOMEM, "no memory for a lease");
    memcpy(*to, from, len);
    return OK;
}

enum code lease_copy(struct store_lease *to, const struct store_lease *from,
                     struct error *e)
{
    struct {
        char **to;
        const char *from;
    } texts[] = {
        {&to->role, from->role},
        {&to->owner, from->owner},
        {&to->program, from->program},
        {&to->application, from->application},
        {&to->project, from->project},
        {&to->account_name, from->account_name},
        {&to->account_id, from->account_id},
        {&to->key_id, from->key_id},
        {&to->api_base, from->api_base},
        {&to->label, from->label},
        {&to->last_error, from->last_error},
        {&to->request_id, from->request_id},
        {&to->reason, from->reason},
    };
    enum code code = OK;

    *to = *from;
    to->cka_id = to->sealed = to->probe = NULL;
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
        *texts[i].to = NULL;
    for (size_t i = 0; !code && i < sizeof(texts) / sizeof(texts[0]); i++)
        code = lease_text(texts[i].to, texts[i].from, e);
    if (!code)
        code = copy_bytes(&to->cka_id, from->cka_id, from->cka_id_len, e);
    if (!code)
        code = copy_bytes(&to->sealed, from->sealed, from->sealed_len, e);
    if (!code)
        code = copy_bytes(&to->probe, from->probe, from->probe_len, e);
    return code;
}

/* ---- rows ---- */

struct row {
    struct core *core;
    const struct store_lease *lease;
    enum lease_state expect;
    struct lease_record record;
};

static struct row row_of(struct core *c, const struct store_lease *l,
                         const struct caller *by)
{
    return (struct row){.core = c,
                        .lease = l,
                        .expect = l->state,
                        .record = {.lease = l, .was = l->state, .by = by}};
}

static bool has_expired(const struct row *r)
{
    return r->expect == LEASE_ACTIVE && r->lease->state == LEASE_REVOKING &&
           strcmp(r->lease->reason, LEASE_EXPIRED) == 0;
}

static enum code update_row(struct store_tx *tx, void *ctx, struct error *e)
{
    const struct row *r = ctx;
    enum code code = has_expired(r)
                         ? store_lease_ends(tx, r->lease->id,
                                            r->lease->expires_ms, e)
                         : OK;

    if (!code)
        code = store_lease_update(tx, r->lease, r->expect, e);
    if (!code && r->lease->proof != PROOF_NONE)
        code = store_lease_prove(tx, r->lease, e);
    return code ? code : lease_record(r->core, tx, &r->record, e);
}

static void forget_value(struct store_lease *l)
{
    free(l->sealed);
    l->sealed = NULL;
    l->sealed_len = 0;
}

/* ---- actions ---- */

struct moment {
    const struct core *core;
    int64_t now_ms;
    uint32_t retry_ms;
};

static enum code act_keep(struct store_lease *l, const struct moment *at,
                          struct error *e)
{
    (void)l, (void)at, (void)e;
    return OK;
}

static enum code act_delete(struct store_lease *l, const struct moment *at,
                            struct error *e)
{
    (void)e;
    l->next_try_ms = at->now_ms;
    return OK;
}

/* An id that was known is not the one that is looked for. */
static enum code act_search(struct store_lease *l, const struct moment *at,
                            struct error *e)
{
    l->next_try_ms = at->now_ms;
    return lease_text(&l->account_id, "", e);
}

static enum code act_wait(struct store_lease *l, const struct moment *at,
                          struct error *e)
{
    (void)e;
    l->tries++;
    l->next_try_ms = at->now_ms + lease_backoff_ms(l->tries, at->retry_ms);
    return OK;
}

static enum code act_look(struct store_lease *l, const struct moment *at,
                          struct error *e)
{
    int64_t next = search_next_of(at->core, l, at->now_ms);

    if (next < 0)
        return act_wait(l, at, e);
    l->tries++;
    l->next_try_ms = next;
    return OK;
}

static enum code act_close(struct store_lease *l, const struct moment *at,
                           struct error *e)
{
    (void)e;
    if (l->revoked_ms == 0)
        l->revoked_ms = at->now_ms;
    return OK;
}

static enum code (*const acts[LEASE_ACTIONS])(struct store_lease *,
                                              const struct moment *,
                                              struct error *) = {
    [LEASE_HAND_OUT] = act_keep, [LEASE_SEARCH] = act_search,
    [LEASE_LOOK] = act_look,     [LEASE_DELETE] = act_delete,
    [LEASE_WAIT] = act_wait,     [LEASE_CLOSE] = act_close,
    [LEASE_KEEP] = act_keep,
};

enum code lease_apply(struct core *c, struct store_lease *l,
                      enum lease_event event, uint32_t retry_ms,
                      enum lease_action *action, struct error *e)
{
    const struct moment at = {c, steady_ms(c), retry_ms};
    const struct lease_step *step;
    enum code code = lease_step(l->state, event, &step, e);

    if (!code)
        code = acts[step->action](l, &at, e);
    if (code)
        return code;
    l->state = step->next;
    if (l->state >= LEASE_REVOKING)
        forget_value(l);
    if (l->state == LEASE_REVOKED)
        proof_after_end(l, at.now_ms);
    if (action)
        *action = step->action;
    return OK;
}

enum code lease_change(struct core *c, struct lease_change *ch, struct error *e)
{
    struct store_lease *l = ch->lease;
    struct row row = row_of(c, l, ch->call ? ch->call->by : ch->by);
    enum code code =
        lease_apply(c, l, ch->event, ch->r ? ch->r->error.retry_after_ms : 0,
                    &ch->action, e);

    if (code)
        return code;
    row.record.made = ch->event == LEASE_MADE;
    row.record.key_hmac = ch->r ? ch->r->key_hmac : NULL;
    code =
        ch->r ? gate_settle(c, ch->call, ch->r, ch->result, update_row, &row, e)
              : store_commit(c->store, STORE_RESERVE, update_row, &row, e);
    if (code)
        l->state = row.expect;
    return code;
}

enum code lease_end(struct core *c, struct store_lease *l, const char *reason,
                    const struct caller *by, struct error *e)
{
    struct lease_change ch = {.lease = l, .event = LEASE_END, .by = by};
    enum code code = OK;

    if (!*l->reason)
        code = lease_text(&l->reason, reason, e);
    if (!code)
        code = lease_change(c, &ch, e);
    if (!code)
        sweep_wake(c);
    return code;
}

enum code lease_end_in(struct core *c, struct store_tx *tx, const char *id,
                       const char *reason, const struct caller *by,
                       struct error *e)
{
    LEASE l = {0};
    enum code code = store_tx_lease_get(tx, id, &l, e);
    struct row row = row_of(c, &l, by);

    if (code || l.state >= LEASE_REVOKING)
        return code;
    if (!*l.reason)
        code = lease_text(&l.reason, reason, e);
    if (!code)
        code = lease_apply(c, &l, LEASE_END, 0, NULL, e);
    return code ? code : update_row(tx, &row, e);
}

int64_t lease_backoff_ms(int64_t tries, uint32_t retry_after_ms)
{
    int64_t wait = BACKOFF_FIRST_MS;
    uint16_t dice = 0;

    while (tries-- > 0 && wait < BACKOFF_MAX_MS)
        wait *= 2;
    if (wait > BACKOFF_MAX_MS)
        wait = BACKOFF_MAX_MS;
    if (text_random(&dice, sizeof(dice), NULL) == OK)
        wait += wait * dice / 65536 / 4; /* up to a quarter more */
    return wait > retry_after_ms ? wait : retry_after_ms;
}

/* ---- deletion ---- */

static enum code mark_revoking(struct store_tx *tx, void *ctx, struct error *e)
{
    const struct row *r = ctx;

    return r->expect == LEASE_REVOKING ? OK : update_row(tx, ctx, e);
}

/* What came of a DELETE that was signed. */
static enum lease_event deletion(struct core *c, const struct store_lease *l,
                                 const struct gate_reply *r, enum code code)
{
    if (code)
        return LEASE_FAILED;
    if (r->http.status == 404 &&
        search_next_of(c, l, steady_ms(c)) >= 0)
        return LEASE_EARLY;
    /* Of a mint that was answered we know the key, too. Reconcile's row is of
     * one account by its id: another's of this name may be a live lease's. */
    return *l->key_id || strcmp(l->owner, LEASE_OWNER_SELF) == 0
               ? LEASE_GONE
               : LEASE_ONE_GONE;
}

/* A proxy's own 404 says nothing of the account: its name is looked for, after
 * a back-off. Reconcile's row is of its id alone; a wrong end of it is found
 * by the next run. */
static enum code doubt(struct store_lease *l, const struct gate_reply *r,
                       struct error *e)
{
    if (openai_says_gone(&r->http) || strcmp(l->owner, LEASE_OWNER_SELF) == 0)
        return OK;
    if (lease_text(&l->account_id, "", e) != OK)
        return ERR_NOMEM;
    return error_set(e, ERR_SERVICE_REPLY,
                     "lease %s: DELETE was answered HTTP 404 by what is not "
                     "the service; its account is looked for",
                     l->id);
}

/* The signature could not be had: the wish to revoke is kept all the same. */
static enum code keep_wish(struct core *c, struct store_lease *l,
                           enum lease_state was, const char *reason,
                           const struct caller *by, struct error *e)
{
    struct error why = {0};

    l->state = was;
    if (was != LEASE_REVOKING && lease_end(c, l, reason, by, &why) != OK)
        return error_prefix(e, "the lease could not even be marked (%s)",
                            why.text);
    return e ? e->code : ERR_INTERNAL;
}

static enum code settle_deletion(struct core *c, struct lease_change *ch,
                                 const struct error *why, struct error *e)
{
    enum code code = lease_text(&ch->lease->last_error, why->text, e);

    if (!code)
        code = lease_change(c, ch, e);
    return code && why->code
               ? error_prefix(e, "the lease could not be updated")
               : code;
}

static enum code delete_account(struct core *c, struct store_lease *l,
                                const struct gate_call *call,
                                struct gate_reply *r, struct error *e)
{
    struct row *row = call->intent_ctx;
    struct lease_change ch = {.lease = l, .call = call, .r = r};
    struct error why = {0};
    enum lease_state was = l->state;
    enum code code = lease_apply(
        c, l, was == LEASE_PENDING ? LEASE_FOUND : LEASE_END, 0, NULL, e);

    row->expect = was;
    if (code)
        return code;
    code = gate_send(c, call, r, &why);
    if (code && r->fate == GATE_NOTHING) {
        *e = why;
        return keep_wish(c, l, was, l->reason, call->by, e);
    }
    if (!code && (code = doubt(l, r, &why)) != OK)
        ch.result = &why;
    ch.event = deletion(c, l, r, code);
    /* To the sweeper that is an answer like another: a failure would hold up
     * all that is due in this lane. */
    if (ch.event == LEASE_EARLY && call->by)
        code = error_set(&why, ERR_SERVICE_UNKNOWN,
                         "lease %s: the service does not show its account, "
                         "which is new; it is deleted once more",
                         l->id);
    if (settle_deletion(c, &ch, &why, e) != OK)
        return e->code;
    if (code)
        *e = why;
    return code;
}

enum code lease_delete(struct core *c, struct store_lease *l,
                       const char *reason, const struct caller *by,
                       struct error *e)
{
    CLEANUP(openai_request_clear) struct openai_request request = {0};
    GATE_REPLY reply = GATE_REPLY_INIT;
    struct error why = {0};
    struct row row = row_of(c, l, by);
    char org[64];
    struct gate_call call = {.org = org,
                             .purpose = "revoke",
                             .role = l->role,
                             .lease = l->id,
                             .by = by,
                             .request = &request,
                             .urgency = STORE_RESERVE,
                             .intent = mark_revoking,
                             .intent_ctx = &row};
    enum code code =
        openai_account_delete(&request, l->project, l->account_id, &why);

    core_org_name(c, l->org, org);
    if (!code && !*l->reason)
        code = lease_text(&l->reason, reason, &why);
    l->next_try_ms = steady_ms(c);
    proof_before_end(c, l);
    if (!code)
        code = delete_account(c, l, &call, &reply, &why);
    if (code && e)
        *e = why;
    return code;
}

/* ---- whose it is, and its value ---- */

static enum code unknown(const char *id, struct error *e)
{
    return error_set(e, ERR_NOT_FOUND, "there is no lease \"%s\"", id);
}

static enum code permit_stranger(struct core *c, const struct caller *by,
                                 struct lease_right right, const char *org,
                                 const struct store_lease *l, struct error *e)
{
    enum capability cap = right.any;
    struct error why = {0};

    if (cap < CAPABILITIES && core_may(c, by, CAPABILITY_BIT(cap), org, l->role))
        return OK;
    if (cap < CAPABILITIES &&
        core_may(c, by, CAPABILITY_BIT(CAP_LIST_ANY), org, l->role))
        return core_permit(c, by, cap, org, l->role, e);
    error_set(&why, ERR_DENIED, "lease %s is not %s's", l->id, by->owner);
    core_refused(c, by, CAPABILITY_BIT(right.own), org, l->role, &why);
    if (core_may(c, by, CAPABILITY_BIT(CAP_LIST_ANY), org, l->role)) {
        *e = why;
        return ERR_DENIED;
    }
    /* Whether there is one is nothing that a stranger is told. */
    return unknown(l->id, e);
}

static enum code permit_lease(struct core *c, const struct caller *by,
                              struct lease_right right,
                              const struct store_lease *l, struct error *e)
{
    char org[64];

    core_org_name(c, l->org, org);
    if (strcmp(l->owner, by->owner) != 0)
        return permit_stranger(c, by, right, org, l, e);
    if (right.any < CAPABILITIES &&
        core_may(c, by, CAPABILITY_BIT(right.any), org, l->role))
        return OK;
    return core_permit(c, by, right.own, org, l->role, e);
}

enum code lease_get_for(struct core *c, const struct caller *by,
                        struct lease_right right, const char *id,
                        struct store_lease *l, struct error *e)
{
    struct error why = {0};
    enum code code;

    if (!text_is_id(id))
        return error_set(e, ERR_NOT_FOUND, "\"%.64s\" is no lease id", id);
    code = store_lease_get(c->store, id, l, &why);
    if (code == ERR_NOT_FOUND)
        return unknown(id, e);
    if (!code)
        code = permit_lease(c, by, right, l, &why);
    if (!code)
        return OK;
    store_lease_clear(l);
    if (e)
        *e = why;
    return code;
}

static enum code value_request(struct core *c, enum verb verb,
                               const struct store_lease *l, const void *body,
                               size_t len, struct frame *request,
                               struct error *e)
{
    char org[64];

    core_org_name(c, l->org, org);
    request->verb = verb;
    request->head = json_pack("{ss ss}", "org", org, "lease", l->id);
    request->body = malloc(len ? len : 1);
    if (!request->head || !request->body)
        return error_set(e, ERR_NOMEM, "no memory for a lease's value");
    memcpy(request->body, body, len);
    request->body_len = len;
    return OK;
}

static enum code open_value(struct core *c, const struct store_lease *l,
                            struct secret **value, struct error *e)
{
    FRAME request = FRAME_INIT;
    FRAME reply = FRAME_INIT;
    int deadline = (int)c->settings->hsm_deadline_ms;
    enum code code;

    if (!l->sealed)
        return error_set(e, ERR_SENSITIVE,
                         "lease %s: its key was handed out once and not kept; "
                         "keep_value of its role decides that",
                         l->id);
    code = value_request(c, VERB_UNWRAP_VALUE, l, l->sealed, l->sealed_len,
                         &request, e);
    if (!code)
        code = unlock_call(c, &request, deadline, &reply, NULL, e);
    if (!code && reply.fd < 0)
        return error_set(e, ERR_KEEPER, "the keeper sent no value");
    return code
               ? code
               : secret_from_fd(value, reply.fd, SECRET_MAX, deadline, true, e);
}

/* What was read may have been sealed anew since, and the old key be gone. */
enum code lease_open_value(struct core *c, const struct store_lease *l,
                           struct secret **value, struct error *e)
{
    struct error why = {0};
    LEASE now = {0};
    enum code code = open_value(c, l, value, &why);

    if (code == ERR_SEAL &&
        store_lease_get(c->store, l->id, &now, NULL) == OK && now.sealed &&
        (now.sealed_len != l->sealed_len ||
         memcmp(now.sealed, l->sealed, l->sealed_len) != 0))
        return open_value(c, &now, value, e);
    if (code && e)
        *e = why;
    return code;
}

enum code lease_seal(struct core *c, const struct store_lease *l,
                     const struct secret *value, uint8_t **sealed, size_t *len,
                     struct error *e)
{
    FRAME request = FRAME_INIT;
    FRAME reply = FRAME_INIT;
    enum code code = value_request(c, VERB_SEAL_VALUE, l, secret_data(value),
                                   secret_len(value), &request, e);

    if (!code)
        code = unlock_call(c, &request, (int)c->settings->hsm_deadline_ms,
                           &reply, NULL, e);
    if (code)
        return code;
    if (reply.body_len == 0)
        return error_set(e, ERR_KEEPER, "the keeper sealed nothing");
    free(*sealed);
    *sealed = reply.body;
    *len = reply.body_len;
    reply.body = NULL;
    reply.body_len = 0;
    return OK;
}
