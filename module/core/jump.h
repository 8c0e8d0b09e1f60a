/* jump - did somebody set the wall clock? Compared with the boot clock, which
 * nobody sets: what drifts slowly is corrected time, what leaps is a jump. */
#ifndef HSMINT_CORE_JUMP_H
#define HSMINT_CORE_JUMP_H

#include <stdbool.h>
#include <stdint.h>

#define JUMP_BOUND_MS 2000      /* less is no alarm */
#define JUMP_SETTLED_MS 3600000 /* after so long the new time is the time */

struct jump { /* zeroed: no look yet */
    bool begun;
    int64_t anchor_ms; /* wall - boot, as it would be without jumps */
    int64_t last_ms;   /* wall - boot at the last look */
    int64_t looked_ms, jumped_ms; /* boot time */
};

/* How far the wall clock is from where it would be, positive when it was set
 * forward; 0 within the bound. Any number of small steps adds up. */
int64_t jump_look(struct jump *j, int64_t wall_ms, int64_t boot_ms);

#endif
