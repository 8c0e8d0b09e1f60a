/* buffer - bytes that grow up to a bound and are wiped when they go.
 *
 * Owner: whoever declares it; BUFFER frees at the end of the block. Messages
 * hold no secrets, but what a stranger sends may. */
#ifndef HSMINT_BUFFER_H
#define HSMINT_BUFFER_H

#include "common/error.h"

#include <jansson.h>

struct buffer {
    char *data;
    size_t len;
    size_t cap;
    size_t max; /* never larger */
};
#define BUFFER_INIT(bound)                                                     \
    {                                                                          \
        .max = (bound)                                                         \
    }
#define BUFFER CLEANUP(buffer_free) struct buffer

void buffer_free(struct buffer *b); /* wipes; can be used again */
/* Room for `more` bytes behind the others: ERR_PROTOCOL beyond the bound. */
MUST_CHECK enum code buffer_reserve(struct buffer *b, size_t more,
                                    struct error *e);
MUST_CHECK enum code buffer_append(struct buffer *b, const void *data,
                                   size_t len, struct error *e);
/* `flags`: Jansson's. */
MUST_CHECK enum code buffer_append_json(struct buffer *b, const json_t *json,
                                        size_t flags, struct error *e);
/* The first `n` bytes go, the others move to the front. */
void buffer_consume(struct buffer *b, size_t n);

#endif
