#include "config.h"

#include "module/pkcs11/find.h"
#include "module/pkcs11/kinds.h"
#include "module/pkcs11/session.h"

static const struct object_kind *const kinds[] = {
    &kind_lease,     &kind_role,      &kind_policy,  &kind_config,
    &kind_admin_key, &kind_audit_key, &kind_profile, &kind_last_error,
};

/* Take the session for this search, or say what it is doing. */
static CK_RV start_search(struct call *c, unsigned long *number)
{
    CK_RV rv = CKR_OK;
    module_lock(c->in);
    struct session *s = session_find(module_sessions(c->in), c->session);
    if (!s)
        rv = CKR_SESSION_HANDLE_INVALID;
    else if (s->searching)
        rv = CKR_OPERATION_ACTIVE;
    else
        s->searching = true;
    if (rv == CKR_OK)
        *number = ++s->search;
    module_unlock(c->in);
    return rv;
}

/* Under the lock. Our search, unless another thread ended it while we were
 * away; then the session may be amid the next one. */
static CK_RV settle(struct session *s, unsigned long number,
                    struct handles *found, CK_RV rv)
{
    if (!s)
        return rv != CKR_OK ? rv : CKR_SESSION_HANDLE_INVALID;
    if (!s->searching || s->search != number)
        return CKR_FUNCTION_CANCELED;
    if (rv != CKR_OK) {
        session_drop_search(s); /* no operation is left behind by an error */
        return rv;
    }
    s->found = found->list;
    s->n_found = found->n;
    found->list = NULL;
    return CKR_OK;
}

static CK_RV gather(struct call *c, const struct template *t,
                    struct handles *out)
{
    bool logged_in = session_login_state(c) != LOGIN_NONE;
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        const struct object_kind *kind = kinds[i];
        if ((kind->is_private && !logged_in) ||
            attribute_excludes(&kind->schema, t))
            continue;
        CK_RV rv = kind->gather(c, t, out);
        if (rv != CKR_OK)
            return rv;
    }
    return CKR_OK;
}

CK_RV find_init(struct call *c, const struct template *t)
{
    unsigned long number = 0;
    CK_RV rv = template_check(c, t);
    if (rv == CKR_OK)
        rv = start_search(c, &number);
    if (rv != CKR_OK)
        return rv;
    CLEANUP(handles_clear) struct handles found = {0};
    rv = gather(c, t, &found);
    module_lock(c->in);
    rv = settle(session_find(module_sessions(c->in), c->session), number,
                &found, rv);
    module_unlock(c->in);
    return rv == CKR_FUNCTION_CANCELED
               ? call_fail(c, rv, "another thread ended this search")
               : rv;
}

CK_RV find_next(struct call *c, CK_OBJECT_HANDLE *list, CK_ULONG max,
                CK_ULONG *count)
{
    if (!list || !count)
        return CKR_ARGUMENTS_BAD;
    CK_ULONG n = 0;
    module_lock(c->in);
    struct session *s = session_find(module_sessions(c->in), c->session);
    bool searching = s && s->searching;
    while (searching && n < max && s->next_found < s->n_found) {
        CK_OBJECT_HANDLE h = s->found[s->next_found++];
        if (object_visible(c, h)) /* or destroyed since */
            list[n++] = h;
    }
    module_unlock(c->in);
    if (!searching)
        return CKR_OPERATION_NOT_INITIALIZED;
    *count = n;
    return CKR_OK;
}

CK_RV find_final(struct call *c)
{
    module_lock(c->in);
    struct session *s = session_find(module_sessions(c->in), c->session);
    bool searching = s && s->searching;
    if (searching)
        session_drop_search(s);
    module_unlock(c->in);
    return searching ? CKR_OK : CKR_OPERATION_NOT_INITIALIZED;
}
