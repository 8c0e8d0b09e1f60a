/* warnings - see warnings.h. */
#include "config.h"

#include "module/core/warnings.h"

#include "common/clock.h"
#include "common/log.h"
#include "common/text.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct warning {
    struct warning *next;
    enum alarm alarm;
    char object[256];
    char text[ERROR_TEXT_MAX];
    int64_t since_ms;
};

static struct warning **find(struct warnings *w, enum alarm alarm,
                             const char *object)
{
    struct warning **i = &w->first;

    while (*i && ((*i)->alarm != alarm ||
                  (object && strncmp((*i)->object, object,
                                     sizeof((*i)->object) - 1) != 0)))
        i = &(*i)->next;
    return i;
}

/* At the end, so that the list is in order of time. */
static struct warning *append(struct warnings *w, enum alarm alarm,
                              const char *object)
{
    struct warning **last = &w->first;

    while (*last)
        last = &(*last)->next;
    *last = calloc(1, sizeof(**last));
    if (!*last)
        return NULL;
    (*last)->alarm = alarm;
    (*last)->since_ms = clock_wall_ms();
    text_escape((*last)->object, sizeof((*last)->object), object,
                strlen(object));
    return *last;
}

void warnings_raise(struct warnings *w, enum alarm alarm, const char *object,
                    const char *fmt, ...)
{
    const struct alarm_text *a = &alarm_table[alarm];
    char text[sizeof(w->first->text)];
    struct warning *one;
    bool is_new;
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    pthread_mutex_lock(&w->lock);
    one = *find(w, alarm, object);
    is_new = !one;
    if (is_new)
        one = append(w, alarm, object);
    if (one)
        text_escape(one->text, sizeof(one->text), text, strlen(text));
    pthread_mutex_unlock(&w->lock);
    if (is_new)
        log_warning("alarm %s, %s: %s; %s", a->id, object, text, a->remedy);
}

/* Out of the list, with the lock held. */
static struct warning *take(struct warnings *w, enum alarm alarm,
                            const char *object)
{
    struct warning **place = find(w, alarm, object), *one = *place;

    if (one)
        *place = one->next;
    return one;
}

static bool drop_one(struct warnings *w, enum alarm alarm, const char *object)
{
    struct warning *gone;

    pthread_mutex_lock(&w->lock);
    gone = take(w, alarm, object);
    pthread_mutex_unlock(&w->lock);
    if (!gone)
        return false;
    log_info("alarm %s, %s: over", alarm_table[alarm].id, gone->object);
    free(gone);
    return true;
}

void warnings_drop(struct warnings *w, enum alarm alarm, const char *object)
{
    (void)drop_one(w, alarm, object);
}

void warnings_drop_all(struct warnings *w, enum alarm alarm)
{
    while (drop_one(w, alarm, NULL))
        ;
}

bool warnings_has(struct warnings *w, enum alarm alarm, const char *object)
{
    bool has;

    pthread_mutex_lock(&w->lock);
    has = *find(w, alarm, object) != NULL;
    pthread_mutex_unlock(&w->lock);
    return has;
}

void warnings_count(struct warnings *w, int counts[ALARM_COUNT])
{
    memset(counts, 0, ALARM_COUNT * sizeof(*counts));
    pthread_mutex_lock(&w->lock);
    for (const struct warning *i = w->first; i; i = i->next)
        counts[i->alarm]++;
    pthread_mutex_unlock(&w->lock);
}

static json_t *one_json(const struct warning *i)
{
    const struct alarm_text *a = &alarm_table[i->alarm];

    return json_pack("{ss ss ss ss ss ss sI}", "id", a->id, "severity",
                     alarm_severity_name(a->severity), "object", i->object,
                     "text", i->text, "remedy", a->remedy, "leases", a->leases,
                     "since_ms", (json_int_t)i->since_ms);
}

static bool append_all(json_t *list, const struct warnings *w,
                       enum alarm_severity severity)
{
    for (const struct warning *i = w->first; i; i = i->next) {
        if (alarm_table[i->alarm].severity == severity &&
            json_array_append_new(list, one_json(i)) != 0)
            return false;
    }
    return true;
}

json_t *warnings_json(struct warnings *w)
{
    JSON list = json_array();
    bool good = list != NULL;

    pthread_mutex_lock(&w->lock);
    good = good && append_all(list, w, ALARM_CRITICAL) &&
           append_all(list, w, ALARM_WARNING);
    pthread_mutex_unlock(&w->lock);
    return good ? json_incref(list) : NULL;
}

void warnings_clear(struct warnings *w)
{
    while (w->first) {
        struct warning *next = w->first->next;

        free(w->first);
        w->first = next;
    }
}
