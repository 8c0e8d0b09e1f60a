/* random - the HSM's random numbers, for who asks through the module. */
#include "config.h"

#include "hsm/keeper.h"

#include <stdlib.h>

enum code random_bytes(struct channel *c, struct frame *in, struct frame *out,
                       struct error *e)
{
    json_int_t count = 0;
    const struct json_field fields[] = {
        {"count", FIELD_INT, true, &count, NULL},
    };
    enum code rc =
        json_decode(in->head, JSON_FIELDS(fields), false, "random", e);
    if (rc)
        return rc;
    if (count < 1 || count > FRAME_RANDOM_MAX)
        return error_set(e, ERR_INVALID, "random: count: 1 to %d, not %lld",
                         FRAME_RANDOM_MAX, (long long)count);
    out->body = malloc((size_t)count);
    if (!out->body)
        return error_set(e, ERR_NOMEM, "no memory for random numbers");
    out->body_len = (size_t)count;
    return hsm_random(c->keeper->hsm, out->body, out->body_len, e);
}
