/* find - C_FindObjectsInit, C_FindObjects, C_FindObjectsFinal.
 *
 * A search asks the daemon once for each kind that can match and keeps the
 * handles in the session; reading the attributes afterwards asks nobody. */
#ifndef HSMINT_FIND_H
#define HSMINT_FIND_H

#include "module/pkcs11/attribute.h"

CK_RV find_init(struct call *c, const struct template *t);
CK_RV find_next(struct call *c, CK_OBJECT_HANDLE *list, CK_ULONG max,
                CK_ULONG *count);
CK_RV find_final(struct call *c);

#endif
