/* keyschedule - when a key of the HSM's is rotated by itself: it is older than
 * [hsm] call_period, log_period, seal_period, or it was declared compromised and
 * no other has its place yet. spec/SEAL.md, "Cryptoperiods".
 */
#ifndef HSMINT_CORE_KEYSCHEDULE_H
#define HSMINT_CORE_KEYSCHEDULE_H

#include "common/error.h"
#include "common/json.h"

#include <stdint.h>

struct core;

enum { KEYSCHEDULE_KINDS = 3 };
/* The rotation thread's own. */
struct keyschedule {
    struct {
        int tries;             /* in vain, since the last success */
        int64_t not_before_ms; /* monotonic */
        int64_t due_since_ms;  /* monotonic; 0: it is not */
        struct error error;    /* of the last try */
    } kinds[KEYSCHEDULE_KINDS];
};

/* Begins what is due, and raises or drops the alarms. The rotation thread's. */
void keyschedule_look(struct core *c);

/* {call: {period, next_ms}, …}: seconds, 0 never; of those that have one. NULL:
 * no memory. */
json_t *keyschedule_json(struct core *c);

#endif
