/* How many refusals are recorded, whoever is refused; and that none is forgotten. */
#include "config.h"

#include "module/core/refusals.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

static void many_at_once(void **state)
{
    struct refusals *r = calloc(1, sizeof(*r));
    int64_t left, others, written = 0, told = 0;
    char owner[32];

    (void)state;
    *r = (struct refusals)REFUSALS_INIT;
    for (int i = 0; i < 5000; i++) {
        snprintf(owner, sizeof(owner), "user:%d", i);
        if (refusals_take(r, owner, i, &left, &others)) {
            written++;
            told += left + others;
        }
    }
    assert_in_range(written, 1, 5 * REFUSALS_OF_ALL);
    /* None is forgotten: each is written, told, or waits. */
    for (size_t i = 0; i < REFUSALS_OWNERS; i++)
        told += r->owners[i].left_out;
    assert_int_equal(5000, written + told + r->all.left_out);
    free(r);
}

/* A day long, by one who may do nothing at all. */
static void one_for_a_day(void **state)
{
    struct refusals *r = calloc(1, sizeof(*r));
    int64_t left, others, written = 0, told = 0, seconds = 24 * 3600;

    (void)state;
    *r = (struct refusals)REFUSALS_INIT;
    for (int64_t i = 0; i < 10 * seconds; i++)
        if (refusals_take(r, "user:1", 100 * i, &left, &others)) {
            written++;
            told += left + others;
        }
    assert_in_range(written, 24, 25 * 1000);
    assert_int_equal(10 * seconds, written + told + refusals_rest(r));
    /* Others are recorded all the same. */
    assert_true(refusals_take(r, "user:2", 1000 * seconds - 1, &left, &others));
    free(r);
}

/* As many uids as a user namespace gives, for three hours: what is written is a
 * bounded part of a disk, and the rest is counted. */
static void many_for_hours(void **state)
{
    struct refusals *r = calloc(1, sizeof(*r));
    int64_t left, others, written = 0, told = 0, n = 3 * 3600 * 40;
    char owner[32];

    (void)state;
    assert_non_null(r);
    *r = (struct refusals)REFUSALS_INIT;
    for (int64_t i = 0; i < n; i++) {
        snprintf(owner, sizeof(owner), "user:%d", (int)(i % 65536));
        if (refusals_take(r, owner, 25 * i, &left, &others)) {
            written++;
            told += left + others;
        }
    }
    assert_in_range(written, 3 * 2000, 3 * REFUSALS_HOURLY_ALL);
    assert_int_equal(n, written + told + refusals_rest(r));
    free(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(many_at_once),
        cmocka_unit_test(one_for_a_day),
        cmocka_unit_test(many_for_hours),
    };

    return cmocka_run_group_tests_name("refusals", tests, NULL, NULL);
}
