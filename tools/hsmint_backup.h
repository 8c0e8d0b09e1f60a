/* hsmint_backup - what stands before the database in a backup. */
#ifndef HSMINT_TOOLS_HSMINT_BACKUP_H
#define HSMINT_TOOLS_HSMINT_BACKUP_H

#include "tools/hsmint.h"

#define BACKUP_HEAD_MAX 4096

struct backup_head {
    size_t length; /* where the database begins */
    int64_t size;  /* its bytes */
    int64_t time_ms;
    char sha256[65];
    char instance[65], version[32];
};
/* `text`: the file's beginning, BACKUP_HEAD_MAX bytes or all. ERR_INVALID. */
MUST_CHECK enum code backup_head_parse(const char *text, size_t len,
                                       struct backup_head *h, struct error *e);

#endif
