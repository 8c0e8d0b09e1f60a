/* attestation - what a HSM's maker says of a key, as far as it can be read
 * without the maker's help: X.509 in PEM or DER. Nothing here trusts it. */
#ifndef HSMINT_AUDIT_ATTESTATION_H
#define HSMINT_AUDIT_ATTESTATION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define ATTESTATION_NAME_MAX 512

struct attestation {
    int certificates; /* 0: it is none, or of a form that is not known */
    /* Of the one that is about the key, else of the first; escaped. */
    char subject[ATTESTATION_NAME_MAX], issuer[ATTESTATION_NAME_MAX];
    bool is_about; /* one of them has this key */
};
/* `spki`: of the key that it is said to be about; len 0: of none. */
void attestation_look(struct attestation *a, const uint8_t *bytes, size_t len,
                      const uint8_t *spki, size_t spki_len);

#endif
