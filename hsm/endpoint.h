/* endpoint - where a key may be sent. */
#ifndef HSMINT_ENDPOINT_H
#define HSMINT_ENDPOINT_H

#include "common/error.h"
#include "common/settings.h"

#include <stdbool.h>

/* Is the host of a checked endpoint among [service] hosts? ERR_CONFIG names it
 * and what to do. Asked whenever a key is sealed, bound, chosen and used: a
 * host may have gone from the list since. */
MUST_CHECK enum code endpoint_listed(const struct settings *s, const char *what,
                                     const char *url, struct error *e);
/* https with a host and without user, query or fragment; http only to this
 * machine, where the settings allow it. A trailing slash goes. */
#define ENDPOINT_MAX 256
MUST_CHECK enum code endpoint_check(const struct settings *s, const char *what,
                                    const char *url, char base[ENDPOINT_MAX],
                                    struct error *e);
/* Is `base` on the endpoint's host, or on one below it (us.api.openai.com is
 * below api.openai.com), with its scheme and port? Both were checked. */
bool endpoint_serves(const char *base, const char *endpoint);

#endif
