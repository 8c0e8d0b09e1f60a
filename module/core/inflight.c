/* inflight - see inflight.h. */
#include "config.h"

#include "module/core/inflight.h"

#include "common/file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct inflight_entry {
    struct inflight_entry *next;
    char *key;
};

static bool is_held(const struct inflight *t, const char *key)
{
    for (const struct inflight_entry *i = t->first; i; i = i->next) {
        if (strcmp(i->key, key) == 0)
            return true;
    }
    return false;
}

/* Takes key and entry. */
static void hold(struct inflight *t, struct inflight_entry *entry,
                 struct inflight_hold *h)
{
    entry->next = t->first;
    t->first = entry;
    *h = (struct inflight_hold){t, entry};
}

static struct inflight_entry *entry_new(const char *kind, const char *a,
                                        const char *b, const char *c)
{
    struct inflight_entry *entry = calloc(1, sizeof(*entry));

    if (entry && asprintf(&entry->key, "%s:%s:%s:%s", kind, a ? a : "",
                          b ? b : "", c ? c : "") < 0) {
        free(entry);
        return NULL;
    }
    return entry;
}

enum code inflight_enter(struct inflight *t, const char *kind, const char *a,
                         const char *b, const char *c, struct inflight_hold *h,
                         struct error *e)
{
    struct inflight_entry *entry = entry_new(kind, a, b, c);

    if (!entry)
        return error_set(e, ERR_NOMEM, "no memory to note work under way");
    pthread_mutex_lock(&t->lock);
    while (is_held(t, entry->key))
        pthread_cond_wait(&t->left, &t->lock);
    hold(t, entry, h);
    pthread_mutex_unlock(&t->lock);
    return OK;
}

bool inflight_try(struct inflight *t, const char *kind, const char *a,
                  struct inflight_hold *h)
{
    struct inflight_entry *entry = entry_new(kind, a, NULL, NULL);
    bool held;

    if (!entry)
        return false;
    pthread_mutex_lock(&t->lock);
    held = is_held(t, entry->key);
    if (!held)
        hold(t, entry, h);
    pthread_mutex_unlock(&t->lock);
    if (held) {
        free(entry->key);
        free(entry);
    }
    return !held;
}

void inflight_leave(struct inflight_hold *h)
{
    struct inflight *t = h->table;

    if (!h->entry)
        return;
    pthread_mutex_lock(&t->lock);
    for (struct inflight_entry **i = &t->first; *i; i = &(*i)->next) {
        if (*i == h->entry) {
            *i = h->entry->next;
            break;
        }
    }
    pthread_cond_broadcast(&t->left);
    pthread_mutex_unlock(&t->lock);
    free(h->entry->key);
    free(h->entry);
    h->entry = NULL;
}
