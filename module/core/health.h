/* health - how each organisation's service and admin key do, as its calls
 * tell: raises and drops their alarms. While something is wrong, or nothing
 * was asked for an hour, a thread asks for the admin key itself.
 */
#ifndef HSMINT_CORE_HEALTH_H
#define HSMINT_CORE_HEALTH_H

#include "common/alarm.h"
#include "module/core/gate.h"

#include <pthread.h>
#include <stdbool.h>

struct core;
struct config;

struct health_org {
    char name[64];
    bool configured;
    /* the last call that was sent */
    int64_t called_ms, good_ms; /* wall; 0: none since the daemon's start */
    struct error last;
    int64_t key_expires_ms; /* wall; 0: never, or not told */
    int64_t key_margin_ms;  /* so long before that: an alarm */
    /* monotonic */
    int64_t good_at, bad_at[ALARM_COUNT];
    int64_t asked_at, ask_at; /* the probe's; ask_at 0: none is due */
    int asks;                 /* in a row */
    struct error asked;       /* what the last one ended with */
    int refusals;             /* in a row, of one purpose */
    char refused[32];         /* which */
};

struct health {
    pthread_t thread;
    pthread_mutex_t lock; /* guards all below; warnings' is taken within */
    pthread_cond_t changed;
    bool started, stop;
    struct health_org *orgs; /* they come, and never go */
    size_t n_orgs;
};
#define HEALTH_INIT                                                            \
    {                                                                          \
        .lock = PTHREAD_MUTEX_INITIALIZER, .changed = PTHREAD_COND_INITIALIZER \
    }

#define HEALTH_PROBE "probe"                   /* purpose of its calls */
#define HEALTH_CALM_MS 5000                    /* no trouble for so long */
#define HEALTH_QUIET_MS 3600000                /* then the key is tried */
#define HEALTH_REFUSALS 3                      /* in a row: an alarm */

MUST_CHECK enum code health_start(struct core *c, struct error *e);
void health_stop(struct core *c);
/* A call came to its end; `why`: with what. */
void health_note(struct core *c, const struct gate_call *call,
                 const struct gate_reply *r, const struct error *why);
/* A key was set, or its schedule; NULL: it was taken away. What was known of
 * the one before is forgotten. */
void health_key(struct core *c, const char *org, const struct config *config);
/* What the service said of a role's project: ERR_PROJECT raises the alarm, OK
 * (minted, or the role was set or deleted) drops it. */
void health_project(struct core *c, const char *org, const char *role,
                    enum code code, const char *text);
/* Asks the service for the admin key; at most one call in five seconds, else
 * what the last one said. ERR_NO_ADMIN_KEY. */
MUST_CHECK enum code health_ask(struct core *c, const struct caller *by,
                                const char *org, struct error *e);
/* {last_call_ms, last_good_ms, result, text, service_request_id,
 * admin_key_expires_ms}; NULL: no memory. */
json_t *health_json(struct core *c, const char *org);

#endif
