/* release - see release.h. */
#include "config.h"

#include "module/core/release.h"

#include "common/file.h"
#include "module/core/internal.h"
#include "module/core/logbook.h"

#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* The application; without one the process, as far as it is known. */
static enum code mark_of(const struct caller *by, const struct store_lease *l,
                         struct release_mark *mark, struct error *e)
{
    FREE char *text = NULL;
    uint8_t hash[32];
    int n = by->application && *by->application
                ? asprintf(&text, "%s %s", l->id, by->application)
                : asprintf(&text, "%s %s %d", l->id, by->owner, (int)by->pid);
    if (n < 0) {
        text = NULL;
        return error_set(e, ERR_NOMEM, "lease %s: its value", l->id);
    }
    if (EVP_Digest(text, strlen(text), hash, NULL, EVP_sha256(), NULL) != 1)
        return error_set(e, ERR_NOMEM, "lease %s: its value", l->id);
    memcpy(mark->bytes, hash, sizeof mark->bytes);
    return OK;
}

static struct release_mark *place_of(struct releases *r,
                                     const struct release_mark *mark)
{
    return &r->kept[(mark->bytes[0] << 8 | mark->bytes[1]) % RELEASES_KEPT];
}

static bool is_known(struct releases *r, const struct release_mark *mark)
{
    pthread_mutex_lock(&r->lock);
    bool known = memcmp(place_of(r, mark), mark, sizeof *mark) == 0;
    pthread_mutex_unlock(&r->lock);
    return known;
}

static void keep(struct releases *r, const struct release_mark *mark)
{
    pthread_mutex_lock(&r->lock);
    *place_of(r, mark) = *mark;
    pthread_mutex_unlock(&r->lock);
}

enum code release_record(struct core *c, const struct caller *by,
                         const struct store_lease *l, struct error *e)
{
    char org[64];
    struct release_mark mark;
    const struct logbook_entry r = {.kind = RECORD_RELEASE,
                                    .by = by,
                                    .org = org,
                                    .role = l->role,
                                    .lease = l->id};
    enum code code = mark_of(by, l, &mark, e);
    if (code || is_known(&c->releases, &mark))
        return code;
    core_org_name(c, l->org, org);
    code = logbook_commit(c, STORE_NORMAL, &r, e);
    if (code)
        return error_prefix(e, "lease %s: its value is not given out", l->id);
    keep(&c->releases, &mark);
    return OK;
}
