/* What a witness answers: cosignatures, or the size that it knows. */
#include "config.h"

#include "common/file.h"
#include "module/audit/cosign.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static const char note[] =
    "hsmint/test\n3\nAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n\n"
    "\xe2\x80\x94 hsmint/test AAAAAAAA\n";
static const char witness[] =
    "witness.example/w1+3952ada6+BPBviDt3IP+aojyRO0jtYKiicjijj57b8r//192/Y9KF";

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct note_key key;
    struct error e;
    uint64_t size;
    FREE char *out = NULL;
    if (cosign_conflict((const char *)data, len, &size, &e) == OK &&
        size >= INT64_MAX)
        abort();
    if (note_key_parse(&key, witness, &e) != OK)
        abort();
    /* A seed has a good one. */
    if (cosign_take(note, sizeof note - 1, (const char *)data, len, &key, &out,
                    &e) == OK &&
        !strstr(out, key.name))
        abort();
    return 0;
}
