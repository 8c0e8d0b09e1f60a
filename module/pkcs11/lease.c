#include "config.h"

#include "common/clock.h"
#include "module/pkcs11/hsmint.h"
#include "module/pkcs11/kinds.h"
#include "module/pkcs11/lease.h"
#include "module/pkcs11/session.h"

#include <stdlib.h>
#include <string.h>

#define PAGE 500 /* leases asked for at once */

/* ---- what its attributes say ---- */

static bool is_bound(const struct object *o)
{
    return json_is_true(json_object_get(o->facts, "bound"));
}

/* We hold the key, or the daemon keeps it for its owner; but what a listing of
 * all finds is not read: tools read the value of each object they list. */
static bool is_readable(const struct object *o)
{
    return o->value ||
           (o->named && json_is_true(json_object_get(o->facts, "kept")));
}

static CK_RV read_token(const struct object *o, struct attribute_value *v)
{
    return attribute_truth(v, !is_bound(o));
}

static CK_RV read_sensitive(const struct object *o, struct attribute_value *v)
{
    return attribute_truth(v, !is_readable(o));
}

static CK_RV read_extractable(const struct object *o, struct attribute_value *v)
{
    return attribute_truth(v, is_readable(o));
}

static CK_RV read_label(const struct object *o, struct attribute_value *v)
{
    const char *text = "";
    if (!object_text(o, "label", &text))
        object_text(o, "role", &text);
    return attribute_text(v, text);
}

static CK_RV read_id(const struct object *o, struct attribute_value *v)
{
    const char *hex;
    v->data = v->room.bytes;
    if (object_text(o, "id", &hex) &&
        text_unhex(v->room.bytes, sizeof(v->room.bytes), &v->len, hex, NULL) ==
            OK)
        return CKR_OK;
    return attribute_text(v, o->name);
}

static CK_RV read_unique_id(const struct object *o, struct attribute_value *v)
{
    return attribute_text(v, o->name);
}

static CK_RV read_value_len(const struct object *o, struct attribute_value *v)
{
    return attribute_number(v, o->value ? secret_len(o->value) : 0);
}

static CK_RV read_value(const struct object *o, struct attribute_value *v)
{
    if (!o->value)
        return CKR_ATTRIBUTE_SENSITIVE;
    v->data = secret_data(o->value);
    v->len = secret_len(o->value);
    return CKR_OK;
}

static CK_RV read_ttl(const struct object *o, struct attribute_value *v)
{
    int64_t left = object_number(o, "expires_ms") - clock_wall_ms();
    return attribute_number(v, left > 0 ? (CK_ULONG)(left / 1000) : 0);
}

/* ---- what templates may say ---- */

static CK_RV check_extractable(struct call *c, const CK_ATTRIBUTE *a)
{
    if (*(const CK_BBOOL *)a->pValue == CK_TRUE)
        return CKR_OK;
    return call_fail(c, CKR_ATTRIBUTE_VALUE_INVALID,
                     "CKA_EXTRACTABLE=FALSE: a key that nobody can read has no "
                     "use here; ask for TRUE (pkcs11-tool: --extractable) or "
                     "leave it out");
}

static CK_RV check_value(struct call *c, const CK_ATTRIBUTE *a)
{
    if (a->ulValueLen <= 1)
        return CKR_OK;
    return call_fail(c, CKR_ATTRIBUTE_VALUE_INVALID,
                     "CKA_VALUE: the key is minted, not given; leave it out "
                     "(the admin key has the label \"%s\")",
                     HSMINT_LABEL_ADMIN_KEY);
}

static CK_RV check_ttl(struct call *c, const CK_ATTRIBUTE *a)
{
    CK_ULONG ttl;
    memcpy(&ttl, a->pValue, sizeof(ttl));
    if (ttl > 0 && ttl <= INT32_MAX)
        return CKR_OK;
    return call_fail(c, CKR_ATTRIBUTE_VALUE_INVALID,
                     "CKA_HSMINT_TTL: %lu seconds are no time to live", ttl);
}

/* "Corrected": accepted in a template, whatever it says, for the sake of the
 * standard tools; read, it is what it is. */
#define CORRECTED(attr, is)                                                    \
    {                                                                          \
        .type = (attr), .shape = SHAPE_BOOL, .use = USE_CREATE, .fixed = (is)  \
    }
#define TEXT(attr, of)                                                         \
    {                                                                          \
        .type = (attr), .shape = SHAPE_TEXT, .member = (of)                    \
    }
#define SECONDS(attr, of)                                                      \
    {                                                                          \
        .type = (attr), .shape = SHAPE_ULONG, .member = (of)                   \
    }
#define DATE(attr, of)                                                         \
    {                                                                          \
        .type = (attr), .shape = SHAPE_DATE, .use = USE_CREATE, .member = (of) \
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
    {.type = CKA_TOKEN,
     .shape = SHAPE_BOOL,
     .use = USE_CREATE,
     .read = read_token},
    {.type = CKA_LABEL,
     .shape = SHAPE_TEXT,
     .use = USE_CREATE | USE_MODIFY,
     .max = LEASE_LABEL_MAX,
     .read = read_label},
    {.type = CKA_ID,
     .shape = SHAPE_BYTES,
     .use = USE_CREATE | USE_MODIFY,
     .max = LEASE_ID_MAX,
     .read = read_id},
    {.type = CKA_UNIQUE_ID, .shape = SHAPE_TEXT, .read = read_unique_id},
    {.type = CKA_VALUE,
     .shape = SHAPE_BYTES,
     .use = USE_CREATE,
     .max = SECRET_MAX,
     .read = read_value,
     .check = check_value},
    {.type = CKA_VALUE_LEN,
     .shape = SHAPE_ULONG,
     .use = USE_CREATE,
     .read = read_value_len},
    {.type = CKA_SENSITIVE,
     .shape = SHAPE_BOOL,
     .use = USE_CREATE,
     .read = read_sensitive},
    {.type = CKA_EXTRACTABLE,
     .shape = SHAPE_BOOL,
     .use = USE_CREATE,
     .read = read_extractable,
     .check = check_extractable},
    ATTRIBUTE_ALWAYS(CKA_ALWAYS_SENSITIVE, CK_FALSE),
    ATTRIBUTE_ALWAYS(CKA_NEVER_EXTRACTABLE, CK_FALSE),
    /* The service made it. */
    ATTRIBUTE_ALWAYS(CKA_LOCAL, CK_FALSE),
    {.type = CKA_KEY_GEN_MECHANISM,
     .shape = SHAPE_ULONG,
     .fixed = CK_UNAVAILABLE_INFORMATION},
    CORRECTED(CKA_PRIVATE, CK_TRUE),
    CORRECTED(CKA_MODIFIABLE, CK_TRUE),
    CORRECTED(CKA_COPYABLE, CK_FALSE),
    CORRECTED(CKA_DESTROYABLE, CK_TRUE),
    CORRECTED(CKA_ENCRYPT, CK_FALSE),
    CORRECTED(CKA_DECRYPT, CK_FALSE),
    CORRECTED(CKA_SIGN, CK_FALSE),
    CORRECTED(CKA_VERIFY, CK_FALSE),
    CORRECTED(CKA_WRAP, CK_FALSE),
    CORRECTED(CKA_UNWRAP, CK_FALSE),
    CORRECTED(CKA_DERIVE, CK_FALSE),
    CORRECTED(CKA_TRUSTED, CK_FALSE),
    CORRECTED(CKA_WRAP_WITH_TRUSTED, CK_FALSE),
    DATE(CKA_START_DATE, "issued_ms"),
    DATE(CKA_END_DATE, "expires_ms"),
    {.type = CKA_HSMINT_TTL,
     .shape = SHAPE_ULONG,
     .use = USE_CREATE | USE_MODIFY,
     .read = read_ttl,
     .check = check_ttl},
    SECONDS(CKA_HSMINT_ISSUED, "issued_ms"),
    SECONDS(CKA_HSMINT_EXPIRES, "expires_ms"),
    SECONDS(CKA_HSMINT_MAX_EXPIRES, "max_expires_ms"),
    TEXT(CKA_HSMINT_ROLE, "role"),
    TEXT(CKA_HSMINT_STATE, "state"),
    TEXT(CKA_HSMINT_OWNER, "owner"),
    TEXT(CKA_HSMINT_PROGRAM, "program"),
    TEXT(CKA_HSMINT_API_BASE, "api_base"),
    TEXT(CKA_HSMINT_PROJECT_ID, "project_id"),
    TEXT(CKA_HSMINT_SERVICE_ACCOUNT, "service_account"),
    TEXT(CKA_HSMINT_SERVICE_ACCOUNT_ID, "service_account_id"),
    TEXT(CKA_HSMINT_API_KEY_ID, "api_key_id"),
};

/* ---- the daemon's leases ---- */

json_t *lease_parameters(struct call *c, const char *lease_id, bool changes)
{
    json_t *p = module_parameters(c, false, changes);
    if (!p || json_object_set_new(p, "lease_id", json_string(lease_id)) == 0)
        return p;
    json_decref(p);
    error_set(&c->e, ERR_NOMEM, "lease %s: no memory", lease_id);
    return NULL;
}

struct object *lease_put(struct call *c, json_t *lease, struct error *e)
{
    const char *id = json_string_value(json_object_get(lease, "lease_id"));
    if (!id || !text_is_id(id)) {
        error_set(e, ERR_PROTOCOL, "the daemon told a lease without its id");
        return NULL;
    }
    /* A copy: what the reply holds is freed without the lock. */
    struct object *o = object_put(module_objects(c->in), &kind_lease, c->slot,
                                  id, json_deep_copy(lease));
    if (!o)
        error_set(e, ERR_NOMEM, "lease %s: no memory", id);
    return o;
}

static bool is_live(json_t *lease)
{
    const char *state = json_string_value(json_object_get(lease, "state"));
    return state &&
           (strcmp(state, "active") == 0 || strcmp(state, "pending") == 0);
}

/* Under the lock. */
static bool of_slot(struct call *c, json_t *lease)
{
    const char *org = json_string_value(json_object_get(lease, "org"));
    const char *ours = slot_org(module_slots(c->in), c->slot);
    return org && ours && strcmp(org, ours) == 0;
}

static bool names_one(const struct template *t)
{
    return template_find(t, CKA_LABEL) || template_find(t, CKA_ID) ||
           template_find(t, CKA_UNIQUE_ID);
}

static CK_RV gather_one(struct call *c, json_t *lease, const struct template *t,
                        struct handles *out)
{
    if (!is_live(lease))
        return CKR_OK;
    module_lock(c->in);
    bool ours = of_slot(c, lease);
    struct object *o = ours ? lease_put(c, lease, &c->e) : NULL;
    bool match = o && attribute_matches(o, t);
    bool kept = !match || handles_add(out, o->handle);
    if (match && names_one(t))
        o->named = true;
    module_unlock(c->in);
    if (!kept)
        return CKR_HOST_MEMORY;
    return ours && !o ? call_error(c) : CKR_OK;
}

static CK_RV gather_by_id(struct call *c, const struct template *t,
                          struct handles *out)
{
    FREE char *id = template_text(t, CKA_UNIQUE_ID);
    if (!id || !text_is_id(id))
        return CKR_OK;
    json_t *p = lease_parameters(c, id, false);
    if (!p)
        return call_error(c);
    JSON reply = NULL;
    enum code rc = module_ask(c, "GetLease", p, NULL, &reply, NULL);
    if (rc == ERR_NOT_FOUND || rc == ERR_DENIED)
        return CKR_OK;
    if (rc)
        return call_error(c);
    return gather_one(c, json_object_get(reply, "lease"), t, out);
}

static json_t *page_parameters(struct call *c, const struct template *t,
                               bool all, const char *before)
{
    JSON p = module_parameters(c, true, false);
    FREE char *role = template_text(t, CKA_HSMINT_ROLE);
    int bad = p ? 0 : -1;
    if (role)
        bad |= json_object_set_new(p, "role", json_string(role));
    if (*before)
        bad |= json_object_set_new(p, "before", json_string(before));
    bad |= json_object_set_new(p, "all", json_boolean(all));
    bad |= json_object_set_new(p, "live", json_true());
    bad |= json_object_set_new(p, "limit", json_integer(PAGE));
    if (bad) {
        error_set(&c->e, ERR_NOMEM, "list of leases: no memory");
        return NULL;
    }
    return json_incref(p);
}

/* One page into `out`; `before` becomes its last lease, or "". */
static CK_RV gather_page(struct call *c, const struct template *t, bool all,
                         char before[TEXT_ID_LEN + 1], struct handles *out)
{
    json_t *p = page_parameters(c, t, all, before);
    if (!p)
        return call_error(c);
    JSON reply = NULL;
    enum code rc = module_ask(c, "ListLeases", p, NULL, &reply, NULL);
    if (rc == ERR_NOT_FOUND) { /* no such organisation yet: no leases */
        before[0] = '\0';
        return CKR_OK;
    }
    if (rc)
        return call_error(c);
    json_t *leases = json_object_get(reply, "leases");
    size_t n = json_array_size(leases);
    for (size_t i = 0; i < n; i++) {
        CK_RV rv = gather_one(c, json_array_get(leases, i), t, out);
        if (rv != CKR_OK)
            return rv;
    }
    const char *last = json_string_value(
        json_object_get(json_array_get(leases, n ? n - 1 : 0), "lease_id"));
    bool more = json_is_true(json_object_get(reply, "more"));
    if (!more || !last || !text_is_id(last))
        before[0] = '\0';
    else
        memcpy(before, last, TEXT_ID_LEN + 1);
    return CKR_OK;
}

static CK_RV gather_all(struct call *c, const struct template *t, bool all,
                        struct handles *out)
{
    char before[TEXT_ID_LEN + 1] = "";
    do {
        CK_RV rv = gather_page(c, t, all, before, out);
        if (rv != CKR_OK)
            return rv;
    } while (*before);
    return CKR_OK;
}

static CK_RV lease_gather(struct call *c, const struct template *t,
                          struct handles *out)
{
    if (template_find(t, CKA_UNIQUE_ID))
        return gather_by_id(c, t, out);
    bool all = session_login_state(c) == LOGIN_SO;
    CK_RV rv = gather_all(c, t, all, out);
    if (rv != CKR_OK && all && c->e.code == ERR_DENIED)
        rv = gather_all(c, t, false, out);
    /* A search shows what may be seen; there are other objects, too. */
    return rv == CKR_FUNCTION_REJECTED && c->e.code == ERR_DENIED ? CKR_OK : rv;
}

/* ---- its value ---- */

static CK_RV check_readable(struct call *c, CK_OBJECT_HANDLE h, bool *held)
{
    module_lock(c->in);
    const struct object *o = object_visible(c, h);
    *held = o && o->value;
    bool readable = o && is_readable(o);
    bool kept = o && json_is_true(json_object_get(o->facts, "kept"));
    module_unlock(c->in);
    if (!o)
        return CKR_OBJECT_HANDLE_INVALID;
    if (readable)
        return CKR_OK;
    return call_fail(c, CKR_ATTRIBUTE_SENSITIVE,
                     kept ? "a listing does not read keys: search for it by "
                            "its label or id"
                          : "the key is only for the program that minted it; "
                            "a role with keep_value would keep it");
}

static CK_RV ask_value(struct call *c, const char *id, struct secret **value)
{
    json_t *p = lease_parameters(c, id, false);
    if (!p)
        return call_error(c);
    enum code rc = module_ask(c, "ReadKey", p, NULL, NULL, value);
    if (rc == ERR_SENSITIVE || rc == ERR_DENIED)
        return CKR_ATTRIBUTE_SENSITIVE;
    if (rc)
        return call_error(c);
    if (*value)
        return CKR_OK;
    error_set(&c->e, ERR_PROTOCOL, "lease %s: the daemon sent no key", id);
    return call_error(c);
}

static CK_RV lease_load(struct call *c, CK_OBJECT_HANDLE h)
{
    char id[OBJECT_NAME_MAX];
    bool held;
    CK_RV rv = check_readable(c, h, &held);
    if (rv != CKR_OK || held)
        return rv;
    rv = object_name(c, h, id);
    if (rv != CKR_OK)
        return rv;
    SECRET value = NULL;
    rv = ask_value(c, id, &value);
    if (rv != CKR_OK)
        return rv;
    module_lock(c->in);
    struct object *o = object_visible(c, h);
    if (o && !o->value) {
        o->value = value;
        value = NULL;
    }
    module_unlock(c->in);
    return o ? CKR_OK : CKR_OBJECT_HANDLE_INVALID;
}

/* ---- changes ---- */

static CK_RV check_changeable(struct call *c, CK_OBJECT_HANDLE h,
                              char id[OBJECT_NAME_MAX])
{
    CK_RV rv = object_name(c, h, id);
    if (rv != CKR_OK)
        return rv;
    module_lock(c->in);
    const struct object *o = object_visible(c, h);
    bool session_object = o && is_bound(o);
    module_unlock(c->in);
    return session_object ? CKR_OK : session_need_rw(c);
}

static CK_RV renew(struct call *c, const char *id, CK_ULONG ttl)
{
    json_t *p = lease_parameters(c, id, true);
    if (!p || json_object_set_new(p, "ttl", json_integer((json_int_t)ttl))) {
        json_decref(p);
        return CKR_HOST_MEMORY;
    }
    JSON reply = NULL;
    if (module_ask(c, "Renew", p, NULL, &reply, NULL))
        return call_error(c);
    module_lock(c->in);
    const struct object *o =
        lease_put(c, json_object_get(reply, "lease"), &c->e);
    module_unlock(c->in);
    return o ? CKR_OK : call_error(c);
}

static char *hex_of(const CK_ATTRIBUTE *a)
{
    char *hex = malloc(2 * a->ulValueLen + 1);
    if (hex)
        text_hex(hex, a->pValue, a->ulValueLen);
    return hex;
}

/* Cosmetic: the daemon keeps it beside the lease. */
static CK_RV relabel(struct call *c, CK_OBJECT_HANDLE h, const char *id,
                     const struct template *t)
{
    const CK_ATTRIBUTE *cka_id = template_find(t, CKA_ID);
    FREE char *label = template_text(t, CKA_LABEL);
    FREE char *hex = cka_id ? hex_of(cka_id) : NULL;
    if (!label && !hex)
        return template_find(t, CKA_LABEL) || cka_id ? CKR_HOST_MEMORY : CKR_OK;
    JSON p = lease_parameters(c, id, false);
    int bad = p ? 0 : -1;
    if (label)
        bad |= json_object_set_new(p, "label", json_string(label));
    if (hex)
        bad |= json_object_set_new(p, "id", json_string(hex));
    if (bad)
        return CKR_HOST_MEMORY;
    if (module_ask(c, "LabelLease", json_incref(p), NULL, NULL, NULL))
        return call_error(c);
    module_lock(c->in);
    struct object *o = object_visible(c, h);
    if (o && label)
        bad |= json_object_set_new(o->facts, "label", json_string(label));
    if (o && hex)
        bad |= json_object_set_new(o->facts, "id", json_string(hex));
    module_unlock(c->in);
    return bad ? CKR_HOST_MEMORY : CKR_OK;
}

static CK_RV lease_set(struct call *c, CK_OBJECT_HANDLE h,
                       const struct template *t)
{
    char id[OBJECT_NAME_MAX];
    CK_RV rv = check_changeable(c, h, id);
    /* What may be refused goes first: all of a template, or nothing. */
    if (rv == CKR_OK && template_find(t, CKA_HSMINT_TTL))
        rv = renew(c, id, template_ulong(t, CKA_HSMINT_TTL, 0));
    return rv == CKR_OK ? relabel(c, h, id, t) : rv;
}

static CK_RV lease_destroy(struct call *c, CK_OBJECT_HANDLE h)
{
    char id[OBJECT_NAME_MAX];
    CK_RV rv = check_changeable(c, h, id);
    if (rv != CKR_OK)
        return rv;
    json_t *p = lease_parameters(c, id, true);
    if (!p)
        return call_error(c);
    enum code rc = module_ask(c, "Revoke", p, NULL, NULL, NULL);
    if (rc && rc != ERR_NOT_FOUND)
        return call_error(c);
    module_lock(c->in);
    object_drop(module_objects(c->in), h);
    module_unlock(c->in);
    return rc ? CKR_OBJECT_HANDLE_INVALID : CKR_OK;
}

const struct object_kind kind_lease = {
    .schema = ATTRIBUTE_SCHEMA("lease", rules),
    .is_private = true,
    .gather = lease_gather,
    .set = lease_set,
    .destroy = lease_destroy,
    .load = lease_load,
};
