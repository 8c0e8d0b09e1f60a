/* reply - reading what the service sent back, as far as the keeper must. Pure:
 * no network, no HSM. */
#ifndef HSMINT_REPLY_H
#define HSMINT_REPLY_H

#include "common/json.h"
#include "common/secret.h"

#include <stdint.h>

#define REPLY_WAIT_MAX_MS (24u * 3600 * 1000)

/* A Retry-After header: whole seconds or an HTTP-date. 0: not told. */
uint32_t reply_retry_after(const char *value, size_t len, int64_t wall_ms);
/* "try again after 6.937 seconds", "try again in 1m2.5s" in the error message
 * of a JSON body. 0: not told. */
uint32_t reply_message_wait(const char *body, size_t len);
/* x-request-id as far as it is made of [A-Za-z0-9._-], else "". */
void reply_request_id(char out[ERROR_REQUEST_ID_MAX], const char *value,
                      size_t len);
/* x-ratelimit-limit-requests, -remaining-requests: a whole number, or -1. */
int64_t reply_rate_count(const char *value, size_t len);
/* x-ratelimit-reset-requests: "6m0s", "20ms", or seconds. 0: not told. */
uint32_t reply_rate_reset(const char *value, size_t len);
/* The error's "code", or "". */
#define REPLY_CODE_MAX 64
void reply_error_code(char out[REPLY_CODE_MAX], const char *body, size_t len);

/* Takes the new admin key out of a reply of POST /organization/admin_api_keys.
 * *value and *key_id are NULL where the reply has none. *rest holds the known
 * members only, so that nothing secret can stay in an unknown one. */
MUST_CHECK enum code reply_take_admin_key(const char *body, size_t len,
                                          json_t **rest, struct secret **value,
                                          char **key_id, struct error *e);
/* A copy of the minted key in a reply of POST …/service_accounts or …/api_keys;
 * *value NULL where there is none. */
MUST_CHECK enum code reply_minted_key(const char *body, size_t len,
                                      struct secret **value, struct error *e);

#endif
