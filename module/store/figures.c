/* What metrics tell of the store: sizes, and leases counted in groups. */
#include "config.h"

#include "module/store/state.h"

#include "common/file.h"

#include <stdio.h>
#include <sys/stat.h>

static uint64_t size_of(const char *path, const char *suffix)
{
    char name[4096];
    struct stat st;
    int n = snprintf(name, sizeof(name), "%s%s", path, suffix);
    if (n < 0 || (size_t)n >= sizeof(name) || stat(name, &st) != 0)
        return 0;
    return (uint64_t)st.st_size;
}

void store_figures(struct store *s, struct store_figures *out)
{
    *out = (struct store_figures){
        .bytes = size_of(s->path, "") + size_of(s->path, "-wal"),
        .reserve_bytes = s->reserve.low_water};
    out->looked = file_free_bytes(s->dir, &out->free_bytes, NULL) == OK;
    out->low = out->looked && out->free_bytes < out->reserve_bytes;
}

const struct histogram *store_commit_times(const struct store *s)
{
    return &s->commit_times;
}

const struct histogram *store_commit_sizes(const struct store *s)
{
    return &s->commit_sizes;
}

/* From lease_live_role alone, no row is read. */
#define GROUP_SQL                                                              \
    "SELECT org, role, total(state = 0), total(state = 1), total(state = 2)"   \
    " FROM lease INDEXED BY lease_live_role WHERE state < 3"                   \
    " GROUP BY org, role"

static void take_group(struct query *q, struct store_lease_group *g)
{
    g->org = query_get_int(q, 0);
    g->role = query_borrow_text(q, 1);
    g->n = (struct store_counts){.pending = query_get_int(q, 2),
                                 .active = query_get_int(q, 3),
                                 .revoking = query_get_int(q, 4)};
}

enum code store_lease_groups(struct store *s, store_group_fn fn, void *ctx,
                             struct error *e)
{
    READER r = {.c = NULL};
    QUERY q = {.st = NULL};
    bool row = false;
    enum code code = reader_take(&r, s, e);
    if (code == OK)
        code = query_open(&q, r.c, "count leases by role", GROUP_SQL, e);
    while (code == OK && (code = query_step(&q, &row, e)) == OK && row) {
        struct store_lease_group g;
        take_group(&q, &g);
        code = fn(&g, ctx, e);
    }
    return code;
}
