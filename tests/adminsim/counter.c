#include "config.h"

#include "tests/adminsim/counter.h"

#include "tests/adminsim/fault.h"

#include <pthread.h>
#include <string.h>
#include <time.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static struct {
    const char *method, *pattern; /* static texts of the route tables */
    int status;
    long long count;
} rows[512];
static size_t n_rows;
static long long total, in_flight, in_flight_peak, connections,
    connections_peak, connections_total;
static json_t *kept[COUNTER_KEPT];
static size_t next_kept;

void counter_begin(void)
{
    pthread_mutex_lock(&lock);
    total++;
    if (++in_flight > in_flight_peak)
        in_flight_peak = in_flight;
    pthread_mutex_unlock(&lock);
}

static void count(const char *method, const char *pattern, int status)
{
    for (size_t i = 0; i < n_rows; i++)
        if (rows[i].status == status && rows[i].pattern == pattern &&
            !strcmp(rows[i].method, method)) {
            rows[i].count++;
            return;
        }
    static const char *const methods[] = {"GET", "POST", "DELETE"};
    const char *m = "other";
    for (size_t i = 0; i < 3; i++)
        if (!strcmp(method, methods[i]))
            m = methods[i];
    if (n_rows == sizeof rows / sizeof rows[0])
        return;
    rows[n_rows].method = m;
    rows[n_rows].pattern = pattern;
    rows[n_rows].status = status;
    rows[n_rows++].count = 1;
}

static json_int_t real_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

/* Never a bearer's value: its key's id. */
static json_t *record(const struct request *q, int status,
                      const char *request_id)
{
    return json_pack("{ss, ss, so?, so?, si, ss, ss?, sI, sI}", "method",
                     q->method, "path", q->path, "query",
                     json_deep_copy(q->query), "headers",
                     json_deep_copy(q->headers), "status", status, "request_id",
                     request_id, "key_id", *q->key_id ? q->key_id : NULL,
                     "body_bytes", (json_int_t)q->body_len, "at_ms", real_ms());
}

void counter_end(const struct request *q, const char *pattern, int status,
                 const char *request_id)
{
    json_t *j = record(q, status, request_id);
    pthread_mutex_lock(&lock);
    in_flight--;
    count(q->method, pattern, status);
    json_decref(kept[next_kept]);
    kept[next_kept] = j;
    next_kept = (next_kept + 1) % COUNTER_KEPT;
    pthread_mutex_unlock(&lock);
}

void counter_connection(int change)
{
    pthread_mutex_lock(&lock);
    connections += change;
    if (change > 0)
        connections_total++;
    if (connections > connections_peak)
        connections_peak = connections;
    pthread_mutex_unlock(&lock);
}

void counter_reset(void)
{
    pthread_mutex_lock(&lock);
    n_rows = 0;
    total = 0;
    in_flight_peak = in_flight;
    connections_peak = connections_total = connections;
    for (size_t i = 0; i < COUNTER_KEPT; i++) {
        json_decref(kept[i]);
        kept[i] = NULL;
    }
    pthread_mutex_unlock(&lock);
}

static json_t *rows_json(void)
{
    json_t *by = json_array();
    for (size_t i = 0; i < n_rows; i++)
        json_array_append_new(
            by, json_pack("{ss, ss, si, sI}", "method", rows[i].method,
                          "pattern", rows[i].pattern, "status", rows[i].status,
                          "count", (json_int_t)rows[i].count));
    return by;
}

/* The caller holds world_lock(). */
json_t *counter_json(void)
{
    json_t *pending = fault_pending();
    pthread_mutex_lock(&lock);
    json_t *j = json_pack(
        "{sI, so, sI, sI, sI, sI, sI}", "requests", (json_int_t)total, "by",
        rows_json(), "in_flight", (json_int_t)in_flight, "in_flight_peak",
        (json_int_t)in_flight_peak, "connections", (json_int_t)connections,
        "connections_peak", (json_int_t)connections_peak, "connections_total",
        (json_int_t)connections_total);
    pthread_mutex_unlock(&lock);
    json_t *w =
        json_pack("{sI, sI, sI, sI, sI, sI, sI}", "accounts_alive",
                  (json_int_t)world.accounts_alive, "accounts_peak",
                  (json_int_t)world.accounts_peak, "accounts_created",
                  (json_int_t)world.accounts_created, "accounts_deleted",
                  (json_int_t)world.accounts_deleted, "admin_keys_created",
                  (json_int_t)world.admin_keys_created, "admin_keys_deleted",
                  (json_int_t)world.admin_keys_deleted, "faults_pending",
                  (json_int_t)json_array_size(pending));
    json_decref(pending);
    json_object_update(j, w);
    json_decref(w);
    return j;
}

json_t *counter_requests(void)
{
    json_t *all = json_array();
    pthread_mutex_lock(&lock);
    for (size_t i = 0; i < COUNTER_KEPT; i++) {
        json_t *j = kept[(next_kept + i) % COUNTER_KEPT];
        if (j)
            json_array_append_new(all, json_deep_copy(j));
    }
    pthread_mutex_unlock(&lock);
    return all;
}
