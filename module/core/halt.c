/* halt - see halt.h. */
#include "config.h"

#include "module/core/halt.h"

#define RETRY_MS 5000

enum code halt_begin(struct halt *h, int64_t org, const char *why,
                     struct error *e)
{
    enum code code = OK;

    pthread_mutex_lock(&h->lock);
    if (h->n < HALT_MAX) {
        h->items[h->n].org = org;
        h->items[h->n++].why = why;
    } else {
        code = ERR_LIMIT;
    }
    pthread_mutex_unlock(&h->lock);
    return code ? error_set(e, code,
                            "%d organisations end their leases at once; wait "
                            "for one",
                            HALT_MAX)
                : OK;
}

void halt_end(struct halt *h, int64_t org)
{
    pthread_mutex_lock(&h->lock);
    for (int i = h->n - 1; i >= 0; i--) {
        if (h->items[i].org != org)
            continue;
        h->items[i] = h->items[--h->n];
        break;
    }
    pthread_mutex_unlock(&h->lock);
}

void halt_say(struct halt *h, int64_t org, const char *why)
{
    pthread_mutex_lock(&h->lock);
    for (int i = 0; i < h->n; i++) {
        if (h->items[i].org == org)
            h->items[i].why = why;
    }
    pthread_mutex_unlock(&h->lock);
}

enum code halt_check(struct halt *h, int64_t org, struct error *e)
{
    const char *why = NULL;

    pthread_mutex_lock(&h->lock);
    for (int i = 0; i < h->n; i++) {
        if (h->items[i].org == HALT_ALL || h->items[i].org == org)
            why = h->items[i].why;
    }
    pthread_mutex_unlock(&h->lock);
    if (!why)
        return OK;
    error_set(e, ERR_LIMIT, "no key is minted now: %s", why);
    if (e)
        e->retry_after_ms = RETRY_MS;
    return ERR_LIMIT;
}
