/* orgconfig - what an organisation's configuration holds: the Vault plugin's
 * fields under its names and with its defaults, and what the service said when
 * the admin key was verified. The key itself is a sealed blob beside it. */
#ifndef HSMINT_CORE_ORGCONFIG_H
#define HSMINT_CORE_ORGCONFIG_H

#include "common/json.h"

#include <stdint.h>

#define CONFIG_ENDPOINT_DEFAULT "https://api.openai.com/v1"

struct config {
    char *api_endpoint;
    char *organization_id;
    char *admin_api_key_id;  /* "" until a key was verified */
    int64_t rotation_period; /* seconds; 0: none */
    char *rotation_schedule; /* cron, UTC; "": none */
    int64_t rotation_window; /* seconds; 0: none */
    int64_t rotation_slack;  /* seconds; 0: as schedule.h has it */
    bool disable_automated_rotation;
    int64_t last_rotated_ms;
    bool by_hand;             /* a person gave the key, and has seen it */
    char rotation_wanted[16]; /* why it has to be rotated soon; "": it need not */
    int64_t wanted_ms;        /* since when */
    int64_t key_expires_ms; /* of the admin key; 0: never, or not told */
    char *owner_type, *owner_name, *owner_role;
};
void config_clear(struct config *c);
#define CONFIG CLEANUP(config_clear) struct config

MUST_CHECK enum code config_init(struct config *c, struct error *e);
/* `fields` as an administrator typed them; what is left out stays. */
MUST_CHECK enum code config_apply(struct config *c, json_t *fields,
                                  bool http_loopback, struct error *e);
/* The stored text; "{}" gives the defaults. */
MUST_CHECK enum code config_parse(struct config *c, const char *text,
                                  struct error *e);
MUST_CHECK enum code config_text(const struct config *c, char **text,
                                 struct error *e);
/* As the protocol shows it. */
MUST_CHECK enum code config_json(const struct config *c, const char *org,
                                 bool configured, json_t **out,
                                 struct error *e);

#endif
