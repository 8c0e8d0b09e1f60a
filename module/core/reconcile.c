/* reconcile - see reconcile.h. */
#include "config.h"

#include "module/core/reconcile.h"

#include "common/clock.h"
#include "common/file.h"
#include "common/log.h"
#include "module/core/logbook.h"
#include "module/core/notary.h"
#include "module/core/reconcile_doc.h"
#include "module/core/reconcile_run.h"
#include "module/core/restored.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

enum {
    FIRST_MS = 60000,     /* after a start, by the timer */
    AGAIN_MS = 300000,    /* after a run that could not see all */
    IDLE_MS = 3600000
};

/* ---- the report ---- */

/* With the lock held. */
json_t *reconcile_report_now(const struct reconcile *r)
{
    JSON report = r->report ? json_deep_copy(r->report) : json_object();

    if (!report)
        return NULL;
    for (int i = 0; r->report && i < RECONCILE_COUNTS; i++)
        if (json_object_set_new(report,
                                reconcile_count_name((enum reconcile_count)i),
                                json_integer((json_int_t)r->counts[i])) != 0)
            return NULL;
    if (json_object_set_new(report, "state",
                            json_string(r->running || r->wanted ? "running"
                                        : r->report             ? "done"
                                                                : "none")) != 0)
        return NULL;
    return json_incref(report);
}

/* With the lock held: as its report says. */
void reconcile_counts_of(struct reconcile *r)
{
    for (int i = 0; i < RECONCILE_COUNTS; i++)
        r->counts[i] = json_integer_value(json_object_get(
            r->report, reconcile_count_name((enum reconcile_count)i)));
}

static void put(struct core *c, const char *name, json_t *value)
{
    struct reconcile *r = &c->reconcile;

    pthread_mutex_lock(&r->lock);
    json_object_set_new(r->report, name, value);
    pthread_mutex_unlock(&r->lock);
}

static int64_t count_of(struct core *c, enum reconcile_count which)
{
    struct reconcile *r = &c->reconcile;
    int64_t n;

    pthread_mutex_lock(&r->lock);
    n = r->counts[which];
    pthread_mutex_unlock(&r->lock);
    return n;
}

/* With the lock held. */
static void report_begin(struct reconcile *r)
{
    json_decref(r->report);
    r->report = reconcile_job_json(&r->job);
    if (r->report) {
        json_object_set_new(r->report, "began_ms",
                            json_integer((json_int_t)clock_wall_ms()));
        json_object_set_new(r->report, "findings", json_array());
        json_object_set_new(r->report, "errors", json_array());
    }
    memset(r->counts, 0, sizeof(r->counts));
}

/* ---- alarms ---- */

static const struct {
    enum alarm alarm;
    enum reconcile_count count;
    const char *text;
} alarms[] = {
    {ALARM_UNKNOWN_ACCOUNTS, RECONCILE_UNKNOWN,
     "accounts of ours that no lease knew of"},
    {ALARM_UNKNOWN_ACCOUNTS, RECONCILE_WRONG_ID,
     "accounts that the service made twice"},
    {ALARM_UNKNOWN_ACCOUNTS, RECONCILE_RETURNED,
     "accounts that are there after their deletion"},
    {ALARM_UNKNOWN_ACCOUNTS, RECONCILE_ADMIN_UNKNOWN,
     "admin keys of ours that no rotation knew of"},
    {ALARM_ACCOUNTS_VANISHED, RECONCILE_VANISHED,
     "accounts of live leases that somebody deleted"},
};

static void tell_alarms(struct run *r)
{
    struct core *c = r->core;

    if (r->complete && !*r->job.org) {
        warnings_drop_all(&c->warnings, ALARM_UNKNOWN_ACCOUNTS);
        warnings_drop_all(&c->warnings, ALARM_ACCOUNTS_VANISHED);
    }
    for (size_t i = 0; i < sizeof(alarms) / sizeof(alarms[0]); i++) {
        int64_t n = count_of(c, alarms[i].count);

        if (n > 0)
            warnings_raise(&c->warnings, alarms[i].alarm,
                           reconcile_count_name(alarms[i].count),
                           "reconcile found %lld %s%s", (long long)n,
                           alarms[i].text,
                           r->report_only ? "; they were only reported" : "");
    }
}

/* ---- one run ---- */

static json_t *outcome(struct run *r)
{
    JSON more = json_pack("{ss ss sb sb}", "finding", "end", "job", r->job.id,
                          "complete", r->complete, "report_only",
                          r->report_only);

    for (int i = 0; more && i < RECONCILE_COUNTS; i++) {
        int64_t n = count_of(r->core, (enum reconcile_count)i);

        if (n && json_object_set_new(
                     more, reconcile_count_name((enum reconcile_count)i),
                     json_integer((json_int_t)n)) != 0)
            return NULL;
    }
    return more ? json_incref(more) : NULL;
}

static void finish(struct run *r)
{
    struct core *c = r->core;
    struct reconcile *shared = &c->reconcile;
    const struct logbook_entry end = {
        .kind = RECORD_RECONCILE, .org = r->job.org, .more = outcome(r)};
    struct error e = {0};
    JSON report = NULL;

    put(c, "complete", json_boolean(r->complete));
    put(c, "report_only", json_boolean(r->report_only));
    put(c, "ended_ms", json_integer((json_int_t)clock_wall_ms()));
    if (reconcile_doc_keep(c, RECONCILE_JOB, NULL, &end, &e) != OK)
        log_failure(&e, "reconcile: its end cannot be kept");
    pthread_mutex_lock(&shared->lock);
    if (r->complete && !*r->job.org)
        shared->last_ms = clock_wall_ms();
    report = reconcile_report_now(shared);
    pthread_mutex_unlock(&shared->lock);
    if (report &&
        reconcile_doc_keep(c, RECONCILE_LAST, report, NULL, &e) != OK)
        log_failure(&e, "reconcile: its report cannot be kept");
    tell_alarms(r);
    /* Who is told that it is done finds all of it. */
    pthread_mutex_lock(&shared->lock);
    shared->running = false;
    pthread_mutex_unlock(&shared->lock);
}

/* What an administrator decides holds for all organisations, once all of them
 * were seen to their end. */
static void settle(struct run *r)
{
    struct error e = {0};
    bool decided = r->job.adopt || r->job.revoke;

    if (!decided || r->job.dry_run || r->report_only || !r->complete ||
        *r->job.org || !restored_is(r->core, &e))
        return;
    error_clear(&e);
    if (restored_settle(r->core, r->job.asked_by, &e) != OK)
        run_failed(r, "the state's mark", &e);
    sweep_wake(r->core);
}

/* Who asked for one has had it kept before it was begun. */
static void keep_timers(struct core *c, const struct reconcile_job *job)
{
    struct error e = {0};
    JSON body = NULL;

    if (*job->asked_by)
        return;
    body = reconcile_job_json(job);
    if (body && reconcile_doc_keep(c, RECONCILE_JOB, body, NULL, &e) != OK)
        log_failure(&e, "reconcile: a run that is cut off begins anew");
}

static void run_job(struct core *c, const struct reconcile_job *job)
{
    struct run r = {.core = c, .job = *job, .complete = true};
    bool decided = job->adopt || job->revoke;
    struct error why = {0};

    keep_timers(c, job);
    r.report_only = job->dry_run;
    if (notary_rolled_back(c, &why)) {
        struct error e = {0};

        r.report_only = true;
        if (restored_mark(c, "the log on the HSM is another one", &e) != OK)
            log_failure(&e, "the state's mark cannot be kept");
    } else if (!decided && restored_is(c, &why)) {
        r.report_only = true;
    }
    run_progress_open(&r);
    if (*why.text)
        put(c, "reason", json_string(why.text));
    run_all(&r);
    /* Not ended: the document stays, and the next start goes on with it. */
    run_progress_close(&r, !run_stopped(&r));
    if (run_stopped(&r))
        return;
    settle(&r);
    finish(&r);
}

/* ---- the thread ---- */

/* With the lock held: is there something to do now, or in how long? */
static int64_t due_in(struct core *c, int64_t *next_ms)
{
    struct reconcile *r = &c->reconcile;
    int64_t period = c->settings->reconcile_s * 1000;
    int64_t now = clock_monotonic_ms();

    if (r->wanted)
        return 0;
    if (period == 0)
        return IDLE_MS;
    if (*next_ms == 0)
        *next_ms = now + (period < FIRST_MS ? period : FIRST_MS);
    if (*next_ms > now)
        return *next_ms - now;
    r->job = (struct reconcile_job){.org = ""};
    if (text_id(r->job.id, NULL) != OK)
        return FIRST_MS;
    report_begin(r);
    return 0;
}

static void wait_for(struct reconcile *r, int64_t ms)
{
    struct timespec until = clock_in_ms(ms);

    (void)pthread_cond_clockwait(&r->changed, &r->lock, CLOCK_MONOTONIC,
                                 &until);
}

static int64_t next_after(struct core *c, bool complete)
{
    int64_t period = c->settings->reconcile_s * 1000;

    return clock_monotonic_ms() +
           (complete || period < AGAIN_MS ? period : AGAIN_MS);
}

static void *run_thread(void *ctx)
{
    struct core *c = ctx;
    struct reconcile *r = &c->reconcile;
    int64_t next_ms = 0;

    pthread_mutex_lock(&r->lock);
    while (!r->stop) {
        int64_t wait = due_in(c, &next_ms);
        struct reconcile_job job;

        if (wait > 0) {
            wait_for(r, wait);
            continue;
        }
        r->wanted = false;
        r->running = true;
        job = r->job;
        pthread_mutex_unlock(&r->lock);
        run_job(c, &job);
        pthread_mutex_lock(&r->lock);
        r->running = false;
        next_ms = next_after(
            c, json_is_true(json_object_get(r->report, "complete")));
    }
    pthread_mutex_unlock(&r->lock);
    return NULL;
}

/* ---- begin, end ---- */

static void take_last(struct reconcile *r)
{
    const char *org = json_string_value(json_object_get(r->report, "org"));

    reconcile_counts_of(r);
    if (org && !*org && json_is_true(json_object_get(r->report, "complete")))
        r->last_ms =
            json_integer_value(json_object_get(r->report, "ended_ms"));
}

static enum code go_on(struct core *c, struct error *e)
{
    struct reconcile *r = &c->reconcile;
    FREE char *job = NULL;
    FREE char *last = NULL;
    enum code code = reconcile_doc_load(c, RECONCILE_JOB, &job, e);

    if (!code)
        code = reconcile_doc_load(c, RECONCILE_LAST, &last, e);
    if (!code && last)
        code = json_parse(last, strlen(last), "last report of reconcile",
                          &r->report, e);
    if (!code && r->report)
        take_last(r);
    if (code || !job)
        return code;
    code = reconcile_job_parse(&r->job, job, e);
    if (code)
        return code;
    r->wanted = true;
    report_begin(r);
    json_object_set_new(r->report, "resumed", json_true());
    log_info("reconcile %s goes on where the daemon ended", r->job.id);
    return OK;
}

enum code reconcile_start(struct core *c, struct error *e)
{
    struct error why = {0};
    int err;

    if (go_on(c, &why) != OK)
        log_failure(&why, "reconcile: what was under way is not gone on with");
    err = pthread_create(&c->reconcile.thread, NULL, run_thread, c);
    if (err != 0)
        return error_errno(e, err, "cannot start the thread of reconcile");
    c->reconcile.started = true;
    return OK;
}

void reconcile_stop(struct core *c)
{
    struct reconcile *r = &c->reconcile;

    pthread_mutex_lock(&r->lock);
    r->stop = true;
    pthread_cond_broadcast(&r->changed);
    pthread_mutex_unlock(&r->lock);
    if (r->started)
        pthread_join(r->thread, NULL);
    json_decref(r->report);
    r->report = NULL;
}

/* ---- on command ---- */

/* With the lock held. */
static enum code refuse_second(const struct reconcile *r, struct error *e)
{
    if (!r->running && !r->wanted)
        return OK;
    return error_set(e, ERR_EXISTS,
                     "a run of reconcile is under way (%s): it ends by itself",
                     r->job.id);
}

static enum code is_free(struct core *c, struct error *e)
{
    enum code code;

    pthread_mutex_lock(&c->reconcile.lock);
    code = refuse_second(&c->reconcile, e);
    pthread_mutex_unlock(&c->reconcile.lock);
    return code;
}

static enum code check(struct core *c, const struct reconcile_job *j,
                       struct error *e)
{
    CLEANUP(store_org_clear) struct store_org org = {0};
    struct error why = {0};
    enum code code = is_free(c, e);

    if (code)
        return code;
    if (j->adopt && j->revoke)
        return error_set(e, ERR_INVALID, "adopt and revoke: choose one");
    if (j->ttl_s < 0 || (j->ttl_s && !j->adopt))
        return error_set(e, ERR_INVALID,
                         "ttl: is for leases that are adopted, and positive");
    if ((j->adopt || j->revoke) && !j->dry_run && notary_rolled_back(c, &why))
        return error_set(e, ERR_ROLLED_BACK, "%s", why.text);
    return *j->org ? core_org(c, j->org, &org, e) : OK;
}

static enum code take(struct core *c, const struct reconcile_job *j,
                      json_t **report, struct error *e)
{
    struct reconcile *r = &c->reconcile;
    enum code code;

    pthread_mutex_lock(&r->lock);
    code = refuse_second(r, e);
    if (!code) {
        r->job = *j;
        report_begin(r);
        r->wanted = true;
        *report = reconcile_report_now(r);
        if (!*report)
            code = error_set(e, ERR_NOMEM, "no memory for a report");
        pthread_cond_broadcast(&r->changed);
    }
    pthread_mutex_unlock(&r->lock);
    return code;
}

enum code core_reconcile(struct core *c, const struct caller *by,
                         const struct reconcile_request *q, json_t **report,
                         struct error *e)
{
    struct reconcile_job j = {.dry_run = q->dry_run,
                              .adopt = q->adopt,
                              .revoke = q->revoke,
                              .audit = q->audit,
                              .since_ms = q->since_ms,
                              .ttl_s = q->ttl_s};
    struct logbook_entry begin = {
        .kind = RECORD_RECONCILE, .by = by, .org = q->org};
    struct error why = {0};
    JSON body = NULL;
    enum code code = text_id(j.id, e);

    snprintf(j.org, sizeof(j.org), "%s", q->org ? q->org : "");
    snprintf(j.asked_by, sizeof(j.asked_by), "%s", by->owner);
    if (!code)
        code = check(c, &j, e);
    if (code)
        return code;
    body = reconcile_job_json(&j);
    begin.more = json_pack("{ss sO}", "finding", "begin", "asked", body);
    if (!body)
        return error_set(e, ERR_NOMEM, "no memory for a run of reconcile");
    code = reconcile_doc_keep(c, RECONCILE_JOB, body, &begin, e);
    if (code)
        return code;
    code = take(c, &j, report, e);
    /* The timer was first. */
    if (code && reconcile_doc_keep(c, RECONCILE_JOB, NULL, NULL, &why) != OK)
        log_failure(&why, "reconcile: a job that was refused is kept");
    return code;
}

enum code core_reconcile_status(struct core *c, json_t **report,
                                struct error *e)
{
    struct reconcile *r = &c->reconcile;

    pthread_mutex_lock(&r->lock);
    *report = reconcile_report_now(r);
    pthread_mutex_unlock(&r->lock);
    return *report ? OK : error_set(e, ERR_NOMEM, "no memory for a report");
}
