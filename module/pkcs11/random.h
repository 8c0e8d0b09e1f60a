/* random - C_GenerateRandom: numbers of the HSM's generator, by way of the
 * daemon. No login is needed, as the standard has it. */
#ifndef HSMINT_RANDOM_H
#define HSMINT_RANDOM_H

#include "module/pkcs11/module.h"

#define RANDOM_MAX (64 * 1024) /* of one call; a count above is a mistake */

CK_RV random_generate(struct call *c, CK_BYTE *out, CK_ULONG n);
CK_RV random_seed(struct call *c, const CK_BYTE *seed, CK_ULONG n);

#endif
