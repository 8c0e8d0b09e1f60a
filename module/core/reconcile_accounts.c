/* The service accounts of one project, held against the store page by page. */
#include "config.h"

#include "module/core/reconcile_run.h"

#include "common/clock.h"
#include "common/file.h"
#include "common/text.h"
#include "module/core/lease_record.h"
#include "module/core/lost.h"
#include "module/core/pages.h"
#include "module/core/restored.h"

#include <stdlib.h>
#include <string.h>

enum { PAGES_MAX = 10000 };

/* What is said of one account, in order of weight: a later one takes the place
 * of an earlier one when its rows are looked at. */
enum verdict {
    FOREIGN,  /* no marker of ours */
    UNKNOWN,  /* ours, and no row has its name */
    WRONG_ID, /* ours, and a row has its name, and another account or project */
    RETURNED, /* its row says that it was deleted, long ago */
    HELD,     /* adopting: its row was pending when the state was copied */
    KNOWN     /* its row says that it is there, may be, or just was */
};

struct account {
    char *name, *id;
    const char *project; /* the page's */
    int64_t created_s;
    int64_t now_ms; /* steady */
    struct run *run;
    bool ours;
    enum verdict verdict;
    struct store_lease row; /* RETURNED, HELD: the row that there is */
};

struct page {
    struct run *run;
    const char *project;
    struct account *accounts;
    size_t n, room;
};

static void page_clear(struct page *p)
{
    for (size_t i = 0; i < p->n; i++) {
        free(p->accounts[i].name);
        free(p->accounts[i].id);
        store_lease_clear(&p->accounts[i].row);
    }
    free(p->accounts);
}

/* ---- the service ---- */

static enum code collect(const struct openai_account *a, void *ctx,
                         struct error *e)
{
    struct page *p = ctx;
    struct account *more;

    if (p->n == p->room) {
        size_t room = p->room ? 2 * p->room : 128;

        more = reallocarray(p->accounts, room, sizeof(*more));
        if (!more)
            return error_set(e, ERR_NOMEM, "no memory for a page of accounts");
        p->accounts = more;
        p->room = room;
    }
    more = &p->accounts[p->n];
    *more = (struct account){.name = strdup(a->name ? a->name : ""),
                             .id = strdup(a->id),
                             .project = p->project,
                             .created_s = a->created_at,
                             .now_ms = steady_ms(p->run->core),
                             .run = p->run,
                             .verdict = FOREIGN};
    p->n++;
    if (!more->name || !more->id)
        return error_set(e, ERR_NOMEM, "no memory for a page of accounts");
    return seen_add(&p->run->seen, a->id, e);
}

static enum code fetch(struct page *p, char **after, struct error *e)
{
    CLEANUP(openai_request_clear) struct openai_request request = {0};
    GATE_REPLY reply = GATE_REPLY_INIT;
    enum code code = openai_account_list(&request, p->project, *after, e);

    if (!code)
        code = run_ask(p->run, &request, &reply, e);
    free_p(after);
    *after = NULL;
    return code ? code
                : openai_decode_account_list(&reply.http, collect, p, after, e);
}

/* ---- the store, after the page ---- */

static enum code check_markers(struct page *p, struct error *e)
{
    FREE const char **names = calloc(p->n + 1, sizeof(*names));
    FREE bool *ours = calloc(p->n + 1, sizeof(*ours));
    enum code code;

    if (!names || !ours)
        return error_set(e, ERR_NOMEM, "no memory for a page of accounts");
    for (size_t i = 0; i < p->n; i++)
        names[i] = p->accounts[i].name;
    code = marker_check(p->run->core, names, p->n, ours, e);
    for (size_t i = 0; !code && i < p->n; i++) {
        p->accounts[i].ours = ours[i];
        if (ours[i])
            p->accounts[i].verdict = UNKNOWN;
    }
    return code;
}

/* The original may have handed its key out. */
static bool is_adopted(const struct run *r, const struct store_lease *l)
{
    return r->job.adopt && l->state == LEASE_PENDING &&
           restored_holds(r->core, l);
}

static enum verdict judge(const struct account *a, const struct store_lease *l,
                          int64_t now_ms)
{
    bool same = strcmp(l->account_id, a->id) == 0;

    /* What the row does, it does in its own project. */
    if (strcmp(l->project, a->project) != 0)
        return same && l->state != LEASE_REVOKED ? KNOWN : WRONG_ID;
    if (!*l->account_id && is_adopted(a->run, l))
        return HELD;

    /* Its mint or its search is under way: they end it, whichever it is. */
    if (!*l->account_id && l->state != LEASE_REVOKED)
        return KNOWN;
    if (!*l->account_id) /* was given up as never made */
        return RETURNED;
    if (!same)
        return WRONG_ID;
    if (l->state == LEASE_REVOKED &&
        l->revoked_ms + RECONCILE_LAG_MS < now_ms)
        return RETURNED;
    return KNOWN;
}

static enum code look_at_row(const struct store_lease *l, void *ctx,
                             struct error *e)
{
    struct account *a = ctx;
    enum verdict v = judge(a, l, a->now_ms);

    if (v <= a->verdict)
        return OK;
    a->verdict = v;
    if (v != RETURNED && v != HELD)
        return OK;
    store_lease_clear(&a->row);
    a->row = (struct store_lease){0};
    return lease_copy(&a->row, l, e);
}

static enum code look_at_dead(const struct store_lease *l, void *ctx,
                              struct error *e)
{
    struct page *p = ctx;
    enum code code = OK;

    for (size_t i = 0; !code && i < p->n; i++) {
        struct account *a = &p->accounts[i];

        if (strcmp(a->name, l->account_name) == 0)
            code = look_at_row(l, a, e);
    }
    return code;
}

/* Markers of before the HMAC key was lost tell nothing: such an account is ours
 * where a row has it, and not by its name alone. */
static void forget_strangers(struct page *p)
{
    for (size_t i = 0; i < p->n; i++)
        if (!p->accounts[i].ours && p->accounts[i].verdict == WRONG_ID)
            p->accounts[i].verdict = FOREIGN;
}

static enum code ask_store(struct page *p, struct error *e)
{
    struct store *store = p->run->core->store;
    JSON open = json_array();
    FREE char *names = NULL;
    int64_t lost = 0, since_ms;
    enum code code = lost_hashes(p->run->core, &lost, &since_ms, e);

    for (size_t i = 0; !code && i < p->n; i++) {
        struct account *a = &p->accounts[i];

        if (!a->ours && (!lost || !marker_may_be(a->name)))
            continue;
        code = store_lease_named(store, a->name, look_at_row, a, e);
        if (!code && a->verdict != KNOWN &&
            json_array_append_new(open, json_string(a->name)) != 0)
            code = error_set(e, ERR_NOMEM, "no memory for a page of accounts");
    }
    forget_strangers(p);
    if (code || json_array_size(open) == 0)
        return code;
    names = json_text(open, JSON_COMPACT);
    if (!names)
        return error_set(e, ERR_NOMEM, "no memory for a page of accounts");
    code = store_lease_named_dead(store, names, look_at_dead, p, e);
    forget_strangers(p);
    return code;
}

/* ---- what is done about it ---- */

static const struct {
    const char *what;
    enum reconcile_count count;
} verdicts[] = {
    [FOREIGN] = {"foreign", RECONCILE_FOREIGN},
    [UNKNOWN] = {"unknown-ours", RECONCILE_UNKNOWN},
    [WRONG_ID] = {"wrong-id", RECONCILE_WRONG_ID},
    [RETURNED] = {"returned", RECONCILE_RETURNED},
    [HELD] = {"pending-ours", RECONCILE_KNOWN},
    [KNOWN] = {"known", RECONCILE_KNOWN},
};

/* As a time of leases; 0: the service told none. */
static int64_t ends_at(const struct run *r, const json_t *key)
{
    return steady_of_wall_ms(
        r->core,
        json_integer_value(json_object_get(key, "expires_at")) * 1000);
}

/* A lease ends a little before its key does, at the service. */
static int64_t end_of(const struct run *r, const struct store_lease *l,
                      int64_t now)
{
    if (l->provider_expires_ms > 0)
        return l->provider_expires_ms - LEASE_SLACK_S * 1000;
    return now + (r->job.ttl_s > 0 ? r->job.ttl_s : RECONCILE_ADOPT_S) * 1000;
}

/* A row for an account that none has: the sweeper ends it at `expires_ms`, at
 * once in state revoking. */
static enum code make_row(const struct page *p, const struct account *a,
                          bool adopt, struct store_lease *l, struct error *e)
{
    int64_t now = steady_ms(p->run->core);
    json_t *key = json_object_get(p->run->keys, a->id);
    const char *key_id = json_string_value(json_object_get(key, "id"));
    struct {
        char **to;
        const char *from;
    } texts[] = {
        {&l->role, ""},
        {&l->owner, LEASE_OWNER_SELF},
        {&l->program, "reconcile"},
        {&l->application, ""},
        {&l->project, p->project},
        {&l->account_name, a->name},
        {&l->account_id, a->id},
        {&l->key_id, key_id ? key_id : ""},
        {&l->api_base, p->run->config.api_endpoint},
        {&l->label, ""},
        {&l->last_error, ""},
        {&l->request_id, ""},
        {&l->reason, adopt ? "" : verdicts[a->verdict].what},
    };
    enum code code = text_id(l->id, e);

    l->org = p->run->org.id;
    l->state = adopt ? LEASE_ACTIVE : LEASE_REVOKING;
    l->issued_ms = steady_of_wall_ms(p->run->core, a->created_s * 1000);
    if (a->created_s <= 0 || l->issued_ms > now)
        l->issued_ms = now;
    l->provider_expires_ms = ends_at(p->run, key);
    l->expires_ms = adopt ? end_of(p->run, l, now) : now;
    l->max_expires_ms = l->expires_ms;
    l->next_try_ms = now;
    for (size_t i = 0; !code && i < sizeof(texts) / sizeof(texts[0]); i++)
        code = lease_text(texts[i].to, texts[i].from, e);
    return code;
}

struct act {
    struct page *page;
    struct account *account;
    struct store_lease *lease;
    struct finding finding;
    bool is_new;
    enum lease_state was;
};

static enum code act_rows(struct store_tx *tx, void *ctx, struct error *e)
{
    struct act *a = ctx;
    struct finding f = a->finding;
    const struct lease_record moved = {.lease = a->lease, .was = a->was};
    struct core *c = a->page->run->core;
    /* Nothing is adopted while all of it is being ended. */
    enum code code = a->lease->state == LEASE_ACTIVE
                         ? halt_check(&c->halt, a->lease->org, e)
                         : OK;

    if (!code)
        code = a->is_new ? store_lease_insert(tx, a->lease, e)
                         : store_lease_update(tx, a->lease, a->was, e);

    if (!code && !a->is_new)
        code = lease_record(c, tx, &moved, e);
    return code ? code : run_record(a->page->run, tx, &f, e);
}

/* Its key ends when the service says so, else when its row did. */
static enum code adopt_row(struct act *a, struct error *e)
{
    struct store_lease *l = a->lease;
    json_t *key = json_object_get(a->page->run->keys, a->account->id);
    const char *key_id = json_string_value(json_object_get(key, "id"));
    int64_t ends = ends_at(a->page->run, key);

    if (ends > 0) {
        l->provider_expires_ms = ends;
        l->expires_ms = ends - LEASE_SLACK_S * 1000;
    }
    return key_id ? lease_text(&l->key_id, key_id, e) : OK;
}

/* The row that was given up, or held, is taken up again, as lease_table.h says.
 */
static enum code take_up(struct act *a, struct error *e)
{
    struct store_lease *l = a->lease = &a->account->row;
    bool held = a->account->verdict == HELD;
    enum code code;

    a->was = l->state;
    a->finding.lease = l->id;
    code = lease_apply(a->page->run->core, l, held ? LEASE_MADE : LEASE_FOUND,
                       0, NULL, e);
    if (!code)
        code = lease_text(&l->account_id, a->account->id, e);
    l->next_try_ms = a->account->now_ms;
    l->revoked_ms = 0;
    return code || !held ? code : adopt_row(a, e);
}

static enum code act(struct page *p, struct account *a, struct error *e)
{
    struct run *r = p->run;
    LEASE row = {0};
    bool adopt =
        a->verdict == HELD || (r->job.adopt && a->verdict == UNKNOWN);
    struct act step = {.page = p,
                       .account = a,
                       .lease = &row,
                       .is_new = a->verdict != RETURNED && a->verdict != HELD,
                       .finding = {.what = verdicts[a->verdict].what,
                                   .project = p->project,
                                   .account = a->name,
                                   .account_id = a->id,
                                   .action = adopt ? "adopt" : "revoke"}};
    enum code code = OK;

    if (!step.is_new)
        code = take_up(&step, e);
    else if (!(code = make_row(p, a, adopt, &row, e)))
        step.finding.lease = row.id;
    if (!code)
        code = store_commit(r->core->store, STORE_RESERVE, act_rows, &step, e);
    if (code == ERR_EXISTS) /* somebody else was at that row */
        return OK;
    if (code)
        return code;
    run_report(r, &step.finding);
    run_count(r, adopt ? RECONCILE_ADOPTED : RECONCILE_REVOKING, 1);
    return OK;
}

static enum code act_on_page(struct page *p, struct error *e)
{
    struct run *r = p->run;
    bool done = false;
    enum code code = OK;

    for (size_t i = 0; i < p->n; i++)
        run_count(r, verdicts[p->accounts[i].verdict].count, 1);
    run_count(r, RECONCILE_ACCOUNTS, (int64_t)p->n);
    for (size_t i = 0; !code && i < p->n; i++) {
        struct account *a = &p->accounts[i];
        struct finding f = {.what = verdicts[a->verdict].what,
                            .project = p->project,
                            .account = a->name,
                            .account_id = a->id,
                            .action = "report"};

        if (a->verdict == KNOWN)
            continue;
        if (a->verdict != FOREIGN && !done)
            run_check_state(r); /* once a page, after it */
        done = done || a->verdict != FOREIGN;
        if (a->verdict == FOREIGN || r->report_only)
            run_report(r, &f);
        else
            code = act(p, a, e);
    }
    if (done)
        sweep_wake(r->core);
    return code;
}

/* ---- ends of keys, for leases that are adopted ---- */

static enum code take_key_end(const struct openai_key *k, void *ctx,
                          struct error *e)
{
    struct run *r = ctx;

    if (!k->account_id)
        return OK;
    return json_object_set_new(r->keys, k->account_id,
                               json_pack("{ss sI}", "id", k->id, "expires_at",
                                         (json_int_t)k->expires_at)) == 0
               ? OK
               : error_set(e, ERR_NOMEM, "no memory for a list of keys");
}

static enum code list_keys(struct run *r, const char *project, struct error *e)
{
    FREE char *after = NULL;
    struct pages pages = {.n = 0};
    enum code code;

    json_decref(r->keys);
    r->keys = json_object();
    do {
        CLEANUP(openai_request_clear) struct openai_request request = {0};
        GATE_REPLY reply = GATE_REPLY_INIT;

        code = openai_project_key_list(&request, project, after, e);
        if (!code)
            code = run_ask(r, &request, &reply, e);
        free_p(&after);
        after = NULL;
        if (!code)
            code = openai_decode_key_list(&reply.http, take_key_end, r, &after, e);
        if (!code)
            code = pages_next(&pages, after, PAGES_MAX, "keys", e);
    } while (!code && after && !run_stopped(r));
    return code;
}

enum code run_project(struct run *r, const char *project, struct error *e)
{
    FREE char *after = NULL;
    struct pages pages = {.n = 0};
    int64_t began_ms = steady_ms(r->core);
    enum code code = r->job.adopt ? list_keys(r, project, e) : OK;

    seen_clear(&r->seen);
    if (code)
        return code;
    do {
        CLEANUP(page_clear) struct page p = {.run = r, .project = project};

        code = fetch(&p, &after, e);
        if (!code)
            code = check_markers(&p, e);
        if (!code)
            code = ask_store(&p, e);
        if (!code)
            code = act_on_page(&p, e);
        run_count(r, RECONCILE_PAGES, 1);
        if (!code)
            code = pages_next(&pages, after, PAGES_MAX, "service accounts", e);
    } while (!code && after && !run_stopped(r));
    return code || after ? code : run_vanished(r, project, began_ms, e);
}
