/* counter - what was served. */
#ifndef ADMINSIM_COUNTER_H
#define ADMINSIM_COUNTER_H

#include "tests/adminsim/api.h"

void counter_begin(void); /* a request came in … */
/* … and was answered; status 0: the connection was closed instead. */
void counter_end(const struct request *q, const char *pattern, int status,
                 const char *request_id);
void counter_connection(int change);
void counter_reset(void);
json_t *counter_json(void);
json_t *counter_requests(void); /* the last COUNTER_KEPT, oldest first */
#define COUNTER_KEPT 2000

#endif
