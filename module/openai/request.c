#include "config.h"

#include "module/openai/openai.h"

#include "common/file.h"
#include "common/json.h"
#include "common/text.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define EXPIRES_MAX_S 31536000 /* the service takes no longer one */
#define NAME_MAX_BYTES 512     /* the service's own limit is unpublished */
#define CURSOR_MAX_BYTES 512
#define PAGE "limit=100"
#define PROJECTS "/organization/projects"
#define ADMIN_KEYS "/organization/admin_api_keys"

void openai_request_clear(struct openai_request *r)
{
    free(r->path);
    free(r->body);
    *r = (struct openai_request){0};
}

PRINTF(4, 5)
static enum code set(struct openai_request *r, const char *method,
                     struct error *e, const char *fmt, ...)
{
    va_list ap;
    char *path = NULL;
    va_start(ap, fmt);
    int n = vasprintf(&path, fmt, ap);
    va_end(ap);
    *r = (struct openai_request){.method = method};
    if (n < 0)
        return error_set(e, ERR_NOMEM, "%s: out of memory", method);
    r->path = path;
    return OK;
}

/* Takes `body`, which is NULL when Jansson had no memory for it. */
static enum code set_body(struct openai_request *r, json_t *body,
                          struct error *e)
{
    r->body = json_text(body, JSON_COMPACT);
    json_decref(body);
    if (r->body)
        return OK;
    openai_request_clear(r);
    return error_set(e, ERR_NOMEM, "request: out of memory");
}

static enum code check_name(const char *what, const char *name, struct error *e)
{
    size_t len = name ? strlen(name) : 0;
    if (!len || len > NAME_MAX_BYTES)
        return error_set(e, ERR_INVALID, "%s: a name has 1 to %d bytes", what,
                         NAME_MAX_BYTES);
    if (!text_utf8_valid(name, len))
        return error_set(e, ERR_INVALID, "%s: the name is not UTF-8", what);
    for (const char *c = name; *c; c++)
        if (iscntrl((unsigned char)*c))
            return error_set(e, ERR_INVALID,
                             "%s \"%s\": control characters in the name", what,
                             name);
    return OK;
}

static enum code check_expiry(int64_t expires_s, struct error *e)
{
    if (expires_s >= 0 && expires_s <= EXPIRES_MAX_S)
        return OK;
    return error_set(e, ERR_INVALID,
                     "an expiry of %" PRId64 " seconds: the service takes 1 "
                     "to %d",
                     expires_s, EXPIRES_MAX_S);
}

static bool add(json_t *body, const char *name, json_t *value)
{
    return json_object_set_new(body, name, value) == 0;
}

/* {"name"?, "role"?, "expires_in_seconds"?}; NULL without memory. */
static json_t *body_of(const char *name, const char *role, int64_t expires_s)
{
    JSON body = json_object();
    if (!body || (name && !add(body, "name", json_string(name))) ||
        (role && !add(body, "role", json_string(role))) ||
        (expires_s &&
         !add(body, "expires_in_seconds", json_integer(expires_s))))
        return NULL;
    return json_incref(body);
}

/* "?limit=100[&more][&after=…]"; a cursor is opaque, hence escaped. */
static enum code query_of(char **query, const char *more, const char *after,
                          struct error *e)
{
    char escaped[3 * CURSOR_MAX_BYTES + 1] = "";
    size_t n = 0, len = after ? strlen(after) : 0;
    if (after && (!len || len > CURSOR_MAX_BYTES))
        return error_set(e, ERR_SERVICE_REPLY,
                         "a cursor of %zu bytes: 1 to %d are taken", len,
                         CURSOR_MAX_BYTES);
    for (size_t i = 0; i < len; i++) {
        unsigned char c = (unsigned char)after[i];
        bool plain = c < 0x80 && (isalnum(c) || strchr("-._~", c));
        n += (size_t)snprintf(escaped + n, sizeof escaped - n,
                              plain ? "%c" : "%%%02X", c);
    }
    if (asprintf(query, "?" PAGE "%s%s%s", more, after ? "&after=" : "",
                 escaped) >= 0)
        return OK;
    *query = NULL;
    return error_set(e, ERR_NOMEM, "request: out of memory");
}

static enum code list(struct openai_request *r, const char *path,
                      const char *more, const char *after, struct error *e)
{
    FREE char *query = NULL;
    enum code rc = query_of(&query, more, after, e);
    return rc ? rc : set(r, "GET", e, "%s%s", path, query);
}

static enum code list_in(struct openai_request *r, const char *project,
                         const char *what, const char *more, const char *after,
                         struct error *e)
{
    char path[256];
    enum code rc = text_check_service_id("project", project, e);
    if (rc)
        return rc;
    snprintf(path, sizeof path, PROJECTS "/%s/%s", project, what);
    return list(r, path, more, after, e);
}

/* One object of a project. */
static enum code one_of(struct openai_request *r, const char *method,
                        const char *project, const char *what, const char *id,
                        struct error *e)
{
    enum code rc = text_check_service_id("project", project, e);
    if (!rc)
        rc = text_check_service_id(what, id, e);
    return rc ? rc
              : set(r, method, e, PROJECTS "/%s/%ss/%s", project, what, id);
}

/* ---- projects ---- */

static enum code one_project(struct openai_request *r, const char *method,
                             const char *project, const char *rest,
                             struct error *e)
{
    enum code rc = text_check_service_id("project", project, e);
    return rc ? rc : set(r, method, e, PROJECTS "/%s%s", project, rest);
}

enum code openai_project_get(struct openai_request *r, const char *project,
                             struct error *e)
{
    return one_project(r, "GET", project, "", e);
}

enum code openai_project_list(struct openai_request *r, const char *after,
                              bool archived, struct error *e)
{
    return list(r, PROJECTS, archived ? "&include_archived=true" : "", after,
                e);
}

enum code openai_project_create(struct openai_request *r, const char *name,
                                struct error *e)
{
    enum code rc = check_name("project", name, e);
    if (!rc)
        rc = set(r, "POST", e, PROJECTS);
    return rc ? rc : set_body(r, body_of(name, NULL, 0), e);
}

enum code openai_project_update(struct openai_request *r, const char *project,
                                const char *name, struct error *e)
{
    enum code rc = check_name("project", name, e);
    if (!rc)
        rc = one_project(r, "POST", project, "", e);
    return rc ? rc : set_body(r, body_of(name, NULL, 0), e);
}

enum code openai_project_archive(struct openai_request *r, const char *project,
                                 struct error *e)
{
    return one_project(r, "POST", project, "/archive", e);
}

/* ---- service accounts ---- */

enum code openai_account_create(struct openai_request *r, const char *project,
                                const char *name, int64_t expires_s,
                                struct error *e)
{
    enum code rc = check_name("service account", name, e);
    if (!rc)
        rc = check_expiry(expires_s, e);
    if (!rc)
        rc = one_project(r, "POST", project, "/service_accounts", e);
    return rc ? rc : set_body(r, body_of(name, NULL, expires_s), e);
}

enum code openai_account_get(struct openai_request *r, const char *project,
                             const char *account, struct error *e)
{
    return one_of(r, "GET", project, "service_account", account, e);
}

enum code openai_account_list(struct openai_request *r, const char *project,
                              const char *after, struct error *e)
{
    return list_in(r, project, "service_accounts", "", after, e);
}

enum code openai_account_update(struct openai_request *r, const char *project,
                                const char *account, const char *name,
                                const char *role, struct error *e)
{
    enum code rc = name ? check_name("service account", name, e) : OK;
    if (!rc && role)
        rc = check_name("role of a service account", role, e);
    if (!rc && !name && !role)
        rc = error_set(e, ERR_INVALID,
                       "service account %s: neither name nor role to change",
                       account);
    if (!rc)
        rc = one_of(r, "POST", project, "service_account", account, e);
    return rc ? rc : set_body(r, body_of(name, role, 0), e);
}

enum code openai_account_delete(struct openai_request *r, const char *project,
                                const char *account, struct error *e)
{
    return one_of(r, "DELETE", project, "service_account", account, e);
}

enum code openai_account_key_create(struct openai_request *r,
                                    const char *project, const char *account,
                                    const char *name, int64_t expires_s,
                                    struct error *e)
{
    enum code rc = name ? check_name("key", name, e) : OK;
    if (!rc)
        rc = check_expiry(expires_s, e);
    if (!rc)
        rc = text_check_service_id("project", project, e);
    if (!rc)
        rc = text_check_service_id("service_account", account, e);
    if (!rc)
        rc = set(r, "POST", e, PROJECTS "/%s/service_accounts/%s/api_keys",
                 project, account);
    return rc ? rc : set_body(r, body_of(name, NULL, expires_s), e);
}

/* ---- keys of a project ---- */

enum code openai_project_key_list(struct openai_request *r, const char *project,
                                  const char *after, struct error *e)
{
    /* Without it, live keys may be left out. */
    return list_in(r, project, "api_keys", "&owner_project_access=any", after,
                   e);
}

enum code openai_project_key_get(struct openai_request *r, const char *project,
                                 const char *key, struct error *e)
{
    return one_of(r, "GET", project, "api_key", key, e);
}

enum code openai_project_key_update(struct openai_request *r,
                                    const char *project, const char *key,
                                    int64_t expires_s, struct error *e)
{
    enum code rc = check_expiry(expires_s, e);
    if (!rc && !expires_s)
        rc = error_set(e, ERR_INVALID, "key %s: no expiry to set", key);
    if (!rc)
        rc = one_of(r, "POST", project, "api_key", key, e);
    return rc ? rc : set_body(r, body_of(NULL, NULL, expires_s), e);
}

enum code openai_project_key_delete(struct openai_request *r,
                                    const char *project, const char *key,
                                    struct error *e)
{
    return one_of(r, "DELETE", project, "api_key", key, e);
}

/* ---- admin keys ---- */

static enum code one_admin_key(struct openai_request *r, const char *method,
                               const char *key, struct error *e)
{
    enum code rc = text_check_service_id("admin_api_key", key, e);
    return rc ? rc : set(r, method, e, ADMIN_KEYS "/%s", key);
}

enum code openai_admin_key_list(struct openai_request *r, const char *after,
                                struct error *e)
{
    return list(r, ADMIN_KEYS, "", after, e);
}

enum code openai_admin_key_get(struct openai_request *r, const char *key,
                               struct error *e)
{
    return one_admin_key(r, "GET", key, e);
}

enum code openai_admin_key_create(struct openai_request *r, const char *name,
                                  int64_t expires_s, struct error *e)
{
    enum code rc = check_name("admin key", name, e);
    if (!rc)
        rc = check_expiry(expires_s, e);
    if (!rc)
        rc = set(r, "POST", e, ADMIN_KEYS);
    return rc ? rc : set_body(r, body_of(name, NULL, expires_s), e);
}

enum code openai_admin_key_delete(struct openai_request *r, const char *key,
                                  struct error *e)
{
    return one_admin_key(r, "DELETE", key, e);
}

/* ---- the audit log ---- */

enum code openai_event_list(struct openai_request *r, int64_t since_s,
                            bool tenant, const char *after, struct error *e)
{
    char more[80];
    snprintf(more, sizeof more, "&effective_at%%5Bgte%%5D=%" PRId64 "%s",
             since_s > 0 ? since_s : 0, tenant ? "&tenant_only=true" : "");
    return list(r, "/organization/audit_logs", more, after, e);
}
