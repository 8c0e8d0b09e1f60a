/* sealed - what the daemon can tell of a sealed blob's bytes without the keeper:
 * spec/SEAL.md, "Blob". Nothing is verified, so it says what to ask the keeper
 * for, and is believed in nothing else.
 */
#ifndef HSMINT_CORE_SEALED_H
#define HSMINT_CORE_SEALED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define SEALED_LABEL_MAX 64

/* Which key of the HSM's sealed it. false: it is no blob. */
bool sealed_label(const uint8_t *blob, size_t len, char label[SEALED_LABEL_MAX]);

#endif
