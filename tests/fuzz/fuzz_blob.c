/* Sealed blobs: what parses is written again to the same bytes. */
#include "config.h"

#include "hsm/blob.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct blob b;
    uint8_t header[BLOB_HEADER_MAX];
    uint8_t *again = NULL;
    size_t header_len, again_len;
    if (blob_parse(data, len, &b, NULL) != OK)
        return 0;
    if (blob_header(&b.subject, b.mechanism, b.label, header, &header_len,
                    NULL) != OK ||
        blob_build(header, header_len, &b.sealed, &again, &again_len, NULL) !=
            OK ||
        header_len != b.header_len || again_len != b.signed_len ||
        memcmp(again, data, again_len) != 0)
        abort();
    free(again);
    return 0;
}
