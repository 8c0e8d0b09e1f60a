/* quota - what one identity has of the daemon, and may have.
 *
 * Here an identity is the uid of a connection's peer: the one thing that
 * nobody chooses for himself, known before a byte is read. The loop's alone,
 * but for the flow, which the workers' lock guards.
 */
#ifndef HSMINT_QUOTA_H
#define HSMINT_QUOTA_H

#include "common/error.h"
#include "common/settings.h"
#include "tools/queue.h"

#include <stdatomic.h>
#include <sys/types.h>

#define QUOTA_FREE_BYTES 4096      /* of each connection: not counted */
#define QUOTA_TURNED_AWAY 16       /* told why at the same time, of one */
#define QUOTA_TURNED_AWAY_TOTAL 64 /* and of all */
#define QUOTA_TURNED_AWAY_STOP 256 /* of all, with those that do not close */
#define QUOTA_DESCRIPTORS 32       /* of messages that are not taken, of one */
#define QUOTA_DESCRIPTORS_TOTAL 256

struct quota {
    struct quota *next;
    uid_t uid;
    int connections; /* served */
    int turned_away;
    int descriptors;
    uint64_t memory; /* bytes beyond the free ones */
    struct queue_flow flow;
};

/* What held somebody back, counted. */
enum quota_limit {
    QUOTA_LIMIT_CONNECTIONS,
    QUOTA_LIMIT_MEMORY,
    QUOTA_LIMIT_DESCRIPTORS,
    QUOTA_LIMIT_TIME, /* of a request, or to read its reply */
    QUOTA_LIMITS
};
const char *quota_limit_name(enum quota_limit l);

#define QUOTA_ROWS 256
struct quotas {
    struct settings_limits limits;
    int connections_max; /* of all */
    int connections, turned_away, descriptors;
    uint64_t memory;
    bool unused; /* there may be one without a connection */
    atomic_uint_fast64_t hits[QUOTA_LIMITS]; /* read by any thread */
    uid_t hit_by[QUOTA_LIMITS];              /* the last one */
    struct quota *rows[QUOTA_ROWS];
};

/* What a connection has of it: kept by the connection. */
struct quota_share {
    uint64_t memory;
    bool descriptor;
};

/* Made when it is new; NULL without memory. */
struct quota *quota_of(struct quotas *t, uid_t uid);
/* One connection more, unless that is too many: ERR_LIMIT. */
MUST_CHECK enum code quota_enter(struct quotas *t, struct quota *q,
                                 struct error *e);
void quota_leave(struct quotas *t, struct quota *q);
/* One more that is told why it is not served; false: no place for that, unless
 * it has to be counted anyway. */
bool quota_turn_away(struct quotas *t, struct quota *q, bool anyway);
void quota_turned(struct quotas *t, struct quota *q);
/* The connection's buffers hold `bytes` now, and a descriptor or none.
 * ERR_LIMIT: counted all the same, and the connection has to go. */
MUST_CHECK enum code quota_hold(struct quotas *t, struct quota *q,
                                struct quota_share *s, uint64_t bytes,
                                bool descriptor, struct error *e);
void quota_release(struct quotas *t, struct quota *q, struct quota_share *s);

/* Forgets those that are not connected and of which idle() is true. */
typedef bool (*quota_idle_fn)(void *ctx, const struct quota *q);
void quotas_prune(struct quotas *t, quota_idle_fn idle, void *ctx);
void quotas_clear(struct quotas *t);

#endif
