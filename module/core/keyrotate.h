/* keyrotate - another generation of the HSM's keys, made in the HSM:
 * keyrotation.h has the steps. On command; what an end of the daemon or of the
 * keeper cuts off goes on from the thread of rotate.h.
 */
#ifndef HSMINT_CORE_KEYROTATE_H
#define HSMINT_CORE_KEYROTATE_H

struct core;

/* Takes the next steps of a rotation that is under way, where the HSM is
 * ready. */
void keyrotate_go_on(struct core *c);

#endif
