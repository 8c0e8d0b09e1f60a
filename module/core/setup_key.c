/* setup_key - see setup.h. */
#include "config.h"

#include "module/core/setup.h"

#include "common/file.h"
#include "module/core/gate.h"
#include "module/core/internal.h"
#include "module/core/pages.h"
#include "module/core/projects.h"
#include "module/core/rotate_step.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

enum { PAGES_MAX = 1000 };

/* Sends s->blob (if any) and takes the reply's in its place. */
static enum code ask_keeper(struct setup *s, enum verb verb, json_t *head,
                            int fd, json_t **answer, struct error *e)
{
    FRAME request = FRAME_INIT;
    FRAME reply = FRAME_INIT;
    uint64_t generation;
    enum code code;

    request.verb = verb;
    request.head = head;
    request.fd = fd;
    request.body = s->blob;
    request.body_len = s->blob_len;
    s->blob = NULL;
    s->blob_len = 0;
    if (!head)
        return error_set(e, ERR_NOMEM, "no memory to seal a key");
    code = unlock_ready(s->core, &generation, e);
    if (!code)
        code = keeper_call(s->core->keeper, generation, &request, (int)s->core->settings->hsm_deadline_ms,
                           &reply, NULL, e);
    if (code)
        return code;
    s->blob = reply.body;
    s->blob_len = reply.body_len;
    reply.body = NULL;
    reply.body_len = 0;
    if (answer)
        *answer = json_incref(reply.head);
    return OK;
}

static enum code seal(struct setup *s, int key_fd, struct error *e)
{
    FD fd = fcntl(key_fd, F_DUPFD_CLOEXEC, 0);
    uint64_t generation;
    int mine = fd;
    /* Ready first: the descriptor can be read but once. */
    enum code code = unlock_ready(s->core, &generation, e);

    if (code)
        return code;
    fd = -1;
    return ask_keeper(s, VERB_SEAL_KEY,
                      json_pack("{ss ss ss}", "org", s->org.name, "endpoint",
                                s->config.api_endpoint, "organization_id",
                                s->config.organization_id),
                      mine, NULL, e);
}

static enum code add_candidate(const struct openai_admin_key *k, void *ctx,
                               struct error *e)
{
    struct setup *s = ctx;
    json_t *candidate = json_pack("{ss ss}", "id", k->id, "redacted",
                                  k->redacted ? k->redacted : "");
    json_t *owner =
        json_pack("{sI ss ss ss}", "key_expires_ms",
                  (json_int_t)k->expires_at * 1000, "type", k->owner_type ? k->owner_type : "",
                  "name", k->owner_name ? k->owner_name : "", "role",
                  k->owner_role ? k->owner_role : "");

    if (json_array_append_new(s->candidates, candidate) != 0 ||
        json_object_set_new(s->owners, k->id, owner) != 0)
        return error_set(e, ERR_NOMEM, "no memory for a list of admin keys");
    return OK;
}

static enum code list_page(struct setup *s, char **after, struct error *e)
{
    CLEANUP(openai_request_clear) struct openai_request request = {0};
    GATE_REPLY reply = GATE_REPLY_INIT;
    struct gate_call call = {.org = s->org.name,
                             .candidate = true,
                             .purpose = "verify admin key",
                             .by = s->by,
                             .request = &request,
                             .urgency = STORE_NORMAL};
    enum code code = openai_admin_key_list(&request, *after, e);

    if (!code)
        code = gate_ask(s->core, &call, &reply, e);
    free_p(after);
    *after = NULL;
    return code ? code
                : openai_decode_admin_key_list(&reply.http, add_candidate, s,
                                               after, e);
}

/* That the key may list admin keys proves it, and shows its id and owner. */
static enum code list_keys(struct setup *s, struct error *e)
{
    FREE char *after = NULL;
    enum code code;
    struct pages pages = {.n = 0};

    do {
        code = list_page(s, &after, e);
        if (code == ERR_SERVICE_AUTH)
            return error_prefix(e, "the service does not know this admin key");
        if (code)
            return error_prefix(e, "the admin key could not be verified");
        code = pages_next(&pages, after, PAGES_MAX, "admin keys", e);
        if (code)
            return code;
    } while (after);
    return OK;
}

static enum code take_owner(struct setup *s, const char *key_id,
                            struct error *e)
{
    json_t *owner = json_object_get(s->owners, key_id);
    struct {
        const char *name;
        char **to;
    } fields[] = {{"type", &s->config.owner_type},
                  {"name", &s->config.owner_name},
                  {"role", &s->config.owner_role}};

    for (size_t i = 0; i < sizeof(fields) / sizeof(fields[0]); i++) {
        const char *text =
            json_string_value(json_object_get(owner, fields[i].name));

        free(*fields[i].to);
        *fields[i].to = strdup(text ? text : "");
        if (!*fields[i].to)
            return error_set(e, ERR_NOMEM, "no memory for a configuration");
    }
    s->config.key_expires_ms =
        json_integer_value(json_object_get(owner, "key_expires_ms"));
    if (strcmp(s->config.owner_type, "user") == 0)
        setup_warn(s,
             "the admin key belongs to a person (%s): it dies with that "
             "account; a service account's key is better",
             s->config.owner_name);
    return OK;
}

static enum code bind(struct setup *s, struct error *e)
{
    JSON answer = NULL;
    const char *want = s->config.admin_api_key_id, *id;
    json_t *head =
        json_pack("{ss sO}", "org", s->org.name, "candidates", s->candidates);
    enum code code;

    if (*want)
        json_object_set_new(head, "want", json_string(want));
    code = ask_keeper(s, VERB_BIND_KEY, head, -1, &answer, e);
    if (code)
        return code;
    id = json_string_value(json_object_get(answer, "key_id"));
    if (!id || s->blob_len == 0)
        return error_set(e, ERR_KEEPER, "the keeper bound no key");
    code = take_owner(s, id, e);
    if (!code && strcmp(id, want) != 0) {
        free(s->config.admin_api_key_id);
        s->config.admin_api_key_id = strdup(id);
        if (!s->config.admin_api_key_id)
            code = error_set(e, ERR_NOMEM, "no memory for a configuration");
    }
    return code;
}

/* A new key does not inherit the old one's id: it is found anew. */
enum code setup_key_prove(struct setup *s, struct error *e)
{
    enum code code;

    if (!json_object_get(s->asked->fields, "admin_api_key_id"))
        s->config.admin_api_key_id[0] = '\0';
    code = seal(s, s->asked->key_fd, e);
    if (!code)
        code = list_keys(s, e);
    if (!code)
        code = projects_check(s->core, &s->org, s->by, e);
    return code ? code : bind(s, e);
}

enum code setup_key_use(struct setup *s, struct error *e)
{
    ROTATE_STEP step = {.core = s->core, .by = s->by};
    enum code code = rotate_step_load(&step, s->org.name, e);

    if (!code)
        code = rotate_step_use(&step, step.org.admin_blob,
                               step.org.admin_blob_len, e);
    if (code)
        return error_prefix(e, "the new admin key is stored and taken at the "
                               "next start, but not yet in use");
    warnings_drop(&s->core->warnings, ALARM_ADMIN_KEY, s->org.name);
    expiry_note(s->core, s->org.name, EXPIRY_HONOURED); /* asked anew */
    health_key(s->core, s->org.name, &s->config);
    return OK;
}
