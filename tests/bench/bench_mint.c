/* bench_mint - how many mints a second, and how long one takes.
 *
 *     HSMINT_SOCKET=… bench_mint ROLE CALLERS COUNT
 *
 * CALLERS threads, each with a connection of its own, mint COUNT keys in all
 * and leave them. Against the double only: real accounts would be made.
 * Prints callers, mints a second, and the 50th and 99th percentile in ms. */
#include "config.h"

#include "common/client.h"
#include "common/text.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static const char *role;
static atomic_long left;
static atomic_long failed;
static double *took_ms;

static double now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec / 1e6;
}

static enum code mint(struct client *c, struct error *e)
{
    SECRET key = NULL;
    char id[TEXT_ID_LEN + 1];
    enum code rc = text_id(id, e);
    if (rc)
        return rc;
    return client_call(c, "Mint",
                       json_pack("{s:s, s:s}", "role", role, "request_id", id),
                       NULL, NULL, &key, e);
}

static void *caller(void *unused)
{
    (void)unused;
    struct error e = {0};
    struct client *c = NULL;
    struct client_options o = {.program = "bench_mint"};
    if (client_new(&c, &o, &e)) {
        fprintf(stderr, "bench_mint: %s\n", e.text);
        exit(1);
    }
    for (;;) {
        long n = atomic_fetch_sub(&left, 1) - 1;
        if (n < 0)
            break;
        double began = now_ms();
        if (mint(c, &e)) {
            fprintf(stderr, "bench_mint: %s\n", e.text);
            atomic_fetch_add(&failed, 1);
        }
        took_ms[n] = now_ms() - began;
    }
    client_free(c);
    return NULL;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

int main(int argc, char **argv)
{
    long callers = argc == 4 ? strtol(argv[2], NULL, 10) : 0;
    long count = argc == 4 ? strtol(argv[3], NULL, 10) : 0;
    if (callers < 1 || callers > 256 || count < 1 || count > 10000000) {
        fprintf(stderr, "usage: bench_mint ROLE CALLERS COUNT\n");
        return 2;
    }
    role = argv[1];
    atomic_store(&left, count);
    took_ms = calloc((size_t)count, sizeof *took_ms);
    pthread_t *threads = calloc((size_t)callers, sizeof *threads);
    if (!took_ms || !threads)
        return 1;
    double began = now_ms();
    for (long i = 0; i < callers; i++)
        if (pthread_create(&threads[i], NULL, caller, NULL) != 0)
            return 1;
    for (long i = 0; i < callers; i++)
        pthread_join(threads[i], NULL);
    double all = now_ms() - began;
    qsort(took_ms, (size_t)count, sizeof *took_ms, by_value);
    printf("callers %ld  mints/s %.0f  p50 %.2f ms  p99 %.2f ms  failed %ld\n",
           callers, (double)count / all * 1e3, took_ms[count / 2],
           took_ms[count * 99 / 100], atomic_load(&failed));
    free(took_ms);
    free(threads);
    return atomic_load(&failed) != 0;
}
