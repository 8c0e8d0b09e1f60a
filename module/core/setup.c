/* setup - an organisation's configuration and its admin key, which is proven
 * against the service before it takes the place of the old one. */
#include "config.h"

#include "common/clock.h"
#include "common/file.h"
#include "common/log.h"
#include "common/text.h"
#include "module/core/gate.h"
#include "module/core/internal.h"
#include "module/core/logbook.h"
#include "module/core/orgconfig.h"
#include "module/core/revoke.h"
#include "module/core/rotate.h"
#include "module/core/rotation.h"
#include "module/core/schedule.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { PAGES_MAX = 1000 };

struct setup {
    struct core *core;
    const struct caller *by;
    const struct config_request *asked;
    struct store_org org;
    struct config config;
    char *was_endpoint, *was_organization, *was_key_id;
    bool was_by_hand, was_outgrown;
    uint8_t *blob; /* candidate, then bound to its id */
    size_t blob_len;
    json_t *candidates; /* [{id, redacted}] */
    json_t *owners;     /* id → {type, name, role} */
    json_t *warnings;
};

static void setup_clear(struct setup *s)
{
    store_org_clear(&s->org);
    config_clear(&s->config);
    free(s->was_endpoint);
    free(s->was_organization);
    free(s->was_key_id);
    free(s->blob);
    json_decref(s->candidates);
    json_decref(s->owners);
    json_decref(s->warnings);
}

static int deadline(const struct setup *s)
{
    return (int)s->core->settings->hsm_deadline_ms;
}

static void warn(struct setup *s, const char *fmt, ...) PRINTF(2, 3);
static void warn(struct setup *s, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    json_array_append_new(s->warnings, json_vsprintf(fmt, ap));
    va_end(ap);
}

/* ---- the key's way into the boundary ---- */

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
        code = keeper_call(s->core->keeper, generation, &request, deadline(s),
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
    int pages = 0;

    do {
        code = list_page(s, &after, e);
        if (code == ERR_SERVICE_AUTH)
            return error_prefix(e, "the service does not know this admin key");
        if (code)
            return error_prefix(e, "the admin key could not be verified");
        if (++pages == PAGES_MAX)
            return error_set(e, ERR_SERVICE_REPLY,
                             "the list of admin keys does not end");
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
        warn(s,
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

/* ---- rows ---- */

struct write {
    struct core *core;
    const struct rotation *retire; /* the key before; NULL: it stays */
    int64_t org;
    const char *org_name;
    const char *was; /* the configuration */
    const char *config;
    const char *key_id; /* with blob */
    const uint8_t *blob;
    size_t blob_len;
    const struct caller *by;
};

static enum code record(struct store_tx *tx, const struct write *w,
                        const char *action, struct error *e)
{
    struct logbook_entry r = {
        .kind = RECORD_CONFIG,
        .by = w->by,
        .org = w->org_name,
        .more = logbook_change(w->org_name, action, w->was, w->config)};
    enum code code = logbook_add(w->core, tx, &r, e);

    if (code || !w->blob)
        return code;
    r.kind = RECORD_SEAL;
    r.more = logbook_seal(w->key_id, w->blob, w->blob_len);
    return logbook_add(w->core, tx, &r, e);
}

static enum code write_rows(struct store_tx *tx, void *ctx, struct error *e)
{
    const struct write *w = ctx;
    enum code code = store_org_set_config(tx, w->org, w->config, e);

    if (!code && w->blob)
        code = store_org_set_blob(tx, w->org, w->blob, w->blob_len, e);
    if (!code && w->blob)
        code = rotation_supersede(tx, w->org_name, e);
    if (!code && w->retire)
        code = rotation_save(tx, w->retire, e);
    return code ? code : record(tx, w, "set", e);
}

/* Whether the key before is to go, and as what. */
static bool retires_old(struct setup *s, struct rotation *old)
{
    const char *what = s->asked->old;
    bool same = strcmp(s->was_endpoint, s->config.api_endpoint) == 0 &&
                strcmp(s->was_organization, s->config.organization_id) == 0;
    bool goes = same && (what ? strcmp(what, "retire") == 0 : !s->was_by_hand);

    if (!s->blob || !s->org.admin_blob || !*s->was_key_id ||
        strcmp(s->was_key_id, s->config.admin_api_key_id) == 0)
        return false;
    if (!goes) {
        warn(s, "admin key %s, which was in use before, stays at the service",
             s->was_key_id);
        return false;
    }
    *old = (struct rotation){.state = ROTATION_RETIRE,
                             .begun_ms = clock_wall_ms(),
                             .due_ms = clock_wall_ms(),
                             .old_sealed = s->org.admin_blob,
                             .old_sealed_len = s->org.admin_blob_len};
    snprintf(old->org, sizeof(old->org), "%s", s->org.name);
    snprintf(old->cause, sizeof(old->cause), "by hand");
    snprintf(old->new_id, sizeof(old->new_id), "%s",
             s->config.admin_api_key_id);
    snprintf(old->old_id, sizeof(old->old_id), "%s", s->was_key_id);
    return true;
}

static enum code put(struct setup *s, struct error *e)
{
    struct rotation old; /* borrows its blob */
    struct write w = {.core = s->core,
                      .org = s->org.id,
                      .org_name = s->org.name,
                      .was = s->org.config,
                      .key_id = s->config.admin_api_key_id,
                      .blob = s->blob,
                      .blob_len = s->blob_len,
                      .by = s->by};
    FREE char *text = NULL;
    enum code code = config_text(&s->config, &text, e);

    w.retire = retires_old(s, &old) ? &old : NULL;
    w.config = text;
    return code ? code
                : store_commit(s->core->store, STORE_NORMAL, write_rows, &w, e);
}

static enum code use(struct setup *s, struct error *e)
{
    enum code code = ask_keeper(
        s, VERB_USE_KEY, json_pack("{ss sb}", "org", s->org.name, "publish", 1),
        -1, NULL, e);

    if (code)
        return error_prefix(e, "the new admin key is stored and taken at the "
                               "next start, but not yet in use");
    warnings_drop(&s->core->warnings, ALARM_ADMIN_KEY, s->org.name);
    expiry_note(s->core, s->org.name, EXPIRY_HONOURED); /* asked anew */
    health_key(s->core, s->org.name, &s->config);
    return OK;
}

/* ---- what was asked ---- */

static enum code load(struct setup *s, const char *org, struct error *e)
{
    enum code code = core_org(s->core, org, &s->org, e);

    if (!code)
        code = config_parse(&s->config, s->org.config, e);
    if (code)
        return code;
    s->was_endpoint = strdup(s->config.api_endpoint);
    s->was_organization = strdup(s->config.organization_id);
    s->was_key_id = strdup(s->config.admin_api_key_id);
    s->was_by_hand = s->config.by_hand;
    s->was_outgrown = schedule_outgrown(&s->config, clock_wall_ms());
    s->candidates = json_array();
    s->owners = json_object();
    s->warnings = json_array();
    if (!s->was_endpoint || !s->was_organization || !s->was_key_id ||
        !s->candidates || !s->owners || !s->warnings)
        return error_set(e, ERR_NOMEM, "no memory for a configuration");
    return OK;
}

/* Endpoint, organisation and id are bound into the sealed key. */
static enum code needs_key(const struct setup *s, struct error *e)
{
    const struct {
        const char *name, *was, *is;
    } bound[] = {
        {"api_endpoint", s->was_endpoint, s->config.api_endpoint},
        {"organization_id", s->was_organization, s->config.organization_id},
        {"admin_api_key_id", s->was_key_id, s->config.admin_api_key_id},
    };

    for (size_t i = 0; s->org.admin_blob && i < 3; i++) {
        if (strcmp(bound[i].was, bound[i].is) != 0)
            return error_set(e, ERR_INVALID,
                             "%s is bound into the sealed admin key: give "
                             "admin_api_key along with it",
                             bound[i].name);
    }
    return OK;
}

/* A new key does not inherit the old one's id: it is found anew. */
static enum code set_with_key(struct setup *s, struct error *e)
{
    enum code code;

    if (!json_object_get(s->asked->fields, "admin_api_key_id"))
        s->config.admin_api_key_id[0] = '\0';
    s->config.last_rotated_ms = clock_wall_ms();
    s->config.by_hand = true;
    s->config.wanted_ms = s->config.last_rotated_ms;
    snprintf(s->config.rotation_wanted, sizeof(s->config.rotation_wanted), "%s",
             s->asked->keep_first ? "" : "first");
    if ((code = seal(s, s->asked->key_fd, e)) || (code = list_keys(s, e)) ||
        (code = bind(s, e)) || (code = put(s, e)))
        return code;
    return use(s, e);
}

/* A person has seen the key: another one takes its place, now if that can be,
 * else by itself as soon as it can. */
static void replace_first(struct setup *s)
{
    CLEANUP(store_org_clear) struct store_org org = {0};
    struct error e = {0};
    enum code code = rotate_held(s->core, s->by, s->org.name, "first", &e);

    if (code) {
        warn(s, "the key that was given is in use; hsmint goes on trying to "
                "replace it by one that nobody has seen: %s", e.text);
        return;
    }
    code = core_org(s->core, s->org.name, &org, &e);
    config_clear(&s->config);
    if (!code)
        code = config_parse(&s->config, org.config, &e);
    if (code)
        warn(s, "%s", e.text);
    else
        warn(s, "admin key %s took the place of the one that was given, which "
                "is deleted at the service", s->config.admin_api_key_id);
}

/* The schedule was lengthened beyond the key's end: it rotates first. */
static void note_outgrown(struct setup *s)
{
    struct config *c = &s->config;
    int64_t now = clock_wall_ms();

    if (!s->org.admin_blob || *c->rotation_wanted || s->was_outgrown ||
        !schedule_outgrown(c, now))
        return;
    snprintf(c->rotation_wanted, sizeof(c->rotation_wanted), "expiry");
    c->wanted_ms = now;
}

static enum code set(struct setup *s, struct error *e)
{
    bool has_key = s->asked->key_fd >= 0;
    const char *old = s->asked->old;
    enum code code;

    if (old && strcmp(old, "retire") != 0 && strcmp(old, "keep") != 0)
        return error_set(e, ERR_INVALID, "old: \"retire\" or \"keep\"");
    code = config_apply(&s->config, s->asked->fields,
                        s->core->settings->allow_http_loopback, e);

    if (code)
        return code;
    if (has_key) {
        code = set_with_key(s, e);
    } else if (!(code = needs_key(s, e))) {
        note_outgrown(s);
        code = put(s, e);
    }
    if (code)
        return code;
    if (has_key && !s->asked->keep_first)
        replace_first(s);
    if (!has_key && !s->org.admin_blob)
        warn(s, "%s has no admin key yet: give admin_api_key", s->org.name);
    if (!has_key)
        rotate_poke(s->core);
    return OK;
}

enum code core_config_set(struct core *c, const struct caller *by,
                          const struct config_request *r, json_t **out,
                          struct error *e)
{
    CLEANUP(setup_clear) struct setup s = {.core = c, .by = by, .asked = r};
    INFLIGHT hold = {0};
    enum code code = core_hold_config(c, r->org, &hold, e);

    if (!code)
        code = load(&s, r->org, e);
    if (!code)
        code = set(&s, e);
    if (code)
        return code;
    code = config_json(&s.config, s.org.name,
                       r->key_fd >= 0 || s.org.admin_blob, out, e);
    if (!code && json_object_set(*out, "warnings", s.warnings) != 0)
        code = error_set(e, ERR_NOMEM, "no memory for a configuration");
    return code;
}

enum code core_config_json(const struct store_org *org, json_t **out,
                           struct error *e)
{
    CONFIG config = {0};
    enum code code = config_parse(&config, org->config, e);

    return code ? code
                : config_json(&config, org->name, org->admin_blob != NULL, out,
                              e);
}

struct shown {
    const char *org;
    json_t *out;
};

/* "rotation": what is being made; "retiring": [what is to go]. */
static enum code show_rotation(const struct rotation *r, void *ctx,
                               struct error *e)
{
    struct shown *s = ctx;
    json_t *list = json_object_get(s->out, "retiring");
    int failed = strcmp(r->document, s->org) == 0
                     ? json_object_set_new(s->out, "rotation", rotation_json(r))
                     : json_array_append_new(list, rotation_json(r));

    return failed ? error_set(e, ERR_NOMEM, "no memory for a configuration")
                  : OK;
}

static enum code add_rotations(struct core *c, const char *org, json_t *out,
                               struct error *e)
{
    struct shown s = {org, out};

    if (json_object_set_new(out, "retiring", json_array()) != 0)
        return error_set(e, ERR_NOMEM, "no memory for a configuration");
    return rotation_each(c->store, org, show_rotation, &s, e);
}

enum code core_config_get(struct core *c, const struct caller *by,
                          const char *name, json_t **out, struct error *e)
{
    CLEANUP(store_org_clear) struct store_org org = {0};
    enum code code = core_org(c, name, &org, e);

    (void)by;
    if (!code)
        code = core_config_json(&org, out, e);
    return code ? code : add_rotations(c, org.name, *out, e);
}

/* ---- deleting ---- */

static enum code delete_rows(struct store_tx *tx, void *ctx, struct error *e)
{
    const struct write *w = ctx;
    enum code code = store_org_set_config(tx, w->org, "{}", e);

    if (!code)
        code = store_org_set_blob(tx, w->org, NULL, 0, e);
    return code ? code : record(tx, w, "delete", e);
}

enum { DELETE_WAIT_MS = 20000 };

struct removal {
    struct core *core;
    const struct store_org *org;
    bool halted;
    struct store_counts n;
};

/* The HSM's copy goes first: if that fails, nothing has changed. */
static enum code drop_key(struct core *c, const struct store_org *org,
                          struct error *e)
{
    FRAME request = FRAME_INIT;
    FRAME reply = FRAME_INIT;

    if (!org->admin_blob)
        return OK;
    request.verb = VERB_DROP_KEY;
    request.head = json_pack("{ss}", "org", org->name);
    if (!request.head)
        return error_set(e, ERR_NOMEM, "no memory to drop a key");
    return unlock_call(c, &request, (int)c->settings->hsm_deadline_ms, &reply,
                       NULL, e);
}

/* What has still to be deleted needs the key. */
static enum code is_under_way(const struct rotation *r, void *ctx,
                              struct error *e)
{
    (void)ctx;
    return error_set(e, ERR_EXISTS,
                     "a rotation of %s's admin key is under way (%s%s%s): it "
                     "ends by itself",
                     r->org, rotation_state_name(r->state),
                     *r->error ? ": " : "", r->error);
}

static void halt_leave(struct removal *r)
{
    if (r->halted)
        halt_end(&r->core->halt, r->org->id);
}

static enum code count_rows(struct store_tx *tx, void *ctx, struct error *e)
{
    struct removal *r = ctx;

    return store_tx_lease_counts(tx, r->org->id, NULL, &r->n, e);
}

static int64_t live(const struct store_counts *n)
{
    return n->pending + n->active + n->revoking;
}

/* In a transaction: what was inserted before the halt is in it. */
static enum code end_leases(struct removal *r, const struct caller *by,
                            bool revoke, struct error *e)
{
    struct core *c = r->core;
    int64_t left = 0;
    enum code code = store_commit(c->store, STORE_RESERVE, count_rows, r, e);

    if (code || live(&r->n) == 0)
        return code;
    if (!revoke)
        return error_set(e, ERR_EXISTS,
                         "organisation %s has live leases, which only its "
                         "admin key can revoke; revoke them first, or with it "
                         "(`hsmint config delete --revoke`)",
                         r->org->name);
    code = revoke_mark(c, r->org->id, NULL, "configuration deleted", by, e);
    if (!code)
        code = revoke_wait(c, r->org->id, NULL, DELETE_WAIT_MS, &left, e);
    if (code || left == 0)
        return code;
    return error_set(e, ERR_EXISTS,
                     "%lld leases of organisation %s still wait for the "
                     "service to delete their accounts, which needs the admin "
                     "key: it stays; they go on being revoked; try again",
                     (long long)left, r->org->name);
}

enum code core_config_delete(struct core *c, const struct caller *by,
                             const char *name, bool revoke, struct error *e)
{
    CLEANUP(store_org_clear) struct store_org org = {0};
    CLEANUP(halt_leave) struct removal r = {.core = c, .org = &org};
    struct write w = {.core = c, .by = by};
    INFLIGHT hold = {0};
    enum code code = core_hold_config(c, name, &hold, e);

    if (!code)
        code = core_org(c, name, &org, e);
    if (!code)
        code = rotation_each(c->store, org.name, is_under_way, NULL, e);
    if (!code)
        code = halt_begin(&c->halt, org.id, "its configuration is deleted", e);
    r.halted = !code;
    if (!code)
        code = end_leases(&r, by, revoke, e);
    if (code)
        return code;
    code = drop_key(c, &org, e);
    w.org = org.id;
    w.org_name = org.name;
    w.was = org.config;
    if (!code)
        code = store_commit(c->store, STORE_NORMAL, delete_rows, &w, e);
    if (code)
        return code;
    health_key(c, org.name, NULL);
    warnings_drop(&c->warnings, ALARM_ADMIN_KEY, org.name);
    return OK;
}
