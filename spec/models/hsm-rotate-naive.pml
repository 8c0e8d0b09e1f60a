/* hsm-rotate-naive.pml - a rotation of a key of the HSM's without a journal and
 * without keys of before: make it, seal anew, pin it, destroy the old one. The
 * parts and the claims are those of hsm-rotate.pml. With all defines 0 its order
 * is good; with any one of them spin finds what is lost:
 *
 *   PINS_FIRST  it is pinned before everything is sealed anew: nothing opens
 *   MINTS       the old one is destroyed at once: what was sealed by it, and not
 *               kept yet, is lost
 *   CRASHES     killed between make and pin: a key that nobody knows is left
 *   UNRECORDED  it signs calls before the log names it
 *   ALONE       the log's new key signs without the old one: nobody is led to it
 */
#define OTHER_ORDER
#ifndef PINS_FIRST
#define PINS_FIRST 0
#endif
#ifndef UNRECORDED
#define UNRECORDED 0
#endif
#ifndef ALONE
#define ALONE 0
#endif
#ifndef MINTS
#define MINTS 0
#endif
#include "hsm-rotate.pml"

inline pin_it(d)
{
    role[0] = (KIND == LOG && !ALONE -> SIGNS : NONE);
    pinned = 1;
    recorded = (UNRECORDED -> recorded : recorded | BIT(1));
    give_pins(d)
}

inline seal_anew()
{
    blob[0] = 1;
    blob[1] = (blob[1] == NO_KEY -> NO_KEY : 1)
}

proctype daemon(byte d)
{
    do
    LIFE(d)
    :: atomic { AT(d, IDLE) && begun == 0 -> begun++; hsm[1] = true; phase[d] = SETTLE }
    :: atomic { AT(d, SETTLE) -> settle(); phase[d] = (PINS_FIRST -> REPLY : AGAIN) }
    :: atomic { AT(d, REPLY) -> pin_it(d); phase[d] = AGAIN }
    :: atomic { AT(d, AGAIN) -> seal_anew(); pin_it(d); phase[d] = TOOK }
    :: atomic { AT(d, TOOK) ->
           if
           :: KIND == LOG -> anchor = SIGNERS(d); keep_checkpoint(anchor)
           :: else -> skip
           fi;
           phase[d] = NOTED }
    :: atomic { AT(d, NOTED) -> recorded = recorded | BIT(1); phase[d] = ENDED }
    :: atomic { AT(d, ENDED) -> hsm[0] = false; settle(); phase[d] = GONE }
    :: atomic { AT(d, GONE) -> role[0] = DESTROYED; phase[d] = IDLE }
    od
}
