#include "config.h"

#include "common/file.h"
#include "common/text.h"

#include <endian.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/xattr.h>
#include <unistd.h>

void fd_closep(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

void free_p(void *p)
{
    free(*(void **)p);
    *(void **)p = NULL;
}

/* ---- POSIX ACLs, as the kernel gives them (linux/posix_acl_xattr.h) ---- */

struct acl_entry {
    uint16_t tag, perm; /* little-endian */
    uint32_t id;
};
enum { ACL_BYTES = 1024, ACL_VERSION = 2, ACL_READ = 4 };
enum { ACL_USER_OBJ = 1, ACL_USER = 2, ACL_MASK = 16 };

static bool acl_entry_is_ours(const struct acl_entry *a)
{
    uint32_t id = le32toh(a->id);
    switch (le16toh(a->tag)) {
    case ACL_USER_OBJ:
    case ACL_MASK:
        return true;
    case ACL_USER:
        return id == 0 || id == geteuid();
    default: /* groups and others */
        return !(le16toh(a->perm) & ACL_READ);
    }
}

/* Where a file has an access control list, its group bits are the list's mask:
 * who may read stands in the list. systemd gives credentials to a unit so. */
static bool only_we_read(int fd)
{
    uint8_t acl[ACL_BYTES];
    ssize_t len = fgetxattr(fd, "system.posix_acl_access", acl, sizeof acl);
    uint32_t version;
    if (len < (ssize_t)sizeof version)
        return false;
    memcpy(&version, acl, sizeof version);
    if (le32toh(version) != ACL_VERSION)
        return false;
    for (size_t at = sizeof version; at < (size_t)len;
         at += sizeof(struct acl_entry)) {
        struct acl_entry entry;
        if ((size_t)len - at < sizeof entry)
            return false;
        memcpy(&entry, acl + at, sizeof entry);
        if (!acl_entry_is_ours(&entry))
            return false;
    }
    return true;
}

static enum code check_trust(const char *path, int fd, const struct stat *st,
                             enum file_trust trust, struct error *e)
{
    if (trust == FILE_ANY)
        return OK;
    if (st->st_uid != 0 && st->st_uid != geteuid())
        return error_set(e, ERR_DENIED, "%s: belongs to uid %u: chown %u '%s'",
                         path, (unsigned)st->st_uid, (unsigned)geteuid(), path);
    if (st->st_mode & (S_IWGRP | S_IWOTH))
        return error_set(e, ERR_DENIED,
                         "%s: others may write it (mode %04o): chmod go-w '%s'",
                         path, st->st_mode & 07777u, path);
    if (trust == FILE_PRIVATE && (st->st_mode & (S_IRGRP | S_IROTH)) &&
        (st->st_mode & S_IROTH || !only_we_read(fd)))
        return error_set(e, ERR_DENIED,
                         "%s: others may read it (mode %04o): chmod 0600 '%s'",
                         path, st->st_mode & 07777u, path);
    return OK;
}

static enum code open_error(struct error *e, int errnum, const char *path)
{
    if (errnum == ENOENT)
        return error_set(e, ERR_NOT_FOUND, "%s: no such file", path);
    if (errnum == ELOOP)
        return error_set(e, ERR_DENIED,
                         "%s: is a symbolic link: name the file itself", path);
    return error_errno(e, errnum, "%s", path);
}

/* O_NONBLOCK: a FIFO in the file's place must not hold us. */
static enum code open_trusted(const char *path, enum file_trust trust, int *fd,
                              struct error *e)
{
    FD opened =
        open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY);
    *fd = -1;
    if (opened < 0)
        return open_error(e, errno, path);
    struct stat st;
    if (fstat(opened, &st) != 0)
        return error_errno(e, errno, "%s", path);
    if (!S_ISREG(st.st_mode))
        return error_set(e, ERR_INVALID, "%s: is no regular file", path);
    enum code rc = check_trust(path, opened, &st, trust, e);
    if (rc)
        return rc;
    *fd = opened;
    opened = -1;
    return OK;
}

/* At most `room` bytes; fewer only at the end of the file. */
static enum code read_whole(int fd, const char *path, char *to, size_t room,
                            size_t *len, struct error *e)
{
    size_t at = 0;
    while (at < room) {
        ssize_t n = read(fd, to + at, room - at);
        if (n == 0)
            break;
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return error_errno(e, errno, "%s", path);
        at += (size_t)n;
    }
    *len = at;
    return OK;
}

enum code file_read(const char *path, size_t max, enum file_trust trust,
                    char **out, size_t *len, struct error *e)
{
    FD fd = -1;
    *out = NULL;
    enum code rc = open_trusted(path, trust, &fd, e);
    if (rc)
        return rc;
    struct stat st;
    if (fstat(fd, &st) != 0)
        return error_errno(e, errno, "%s", path);
    if ((uint64_t)st.st_size > max)
        return error_set(e, ERR_INVALID, "%s: larger than %zu bytes", path,
                         max);
    /* Files of /proc say 0; others may grow while they are read. */
    size_t room = (st.st_size ? (size_t)st.st_size : max) + 1;
    char *text = malloc(room + 1);
    if (!text)
        return error_set(e, ERR_NOMEM, "%s: out of memory", path);
    size_t n = 0;
    rc = read_whole(fd, path, text, room, &n, e);
    if (!rc && n == room)
        rc = error_set(e, ERR_INVALID, "%s: grew while it was read", path);
    if (rc) {
        free(text);
        return rc;
    }
    text[n] = '\0';
    *out = text;
    if (len)
        *len = n;
    return OK;
}

enum code file_read_secret(const char *path, size_t max, enum file_trust trust,
                           struct secret **out, struct error *e)
{
    FD fd = -1;
    *out = NULL;
    enum code rc = open_trusted(path, trust, &fd, e);
    if (!rc)
        rc = secret_from_fd(out, fd, max, -1, false, e);
    if (rc == ERR_INVALID && fd >= 0)
        return error_prefix(e, "%s", path);
    return rc;
}

static enum code write_whole(int fd, const void *data, size_t len,
                             const char *path, struct error *e)
{
    const char *p = data;
    while (len) {
        ssize_t n = write(fd, p, len);
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return error_errno(e, errno, "%s", path);
        p += n;
        len -= (size_t)n;
    }
    return OK;
}

static enum code fill_and_rename(int dir, const char *temporary,
                                 const char *path, const char *name,
                                 const void *data, size_t len, mode_t mode,
                                 struct error *e)
{
    FD fd = openat(dir, temporary,
                   O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return error_errno(e, errno, "%s", path);
    enum code rc = write_whole(fd, data, len, path, e);
    if (!rc && (fchmod(fd, mode) != 0 || fsync(fd) != 0 ||
                renameat(dir, temporary, dir, name) != 0))
        rc = error_errno(e, errno, "%s", path);
    if (rc)
        unlinkat(dir, temporary, 0);
    return rc;
}

enum code file_write_atomic(const char *path, const void *data, size_t len,
                            mode_t mode, struct error *e)
{
    const char *slash = strrchr(path, '/');
    const char *name = slash ? slash + 1 : path;
    FREE char *parent =
        slash ? strndup(path, (size_t)(slash - path) + 1) : strdup(".");
    if (!parent)
        return error_set(e, ERR_NOMEM, "%s: out of memory", path);
    FD dir = open(parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dir < 0)
        return open_error(e, errno, parent);
    char suffix[17], temporary[NAME_MAX + 1];
    enum code rc = text_random_suffix(suffix, sizeof suffix - 1, e);
    if (rc)
        return rc;
    int n = snprintf(temporary, sizeof temporary, ".%.200s.%s", name, suffix);
    if (n < 0 || !*name)
        return error_set(e, ERR_INVALID, "%s: no file name", path);
    rc = fill_and_rename(dir, temporary, path, name, data, len, mode, e);
    if (rc)
        return rc;
    if (fsync(dir) != 0)
        return error_errno(e, errno, "%s", parent);
    return OK;
}

/* Also where it is there already: whoever made it may have been killed then. */
enum code file_make_dir(const char *path, mode_t mode, struct error *e)
{
    const char *slash = strrchr(path, '/');
    FREE char *parent = slash == path ? strdup("/")
                        : slash ? strndup(path, (size_t)(slash - path))
                                : strdup(".");
    if (!parent)
        return error_set(e, ERR_NOMEM, "%s: out of memory", path);
    if (mkdir(path, mode) != 0 && errno != EEXIST)
        return error_errno(e, errno, "cannot make %s", path);
    FD dir = open(parent, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dir < 0 || fsync(dir) != 0)
        return error_errno(e, errno, "%s", parent);
    return OK;
}

static enum code make_parents(const char *path, struct error *e)
{
    FREE char *copy = strdup(path);
    if (!copy)
        return error_set(e, ERR_NOMEM, "%s: out of memory", path);
    for (char *p = strchr(copy + 1, '/'); p; p = strchr(p + 1, '/')) {
        *p = '\0';
        if (mkdir(copy, 0700) != 0 && errno != EEXIST)
            return error_errno(e, errno, "%s", copy);
        *p = '/';
    }
    return OK;
}

enum code file_private_dir(const char *path, bool parents, struct error *e)
{
    enum code rc = parents ? make_parents(path, e) : OK;
    if (rc)
        return rc;
    if (mkdir(path, 0700) != 0 && errno != EEXIST)
        return error_errno(e, errno, "%s: cannot be made", path);
    FD dir = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC | O_NOFOLLOW);
    if (dir < 0 && errno == ENOTDIR)
        return error_set(e, ERR_DENIED, "%s: is no directory (or a link)",
                         path);
    if (dir < 0)
        return open_error(e, errno, path);
    struct stat st;
    if (fstat(dir, &st) != 0)
        return error_errno(e, errno, "%s", path);
    if (st.st_uid != geteuid())
        return error_set(e, ERR_DENIED, "%s: belongs to uid %u: chown %u '%s'",
                         path, (unsigned)st.st_uid, (unsigned)geteuid(), path);
    if (st.st_mode & (S_IRWXG | S_IRWXO))
        return error_set(e, ERR_DENIED,
                         "%s: others may enter it (mode %04o): chmod 0700 '%s'",
                         path, st.st_mode & 07777u, path);
    return OK;
}

enum code file_lock(const char *path, int *fd, struct error *e)
{
    *fd = -1;
    FD opened =
        open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NOCTTY, 0600);
    if (opened < 0)
        return open_error(e, errno, path);
    int rc;
    do {
        rc = flock(opened, LOCK_EX | LOCK_NB);
    } while (rc != 0 && errno == EINTR);
    if (rc != 0 && errno == EWOULDBLOCK)
        return error_set(e, ERR_BUSY, "%s: locked by another process", path);
    if (rc != 0)
        return error_errno(e, errno, "%s", path);
    *fd = opened;
    opened = -1;
    return OK;
}

enum code file_free_bytes(const char *path, uint64_t *bytes, struct error *e)
{
    struct statvfs v;
    if (statvfs(path, &v) != 0)
        return error_errno(e, errno, "%s", path);
    *bytes = (uint64_t)v.f_bavail * v.f_frsize;
    return OK;
}
