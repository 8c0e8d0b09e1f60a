/* warnings - see warnings.h. */
#include "config.h"

#include "module/core/warnings.h"

#include "common/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct warning {
    struct warning *next;
    char id[32];
    char object[64];
    char text[512];
    char remedy[256];
};

static struct warning **find(struct warnings *w, const char *id,
                             const char *object)
{
    struct warning **i = &w->first;

    while (*i && (strcmp((*i)->id, id) || strcmp((*i)->object, object)))
        i = &(*i)->next;
    return i;
}

void warnings_raise(struct warnings *w, const char *id, const char *object,
                    const char *remedy, const char *fmt, ...)
{
    char text[sizeof(w->first->text)];
    struct warning **place;
    bool is_new;
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    pthread_mutex_lock(&w->lock);
    place = find(w, id, object);
    is_new = !*place;
    if (is_new)
        *place = calloc(1, sizeof(**place));
    if (*place) {
        snprintf((*place)->id, sizeof((*place)->id), "%s", id);
        snprintf((*place)->object, sizeof((*place)->object), "%s", object);
        snprintf((*place)->text, sizeof((*place)->text), "%s", text);
        snprintf((*place)->remedy, sizeof((*place)->remedy), "%s", remedy);
    }
    pthread_mutex_unlock(&w->lock);
    if (is_new)
        log_warning("%s %s: %s; %s", id, object, text, remedy);
}

void warnings_drop(struct warnings *w, const char *id, const char *object)
{
    struct warning **place, *gone;

    pthread_mutex_lock(&w->lock);
    place = find(w, id, object);
    gone = *place;
    if (gone)
        *place = gone->next;
    pthread_mutex_unlock(&w->lock);
    if (gone)
        log_info("%s %s: no longer so", id, object);
    free(gone);
}

bool warnings_has(struct warnings *w, const char *id, const char *object)
{
    bool has;

    pthread_mutex_lock(&w->lock);
    has = *find(w, id, object) != NULL;
    pthread_mutex_unlock(&w->lock);
    return has;
}

json_t *warnings_json(struct warnings *w)
{
    json_t *list = json_array();

    pthread_mutex_lock(&w->lock);
    for (const struct warning *i = w->first; i && list; i = i->next) {
        json_t *one =
            json_pack("{ss ss ss ss}", "id", i->id, "object", i->object, "text",
                      i->text, "remedy", i->remedy);

        if (json_array_append_new(list, one) != 0) {
            json_decref(list);
            list = NULL;
        }
    }
    pthread_mutex_unlock(&w->lock);
    return list;
}

void warnings_clear(struct warnings *w)
{
    while (w->first) {
        struct warning *next = w->first->next;

        free(w->first);
        w->first = next;
    }
}
