/* fault - what shall go wrong with coming requests: an ordered queue, each
 * entry used once (or `times`). README.md lists the kinds. */
#ifndef ADMINSIM_FAULT_H
#define ADMINSIM_FAULT_H

#include <jansson.h>
#include <stdbool.h>

enum fault_kind {
    FAULT_STATUS,
    FAULT_DROP,
    FAULT_TRUNCATE,
    FAULT_OVERSIZE,
    FAULT_NOT_JSON,
    FAULT_DEEP,
    FAULT_OMIT,
    FAULT_SET,
    FAULT_REDIRECT,
    FAULT_HANG,
    FAULT_IGNORE_EXPIRY,
    FAULT_REFUSE_EXPIRY,
    FAULT_RESET,
    FAULT_TWICE,
    FAULT_HOLD,
    FAULT_KINDS
};

struct fault {
    enum fault_kind kind;
    bool before; /* the effect */
    json_t *spec;
};

/* NULL, or what is wrong with it. */
const char *fault_add(json_t *spec);
/* The first that matches, taken out; false if none does. */
bool fault_take(const char *method, const char *path, struct fault *out);
void fault_clear(struct fault *f);
void fault_forget_all(void);
json_t *fault_pending(void);
/* A number of the spec, or `otherwise`. */
long long fault_number(const struct fault *f, const char *name,
                       long long otherwise);
/* FAULT_HOLD: waits until fault_release(), ms at most. */
void fault_hold(long long ms);
void fault_release(void);
int fault_held(void);
bool glob(const char *pattern, const char *s);

#endif
