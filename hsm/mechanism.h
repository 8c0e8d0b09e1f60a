/* mechanism - the names of PKCS#11 mechanisms, for people. */
#ifndef HSMINT_MECHANISM_H
#define HSMINT_MECHANISM_H

#include <p11-kit/pkcs11.h>

/* "CKM_AES_GCM"; NULL: a vendor's, or one that is newer than this program. */
const char *mechanism_name(CK_MECHANISM_TYPE type);

#endif
