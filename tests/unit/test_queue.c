/* Turns, places and tokens of the server's queue; what one identity may hold;
 * the share of calls to the service; and the workers under load. */
#include "config.h"

#include "common/clock.h"
#include "module/core/share.h"
#include "tools/quota.h"
#include "tools/worker.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#define MANY 1000

static struct queue_flow *next(struct queue *q, int64_t now)
{
    struct queue_flow *f = NULL;
    int64_t due;
    return queue_take(q, now, &f, &due) ? f : NULL;
}

/* ---- turns ---- */

static void a_thousand_do_not_hold_up_one(void **state)
{
    (void)state;
    struct queue q = {.places = 1};
    struct queue_flow a = {.under_way = 0}, b = {.under_way = 0};
    static struct queue_item of_a[MANY], of_b[2];
    for (int i = 0; i < MANY; i++)
        queue_put(&q, &a, &of_a[i]);
    queue_put(&q, &b, &of_b[0]);
    queue_put(&q, &b, &of_b[1]);
    struct queue_flow *const turns[] = {&a, &b, &a, &b, &a, &a};
    for (size_t i = 0; i < 6; i++) {
        assert_ptr_equal(next(&q, 0), turns[i]);
        assert_null(next(&q, 0)); /* one place */
        queue_done(&q, turns[i]);
    }
    assert_false(queue_flow_idle(&q, &a, 0));
    assert_true(queue_flow_idle(&q, &b, 0));
    for (int i = 4; i < MANY; i++) {
        struct queue_flow *f = NULL;
        int64_t due;
        assert_ptr_equal(queue_take(&q, 0, &f, &due), &of_a[i]); /* in order */
        queue_done(&q, f);
    }
    assert_null(q.turn);
    assert_null(next(&q, 0));
    assert_true(queue_flow_idle(&q, &a, 0));
}

static void every_flow_has_its_turn(void **state)
{
    (void)state;
    enum { FLOWS = 7, EACH = 5 };
    struct queue q = {.places = FLOWS * EACH};
    struct queue_flow flows[FLOWS];
    struct queue_item items[FLOWS][EACH];
    memset(flows, 0, sizeof flows);
    for (int i = 0; i < FLOWS; i++)
        for (int k = 0; k < EACH; k++)
            queue_put(&q, &flows[i], &items[i][k]);
    for (int round = 0; round < EACH; round++) {
        unsigned seen = 0;
        for (int i = 0; i < FLOWS; i++)
            seen |= 1u << (next(&q, 0) - flows);
        assert_int_equal(seen, (1u << FLOWS) - 1);
    }
    assert_null(next(&q, 0));
}

/* ---- places ---- */

static int take_all(struct queue *q, struct queue_flow *f)
{
    static struct queue_item items[64];
    int64_t due;
    for (int i = 0; i < 64; i++)
        queue_put(q, f, &items[i]);
    int n = 0;
    while (next(q, 0))
        n++;
    assert_false(queue_ready(q, 0, &due));
    assert_true(due == INT64_MAX);
    /* What is left of this flow is nobody's business here. */
    f->first = f->last = NULL;
    q->turn = NULL;
    f->next = f->previous = NULL;
    return n;
}

static void each_gets_half_of_the_rest(void **state)
{
    (void)state;
    struct queue q = {.places = 8, .shared = true};
    struct queue_flow f[5];
    memset(f, 0, sizeof f);
    assert_int_equal(take_all(&q, &f[0]), 4);
    assert_int_equal(take_all(&q, &f[1]), 2);
    assert_int_equal(take_all(&q, &f[2]), 1);
    assert_int_equal(take_all(&q, &f[3]), 1);
    assert_int_equal(take_all(&q, &f[4]), 0);
    queue_done(&q, &f[0]);
    assert_int_equal(take_all(&q, &f[0]), 0); /* it has three, one is free */
    assert_int_equal(take_all(&q, &f[4]), 1);
    struct queue own = {.places = 8};
    struct queue_flow g = {.under_way = 0};
    assert_int_equal(take_all(&own, &g), 8);
}

/* ---- tokens ---- */

/* The place may be free by then, and nobody else would look. */
static void the_time_is_told_without_a_place(void **state)
{
    (void)state;
    struct queue q = {.places = 2,
                      .shared = true,
                      .rate = {.per_second = 10, .burst = 1}};
    struct queue_flow f = {.under_way = 0};
    struct queue_item items[2];
    int64_t due = 0;
    queue_put(&q, &f, &items[0]);
    queue_put(&q, &f, &items[1]);
    assert_ptr_equal(next(&q, 5000), &f);
    assert_false(queue_ready(&q, 5000, &due));
    assert_int_equal(due, 5100);
    assert_null(next(&q, 5100));
    queue_done(&q, &f);
    assert_ptr_equal(next(&q, 5100), &f);
}

static void the_rate_counts_after_the_burst(void **state)
{
    (void)state;
    struct queue q = {.places = 100, .rate = {.per_second = 10, .burst = 3}};
    struct queue_flow a = {.under_way = 0}, b = {.under_way = 0};
    struct queue_item items[20], one;
    int64_t due = 0;
    for (int i = 0; i < 20; i++)
        queue_put(&q, &a, &items[i]);
    for (int i = 0; i < 3; i++)
        assert_ptr_equal(next(&q, 5000), &a);
    assert_false(queue_ready(&q, 5000, &due));
    assert_int_equal(due, 5100);
    queue_put(&q, &b, &one);
    assert_ptr_equal(next(&q, 5000), &b); /* not held up by a's */
    assert_null(next(&q, 5099));
    assert_ptr_equal(next(&q, 5100), &a);
    assert_null(next(&q, 5100));
    for (int i = 0; i < 3; i++) /* a pause gives the burst back, not more */
        assert_ptr_equal(next(&q, 60000), &a);
    assert_null(next(&q, 60000));
    for (int i = 0; i < 7; i++)
        queue_done(&q, &a);
    assert_false(queue_flow_idle(&q, &a, 60000));
}

static void a_bucket_keeps_fractions(void **state)
{
    (void)state;
    const struct bucket_rate r = {.per_second = 3, .burst = 1};
    struct bucket b = {0, 0};
    int taken = 0;
    for (int64_t now = 1; now <= 10000; now++)
        if (bucket_due(&b, &r, now) == now) {
            bucket_take(&b, &r, now);
            taken++;
        }
    assert_in_range(taken, 29, 31);
    assert_false(bucket_full(&b, &r, 10000));
    assert_true(bucket_full(&b, &r, 11000));
    assert_true(bucket_full(&b, &r, INT64_MAX));
    const struct bucket_rate none = {.per_second = 0, .burst = 1};
    for (int i = 0; i < 100; i++) {
        assert_int_equal(bucket_due(&b, &none, 7), 7);
        bucket_take(&b, &none, 7);
    }
    assert_true(bucket_full(&b, &none, 7));
}

/* ---- quotas ---- */

static bool yes(void *ctx, const struct quota *q)
{
    (void)ctx, (void)q;
    return true;
}

static void connections_are_counted(void **state)
{
    (void)state;
    struct quotas t = {.limits = {.connections = 2}, .connections_max = 3};
    struct quota *a = quota_of(&t, 1), *b = quota_of(&t, 1 + QUOTA_ROWS);
    struct error e;
    assert_ptr_equal(quota_of(&t, 1), a);
    assert_ptr_not_equal(a, b);
    assert_int_equal(quota_enter(&t, a, &e), OK);
    assert_int_equal(quota_enter(&t, a, &e), OK);
    assert_int_equal(quota_enter(&t, a, &e), ERR_LIMIT);
    assert_non_null(strstr(e.text, "[limits] connections"));
    assert_int_equal(quota_enter(&t, b, &e), OK);
    assert_int_equal(quota_enter(&t, b, &e), ERR_LIMIT);
    assert_non_null(strstr(e.text, "max_connections"));
    quota_leave(&t, a);
    assert_int_equal(quota_enter(&t, b, &e), OK);
    for (int i = 0; i < QUOTA_TURNED_AWAY; i++)
        assert_true(quota_turn_away(&t, b, false));
    assert_false(quota_turn_away(&t, b, false));
    assert_true(quota_turn_away(&t, a, false));
    quota_leave(&t, a);
    quotas_prune(&t, yes, NULL);
    assert_ptr_equal(quota_of(&t, 1), a); /* one is being turned away */
    quotas_prune(&t, yes, NULL);
    quota_turned(&t, a);
    assert_true(t.unused);
    quotas_prune(&t, yes, NULL);
    assert_false(t.unused);
    assert_ptr_equal(t.rows[1], b);
    while (b->connections)
        quota_leave(&t, b);
    while (b->turned_away)
        quota_turned(&t, b);
    quotas_clear(&t);
    assert_null(t.rows[1]);
    assert_int_equal(t.connections + t.turned_away, 0);
}

static void memory_is_counted(void **state)
{
    (void)state;
    struct quotas t = {
        .limits = {.connections = 9, .memory = 100000, .memory_total = 150000},
        .connections_max = 9};
    struct quota *a = quota_of(&t, 1), *b = quota_of(&t, 2);
    struct quota_share x = {0, false}, y = {0, false}, z = {0, false};
    struct error e;
    /* what everybody may have is not counted */
    assert_int_equal(quota_hold(&t, a, &x, QUOTA_FREE_BYTES, true, &e), OK);
    assert_int_equal(a->memory, 0);
    assert_int_equal(a->descriptors, 1);
    assert_int_equal(quota_hold(&t, a, &x, 90000, false, &e), OK);
    assert_int_equal(a->descriptors, 0);
    assert_int_equal(quota_hold(&t, a, &y, 50000, false, &e), ERR_LIMIT);
    assert_non_null(strstr(e.text, "[limits] memory"));
    quota_release(&t, a, &y);
    assert_int_equal(quota_hold(&t, b, &z, 90000, false, &e), ERR_LIMIT);
    assert_non_null(strstr(e.text, "memory_total"));
    quota_release(&t, b, &z);
    assert_int_equal(quota_hold(&t, b, &z, 50000, false, &e), OK);
    assert_int_equal(quota_hold(&t, b, &z, 0, false, &e), OK);
    quota_release(&t, a, &x);
    assert_int_equal(t.memory + a->memory + b->memory, 0);
    quotas_clear(&t);
}

static void descriptors_are_counted(void **state)
{
    (void)state;
    struct quotas t = {.limits = {.memory = 1}, .connections_max = 9};
    struct quota *a = quota_of(&t, 1);
    struct quota_share s[QUOTA_DESCRIPTORS + 1];
    struct error e;
    memset(s, 0, sizeof s);
    for (int i = 0; i < QUOTA_DESCRIPTORS; i++)
        assert_int_equal(quota_hold(&t, a, &s[i], 0, true, &e), OK);
    assert_int_equal(
        quota_hold(&t, a, &s[QUOTA_DESCRIPTORS], 0, true, &e), ERR_LIMIT);
    for (int i = 0; i <= QUOTA_DESCRIPTORS; i++)
        quota_release(&t, a, &s[i]);
    assert_int_equal(t.descriptors, 0);
    quotas_clear(&t);
}

/* ---- calls to the service ---- */

static enum code enter_all(struct shares *s, uid_t uid, struct share_hold *h,
                           int *n)
{
    struct error e;
    enum code rc = OK;
    for (*n = 0; rc == OK; ++*n)
        rc = share_enter(s, uid, 0, &h[*n], &e);
    --*n;
    assert_true(e.retry_after_ms > 0);
    return rc;
}

static void calls_are_shared(void **state)
{
    (void)state;
    struct shares s;
    struct share_hold h[3][SHARE_MAX + 1];
    int n;
    shares_init(&s, 7);
    assert_int_equal(enter_all(&s, 1, h[0], &n), ERR_LIMIT);
    assert_int_equal(n, 4);
    assert_int_equal(enter_all(&s, 2, h[1], &n), ERR_LIMIT);
    assert_int_equal(n, 2);
    assert_int_equal(enter_all(&s, 3, h[2], &n), ERR_LIMIT);
    assert_int_equal(n, 1);
    share_leave(&h[0][0]);
    share_leave(&h[0][0]); /* holds nothing any more */
    assert_int_equal(enter_all(&s, 1, h[0], &n), ERR_LIMIT);
    assert_int_equal(n, 0);
    assert_int_equal(s.used, 6);
    shares_clear(&s);
    shares_init(&s, 0);
    for (int i = 0; i < 100; i++)
        assert_int_equal(share_enter(&s, 1, 0, &h[0][0], NULL), OK);
    shares_clear(&s);
}

/* ---- workers ---- */

static struct {
    atomic_int done, now, most;
    atomic_bool hold;
} work;

struct job {
    struct queue_item item;
    bool hangs;
};

static void do_job(struct queue_item *i)
{
    struct job *j = (struct job *)i;
    int now = atomic_fetch_add(&work.now, 1) + 1;
    int most = atomic_load(&work.most);
    while (now > most &&
           !atomic_compare_exchange_weak(&work.most, &most, now))
        ;
    while (j->hangs && atomic_load(&work.hold))
        usleep(1000);
    atomic_fetch_sub(&work.now, 1);
    atomic_fetch_add(&work.done, 1);
}

static void wait_done(struct workers *w, int n)
{
    for (int i = 0; i < 60000 && atomic_load(&work.done) < n; i++) {
        (void)workers_tick(w, clock_monotonic_ms());
        usleep(1000);
    }
    assert_int_equal(atomic_load(&work.done), n);
}

static void hung_work_of_one_leaves_room(void **state)
{
    (void)state;
    const struct workers_options o = {
        .threads = 8, .shared = true, .work = do_job};
    static struct job of_a[MANY], of_b[MANY];
    struct queue_flow a = {.under_way = 0}, b = {.under_way = 0};
    struct workers *w = NULL;
    memset(&work, 0, sizeof work);
    atomic_store(&work.hold, true);
    assert_int_equal(workers_new(&w, &o, NULL), OK);
    for (int i = 0; i < MANY; i++) {
        of_a[i].hangs = true;
        workers_put(w, &a, &of_a[i].item);
    }
    for (int i = 0; i < MANY; i++)
        workers_put(w, &b, &of_b[i].item);
    wait_done(w, MANY); /* b's */
    assert_int_equal(atomic_load(&work.now), 4);
    assert_false(workers_flow_idle(w, &a, clock_monotonic_ms()));
    atomic_store(&work.hold, false);
    wait_done(w, 2 * MANY);
    workers_free(w);
    assert_true(atomic_load(&work.most) <= 8);
}

/* Work that hangs gets as many threads as there are places. */
static void threads_grow_for_what_waits(void **state)
{
    (void)state;
    enum { PLACES = 40 };
    const struct workers_options o = {.threads = PLACES, .work = do_job};
    static struct job jobs[PLACES + 10];
    struct queue_flow f = {.under_way = 0};
    struct workers *w = NULL;
    memset(&work, 0, sizeof work);
    atomic_store(&work.hold, true);
    assert_int_equal(workers_new(&w, &o, NULL), OK);
    for (int i = 0; i < PLACES + 10; i++) {
        jobs[i].hangs = true;
        workers_put(w, &f, &jobs[i].item);
    }
    for (int i = 0; i < 60000 && atomic_load(&work.now) < PLACES; i++) {
        (void)workers_tick(w, clock_monotonic_ms());
        usleep(1000);
    }
    assert_int_equal(atomic_load(&work.now), PLACES);
    atomic_store(&work.hold, false);
    wait_done(w, PLACES + 10);
    workers_free(w);
    assert_int_equal(atomic_load(&work.most), PLACES);
}

static void slow_rates_are_ticked(void **state)
{
    (void)state;
    const struct workers_options o = {
        .rate = {.per_second = 100, .burst = 5}, .threads = 4, .work = do_job};
    static struct job jobs[15];
    struct queue_flow f = {.under_way = 0};
    struct workers *w = NULL;
    memset(&work, 0, sizeof work);
    int64_t began = clock_monotonic_ms();
    assert_int_equal(workers_new(&w, &o, NULL), OK);
    for (int i = 0; i < 15; i++)
        workers_put(w, &f, &jobs[i].item);
    wait_done(w, 15);
    assert_true(clock_monotonic_ms() - began >= 95);
    workers_free(w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_thousand_do_not_hold_up_one),
        cmocka_unit_test(every_flow_has_its_turn),
        cmocka_unit_test(each_gets_half_of_the_rest),
        cmocka_unit_test(the_time_is_told_without_a_place),
        cmocka_unit_test(the_rate_counts_after_the_burst),
        cmocka_unit_test(a_bucket_keeps_fractions),
        cmocka_unit_test(connections_are_counted),
        cmocka_unit_test(memory_is_counted),
        cmocka_unit_test(descriptors_are_counted),
        cmocka_unit_test(calls_are_shared),
        cmocka_unit_test(hung_work_of_one_leaves_room),
        cmocka_unit_test(threads_grow_for_what_waits),
        cmocka_unit_test(slow_rates_are_ticked),
    };
    return cmocka_run_group_tests_name("queue", tests, NULL, NULL);
}
