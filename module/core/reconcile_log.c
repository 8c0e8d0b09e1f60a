/* Three ledgers: the service's audit log, ours, and the store. What was done
 * with our admin key, and is in neither of ours, was done by somebody else. */
#include "config.h"

#include "module/core/reconcile_run.h"

#include "common/clock.h"
#include "common/file.h"
#include "module/audit/record.h"
#include "module/core/rotation.h"

#include <stdlib.h>
#include <string.h>

enum {
    PAGES_MAX = 10000,
    LINES = 1024, /* records a read */
    FRESH_S = 120,  /* a call under way has ended */
    TOGETHER_S = 5, /* an account and its key are made in one call */
    LOOSE_MAX = 1000
};
#define DAY_MS (INT64_C(86400) * 1000)

struct ledgers {
    struct run *run;
    struct seen admin_keys; /* ours, of all times */
    struct seen calls;      /* "DELETE service_accounts/svc_a" */
    struct seen accounts;   /* of leases, dead ones too */
    struct seen keys;       /* of leases that are not active */
    struct seen live;       /* keys of those that are */
    struct seen keyless;    /* accounts whose key's id was never told */
    /* Keys that were made and that no lease has: their accounts' may be. */
    struct {
        struct finding finding;
        json_t *more;
        char id[132], project[132];
        int64_t at;
    } loose[LOOSE_MAX];
    size_t n_loose;
    int64_t made_at[LOOSE_MAX]; /* of accounts in `keyless` */
    size_t n_made;
    int64_t seq;  /* the last record that was read */
    bool pending; /* something of ours may not be in the ledgers yet */
    struct openai_event *page;
    size_t n_page, room;
};

static void page_clear(struct ledgers *g)
{
    while (g->n_page > 0)
        openai_event_clear(&g->page[--g->n_page]);
}

static void ledgers_free(struct ledgers **l)
{
    struct seen *sets[] = {&(*l)->admin_keys, &(*l)->calls, &(*l)->accounts,
                           &(*l)->keys,       &(*l)->live,  &(*l)->keyless};

    for (size_t i = 0; i < sizeof(sets) / sizeof(sets[0]); i++)
        seen_clear(sets[i]);
    for (size_t i = 0; i < (*l)->n_loose; i++)
        json_decref((*l)->loose[i].more);
    page_clear(*l);
    free((*l)->page);
    free(*l);
}

/* ---- ours: the store ---- */

static enum code take_lease(const struct store_lease *l, void *ctx,
                            struct error *e)
{
    struct ledgers *g = ctx;
    bool live = l->state == LEASE_ACTIVE;
    enum code code = OK;

    if (*l->account_id)
        code = seen_add(&g->accounts, l->account_id, e);
    if (!code && *l->key_id)
        code = seen_add(live ? &g->live : &g->keys, l->key_id, e);
    if (!code && *l->account_id && !*l->key_id)
        code = seen_add(&g->keyless, l->account_id, e);
    return code;
}

static enum code take_admin_keys(struct ledgers *g, struct error *e)
{
    ROTATION r = {.org = ""};
    struct error none = {0};
    enum code code =
        seen_add(&g->admin_keys, g->run->config.admin_api_key_id, e);

    if (code ||
        rotation_load(g->run->core->store, g->run->org.name, &r, &none) != OK)
        return code;
    code = seen_add(&g->admin_keys, r.old_id, e);
    return code || !*r.new_id ? code : seen_add(&g->admin_keys, r.new_id, e);
}

/* ---- ours: the log ---- */

/* The last two steps of a path, which name one object: what it is and its id.
 */
static enum code add_call(struct ledgers *g, const char *method,
                          const char *uri, struct error *e)
{
    char text[320];
    size_t len = strcspn(uri, "?");
    int slashes = 0;

    while (len > 0 && slashes < 2)
        slashes += uri[--len] == '/';
    snprintf(text, sizeof(text), "%s %.*s", method,
             (int)strcspn(uri + len + 1, "?"), uri + len + 1);
    return seen_add(&g->calls, text, e);
}

static const char *text_of(const struct record *r, const char *name)
{
    const char *text = json_string_value(json_object_get(r->json, name));

    return text ? text : "";
}

static enum code take_record(int64_t sequence, const char *line, void *ctx,
                             struct error *e)
{
    struct ledgers *g = ctx;
    RECORD r = {.json = NULL};
    enum code code = OK;

    g->seq = sequence;
    if (!strstr(line, "\"kind\":\"call\"") &&
        !strstr(line, "\"kind\":\"seal\"") && !strstr(line, "\"kind\":\"mint\""))
        return OK;
    if (record_parse(&r, line, strlen(line), e) != OK)
        return e ? e->code : ERR_INTERNAL;
    if (r.kind == RECORD_CALL)
        return add_call(g, r.method, r.signature.target_uri, e);
    if (r.kind == RECORD_SEAL && *text_of(&r, "key_id"))
        return seen_add(&g->admin_keys, text_of(&r, "key_id"), e);
    if (r.kind != RECORD_MINT)
        return OK;
    if (*text_of(&r, "account_id"))
        code = seen_add(&g->accounts, text_of(&r, "account_id"), e);
    if (!code && *text_of(&r, "key_id") &&
        !seen_has(&g->live, text_of(&r, "key_id")))
        code = seen_add(&g->keys, text_of(&r, "key_id"), e);
    return code;
}

static enum code take_log(struct ledgers *g, struct error *e)
{
    int64_t before = -1;
    enum code code = OK;

    while (!code && g->seq != before && !run_stopped(g->run)) {
        before = g->seq;
        code = store_record_each(g->run->core->store, g->seq + 1, LINES,
                                 take_record, g, e);
    }
    return code;
}

static enum code take_ours(struct ledgers *g, struct error *e)
{
    struct store_lease_query q = {.org = g->run->org.id};
    enum code code = take_admin_keys(g, e);

    if (!code)
        code = store_lease_each(g->run->core->store, &q, take_lease, g, e);
    return code ? code : take_log(g, e);
}

/* After each page, never before: what was done since is in our ledgers by now,
 * but for a mint or a rotation whose reply is under way. */
static enum code take_new(struct ledgers *g, struct error *e)
{
    struct store *store = g->run->core->store;
    struct store_counts n;
    struct error none = {0};
    enum code code = store_lease_counts(store, g->run->org.id, NULL, &n, e);

    g->pending = !code && (n.pending > 0 ||
                           rotation_none(store, g->run->org.name, &none) != OK);
    if (!code)
        code = take_admin_keys(g, e);
    return code ? code : take_log(g, e);
}

/* ---- whose an event is ---- */

enum whose { OURS, NOT_OURS, LOOSE };

static bool called(const struct ledgers *g, const char *method,
                   const char *what, const char *id)
{
    char text[320];

    snprintf(text, sizeof(text), "%s %s/%s", method, what, id);
    return seen_has(&g->calls, text);
}

static enum whose account_made(const struct ledgers *g, const char *id)
{
    return seen_has(&g->accounts, id) ||
                   called(g, "DELETE", "service_accounts", id)
               ? OURS
               : NOT_OURS;
}

static enum whose account_deleted(const struct ledgers *g, const char *id)
{
    return called(g, "DELETE", "service_accounts", id) ? OURS : NOT_OURS;
}

static enum whose key_made(const struct ledgers *g, const char *id)
{
    return seen_has(&g->live, id) || seen_has(&g->keys, id) ? OURS : LOOSE;
}

static enum whose key_updated(const struct ledgers *g, const char *id)
{
    return called(g, "POST", "api_keys", id) ? OURS : NOT_OURS;
}

/* With its account. */
static enum whose key_deleted(const struct ledgers *g, const char *id)
{
    return seen_has(&g->keys, id) && !seen_has(&g->live, id) ? OURS : NOT_OURS;
}

static enum whose admin_key_made(const struct ledgers *g, const char *id)
{
    return seen_has(&g->admin_keys, id) ||
                   called(g, "DELETE", "admin_api_keys", id)
               ? OURS
               : NOT_OURS;
}

static enum whose admin_key_deleted(const struct ledgers *g, const char *id)
{
    return called(g, "DELETE", "admin_api_keys", id) ? OURS : NOT_OURS;
}

/* All that hsmint ever does; whatever else there is, it did not do. */
static const struct {
    const char *type;
    enum whose (*whose)(const struct ledgers *g, const char *id);
} types[] = {
    {"service_account.created", account_made},
    {"service_account.deleted", account_deleted},
    {"api_key.created", key_made},
    {"api_key.updated", key_updated},
    {"api_key.deleted", key_deleted},
    {"tenant.admin_api_key.created", admin_key_made},
    {"tenant.admin_api_key.deleted", admin_key_deleted},
};

static enum whose judge(const struct ledgers *g, const struct openai_event *v)
{
    for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++) {
        if (strcmp(types[i].type, v->type) == 0)
            return types[i].whose(g, v->target ? v->target : "");
    }
    return NOT_OURS;
}

/* ---- what is found ---- */

struct use {
    struct run *run;
    struct finding finding;
    json_t *more;
};

static enum code use_rows(struct store_tx *tx, void *ctx, struct error *e)
{
    struct use *u = ctx;
    struct finding f = u->finding;

    f.more = u->more;
    return run_record(u->run, tx, &f, e);
}

static enum code report_use(struct run *r, const struct finding *f,
                            json_t *more, struct error *e)
{
    struct use u = {r, *f, more};
    struct finding shown = *f;

    shown.more = more;
    run_report(r, &shown);
    run_count(r, RECONCILE_UNKNOWN_USES, 1);
    return r->job.dry_run
               ? OK
               : store_commit(r->core->store, STORE_RESERVE, use_rows, &u, e);
}

static json_t *event_json(const struct openai_event *v)
{
    char at[CLOCK_TEXT_MAX];

    return json_pack("{ss ss ss}", "event", v->id, "actor", v->actor, "time",
                     clock_text(v->effective_at * 1000, at));
}

static void keep_loose(struct ledgers *g, const struct openai_event *v,
                       json_t *more)
{
    size_t i = g->n_loose++;

    g->loose[i].more = json_incref(more);
    g->loose[i].at = v->effective_at;
    snprintf(g->loose[i].id, sizeof(g->loose[i].id), "%s", v->target);
    snprintf(g->loose[i].project, sizeof(g->loose[i].project), "%s",
             v->project ? v->project : "");
}

/* The next run sees what it came to be: a call under way, or a lease that ended
 * while this run was reading. */
static bool is_too_fresh(const struct ledgers *g, const struct openai_event *v)
{
    if (strcmp(v->type, "api_key.deleted") == 0 &&
        v->effective_at * 1000 + 1000 >= g->run->began_ms)
        return true;
    return g->pending && v->effective_at + FRESH_S > clock_wall_ms() / 1000;
}

static enum code take_event(struct ledgers *g, const struct openai_event *v,
                            struct error *e)
{
    struct run *r = g->run;
    struct finding f = {.what = "unknown-use",
                        .account = v->type,
                        .project = v->project,
                        .account_id = v->target,
                        .action = "report"};
    bool by_us = v->actor_key && seen_has(&g->admin_keys, v->actor_key);
    enum whose whose = by_us ? judge(g, v) : OURS;
    JSON more = event_json(v);

    run_count(r, RECONCILE_EVENTS, 1);
    if (!more)
        return error_set(e, ERR_NOMEM, "no memory for the service's log");
    if (by_us && v->target && seen_has(&g->keyless, v->target) &&
        g->n_made < LOOSE_MAX)
        g->made_at[g->n_made++] = v->effective_at;
    if (whose == LOOSE && v->target && g->n_loose < LOOSE_MAX) {
        keep_loose(g, v, more);
        return OK;
    }
    if (whose != OURS)
        return is_too_fresh(g, v) ? OK : report_use(r, &f, more, e);
    /* Not with our key: who deleted what a lease has. */
    if (!by_us && v->target && seen_has(&g->accounts, v->target)) {
        f.what = "changed-by-other";
        f.more = more;
        run_report(r, &f);
    }
    return OK;
}

static enum code copy(const char *from, char **to, struct error *e)
{
    *to = from ? strdup(from) : NULL;
    return !from || *to ? OK
                        : error_set(e, ERR_NOMEM,
                                    "no memory for the service's log");
}

static enum code keep_event(const struct openai_event *v, void *ctx,
                            struct error *e)
{
    struct ledgers *g = ctx;
    struct openai_event *more;
    enum code code;

    if (g->n_page == g->room) {
        size_t room = g->room ? 2 * g->room : 128;

        more = reallocarray(g->page, room, sizeof(*more));
        if (!more)
            return error_set(e, ERR_NOMEM, "no memory for the service's log");
        g->page = more;
        g->room = room;
    }
    more = &g->page[g->n_page++];
    *more = (struct openai_event){.effective_at = v->effective_at};
    if ((code = copy(v->id, &more->id, e)) ||
        (code = copy(v->type, &more->type, e)) ||
        (code = copy(v->target, &more->target, e)) ||
        (code = copy(v->project, &more->project, e)) ||
        (code = copy(v->actor_key, &more->actor_key, e)))
        return code;
    return copy(v->actor, &more->actor, e);
}

static enum code take_page(struct ledgers *g, struct error *e)
{
    enum code code = take_new(g, e);

    for (size_t i = 0; !code && i < g->n_page; i++)
        code = take_event(g, &g->page[i], e);
    page_clear(g);
    return code;
}

/* The reply to an account's creation was lost, and with it its key's id. */
static enum code settle_loose(struct ledgers *g, struct error *e)
{
    enum code code = OK;

    for (size_t i = 0; !code && i < g->n_loose; i++) {
        struct finding f = {.what = "unknown-use",
                            .account = "api_key.created",
                            .project = g->loose[i].project,
                            .account_id = g->loose[i].id,
                            .action = "report"};
        bool paired = false;

        for (size_t j = 0; j < g->n_made && !paired; j++)
            paired = llabs(g->made_at[j] - g->loose[i].at) <= TOGETHER_S;
        if (!paired)
            code = report_use(g->run, &f, g->loose[i].more, e);
    }
    return code;
}

static enum code read_events(struct ledgers *g, int64_t since_s, bool tenant,
                             struct error *e)
{
    FREE char *after = NULL;
    int pages = 0;
    enum code code;

    do {
        CLEANUP(openai_request_clear) struct openai_request request = {0};
        GATE_REPLY reply = GATE_REPLY_INIT;

        code = openai_event_list(&request, since_s, tenant, after, e);
        if (!code)
            code = run_ask(g->run, &request, &reply, e);
        free_p(&after);
        after = NULL;
        if (!code)
            code = openai_decode_event_list(&reply.http, keep_event, g, &after,
                                            e);
        if (!code)
            code = take_page(g, e);
        if (!code && ++pages == PAGES_MAX)
            code = error_set(e, ERR_SERVICE_REPLY,
                             "the service's audit log does not end");
    } while (!code && after && !run_stopped(g->run));
    return code;
}

static void tell(struct run *r)
{
    struct reconcile *shared = &r->core->reconcile;
    int64_t n;

    pthread_mutex_lock(&shared->lock);
    n = shared->counts[RECONCILE_UNKNOWN_USES];
    pthread_mutex_unlock(&shared->lock);
    if (n > 0)
        warnings_raise(&r->core->warnings, ALARM_ADMIN_KEY_USED, r->org.name,
                       "%lld uses of it are in the service's audit log and not "
                       "in ours",
                       (long long)n);
    else
        warnings_drop(&r->core->warnings, ALARM_ADMIN_KEY_USED, r->org.name);
}

enum code run_service_log(struct run *r, struct error *e)
{
    CLEANUP(ledgers_free) struct ledgers *g = calloc(1, sizeof(*g));
    int64_t since = r->job.since_ms > 0 ? r->job.since_ms
                                        : r->began_ms - DAY_MS;
    enum code code;

    if (!g)
        return error_set(e, ERR_NOMEM, "no memory for the service's log");
    g->run = r;
    code = take_ours(g, e);
    if (!code)
        code = read_events(g, since / 1000, false, e);
    if (!code)
        code = read_events(g, since / 1000, true, e);
    if (!code)
        code = settle_loose(g, e);
    if (!code)
        tell(r);
    return code;
}
