/* object - find, read, make and destroy objects on the token. */
#ifndef HSMINT_OBJECT_H
#define HSMINT_OBJECT_H

#include "common/json.h"
#include "hsm/pool.h"

#define OBJECTS_MAX 64 /* more than that of one label is refused */

#define ATTR(type, value)                                                      \
    {                                                                          \
        (type), (void *)(uintptr_t) & (value), sizeof(value)                   \
    }
#define ATTR_TEXT(type, text)                                                  \
    {                                                                          \
        (type), (void *)(uintptr_t)(text), strlen(text)                        \
    }

/* All objects that match. */
MUST_CHECK enum code object_find(struct session *s, const char *name,
                                 CK_ATTRIBUTE *match, CK_ULONG count,
                                 CK_OBJECT_HANDLE found[OBJECTS_MAX], size_t *n,
                                 struct error *e);
/* *len: CK_UNAVAILABLE_INFORMATION when the object has none to show. */
MUST_CHECK enum code object_read(struct session *s, const char *name,
                                 CK_OBJECT_HANDLE object,
                                 CK_ATTRIBUTE_TYPE type, void *value,
                                 size_t cap, CK_ULONG *len, struct error *e);
/* An attribute that is not there counts as `missing`. */
MUST_CHECK enum code object_flag(struct session *s, const char *name,
                                 CK_OBJECT_HANDLE object,
                                 CK_ATTRIBUTE_TYPE type, bool missing,
                                 bool *value, struct error *e);
/* Puts what the HSM says of it: true, false, or null where it says nothing. An
 * object of 0 says nothing. */
MUST_CHECK enum code object_tell(struct session *s, const char *name,
                                 CK_OBJECT_HANDLE object,
                                 CK_ATTRIBUTE_TYPE type, json_t *out,
                                 const char *member, struct error *e);
MUST_CHECK enum code object_destroy(struct session *s, const char *name,
                                    CK_OBJECT_HANDLE object, struct error *e);

#endif
