/* A proof file; what is read is written again as it was. */
#include "config.h"

#include "common/file.h"
#include "module/audit/proof.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    PROOF p = {.index = 0};
    RECORD r = {.json = NULL};
    CLEANUP(keyring_freep) struct keyring *keys = NULL;
    FREE char *again = NULL;
    struct checkpoint c;
    struct error e;
    if (proof_parse(&p, (const char *)data, len, &e) != OK)
        return 0;
    if (proof_format(&p, &again, &e) != OK || memcmp(again, data, len) != 0)
        abort();
    if (keyring_new(&keys, &e) == OK &&
        proof_check(&p, keys, &r, &c, &e) == OK)
        abort(); /* there is no key */
    return 0;
}
