#include "config.h"

#include "hsm/object.h"

enum code object_find(struct session *s, const char *name, CK_ATTRIBUTE *match,
                      CK_ULONG count, CK_OBJECT_HANDLE found[OBJECTS_MAX],
                      size_t *n, struct error *e)
{
    *n = 0;
    enum code rc = HSM_CALL(s, e, name, C_FindObjectsInit, match, count);
    if (rc)
        return rc;
    CK_ULONG got = 1;
    while (!rc && got > 0 && *n < OBJECTS_MAX) {
        rc = HSM_CALL(s, e, name, C_FindObjects, found + *n, OBJECTS_MAX - *n,
                      &got);
        if (!rc)
            *n += got;
    }
    enum code end = HSM_CALL(s, rc ? NULL : e, name, C_FindObjectsFinal);
    if (rc || end)
        return rc ? rc : end;
    if (*n >= OBJECTS_MAX)
        return error_set(e, ERR_HSM_KEYS,
                         "HSM: %d or more objects are called %s", OBJECTS_MAX,
                         name);
    return OK;
}

enum code object_read(struct session *s, const char *name,
                      CK_OBJECT_HANDLE object, CK_ATTRIBUTE_TYPE type,
                      void *value, size_t cap, CK_ULONG *len, struct error *e)
{
    CK_ATTRIBUTE a = {type, value, cap};
    CK_RV rv = s->pool->f->C_GetAttributeValue(s->handle, object, &a, 1);
    if (rv == CKR_ATTRIBUTE_TYPE_INVALID || rv == CKR_ATTRIBUTE_SENSITIVE) {
        *len = CK_UNAVAILABLE_INFORMATION;
        return OK;
    }
    enum code rc = session_check(s, rv, "C_GetAttributeValue", name, e);
    if (!rc)
        *len = a.ulValueLen;
    return rc;
}

enum code object_flag(struct session *s, const char *name,
                      CK_OBJECT_HANDLE object, CK_ATTRIBUTE_TYPE type,
                      bool missing, bool *value, struct error *e)
{
    CK_BBOOL b = CK_FALSE;
    CK_ULONG len = 0;
    enum code rc = object_read(s, name, object, type, &b, sizeof b, &len, e);
    if (!rc)
        *value = len == sizeof b ? b != CK_FALSE : missing;
    return rc;
}

enum code object_tell(struct session *s, const char *name,
                      CK_OBJECT_HANDLE object, CK_ATTRIBUTE_TYPE type,
                      json_t *out, const char *member, struct error *e)
{
    CK_BBOOL b = CK_FALSE;
    CK_ULONG len = CK_UNAVAILABLE_INFORMATION;
    enum code rc = object ? object_read(s, name, object, type, &b, sizeof b,
                                        &len, e)
                          : OK;
    if (rc)
        return rc;
    return json_object_set_new(out, member,
                               len == sizeof b ? json_boolean(b != CK_FALSE)
                                               : json_null())
               ? error_set(e, ERR_NOMEM, "HSM: attributes")
               : OK;
}

enum code object_destroy(struct session *s, const char *name,
                         CK_OBJECT_HANDLE object, struct error *e)
{
    return HSM_CALL(s, e, name, C_DestroyObject, object);
}
