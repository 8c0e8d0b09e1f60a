/* jump - see jump.h. */
#include "config.h"

#include "module/core/jump.h"

#include <stdlib.h>

enum {
    JITTER_MS = 50,      /* between reading the one clock and the other */
    DRIFT_PER_MS = 1000, /* adjtime(3) and NTP slew by at most 1 in 2000 */
};

int64_t jump_look(struct jump *j, int64_t wall_ms, int64_t boot_ms)
{
    int64_t offset = wall_ms - boot_ms, moved = offset - j->last_ms;
    int64_t drift = JITTER_MS + (boot_ms - j->looked_ms) / DRIFT_PER_MS;

    if (!j->begun)
        *j = (struct jump){.begun = true, .anchor_ms = offset};
    else if (llabs(moved) <= drift)
        j->anchor_ms += moved;
    else
        j->jumped_ms = boot_ms;
    j->last_ms = offset;
    j->looked_ms = boot_ms;
    if (boot_ms - j->jumped_ms >= JUMP_SETTLED_MS)
        j->anchor_ms = offset;
    offset -= j->anchor_ms;
    return llabs(offset) > JUMP_BOUND_MS ? offset : 0;
}
