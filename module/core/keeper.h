/* keeper - the daemon's side of hsmint-keeper: its process and its channels.
 *
 * Starts it (keeper_process.h), gives each calling thread a channel, and ends
 * it when a channel breaks or a deadline passes. The next call starts another
 * one, at a bounded rate: it knows neither PIN nor keys, which is unlock.c's to
 * repair (keeper_generation tells). One mutex guards the pool; it is not held
 * during a call.
 */
#ifndef HSMINT_CORE_KEEPER_H
#define HSMINT_CORE_KEEPER_H

#include "common/frame.h"
#include "common/settings.h"
#include "module/core/metrics.h"

#include <stdbool.h>
#include <sys/types.h>

struct keeper;

struct keeper_process {
    pid_t pid;  /* 0: not known */
    bool child; /* ours: to be killed and reaped; else closing ends it */
    int watch;  /* owned; readable once it has ended: a child's pidfd, or the
                 * connection by which it was asked for; -1 */
};
/* Starts a keeper that serves the n sockets (which stay the caller's). *out is
 * empty before (watch -1), and stays so when it fails. */
typedef enum code (*keeper_start_fn)(void *ctx, const int *sockets, int n,
                                     struct keeper_process *out,
                                     struct error *e);

struct keeper_options {
    const struct settings *settings;
    const char *config_path;
    const char *keeper_path;
    /* NULL: as the settings say, a child that runs keeper_path or a connection
     * to keeper_socket. */
    keeper_start_fn start;
    void *start_ctx;
    struct metrics *metrics; /* calls are timed there; NULL: nowhere */
};

/* Starts nothing yet. The strings and settings outlive it. */
MUST_CHECK enum code keeper_new(struct keeper **out,
                                const struct keeper_options *o,
                                struct error *e);
void keeper_free(struct keeper *k); /* takes NULL; ends the process */

/* Start it when it does not run. *generation grows with each start. */
MUST_CHECK enum code keeper_ensure(struct keeper *k, uint64_t *generation,
                                   struct error *e);
/* A request and its reply. `generation` 0: any keeper, started if need be;
 * else only that one (ERR_KEEPER when it is gone). *handed (may be NULL): the
 * keeper may have got the request. An error that the keeper answered comes
 * back as its own code. */
MUST_CHECK enum code keeper_call(struct keeper *k, uint64_t generation,
                                 const struct frame *request, int deadline_ms,
                                 struct frame *reply, bool *handed,
                                 struct error *e);

/* From now on this thread's calls give way to those of others: they wait for a
 * channel while others do. One channel is theirs, so that they get on. */
void keeper_give_way(void);

struct keeper_state {
    bool running;
    pid_t pid;
    uint64_t generation;
    int64_t restarts;
    int64_t deaths;     /* by itself, or because it hung */
    int64_t started_ms; /* monotonic */
    char why[256];      /* of the last death */
};
void keeper_describe(struct keeper *k, struct keeper_state *out);
/* Notices a keeper that died by itself, so that it is told before a call. */
void keeper_check(struct keeper *k);
/* Ends the process: a call that hangs in it fails at once. */
void keeper_end(struct keeper *k);

#endif
