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

/* Unique among all of a slot: "role/NAME", "policy/NAME", "config",
 * "last-error/HANDLE" (each error is an object of its own). */
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

static CK_RV read_named_id(const struct object *o, struct attribute_value *v)
{
    return unique_id(v, "%s/%s", o->kind->schema.what, o->name);
}

/* What is in a file of the daemon's host no client changes. */
static CK_RV read_changeable(const struct object *o, struct attribute_value *v)
{
    return attribute_truth(v, !json_is_true(json_object_get(o->facts, "fixed")));
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

#define DATA_NAME                                                              \
    {                                                                          \
        .type = CKA_LABEL, .shape = SHAPE_TEXT,                                \
        .use = USE_CREATE | USE_NEEDED, .max = 255, .read = read_name          \
    }

static const struct attribute_rule role_rules[] = {
    DATA_CLASS,
    DATA_APPLICATION(HSMINT_APPLICATION_ROLE),
    DATA_TOKEN,
    DATA_NAME,
    {.type = CKA_UNIQUE_ID, .shape = SHAPE_TEXT, .read = read_named_id},
    DATA_VALUE,
    DATA_OBJECT_ID,
    DATA_FLAG(CKA_PRIVATE, CK_TRUE),
    DATA_FLAG(CKA_MODIFIABLE, CK_TRUE),
    DATA_FLAG(CKA_COPYABLE, CK_FALSE),
    DATA_FLAG(CKA_DESTROYABLE, CK_TRUE),
};

static const struct attribute_rule policy_rules[] = {
    DATA_CLASS,
    DATA_APPLICATION(HSMINT_APPLICATION_POLICY),
    DATA_TOKEN,
    DATA_NAME,
    {.type = CKA_UNIQUE_ID, .shape = SHAPE_TEXT, .read = read_named_id},
    DATA_VALUE,
    DATA_OBJECT_ID,
    DATA_FLAG(CKA_PRIVATE, CK_TRUE),
    {.type = CKA_MODIFIABLE,
     .shape = SHAPE_BOOL,
     .use = USE_CREATE,
     .read = read_changeable},
    DATA_FLAG(CKA_COPYABLE, CK_FALSE),
    {.type = CKA_DESTROYABLE,
     .shape = SHAPE_BOOL,
     .use = USE_CREATE,
     .read = read_changeable},
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

/* ---- what the daemon keeps: one row a kind ---- */

enum { ROW_ROLE, ROW_POLICY, ROW_CONFIG, ROWS };

static const struct data_row {
    const struct object_kind *kind;
    const char *application;
    const char *list, *listed; /* method, and what in its reply is all … */
    const char *set, *stored;  /* … or what is stored now, one */
    const char *delete;
    const char *name; /* of the only one; NULL: each has its label's */
} rows[ROWS] = {
    [ROW_ROLE] = {&kind_role, HSMINT_APPLICATION_ROLE, "ListRoles", "roles",
                  "SetRole", "role", "DeleteRole", NULL},
    [ROW_POLICY] = {&kind_policy, HSMINT_APPLICATION_POLICY, "ListPolicies",
                    "policies", "SetPolicy", "policy", "DeletePolicy", NULL},
    [ROW_CONFIG] = {&kind_config, HSMINT_APPLICATION_CONFIG, "GetConfig",
                    "config", "SetConfig", "config", "DeleteConfig",
                    CONFIG_NAME},
};

static const struct data_row *row_of(const struct object_kind *kind)
{
    for (size_t i = 0; i < ROWS; i++) {
        if (rows[i].kind == kind)
            return &rows[i];
    }
    return NULL;
}

/* Policies are of all organisations. */
static bool is_of_org(const struct data_row *row)
{
    return row != &rows[ROW_POLICY];
}

/* What the daemon tells beside what can be written: the object's value is what
 * may be written back. */
static void drop_told(json_t *fields)
{
    static const char *const told[] = {
        "name",         "org",    "configured", "owner", "last_rotated",
        "project_name", "source", "path",       "version", "changed_ms"};
    for (size_t i = 0; i < sizeof(told) / sizeof(told[0]); i++)
        json_object_del(fields, told[i]);
}

static json_t *facts_of(json_t *fields)
{
    const char *source = json_string_value(json_object_get(fields, "source"));
    JSON copy = json_deep_copy(fields);
    drop_told(copy);
    FREE char *text = json_text(copy, JSON_INDENT(2));
    return text ? json_pack("{ss sb}", "value", text, "fixed",
                            source && strcmp(source, "file") == 0)
                : NULL;
}

static CK_RV gather_one(struct call *c, const struct data_row *row,
                        json_t *fields, const struct template *t,
                        struct handles *out)
{
    const char *name = row->name;
    if (!name)
        name = json_string_value(json_object_get(fields, "name"));
    if (!name || strlen(name) >= OBJECT_NAME_MAX)
        return CKR_OK;
    return object_gather(c, row->kind, name, facts_of(fields), t, out);
}

/* What one may not see, or what is not there, is no object. A daemon that is
 * older than this file knows no policies. */
static bool is_no_object(const struct data_row *row, enum code rc)
{
    if (rc == ERR_PROTOCOL)
        return row == &rows[ROW_POLICY];
    return rc == ERR_NOT_FOUND || rc == ERR_DENIED || rc == ERR_NO_ADMIN_KEY ||
           rc == ERR_CONFIG;
}

static CK_RV ask_list(struct call *c, const struct data_row *row,
                      json_t **reply)
{
    json_t *p = module_parameters(c, is_of_org(row), false);
    if (!p)
        return call_error(c);
    enum code rc = module_ask(c, row->list, p, NULL, reply, NULL);
    if (rc && !is_no_object(row, rc))
        return call_error(c);
    if (rc)
        error_clear(&c->e);
    return CKR_OK;
}

static CK_RV gather(struct call *c, const struct data_row *row,
                    const struct template *t, struct handles *out)
{
    JSON reply = NULL;
    CK_RV rv = ask_list(c, row, &reply);
    json_t *listed = json_object_get(reply, row->listed);
    if (rv == CKR_OK && json_is_true(json_object_get(listed, "configured")))
        return gather_one(c, row, listed, t, out);
    for (size_t i = 0; rv == CKR_OK && i < json_array_size(listed); i++)
        rv = gather_one(c, row, json_array_get(listed, i), t, out);
    return rv;
}

static CK_RV role_gather(struct call *c, const struct template *t,
                         struct handles *out)
{
    return gather(c, &rows[ROW_ROLE], t, out);
}

static CK_RV policy_gather(struct call *c, const struct template *t,
                           struct handles *out)
{
    return gather(c, &rows[ROW_POLICY], t, out);
}

static CK_RV config_gather(struct call *c, const struct template *t,
                           struct handles *out)
{
    return gather(c, &rows[ROW_CONFIG], t, out);
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

/* {org, request_id} as the row's methods want them, and the name. */
static json_t *change_parameters(struct call *c, const struct data_row *row,
                                 const char *name)
{
    json_t *p = module_parameters(c, is_of_org(row), true);
    if (!p || row->name ||
        json_object_set_new(p, "name", json_string(name)) == 0)
        return p;
    json_decref(p);
    error_set(&c->e, ERR_NOMEM, "%s %s: no memory", row->application, name);
    return NULL;
}

static CK_RV write_data(struct call *c, const struct data_row *row,
                        const char *name, const struct template *t,
                        struct handles *out)
{
    JSON fields = NULL;
    CK_RV rv = parse_value(c, t, &fields);
    if (rv != CKR_OK)
        return rv;
    JSON p = change_parameters(c, row, name);
    if (!p || json_object_set(p, "fields", fields))
        return CKR_HOST_MEMORY;
    JSON reply = NULL;
    if (module_ask(c, row->set, json_incref(p), NULL, &reply, NULL))
        return call_error_no_object(c);
    return object_gather(c, row->kind, name,
                         facts_of(json_object_get(reply, row->stored)),
                         &template_any, out);
}

static const struct data_row *row_meant(const struct template *t)
{
    for (size_t i = 0; i < ROWS; i++) {
        if (template_text_is(t, CKA_APPLICATION, rows[i].application))
            return &rows[i];
    }
    return NULL;
}

CK_RV data_create(struct call *c, const struct template *t,
                  CK_OBJECT_HANDLE *out)
{
    const struct data_row *row = row_meant(t);
    if (!row)
        return call_fail(c, CKR_ATTRIBUTE_VALUE_INVALID,
                         "CKA_APPLICATION says what the data are: \"%s\", "
                         "\"%s\" or \"%s\"",
                         HSMINT_APPLICATION_ROLE, HSMINT_APPLICATION_POLICY,
                         HSMINT_APPLICATION_CONFIG);
    CK_RV rv =
        template_check_schema(c, t, &row->kind->schema, USE_CREATE, true);
    if (rv == CKR_OK)
        rv = session_need_rw(c);
    if (rv != CKR_OK)
        return rv;
    FREE char *label = template_text(t, CKA_LABEL);
    if (!row->name && !label)
        return CKR_HOST_MEMORY;
    if (!row->name && text_check_name(row->kind->schema.what, label, &c->e))
        return CKR_ATTRIBUTE_VALUE_INVALID;
    CLEANUP(handles_clear) struct handles made = {0};
    rv = write_data(c, row, row->name ? row->name : label, t, &made);
    if (rv == CKR_OK && made.n > 0)
        *out = made.list[0];
    return rv;
}

/* Of an object that the call may see: its row and its name. */
static CK_RV find_row(struct call *c, CK_OBJECT_HANDLE h,
                      const struct data_row **row, char name[OBJECT_NAME_MAX])
{
    CK_RV rv = session_need_rw(c);
    if (rv == CKR_OK)
        rv = object_name(c, h, name);
    if (rv != CKR_OK)
        return rv;
    module_lock(c->in);
    const struct object *o = object_visible(c, h);
    *row = o ? row_of(o->kind) : NULL;
    module_unlock(c->in);
    return *row ? CKR_OK : CKR_OBJECT_HANDLE_INVALID;
}

static CK_RV data_set(struct call *c, CK_OBJECT_HANDLE h,
                      const struct template *t)
{
    char name[OBJECT_NAME_MAX];
    const struct data_row *row;
    CLEANUP(handles_clear) struct handles changed = {0};
    CK_RV rv = find_row(c, h, &row, name);
    return rv == CKR_OK ? write_data(c, row, name, t, &changed) : rv;
}

static CK_RV data_destroy(struct call *c, CK_OBJECT_HANDLE h)
{
    char name[OBJECT_NAME_MAX];
    const struct data_row *row;
    CK_RV rv = find_row(c, h, &row, name);
    if (rv != CKR_OK)
        return rv;
    json_t *p = change_parameters(c, row, name);
    if (!p)
        return call_error(c);
    enum code rc = module_ask(c, row->delete, p, NULL, NULL, NULL);
    if (rc && rc != ERR_NOT_FOUND)
        return call_error(c);
    module_lock(c->in);
    object_drop(module_objects(c->in), h);
    module_unlock(c->in);
    return rc ? CKR_OBJECT_HANDLE_INVALID : CKR_OK;
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
    .destroy = data_destroy,
};

const struct object_kind kind_config = {
    .schema = ATTRIBUTE_SCHEMA("configuration", config_rules),
    .is_private = true,
    .gather = config_gather,
    .set = data_set,
    .destroy = data_destroy,
};

const struct object_kind kind_policy = {
    .schema = ATTRIBUTE_SCHEMA("policy", policy_rules),
    .is_private = true,
    .gather = policy_gather,
    .set = data_set,
    .destroy = data_destroy,
};

const struct object_kind kind_last_error = {
    .schema = ATTRIBUTE_SCHEMA("last error", last_error_rules),
    .gather = last_error_gather,
};
