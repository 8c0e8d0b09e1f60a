/* Cost grows with what matches: counted in the steps of SQLite's machine, so
 * that it says the same on every computer and under valgrind. */
#include "config.h"

#include "module/store/state.h"
#include "tests/unit/store_fixture.h"

#include <time.h>

#define OWNERS 100

static int leases = 100000;

/* Of each owner one in a hundred leases lives; owner:0 has also the oldest. */
static enum code fill(struct store_tx *tx, void *ctx, struct error *e)
{
    struct fixture *f = ctx;
    for (int i = 0; i < leases; i++) {
        char owner[32];
        struct store_lease l = some_lease(f->org);
        snprintf(owner, sizeof(owner), "owner:%d", i % OWNERS);
        l.owner = owner;
        l.state =
            i < 10 || i / OWNERS % 100 == 0 ? LEASE_ACTIVE : LEASE_REVOKED;
        l.expires_ms = 1000000 - i;
        l.revoked_ms = i;
        enum code code = store_lease_insert(tx, &l, e);
        if (code)
            return code;
    }
    return OK;
}

static int filled_set_up(void **state)
{
    const char *preload = getenv("LD_PRELOAD");
    if (preload && strstr(preload, "vgpreload"))
        leases = 20000;
    if (set_up(state))
        return -1;
    struct fixture *f = *state;
    SUCCEEDS(store_commit(f->s, STORE_NORMAL, fill, f, e));
    return 0;
}

struct cost {
    int steps, full_scans, sorts;
};

/* One thread reads, so the pool has one connection, and it has seen only what
 * was asked since the last call. */
static struct cost cost_since(struct store *s)
{
    struct cost c = {0};
    for (size_t i = 0; i < CONN_STATEMENTS; i++) {
        sqlite3_stmt *st = s->idle->cache[i];
        if (!st)
            continue;
        c.steps += sqlite3_stmt_status(st, SQLITE_STMTSTATUS_VM_STEP, 1);
        c.full_scans +=
            sqlite3_stmt_status(st, SQLITE_STMTSTATUS_FULLSCAN_STEP, 1);
        c.sorts += sqlite3_stmt_status(st, SQLITE_STMTSTATUS_SORT, 1);
    }
    return c;
}

static enum code count(const struct store_lease *l, void *ctx, struct error *e)
{
    (void)l;
    (void)e;
    ++*(int *)ctx;
    return OK;
}

static void list_of_one_owner(void **state)
{
    struct fixture *f = *state;
    struct store_lease_query q = {.owner = "owner:7", .live_only = true};
    int n = 0;
    SUCCEEDS(store_lease_each(f->s, &q, count, &n, e));
    struct cost c = cost_since(f->s);
    assert_int_equal(n, leases / OWNERS / 100);
    assert_int_equal(c.full_scans, 0);
    assert_int_equal(c.sorts, 0);
    assert_true(c.steps < 100 + 100 * n);
}

static void list_is_quick(void **state)
{
    struct fixture *f = *state;
    struct store_lease_query q = {.owner = "owner:7"};
    struct timespec a, b;
    int n = 0;
    clock_gettime(CLOCK_MONOTONIC, &a);
    SUCCEEDS(store_lease_each(f->s, &q, count, &n, e));
    clock_gettime(CLOCK_MONOTONIC, &b);
    assert_int_equal(n, leases / OWNERS);
    assert_true((b.tv_sec - a.tv_sec) * 1000 +
                    (b.tv_nsec - a.tv_nsec) / 1000000 <
                2000);
    (void)cost_since(f->s);
}

static void page_of_history(void **state)
{
    struct fixture *f = *state;
    struct store_lease_query q = {.limit = 20};
    int n = 0;
    SUCCEEDS(store_lease_each(f->s, &q, count, &n, e));
    struct cost c = cost_since(f->s);
    assert_int_equal(n, 20);
    assert_int_equal(c.sorts, 0);
    assert_true(c.steps < 100 + 100 * n);
}

static bool any_role(int64_t org, const char *role, void *ctx)
{
    (void)org, (void)role, (void)ctx;
    return true;
}

/* What limits ask before each mint: one owner's live rows, and what was
 * revoked lately. */
static void usage_of_one_owner(void **state)
{
    struct fixture *f = *state;
    struct store_usage u;
    struct store_usage_query q = {.owner = "owner:7",
                                  .since_ms = leases - 100,
                                  .now_ms = INT64_MAX,
                                  .match = any_role};
    cost_since(f->s);
    SUCCEEDS(store_usage(f->s, &q, &u, e));
    struct cost c = cost_since(f->s);
    assert_true(u.live > 0);
    assert_int_equal(c.full_scans, 0);
    assert_true(c.steps < 20 * (leases / OWNERS / 100 + 100) + 200);
}

static void due_and_next_due(void **state)
{
    struct fixture *f = *state;
    int n = 0;
    int64_t due;
    struct store_lane lane = {.org = f->org, .project = ""};
    SUCCEEDS(store_lane_due(f->s, &lane, INT64_MAX, 10, count, &n, e));
    struct cost c = cost_since(f->s);
    assert_int_equal(n, 10);
    assert_int_equal(c.full_scans, 0);
    assert_int_equal(c.sorts, 0);
    assert_true(c.steps < 200 + 100 * n);
    SUCCEEDS(store_lease_next_due(f->s, &due, e));
    c = cost_since(f->s);
    assert_true(due > 0 && due < 1000000);
    assert_int_equal(c.sorts, 0);
    assert_true(c.steps < 100);
}

static void counts_of_live_ones(void **state)
{
    struct fixture *f = *state;
    struct store_counts n;
    SUCCEEDS(store_lease_counts(f->s, f->org, "my-app", &n, e));
    struct cost c = cost_since(f->s);
    assert_int_equal(n.active, leases / 100);
    assert_int_equal(c.full_scans, 0);
    assert_true(c.steps < 100 + 50 * (int)n.active);
}

static void opening_reads_no_table(void **state)
{
    struct fixture *f = *state;
    close_store(f);
    struct timespec a, b;
    clock_gettime(CLOCK_MONOTONIC, &a);
    open_store(f, 0);
    clock_gettime(CLOCK_MONOTONIC, &b);
    int64_t ms =
        (b.tv_sec - a.tv_sec) * 1000 + (b.tv_nsec - a.tv_nsec) / 1000000;
    assert_true(ms < 1000);
    int pages = 0, high;
    assert_int_equal(sqlite3_db_status(f->s->writer->db,
                                       SQLITE_DBSTATUS_CACHE_MISS, &pages,
                                       &high, 0),
                     SQLITE_OK);
    assert_true(pages < 20);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(list_of_one_owner),
        cmocka_unit_test(list_is_quick),
        cmocka_unit_test(page_of_history),
        cmocka_unit_test(usage_of_one_owner),
        cmocka_unit_test(due_and_next_due),
        cmocka_unit_test(counts_of_live_ones),
        cmocka_unit_test(opening_reads_no_table),
    };
    return cmocka_run_group_tests_name("store: cost", tests, filled_set_up,
                                       tear_down);
}
