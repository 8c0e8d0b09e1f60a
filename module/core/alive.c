/* alive - whether core still makes progress: see core_stuck(). */
#include "config.h"

#include "module/core/internal.h"

enum {
    COMMIT_STUCK_MS = 60000,
    /* The longest step of the sweeper: a keeper that is started again, logged
     * in, shown its keys (twice, each within its deadlines), then one call. */
    UNLOCK_FACTOR = 16,
    STEP_EXTRA_MS = 60000
};

static int64_t longest_step_ms(const struct settings *s)
{
    return UNLOCK_FACTOR * s->hsm_deadline_ms +
           2 * (s->connect_ms + s->call_ms) + STEP_EXTRA_MS;
}

bool core_stuck(struct core *c, struct error *why)
{
    int64_t commit = store_waiting_ms(c->store);
    int64_t silent = sweep_silent_ms(c);

    if (commit > COMMIT_STUCK_MS) {
        (void)error_set(why, ERR_INTERNAL,
                        "a transaction has not ended for %lld s: look at the "
                        "disk of %s",
                        (long long)(commit / 1000), c->settings->state_dir);
        return true;
    }
    if (silent > longest_step_ms(c->settings)) {
        (void)error_set(why, ERR_INTERNAL,
                        "the sweeper has made no step for %lld s",
                        (long long)(silent / 1000));
        return true;
    }
    return false;
}

bool core_not_ready(struct core *c, struct error *why)
{
    return unlock_failure(c, why);
}
