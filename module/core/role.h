/* role - what may be minted, by name: fields of the Vault plugin's roles under
 * its names and with its defaults, and ours.
 */
#ifndef HSMINT_CORE_ROLE_H
#define HSMINT_CORE_ROLE_H

#include "common/json.h"
#include "module/core/template.h"

#define ROLE_TTL_DEFAULT 3600
#define ROLE_MAX_TTL_DEFAULT 86400
#define ROLE_TTL_MAX 31536000 /* the service's longest expiry */
#define ROLE_DESCRIPTION_MAX 512
#define ROLE_API_BASE_MAX 255
#define ROLE_COUNT_MAX 1000000 /* of leases */

struct role {
    char *project_id;
    char *project_name; /* as the service told when it was checked */
    char *name_template;
    char *description;
    char *api_base;
    int64_t ttl, max_ttl; /* seconds */
    bool keep_value;
    bool is_default;
    bool reuse;       /* the same owner gets its live lease again */
    bool prove_death; /* a dead key is used until it is refused */
    /* Guards, 0: none. Live leases, and mints within a minute: of the role, and
     * of each owner in it. */
    int64_t max_live, max_live_per_identity;
    int64_t max_mints_per_minute, max_mints_per_minute_per_identity;
};
void role_clear(struct role *r);
#define ROLE CLEANUP(role_clear) struct role

/* The plugin's defaults. */
MUST_CHECK enum code role_init(struct role *r, struct error *e);
/* `fields` as an administrator typed them; what is left out stays. Unknown
 * ones are refused. Checked as a whole but for the template and project. */
MUST_CHECK enum code role_apply(struct role *r, json_t *fields,
                                struct error *e);
/* The stored body. */
MUST_CHECK enum code role_parse(struct role *r, const char *body,
                                struct error *e);
MUST_CHECK enum code role_body(const struct role *r, char **body,
                               struct error *e);
/* As the protocol shows it. */
MUST_CHECK enum code role_json(const struct role *r, const char *org,
                               const char *name, json_t **out, struct error *e);

#endif
