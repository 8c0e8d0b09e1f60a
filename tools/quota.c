#include "config.h"

#include "tools/quota.h"

#include <stdlib.h>

const char *quota_limit_name(enum quota_limit l)
{
    static const char *const names[QUOTA_LIMITS] = {
        [QUOTA_LIMIT_CONNECTIONS] = "connections",
        [QUOTA_LIMIT_MEMORY] = "memory",
        [QUOTA_LIMIT_DESCRIPTORS] = "descriptors",
        [QUOTA_LIMIT_TIME] = "time",
    };
    return names[l];
}

static bool beyond_limit(struct quotas *t, const struct quota *q,
                         enum quota_limit l, bool is_beyond)
{
    if (is_beyond) {
        atomic_fetch_add(&t->hits[l], 1);
        t->hit_by[l] = q->uid;
    }
    return is_beyond;
}

struct quota *quota_of(struct quotas *t, uid_t uid)
{
    struct quota **row = &t->rows[uid % QUOTA_ROWS];
    for (struct quota *q = *row; q; q = q->next)
        if (q->uid == uid)
            return q;
    struct quota *q = calloc(1, sizeof *q);
    if (!q)
        return NULL;
    q->uid = uid;
    q->next = *row;
    *row = q;
    t->unused = true;
    return q;
}

enum code quota_enter(struct quotas *t, struct quota *q, struct error *e)
{
    if (beyond_limit(t, q, QUOTA_LIMIT_CONNECTIONS,
                     t->connections >= t->connections_max))
        return error_set(e, ERR_LIMIT,
                         "%d connections are open, which is the limit: close "
                         "some, or raise [daemon] max_connections",
                         t->connections);
    if (beyond_limit(t, q, QUOTA_LIMIT_CONNECTIONS,
                     q->connections >= t->limits.connections))
        return error_set(e, ERR_LIMIT,
                         "uid %lu has %d connections open, which is the limit: "
                         "close some, or raise [limits] connections",
                         (unsigned long)q->uid, q->connections);
    q->connections++;
    t->connections++;
    return OK;
}

void quota_leave(struct quotas *t, struct quota *q)
{
    q->connections--;
    t->connections--;
    t->unused = t->unused || q->connections == 0;
}

bool quota_turn_away(struct quotas *t, struct quota *q, bool anyway)
{
    if (!anyway && (q->turned_away >= QUOTA_TURNED_AWAY ||
                    t->turned_away >= QUOTA_TURNED_AWAY_TOTAL))
        return false;
    q->turned_away++;
    t->turned_away++;
    return true;
}

void quota_turned(struct quotas *t, struct quota *q)
{
    q->turned_away--;
    t->turned_away--;
    t->unused = t->unused || q->connections == 0;
}

static void count(struct quotas *t, struct quota *q, struct quota_share *s,
                  uint64_t memory, bool descriptor)
{
    q->memory += memory - s->memory; /* wraps, and comes out right */
    t->memory += memory - s->memory;
    q->descriptors += descriptor - s->descriptor;
    t->descriptors += descriptor - s->descriptor;
    *s = (struct quota_share){memory, descriptor};
}

enum code quota_hold(struct quotas *t, struct quota *q, struct quota_share *s,
                     uint64_t bytes, bool descriptor, struct error *e)
{
    uint64_t beyond = bytes > QUOTA_FREE_BYTES ? bytes - QUOTA_FREE_BYTES : 0;
    bool more = beyond > s->memory, another = descriptor && !s->descriptor;
    count(t, q, s, beyond, descriptor);
    if (beyond_limit(t, q, QUOTA_LIMIT_MEMORY,
                     more && q->memory > t->limits.memory))
        return error_set(e, ERR_LIMIT,
                         "unfinished messages of uid %lu take %llu bytes, more "
                         "than [limits] memory",
                         (unsigned long)q->uid, (unsigned long long)q->memory);
    if (beyond_limit(t, q, QUOTA_LIMIT_MEMORY,
                     more && t->memory > t->limits.memory_total))
        return error_set(e, ERR_LIMIT,
                         "unfinished messages take %llu bytes, more than "
                         "[limits] memory_total: try again later",
                         (unsigned long long)t->memory);
    if (beyond_limit(t, q, QUOTA_LIMIT_DESCRIPTORS,
                     another && (q->descriptors > QUOTA_DESCRIPTORS ||
                                 t->descriptors > QUOTA_DESCRIPTORS_TOTAL)))
        return error_set(e, ERR_LIMIT,
                         "%d descriptors came with unfinished messages of uid "
                         "%lu: too many at a time",
                         q->descriptors, (unsigned long)q->uid);
    return OK;
}

void quota_release(struct quotas *t, struct quota *q, struct quota_share *s)
{
    count(t, q, s, 0, false);
}

void quotas_prune(struct quotas *t, quota_idle_fn idle, void *ctx)
{
    t->unused = false;
    for (size_t i = 0; i < QUOTA_ROWS; i++)
        for (struct quota **p = &t->rows[i]; *p;) {
            struct quota *q = *p;
            bool used = q->connections || q->turned_away;
            if (used || !idle(ctx, q)) {
                t->unused = t->unused || !used;
                p = &q->next;
                continue;
            }
            *p = q->next;
            free(q);
        }
}

static bool always(void *ctx, const struct quota *q)
{
    (void)ctx, (void)q;
    return true;
}

void quotas_clear(struct quotas *t)
{
    quotas_prune(t, always, NULL);
}
