/* reconcile_run - one run of reconcile, and the steps of which it is made; each
 * noun has a file of its own. See reconcile.h. */
#ifndef HSMINT_CORE_RECONCILE_RUN_H
#define HSMINT_CORE_RECONCILE_RUN_H

#include "module/core/gate.h"
#include "module/core/internal.h"
#include "module/core/lease.h"
#include "module/core/orgconfig.h"

/* Ids of accounts that a run has seen: 64 bits of a hash each. That two share
 * one keeps a lease from being found vanished, no more. */
struct seen {
    uint64_t *slots; /* 0: free */
    size_t n, room;
};
MUST_CHECK enum code seen_add(struct seen *s, const char *id, struct error *e);
bool seen_has(const struct seen *s, const char *id);
void seen_clear(struct seen *s);

/* A deleted account may be listed for a moment, a new one be missing. */
#define RECONCILE_LAG_MS 300000

struct run {
    struct core *core;
    struct reconcile_job job;
    bool report_only; /* dry run, or the state may be a copy */
    bool complete;    /* nothing had to be left out so far */
    json_t *done;     /* of struct reconcile_progress */
    json_t *progress; /* as it was behind the last project; NULL: none yet */
    int64_t kept_ms;  /* monotonic, when that was written */
    /* of the organisation that it is at */
    struct store_org org;
    struct config config;
    int64_t began_ms; /* wall */
    struct seen seen; /* of the project */
    json_t *keys; /* adopt: of the project, by account: {id, expires_at} */
};
void run_clear_org(struct run *r);

/* What was found, and what is done about it. */
struct finding {
    const char *what; /* static: "unknown-ours" */
    const char *project, *account, *account_id;
    const char *action; /* static: "revoke", "adopt", "close", "report" */
    const char *lease;  /* NULL: none */
    json_t *more;       /* stolen; NULL: none */
};
/* In the transaction that acts on it, or in one of its own. */
MUST_CHECK enum code run_record(struct run *r, struct store_tx *tx,
                                const struct finding *f, struct error *e);
/* In the report, for people. */
void run_report(struct run *r, const struct finding *f);
void run_count(struct run *r, enum reconcile_count c, int64_t n);
/* Something could not be looked at: told, and the run is not complete. */
void run_failed(struct run *r, const char *where, const struct error *why);
bool run_stopped(struct run *r);
/* Shorter where the daemon stops. */
void run_wait_ms(struct run *r, int64_t ms);

/* A GET with patience: waits as told, and gives up after some tries. Counted
 * as a step of the run. */
MUST_CHECK enum code run_ask(struct run *r, const struct openai_request *q,
                             struct gate_reply *reply, struct error *e);
/* ERR_ROLLED_BACK … : from now on the run only reports. Asked after a page and
 * before anything is made of it. */
void run_check_state(struct run *r);

void run_all(struct run *r);

/* How far it is. Opened before the first organisation; closed when all is over,
 * or else kept for the next start. */
void run_progress_open(struct run *r);
void run_progress_close(struct run *r, bool over);
/* Of the organisation that it is at. */
bool run_is_done(const struct run *r, const char *project);
void run_done(struct run *r, const char *project);

/* ---- the steps ---- */
MUST_CHECK enum code run_project(struct run *r, const char *project,
                                 struct error *e);
/* Of a project that was listed to its end; `listed_ms`: steady, before that. */
MUST_CHECK enum code run_vanished(struct run *r, const char *project,
                                  int64_t listed_ms, struct error *e);
MUST_CHECK enum code run_admin_keys(struct run *r, struct error *e);
MUST_CHECK enum code run_service_log(struct run *r, struct error *e);

#endif
