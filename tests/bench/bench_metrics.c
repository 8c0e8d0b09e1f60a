/* bench_metrics - what counting and timing cost.
 *
 *     bench_metrics [THREADS]
 *
 * Prints nanoseconds of one metrics_count() among 200 roles and of one
 * metrics_time(), each by THREADS (1) at the same time. A mint does some ten of
 * them. */
#include "config.h"

#include "common/clock.h"
#include "module/core/metrics.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

enum { EACH = 2000000, ROLES = 200 };
static struct metrics metrics;
static char roles[ROLES][16];

static void *count(void *unused)
{
    (void)unused;
    for (int i = 0; i < EACH; i++)
        metrics_count(&metrics, METRICS_MINTS, 1, roles[i % ROLES], "Ok", NULL);
    return NULL;
}

static void *take_time(void *unused)
{
    (void)unused;
    for (int i = 0; i < EACH; i++)
        metrics_time(&metrics, METRICS_MINT_SECONDS, i % 10000);
    return NULL;
}

static double measure(void *(*what)(void *), int threads)
{
    pthread_t t[64];
    int64_t began = clock_monotonic_us();
    for (int i = 0; i < threads; i++)
        if (pthread_create(&t[i], NULL, what, NULL))
            exit(1);
    for (int i = 0; i < threads; i++)
        pthread_join(t[i], NULL);
    return (double)(clock_monotonic_us() - began) * 1e3 / EACH / threads;
}

int main(int argc, char **argv)
{
    struct error e = {.code = OK};
    int threads = argc > 1 ? atoi(argv[1]) : 1;
    if (threads < 1 || threads > 64 || metrics_init(&metrics, &e))
        return 2;
    for (int i = 0; i < ROLES; i++)
        snprintf(roles[i], sizeof roles[i], "role-%d", i);
    printf("threads %d  count %.0f ns  time %.0f ns\n", threads,
           measure(count, threads), measure(take_time, threads));
    metrics_clear(&metrics);
    return 0;
}
