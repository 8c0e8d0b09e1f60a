/* settings_value - one value of hsmint.conf, by the kind of its key. Used by
 * settings.c alone. What is wrong is told as "NAME = VALUE: what to write";
 * where the value may be a secret, without it. */
#ifndef HSMINT_SETTINGS_VALUE_H
#define HSMINT_SETTINGS_VALUE_H

#include "common/error.h"

#include <stdbool.h>
#include <stdint.h>

enum value_kind {
    /* texts */
    WORD, /* one of some, or any */
    PATH,
    URI,
    SYSCALLS,
    HOSTS,
    ORIGIN,
    PIN_SOURCE,
    /* numbers */
    BOOLEAN,
    NUMBER,
    SIZE,
    SECONDS,
    PERIOD, /* seconds; 0, never, whatever min says */
    MS
};

/* words: "|one|two|" for WORD, NULL for any text. ERR_CONFIG. */
MUST_CHECK enum code value_check_text(enum value_kind kind, const char *name,
                                      const char *value, const char *words,
                                      struct error *e);
/* In the key's own unit; min and max do not count for BOOLEAN. ERR_CONFIG. */
MUST_CHECK enum code value_number(enum value_kind kind, const char *name,
                                  const char *value, int64_t min, int64_t max,
                                  int64_t *n, struct error *e);

#endif
