#include "config.h"

#include "tools/method.h"

#include "common/clock.h"
#include "common/file.h"
#include "common/log.h"
#include "common/text.h"
#include "module/core/permit.h"
#include "tools/handler.h"

#include <stddef.h>
#include <stdio.h>
#include <string.h>

#define INTERFACE "org.hsmint"
#define PREFIX INTERFACE "."
#define JOURNAL_NAME_MAX 128 /* of a method and an organisation */

/* ---- the tables ---- */

#define ARG(param, name, kind)                                                 \
    [PARAM_##param] = {#name, kind, offsetof(struct arguments, name)}
static const struct {
    const char *name;
    enum json_kind kind;
    size_t offset;
} params[METHOD_PARAMS] = {
    ARG(VERSION, version, FIELD_INT),
    ARG(PROGRAM, program, FIELD_STRING),
    ARG(TOKEN, token, FIELD_STRING),
    ARG(SO, so, FIELD_BOOL),
    ARG(FORCE, force, FIELD_BOOL),
    ARG(SESSION, session, FIELD_INT),
    ARG(ORG, org, FIELD_STRING),
    ARG(REQUEST_ID, request_id, FIELD_STRING),
    ARG(FIELDS, fields, FIELD_OBJECT),
    ARG(NAME, name, FIELD_STRING),
    ARG(ROLE, role, FIELD_STRING),
    ARG(TTL, ttl, FIELD_INT),
    ARG(BOUND, bound, FIELD_BOOL),
    ARG(REUSE, reuse, FIELD_BOOL),
    ARG(LABEL, label, FIELD_STRING),
    ARG(ID, id, FIELD_STRING),
    ARG(LEASE_ID, lease_id, FIELD_STRING),
    ARG(ALL, all, FIELD_BOOL),
    ARG(LIVE, live, FIELD_BOOL),
    ARG(BEFORE, before, FIELD_STRING),
    ARG(LIMIT, limit, FIELD_INT),
    ARG(INTERFACE, interface, FIELD_STRING),
    ARG(COUNT, count, FIELD_INT),
    ARG(KIND, kind, FIELD_STRING),
    ARG(WHO, who, FIELD_OBJECT),
    ARG(CAPABILITY, capability, FIELD_STRING),
    ARG(FROM, from, FIELD_INT),
    ARG(TO, to, FIELD_INT),
    ARG(SIZE, size, FIELD_INT),
    ARG(SEQ, seq, FIELD_INT),
    ARG(SIGN, sign, FIELD_BOOL),
    ARG(OWNER, owner, FIELD_STRING),
    ARG(SINCE_MS, since_ms, FIELD_INT),
    ARG(UNTIL_MS, until_ms, FIELD_INT),
    ARG(REQUEST, request, FIELD_STRING),
    ARG(REASON, reason, FIELD_STRING),
    ARG(DRY_RUN, dry_run, FIELD_BOOL),
    ARG(AUDIT, audit, FIELD_BOOL),
    ARG(ADOPT, adopt, FIELD_BOOL),
    ARG(PREFIX, prefix, FIELD_STRING),
    ARG(PROJECT, project, FIELD_STRING),
    ARG(REVOKE, revoke, FIELD_BOOL),
    ARG(RECOVER, recover, FIELD_BOOL),
    ARG(KEEP_FIRST, keep_first, FIELD_BOOL),
    ARG(OLD, old, FIELD_STRING),
    ARG(COMPROMISED, compromised, FIELD_BOOL),
    ARG(CHECKPOINT, checkpoint, FIELD_STRING),
    ARG(ABANDON, abandon, FIELD_BOOL),
};

static const char *const kinds[] = {
    [FIELD_STRING] = "string",
    [FIELD_INT] = "int",
    [FIELD_BOOL] = "bool",
    [FIELD_OBJECT] = "object",
};

static enum code get_info(struct call *c, const struct arguments *a,
                          json_t **out, struct error *e);
static enum code get_description(struct call *c, const struct arguments *a,
                                 json_t **out, struct error *e);

#define P(param) (UINT64_C(1) << PARAM_##param)
#define CHANGE P(REQUEST_ID)
#define CAP(name) CAPABILITY_BIT(CAP_##name)
#define LEASE(own, any) METHOD_LEASE, CAP(own) | CAP(any)
const struct method method_table[] = {
    {"Attach", handle_attach, P(VERSION) | P(PROGRAM), P(TOKEN),
     METHOD_OPEN | METHOD_ANYBODY, 0},
    /* `so`, `force` and the HSM's PIN need administer. */
    {"Login", handle_login, 0, P(SO) | P(FORCE) | P(NAME) | P(KIND),
     METHOD_FD | METHOD_ANYBODY, 0},
    {"Logout", handle_logout, 0, 0, METHOD_ANYBODY, 0},
    {"CreateLogin", handle_create_login, P(NAME) | P(FIELDS) | CHANGE, 0,
     METHOD_DAEMON, CAP(ADMINISTER)},
    {"RotateLogin", handle_rotate_login, P(NAME) | P(FIELDS) | CHANGE, 0,
     METHOD_DAEMON, CAP(ADMINISTER)},
    {"GetLogin", handle_get_login, P(NAME), 0, METHOD_DAEMON, CAP(ADMINISTER)},
    {"ListLogins", handle_list_logins, 0, 0, METHOD_DAEMON, CAP(ADMINISTER)},
    {"DeleteLogin", handle_delete_login, P(NAME) | CHANGE, 0,
     METHOD_DAEMON | METHOD_JOURNAL, CAP(ADMINISTER)},
    {"Lock", handle_lock, 0, 0, METHOD_DAEMON, CAP(ADMINISTER)},
    {"Stop", handle_stop, 0, P(FORCE), METHOD_DAEMON, CAP(ADMINISTER)},
    {"Status", handle_status, 0, 0, METHOD_DAEMON, CAP(STATUS)},
    {"Hsm", handle_hsm, 0, 0, METHOD_DAEMON, CAP(STATUS)},
    {"CheckService", handle_check_service, 0, P(ORG), METHOD_DAEMON,
     CAP(STATUS)},
    {"Metrics", handle_metrics, 0, 0, METHOD_DAEMON, CAP(STATUS)},
    {"Slots", handle_slots, 0, 0, METHOD_ANYBODY, 0},
    {"AuditKeys", handle_audit_keys, 0, 0, METHOD_ANYBODY, 0},
    {"Random", handle_random, P(COUNT), 0, METHOD_DAEMON, CAPABILITY_ALL},
    {"EndSession", handle_end_session, P(SESSION), 0, METHOD_ANYBODY, 0},
    {"Init", handle_init, CHANGE, P(ORG) | P(RECOVER), METHOD_JOURNAL, CAP(ADMINISTER)},
    {"SetConfig", handle_set_config, P(FIELDS) | CHANGE,
     P(ORG) | P(KEEP_FIRST) | P(OLD), METHOD_FD | METHOD_JOURNAL,
     CAP(ADMINISTER)},
    {"GetConfig", handle_get_config, 0, P(ORG), 0,
     CAP(ADMINISTER) | CAP(STATUS)},
    {"RotateConfig", handle_rotate_config, CHANGE, P(ORG) | P(COMPROMISED),
     METHOD_JOURNAL, CAP(ROTATE)},
    {"RotateHsm", handle_rotate_hsm, P(NAME) | CHANGE, P(ABANDON),
     METHOD_JOURNAL | METHOD_DAEMON, CAP(ADMINISTER)},
    {"CompromisedHsmKey", handle_compromised_hsm_key, P(NAME) | CHANGE, 0,
     METHOD_JOURNAL | METHOD_DAEMON, CAP(ADMINISTER)},
    {"DestroyHsmKey", handle_destroy_hsm_key, P(NAME) | CHANGE, 0,
     METHOD_JOURNAL | METHOD_DAEMON, CAP(ADMINISTER)},
    /* No journal: asked for again, it is another statement. */
    {"Ceremony", handle_ceremony, P(FIELDS), 0, METHOD_DAEMON,
     CAP(ADMINISTER)},
    {"RestoreHsm", handle_restore_hsm, CHANGE, P(REASON) | P(DRY_RUN),
     METHOD_FD | METHOD_JOURNAL | METHOD_DAEMON, CAP(ADMINISTER)},
    {"GetRecovery", handle_get_recovery, 0, 0, METHOD_DAEMON,
     CAP(ADMINISTER)},
    {"DeleteConfig", handle_delete_config, CHANGE, P(ORG) | P(REVOKE),
     METHOD_JOURNAL,
     CAP(ADMINISTER)},
    {"SetRole", handle_set_role, P(NAME) | P(FIELDS) | CHANGE, P(ORG),
     METHOD_JOURNAL, CAP(ADMINISTER)},
    {"GetRole", handle_get_role, P(NAME), P(ORG), METHOD_ROLE,
     CAPABILITY_ROLE_SHOWN},
    {"ListRoles", handle_list_roles, 0, P(ORG), 0, 0}, /* what may be seen */
    {"DeleteRole", handle_delete_role, P(NAME) | CHANGE, P(ORG) | P(REVOKE),
     METHOD_JOURNAL, CAP(ADMINISTER)},
    {"Mint", handle_mint, CHANGE,
     P(ORG) | P(ROLE) | P(TTL) | P(BOUND) | P(SESSION) | P(REUSE) | P(LABEL) |
         P(ID),
     LEASE(MINT, MINT)},
    {"Renew", handle_renew, P(LEASE_ID) | CHANGE, P(TTL), LEASE(RENEW, RENEW)},
    {"Revoke", handle_revoke, P(LEASE_ID) | CHANGE, 0,
     LEASE(REVOKE_OWN, REVOKE_ANY)},
    {"RevokeMany", handle_revoke_many, CHANGE,
     P(ORG) | P(ROLE) | P(OWNER) | P(PREFIX) | P(PROJECT) | P(REASON) |
         P(DRY_RUN),
     LEASE(REVOKE_OWN, REVOKE_ANY)},
    {"RevokeAll", handle_revoke_all, CHANGE, P(REASON) | P(DRY_RUN),
     METHOD_DAEMON | METHOD_JOURNAL, CAP(ADMINISTER)},
    {"RevokeAllStatus", handle_revoke_all_status, 0, 0, METHOD_DAEMON,
     CAP(ADMINISTER) | CAP(STATUS)},
    {"GetLease", handle_get_lease, P(LEASE_ID), 0, LEASE(LIST_OWN, LIST_ANY)},
    {"ListLeases", handle_list_leases, 0,
     P(ORG) | P(ROLE) | P(ALL) | P(LIVE) | P(BEFORE) | P(LIMIT),
     LEASE(LIST_OWN, LIST_ANY)},
    {"ReadKey", handle_read_key, P(LEASE_ID), 0, LEASE(READ, READ)},
    {"LabelLease", handle_label_lease, P(LEASE_ID), P(LABEL) | P(ID),
     LEASE(MINT, MINT)},
    /* All organisations where none is named. */
    {"Reconcile", handle_reconcile, CHANGE,
     P(ORG) | P(DRY_RUN) | P(AUDIT) | P(SINCE_MS) | P(ADOPT) | P(REVOKE) |
         P(TTL),
     METHOD_DAEMON | METHOD_JOURNAL, CAP(ADMINISTER)},
    {"ReconcileStatus", handle_reconcile_status, 0, 0, METHOD_DAEMON,
     CAP(ADMINISTER) | CAP(AUDIT)},
    {"Backup", handle_backup, 0, 0, METHOD_DAEMON, CAP(ADMINISTER)},
    {"WhoAmI", handle_who_am_i, 0, 0, 0, 0},
    {"SetPolicy", handle_set_policy, P(NAME) | P(FIELDS) | CHANGE, 0,
     METHOD_JOURNAL | METHOD_DAEMON, CAP(ADMINISTER)},
    {"GetPolicy", handle_get_policy, P(NAME), 0, METHOD_DAEMON,
     CAP(ADMINISTER) | CAP(AUDIT)},
    {"ListPolicies", handle_list_policies, 0, 0, METHOD_DAEMON,
     CAP(ADMINISTER) | CAP(AUDIT)},
    {"DeletePolicy", handle_delete_policy, P(NAME) | CHANGE, 0,
     METHOD_JOURNAL | METHOD_DAEMON, CAP(ADMINISTER)},
    {"TestPolicy", handle_test_policy, P(WHO),
     P(ORG) | P(ROLE) | P(CAPABILITY) | P(TTL), METHOD_DAEMON,
     CAP(ADMINISTER) | CAP(AUDIT)},
    {"Records", handle_records, 0,
     P(FROM) | P(LIMIT) | P(LEASE_ID) | P(ROLE) | P(OWNER) | P(KIND) |
         P(SINCE_MS) | P(UNTIL_MS) | P(REQUEST),
     METHOD_DAEMON, CAP(AUDIT)},
    {"LogHead", handle_log_head, 0, P(SIGN), METHOD_DAEMON, CAP(AUDIT)},
    {"LogProof", handle_log_proof, P(SEQ), P(SIZE), METHOD_DAEMON, CAP(AUDIT)},
    {"LogConsistency", handle_log_consistency, P(FROM) | P(TO), 0,
     METHOD_DAEMON, CAP(AUDIT)},
    {"MarkExported", handle_mark_exported, P(SIZE) | CHANGE, P(REASON),
     METHOD_JOURNAL | METHOD_DAEMON, CAP(AUDIT)},
    {"PruneLog", handle_prune_log, P(SIZE) | CHANGE, P(CHECKPOINT),
     METHOD_JOURNAL | METHOD_DAEMON, CAP(ADMINISTER)},
    {"AcceptRollback", handle_accept_rollback, P(REASON) | CHANGE, 0,
     METHOD_JOURNAL | METHOD_DAEMON, CAP(ADMINISTER)},
    {"Whose", handle_whose, 0, 0, METHOD_FD | METHOD_DAEMON, CAP(AUDIT)},
    {"org.varlink.service.GetInfo", get_info, 0, 0,
     METHOD_OPEN | METHOD_ANYBODY, 0},
    {"org.varlink.service.GetInterfaceDescription", get_description,
     P(INTERFACE), 0, METHOD_OPEN | METHOD_ANYBODY, 0},
};
_Static_assert(METHOD_PARAMS <= 64, "one bit each");
const size_t method_count = sizeof method_table / sizeof method_table[0];

const char *method_param_name(enum method_param p)
{
    return params[p].name;
}

const char *method_param_type(enum method_param p)
{
    return kinds[params[p].kind];
}

/* ---- org.varlink.service ---- */

static enum code get_info(struct call *c, const struct arguments *a,
                          json_t **out, struct error *e)
{
    (void)c, (void)a;
    *out = json_pack("{s:s, s:s, s:s, s:s, s:[s, s]}", "vendor", "hsmint",
                     "product", "hsmintd", "version", PACKAGE_VERSION, "url",
                     "", "interfaces", "org.varlink.service", INTERFACE);
    return *out ? OK : error_set(e, ERR_NOMEM, "reply to GetInfo");
}

static enum code get_description(struct call *c, const struct arguments *a,
                                 json_t **out, struct error *e)
{
    (void)c;
    if (strcmp(a->interface, INTERFACE))
        return error_set(e, ERR_NOT_FOUND,
                         "no interface %s here, only " INTERFACE, a->interface);
    *out = json_pack("{s:s}", "description", method_interface);
    return *out ? OK : error_set(e, ERR_NOMEM, "description of " INTERFACE);
}

/* ---- one request ---- */

static const struct method *find_method(const char *name)
{
    if (!strncmp(name, PREFIX, strlen(PREFIX)))
        name += strlen(PREFIX);
    else if (!strchr(name, '.'))
        return NULL;
    for (size_t i = 0; i < method_count; i++)
        if (!strcmp(method_table[i].name, name))
            return &method_table[i];
    return NULL;
}

static enum code decode(const struct method *m, json_t *parameters,
                        struct arguments *a, struct error *e)
{
    struct json_field fields[METHOD_PARAMS];
    size_t n = 0;
    *a = (struct arguments){.version = 0};
    for (unsigned p = 0; p < METHOD_PARAMS; p++) {
        bool required = m->required >> p & 1;
        if (!required && !(m->optional >> p & 1))
            continue;
        fields[n++] = (struct json_field){
            .name = params[p].name,
            .kind = params[p].kind,
            .required = required,
            .out = (char *)a + params[p].offset,
            .present = &a->given[p],
        };
    }
    JSON none = NULL;
    if (!parameters)
        parameters = none = json_object();
    enum code rc = json_decode(parameters, fields, n, false, m->name, e);
    if (rc == OK && a->request_id && !text_is_id(a->request_id))
        rc = error_set(e, ERR_INVALID,
                       "%s: request_id: has to be %d characters, as of a ULID",
                       m->name, TEXT_ID_LEN);
    return rc;
}

static enum code permit(const struct method *m, const struct call *c,
                        struct error *e)
{
    struct application *a = *c->application;
    if (!(m->flags & METHOD_OPEN) && !a)
        return error_set(e, ERR_PROTOCOL, "%s before Attach", m->name);
    if (a && application_dead(c->daemon->applications, a))
        return error_set(e, ERR_DENIED,
                         "%s: the process that attached has ended", m->name);
    if (c->fd_in >= 0 && !(m->flags & METHOD_FD))
        return error_set(e, ERR_INVALID, "%s takes no descriptor", m->name);
    return OK;
}

struct person { /* the peer, with the login that its application has */
    struct identity id; /* shares what the connection's owns */
    char owner[IDENTITY_OWNER_MAX];
};

/* From here on the call is made by `p`, or not at all: never silently by the
 * uid that a lost login has beside it. */
static enum code take_login(const struct method *m, struct call *c,
                            struct person *p, struct error *e)
{
    struct core_login login;
    if (!*c->application)
        return OK;
    application_login(c->daemon->applications, *c->application, &login);
    if (!login.name[0])
        return OK;
    p->id = *c->id;
    strcpy(p->id.login, login.name);
    identity_owner(&p->id, p->owner);
    c->id = &p->id;
    c->owner = p->owner;
    return m->flags & METHOD_ANYBODY
               ? OK
               : core_login_alive(c->daemon->core, &login, e);
}

/* Before the journal, so that a kept answer is for those who may still ask. */
static enum code authorise(const struct method *m, const struct call *c,
                           const struct arguments *a, struct error *e)
{
    if (!m->needs || m->flags & METHOD_LEASE)
        return OK;
    struct caller by = handler_caller(c);
    return core_permit_any(c->daemon->core, &by, m->needs,
                           m->flags & METHOD_DAEMON ? NULL : handler_org(a),
                           m->flags & METHOD_ROLE ? a->name : NULL, e);
}

/* ---- answers that are kept for retries ---- */

/* "SetRole default": what was decided about one organisation is no answer
 * about another. */
static void journal_name(const struct method *m, const struct arguments *a,
                         char name[JOURNAL_NAME_MAX])
{
    bool whole = m->flags & METHOD_DAEMON;
    snprintf(name, JOURNAL_NAME_MAX, "%s%s%s", m->name, whole ? "" : " ",
             whole ? "" : handler_org(a));
}

static enum code journaled(const char *name, const struct call *c,
                           const char *request_id, json_t **out,
                           struct error *e)
{
    FREE char *method = NULL;
    FREE char *result = NULL;
    enum code rc = store_journal_get(c->daemon->store, c->owner, request_id,
                                     &method, &result, e);
    if (rc)
        return rc;
    if (strcmp(method, name))
        return error_set(e, ERR_INVALID,
                         "request_id %s was used for %s, and cannot be for %s",
                         request_id, method, name);
    return json_parse(result, strlen(result), "journaled answer", out, e);
}

struct journal_entry {
    const struct call *call;
    const char *method, *request_id, *result;
};

static enum code put_journal(struct store_tx *tx, void *ctx, struct error *e)
{
    const struct journal_entry *j = ctx;
    return store_journal_put(tx, j->call->owner, j->request_id, j->method,
                             j->result, clock_wall_ms(), e);
}

/* What was done stays done if this fails: these methods may be repeated. */
static void keep_answer(const char *name, const struct call *c,
                        const char *request_id, const json_t *out)
{
    struct error e = {.code = OK};
    FREE char *text = out ? json_text(out, JSON_COMPACT) : strdup("{}");
    struct journal_entry j = {c, name, request_id, text};
    enum code rc =
        text ? store_commit(c->daemon->store, STORE_NORMAL, put_journal, &j, &e)
             : error_set(&e, ERR_NOMEM, "no memory for an answer");
    if (rc)
        log_failure(&e, "%s: keep the answer for a retry", name);
}

static enum code run(const struct method *m, struct call *c,
                     const struct arguments *a, json_t **out, struct error *e)
{
    if (!(m->flags & METHOD_JOURNAL))
        return m->call(c, a, out, e);
    char name[JOURNAL_NAME_MAX];
    journal_name(m, a, name);
    enum code rc = journaled(name, c, a->request_id, out, e);
    if (rc != ERR_NOT_FOUND)
        return rc;
    error_clear(e);
    rc = m->call(c, a, out, e);
    if (rc == OK)
        keep_answer(name, c, a->request_id, *out);
    return rc;
}

/* ---- replies ---- */

static json_t *service_error(const char *name, const char *key,
                             const char *value)
{
    return json_pack("{s:s+, s:{s:s}}", "error", "org.varlink.service.", name,
                     "parameters", key, value);
}

/* By what the method needs: the caller's own words are no label. */
static void count_refusal(const struct method *m, const struct call *c,
                          enum code rc)
{
    static const struct {
        enum code code;
        const char *reason;
    } reasons[] = {
        {ERR_DENIED, "policy"},        {ERR_LIMIT, "limit"},
        {ERR_NOT_LOGGED_IN, "login"},  {ERR_PIN_WRONG, "login"},
        {ERR_PIN_HELD, "login"},       {ERR_PIN_LOCKED, "login"},
    };
    for (size_t i = 0; i < sizeof reasons / sizeof reasons[0]; i++)
        if (reasons[i].code == rc)
            core_count_refusal(c->daemon->core, m->needs, reasons[i].reason);
}

static json_t *answer(const struct method *m, struct call *c,
                      json_t *parameters)
{
    struct error e = {.code = OK};
    struct arguments a;
    struct person person;
    JSON out = NULL;
    enum code rc = permit(m, c, &e);
    if (rc == OK)
        rc = take_login(m, c, &person, &e);
    if (rc == OK)
        rc = decode(m, parameters, &a, &e);
    if (rc == OK)
        rc = authorise(m, c, &a, &e);
    if (rc == OK)
        rc = run(m, c, &a, &out, &e);
    /* PINs and keys may have passed through this thread. */
    secret_clear_registers();
    if (rc == OK)
        return wire_reply(out ? json_incref(out) : json_object());
    fd_closep(&c->fd_out);
    c->fd_out = -1;
    count_refusal(m, c, rc);
    log_debug("%s for %s, process %d: %s: %s", m->name, c->owner,
              (int)c->peer->pid, error_name(rc), e.text);
    return wire_error_reply(&e);
}

json_t *method_answer(struct call *c, json_t *message)
{
    struct error e = {.code = OK};
    const char *name = NULL;
    json_t *parameters = NULL;
    if (wire_parse_request(message, &name, &parameters, &e))
        return wire_error_reply(&e);
    const struct method *m = find_method(name);
    if (!m) {
        char shown[128]; /* as long as it may be, the reply has bounds */
        text_escape(shown, sizeof shown, name, strlen(name));
        return service_error("MethodNotFound", "method", shown);
    }
    return answer(m, c, parameters);
}
