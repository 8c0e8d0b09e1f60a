/* ocsf - see ocsf.h. */
#include "config.h"

#include "module/audit/ocsf.h"

#include <stdio.h>
#include <string.h>

enum {
    ACCOUNT_CHANGE = 3001,
    AUTHENTICATION = 3002,
    LIFECYCLE = 6002,
    API_ACTIVITY = 6003
};
/* Activities of each class, by the schema's numbers. */
enum { API_CREATE = 1, API_READ, API_UPDATE, API_DELETE };
enum { ACCOUNT_CREATE = 1, ACCOUNT_DISABLE = 5, ACCOUNT_DELETE = 6 };
enum { LOGON = 1, LOGOFF };
enum { START = 3, STOP };
enum { OTHER = 99 };
/* Severities. */
enum { INFORMATION = 1, LOW, MEDIUM, HIGH, CRITICAL };

static const struct row {
    int class_uid, activity, severity;
} rows[RECORD_KINDS] = {
    [RECORD_START] = {LIFECYCLE, START, INFORMATION},
    [RECORD_STOP] = {LIFECYCLE, STOP, INFORMATION},
    [RECORD_KEYS] = {API_ACTIVITY, API_UPDATE, LOW},
    [RECORD_INIT] = {API_ACTIVITY, API_CREATE, LOW},
    [RECORD_CALL] = {API_ACTIVITY, OTHER, INFORMATION},
    [RECORD_OUTCOME] = {API_ACTIVITY, OTHER, INFORMATION},
    [RECORD_MINT] = {ACCOUNT_CHANGE, ACCOUNT_CREATE, INFORMATION},
    [RECORD_RELEASE] = {ACCOUNT_CHANGE, OTHER, INFORMATION},
    [RECORD_RENEW] = {ACCOUNT_CHANGE, OTHER, INFORMATION},
    [RECORD_REVOKE] = {ACCOUNT_CHANGE, ACCOUNT_DISABLE, INFORMATION},
    [RECORD_DEAD] = {ACCOUNT_CHANGE, ACCOUNT_DELETE, INFORMATION},
    [RECORD_LOGIN] = {AUTHENTICATION, LOGON, INFORMATION},
    [RECORD_LOGIN_FAILED] = {AUTHENTICATION, LOGON, MEDIUM},
    [RECORD_LOGOUT_ALL] = {AUTHENTICATION, LOGOFF, INFORMATION},
    [RECORD_REFUSAL] = {API_ACTIVITY, OTHER, LOW},
    [RECORD_CONFIG] = {API_ACTIVITY, API_UPDATE, LOW},
    [RECORD_ROLE] = {API_ACTIVITY, API_UPDATE, LOW},
    [RECORD_POLICY] = {API_ACTIVITY, API_UPDATE, LOW},
    [RECORD_LOGIN_CHANGE] = {API_ACTIVITY, API_UPDATE, LOW},
    [RECORD_SEAL] = {API_ACTIVITY, API_UPDATE, LOW},
    [RECORD_ROTATE] = {API_ACTIVITY, API_UPDATE, LOW},
    [RECORD_HSM_LOST] = {API_ACTIVITY, OTHER, HIGH},
    [RECORD_HSM_FOUND] = {API_ACTIVITY, OTHER, INFORMATION},
    [RECORD_CHECKPOINT_FAILED] = {API_ACTIVITY, OTHER, HIGH},
    [RECORD_FORCED_STOP] = {API_ACTIVITY, OTHER, CRITICAL},
    [RECORD_FORCED_END] = {API_ACTIVITY, OTHER, INFORMATION},
    [RECORD_EXPORT] = {API_ACTIVITY, API_READ, INFORMATION},
    [RECORD_VERIFY_FAILED] = {API_ACTIVITY, OTHER, HIGH},
    [RECORD_PRUNE] = {API_ACTIVITY, API_DELETE, LOW},
    [RECORD_ROLLBACK] = {API_ACTIVITY, OTHER, CRITICAL},
    [RECORD_ROLLBACK_ACCEPTED] = {API_ACTIVITY, OTHER, HIGH},
    [RECORD_PROOF] = {API_ACTIVITY, API_READ, INFORMATION},
    [RECORD_RECONCILE] = {API_ACTIVITY, OTHER, LOW},
    [RECORD_BREAK_GLASS] = {API_ACTIVITY, OTHER, CRITICAL},
    [RECORD_CLOCK] = {API_ACTIVITY, OTHER, MEDIUM},
    [RECORD_BACKUP] = {API_ACTIVITY, API_READ, LOW},
    [RECORD_RESTORE] = {API_ACTIVITY, OTHER, HIGH},
    [RECORD_ADOPT] = {API_ACTIVITY, API_UPDATE, LOW},
    [RECORD_KEY_STATE] = {API_ACTIVITY, API_UPDATE, LOW},
    [RECORD_ROTATE_KEY] = {API_ACTIVITY, API_UPDATE, LOW},
    [RECORD_CEREMONY] = {API_ACTIVITY, API_READ, LOW},
    [RECORD_ESCROW] = {API_ACTIVITY, API_READ, MEDIUM},
};

static const char *text(const json_t *object, const char *name)
{
    const char *s = json_string_value(json_object_get(object, name));
    return s ? s : "";
}

/* NULL for "": json_pack's s? writes null, s* leaves the member out. */
static const char *or_none(const char *s)
{
    return s && *s ? s : NULL;
}

static json_int_t number(const json_t *object, const char *name)
{
    return json_integer_value(json_object_get(object, name));
}

static const char *class_name(int class_uid)
{
    switch (class_uid) {
    case ACCOUNT_CHANGE:
        return "Account Change";
    case AUTHENTICATION:
        return "Authentication";
    case LIFECYCLE:
        return "Application Lifecycle";
    default:
        return "API Activity";
    }
}

/* What the kind alone does not tell. */
static int activity_of(const struct record *r)
{
    const char *action = text(r->json, "action");
    if (r->kind == RECORD_CALL)
        return strcmp(r->method, "GET") == 0      ? API_READ
               : strcmp(r->method, "POST") == 0   ? API_CREATE
               : strcmp(r->method, "DELETE") == 0 ? API_DELETE
                                                  : OTHER;
    if (rows[r->kind].activity == API_UPDATE && strcmp(action, "delete") == 0)
        return API_DELETE;
    return rows[r->kind].activity;
}

/* 0 unknown, 1 success, 2 failure. */
static int status_of(const struct record *r)
{
    json_int_t status = number(r->json, "status");
    switch (r->kind) {
    case RECORD_CALL:
        return 0;
    case RECORD_OUTCOME:
        return status >= 200 && status < 300 ? 1 : status ? 2 : 0;
    case RECORD_LOGIN_FAILED:
    case RECORD_REFUSAL:
    case RECORD_HSM_LOST:
    case RECORD_CHECKPOINT_FAILED:
    case RECORD_VERIFY_FAILED:
    case RECORD_FORCED_STOP:
    case RECORD_ROLLBACK:
        return 2;
    default:
        return 1;
    }
}

static bool is_about_hsm_key(const struct record *r)
{
    return r->kind == RECORD_KEY_STATE || r->kind == RECORD_ROTATE_KEY;
}

static int severity_of(const struct record *r)
{
    return is_about_hsm_key(r) &&
                   strcmp(text(r->json, "state"), "compromised") == 0
               ? HIGH
               : rows[r->kind].severity;
}

/* ---- parts of an event ---- */

static json_t *metadata(const struct record *r, const char *origin)
{
    return json_pack("{ss s{ss ss ss} sI ss ss*}", "version", "1.3.0",
                     "product", "name", "hsmint", "vendor_name", "hsmint",
                     "version", PACKAGE_VERSION, "sequence",
                     (json_int_t)r->seq, "original_time", r->time, "log_name",
                     or_none(origin));
}

static json_t *process(const struct record *r)
{
    const char *exe = text(r->actor, "exe"), *slash = strrchr(exe, '/');
    JSON file = *exe ? json_pack("{ss ss si}", "name", slash ? slash + 1 : exe,
                                 "path", exe, "type_id", 1)
                     : NULL;
    if (!*exe && !json_object_get(r->actor, "pid"))
        return NULL;
    return json_pack("{sI ss* so*}", "pid", number(r->actor, "pid"), "name",
                     or_none(text(r->actor, "program")), "file",
                     json_incref(file));
}

static json_t *user(const char *name, const json_t *uid, int type)
{
    char number_text[24] = "";
    if (json_is_integer(uid))
        (void)snprintf(number_text, sizeof number_text, "%lld",
                       (long long)json_integer_value(uid));
    return json_pack("{ss ss* si}", "name", name, "uid",
                     or_none(json_is_string(uid) ? json_string_value(uid)
                                                 : number_text),
                     "type_id", type);
}

static json_t *actor(const struct record *r)
{
    bool daemon = strcmp(r->owner, "hsmintd") == 0;
    return json_pack(
        "{so so* ss*}", "user",
        user(r->owner, json_object_get(r->actor, "uid"), daemon ? 3 : 1),
        "process", process(r), "app_name",
        or_none(text(r->actor, daemon ? "owner" : "unit")));
}

/* Whose account a key is: the service account, else the lease. */
static json_t *account(const struct record *r)
{
    const char *name = text(r->json, "account");
    const json_t *uid = json_object_get(r->json, "account_id");
    JSON lease = json_string(r->lease);
    return uid ? user(name, uid, 3) : user(r->lease, lease, 3);
}

static bool put_api(json_t *event, const struct record *r)
{
    char asked_for[RECORD_TEXT_MAX];
    const char *operation = r->kind == RECORD_REFUSAL
                                ? record_text(r, "capability", asked_for)
                                : record_kind_name(r->kind);
    const char *request = *r->call ? r->call
                                   : text(r->json, "service_request_id");
    json_t *response = r->kind == RECORD_OUTCOME
                           ? json_pack("{sI ss*}", "code",
                                       number(r->json, "status"), "message",
                                       or_none(text(r->json, "text")))
                           : NULL;
    json_t *asked =
        *request ? json_pack("{ss}", "uid", request) : NULL;
    json_t *api = json_pack("{ss so* so* s{ss}}", "operation",
                            *operation ? operation : "?", "request", asked,
                            "response", response, "service", "name", "hsmint");
    if (json_object_set_new(event, "api", api) ||
        json_object_set_new(event, "src_endpoint",
                            json_pack("{ss}", "svc_name", "hsmint")))
        return false;
    return r->kind != RECORD_CALL ||
           json_object_set_new(event, "http_request",
                               json_pack("{ss s{ss}}", "http_method", r->method,
                                         "url", "url_string",
                                         r->signature.target_uri)) == 0;
}

static bool put_class(json_t *event, const struct record *r)
{
    switch (rows[r->kind].class_uid) {
    case ACCOUNT_CHANGE:
        return json_object_set_new(event, "user", account(r)) == 0;
    case AUTHENTICATION:
        return json_object_set_new(
                   event, "user",
                   user(*text(r->json, "name") ? text(r->json, "name")
                                               : r->owner,
                        NULL, 1)) == 0 &&
               json_object_set_new(event, "service",
                                   json_pack("{ss}", "name", "hsmint")) == 0;
    case LIFECYCLE:
        return json_object_set_new(
                   event, "app",
                   json_pack("{ss ss ss*}", "name", "hsmint", "vendor_name",
                             "hsmint", "version",
                             or_none(text(r->json, "version")))) == 0;
    default:
        return put_api(event, r);
    }
}

/* NULL: it is about none. */
static json_t *hsm_key(const struct record *r)
{
    const char *key = text(r->json, "key");
    if (!is_about_hsm_key(r) || !*key)
        return NULL;
    return json_pack("{ss ss ss* s{ss* ss* ss* sO*}}", "type", "HSM key",
                     "name", key, "uid", or_none(text(r->json, "fingerprint")),
                     "data", "state", or_none(text(r->json, "state")), "was",
                     or_none(text(r->json, "was")), "cause",
                     or_none(text(r->json, "cause")), "handed_over",
                     json_object_get(r->json, "handed_over"));
}

/* The role, the lease or the HSM's key that it is about. */
static bool put_resources(json_t *event, const struct record *r)
{
    JSON list = json_array();
    if (*r->role && json_array_append_new(list, json_pack("{ss ss}", "type",
                                                          "role", "name",
                                                          r->role)))
        return false;
    if (*r->lease && json_array_append_new(list, json_pack("{ss ss}", "type",
                                                           "lease", "uid",
                                                           r->lease)))
        return false;
    JSON key = hsm_key(r);
    if (key && json_array_append(list, key))
        return false;
    return !json_array_size(list) ||
           json_object_set(event,
                           rows[r->kind].class_uid == API_ACTIVITY
                               ? "resources"
                               : "unmapped",
                           list) == 0;
}

enum code ocsf_event(const struct record *r, const char *line, size_t len,
                     const char *origin, json_t **out, struct error *e)
{
    const struct row *row = &rows[r->kind];
    int64_t ms = 0;
    int activity = activity_of(r);
    const char *reason = text(r->json, "reason");
    (void)record_time_ms(r->time, &ms);
    JSON event = json_pack(
        "{si si ss si sI si sI si ss* so so ss%}", "category_uid",
        row->class_uid / 1000, "class_uid", row->class_uid, "class_name",
        class_name(row->class_uid), "activity_id", activity, "type_uid",
        (json_int_t)row->class_uid * 100 + activity, "severity_id",
        severity_of(r), "time", (json_int_t)ms, "status_id", status_of(r),
        "message", or_none(*reason ? reason : text(r->json, "text")),
        "metadata", metadata(r, origin), "actor", actor(r), "raw_data", line,
        len);
    if (!event || !put_class(event, r) || !put_resources(event, r))
        return error_set(e, ERR_NOMEM, "an event");
    *out = json_incref(event);
    return OK;
}
