/* object - how the world's objects look in JSON. */
#ifndef ADMINSIM_OBJECT_H
#define ADMINSIM_OBJECT_H

#include "tests/adminsim/world.h"

#include <jansson.h>

json_t *project_json(const struct project *p);
json_t *account_json(const struct account *a);
/* As the reply to its creation has it, value included. */
json_t *account_key_json(const struct key *k);
json_t *project_key_json(const struct key *k);
json_t *admin_key_json(const struct key *k, bool with_value);
json_t *event_json(const struct event *v);
json_t *key_redacted(const struct key *k);
json_t *time_json(int64_t seconds); /* 0: null */

#endif
