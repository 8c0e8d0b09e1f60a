/* health - see health.h. */
#include "config.h"

#include "module/core/health.h"

#include "common/clock.h"
#include "common/log.h"
#include "module/core/internal.h"
#include "module/core/orgconfig.h"
#include "module/core/schedule.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
    ASK_FIRST_MS = 2000, /* after a failure; doubled up to … */
    ASK_MAX_MS = 300000,
    ASK_AGAIN_MS = 5000, /* for people who ask */
    TICK_MS = 1000
};

/* With the lock held; NULL: no memory. */
static struct health_org *org_of(struct health *h, const char *name)
{
    struct health_org *more;

    for (size_t i = 0; i < h->n_orgs; i++) {
        if (strcmp(h->orgs[i].name, name) == 0)
            return &h->orgs[i];
    }
    more = reallocarray(h->orgs, h->n_orgs + 1, sizeof(*more));
    if (!more)
        return NULL;
    h->orgs = more;
    more[h->n_orgs] = (struct health_org){.name = ""};
    snprintf(more[h->n_orgs].name, sizeof(more->name), "%s", name);
    return &more[h->n_orgs++];
}

/* ---- what a call's end says ---- */

/* The alarm that it stands for; ALARM_COUNT: none, the service answered. */
static enum alarm alarm_of(const struct gate_call *call, enum code code)
{
    switch (code) {
    case ERR_SERVICE_DOWN:
    case ERR_SERVICE_UNKNOWN:
        return ALARM_SERVICE_UNREACHABLE;
    case ERR_SERVICE_FAILED:
    case ERR_SERVICE_REPLY:
        return ALARM_SERVICE_FAILING;
    case ERR_SERVICE_RATE:
        return ALARM_SERVICE_RATE;
    case ERR_SERVICE_AUTH:
        return ALARM_ADMIN_KEY_REFUSED;
    case ERR_SERVICE_FORBIDDEN:
        /* A project may be closed to a good key; the probe is about the key. */
        return strcmp(call->purpose, HEALTH_PROBE) == 0
                   ? ALARM_ADMIN_KEY_REFUSED
                   : ALARM_SERVICE_REFUSING;
    case ERR_SERVICE_REFUSED:
        return ALARM_SERVICE_REFUSING;
    default:
        return ALARM_COUNT;
    }
}

static void count_refusal(struct core *c, struct health_org *o,
                          const struct gate_call *call, const struct error *why)
{
    if (strncmp(o->refused, call->purpose, sizeof(o->refused) - 1) != 0)
        o->refusals = 0;
    snprintf(o->refused, sizeof(o->refused), "%s", call->purpose);
    if (++o->refusals >= HEALTH_REFUSALS)
        warnings_raise(&c->warnings, ALARM_SERVICE_REFUSING, o->name,
                       "%d calls in a row to %s were refused: %s", o->refusals,
                       o->refused, why->text);
}

/* One good answer among bad ones is not the end of it. */
static void settle(struct core *c, struct health_org *o)
{
    static const enum alarm calm[] = {
        ALARM_SERVICE_UNREACHABLE, ALARM_SERVICE_FAILING, ALARM_SERVICE_RATE,
        ALARM_ADMIN_KEY_REFUSED};
    int64_t now = clock_monotonic_ms();

    for (size_t i = 0; i < sizeof(calm) / sizeof(calm[0]); i++) {
        int64_t bad = o->bad_at[calm[i]];

        if (!bad || o->good_at <= bad || now - bad < HEALTH_CALM_MS)
            continue;
        o->bad_at[calm[i]] = 0;
        warnings_drop(&c->warnings, calm[i], o->name);
    }
    if (o->refusals && now - o->bad_at[ALARM_SERVICE_REFUSING] >=
                           HEALTH_QUIET_MS) {
        o->refusals = 0;
        o->bad_at[ALARM_SERVICE_REFUSING] = 0;
        warnings_drop(&c->warnings, ALARM_SERVICE_REFUSING, o->name);
    }
}

static bool is_troubled(const struct health_org *o)
{
    for (int i = 0; i < ALARM_COUNT; i++) {
        if (o->bad_at[i] && i != ALARM_SERVICE_REFUSING)
            return true;
    }
    return false;
}

/* When the probe is due next: soon after trouble, else after a quiet hour. */
static void schedule(struct health_org *o, bool soon)
{
    int64_t now = clock_monotonic_ms(), wait = ASK_FIRST_MS;

    for (int i = 0; soon && i < o->asks && wait < ASK_MAX_MS; i++)
        wait *= 2;
    if (!soon)
        o->asks = 0;
    if (wait > ASK_MAX_MS)
        wait = ASK_MAX_MS;
    o->ask_at = !o->configured ? 0 : now + (soon ? wait : HEALTH_QUIET_MS);
}

static void good(struct core *c, struct health_org *o,
                 const struct gate_call *call)
{
    o->good_ms = clock_wall_ms();
    o->good_at = clock_monotonic_ms();
    if (o->refusals && strncmp(o->refused, call->purpose,
                               sizeof(o->refused) - 1) == 0) {
        o->refusals = 0;
        o->bad_at[ALARM_SERVICE_REFUSING] = 0;
        warnings_drop(&c->warnings, ALARM_SERVICE_REFUSING, o->name);
    }
    settle(c, o);
    schedule(o, is_troubled(o));
}

static void bad(struct core *c, struct health_org *o, enum alarm alarm,
                const struct gate_call *call, const struct error *why)
{
    bool is_soon = o->ask_at &&
                   o->ask_at - clock_monotonic_ms() <= ASK_MAX_MS;

    o->bad_at[alarm] = clock_monotonic_ms();
    if (alarm == ALARM_SERVICE_REFUSING)
        count_refusal(c, o, call, why);
    else
        warnings_raise(&c->warnings, alarm, o->name, "%s", why->text);
    if (!is_soon || strcmp(call->purpose, HEALTH_PROBE) == 0)
        schedule(o, true);
}

/* The HSM answers, and yet no call can be signed or the key not be opened. */
static void note_hsm(struct core *c, const struct gate_reply *r,
                     const struct error *why)
{
    bool failed = why->code == ERR_HSM_FAILED || why->code == ERR_HSM_KEYS;

    if (failed)
        warnings_raise(&c->warnings, ALARM_HSM_DOWN, "calls", "%s", why->text);
    else if (r->fate >= GATE_UNKNOWN)
        warnings_drop(&c->warnings, ALARM_HSM_DOWN, "calls");
    if (failed || why->code == ERR_HSM_ABSENT || why->code == ERR_KEEPER ||
        why->code == ERR_LOCKED)
        watch_poke(c);
}

void health_note(struct core *c, const struct gate_call *call,
                 const struct gate_reply *r, const struct error *why)
{
    struct health *h = &c->health;
    enum alarm alarm = alarm_of(call, why->code);
    bool is_sent = r->fate == GATE_ANSWERED || alarm != ALARM_COUNT;
    struct health_org *o;

    note_hsm(c, r, why);
    if (call->candidate || !is_sent)
        return;
    pthread_mutex_lock(&h->lock);
    o = org_of(h, call->org);
    if (o) {
        o->configured = true;
        o->called_ms = clock_wall_ms();
        o->last = *why;
        if (alarm == ALARM_COUNT)
            good(c, o, call);
        else
            bad(c, o, alarm, call, why);
    }
    pthread_cond_broadcast(&h->changed);
    pthread_mutex_unlock(&h->lock);
}

/* ---- the key's end ---- */

static void look_at_end(struct core *c, const struct health_org *o)
{
    int64_t left = o->key_expires_ms - clock_wall_ms();
    char when[CLOCK_TEXT_MAX];

    if (!o->key_expires_ms || left >= o->key_margin_ms)
        warnings_drop(&c->warnings, ALARM_ADMIN_KEY_EXPIRES, o->name);
    else
        warnings_raise(&c->warnings, ALARM_ADMIN_KEY_EXPIRES, o->name,
                       "the admin key %s at %s",
                       left > 0 ? "expires" : "expired",
                       clock_text(o->key_expires_ms, when));
}

void health_key(struct core *c, const char *org, const struct config *config)
{
    static const enum alarm of_key[] = {
        ALARM_SERVICE_UNREACHABLE, ALARM_SERVICE_FAILING, ALARM_SERVICE_RATE,
        ALARM_SERVICE_REFUSING,    ALARM_ADMIN_KEY_REFUSED};
    struct health *h = &c->health;
    struct health_org *o;

    pthread_mutex_lock(&h->lock);
    o = org_of(h, org);
    if (o) {
        char name[sizeof(o->name)];

        memcpy(name, o->name, sizeof(name));
        *o = (struct health_org){.configured = config != NULL};
        if (config) {
            o->key_expires_ms = config->key_expires_ms;
            o->key_margin_ms = schedule_margin_ms(config);
        }
        memcpy(o->name, name, sizeof(name));
        schedule(o, false);
        look_at_end(c, o);
    }
    for (size_t i = 0; i < sizeof(of_key) / sizeof(of_key[0]); i++)
        warnings_drop(&c->warnings, of_key[i], org);
    pthread_cond_broadcast(&h->changed);
    pthread_mutex_unlock(&h->lock);
}

/* ---- projects ---- */

void health_project(struct core *c, const char *org, const char *role,
                    enum code code, const char *text)
{
    char object[160];

    snprintf(object, sizeof(object), "%s/%s", org, role);
    if (code == ERR_PROJECT)
        warnings_raise(&c->warnings, ALARM_PROJECT_GONE, object, "%s", text);
    else if (code == OK)
        warnings_drop(&c->warnings, ALARM_PROJECT_GONE, object);
}

/* ---- the probe ---- */

static enum code ask(struct core *c, const struct caller *by, const char *name,
                     int64_t *expires_ms, struct error *e)
{
    CLEANUP(store_org_clear) struct store_org org = {0};
    CLEANUP(openai_request_clear) struct openai_request request = {0};
    CLEANUP(openai_admin_key_clear) struct openai_admin_key key = {0};
    GATE_REPLY reply = GATE_REPLY_INIT;
    CONFIG config = {0};
    struct gate_call call = {.org = name,
                             .purpose = HEALTH_PROBE,
                             .by = by,
                             .request = &request,
                             .urgency = STORE_NORMAL};
    enum code code = core_org(c, name, &org, e);

    if (!code)
        code = config_parse(&config, org.config, e);
    if (!code && (!org.admin_blob || !*config.admin_api_key_id))
        code = error_set(e, ERR_NO_ADMIN_KEY,
                         "%s has no admin key; see `hsmint config set`", name);
    if (!code)
        code = openai_admin_key_get(&request, config.admin_api_key_id, e);
    if (!code)
        code = gate_ask(c, &call, &reply, e);
    if (!code)
        code = openai_decode_admin_key(&reply.http, &key, e);
    *expires_ms = code ? 0 : key.expires_at * 1000;
    return code;
}

static enum code ask_now(struct core *c, const struct caller *by,
                         const char *name, struct error *e)
{
    struct health *h = &c->health;
    struct health_org *o;
    int64_t expires_ms;
    enum code code = ask(c, by, name, &expires_ms, e);

    pthread_mutex_lock(&h->lock);
    o = org_of(h, name);
    if (o) {
        o->asks++;
        o->asked = code && e ? *e : (struct error){0};
        o->asked_at = clock_monotonic_ms();
        schedule(o, code != OK || is_troubled(o));
        if (code == ERR_NO_ADMIN_KEY)
            o->ask_at = 0;
        if (code == OK)
            o->key_expires_ms = expires_ms;
        look_at_end(c, o);
    }
    pthread_mutex_unlock(&h->lock);
    return code;
}

/* Somebody asked a moment ago: what that said. */
static bool asked_lately(struct core *c, const char *name, enum code *code,
                         struct error *e)
{
    struct health *h = &c->health;
    const struct health_org *o;
    bool lately;

    pthread_mutex_lock(&h->lock);
    o = org_of(h, name);
    lately = o && o->asked_at &&
             clock_monotonic_ms() - o->asked_at < ASK_AGAIN_MS;
    if (lately) {
        *e = o->asked;
        *code = e->code;
    }
    pthread_mutex_unlock(&h->lock);
    return lately;
}

enum code health_ask(struct core *c, const struct caller *by, const char *org,
                     struct error *e)
{
    INFLIGHT hold = {0};
    enum code code = inflight_enter(&c->inflight, "probe", org, NULL, NULL,
                                    &hold, e);

    if (code || asked_lately(c, org, &code, e))
        return code;
    return ask_now(c, by, org, e);
}

/* ---- the thread ---- */

static bool next_due(struct health *h, char name[64])
{
    int64_t now = clock_monotonic_ms();

    for (size_t i = 0; i < h->n_orgs; i++) {
        if (h->orgs[i].ask_at && h->orgs[i].ask_at <= now) {
            memcpy(name, h->orgs[i].name, 64);
            return true;
        }
    }
    return false;
}

static void tick(struct core *c)
{
    struct timespec until = clock_in_ms(TICK_MS);

    for (size_t i = 0; i < c->health.n_orgs; i++) {
        settle(c, &c->health.orgs[i]);
        look_at_end(c, &c->health.orgs[i]);
    }
    (void)pthread_cond_clockwait(&c->health.changed, &c->health.lock,
                                 CLOCK_MONOTONIC, &until);
}

static void *run(void *arg)
{
    struct core *c = arg;
    struct health *h = &c->health;
    char name[64];

    pthread_mutex_lock(&h->lock);
    while (!h->stop) {
        struct error e = {0};

        if (!next_due(h, name)) {
            tick(c);
            continue;
        }
        pthread_mutex_unlock(&h->lock);
        if (ask_now(c, NULL, name, &e) != OK)
            log_debug("probe of %s: %s", name, e.text);
        pthread_mutex_lock(&h->lock);
    }
    pthread_mutex_unlock(&h->lock);
    return NULL;
}

static enum code note_org(const struct store_org *org, void *ctx,
                          struct error *e)
{
    CONFIG config = {0};
    enum code code = config_parse(&config, org->config, e);

    if (!code)
        health_key(ctx, org->name, org->admin_blob ? &config : NULL);
    return code;
}

enum code health_start(struct core *c, struct error *e)
{
    enum code code = store_org_each(c->store, note_org, c, e);
    int r;

    if (code)
        return code;
    r = pthread_create(&c->health.thread, NULL, run, c);
    if (r != 0)
        return error_errno(e, r, "cannot start the health's thread");
    c->health.started = true;
    return OK;
}

void health_stop(struct core *c)
{
    struct health *h = &c->health;

    pthread_mutex_lock(&h->lock);
    h->stop = true;
    pthread_cond_broadcast(&h->changed);
    pthread_mutex_unlock(&h->lock);
    if (h->started)
        pthread_join(h->thread, NULL);
    free(h->orgs);
}

enum code core_check_service(struct core *c, const struct caller *by,
                             const char *org, json_t **out, struct error *e)
{
    CLEANUP(store_org_clear) struct store_org known = {0};
    /* What is asked about is kept: no names that somebody makes up. */
    enum code code = core_org(c, org, &known, e);

    if (!code)
        code = health_ask(c, by, known.name, e);
    if (code)
        return code;
    *out = health_json(c, known.name);
    return *out ? OK : error_set(e, ERR_NOMEM, "no memory for the service's state");
}

/* ---- for status ---- */

json_t *health_json(struct core *c, const char *org)
{
    struct health *h = &c->health;
    const struct health_org *o;
    json_t *out = NULL;

    pthread_mutex_lock(&h->lock);
    o = org_of(h, org);
    if (o)
        out = json_pack("{sI sI ss ss ss sI}", "last_call_ms",
                        (json_int_t)o->called_ms, "last_good_ms",
                        (json_int_t)o->good_ms, "result",
                        !o->called_ms ? "" : error_name(o->last.code), "text",
                        o->last.text, "service_request_id",
                        o->last.service_request_id,
                        "admin_key_expires_ms", (json_int_t)o->key_expires_ms);
    pthread_mutex_unlock(&h->lock);
    return out;
}
