/* setup - an organisation's configuration while it is being changed, and the
 * way of a new admin key into the boundary: sealed by the keeper, proven by
 * calls of its own, bound to its id. Nothing is stored here.
 *
 * Whoever has one holds the organisation's "config" in core's inflight table.
 */
#ifndef HSMINT_CORE_SETUP_H
#define HSMINT_CORE_SETUP_H

#include "module/core/core.h"
#include "module/core/orgconfig.h"

struct setup {
    struct core *core;
    const struct caller *by;
    const struct config_request *asked;
    struct store_org org;
    struct config config;
    char *was_endpoint, *was_organization, *was_key_id;
    bool was_by_hand, was_outgrown, was_compromised;
    uint8_t *blob; /* candidate, then bound to its id */
    size_t blob_len;
    json_t *candidates; /* [{id, redacted}] */
    json_t *owners;     /* id → {type, name, role} */
    json_t *warnings; /* texts for who asked */
};
void setup_clear(struct setup *s);
#define SETUP CLEANUP(setup_clear) struct setup
void setup_warn(struct setup *s, const char *fmt, ...) PRINTF(2, 3);

/* s->asked->key_fd becomes a candidate that works: its id and owner are in
 * s->config, s->blob is the sealed key. */
MUST_CHECK enum code setup_key_prove(struct setup *s, struct error *e);
/* Once s->blob is stored: the keeper uses it from now on. */
MUST_CHECK enum code setup_key_use(struct setup *s, struct error *e);

#endif
