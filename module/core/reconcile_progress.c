/* How far a run is, so that the next start goes on there. */
#include "config.h"

#include "module/core/reconcile_run.h"

#include "common/clock.h"
#include "common/file.h"
#include "common/log.h"
#include "module/core/reconcile_doc.h"

#include <stdio.h>
#include <string.h>

enum {
    KEEP_MS = 2000,
    /* What was seen longer ago may be another world by now. */
    STALE_MS = 3600000
};
#define PROGRESS CLEANUP(reconcile_progress_clear) struct reconcile_progress

/* With the lock of reconcile held. */
static void take_report(struct reconcile *shared, json_t *report)
{
    json_decref(shared->report);
    shared->report = json_incref(report);
    (void)json_object_set_new(shared->report, "resumed", json_true());
    reconcile_counts_of(shared);
}

/* What an administrator decides about is gone through as it is now. */
static bool may_go_on(const struct run *r, const struct reconcile_progress *p)
{
    int64_t age = clock_wall_ms() - p->at_ms;

    return strcmp(p->job, r->job.id) == 0 && age >= 0 && age < STALE_MS &&
           !r->job.adopt && !r->job.revoke;
}

void run_progress_open(struct run *r)
{
    struct reconcile *shared = &r->core->reconcile;
    PROGRESS p = {.done = NULL};
    FREE char *text = NULL;
    struct error e = {0};
    enum code code =
        reconcile_doc_load(r->core, RECONCILE_PROGRESS, &text, &e);

    r->kept_ms = clock_monotonic_ms();
    r->done = json_object();
    if (!code && text)
        code = reconcile_progress_parse(&p, text, &e);
    if (code)
        log_failure(&e, "reconcile: the run begins anew");
    if (code || !text || !may_go_on(r, &p))
        return;
    json_decref(r->done);
    r->done = json_incref(p.done);
    r->complete = p.complete;
    pthread_mutex_lock(&shared->lock);
    take_report(shared, p.report);
    pthread_mutex_unlock(&shared->lock);
    log_info("reconcile %s goes on after %zu projects", r->job.id,
             json_object_size(r->done));
}

static void name_of(const struct run *r, const char *project, char out[256])
{
    snprintf(out, 256, "%s/%s", r->org.name, project);
}

bool run_is_done(const struct run *r, const char *project)
{
    char name[256];

    name_of(r, project, name);
    return json_object_get(r->done, name) != NULL;
}

/* Between two projects: what is counted of half a one would be counted twice. */
static json_t *take_progress(const struct run *r)
{
    struct reconcile *shared = &r->core->reconcile;
    PROGRESS p = {.at_ms = clock_wall_ms(), .complete = r->complete};

    strcpy(p.job, r->job.id);
    p.done = json_incref(r->done);
    pthread_mutex_lock(&shared->lock);
    p.report = reconcile_report_now(shared);
    pthread_mutex_unlock(&shared->lock);
    return p.report ? reconcile_progress_json(&p) : NULL;
}

static void keep(struct run *r, json_t *progress)
{
    struct error e = {0};

    if (reconcile_doc_keep(r->core, RECONCILE_PROGRESS, progress, NULL, &e) !=
        OK)
        log_failure(&e, "reconcile: how far it is cannot be kept");
    r->kept_ms = clock_monotonic_ms();
}

void run_done(struct run *r, const char *project)
{
    char name[256];

    name_of(r, project, name);
    (void)json_object_set_new(r->done, name, json_true());
    json_decref(r->progress);
    r->progress = take_progress(r);
    if (r->progress && clock_monotonic_ms() - r->kept_ms >= KEEP_MS)
        keep(r, r->progress);
}

void run_progress_close(struct run *r, bool over)
{
    if (over || r->progress)
        keep(r, over ? NULL : r->progress);
    json_decref(r->progress);
    json_decref(r->done);
    r->progress = r->done = NULL;
}
