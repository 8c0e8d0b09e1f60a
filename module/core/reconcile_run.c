/* reconcile_run - one run, from its first organisation to its last. */
#include "config.h"

#include "module/core/reconcile_run.h"

#include "common/clock.h"
#include "common/file.h"
#include "common/log.h"
#include "module/core/logbook.h"
#include "module/core/notary.h"
#include "module/core/restored.h"
#include "module/core/role.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { ASK_TRIES = 8, PAGES_MAX = 1000 };

/* ---- the report ---- */

static const char *const count_names[RECONCILE_COUNTS] = {
    [RECONCILE_PROJECTS] = "projects",
    [RECONCILE_PAGES] = "pages",
    [RECONCILE_ACCOUNTS] = "accounts",
    [RECONCILE_KNOWN] = "known",
    [RECONCILE_UNKNOWN] = "unknown",
    [RECONCILE_WRONG_ID] = "wrong_id",
    [RECONCILE_RETURNED] = "returned",
    [RECONCILE_VANISHED] = "vanished",
    [RECONCILE_FOREIGN] = "foreign",
    [RECONCILE_ADMIN_KEYS] = "admin_keys",
    [RECONCILE_ADMIN_UNKNOWN] = "admin_unknown",
    [RECONCILE_ADMIN_FOREIGN] = "admin_foreign",
    [RECONCILE_REVOKING] = "revoking",
    [RECONCILE_ADOPTED] = "adopted",
    [RECONCILE_CLOSED] = "closed",
    [RECONCILE_EVENTS] = "events",
    [RECONCILE_UNKNOWN_USES] = "unknown_uses",
};

const char *reconcile_count_name(enum reconcile_count c)
{
    return count_names[c];
}

void run_count(struct run *r, enum reconcile_count c, int64_t n)
{
    struct reconcile *shared = &r->core->reconcile;

    pthread_mutex_lock(&shared->lock);
    shared->counts[c] += n;
    pthread_mutex_unlock(&shared->lock);
}

static void append(struct run *r, const char *list, json_t *item)
{
    struct reconcile *shared = &r->core->reconcile;
    json_t *to;

    pthread_mutex_lock(&shared->lock);
    to = json_object_get(shared->report, list);
    if (json_array_size(to) < RECONCILE_FINDINGS_MAX)
        (void)json_array_append(to, item);
    else
        (void)json_object_set_new(shared->report, "omitted", json_true());
    pthread_mutex_unlock(&shared->lock);
    json_decref(item);
}

/* The members that report and record share. */
static json_t *finding_json(const struct finding *f)
{
    JSON j = json_pack("{ss so so ss ss}", "finding", f->what, "project",
                       logbook_text(f->project ? f->project : "", 128),
                       "account", logbook_text(f->account ? f->account : "", 512),
                       "account_id", f->account_id ? f->account_id : "",
                       "action", f->action);

    if (j && f->more && json_object_update(j, f->more) != 0)
        return NULL;
    return j ? json_incref(j) : NULL;
}

void run_report(struct run *r, const struct finding *f)
{
    json_t *j = finding_json(f);

    if (!j)
        return;
    json_object_set_new(j, "org", json_string(r->org.name));
    append(r, "findings", j);
}

enum code run_record(struct run *r, struct store_tx *tx,
                     const struct finding *f, struct error *e)
{
    bool adopt = strcmp(f->action, "adopt") == 0;
    const struct logbook_entry entry = {
        .kind = adopt ? RECORD_ADOPT : RECORD_RECONCILE,
        .org = r->org.name,
        .lease = f->lease,
        .more = finding_json(f)};

    return logbook_add(r->core, tx, &entry, e);
}

void run_failed(struct run *r, const char *where, const struct error *why)
{
    json_t *j = json_pack("{ss so ss}", "org", r->org.name ? r->org.name : "",
                          "where", logbook_text(where, 128), "text", why->text);

    r->complete = false;
    log_failure(why, "reconcile: %s", where);
    if (j)
        append(r, "errors", j);
}

/* ---- patience ---- */

bool run_stopped(struct run *r)
{
    struct reconcile *shared = &r->core->reconcile;
    bool stop;

    pthread_mutex_lock(&shared->lock);
    stop = shared->stop;
    pthread_mutex_unlock(&shared->lock);
    return stop;
}

void run_wait_ms(struct run *r, int64_t ms)
{
    struct reconcile *shared = &r->core->reconcile;
    struct timespec until = clock_in_ms(ms);

    pthread_mutex_lock(&shared->lock);
    while (!shared->stop &&
           pthread_cond_clockwait(&shared->changed, &shared->lock,
                                  CLOCK_MONOTONIC, &until) == 0)
        ;
    pthread_mutex_unlock(&shared->lock);
}

static bool may_pass(enum code code)
{
    switch (code) {
    case ERR_SERVICE_DOWN:
    case ERR_SERVICE_UNKNOWN:
    case ERR_SERVICE_RATE:
    case ERR_SERVICE_FAILED:
    case ERR_SERVICE_REPLY:
    case ERR_KEEPER:
    case ERR_NOT_SIGNED:
    case ERR_NOT_LOGGED:
    case ERR_HSM_ABSENT:
    case ERR_DEADLINE:
        return true;
    default:
        return false;
    }
}

enum code run_ask(struct run *r, const struct openai_request *q,
                  struct gate_reply *reply, struct error *e)
{
    struct gate_call call = {.org = r->org.name,
                             .purpose = "reconcile",
                             .request = q,
                             .urgency = STORE_RESERVE};
    struct error why = {0};
    enum code code = OK;

    for (int i = 0; i < ASK_TRIES && !run_stopped(r); i++) {
        gate_reply_clear(reply);
        *reply = (struct gate_reply)GATE_REPLY_INIT;
        error_clear(&why);
        code = gate_ask(r->core, &call, reply, &why);
        if (!may_pass(code))
            break;
        run_wait_ms(r, lease_backoff_ms(i, why.retry_after_ms));
    }
    if (!code && run_stopped(r))
        code = error_set(&why, ERR_DEADLINE,
                         "the daemon stops; the run goes on at its next start");
    if (code && e)
        *e = why;
    return code;
}

void run_check_state(struct run *r)
{
    struct error why = {0};

    if (r->report_only || notary_compare(r->core, &why) == OK)
        return;
    r->report_only = true;
    run_failed(r, "comparing with the log's anchor", &why);
    if (why.code == ERR_ROLLED_BACK &&
        restored_mark(r->core, "the log on the HSM is another one", &why) != OK)
        log_failure(&why, "the state's mark cannot be kept");
}

/* ---- projects ---- */

struct projects {
    struct run *run;
    json_t *ids; /* {id: true} */
};

static enum code add(struct projects *p, const char *id, struct error *e)
{
    if (!*id || text_check_service_id("project", id, NULL) != OK)
        return OK;
    return json_object_set_new(p->ids, id, json_true()) == 0
               ? OK
               : error_set(e, ERR_NOMEM, "no memory for a list of projects");
}

static enum code add_listed(const struct openai_project *project, void *ctx,
                            struct error *e)
{
    return project->archived ? OK : add(ctx, project->id, e);
}

static enum code add_role(const struct store_role *row, void *ctx,
                          struct error *e)
{
    ROLE role = {0};
    enum code code = role_parse(&role, row->body, e);

    return code ? code : add(ctx, role.project_id, e);
}

static enum code add_lease(const struct store_lease *l, void *ctx,
                           struct error *e)
{
    return add(ctx, l->project, e);
}

static enum code list_projects(struct projects *p, struct error *e)
{
    FREE char *after = NULL;
    int pages = 0;
    enum code code;

    do {
        CLEANUP(openai_request_clear) struct openai_request request = {0};
        GATE_REPLY reply = GATE_REPLY_INIT;

        code = openai_project_list(&request, after, false, e);
        if (!code)
            code = run_ask(p->run, &request, &reply, e);
        free_p(&after);
        after = NULL;
        if (!code)
            code = openai_decode_project_list(&reply.http, add_listed, p,
                                              &after, e);
        if (!code && ++pages == PAGES_MAX)
            code = error_set(e, ERR_SERVICE_REPLY,
                             "the list of projects does not end");
    } while (!code && after);
    return code;
}

/* All that the service has: an account may be in a project that no role names
 * any more. */
static enum code find_projects(struct projects *p, struct error *e)
{
    struct run *r = p->run;
    struct store_lease_query q = {.org = r->org.id, .live_only = true};
    struct error why = {0};
    enum code code =
        store_role_each(r->core->store, r->org.id, add_role, p, e);

    if (!code)
        code = store_lease_each(r->core->store, &q, add_lease, p, e);
    if (!code && list_projects(p, &why) != OK)
        run_failed(r, "the list of projects", &why);
    return code;
}

static void one_project(struct run *r, const char *id)
{
    struct error e = {0};
    enum code code = run_project(r, id, &e);

    if (run_stopped(r))
        return;
    /* An archived or deleted project has no account that works. */
    if (code && code != ERR_PROJECT)
        run_failed(r, id, &e);
    run_count(r, RECONCILE_PROJECTS, 1);
    run_done(r, id); /* one that failed, too: the next run sees it */
}

static void each_project(struct run *r)
{
    JSON ids = json_object();
    struct projects p = {r, ids};
    struct error e = {0};
    const char *id;
    json_t *yes;

    if (find_projects(&p, &e) != OK) {
        run_failed(r, "the store's projects", &e);
        return;
    }
    json_object_foreach(ids, id, yes)
    {
        error_clear(&e);
        if (run_stopped(r))
            return;
        if (run_is_done(r, id))
            continue;
        one_project(r, id);
    }
}

/* ---- organisations ---- */

void run_clear_org(struct run *r)
{
    store_org_clear(&r->org);
    config_clear(&r->config);
    seen_clear(&r->seen);
    json_decref(r->keys);
    r->keys = NULL;
    r->org = (struct store_org){0};
    r->config = (struct config){0};
}

static void projects_of(struct run *r)
{
    r->began_ms = clock_wall_ms();
    each_project(r);
}

/* Not in parts: an end in between has them looked at as a whole once more. */
static void rest_of(struct run *r)
{
    struct error e = {0};

    r->began_ms = clock_wall_ms();
    if (!run_stopped(r) && run_admin_keys(r, &e) != OK)
        run_failed(r, "admin keys", &e);
    error_clear(&e);
    if (!run_stopped(r) && r->job.audit && run_service_log(r, &e) != OK)
        run_failed(r, "the service's audit log", &e);
}

static void one_org(struct run *r, const char *name, void (*look)(struct run *))
{
    struct error e = {0};
    enum code code = core_org(r->core, name, &r->org, &e);

    if (!code)
        code = config_parse(&r->config, r->org.config, &e);
    if (code && look == projects_of) /* told once */
        run_failed(r, name, &e);
    /* Without a key it never minted anything that could be looked for. */
    if (!code && r->org.admin_blob)
        look(r);
    run_clear_org(r);
}

static void each_org(struct run *r, void (*look)(struct run *))
{
    struct core *c = r->core;

    if (*r->job.org) {
        one_org(r, r->job.org, look);
        return;
    }
    for (size_t i = 0; !run_stopped(r); i++) {
        char name[64] = "";

        pthread_mutex_lock(&c->orgs_lock);
        if (i < c->n_orgs)
            snprintf(name, sizeof(name), "%s", c->orgs[i].name);
        pthread_mutex_unlock(&c->orgs_lock);
        if (!*name)
            return;
        one_org(r, name, look);
    }
}

/* What is kept of a run that is cut off is of projects: all of them come first,
 * so that nothing else is counted twice by what goes on. */
void run_all(struct run *r)
{
    each_org(r, projects_of);
    each_org(r, rest_of);
}
