/* Pins: what is taken is written again with the same meaning. */
#include "config.h"

#include "hsm/keys.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    JSON pins = NULL;
    JSON out = NULL;
    struct keyset *k CLEANUP(keyset_freep) = NULL;
    if (json_parse((const char *)data, len, "pins", &pins, NULL) != OK ||
        keyset_parse(pins, &k, NULL) != OK)
        return 0;
    if (keyset_json(k, &out, NULL) != OK || !json_object_get(out, "pins"))
        abort();
    struct keyset *again CLEANUP(keyset_freep) = NULL;
    if (keyset_parse(json_object_get(out, "pins"), &again, NULL) != OK)
        abort();
    return 0;
}
