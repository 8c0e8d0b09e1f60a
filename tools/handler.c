#include "config.h"

#include "tools/handler.h"

#include "common/file.h"
#include "common/log.h"
#include "common/text.h"
#include "module/core/permit.h"
#include "tools/server.h"

#include <string.h>
#include <unistd.h>

#define DEFAULT_ORG "default"
#define CKA_ID_MAX 128
#define LABEL_MAX 255 /* bytes; longer ones would make lists too long */
#define PAGE 250      /* leases in one reply: stays below WIRE_MESSAGE_MAX */

struct caller handler_caller(const struct call *c)
{
    const struct application *a = *c->application;
    return (struct caller){
        .owner = c->owner,
        .id = c->id,
        .uid = c->peer->uid,
        .pid = c->peer->pid,
        .program = a ? a->program : "",
        .application = a ? a->hash : "",
    };
}

/* The name that policies are asked about is the one that is acted on. */
const char *handler_org(const struct arguments *a)
{
    return a->org && *a->org ? a->org : DEFAULT_ORG;
}

/* {name: value}; takes the value. */
static enum code reply_with(json_t **out, const char *name, json_t *value,
                            struct error *e)
{
    *out = value ? json_pack("{s:o}", name, value) : NULL;
    return *out ? OK : error_set(e, ERR_NOMEM, "reply with %s", name);
}

/* ---- attach, login, the daemon ---- */

static enum code instance(struct call *c, char **out, struct error *e)
{
    size_t len = 0;
    enum code rc =
        store_meta_get(c->daemon->store, "instance", (void **)out, &len, e);
    if (rc != ERR_NOT_FOUND)
        return rc;
    *out = strdup("");
    return *out ? OK : error_set(e, ERR_NOMEM, "instance");
}

enum code handle_attach(struct call *c, const struct arguments *a, json_t **out,
                        struct error *e)
{
    if (*c->application)
        return error_set(e, ERR_EXISTS, "this connection is attached already");
    if (a->version != METHOD_PROTOCOL)
        return error_set(e, ERR_PROTOCOL,
                         "this daemon speaks version %d of its protocol, not "
                         "%lld: update the older of the two",
                         METHOD_PROTOCOL, (long long)a->version);
    FREE char *name = NULL;
    enum code rc = instance(c, &name, e);
    if (rc)
        return rc;
    char made[WIRE_TOKEN_HEX + 1];
    struct core_login login;
    rc = application_attach(c->daemon->applications, c->peer, c->id, a->program,
                            a->token, made, c->application, e);
    if (rc)
        return rc;
    application_login(c->daemon->applications, *c->application, &login);
    const char *mode =
        c->daemon->settings->mode == MODE_SYSTEM ? "system" : "user";
    *out = json_pack("{s:s, s:s, s:s, s:s}", "token",
                     a->token ? a->token : made, "mode", mode, "instance", name,
                     "login", login.accessor[0] ? login.name : "");
    wipe(made, sizeof made);
    return *out ? OK : error_set(e, ERR_NOMEM, "reply to Attach");
}

enum code handle_lock(struct call *c, const struct arguments *a, json_t **out,
                      struct error *e)
{
    (void)a, (void)out;
    struct caller by = handler_caller(c);
    return core_lock(c->daemon->core, &by, e);
}

enum code handle_stop(struct call *c, const struct arguments *a, json_t **out,
                      struct error *e)
{
    (void)out;
    if (c->daemon->settings->mode == MODE_SYSTEM)
        return error_set(e, ERR_DENIED,
                         "a system daemon is stopped by its service manager: "
                         "systemctl stop hsmintd");
    if (!a->force && core_busy(c->daemon->core))
        return error_set(e, ERR_EXISTS,
                         "leases are alive or being revoked: revoke them, or "
                         "force it (the service then ends them by itself)");
    log_info("stop, asked by %s, process %d", c->owner, (int)c->peer->pid);
    server_stop(c->daemon->server);
    return OK;
}

enum code handle_status(struct call *c, const struct arguments *a, json_t **out,
                        struct error *e)
{
    (void)a;
    JSON status = NULL;
    enum code rc = core_status(c->daemon->core, &status, e);
    if (rc)
        return rc;
    const struct settings *s = c->daemon->settings;
    JSON daemon = json_pack(
        "{s:s, s:i, s:I, s:s*, s:s*, s:s*, s:s*, s:I, s:I}", "version",
        PACKAGE_VERSION, "pid", (int)getpid(), "uid",
        (json_int_t)c->daemon->uid, "settings", c->daemon->config_path,
        "state_dir", s->state_dir, "socket", s->socket, "seccomp", s->seccomp,
        "connections",
        (json_int_t)server_connections(c->daemon->server), "applications",
        (json_int_t)applications_count(c->daemon->applications));
    if (!daemon || json_object_set(status, "daemon", daemon) < 0)
        return error_set(e, ERR_NOMEM, "status");
    return reply_with(out, "status", json_incref(status), e);
}

enum code handle_hsm(struct call *c, const struct arguments *a, json_t **out,
                     struct error *e)
{
    (void)a;
    json_t *hsm = NULL;
    enum code rc = core_hsm(c->daemon->core, &hsm, e);
    return rc ? rc : reply_with(out, "hsm", hsm, e);
}

enum code handle_check_service(struct call *c, const struct arguments *a,
                               json_t **out, struct error *e)
{
    struct caller by = handler_caller(c);
    json_t *service = NULL;
    enum code rc =
        core_check_service(c->daemon->core, &by, a->org, &service, e);
    return rc ? rc : reply_with(out, "service", service, e);
}

enum code handle_metrics(struct call *c, const struct arguments *a,
                         json_t **out, struct error *e)
{
    (void)a;
    struct metrics_server figures;
    json_t *families = NULL;
    server_figures(c->daemon->server, &figures);
    enum code rc = core_metrics(c->daemon->core, &figures, &families, e);
    if (rc)
        return rc;
    *out = json_pack("{s:o}", "families", families);
    return *out ? OK : error_set(e, ERR_NOMEM, "metrics");
}

enum code handle_slots(struct call *c, const struct arguments *a, json_t **out,
                       struct error *e)
{
    (void)a;
    const struct settings *s = c->daemon->settings;
    bool source = s->pin_source || (s->hsm_uri && strstr(s->hsm_uri, "pin-"));
    JSON slots = NULL;
    enum code rc = core_slots(c->daemon->core, &slots, e);
    if (rc)
        return rc;
    *out =
        json_pack("{s:O, s:b, s:b, s:s, s:o}", "slots", slots, "locked",
                  core_locked(c->daemon->core), "protected",
                  source || s->mode == MODE_SYSTEM, "version", PACKAGE_VERSION,
                  "pin", core_pin(c->daemon->core));
    return *out ? OK : error_set(e, ERR_NOMEM, "list of slots");
}

enum code handle_audit_keys(struct call *c, const struct arguments *a,
                            json_t **out, struct error *e)
{
    (void)a;
    json_t *keys = NULL;
    enum code rc = core_audit_keys(c->daemon->core, &keys, e);
    return rc ? rc : reply_with(out, "keys", keys, e);
}

enum code handle_random(struct call *c, const struct arguments *a, json_t **out,
                        struct error *e)
{
    (void)out;
    SECRET bytes = NULL;
    enum code rc = core_random(c->daemon->core, a->count, &bytes, e);
    return rc ? rc : secret_to_pipe(bytes, &c->fd_out, e);
}

enum code handle_end_session(struct call *c, const struct arguments *a,
                             json_t **out, struct error *e)
{
    (void)out;
    if (a->session <= 0)
        return error_set(e, ERR_INVALID, "session: has to be positive");
    if (!application_bound(c->daemon->applications, *c->application))
        return OK;
    return core_close_session(c->daemon->core, (*c->application)->hash,
                              a->session, e);
}

enum code handle_init(struct call *c, const struct arguments *a, json_t **out,
                      struct error *e)
{
    struct caller by = handler_caller(c);
    return a->recover
               ? core_recover(c->daemon->core, &by, handler_org(a), out, e)
               : core_init(c->daemon->core, &by, handler_org(a), out, e);
}

/* ---- configuration ---- */

enum code handle_set_config(struct call *c, const struct arguments *a,
                            json_t **out, struct error *e)
{
    struct caller by = handler_caller(c);
    JSON config = NULL;
    const struct config_request r = {.org = handler_org(a),
                                     .fields = a->fields,
                                     .key_fd = c->fd_in,
                                     .keep_first = a->keep_first,
                                     .old = a->old};
    enum code rc = core_config_set(c->daemon->core, &by, &r, &config, e);
    if (rc)
        return rc;
    JSON warnings = json_incref(json_object_get(config, "warnings"));
    if (!warnings)
        warnings = json_array();
    (void)json_object_del(config, "warnings");
    *out = json_pack("{s:O, s:O}", "config", config, "warnings", warnings);
    return *out ? OK : error_set(e, ERR_NOMEM, "reply to SetConfig");
}

enum code handle_get_config(struct call *c, const struct arguments *a,
                            json_t **out, struct error *e)
{
    struct caller by = handler_caller(c);
    json_t *config = NULL;
    enum code rc = core_config_get(c->daemon->core, &by, handler_org(a), &config, e);
    return rc ? rc : reply_with(out, "config", config, e);
}

enum code handle_rotate_config(struct call *c, const struct arguments *a,
                               json_t **out, struct error *e)
{
    struct caller by = handler_caller(c);
    return core_rotate(c->daemon->core, &by, handler_org(a), a->compromised,
                       out, e);
}

enum code handle_rotate_hsm(struct call *c, const struct arguments *a,
                            json_t **out, struct error *e)
{
    struct caller by = handler_caller(c);
    json_t *rotation = NULL;
    struct core *core = c->daemon->core;
    enum code rc = a->abandon
                       ? core_abandon_hsm(core, &by, a->name, &rotation, e)
                       : core_rotate_hsm(core, &by, a->name, &rotation, e);
    if (rc)
        return rc;
    *out = json_pack("{s:o}", "rotation", rotation);
    return *out ? OK : error_set(e, ERR_NOMEM, "reply to RotateHsm");
}

enum code handle_compromised_hsm_key(struct call *c, const struct arguments *a,
                                     json_t **out, struct error *e)
{
    struct caller by = handler_caller(c);
    json_t *rotation = NULL;
    enum code rc =
        core_compromised_hsm(c->daemon->core, &by, a->name, &rotation, e);
    return rc ? rc : reply_with(out, "rotation", rotation, e);
}

enum code handle_destroy_hsm_key(struct call *c, const struct arguments *a,
                                 json_t **out, struct error *e)
{
    struct caller by = handler_caller(c);
    json_t *key = NULL;
    enum code rc = core_destroy_hsm(c->daemon->core, &by, a->name, &key, e);
    if (rc)
        return rc;
    *out = json_pack("{s:o}", "rotation", key);
    return *out ? OK : error_set(e, ERR_NOMEM, "reply to DestroyHsmKey");
}

enum code handle_delete_config(struct call *c, const struct arguments *a,
                               json_t **out, struct error *e)
{
    struct caller by = handler_caller(c);
    return core_config_delete(c->daemon->core, &by, handler_org(a), a->revoke,
                              out, e);
}

/* ---- roles ---- */

enum code handle_set_role(struct call *c, const struct arguments *a,
                          json_t **out, struct error *e)
{
    struct caller by = handler_caller(c);
    json_t *role = NULL;
    enum code rc = core_role_set(c->daemon->core, &by, handler_org(a), a->name,
                                 a->fields, &role, e);
    return rc ? rc : reply_with(out, "role", role, e);
}

enum code handle_get_role(struct call *c, const struct arguments *a,
                          json_t **out, struct error *e)
{
    struct caller by = handler_caller(c);
    json_t *role = NULL;
    enum code rc =
        core_role_get(c->daemon->core, &by, handler_org(a), a->name, &role, e);
    return rc ? rc : reply_with(out, "role", role, e);
}

enum code handle_list_roles(struct call *c, const struct arguments *a,
                            json_t **out, struct error *e)
{
    struct caller by = handler_caller(c);
    json_t *roles = NULL;
    enum code rc = core_role_list(c->daemon->core, &by, handler_org(a), &roles, e);
    return rc ? rc : reply_with(out, "roles", roles, e);
}

enum code handle_delete_role(struct call *c, const struct arguments *a,
                             json_t **out, struct error *e)
{
    (void)out;
    struct caller by = handler_caller(c);
    return core_role_delete(c->daemon->core, &by, handler_org(a), a->name,
                            a->revoke, e);
}

/* ---- leases ---- */

static enum code lease_reply(struct call *c, json_t **out,
                             const struct store_lease *l, struct error *e)
{
    return reply_with(out, "lease", core_lease_json(c->daemon->core, l), e);
}

static enum code ttl_of(const struct arguments *a, struct error *e)
{
    if (a->given[PARAM_TTL] && a->ttl <= 0)
        return error_set(e, ERR_TTL, "ttl: has to be positive, not %lld s",
                         (long long)a->ttl);
    return OK;
}

static enum code cka_id_of(const struct arguments *a, uint8_t bytes[CKA_ID_MAX],
                           size_t *len, struct error *e)
{
    *len = 0;
    if (!a->id)
        return OK;
    if (text_unhex(bytes, CKA_ID_MAX, len, a->id, NULL))
        return error_set(e, ERR_INVALID,
                         "id: has to be at most %d bytes in hex", CKA_ID_MAX);
    return OK;
}

static enum code check_label(const struct arguments *a, struct error *e)
{
    if (a->label && strlen(a->label) > LABEL_MAX)
        return error_set(e, ERR_INVALID, "label: has to be at most %d bytes",
                         LABEL_MAX);
    return OK;
}

/* core ends what was minted while its session or application ended. Here is
 * the moment before core knew of the mint. */
static void end_if_dead(struct call *c, const struct mint_request *m,
                        bool held)
{
    struct application *a = *c->application;
    if ((m->bound || held) && application_dead(c->daemon->applications, a))
        core_end_session(c->daemon->core, a->hash, 0);
}

enum code handle_mint(struct call *c, const struct arguments *a, json_t **out,
                      struct error *e)
{
    uint8_t id[CKA_ID_MAX];
    size_t id_len = 0;
    enum code rc = ttl_of(a, e);
    if (rc == OK)
        rc = check_label(a, e);
    if (rc == OK)
        rc = cka_id_of(a, id, &id_len, e);
    if (rc)
        return rc;
    if (a->session < 0)
        return error_set(e, ERR_INVALID, "session: has to be 0 or positive");
    bool held = false;
    const struct mint_request m = {
        .held = &held,
        .org = handler_org(a),
        .role = a->role,
        .ttl_s = a->ttl,
        .session = a->bound ? a->session : 0,
        .bound = a->bound,
        .reuse = a->reuse,
        .label = a->label,
        .cka_id = id_len ? id : NULL,
        .cka_id_len = id_len,
        .request_id = a->request_id,
    };
    CLEANUP(store_lease_clear) struct store_lease lease = {.role = NULL};
    SECRET key = NULL;
    JSON warnings = NULL;
    struct caller by = handler_caller(c);
    if (m.bound)
        application_bind(c->daemon->applications, *c->application, true);
    rc = core_mint(c->daemon->core, &by, &m, &lease, &key, &warnings, e);
    if (m.bound && rc == ERR_DENIED)
        application_bind(c->daemon->applications, *c->application, false);
    if (held) /* core is told of its end */
        application_bind(c->daemon->applications, *c->application, true);
    end_if_dead(c, &m, held);
    if (rc == OK && key)
        rc = secret_to_pipe(key, &c->fd_out, e);
    if (rc == OK)
        rc = lease_reply(c, out, &lease, e);
    if (rc)
        return rc;
    if (!warnings)
        warnings = json_array();
    if (json_object_set(*out, "warnings", warnings) < 0)
        return error_set(e, ERR_NOMEM, "reply to Mint");
    return OK;
}

enum code handle_renew(struct call *c, const struct arguments *a, json_t **out,
                       struct error *e)
{
    CLEANUP(store_lease_clear) struct store_lease lease = {.role = NULL};
    struct caller by = handler_caller(c);
    enum code rc = ttl_of(a, e);
    if (rc == OK)
        rc = core_renew(c->daemon->core, &by, a->lease_id, a->ttl,
                        a->request_id, &lease, e);
    return rc ? rc : lease_reply(c, out, &lease, e);
}

enum code handle_get_lease(struct call *c, const struct arguments *a,
                           json_t **out, struct error *e)
{
    CLEANUP(store_lease_clear) struct store_lease lease = {.role = NULL};
    struct caller by = handler_caller(c);
    enum code rc = core_lease_get(c->daemon->core, &by, a->lease_id, &lease, e);
    return rc ? rc : lease_reply(c, out, &lease, e);
}

struct page {
    struct core *core;
    json_t *leases;
    size_t limit;
    bool more;
};

static enum code add_lease(const struct store_lease *l, void *ctx,
                           struct error *e)
{
    struct page *p = ctx;
    if (json_array_size(p->leases) == p->limit) {
        p->more = true;
        return OK;
    }
    if (json_array_append_new(p->leases, core_lease_json(p->core, l)) < 0)
        return error_set(e, ERR_NOMEM, "list of leases");
    return OK;
}

static enum code org_id(struct call *c, const char *name, int64_t *id,
                        struct error *e)
{
    CLEANUP(store_org_clear) struct store_org o = {.name = NULL};
    enum code rc = store_org_get(c->daemon->store, name, &o, e);
    *id = o.id;
    return rc;
}

enum code handle_list_leases(struct call *c, const struct arguments *a,
                             json_t **out, struct error *e)
{
    if (a->before && !text_is_id(a->before))
        return error_set(e, ERR_INVALID, "before: has to be a lease_id");
    if (a->given[PARAM_LIMIT] && a->limit <= 0)
        return error_set(e, ERR_INVALID, "limit: has to be positive");
    struct caller by = handler_caller(c);
    struct page page = {.core = c->daemon->core,
                        .limit = a->given[PARAM_LIMIT] && a->limit < PAGE
                                     ? (size_t)a->limit
                                     : PAGE};
    struct store_lease_query q = {
        .owner = a->all ? NULL : c->owner,
        .role = a->role,
        .before = a->before,
        .live_only = a->live,
        .limit = (int)page.limit + 1,
    };
    enum code rc = org_id(c, handler_org(a), &q.org, e);
    if (rc)
        return rc;
    JSON leases = page.leases = json_array();
    if (!leases)
        return error_set(e, ERR_NOMEM, "list of leases");
    rc = core_lease_each(c->daemon->core, &by, &q, add_lease, &page, e);
    if (rc)
        return rc;
    *out = json_pack("{s:O, s:b}", "leases", leases, "more", page.more);
    return *out ? OK : error_set(e, ERR_NOMEM, "list of leases");
}

enum code handle_read_key(struct call *c, const struct arguments *a,
                          json_t **out, struct error *e)
{
    (void)out;
    SECRET value = NULL;
    struct caller by = handler_caller(c);
    enum code rc =
        core_lease_value(c->daemon->core, &by, a->lease_id, &value, e);
    return rc ? rc : secret_to_pipe(value, &c->fd_out, e);
}

enum code handle_label_lease(struct call *c, const struct arguments *a,
                             json_t **out, struct error *e)
{
    (void)out;
    uint8_t id[CKA_ID_MAX];
    size_t id_len = 0;
    enum code rc = check_label(a, e);
    if (rc == OK)
        rc = cka_id_of(a, id, &id_len, e);
    if (rc)
        return rc;
    struct caller by = handler_caller(c);
    return core_lease_label(c->daemon->core, &by, a->lease_id, a->label,
                            id_len ? id : NULL, id_len, e);
}
