#include "config.h"

#include "module/pkcs11/hsmint.h"
#include "module/pkcs11/kinds.h"
#include "module/pkcs11/session.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define JSON_VALUE_MAX (256 * 1024)
#define CONFIG_NAME "config"

/* ---- attributes ---- */

static CK_RV read_name(const struct object *o, struct attribute_value *v)
{
    return attribute_text(v, o->name);
}

/* Unique among all of a slot: "role/NAME", "config", "last-error/HANDLE" (each
 * error is an object of its own). */
static CK_RV unique_id(struct attribute_value *v, const char *format, ...)
    PRINTF(2, 3);
static CK_RV unique_id(struct attribute_value *v, const char *format, ...)
{
    va_list ap;
    va_start(ap, format);
    int n = vsnprintf((char *)v->room.bytes, sizeof(v->room.bytes), format, ap);
    va_end(ap);
    if (n < 0 || (size_t)n >= sizeof(v->room.bytes))
        return CKR_GENERAL_ERROR;
    v->data = v->room.bytes;
    v->len = (size_t)n;
    return CKR_OK;
}

static CK_RV read_role_id(const struct object *o, struct attribute_value *v)
{
    return unique_id(v, "role/%s", o->name);
}

static CK_RV read_error_id(const struct object *o, struct attribute_value *v)
{
    return unique_id(v, "last-error/%lu", o->handle);
}

/* What is accepted whatever it says, and is what it is. */
#define DATA_FLAG(attr, is)                                                    \
    {                                                                          \
        .type = (attr), .shape = SHAPE_BOOL, .use = USE_CREATE, .fixed = (is)  \
    }
#define DATA_CLASS                                                             \
    {                                                                          \
        .type = CKA_CLASS, .shape = SHAPE_ULONG,                               \
        .use = USE_CREATE | USE_FIXED, .fixed = CKO_DATA                       \
    }
#define DATA_APPLICATION(is)                                                   \
    {                                                                          \
        .type = CKA_APPLICATION, .shape = SHAPE_TEXT,                          \
        .use = USE_CREATE | USE_FIXED | USE_NEEDED, .max = 255, .text = (is)   \
    }
#define DATA_TOKEN                                                             \
    {                                                                          \
        .type = CKA_TOKEN, .shape = SHAPE_BOOL, .use = USE_CREATE | USE_FIXED, \
        .fixed = CK_TRUE                                                       \
    }
#define DATA_OBJECT_ID                                                         \
    {                                                                          \
        .type = CKA_OBJECT_ID, .shape = SHAPE_BYTES, .use = USE_CREATE,        \
        .max = 255                                                             \
    }
#define DATA_VALUE                                                             \
    {                                                                          \
        .type = CKA_VALUE, .shape = SHAPE_TEXT,                                \
        .use = USE_CREATE | USE_MODIFY | USE_NEEDED, .max = JSON_VALUE_MAX,    \
        .member = "value"                                                      \
    }

static const struct attribute_rule role_rules[] = {
    DATA_CLASS,
    DATA_APPLICATION(HSMINT_APPLICATION_ROLE),
    DATA_TOKEN,
    {.type = CKA_LABEL,
     .shape = SHAPE_TEXT,
     .use = USE_CREATE | USE_NEEDED,
     .max = 255,
     .read = read_name},
    {.type = CKA_UNIQUE_ID, .shape = SHAPE_TEXT, .read = read_role_id},
    DATA_VALUE,
    DATA_OBJECT_ID,
    DATA_FLAG(CKA_PRIVATE, CK_TRUE),
    DATA_FLAG(CKA_MODIFIABLE, CK_TRUE),
    DATA_FLAG(CKA_COPYABLE, CK_FALSE),
    DATA_FLAG(CKA_DESTROYABLE, CK_TRUE),
};

static const struct attribute_rule config_rules[] = {
    DATA_CLASS,
    DATA_APPLICATION(HSMINT_APPLICATION_CONFIG),
    DATA_TOKEN,
    {.type = CKA_LABEL,
     .shape = SHAPE_TEXT,
     .use = USE_CREATE,
     .max = 255,
     .read = read_name},
    {.type = CKA_UNIQUE_ID, .shape = SHAPE_TEXT, .text = CONFIG_NAME},
    DATA_VALUE,
    DATA_OBJECT_ID,
    DATA_FLAG(CKA_PRIVATE, CK_TRUE),
    DATA_FLAG(CKA_MODIFIABLE, CK_TRUE),
    DATA_FLAG(CKA_COPYABLE, CK_FALSE),
    DATA_FLAG(CKA_DESTROYABLE, CK_TRUE),
};

#define ERROR_FLAG(attr, is)                                                   \
    {                                                                          \
        .type = (attr), .shape = SHAPE_BOOL, .use = USE_FIXED, .fixed = (is)   \
    }

static const struct attribute_rule last_error_rules[] = {
    {.type = CKA_CLASS,
     .shape = SHAPE_ULONG,
     .use = USE_FIXED,
     .fixed = CKO_DATA},
    {.type = CKA_APPLICATION,
     .shape = SHAPE_TEXT,
     .use = USE_FIXED,
     .max = 255,
     .text = HSMINT_APPLICATION_LAST_ERROR},
    {.type = CKA_LABEL,
     .shape = SHAPE_TEXT,
     .use = USE_FIXED,
     .max = 255,
     .text = HSMINT_APPLICATION_LAST_ERROR},
    {.type = CKA_UNIQUE_ID, .shape = SHAPE_TEXT, .read = read_error_id},
    {.type = CKA_VALUE,
     .shape = SHAPE_TEXT,
     .max = JSON_VALUE_MAX,
     .member = "value"},
    {.type = CKA_OBJECT_ID, .shape = SHAPE_BYTES, .max = 255},
    ERROR_FLAG(CKA_TOKEN, CK_FALSE),
    ERROR_FLAG(CKA_PRIVATE, CK_FALSE),
    ERROR_FLAG(CKA_MODIFIABLE, CK_FALSE),
    ERROR_FLAG(CKA_COPYABLE, CK_FALSE),
    ERROR_FLAG(CKA_DESTROYABLE, CK_FALSE),
};

/* ---- the daemon's roles and configuration ---- */

/* What the daemon tells beside what can be written: the object's value is what
 * may be written back. */
static void drop_told(json_t *fields)
{
    static const char *const told[] = {"name",  "org",          "configured",
                                       "owner", "last_rotated", "project_name"};
    for (size_t i = 0; i < sizeof(told) / sizeof(told[0]); i++)
        json_object_del(fields, told[i]);
}

static json_t *facts_of(const json_t *fields)
{
    JSON copy = json_deep_copy(fields);
    drop_told(copy);
    FREE char *text = json_dumps(copy, JSON_INDENT(2));
    return text ? json_pack("{ss}", "value", text) : NULL;
}

/* Into the table, and into `out` when it matches. */
static CK_RV gather_data(struct call *c, const struct object_kind *kind,
                         const char *name, json_t *fields,
                         const struct template *t, struct handles *out)
{
    json_t *facts = facts_of(fields);
    if (!facts)
        return CKR_HOST_MEMORY;
    module_lock(c->in);
    struct object *o =
        object_put(module_objects(c->in), kind, c->slot, name, facts);
    bool good = o && (!attribute_matches(o, t) || handles_add(out, o->handle));
    module_unlock(c->in);
    return good ? CKR_OK : CKR_HOST_MEMORY;
}

/* What one may not see, or what is not there, is no object. */
static bool is_no_object(enum code rc)
{
    return rc == ERR_NOT_FOUND || rc == ERR_DENIED || rc == ERR_NO_ADMIN_KEY ||
           rc == ERR_CONFIG;
}

static CK_RV ask_org(struct call *c, const char *method, json_t **reply)
{
    json_t *p = module_parameters(c, true, false);
    if (!p)
        return call_error(c);
    enum code rc = module_ask(c, method, p, NULL, reply, NULL);
    if (rc && !is_no_object(rc))
        return call_error(c);
    if (rc)
        error_clear(&c->e);
    return CKR_OK;
}

static CK_RV role_gather(struct call *c, const struct template *t,
                         struct handles *out)
{
    JSON reply = NULL;
    CK_RV rv = ask_org(c, "ListRoles", &reply);
    json_t *roles = json_object_get(reply, "roles");
    for (size_t i = 0; rv == CKR_OK && i < json_array_size(roles); i++) {
        json_t *role = json_array_get(roles, i);
        const char *name = json_string_value(json_object_get(role, "name"));
        if (name && strlen(name) < OBJECT_NAME_MAX)
            rv = gather_data(c, &kind_role, name, role, t, out);
    }
    return rv;
}

static CK_RV config_gather(struct call *c, const struct template *t,
                           struct handles *out)
{
    JSON reply = NULL;
    CK_RV rv = ask_org(c, "GetConfig", &reply);
    json_t *config = json_object_get(reply, "config");
    if (rv != CKR_OK || !json_is_true(json_object_get(config, "configured")))
        return rv;
    return gather_data(c, &kind_config, CONFIG_NAME, config, t, out);
}

/* ---- writing ---- */

/* The object's JSON, without what the daemon takes by other ways. */
static CK_RV parse_value(struct call *c, const struct template *t,
                         json_t **fields)
{
    const CK_ATTRIBUTE *a = template_find(t, CKA_VALUE);
    JSON j = NULL;
    if (json_parse(a->ulValueLen ? a->pValue : "", a->ulValueLen, "CKA_VALUE",
                   &j, &c->e))
        return CKR_ATTRIBUTE_VALUE_INVALID;
    if (!json_is_object(j))
        return call_fail(c, CKR_ATTRIBUTE_VALUE_INVALID,
                         "CKA_VALUE: a JSON object is wanted");
    /* Such texts are copied by everything that they pass. */
    if (json_object_get(j, "admin_api_key"))
        return call_fail(c, CKR_ATTRIBUTE_VALUE_INVALID,
                         "admin_api_key is no part of the JSON: write it as a "
                         "secret key with the label \"%s\"",
                         HSMINT_LABEL_ADMIN_KEY);
    drop_told(j);
    *fields = json_incref(j);
    return CKR_OK;
}

/* SetRole or SetConfig; `member` of its reply is what is stored now. */
static CK_RV write_data(struct call *c, const struct object_kind *kind,
                        const char *name, const struct template *t,
                        struct handles *out)
{
    bool role = kind == &kind_role;
    JSON fields = NULL;
    CK_RV rv = parse_value(c, t, &fields);
    if (rv != CKR_OK)
        return rv;
    JSON p = module_parameters(c, true, true);
    int bad = p ? json_object_set(p, "fields", fields) : -1;
    if (role)
        bad |= json_object_set_new(p, "name", json_string(name));
    if (bad)
        return CKR_HOST_MEMORY;
    JSON reply = NULL;
    if (module_ask(c, role ? "SetRole" : "SetConfig", json_incref(p), NULL,
                   &reply, NULL))
        return call_error_no_object(c);
    const struct template any = {NULL, 0};
    return gather_data(c, kind, name,
                       json_object_get(reply, role ? "role" : "config"), &any,
                       out);
}

CK_RV data_create(struct call *c, const struct template *t,
                  CK_OBJECT_HANDLE *out)
{
    const struct object_kind *kind = NULL;
    if (template_text_is(t, CKA_APPLICATION, HSMINT_APPLICATION_ROLE))
        kind = &kind_role;
    else if (template_text_is(t, CKA_APPLICATION, HSMINT_APPLICATION_CONFIG))
        kind = &kind_config;
    if (template_text_is(t, CKA_APPLICATION, HSMINT_APPLICATION_POLICY))
        return call_fail(
            c, CKR_FUNCTION_NOT_SUPPORTED,
            "%s: policies are not supported; roles say who may mint "
            "what",
            HSMINT_APPLICATION_POLICY);
    if (!kind)
        return call_fail(c, CKR_ATTRIBUTE_VALUE_INVALID,
                         "CKA_APPLICATION says what the data are: \"%s\" or "
                         "\"%s\"",
                         HSMINT_APPLICATION_ROLE, HSMINT_APPLICATION_CONFIG);
    CK_RV rv = template_check_schema(c, t, &kind->schema, USE_CREATE, true);
    if (rv == CKR_OK)
        rv = session_need_rw(c);
    if (rv != CKR_OK)
        return rv;
    FREE char *label = template_text(t, CKA_LABEL);
    if (kind == &kind_role && text_check_name("role", label, &c->e))
        return CKR_ATTRIBUTE_VALUE_INVALID;
    CLEANUP(handles_clear) struct handles made = {0};
    rv =
        write_data(c, kind, kind == &kind_role ? label : CONFIG_NAME, t, &made);
    if (rv == CKR_OK && made.n > 0)
        *out = made.list[0];
    return rv;
}

static CK_RV data_set(struct call *c, CK_OBJECT_HANDLE h,
                      const struct template *t)
{
    char name[OBJECT_NAME_MAX];
    CK_RV rv = session_need_rw(c);
    if (rv == CKR_OK)
        rv = object_name(c, h, name);
    if (rv != CKR_OK)
        return rv;
    module_lock(c->in);
    const struct object *o = object_visible(c, h);
    const struct object_kind *kind = o ? o->kind : NULL;
    module_unlock(c->in);
    if (!kind)
        return CKR_OBJECT_HANDLE_INVALID;
    CLEANUP(handles_clear) struct handles changed = {0};
    return write_data(c, kind, name, t, &changed);
}

static CK_RV destroy(struct call *c, CK_OBJECT_HANDLE h, const char *method,
                     bool by_name)
{
    char name[OBJECT_NAME_MAX];
    CK_RV rv = session_need_rw(c);
    if (rv == CKR_OK)
        rv = object_name(c, h, name);
    if (rv != CKR_OK)
        return rv;
    JSON p = module_parameters(c, true, true);
    if (!p)
        return call_error(c);
    if (by_name && json_object_set_new(p, "name", json_string(name)))
        return CKR_HOST_MEMORY;
    if (module_ask(c, method, json_incref(p), NULL, NULL, NULL))
        return call_error(c);
    module_lock(c->in);
    object_drop(module_objects(c->in), h);
    module_unlock(c->in);
    return CKR_OK;
}

static CK_RV role_destroy(struct call *c, CK_OBJECT_HANDLE h)
{
    return destroy(c, h, "DeleteRole", true);
}

static CK_RV config_destroy(struct call *c, CK_OBJECT_HANDLE h)
{
    return destroy(c, h, "DeleteConfig", false);
}

/* ---- hsmint:last-error ---- */

static CK_RV last_error_gather(struct call *c, const struct template *t,
                               struct handles *out)
{
    module_lock(c->in);
    struct session *s = session_find(module_sessions(c->in), c->session);
    struct object *o =
        s ? object_find(module_objects(c->in), s->error_object) : NULL;
    bool good = !o || !attribute_matches(o, t) || handles_add(out, o->handle);
    module_unlock(c->in);
    return good ? CKR_OK : CKR_HOST_MEMORY;
}

const struct object_kind kind_role = {
    .schema = ATTRIBUTE_SCHEMA("role", role_rules),
    .is_private = true,
    .gather = role_gather,
    .set = data_set,
    .destroy = role_destroy,
};

const struct object_kind kind_config = {
    .schema = ATTRIBUTE_SCHEMA("configuration", config_rules),
    .is_private = true,
    .gather = config_gather,
    .set = data_set,
    .destroy = config_destroy,
};

const struct object_kind kind_last_error = {
    .schema = ATTRIBUTE_SCHEMA("last error", last_error_rules),
    .gather = last_error_gather,
};
