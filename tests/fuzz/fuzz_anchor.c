/* The log's anchor, as somebody may have put it on the HSM. */
#include "config.h"

#include "common/file.h"
#include "hsm/anchor.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct anchor a;
    struct note note;
    struct error e = {.code = OK};
    char origin[NOTE_NAME_MAX];
    JSON json = NULL;
    enum code rc = anchor_parse(&a, data, len, &json, &note, &e);
    if (rc && (rc != ERR_SEAL || !e.text[0] || json))
        abort();
    if (rc)
        return 0;
    if (note.n == 0 || !a.checkpoint.origin[0] || a.checkpoint.size > INT64_MAX)
        abort();
    /* An origin of epoch 0 names a log; one of another is such a name's. */
    if (a.epoch == 0 &&
        anchor_origin(origin, a.checkpoint.origin, 0, &e) != OK)
        abort();
    return 0;
}
