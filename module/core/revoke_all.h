/* revoke_all - break-glass: every lease of every organisation ends, and it is
 * proven that none is left. spec/LEASES.md, "Break-glass".
 *
 * One job at a time, a document in the store: a daemon that is started anew
 * goes on with it. From its begin to its end no key is minted. Its thread marks
 * the leases, waits for the sweeper, and lists the accounts of each project:
 * one that is still there is deleted again. It never gives up.
 */
#ifndef HSMINT_CORE_REVOKE_ALL_H
#define HSMINT_CORE_REVOKE_ALL_H

#include "module/core/core.h"

#include <pthread.h>

#define JOB_KIND "job" /* of documents */
#define JOB_REVOKE_ALL "revoke-all"

/* A job as it is in the store. */
struct revoke_job {
    char id[32];
    char *reason, *by; /* owned */
    bool done;
    int64_t began_ms, ended_ms;
    int64_t proven, refused, unproven; /* once done */
    json_t *leases;                    /* ids; owned */
};
void revoke_job_clear(struct revoke_job *j);
#define REVOKE_JOB CLEANUP(revoke_job_clear) struct revoke_job
/* Strict: it was written by us. */
MUST_CHECK enum code revoke_job_parse(struct revoke_job *j, const char *body,
                               struct error *e);
MUST_CHECK enum code revoke_job_body(const struct revoke_job *j, char **body,
                              struct error *e);

struct revoke_all {
    pthread_mutex_t lock; /* guards all below */
    pthread_cond_t poke;
    pthread_t thread;
    bool started; /* the thread has to be joined */
    bool running, stop;
    bool halted;           /* no key is minted: one halt of HALT_ALL is ours */
    bool unreadable;       /* a job of before: halted until one is begun anew */
    struct revoke_job job; /* the thread's, from start() to its end */
    char text[256]; /* what it waits for; "" */
};
#define REVOKE_ALL_INIT                                                        \
    {                                                                          \
        .lock = PTHREAD_MUTEX_INITIALIZER, .poke = PTHREAD_COND_INITIALIZER    \
    }

/* Goes on with a job that was under way. With one that cannot be read, which
 * may have been: no key is minted until an administrator begins one anew. */
MUST_CHECK enum code revoke_all_resume(struct core *c, struct error *e);
void revoke_all_stop(struct core *c);

#endif
