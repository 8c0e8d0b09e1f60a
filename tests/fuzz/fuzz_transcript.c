/* The transcript of a ceremony: what is taken is what would be written again,
 * and its verdict ends. */
#include "config.h"

#include "common/file.h"
#include "module/audit/ceremony.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void judge(const struct transcript *t)
{
    static struct keyring *none;
    struct ceremony_trace trace;
    struct checkpoint c;
    JSON verdict = NULL;
    if (!none && keyring_new(&none, NULL))
        abort();
    if (ceremony_check(t, none, &verdict, NULL) ||
        ceremony_trace_begin(&trace, t, NULL))
        abort();
    if (ceremony_checkpoint(t, &c, NULL))
        return;
}

static void statement(const char *bytes, size_t len)
{
    FREE char *again = NULL;
    JSON t = NULL;
    if (transcript_parse(bytes, len, &t, NULL))
        return;
    if (transcript_format(t, &again, NULL) || strlen(again) != len ||
        memcmp(again, bytes, len) != 0)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    const char *bytes = (const char *)data;
    TRANSCRIPT t = NULL;
    FREE char *again = NULL;
    statement(bytes, len);
    if (transcript_read(bytes, len, &t, NULL))
        return 0;
    if (transcript_write(t, &again, NULL) || strlen(again) != len ||
        memcmp(again, bytes, len) != 0)
        abort();
    judge(t);
    return 0;
}
