/* cryptoki - PKCS#11 2.40 from p11-kit's header (nothing of p11-kit is
 * linked), and what 3.x adds to it. */
#ifndef HSMINT_CRYPTOKI_H
#define HSMINT_CRYPTOKI_H

#include <p11-kit/pkcs11.h>

#ifndef CKA_UNIQUE_ID
#define CKA_UNIQUE_ID (0x4UL)
#endif

/* No template that a program means is longer; a count above is a lie. */
#define TEMPLATE_MAX 256

#endif
