/* proof - see proof.h. */
#include "config.h"

#include "module/core/proof.h"

#include "common/log.h"
#include "module/core/internal.h"
#include "module/core/lease.h"
#include "module/core/logbook.h"

#include <stdlib.h>
#include <string.h>

enum { STEP_FIRST_MS = 100, STEP_MAX_MS = 60000, STEP_PART = 4 };
#define CODE_MAX 64
#define HOST_MAX 256

struct use { /* what the service said to the key */
    bool alive;
    int64_t status;
    char code[CODE_MAX];
};

static enum code use_key(struct core *c, const struct store_lease *l,
                         struct use *u, struct error *e)
{
    const struct settings *s = c->settings;
    FRAME request = FRAME_INIT;
    FRAME reply = FRAME_INIT;
    const char *text = "";
    json_int_t status = 0;
    const struct json_field fields[] = {
        {"alive", FIELD_BOOL, true, &u->alive, NULL},
        {"status", FIELD_INT, true, &status, NULL},
        {"code", FIELD_STRING, true, &text, NULL},
    };
    int deadline = (int)(s->hsm_deadline_ms + s->connect_ms + s->call_ms);
    char org[64];
    enum code code;

    core_org_name(c, l->org, org);
    request.verb = VERB_PROBE;
    request.head = json_pack("{ss ss ss}", "org", org, "lease", l->id,
                             "api_base", l->api_base);
    request.body = malloc(l->probe_len ? l->probe_len : 1);
    if (!request.head || !request.body)
        return error_set(e, ERR_NOMEM, "no memory to try a key");
    memcpy(request.body, l->probe, l->probe_len);
    request.body_len = l->probe_len;
    code = unlock_call(c, &request, deadline, &reply, NULL, e);
    if (!code)
        code = json_decode(reply.head, JSON_FIELDS(fields), true,
                           "the keeper's reply", e);
    u->status = status;
    snprintf(u->code, sizeof(u->code), "%s", text);
    return code;
}

/* ---- rows and records ---- */

struct outcome {
    struct core *core;
    struct store_lease *lease;
    const struct use *use;
    bool recorded; /* a record goes with it */
    int64_t waited_ms;
};

static json_t *host_json(const char *base)
{
    const char *host = strstr(base, "://");

    host = host ? host + 3 : base;
    return json_stringn(host, strcspn(host, "/"));
}

static enum code commit(struct store_tx *tx, void *ctx, struct error *e)
{
    const struct outcome *o = ctx;
    const struct store_lease *l = o->lease;
    char org[64];
    const struct logbook_entry r = {.kind = RECORD_PROOF,
                                    .org = org,
                                    .role = l->role,
                                    .lease = l->id};
    struct logbook_entry entry = r;
    enum code code = store_lease_prove(tx, l, e);

    if (code || !o->recorded)
        return code;
    core_org_name(o->core, l->org, org);
    entry.more = json_pack("{sb sI ss so sI}", "dead",
                           l->proof == PROOF_DEAD, "status",
                           (json_int_t)o->use->status, "code", o->use->code,
                           "host", host_json(l->api_base), "waited_ms",
                           (json_int_t)o->waited_ms);
    return logbook_add(o->core, tx, &entry, e);
}

/* It is over, one way or the other: the sealed key goes. */
static void conclude(struct core *c, struct store_lease *l, bool dead)
{
    free(l->probe);
    l->probe = NULL;
    l->probe_len = 0;
    l->proof = dead ? PROOF_DEAD : PROOF_UNPROVEN;
    l->proof_ms = 0;
    warnings_drop(&c->warnings, ALARM_KEY_LIVES, l->id);
}

static int64_t pause_ms(int64_t waited_ms)
{
    int64_t pause = waited_ms / STEP_PART;

    if (pause < STEP_FIRST_MS)
        return STEP_FIRST_MS;
    return pause < STEP_MAX_MS ? pause : STEP_MAX_MS;
}

/* ---- the steps ---- */

enum code proof_prepare(struct core *c, struct store_lease *l,
                        const struct secret *value, struct error *e)
{
    enum code code = lease_seal(c, l, value, &l->probe, &l->probe_len, e);

    if (code)
        return code;
    l->proof = PROOF_WANTED;
    l->proof_ms = steady_ms(c);
    return OK;
}

void proof_after_end(struct store_lease *l, int64_t now_ms)
{
    if (l->proof == PROOF_SEEN)
        l->proof = PROOF_WAITS;
    if (l->proof == PROOF_WAITS || l->proof == PROOF_WANTED)
        l->proof_ms = now_ms;
}

bool proof_is_due(const struct store_lease *l, int64_t now_ms)
{
    return l->proof_ms > 0 && l->proof_ms <= now_ms;
}

void proof_before_end(struct core *c, struct store_lease *l)
{
    struct error e = {0};
    struct use u = {.alive = false};

    if (l->proof != PROOF_WANTED || !l->probe)
        return;
    if (use_key(c, l, &u, &e) != OK)
        log_failure(&e, "lease %s: its key cannot be tried", l->id);
    else if (u.alive)
        l->proof = PROOF_SEEN;
}

static enum code see_alive(struct core *c, struct store_lease *l,
                           struct error *e)
{
    struct use u = {.alive = false};
    struct outcome o = {.core = c, .lease = l, .use = &u};
    struct error why = {0};
    int64_t now;
    enum code code = use_key(c, l, &u, &why), noted;

    now = steady_ms(c);
    l->proof_ms = now + pause_ms(now - l->issued_ms);
    if (!code && u.alive) {
        l->proof = PROOF_SEEN;
        l->proof_ms = 0;
    }
    noted = store_commit(c->store, STORE_RESERVE, commit, &o, e);
    if (code && e)
        *e = why;
    return code ? code : noted;
}

static bool is_dead(const struct use *u)
{
    return u->status == 401 && strcmp(u->code, "invalid_api_key") == 0;
}

static void raise_alarm(struct core *c, const struct store_lease *l,
                        const struct outcome *o)
{
    if (o->use->alive)
        warnings_raise(&c->warnings, ALARM_KEY_LIVES, l->id,
                       "%s still takes the key %lld s after its account was "
                       "deleted",
                       l->api_base, (long long)o->waited_ms / 1000);
    else
        warnings_raise(&c->warnings, ALARM_KEY_LIVES, l->id,
                       "%lld s after its account was deleted %s answers %d %s, "
                       "which proves nothing",
                       (long long)o->waited_ms / 1000, l->api_base,
                       (int)o->use->status, o->use->code);
}

static enum code see_dead(struct core *c, struct store_lease *l,
                          struct error *e)
{
    struct use u = {.alive = false};
    struct outcome o = {.core = c, .lease = l, .use = &u};
    struct error why = {0};
    bool was_late = l->proof_ms - l->revoked_ms >= PROOF_BOUND_MS;
    int64_t now;
    enum code code = use_key(c, l, &u, &why), noted;

    now = steady_ms(c);
    o.waited_ms = now - l->revoked_ms;
    l->proof_ms = now + pause_ms(o.waited_ms);
    if (!was_late && o.waited_ms < PROOF_BOUND_MS &&
        l->proof_ms > l->revoked_ms + PROOF_BOUND_MS)
        l->proof_ms = l->revoked_ms + PROOF_BOUND_MS;
    if (!code && is_dead(&u))
        conclude(c, l, true);
    else if (o.waited_ms >= PROOF_END_MS)
        conclude(c, l, false);
    else if (o.waited_ms >= PROOF_BOUND_MS)
        raise_alarm(c, l, &o);
    o.recorded = l->proof_ms == 0 || (!was_late && o.waited_ms >= PROOF_BOUND_MS);
    noted = store_commit(c->store, STORE_RESERVE, commit, &o, e);
    if (code && e)
        *e = why;
    return code ? code : noted;
}

/* It was never seen to live: what it is answered now says nothing. Or its value
 * was lost with an HSM. */
static enum code give_up(struct core *c, struct store_lease *l,
                         const char *reason, struct error *e)
{
    struct use none = {.status = 0};
    struct outcome o = {.core = c,
                        .lease = l,
                        .use = &none,
                        .recorded = true,
                        .waited_ms = steady_ms(c) - l->revoked_ms};

    snprintf(none.code, sizeof(none.code), "%s", reason);
    conclude(c, l, false);
    return store_commit(c->store, STORE_RESERVE, commit, &o, e);
}

static enum code stop(struct core *c, struct store_lease *l, struct error *e)
{
    struct outcome o = {.core = c, .lease = l};

    l->proof_ms = 0;
    return store_commit(c->store, STORE_RESERVE, commit, &o, e);
}

enum code proof_step(struct core *c, struct store_lease *l, struct error *e)
{
    if (l->proof == PROOF_WAITS && l->state == LEASE_REVOKED && l->probe)
        return see_dead(c, l, e);
    if (l->proof == PROOF_WANTED && l->state == LEASE_ACTIVE && l->probe)
        return see_alive(c, l, e);
    if (l->state == LEASE_REVOKED && !l->probe &&
        (l->proof == PROOF_WAITS || l->proof == PROOF_WANTED))
        return give_up(c, l, "lost-with-hsm", e);
    if (l->proof == PROOF_WANTED && l->state == LEASE_REVOKED)
        return give_up(c, l, "never-seen-alive", e);
    return stop(c, l, e); /* its account is not gone yet */
}
