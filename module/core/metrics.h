/* metrics - what the daemon counts and times, and the figures that it tells.
 *
 * One table (metrics.c) has each family's name, type, help and label names.
 * Counting takes one short mutex and no memory; timing takes none. Labels are
 * bounded: organisations and roles that exist, and texts of our own tables;
 * never an id, an owner or a text of a request. Figures that cost something to
 * find out are kept for METRICS_KEPT_MS, so that no scrape can load store or
 * HSM. man/hsmint-exporter.8 lists them all.
 */
#ifndef HSMINT_CORE_METRICS_H
#define HSMINT_CORE_METRICS_H

#include "common/error.h"
#include "common/histogram.h"
#include "common/json.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#define METRICS_KEPT_MS 5000

enum metrics_family {
    /* counted by metrics_count() */
    METRICS_MINTS,       /* org, role, result */
    METRICS_RENEWALS,    /* org, role, result */
    METRICS_REVOCATIONS, /* org, role, by, result */
    METRICS_REFUSALS,    /* capability, reason */
    METRICS_REQUESTS,    /* method, status: of the Admin API */
    METRICS_EXPIRY,      /* org, outcome */
    /* timed by metrics_time() */
    METRICS_MINT_SECONDS,
    METRICS_RENEW_SECONDS,
    METRICS_REVOKE_SECONDS,
    METRICS_REQUEST_SECONDS,
    METRICS_KEEPER_SECONDS, /* verb */
    /* told when asked */
    METRICS_COMMIT_SECONDS,
    METRICS_COMMIT_CHANGES,
    METRICS_LEASES, /* org, role, state */
    METRICS_WAITING,
    METRICS_WAITING_SECONDS,
    METRICS_PAST_END,
    METRICS_EXPIRY_STATE,  /* org, state */
    METRICS_KEY_CONFIGURED,
    METRICS_KEY_SINCE,
    METRICS_KEY_EXPIRES,
    METRICS_HSM_STATE,    /* state */
    METRICS_HSM_PIN,      /* flag */
    METRICS_HSM_SESSIONS, /* state */
    METRICS_HSM_KEY_SINCE, /* use */
    METRICS_HSM_LOOK_SECONDS,
    METRICS_HSM_LOOK_AGE,
    METRICS_HSM_ROTATION, /* use: of three */
    METRICS_LOCKED,
    METRICS_KEEPER_UP,
    METRICS_KEEPER_RESTARTS,
    METRICS_DISK_FREE,
    METRICS_DISK_RESERVE,
    METRICS_DISK_LOW,
    METRICS_STORE_BYTES,
    METRICS_RECONCILE_SINCE,
    METRICS_RECONCILE_PERIOD,
    METRICS_RECONCILE_RUNNING,
    METRICS_RECONCILE, /* what */
    METRICS_ALARM, /* id, severity */
    METRICS_CONNECTIONS,
    METRICS_APPLICATIONS,
    METRICS_IN_FLIGHT,
    METRICS_LIMITS, /* limit */
    METRICS_START,
    METRICS_BUILD, /* version */
    METRICS_FAMILIES
};

enum metrics_type { METRICS_COUNTER, METRICS_GAUGE, METRICS_HISTOGRAM };
#define METRICS_LABELS 4
struct metrics_row {
    const char *name;
    enum metrics_type type;
    const char *help;
    const char *labels[METRICS_LABELS + 1]; /* NULL-ended */
    const struct histogram_scale *scale;    /* histograms */
};
extern const struct metrics_row metrics_table[METRICS_FAMILIES];

/* Series that are counted; beyond, what has a role is counted without it. */
#define METRICS_SERIES_MAX 1536
#define METRICS_SERIES_ROLES 1024
#define METRICS_VERBS 32

struct metrics_series {
    bool used;
    enum metrics_family family;
    int64_t org; /* 0: none */
    char role[64];
    const char *a, *b; /* further labels, texts that live for ever, or NULL */
    uint64_t n;
};

struct metrics_org { /* how it goes with an organisation */
    int64_t org;
    const char *expiry;       /* "honoured" …; NULL: not known yet */
    int64_t failing_since_ms; /* wall; revocations do not get through; or 0 */
};

struct metrics {
    int64_t start_ms; /* wall */
    pthread_mutex_t lock; /* guards series, used, with_role, orgs */
    struct metrics_org *orgs;
    size_t n_orgs;
    struct metrics_series *series; /* a hash table with open addressing */
    size_t used, with_role;
    struct histogram timings[METRICS_COMMIT_SECONDS];
    struct histogram verbs[METRICS_VERBS];

    pthread_mutex_t kept_lock;
    json_t *kept; /* families; handed out as copies */
    int64_t kept_ms; /* monotonic */
    bool refreshing;
};

MUST_CHECK enum code metrics_init(struct metrics *m, struct error *e);
void metrics_clear(struct metrics *m);

/* `role`: "" unless it is one that exists. a, b: the labels after org and
 * role in order, of static storage; NULL where the family has none. */
void metrics_count(struct metrics *m, enum metrics_family f, int64_t org,
                   const char *role, const char *a, const char *b);
void metrics_time(struct metrics *m, enum metrics_family f, int64_t us);
void metrics_time_verb(struct metrics *m, unsigned verb, int64_t us);
/* What the service did with a new key's expiry: "honoured", "ignored" or
 * "refused". */
void metrics_expiry(struct metrics *m, int64_t org, const char *outcome);
/* Do revocations get through? */
void metrics_failing(struct metrics *m, int64_t org, bool failing);
struct metrics_org metrics_org(struct metrics *m, int64_t org);
/* A call that was refused: `reason` "policy", "limit" or "login". */
void metrics_refusal(struct metrics *m, const char *capability,
                     const char *reason);
/* One reply of the Admin API, by its HTTP status; 0: `fate` says what came of
 * it, "unknown" or "not-sent". */
void metrics_request(struct metrics *m, const char *method, long status,
                     const char *fate);

/* A copy of the series in use; *out is the caller's to free. What is counted
 * for a role that `exists` denies is added to the organisation's. */
typedef bool (*metrics_role_fn)(void *ctx, int64_t org, const char *role);
MUST_CHECK enum code metrics_copy(struct metrics *m, metrics_role_fn exists,
                                  void *ctx, struct metrics_series **out,
                                  size_t *n, struct error *e);

/* ---- the answer: {name, type, help, samples: [{suffix, labels, value}]} ---- */

/* A family without samples. NULL: no memory. */
json_t *metrics_family_json(enum metrics_family f);
/* `labels`: as many as the family has, in order. */
void metrics_add(json_t *family, enum metrics_family f,
                 const char *const labels[], double value);
void metrics_add_histogram(json_t *family, enum metrics_family f,
                           const char *const labels[],
                           const struct histogram *h);

/* What the server knows. */
#define METRICS_LIMITS_MAX 16
struct metrics_server {
    int64_t connections, applications, in_flight;
    struct {
        const char *name;
        uint64_t hits;
    } limits[METRICS_LIMITS_MAX];
    size_t limits_n;
};

#endif
