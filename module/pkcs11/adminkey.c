#include "config.h"

#include "module/pkcs11/hsmint.h"
#include "module/pkcs11/kinds.h"
#include "module/pkcs11/session.h"

#include <string.h>

#define ADMIN_KEY_MAX 4096

static CK_RV read_value(const struct object *o, struct attribute_value *v)
{
    (void)o;
    (void)v;
    return CKR_ATTRIBUTE_SENSITIVE;
}

#define KEY_FLAG(attr, is)                                                     \
    {                                                                          \
        .type = (attr), .shape = SHAPE_BOOL, .use = USE_CREATE, .fixed = (is)  \
    }

static const struct attribute_rule rules[] = {
    {.type = CKA_CLASS,
     .shape = SHAPE_ULONG,
     .use = USE_CREATE | USE_FIXED,
     .fixed = CKO_SECRET_KEY},
    {.type = CKA_KEY_TYPE,
     .shape = SHAPE_ULONG,
     .use = USE_CREATE | USE_FIXED,
     .fixed = CKK_GENERIC_SECRET},
    {.type = CKA_LABEL,
     .shape = SHAPE_TEXT,
     .use = USE_CREATE | USE_FIXED,
     .max = 255,
     .text = HSMINT_LABEL_ADMIN_KEY},
    {.type = CKA_TOKEN,
     .shape = SHAPE_BOOL,
     .use = USE_CREATE | USE_FIXED,
     .fixed = CK_TRUE},
    {.type = CKA_VALUE,
     .shape = SHAPE_BYTES,
     .use = USE_CREATE | USE_NEEDED,
     .max = ADMIN_KEY_MAX,
     .read = read_value},
    {.type = CKA_ID,
     .shape = SHAPE_TEXT,
     .use = USE_CREATE,
     .max = 255,
     .member = "id"},
    {.type = CKA_UNIQUE_ID,
     .shape = SHAPE_TEXT,
     .text = "key/" HSMINT_LABEL_ADMIN_KEY},
    {.type = CKA_VALUE_LEN, .shape = SHAPE_ULONG, .use = USE_CREATE},
    KEY_FLAG(CKA_PRIVATE, CK_FALSE),
    KEY_FLAG(CKA_SENSITIVE, CK_TRUE),
    KEY_FLAG(CKA_EXTRACTABLE, CK_FALSE),
    ATTRIBUTE_ALWAYS(CKA_ALWAYS_SENSITIVE, CK_FALSE), /* it came from outside */
    ATTRIBUTE_ALWAYS(CKA_NEVER_EXTRACTABLE, CK_FALSE),
    ATTRIBUTE_ALWAYS(CKA_LOCAL, CK_FALSE),
    {.type = CKA_KEY_GEN_MECHANISM,
     .shape = SHAPE_ULONG,
     .fixed = CK_UNAVAILABLE_INFORMATION},
    KEY_FLAG(CKA_MODIFIABLE, CK_FALSE),
    KEY_FLAG(CKA_COPYABLE, CK_FALSE),
    KEY_FLAG(CKA_DESTROYABLE, CK_FALSE),
    KEY_FLAG(CKA_ENCRYPT, CK_FALSE),
    KEY_FLAG(CKA_DECRYPT, CK_FALSE),
    KEY_FLAG(CKA_SIGN, CK_FALSE),
    KEY_FLAG(CKA_VERIFY, CK_FALSE),
    KEY_FLAG(CKA_WRAP, CK_FALSE),
    KEY_FLAG(CKA_UNWRAP, CK_FALSE),
    KEY_FLAG(CKA_DERIVE, CK_FALSE),
    KEY_FLAG(CKA_TRUSTED, CK_FALSE),
    KEY_FLAG(CKA_WRAP_WITH_TRUSTED, CK_FALSE),
    {.type = CKA_START_DATE, .shape = SHAPE_DATE, .use = USE_CREATE},
    {.type = CKA_END_DATE, .shape = SHAPE_DATE, .use = USE_CREATE},
};

bool admin_key_meant(const struct template *t)
{
    return template_text_is(t, CKA_LABEL, HSMINT_LABEL_ADMIN_KEY);
}

/* It is there when the configuration names its id. */
static CK_RV gather_key(struct call *c, json_t *config,
                        const struct template *t, struct handles *out)
{
    const char *id =
        json_string_value(json_object_get(config, "admin_api_key_id"));
    if (!id || !*id)
        return CKR_OK;
    return object_gather(c, &kind_admin_key, HSMINT_LABEL_ADMIN_KEY,
                         json_pack("{ss}", "id", id), t, out);
}

/* A public object: it is looked for without a login too, and what keeps the
 * daemon from telling is no error of the search. */
static CK_RV admin_key_gather(struct call *c, const struct template *t,
                              struct handles *out)
{
    json_t *p = module_parameters(c, true, false);
    if (!p)
        return call_error(c);
    JSON reply = NULL;
    struct error saved = c->e;
    if (module_ask(c, "GetConfig", p, NULL, &reply, NULL)) {
        c->e = saved;
        return CKR_OK;
    }
    return gather_key(c, json_object_get(reply, "config"), t, out);
}

static CK_RV ask_seal(struct call *c, const CK_ATTRIBUTE *value, json_t **reply)
{
    SECRET key = NULL;
    if (secret_dup(&key, value->pValue, value->ulValueLen, &c->e))
        return call_error(c);
    secret_chomp(key);
    JSON p = module_parameters(c, true, true);
    if (!p)
        return call_error(c);
    if (json_object_set_new(p, "fields", json_object()))
        return CKR_HOST_MEMORY;
    enum code rc = module_ask(c, "SetConfig", json_incref(p), key, reply, NULL);
    secret_clear_registers();
    return rc ? call_error_no_object(c) : CKR_OK;
}

CK_RV admin_key_create(struct call *c, const struct template *t,
                       CK_OBJECT_HANDLE *out)
{
    CK_RV rv =
        template_check_schema(c, t, &kind_admin_key.schema, USE_CREATE, true);
    if (rv == CKR_OK)
        rv = session_need_rw(c);
    if (rv != CKR_OK)
        return rv;
    const CK_ATTRIBUTE *value = template_find(t, CKA_VALUE);
    if (value->ulValueLen == 0)
        return call_fail(c, CKR_ATTRIBUTE_VALUE_INVALID,
                         "CKA_VALUE: the admin key is empty");
    JSON reply = NULL;
    CLEANUP(handles_clear) struct handles made = {0};
    rv = ask_seal(c, value, &reply);
    if (rv == CKR_OK)
        rv = gather_key(c, json_object_get(reply, "config"), &template_any,
                        &made);
    if (rv != CKR_OK)
        return rv;
    if (made.n > 0) {
        *out = made.list[0];
        return CKR_OK;
    }
    error_set(&c->e, ERR_PROTOCOL,
              "%s: the daemon did not tell the id of what it sealed",
              HSMINT_LABEL_ADMIN_KEY);
    return call_error(c);
}

CK_RV admin_key_generate(struct call *c, const struct template *t,
                         CK_OBJECT_HANDLE *out)
{
    CK_RV rv =
        template_check_schema(c, t, &kind_admin_key.schema, USE_CREATE, false);
    if (rv == CKR_OK)
        rv = session_need_rw(c);
    if (rv != CKR_OK)
        return rv;
    if (template_find(t, CKA_VALUE))
        return call_fail(c, CKR_TEMPLATE_INCONSISTENT,
                         "CKA_VALUE: a rotation makes the key itself; "
                         "C_CreateObject seals one that is given");
    json_t *p = module_parameters(c, true, true);
    if (!p)
        return call_error(c);
    JSON reply = NULL;
    if (module_ask(c, "RotateConfig", p, NULL, &reply, NULL))
        return call_error_no_object(c);
    CLEANUP(handles_clear) struct handles made = {0};
    rv = gather_key(c, reply, &template_any, &made);
    if (rv != CKR_OK || made.n > 0) {
        *out = made.n > 0 ? made.list[0] : CK_INVALID_HANDLE;
        return rv;
    }
    error_set(&c->e, ERR_PROTOCOL,
              "%s: the daemon did not tell the id of the new one",
              HSMINT_LABEL_ADMIN_KEY);
    return call_error(c);
}

static CK_RV admin_key_load(struct call *c, CK_OBJECT_HANDLE h)
{
    (void)h;
    return call_fail(c, CKR_ATTRIBUTE_SENSITIVE,
                     "%s: sealed by the HSM, and never read",
                     HSMINT_LABEL_ADMIN_KEY);
}

static CK_RV admin_key_destroy(struct call *c, CK_OBJECT_HANDLE h)
{
    (void)h;
    return call_fail(c, CKR_ACTION_PROHIBITED,
                     "%s: it goes with the configuration; destroy the data "
                     "object \"%s\"",
                     HSMINT_LABEL_ADMIN_KEY, HSMINT_APPLICATION_CONFIG);
}

const struct object_kind kind_admin_key = {
    .schema = ATTRIBUTE_SCHEMA("admin key", rules),
    .gather = admin_key_gather,
    .destroy = admin_key_destroy,
    .load = admin_key_load,
};
