/* The table, the counting of series within their bounds, and histograms. */
#include "config.h"

#include "module/core/metrics.h"

#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static bool all_exist(void *ctx, int64_t org, const char *role)
{
    (void)ctx, (void)org, (void)role;
    return true;
}

static bool is_kept(void *ctx, int64_t org, const char *role)
{
    return org == 1 && strcmp(role, (const char *)ctx) == 0;
}

/* The sum of what is counted in a family with this role; NULL: any. */
static uint64_t counted(struct metrics *m, enum metrics_family f,
                        const char *role, metrics_role_fn exists, const char *ctx)
{
    struct metrics_series *list;
    size_t n;
    uint64_t sum = 0;
    assert_int_equal(metrics_copy(m, exists, (void *)(uintptr_t)ctx, &list, &n, NULL), OK);
    for (size_t i = 0; i < n; i++)
        if (list[i].family == f && (!role || !strcmp(list[i].role, role)))
            sum += list[i].n;
    free(list);
    return sum;
}

static void rows_are_well_formed(void **state)
{
    (void)state;
    for (unsigned i = 0; i < METRICS_FAMILIES; i++) {
        const struct metrics_row *r = &metrics_table[i];
        assert_non_null(r->name);
        size_t len = strlen(r->name);
        assert_int_equal(strncmp(r->name, "hsmint_", 7), 0);
        assert_int_equal(strspn(r->name, "abcdefghijklmnopqrstuvwxyz_"), len);
        assert_true(strlen(r->help) > 8 && r->help[strlen(r->help) - 1] == '.');
        bool total = len > 6 && !strcmp(r->name + len - 6, "_total");
        assert_int_equal(total, r->type == METRICS_COUNTER);
        assert_int_equal(r->scale != NULL, r->type == METRICS_HISTOGRAM);
        for (unsigned k = 0; k < i; k++)
            assert_string_not_equal(metrics_table[k].name, r->name);
        /* No ids, no owners. */
        for (int k = 0; r->labels[k]; k++)
            for (const char *const *bad =
                     (const char *const[]){"lease", "owner", "uid", "pid",
                                           "text", "program", "key", NULL};
                 *bad; bad++)
                assert_string_not_equal(r->labels[k], *bad);
    }
}

static void counts(void **state)
{
    (void)state;
    struct metrics m;
    assert_int_equal(metrics_init(&m, NULL), OK);
    metrics_count(&m, METRICS_MINTS, 1, "a", "Ok", NULL);
    metrics_count(&m, METRICS_MINTS, 1, "a", "Ok", NULL);
    metrics_count(&m, METRICS_MINTS, 1, "a", "Denied", NULL);
    metrics_count(&m, METRICS_MINTS, 2, "a", "Ok", NULL);
    metrics_count(&m, METRICS_RENEWALS, 1, "a", "Ok", NULL);
    metrics_count(&m, METRICS_MINTS, 1, NULL, "RoleUnknown", NULL);
    assert_int_equal(counted(&m, METRICS_MINTS, "a", all_exist, NULL), 4);
    assert_int_equal(counted(&m, METRICS_MINTS, "", all_exist, NULL), 1);
    assert_int_equal(counted(&m, METRICS_RENEWALS, "a", all_exist, NULL), 1);
    metrics_clear(&m);
}

/* A role that is gone is no label any more, and nothing is lost of the sum. */
static void gone_roles_are_folded(void **state)
{
    (void)state;
    struct metrics m;
    assert_int_equal(metrics_init(&m, NULL), OK);
    for (int i = 0; i < 50; i++) {
        char role[16];
        snprintf(role, sizeof role, "role-%d", i);
        metrics_count(&m, METRICS_MINTS, 1, role, "Ok", NULL);
    }
    assert_int_equal(counted(&m, METRICS_MINTS, NULL, is_kept, "role-7"), 50);
    assert_int_equal(counted(&m, METRICS_MINTS, "role-7", is_kept, "role-7"),
                     1);
    assert_int_equal(counted(&m, METRICS_MINTS, "", is_kept, "role-7"), 49);
    metrics_count(&m, METRICS_MINTS, 1, "role-7", "Ok", NULL);
    assert_int_equal(counted(&m, METRICS_MINTS, "role-7", is_kept, "role-7"),
                     2);
    metrics_clear(&m);
}

/* An administrator who makes roles for ever fills no memory. */
static void series_are_bounded(void **state)
{
    (void)state;
    struct metrics m;
    struct metrics_series *list;
    size_t n;
    assert_int_equal(metrics_init(&m, NULL), OK);
    for (int i = 0; i < 20000; i++) {
        char role[80];
        snprintf(role, sizeof role, "role-%d-%060d", i, i);
        metrics_count(&m, METRICS_MINTS, 1, role, "Ok", NULL);
    }
    assert_int_equal(counted(&m, METRICS_MINTS, NULL, all_exist, NULL), 20000);
    assert_int_equal(metrics_copy(&m, all_exist, NULL, &list, &n, NULL), OK);
    assert_true(n <= METRICS_SERIES_MAX);
    free(list);
    assert_int_equal(counted(&m, METRICS_MINTS, "", is_kept, "x"), 20000);
    metrics_clear(&m);
}

static void statuses(void **state)
{
    (void)state;
    struct metrics m;
    struct metrics_series *list;
    size_t n;
    const char *want[] = {"200", "2xx",   "3xx",   "429",     "4xx",
                          "5xx", "other", "other", "unknown", NULL};
    const long status[] = {200, 201, 307, 429, 418, 599, 600, -7, 0};
    assert_int_equal(metrics_init(&m, NULL), OK);
    for (int i = 0; want[i]; i++)
        metrics_request(&m, "PATCH", status[i], "unknown");
    assert_int_equal(metrics_copy(&m, all_exist, NULL, &list, &n, NULL), OK);
    for (int i = 0; want[i]; i++) {
        bool found = false;
        for (size_t k = 0; k < n; k++)
            found |= !strcmp(list[k].a, "other") && !strcmp(list[k].b, want[i]);
        if (!found)
            fail_msg("no status %s", want[i]);
    }
    free(list);
    metrics_clear(&m);
}

static void histograms(void **state)
{
    (void)state;
    struct histogram h = {0};
    struct histogram_reading r;
    const struct histogram_scale *s = &histogram_seconds;
    assert_true(histogram_is_empty(&h));
    histogram_add(&h, s, 0);
    histogram_add(&h, s, 500);      /* a bound is inclusive */
    histogram_add(&h, s, 501);      /* the next one */
    histogram_add(&h, s, 30000000); /* the last */
    histogram_add(&h, s, 30000001); /* +Inf */
    histogram_read(&h, s, &r);
    assert_int_equal(r.cumulative[0], 2);
    assert_int_equal(r.cumulative[1], 3);
    assert_int_equal(r.cumulative[s->n - 1], 4);
    assert_int_equal(r.cumulative[s->n], 5);
    assert_int_equal(r.sum, 60001002);
    assert_false(histogram_is_empty(&h));
    for (size_t i = 1; i < s->n; i++)
        assert_true(s->bounds[i - 1] < s->bounds[i]);
}

static void histogram_samples(void **state)
{
    (void)state;
    struct histogram h = {0};
    const char *const labels[METRICS_LABELS] = {"sign-call"};
    histogram_add(&h, &histogram_seconds, 1500);
    JSON f = metrics_family_json(METRICS_KEEPER_SECONDS);
    metrics_add_histogram(f, METRICS_KEEPER_SECONDS, labels, &h);
    json_t *samples = json_object_get(f, "samples");
    assert_int_equal(json_array_size(samples), histogram_seconds.n + 3);
    char *third = json_dumps(json_array_get(samples, 2), JSON_COMPACT);
    assert_string_equal(third, "{\"suffix\":\"_bucket\",\"labels\":{\"verb\":"
                               "\"sign-call\",\"le\":\"0.0025\"},\"value\":1}");
    free(third);
}

/* ---- many at once; under ThreadSanitizer, too ---- */

enum { THREADS = 8, EACH = 20000 };
static struct metrics shared;

static void *count_much(void *arg)
{
    const char *role = arg;
    for (int i = 0; i < EACH; i++) {
        metrics_count(&shared, METRICS_MINTS, 1, role, "Ok", NULL);
        metrics_time(&shared, METRICS_MINT_SECONDS, 700);
        metrics_failing(&shared, i % 3, i % 2);
    }
    return NULL;
}

static void concurrent(void **state)
{
    (void)state;
    pthread_t t[THREADS];
    char roles[THREADS][8];
    struct histogram_reading r;
    assert_int_equal(metrics_init(&shared, NULL), OK);
    for (int i = 0; i < THREADS; i++) {
        snprintf(roles[i], sizeof roles[i], "r%d", i / 2);
        assert_int_equal(pthread_create(&t[i], NULL, count_much, roles[i]), 0);
    }
    for (int i = 0; i < 20; i++) /* folding meanwhile */
        (void)counted(&shared, METRICS_MINTS, NULL, is_kept, "r1");
    for (int i = 0; i < THREADS; i++)
        pthread_join(t[i], NULL);
    assert_int_equal(counted(&shared, METRICS_MINTS, NULL, all_exist, NULL),
                     THREADS * EACH);
    histogram_read(&shared.timings[METRICS_MINT_SECONDS], &histogram_seconds,
                   &r);
    assert_int_equal(r.cumulative[histogram_seconds.n], THREADS * EACH);
    assert_int_equal(r.sum, UINT64_C(700) * THREADS * EACH);
    metrics_clear(&shared);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_are_well_formed),
        cmocka_unit_test(counts),
        cmocka_unit_test(gone_roles_are_folded),
        cmocka_unit_test(series_are_bounded),
        cmocka_unit_test(statuses),
        cmocka_unit_test(histograms),
        cmocka_unit_test(histogram_samples),
        cmocka_unit_test(concurrent),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
