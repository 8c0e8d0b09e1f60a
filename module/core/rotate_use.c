/* rotate_use - which sealed admin key the keeper works with. */
#include "config.h"

#include "module/core/rotate_parts.h"

#include "common/clock.h"
#include "common/file.h"
#include "common/log.h"
#include "module/core/internal.h"
#include "module/core/logbook.h"

#include <stdlib.h>
#include <string.h>

static enum code ask(struct rotate_step *s, const uint8_t *blob, size_t len,
                     enum rotate_use how, struct frame *reply, struct error *e)
{
    FRAME request = FRAME_INIT;

    request.verb = VERB_USE_KEY;
    request.head = json_pack("{ss sb sb}", "org", s->org.name, "publish",
                             how == USE, "try", how == USE_TRY);
    request.body = malloc(len);
    if (!request.head || !request.body)
        return error_set(e, ERR_NOMEM, "no memory to use a key");
    memcpy(request.body, blob, len);
    request.body_len = len;
    return unlock_call(s->core, &request,
                       (int)s->core->settings->hsm_deadline_ms, reply, NULL, e);
}

enum code rotate_use(struct rotate_step *s, const uint8_t *blob, size_t len,
                     enum rotate_use how, struct error *e)
{
    FRAME reply = FRAME_INIT;

    return ask(s, blob, len, how, &reply, e);
}

enum code rotate_step_use(struct rotate_step *s, const uint8_t *blob, size_t len,
                          struct error *e)
{
    struct error why = {0};

    if (rotate_use(s, blob, len, USE, &why) == OK)
        return OK;
    log_failure(&why, "organisation %s: its new admin key is not on the HSM",
                s->org.name);
    return rotate_use(s, blob, len, USE_HERE, e);
}

/* ---- the HSM's is later than the store's ---- */

struct later {
    struct rotate_step *step;
    const char *was; /* the configuration */
};

static enum code put(struct store_tx *tx, void *ctx, struct error *e)
{
    const struct later *l = ctx;
    const struct rotate_step *s = l->step;
    FREE char *text = NULL;
    struct logbook_entry r = {.kind = RECORD_CONFIG, .org = s->org.name};
    enum code code = config_text(&s->config, &text, e);

    if (!code)
        code = store_org_set_config(tx, s->org.id, text, e);
    if (!code)
        code = store_org_set_blob(tx, s->org.id, s->org.admin_blob,
                                  s->org.admin_blob_len, e);
    /* A key that this store was trying then is none to be taken any more. */
    if (!code)
        code = rotation_supersede(tx, s->org.name, e);
    if (code)
        return code;
    r.more = logbook_change(s->org.name, "adopt", l->was, text);
    code = logbook_add(s->core, tx, &r, e);
    if (code)
        return code;
    r.kind = RECORD_SEAL;
    r.more = logbook_seal(s->config.admin_api_key_id, s->org.admin_blob,
                          s->org.admin_blob_len);
    return logbook_add(s->core, tx, &r, e);
}

static enum code set_text(char **field, const char *text, struct error *e)
{
    char *copy = strdup(text);

    if (!copy)
        return error_set(e, ERR_NOMEM, "no memory for a configuration");
    free(*field);
    *field = copy;
    return OK;
}

static enum code take_later(struct rotate_step *s, struct frame *reply,
                            const char *id, struct error *e)
{
    const char *endpoint =
        json_string_value(json_object_get(reply->head, "endpoint"));
    const char *organization =
        json_string_value(json_object_get(reply->head, "organization_id"));
    FREE char *was = strdup(s->config.admin_api_key_id);
    struct later later = {s, s->org.config};
    enum code code = set_text(&s->config.admin_api_key_id, id, e);

    if (!code && endpoint)
        code = set_text(&s->config.api_endpoint, endpoint, e);
    if (!code && organization)
        code = set_text(&s->config.organization_id, organization, e);
    if (code)
        return code;
    s->config.key_expires_ms = 0; /* not told here; health asks the service */
    free(s->org.admin_blob);
    s->org.admin_blob = reply->body;
    s->org.admin_blob_len = reply->body_len;
    reply->body = NULL;
    reply->body_len = 0;
    code = store_commit(s->core->store, STORE_RESERVE, put, &later, e);
    if (code)
        return code;
    health_key(s->core, s->org.name, &s->config);
    log_warning("organisation %s: the HSM has admin key %s, which is later "
                "than %s, the store's: it is taken (was a backup restored?)",
                s->org.name, s->config.admin_api_key_id, was ? was : "");
    return OK;
}

/* The keeper works with the highest version of all: that of a store that was
 * taken back to before is not it, and what works must be in no doubt when keys
 * are deleted. Where it cannot be asked, nothing is deleted either. */
enum code rotate_adopt(struct rotate_step *s, struct error *e)
{
    FRAME reply = FRAME_INIT;
    const char *id = NULL;
    struct error why = {0};

    if (!s->org.admin_blob ||
        ask(s, s->org.admin_blob, s->org.admin_blob_len, USE_HERE, &reply,
            &why) != OK)
        return OK;
    id = json_string_value(json_object_get(reply.head, "key_id"));
    if (!id || !reply.body ||
        strcmp(id, s->config.admin_api_key_id) == 0 ||
        logbook_seal_version(reply.body, reply.body_len) <=
            logbook_seal_version(s->org.admin_blob, s->org.admin_blob_len))
        return OK;
    return take_later(s, &reply, id, e);
}
