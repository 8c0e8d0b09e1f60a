/* reconcile - what the service has, against what the store knows. spec: STORE.md,
 * "Reconcile".
 *
 * A run goes through the projects of an organisation page by page, then its
 * admin keys. The store is asked after each page, never before: a mint's row is
 * there before its account, so a mint under way is never taken for unknown.
 * Nothing is deleted here. What has to go becomes a lease's row in state
 * revoking, and the sweeper deletes it, for ever if need be; so a run that is
 * cut off loses nothing. It goes on behind the projects that it was through
 * with.
 *
 * One run at a time, on a thread of its own: on command, or every
 * [daemon] reconcile seconds.
 */
#ifndef HSMINT_CORE_RECONCILE_H
#define HSMINT_CORE_RECONCILE_H

#include "common/error.h"
#include "common/json.h"
#include "common/text.h"

#include <pthread.h>
#include <stdbool.h>

struct core;
struct caller;

enum reconcile_count { /* one a member of the report */
    RECONCILE_PROJECTS,
    RECONCILE_PAGES,
    RECONCILE_ACCOUNTS, /* listed, of all kinds */
    RECONCILE_KNOWN,
    RECONCILE_UNKNOWN,  /* our marker, and no row */
    RECONCILE_WRONG_ID, /* our marker, a row's name, another account */
    RECONCILE_RETURNED, /* there, though its row says that it was deleted */
    RECONCILE_VANISHED, /* a row's account that is not there any more */
    RECONCILE_FOREIGN,
    RECONCILE_ADMIN_KEYS,
    RECONCILE_ADMIN_UNKNOWN,
    RECONCILE_ADMIN_FOREIGN,
    RECONCILE_REVOKING, /* what was done: given to the sweeper */
    RECONCILE_ADOPTED,
    RECONCILE_CLOSED,
    RECONCILE_EVENTS, /* of the service's audit log */
    RECONCILE_UNKNOWN_USES,
    RECONCILE_COUNTS
};
const char *reconcile_count_name(enum reconcile_count c);

#define RECONCILE_FINDINGS_MAX 500 /* in the report; all are in the log */
#define RECONCILE_ADOPT_S 3600     /* where the service names no end */

struct reconcile_job { /* what was asked */
    char id[TEXT_ID_LEN + 1];
    char org[64]; /* "": all */
    char asked_by[256]; /* owner; "": the timer */
    bool dry_run, adopt, revoke, audit;
    int64_t since_ms; /* audit: events from then on */
    int64_t ttl_s;    /* adopt: where the service names no end */
};

/* As a document; NULL: no memory. */
json_t *reconcile_job_json(const struct reconcile_job *j);
MUST_CHECK enum code reconcile_job_parse(struct reconcile_job *j,
                                         const char *text, struct error *e);

struct reconcile {
    pthread_t thread;
    pthread_mutex_t lock; /* guards all below */
    pthread_cond_t changed;
    bool started, stop, running, wanted;
    struct reconcile_job job; /* under way or wanted */
    int64_t counts[RECONCILE_COUNTS];
    json_t *report; /* of the last or present run, but for counts */
    int64_t last_ms; /* wall, when a run last saw all to its end; 0: never */
};
#define RECONCILE_INIT                                                         \
    {                                                                          \
        .lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER \
    }

/* With the lock held: report and counts as one, NULL: no memory; and the counts
 * as the report has them. */
json_t *reconcile_report_now(const struct reconcile *r);
void reconcile_counts_of(struct reconcile *r);

/* Goes on with a run that an end of the daemon cut off. */
MUST_CHECK enum code reconcile_start(struct core *c, struct error *e);
void reconcile_stop(struct core *c);

#endif
