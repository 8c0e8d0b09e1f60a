/* backup - a copy of the state for whoever asked, and what it is. */
#include "config.h"

#include "common/clock.h"
#include "common/file.h"
#include "module/core/internal.h"
#include "module/core/logbook.h"

#include <errno.h>
#include <openssl/evp.h>
#include <stdlib.h>
#include <unistd.h>

#define FORMAT 1
enum { CHUNK = 65536 };

static void digest_freep(EVP_MD_CTX **ctx)
{
    EVP_MD_CTX_free(*ctx);
}

static enum code hash(int fd, int64_t *size, char hex[65], struct error *e)
{
    FREE uint8_t *chunk = malloc(CHUNK);
    CLEANUP(digest_freep) EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    uint8_t digest[32];
    ssize_t n = -1;

    *size = 0;
    if (!chunk || !ctx || EVP_DigestInit_ex(ctx, EVP_sha256(), NULL) != 1)
        return error_set(e, ERR_NOMEM, "no memory for a backup");
    while ((n = pread(fd, chunk, CHUNK, *size)) > 0) {
        if (EVP_DigestUpdate(ctx, chunk, (size_t)n) != 1)
            return error_set(e, ERR_NOMEM, "no memory for a backup");
        *size += n;
    }
    if (n < 0)
        return error_errno(e, errno, "cannot read the backup");
    if (EVP_DigestFinal_ex(ctx, digest, NULL) != 1)
        return error_set(e, ERR_NOMEM, "no memory for a backup");
    text_hex(hex, digest, sizeof(digest));
    return OK;
}

static enum code describe(struct core *c, int fd, json_t **manifest,
                          struct error *e)
{
    FREE void *instance = NULL;
    char hex[65];
    int64_t size = 0;
    size_t len;
    enum code code = hash(fd, &size, hex, e);

    if (!code)
        code = store_meta_get(c->store, META_INSTANCE, &instance, &len, e);
    if (code && code != ERR_NOT_FOUND)
        return code;
    error_clear(e);
    *manifest = json_pack("{si ss ss si sI sI ss}", "format", FORMAT,
                          "instance", instance ? (const char *)instance : "",
                          "version", PACKAGE_VERSION, "schema", STORE_SCHEMA,
                          "time_ms", (json_int_t)clock_wall_ms(), "size",
                          (json_int_t)size, "sha256", hex);
    return *manifest ? OK : error_set(e, ERR_NOMEM, "no memory for a backup");
}

/* The record comes first, so that the copy says of itself that it is one. */
enum code core_backup(struct core *c, const struct caller *by, int *fd,
                      json_t **manifest, struct error *e)
{
    const struct logbook_entry entry = {
        .kind = RECORD_BACKUP,
        .by = by,
        .more = json_pack("{ss}", "reason", "asked for")};
    FD copy = -1;
    enum code code = logbook_commit(c, STORE_RESERVE, &entry, e);

    if (!code)
        code = store_backup(c->store, &copy, e);
    if (!code)
        code = describe(c, copy, manifest, e);
    if (code)
        return code;
    *fd = copy;
    copy = -1;
    return OK;
}
