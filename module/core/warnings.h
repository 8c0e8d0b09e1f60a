/* warnings - the alarms that are up (common/alarm.h), each with what it is
 * about and since when: told by status, logged once when one comes up and once
 * when it is over. Thread-safe; its lock may be taken while another is held. */
#ifndef HSMINT_CORE_WARNINGS_H
#define HSMINT_CORE_WARNINGS_H

#include "common/alarm.h"
#include "common/error.h"
#include "common/json.h"

#include <pthread.h>
#include <stdbool.h>

struct warning;
struct warnings {
    pthread_mutex_t lock;
    struct warning *first;
};
#define WARNINGS_INIT                                                          \
    {                                                                          \
        PTHREAD_MUTEX_INITIALIZER, NULL                                        \
    }

/* object: what it is about, e.g. an organisation. The text says what is so;
 * raised again it is replaced, and "since" stays. */
void warnings_raise(struct warnings *w, enum alarm alarm, const char *object,
                    const char *fmt, ...) PRINTF(4, 5);
void warnings_drop(struct warnings *w, enum alarm alarm, const char *object);
/* All of this alarm. */
void warnings_drop_all(struct warnings *w, enum alarm alarm);
bool warnings_has(struct warnings *w, enum alarm alarm, const char *object);
/* How many are up, by alarm: for metrics. */
void warnings_count(struct warnings *w, int counts[ALARM_COUNT]);
/* [{id, severity, object, text, remedy, leases, since_ms}], the critical ones
 * first, then in order of time; NULL: no memory. */
json_t *warnings_json(struct warnings *w);
void warnings_clear(struct warnings *w);

#endif
