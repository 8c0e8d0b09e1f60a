/* template - names of service accounts, in the pipeline syntax that users of
 * the Vault plugin type: {{.RoleName | truncate 20}}-{{random 8}}.
 *
 * Variables: RoleName, RandomSuffix (8 of [a-z0-9]), ProjectName. Functions:
 * random N, truncate N S, uppercase S, lowercase S, replace FROM TO S,
 * sha256 S, base64 S, unix_time, timestamp LAYOUT, uuid; the piped value is
 * the last argument. Anything else is refused. Characters outside
 * [A-Za-z0-9._-] become "-" in the result.
 */
#ifndef HSMINT_CORE_TEMPLATE_H
#define HSMINT_CORE_TEMPLATE_H

#include "common/error.h"

#define TEMPLATE_TEXT_MAX 512
#define TEMPLATE_NAME_MAX 64 /* what the service takes, marker included */
#define TEMPLATE_MARKER_LEN 18
/* "-" and the marker come behind what the template gives. */
#define TEMPLATE_ROOM (TEMPLATE_NAME_MAX - TEMPLATE_MARKER_LEN - 1)
#define TEMPLATE_DEFAULT "vault-{{.RoleName}}-{{.RandomSuffix}}"

struct template_input {
    const char *role;
    const char *project; /* its name */
    int64_t wall_ms;
};

/* At most TEMPLATE_ROOM characters: RoleName and ProjectName are shortened
 * until it fits, nothing else ever is; ERR_INVALID when that is not enough. */
MUST_CHECK enum code template_render(const char *text,
                                     const struct template_input *in,
                                     char out[TEMPLATE_ROOM + 1],
                                     struct error *e);
/* Tried at write time: with this role and project, now and on the day with
 * the longest name. */
MUST_CHECK enum code template_check(const char *text,
                                    const struct template_input *in,
                                    struct error *e);

#endif
