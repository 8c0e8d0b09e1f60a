/* random - the HSM's random numbers, by way of the keeper. */
#include "config.h"

#include "module/core/internal.h"

enum code core_random(struct core *c, int64_t count, struct secret **bytes,
                      struct error *e)
{
    FRAME request = FRAME_INIT;
    FRAME reply = FRAME_INIT;

    if (count < 1 || count > FRAME_RANDOM_MAX)
        return error_set(e, ERR_INVALID, "count: 1 to %d, not %lld",
                         FRAME_RANDOM_MAX, (long long)count);
    request.verb = VERB_RANDOM;
    request.head = json_pack("{sI}", "count", (json_int_t)count);
    if (!request.head)
        return error_set(e, ERR_NOMEM, "no memory to ask for random numbers");
    enum code code =
        keeper_call(c->keeper, 0, &request, (int)c->settings->hsm_deadline_ms,
                    &reply, NULL, e);
    if (code)
        return code;
    if (reply.body_len != (size_t)count)
        return error_set(e, ERR_KEEPER,
                         "the keeper gave %zu random bytes for %lld",
                         reply.body_len, (long long)count);
    return secret_dup(bytes, reply.body, reply.body_len, e);
}
