/* history - every request that was served, for a checker to compare with. */
#ifndef ADMINSIM_HISTORY_H
#define ADMINSIM_HISTORY_H

#include "tests/adminsim/api.h"

/* Once its effect is there and before the reply goes out. status 0: the
 * connection was closed instead. */
void history_add(const struct request *q, int status, const char *request_id);
/* From entry `from` on, at most HISTORY_PAGE of them. */
json_t *history_json(size_t from);
void history_forget(void);
#define HISTORY_PAGE 5000

#endif
