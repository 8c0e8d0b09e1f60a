#include "config.h"

#include "tests/adminsim/history.h"

#include <pthread.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static json_t *all;

void history_add(const struct request *q, int status, const char *request_id)
{
    json_t *signature = json_object_get(q->headers, "signature-input");
    json_t *agent = json_object_get(q->headers, "user-agent");
    json_t *name = json_object_get(q->json, "name");
    json_t *j = json_pack("{ss, ss, si, ss, ss?, si, ss?, sO*, sO*, sO*}", "method",
                          q->method, "path", q->path, "status", status,
                          "request_id", request_id, "key_id",
                          *q->key_id ? q->key_id : NULL, "served", q->served,
                          "made", *q->made ? q->made : NULL, "name", name,
                          "signature_input", signature, "user_agent", agent);
    pthread_mutex_lock(&lock);
    if (!all)
        all = json_array();
    json_array_append_new(all, must(j));
    pthread_mutex_unlock(&lock);
}

json_t *history_json(size_t from)
{
    json_t *page = json_array();
    pthread_mutex_lock(&lock);
    size_t n = json_array_size(all);
    for (size_t i = from; i < n && i < from + HISTORY_PAGE; i++)
        json_array_append(page, json_array_get(all, i));
    json_t *copy = json_deep_copy(page); /* whose counts are nobody else's */
    json_decref(page);
    pthread_mutex_unlock(&lock);
    return json_pack("{sI, so}", "total", (json_int_t)n, "history", copy);
}

void history_forget(void)
{
    pthread_mutex_lock(&lock);
    json_array_clear(all);
    pthread_mutex_unlock(&lock);
}
