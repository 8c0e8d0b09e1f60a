#include "config.h"

#include "module/store/state.h"

#include "common/clock.h"
#include "common/file.h"
#include "common/log.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define LOOK_MS 1000

/* The file system may be shared: what is only left free can be taken by
 * others, so half of the reserve is taken beforehand. A revocation needs some
 * 40 KiB of the log, which is used again and again. */
static enum code make_file(struct reserve *r, struct error *e)
{
    FD fd = open(r->path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0)
        return error_errno(e, errno, "cannot make %s", r->path);
    int rc = posix_fallocate(fd, 0, (off_t)r->file_size);
    r->there = rc == 0;
    if (rc == 0)
        return OK;
    (void)unlink(r->path);
    return error_errno(e, rc, "cannot reserve %" PRIu64 " bytes in %s",
                       r->file_size, r->path);
}

/* One of another size is of another configuration, or half made. */
static void find_file(struct reserve *r)
{
    struct stat st;
    r->there = lstat(r->path, &st) == 0 && S_ISREG(st.st_mode) &&
               (uint64_t)st.st_size == r->file_size && r->file_size > 0 &&
               (uint64_t)st.st_blocks * 512 >= r->file_size;
    if (!r->there)
        (void)unlink(r->path);
}

/* A full disk is no reason not to start: revocations have to go on. */
static void look(struct store *s)
{
    struct reserve *r = &s->reserve;
    struct error e = {.code = OK};
    uint64_t bytes = 0;
    r->looked = true;
    r->looked_ms = clock_monotonic_ms();
    if (file_free_bytes(s->dir, &bytes, &e) != OK) {
        log_failure(&e, "disk reserve of %s", s->dir);
        return;
    }
    if (!r->there && bytes >= r->low_water + r->file_size) {
        if (make_file(r, &e) != OK)
            log_failure(&e, "disk reserve of %s", s->dir);
        else
            bytes -= r->file_size;
    }
    bool low = bytes < r->low_water;
    if (low != r->low)
        log_warning("%s: %s", s->dir,
                    low ? "below the disk reserve: mints are refused"
                        : "above the disk reserve again");
    r->low = low;
}

enum code reserve_init(struct store *s, uint64_t bytes, struct error *e)
{
    struct reserve *r = &s->reserve;
    r->low_water = bytes;
    r->file_size = bytes / 2;
    if (asprintf(&r->path, "%s/" STORE_RESERVE_FILE, s->dir) < 0) {
        r->path = NULL;
        return error_set(e, ERR_NOMEM, "store %s: out of memory", s->dir);
    }
    find_file(r);
    if (bytes > 0)
        look(s);
    return OK;
}

void reserve_clear(struct reserve *r)
{
    free(r->path);
    r->path = NULL;
}

enum code reserve_check(struct store *s, struct error *e)
{
    struct reserve *r = &s->reserve;
    if (r->low_water == 0)
        return OK;
    if (!r->looked || clock_monotonic_ms() - r->looked_ms >= LOOK_MS)
        look(s);
    if (!r->low)
        return OK;
    return error_set(e, ERR_DISK_FULL,
                     "%s: less than %" PRIu64 " MiB free, which is kept for "
                     "revocations: free some space or lower disk_reserve",
                     s->dir, r->low_water >> 20);
}

bool reserve_spend(struct store *s)
{
    struct reserve *r = &s->reserve;
    if (!r->there || unlink(r->path) != 0)
        return false;
    r->there = false;
    log_warning("%s: the disk is full: gave up the reserve file so that "
                "revocations go on",
                s->dir);
    return true;
}
