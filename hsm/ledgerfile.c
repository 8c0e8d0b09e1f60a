/* ledgerfile - see ledgerfile.h. */
#include "config.h"

#include "hsm/ledgerfile.h"

#include "common/clock.h"
#include "common/file.h"
#include "common/log.h"
#include "hsm/soft.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define MAGIC 0x686d4c31u /* "hmL1" */
#define NAME "ledger"
#define TAKE_MS 240 /* far below [hsm] deadline; who is about to end has ended */
#define TAKE_NAP_MS 20

struct disk_head {
    uint32_t magic, epoch;
    uint64_t generation, lost, resumed, size;
    uint32_t leaves, unused;
    char origin[NOTE_NAME_MAX];
    uint8_t log_key[32], anchor[32];
    struct merkle_hash full[MERKLE_LEVELS];
};
struct disk_leaf {
    int64_t since_ms;
    struct merkle_hash hash;
};
/* Written behind the head, one after the other, each with the head's
 * generation: those of an older head do not count. */
struct disk_entry {
    uint64_t generation;
    struct disk_leaf leaf;
    uint8_t check[8];
};
#define HEAD_MAX                                                               \
    (sizeof(struct disk_head) + LEAVES_MAX * sizeof(struct disk_leaf) + 32)
#define AREA LEDGERFILE_AREA
#define ENTRIES (2 * AREA)
#define FILE_LEN LEDGERFILE_LEN
_Static_assert(sizeof(struct disk_head) == LEDGERFILE_HEAD, "ledgerfile.h");
_Static_assert(sizeof(struct disk_entry) == LEDGERFILE_ENTRY, "ledgerfile.h");
_Static_assert(HEAD_MAX <= AREA, "a head fits its place");

/* ---- from bytes ---- */

static bool head_is_whole(const uint8_t *area, struct disk_head *d)
{
    uint8_t digest[32];
    memcpy(d, area, sizeof *d);
    if (d->magic != MAGIC || d->generation == 0 || d->leaves > LEAVES_MAX ||
        d->size >> (MERKLE_LEVELS - 1) ||
        !memchr(d->origin, '\0', sizeof d->origin))
        return false;
    size_t len = sizeof *d + d->leaves * sizeof(struct disk_leaf);
    soft_sha256(area, len, digest);
    return memcmp(digest, area + len, sizeof digest) == 0;
}

static void take_leaf(struct leaves *l, const struct disk_leaf *leaf,
                      int64_t now_ms)
{
    (void)leaves_add(l, &leaf->hash,
                     leaf->since_ms < now_ms ? leaf->since_ms : now_ms);
}

static bool take_entry(const uint8_t *at, uint64_t generation,
                       struct leaves *l, int64_t now_ms)
{
    struct disk_entry entry;
    uint8_t digest[32];
    memcpy(&entry, at, sizeof entry);
    soft_sha256(at, offsetof(struct disk_entry, check), digest);
    if (entry.generation != generation || l->n == LEAVES_MAX ||
        memcmp(entry.check, digest, sizeof entry.check) != 0)
        return false;
    take_leaf(l, &entry.leaf, now_ms);
    return true;
}

bool ledgerfile_parse(struct ledgerfile *f, const uint8_t *bytes, size_t len,
                      int64_t now_ms, struct ledger_head *h, struct leaves *l)
{
    struct disk_head heads[2], *d = NULL;
    *l = (struct leaves){.n = 0};
    if (len != FILE_LEN)
        return false;
    for (int i = 0; i < 2; i++)
        if (head_is_whole(bytes + i * AREA, &heads[i]) &&
            (!d || heads[i].generation > d->generation))
            d = &heads[i];
    if (!d)
        return false;
    *h = (struct ledger_head){.epoch = d->epoch,
                              .lost = d->lost,
                              .resumed = d->resumed,
                              .tree.size = d->size};
    memcpy(h->origin, d->origin, sizeof h->origin);
    memcpy(h->log_key, d->log_key, sizeof h->log_key);
    memcpy(h->anchor, d->anchor, sizeof h->anchor);
    memcpy(h->tree.full, d->full, sizeof h->tree.full);
    const uint8_t *at = bytes + (d - heads) * AREA + sizeof *d;
    for (uint32_t i = 0; i < d->leaves; i++, at += sizeof(struct disk_leaf)) {
        struct disk_leaf leaf;
        memcpy(&leaf, at, sizeof leaf);
        take_leaf(l, &leaf, now_ms);
    }
    f->generation = d->generation;
    f->appended = 0;
    at = bytes + ENTRIES;
    while (f->appended < LEAVES_MAX &&
           take_entry(at, d->generation, l, now_ms)) {
        f->appended++;
        at += sizeof(struct disk_entry);
    }
    return true;
}

/* ---- the file ---- */

static enum code write_at(const struct ledgerfile *f, const void *data,
                          size_t len, off_t at, struct error *e)
{
    const uint8_t *p = data;
    while (len > 0) {
        ssize_t n = pwrite(f->fd, p, len, at);
        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return error_errno(e, n < 0 ? errno : EIO,
                               "the keeper's ledger cannot be written");
        p += n;
        at += n;
        len -= (size_t)n;
    }
    return OK;
}

static enum code read_all(int fd, uint8_t *bytes, size_t *len, struct error *e)
{
    *len = 0;
    while (*len <= FILE_LEN) {
        ssize_t n =
            pread(fd, bytes + *len, FILE_LEN + 1 - *len, (off_t)*len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return error_errno(e, errno, "the keeper's ledger");
        if (n == 0)
            break;
        *len += (size_t)n;
    }
    return OK;
}

/* All zero, and the room is there. */
static enum code allocate(int fd, const char *path, struct error *e)
{
    if (ftruncate(fd, 0))
        return error_errno(e, errno, "%s", path);
    int failed = posix_fallocate(fd, 0, FILE_LEN);
    return failed ? error_errno(e, failed, "%s: no room for it", path) : OK;
}

/* Nobody writes what is no file of that name any more. */
static enum code check_ours(int fd, struct error *e)
{
    struct stat st;
    if (fstat(fd, &st))
        return error_errno(e, errno, "the keeper's ledger");
    if (st.st_nlink > 0)
        return OK;
    return error_set(e, ERR_NOT_LOGGED,
                     "another keeper has taken the ledger over: this one makes "
                     "no more calls; if it is another daemon's, give each a "
                     "[hsm] keeper_state_dir of its own");
}

/* ERR_BUSY: who has it has not ended within a moment. */
static enum code lock_file(const char *path, int *fd, struct error *e)
{
    static const struct timespec nap = {.tv_nsec = TAKE_NAP_MS * 1000000};
    for (int ms = 0;; ms += TAKE_NAP_MS) {
        enum code rc = file_lock(path, fd, e);
        if (rc == OK && check_ours(*fd, NULL) == OK)
            return OK;
        if (rc && rc != ERR_BUSY)
            return rc;
        fd_closep(fd); /* busy, or taken over before we had it */
        *fd = -1;
        if (ms >= TAKE_MS)
            return error_set(e, ERR_BUSY, "%s: another keeper has it", path);
        nanosleep(&nap, NULL);
    }
}

/* A keeper that hangs cannot be made to end by a daemon of another uid. Its
 * name goes to a new file first, and what it wrote is read then: of what it
 * still writes it sees that it does not count, before it makes the call. */
static enum code take_over(const char *path, uint8_t *bytes, size_t *len,
                           int *fd, struct error *e)
{
    FREE char *next = NULL;
    FD old = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    if (old < 0)
        return error_errno(e, errno, "%s", path);
    if (asprintf(&next, "%s.next", path) < 0) {
        next = NULL;
        return error_set(e, ERR_NOMEM, "no memory for the keeper's ledger");
    }
    (void)unlink(next);
    enum code rc = file_lock(next, fd, e);
    if (rc == OK)
        rc = allocate(*fd, next, e);
    if (rc == OK && rename(next, path))
        rc = error_errno(e, errno, "%s", path);
    if (rc == OK)
        rc = read_all(old, bytes, len, e);
    if (rc)
        return rc;
    log_warning("%s: taken over from a keeper that has not ended", path);
    const struct ledgerfile to = {.fd = *fd};
    return write_at(&to, bytes, *len, 0, e);
}

enum code ledgerfile_open(struct ledgerfile *f, const char *dir, bool *found,
                          struct ledger_head *h, struct leaves *l,
                          struct error *e)
{
    FREE char *path = NULL;
    FREE uint8_t *bytes = malloc(FILE_LEN + 1);
    FD fd = -1;
    size_t len = 0;
    if (!bytes || asprintf(&path, "%s/" NAME, dir) < 0) {
        path = NULL;
        return error_set(e, ERR_NOMEM, "no memory for the keeper's ledger");
    }
    enum code rc = file_private_dir(dir, true, e);
    if (rc)
        return error_prefix(e, "[hsm] keeper_state_dir");
    rc = lock_file(path, &fd, e);
    if (rc == ERR_BUSY)
        rc = take_over(path, bytes, &len, &fd, e);
    else if (rc == OK)
        rc = read_all(fd, bytes, &len, e);
    if (rc)
        return rc;
    *found = ledgerfile_parse(f, bytes, len, clock_boot_ms(), h, l);
    if (!*found) {
        if (len > 0)
            log_warning("%s: no ledger (any more): the log's anchor has to do",
                        path);
        *l = (struct leaves){.n = 0};
        f->generation = 0;
        if ((rc = allocate(fd, path, e)))
            return rc;
    }
    f->fd = fd;
    fd = -1;
    return OK;
}

void ledgerfile_close(struct ledgerfile *f)
{
    fd_closep(&f->fd);
    *f = (struct ledgerfile)LEDGERFILE_INIT;
}

enum code ledgerfile_write(struct ledgerfile *f, const struct ledger_head *h,
                           const struct leaves *l, struct error *e)
{
    FREE uint8_t *bytes = malloc(HEAD_MAX);
    struct disk_head d = {.magic = MAGIC,
                          .epoch = h->epoch,
                          .generation = f->generation + 1,
                          .lost = h->lost,
                          .resumed = h->resumed,
                          .size = h->tree.size,
                          .leaves = (uint32_t)l->n};
    if (!bytes)
        return error_set(e, ERR_NOMEM, "no memory for the keeper's ledger");
    memcpy(d.origin, h->origin, sizeof d.origin);
    memcpy(d.log_key, h->log_key, sizeof d.log_key);
    memcpy(d.anchor, h->anchor, sizeof d.anchor);
    memcpy(d.full, h->tree.full, sizeof d.full);
    memcpy(bytes, &d, sizeof d);
    size_t len = sizeof d;
    for (size_t i = 0; i < l->n; i++, len += sizeof(struct disk_leaf)) {
        struct disk_leaf leaf = {l->list[i].since_ms, l->list[i].hash};
        memcpy(bytes + len, &leaf, sizeof leaf);
    }
    soft_sha256(bytes, len, bytes + len);
    enum code rc =
        write_at(f, bytes, len + 32, (off_t)(d.generation % 2) * AREA, e);
    if (rc == OK)
        rc = check_ours(f->fd, e);
    if (rc)
        return rc;
    f->generation = d.generation;
    f->appended = 0;
    return OK;
}

enum code ledgerfile_append(struct ledgerfile *f, const struct leaf *leaf,
                            struct error *e)
{
    struct disk_entry entry = {f->generation,
                               {leaf->since_ms, leaf->hash}, {0}};
    uint8_t digest[32];
    if (f->appended >= LEAVES_MAX)
        return error_set(e, ERR_INTERNAL, "the keeper's ledger is full");
    soft_sha256(&entry, offsetof(struct disk_entry, check), digest);
    memcpy(entry.check, digest, sizeof entry.check);
    enum code rc =
        write_at(f, &entry, sizeof entry,
                 ENTRIES + (off_t)(f->appended * sizeof entry), e);
    if (rc == OK)
        rc = check_ours(f->fd, e);
    if (rc == OK)
        f->appended++;
    return rc;
}
