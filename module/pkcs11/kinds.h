/* kinds - the kinds of objects, each with its file: lease.c, data.c,
 * adminkey.c, auditkey.c, profile.c. find.c walks the table, object.c makes
 * objects by it. */
#ifndef HSMINT_KINDS_H
#define HSMINT_KINDS_H

#include "module/pkcs11/object.h"

extern const struct object_kind kind_lease;
extern const struct object_kind kind_role;
extern const struct object_kind kind_policy;
extern const struct object_kind kind_config;
extern const struct object_kind kind_last_error;
extern const struct object_kind kind_admin_key;
extern const struct object_kind kind_audit_key;
extern const struct object_kind kind_profile;

/* C_GenerateKey. */
CK_RV mint_generate(struct call *c, const CK_MECHANISM *mechanism,
                    const struct template *t, CK_OBJECT_HANDLE *out);
/* C_CreateObject of each kind; class (and label or application) have told. */
CK_RV mint_create(struct call *c, const struct template *t,
                  CK_OBJECT_HANDLE *out);
CK_RV data_create(struct call *c, const struct template *t,
                  CK_OBJECT_HANDLE *out);
CK_RV admin_key_create(struct call *c, const struct template *t,
                       CK_OBJECT_HANDLE *out);
CK_RV admin_key_generate(struct call *c, const struct template *t,
                         CK_OBJECT_HANDLE *out);
/* The label says that the admin key is meant, no lease. */
bool admin_key_meant(const struct template *t);

#endif
