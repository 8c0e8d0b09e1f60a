/* Lanes: what is due, by organisation and project. Each lane is found by one
 * step into an index that begins with it, so that a long backlog of one costs
 * the others nothing. */
#include "config.h"

#include "module/store/lease.h"

#include "common/file.h"

#include <stdlib.h>
#include <string.h>

#define EXPIRY " FROM lease INDEXED BY lease_expiry WHERE state = 1"
#define RETRY " FROM lease INDEXED BY lease_retry WHERE state IN (0, 2)"
#define PROOF " FROM lease INDEXED BY lease_proof WHERE proof_ms > 0"
/* All columns of the index: with fewer, SQLite walks through the lane. */
#define NEXT(from, due)                                                        \
    "SELECT org, project, " due from " AND (org, project, " due                \
    ") > (?1, ?2, 9223372036854775807)"                                        \
    " ORDER BY org, project, " due " LIMIT 1"
#define DUE(from, due)                                                         \
    "SELECT " LEASE_LIST from " AND org = ?1 AND project = ?2 AND " due        \
    " <= ?3 ORDER BY " due " LIMIT ?4"

static const struct {
    const char *next, *due;
} sql[LANE_KINDS] = {
    [LANE_EXPIRY] = {NEXT(EXPIRY, "expires_ms"), DUE(EXPIRY, "expires_ms")},
    [LANE_RETRY] = {NEXT(RETRY, "next_try_ms"), DUE(RETRY, "next_try_ms")},
    [LANE_PROOF] = {NEXT(PROOF, "proof_ms"), DUE(PROOF, "proof_ms")},
};

/* The first lane behind *lane, whose project becomes *project. */
static enum code next_lane(struct store *s, struct store_lane *lane,
                           char **project, bool *found, struct error *e)
{
    READER r = {.c = NULL};
    QUERY q = {.st = NULL};
    char *name = NULL;
    enum code code = reader_take(&r, s, e);

    if (code == OK)
        code = query_open(&q, r.c, "find a lane", sql[lane->kind].next, e);
    if (code)
        return code;
    query_int(&q, lane->org);
    query_text(&q, lane->project);
    code = query_step(&q, found, e);
    if (code || !*found)
        return code;
    code = query_dup_text(&q, 1, &name, e);
    if (code)
        return code;
    *lane = (struct store_lane){.org = query_get_int(&q, 0),
                                .project = name,
                                .kind = lane->kind,
                                .due_ms = query_get_int(&q, 2)};
    free(*project);
    *project = name;
    return OK;
}

static enum code each_of_kind(struct store *s, enum lane_kind kind,
                              store_lane_fn fn, void *ctx, struct error *e)
{
    struct store_lane lane = {.org = 0, .project = "", .kind = kind};
    FREE char *project = NULL;
    bool found = true;
    enum code code = OK;

    while (code == OK) {
        code = next_lane(s, &lane, &project, &found, e);
        if (code || !found)
            break;
        code = fn(&lane, ctx, e);
    }
    return code;
}

enum code store_lane_each(struct store *s, store_lane_fn fn, void *ctx,
                          struct error *e)
{
    enum code code = OK;

    for (int k = 0; code == OK && k < LANE_KINDS; k++)
        code = each_of_kind(s, (enum lane_kind)k, fn, ctx, e);
    return code;
}

enum code store_lane_due(struct store *s, const struct store_lane *lane,
                         int64_t now_ms, int limit, store_lease_fn fn,
                         void *ctx, struct error *e)
{
    READER r = {.c = NULL};
    QUERY q = {.st = NULL};
    enum code code = reader_take(&r, s, e);

    if (code == OK)
        code = query_open(&q, r.c, "find due leases", sql[lane->kind].due, e);
    if (code)
        return code;
    query_int(&q, lane->org);
    query_text(&q, lane->project);
    query_int(&q, now_ms);
    query_int(&q, limit > 0 ? limit : -1);
    return lease_each_row(&q, fn, ctx, e);
}

static enum code earlier(const struct store_lane *l, void *ctx, struct error *e)
{
    int64_t *due = ctx;

    (void)e;
    if (l->due_ms < *due)
        *due = l->due_ms;
    return OK;
}

enum code store_lease_next_due(struct store *s, int64_t *due_ms,
                               struct error *e)
{
    *due_ms = INT64_MAX;
    return store_lane_each(s, earlier, due_ms, e);
}

/* ---- what should be dead by now, for figures ---- */

#define PAST_SQL                                                               \
    "SELECT count(*), total(expires_ms + ?4 < ?3), min(expires_ms)" EXPIRY     \
    " AND org = ?1 AND project = ?2 AND expires_ms <= ?3"
/* A pending one that failed has no end that counts. */
#define TRIED_SQL                                                              \
    "SELECT count(*), total(state = 2 AND expires_ms + ?4 < ?3),"              \
    " min(iif(state = 2, expires_ms, 9223372036854000000))" RETRY              \
    " AND org = ?1 AND project = ?2 AND (state = 2 OR last_error <> '')"

struct waiting {
    struct store *s;
    int64_t now_ms, late_ms;
    struct store_waiting *orgs;
    int n;
};

static struct store_waiting *waiting_of(struct waiting *w, int64_t org)
{
    struct store_waiting *more;

    for (int i = 0; i < w->n; i++)
        if (w->orgs[i].org == org)
            return &w->orgs[i];
    more = reallocarray(w->orgs, (size_t)w->n + 1, sizeof(*more));
    if (!more)
        return NULL;
    w->orgs = more;
    more[w->n] = (struct store_waiting){.org = org, .first_end_ms = INT64_MAX};
    return &more[w->n++];
}

static enum code add_lane(const struct store_lane *l, void *ctx,
                          struct error *e)
{
    static const char *const counts[LANE_KINDS] = {PAST_SQL, TRIED_SQL, NULL};
    struct waiting *w = ctx;
    struct store_waiting *to;
    READER r = {.c = NULL};
    QUERY q = {.st = NULL};
    bool row = false;
    enum code code;

    if (!counts[l->kind] || (l->kind == LANE_EXPIRY && l->due_ms > w->now_ms))
        return OK;
    code = reader_take(&r, w->s, e);
    if (code == OK)
        code = query_open(&q, r.c, "count what waits", counts[l->kind], e);
    if (code)
        return code;
    query_int(&q, l->org);
    query_text(&q, l->project);
    query_int(&q, w->now_ms);
    query_int(&q, w->late_ms);
    code = query_step(&q, &row, e);
    if (code || !row || query_get_int(&q, 0) == 0)
        return code;
    to = waiting_of(w, l->org);
    if (!to)
        return error_set(e, ERR_NOMEM, "store: out of memory for figures");
    to->n += query_get_int(&q, 0);
    to->past_end += query_get_int(&q, 1);
    if (query_get_int(&q, 2) < to->first_end_ms)
        to->first_end_ms = query_get_int(&q, 2);
    return OK;
}

enum code store_lease_waiting(struct store *s, int64_t now_ms, int64_t late_ms,
                              store_waiting_fn fn, void *ctx, struct error *e)
{
    struct waiting w = {.s = s, .now_ms = now_ms, .late_ms = late_ms};
    enum code code = store_lane_each(s, add_lane, &w, e);

    for (int i = 0; code == OK && i < w.n; i++)
        code = fn(&w.orgs[i], ctx, e);
    free(w.orgs);
    return code;
}
