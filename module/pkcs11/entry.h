/* entry - the C_* functions are in entry.c and unsupported.c; interface.c puts
 * them into lists. */
#ifndef HSMINT_ENTRY_H
#define HSMINT_ENTRY_H

#include "module/pkcs11/cryptoki.h"

#include <stdbool.h>
#include <stddef.h>

/* C_GetInfo of the interface of this version. */
CK_RV entry_info(CK_INFO *info, CK_BYTE major, CK_BYTE minor);

#endif
