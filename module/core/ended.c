/* ended - see ended.h. */
#include "config.h"

#include "module/core/ended.h"

#include "common/log.h"

#include <stdlib.h>
#include <string.h>

void ended_add(struct ended *t, const char *application, int64_t session,
               int64_t now_ms)
{
    struct ended_entry *entry = calloc(1, sizeof(*entry));

    if (entry)
        entry->application = strdup(application);
    if (!entry || !entry->application) {
        free(entry);
        log_error("no memory to note that an application ended: its leases "
                  "live until they expire");
        return;
    }
    entry->session = session;
    entry->at_ms = now_ms;
    pthread_mutex_lock(&t->lock);
    entry->next = t->first;
    t->first = entry;
    pthread_mutex_unlock(&t->lock);
}

bool ended_since(struct ended *t, const char *application, int64_t session,
                 int64_t since_ms)
{
    bool found = false;

    pthread_mutex_lock(&t->lock);
    for (const struct ended_entry *i = t->first; i && !found; i = i->next)
        found = i->at_ms >= since_ms &&
                (i->session == 0 || i->session == session) &&
                strcmp(i->application, application) == 0;
    pthread_mutex_unlock(&t->lock);
    return found;
}

bool ended_next(struct ended *t, char **application, int64_t *session)
{
    *application = NULL;
    pthread_mutex_lock(&t->lock);
    for (const struct ended_entry *i = t->first; i; i = i->next) {
        if (!i->marked) {
            *application = strdup(i->application);
            *session = i->session;
            break;
        }
    }
    pthread_mutex_unlock(&t->lock);
    return *application != NULL;
}

void ended_mark(struct ended *t, const char *application, int64_t session)
{
    pthread_mutex_lock(&t->lock);
    for (struct ended_entry *i = t->first; i; i = i->next) {
        if (i->session == session && strcmp(i->application, application) == 0)
            i->marked = true;
    }
    pthread_mutex_unlock(&t->lock);
}

static void drop_before(struct ended *t, int64_t before_ms, bool all)
{
    struct ended_entry **i = &t->first;

    while (*i) {
        struct ended_entry *entry = *i;

        if (!all && (!entry->marked || entry->at_ms >= before_ms)) {
            i = &entry->next;
            continue;
        }
        *i = entry->next;
        free(entry->application);
        free(entry);
    }
}

void ended_prune(struct ended *t, int64_t before_ms)
{
    pthread_mutex_lock(&t->lock);
    drop_before(t, before_ms, false);
    pthread_mutex_unlock(&t->lock);
}

void ended_clear(struct ended *t)
{
    drop_before(t, 0, true);
}
