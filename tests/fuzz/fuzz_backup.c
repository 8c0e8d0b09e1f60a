/* What stands before the database in a backup: somebody may have written it. */
#include "config.h"

#include "tools/hsmint_backup.h"

#include <ctype.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void promise(bool kept)
{
    if (!kept)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct error e = {0};
    struct backup_head h;
    size_t n = size < BACKUP_HEAD_MAX ? size : BACKUP_HEAD_MAX;
    enum code rc = backup_head_parse((const char *)data, n, &h, &e);
    if (rc) {
        promise(e.code == rc && *e.text);
        return 0;
    }
    promise(h.length <= n && data[h.length - 1] == '\n');
    promise(h.size > 0 && h.time_ms >= 0 && strlen(h.sha256) == 64);
    for (const char *c = h.instance; *c; c++)
        promise(!iscntrl((unsigned char)*c));
    for (const char *c = h.version; *c; c++)
        promise(!iscntrl((unsigned char)*c));
    return 0;
}
