/* rotate-plugin.pml - the order in which a known plugin rotates: make, try,
 * save, delete, and nothing written before. The service and the claims are those
 * of rotate.pml. With all defines 0 its order is good; with any one of them spin
 * finds what is lost:
 *
 *   LOST_CREATES  the answer to the POST is lost: an orphan
 *   DUDS          the new key does not work: it is left behind
 *   CRASHES       killed between create and save: the new key's value is lost
 *   LOST_DELETES  the DELETE fails: the old key's id is forgotten
 *   TWO           two rotations at once: one of their keys is forgotten
 *   CALLS         the old key dies under calls in flight
 */
#define OTHER_ORDER
#ifndef TWO
#define TWO 0
#endif
#include "rotate.pml"

byte fresh[2], before[2] /* in memory: the new key, and the old one */

proctype daemon(byte d)
{
    up[d] = true;
    do
    :: atomic { phase[d] == IDLE && begun <= TWO && (TWO || d == 0) ->
           begun++; before[d] = current; phase[d] = SEND }
    :: atomic { phase[d] == SEND -> post[d] = true; phase[d] = WAIT }
    :: atomic { phase[d] == WAIT && told[d] == CREATED ->
           fresh[d] = last_made[d]; phase[d] = TEST }
    :: atomic { phase[d] == WAIT && (told[d] == REFUSED || told[d] == UNKNOWN) ->
           phase[d] = IDLE }
    :: atomic { phase[d] == TEST && opens[fresh[d]] -> phase[d] = SAVE }
    :: atomic { phase[d] == TEST && dud[fresh[d]] -> phase[d] = IDLE }
    :: atomic { phase[d] == SAVE -> current = fresh[d]; phase[d] = DELETE }
    :: atomic { phase[d] == DELETE -> delete(before[d]); phase[d] = IDLE }
    :: atomic { phase[d] == DELETE && lost_deletes > 0 -> lost_deletes--; phase[d] = IDLE }
    :: atomic { phase[d] != IDLE && crashes > 0 -> crashes--; phase[d] = IDLE }
    od
}
