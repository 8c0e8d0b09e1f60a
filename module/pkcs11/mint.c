#include "config.h"

#include "module/pkcs11/hsmint.h"
#include "module/pkcs11/kinds.h"
#include "module/pkcs11/lease.h"
#include "module/pkcs11/session.h"

#include <string.h>

/* Before the call: should the reply get lost, the session's end still ends the
 * lease. */
static CK_RV bind_session(struct call *c)
{
    module_lock(c->in);
    struct session *s = session_find(module_sessions(c->in), c->session);
    if (s)
        s->binds = true;
    module_unlock(c->in);
    return s ? CKR_OK : CKR_SESSION_HANDLE_INVALID;
}

static int set_id(json_t *p, const CK_ATTRIBUTE *id)
{
    char hex[2 * LEASE_ID_MAX + 1];
    text_hex(hex, id->pValue, id->ulValueLen);
    return json_object_set_new(p, "id", json_string(hex));
}

static json_t *mint_parameters(struct call *c, const struct template *t,
                               bool bound)
{
    JSON p = module_parameters(c, true, true);
    if (!p)
        return NULL;
    FREE char *role = template_text(t, CKA_LABEL);
    const CK_ATTRIBUTE *id = template_find(t, CKA_ID);
    CK_ULONG ttl = template_ulong(t, CKA_HSMINT_TTL, 0);
    int bad = json_object_set_new(p, "bound", json_boolean(bound));
    if (role && *role)
        bad |= json_object_set_new(p, "role", json_string(role));
    if (ttl)
        bad |= json_object_set_new(p, "ttl", json_integer((json_int_t)ttl));
    if (bound)
        bad |= json_object_set_new(p, "session",
                                   json_integer((json_int_t)c->session));
    if (id && id->ulValueLen > 0)
        bad |= set_id(p, id);
    if (!bad)
        return json_incref(p);
    error_set(&c->e, ERR_NOMEM, "mint: no memory");
    return NULL;
}

/* Nobody is left to have it: it must not live on to its end. */
static void undo(struct call *c, json_t *lease)
{
    struct error why = c->e;
    const char *id = json_string_value(json_object_get(lease, "lease_id"));
    json_t *p = id ? lease_parameters(c, id, true) : NULL;
    if (p && module_ask(c, "Revoke", p, NULL, NULL, NULL)) {
        /* The daemon ends it at its end, or with us where it is bound. */
        error_clear(&c->e);
    }
    c->e = why;
}

/* What another thread ended while we were away. Under the lock. */
static CK_RV ended(struct call *c)
{
    if (module_closed(c->in))
        return CKR_CRYPTOKI_NOT_INITIALIZED;
    if (!session_find(module_sessions(c->in), c->session))
        return CKR_SESSION_CLOSED;
    if (slot_login(module_slots(c->in), c->slot) == LOGIN_NONE)
        return CKR_USER_NOT_LOGGED_IN;
    return CKR_OK;
}

/* The daemon refused; where the session has ended, that is why. */
static CK_RV refused(struct call *c)
{
    module_lock(c->in);
    CK_RV rv = ended(c);
    module_unlock(c->in);
    return rv != CKR_OK ? rv : call_error_no_object(c);
}

/* Still a session, logged in? Then the lease is an object. */
static CK_RV keep_lease(struct call *c, json_t *lease, bool bound,
                        struct secret **key, CK_OBJECT_HANDLE *out)
{
    module_lock(c->in);
    CK_RV rv = ended(c);
    struct object *o = rv == CKR_OK ? lease_put(c, lease, &c->e) : NULL;
    if (o) {
        /* A logout meanwhile told the end of what was bound until then. */
        if (bound)
            session_find(module_sessions(c->in), c->session)->binds = true;
        secret_free(o->value);
        o->value = *key;
        *key = NULL;
        o->session = bound ? c->session : CK_INVALID_HANDLE;
        *out = o->handle;
    }
    module_unlock(c->in);
    return rv == CKR_OK && !o ? call_error(c) : rv;
}

static CK_RV mint(struct call *c, const struct template *t,
                  CK_OBJECT_HANDLE *out)
{
    bool bound = !template_bool(t, CKA_TOKEN, false);
    CK_RV rv = bound ? bind_session(c) : session_need_rw(c);
    if (rv != CKR_OK)
        return rv;
    json_t *p = mint_parameters(c, t, bound);
    if (!p)
        return call_error(c);
    JSON reply = NULL;
    SECRET key = NULL;
    if (module_ask(c, "Mint", p, NULL, &reply, &key))
        return refused(c);
    json_t *lease = json_object_get(reply, "lease");
    if (key) {
        rv = keep_lease(c, lease, bound, &key, out);
    } else {
        error_set(&c->e, ERR_PROTOCOL, "mint: the daemon sent no key");
        rv = call_error(c);
    }
    if (rv != CKR_OK)
        undo(c, lease);
    secret_clear_registers();
    return rv;
}

CK_RV mint_create(struct call *c, const struct template *t,
                  CK_OBJECT_HANDLE *out)
{
    CK_RV rv =
        template_check_schema(c, t, &kind_lease.schema, USE_CREATE, true);
    return rv == CKR_OK ? mint(c, t, out) : rv;
}

CK_RV mint_generate(struct call *c, const CK_MECHANISM *mechanism,
                    const struct template *t, CK_OBJECT_HANDLE *out)
{
    if (!mechanism || !out)
        return CKR_ARGUMENTS_BAD;
    *out = CK_INVALID_HANDLE;
    if (mechanism->mechanism != CKM_GENERIC_SECRET_KEY_GEN)
        return call_fail(c, CKR_MECHANISM_INVALID,
                         "mechanism 0x%lx: only CKM_GENERIC_SECRET_KEY_GEN "
                         "mints",
                         mechanism->mechanism);
    if (mechanism->pParameter || mechanism->ulParameterLen)
        return call_fail(c, CKR_MECHANISM_PARAM_INVALID,
                         "CKM_GENERIC_SECRET_KEY_GEN takes no parameter; all "
                         "input is attributes");
    CK_RV rv = template_check(c, t);
    if (rv == CKR_OK)
        rv = session_need_login(c);
    if (rv != CKR_OK)
        return rv;
    if (admin_key_meant(t))
        return admin_key_generate(c, t, out);
    return mint_create(c, t, out);
}
