/* Which key sealed a blob, as far as the daemon can tell: a label that is short,
 * printed as it is, and in the blob. */
#include "config.h"

#include "module/core/sealed.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    char label[SEALED_LABEL_MAX];
    uint8_t *copy = malloc(len ? len : 1); /* its end is an end */

    if (!copy)
        return 0;
    memcpy(copy, data, len);
    if (sealed_label(copy, len, label) &&
        (!*label || strlen(label) >= SEALED_LABEL_MAX ||
         memmem(copy, len, label, strlen(label)) == NULL))
        abort();
    free(copy);
    return 0;
}
