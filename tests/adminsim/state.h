/* state - the world in a file, so that a double that was stopped goes on. */
#ifndef ADMINSIM_STATE_H
#define ADMINSIM_STATE_H

#include <stdbool.h>

/* path NULL: nothing is kept. Reads what is there, else begins anew; from
 * then on changes are written within a fifth of a second. */
bool state_open(const char *path, bool service_owner);
/* Back to the initial world, with the same initial admin key. */
void state_fresh(void);
/* Now. */
bool state_save(void);

#endif
