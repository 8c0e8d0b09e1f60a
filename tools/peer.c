#include "config.h"

#include "tools/peer.h"

#include "common/file.h"
#include "tools/cgroup.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#ifndef SO_PEERGROUPS
#define SO_PEERGROUPS 59
#endif
#define GROUPS_FIRST 64
#define FILE_MAX (64 * 1024)
#define STATUS_MAX 2048 /* Uid: is among its first lines */
#define OVERFLOW_ID 65534

/* ---- what does not change while we run ---- */

static struct {
    pthread_once_t once;
    char uid_map[4096]; /* ours */
    uid_t overflow_uid; /* stands for all that we cannot name */
    gid_t overflow_gid;
} own = {.once = PTHREAD_ONCE_INIT};

/* At most cap - 1 bytes, and a NUL; its length, or -1. */
static ssize_t read_text(int dir, const char *name, char *text, size_t cap)
{
    FD fd = openat(dir, name, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    size_t used = 0;
    ssize_t n = -1;
    text[0] = '\0';
    if (fd < 0)
        return -1;
    while (used < cap - 1 && (n = read(fd, text + used, cap - 1 - used)) > 0)
        used += (size_t)n;
    text[used] = '\0';
    return n < 0 ? -1 : (ssize_t)used;
}

static unsigned overflow_id(const char *path)
{
    char text[32];
    if (read_text(AT_FDCWD, path, text, sizeof text) <= 0)
        return OVERFLOW_ID;
    return (unsigned)strtoul(text, NULL, 10);
}

static void look_at_ourselves(void)
{
    if (read_text(AT_FDCWD, "/proc/self/uid_map", own.uid_map,
                  sizeof own.uid_map) < 0)
        own.uid_map[0] = '\0';
    own.overflow_uid = overflow_id("/proc/sys/kernel/overflowuid");
    own.overflow_gid = overflow_id("/proc/sys/kernel/overflowgid");
}

/* ---- groups ---- */

/* The kernel says how many there are when they do not fit. */
static enum code peer_groups(int fd, gid_t **gids, size_t *n, struct error *e)
{
    socklen_t size = GROUPS_FIRST * sizeof(gid_t);
    for (;;) {
        gid_t *more = realloc(*gids, sizeof(gid_t) + size);
        if (!more)
            return error_set(e, ERR_NOMEM, "groups of a peer");
        *gids = more;
        socklen_t len = size;
        if (getsockopt(fd, SOL_SOCKET, SO_PEERGROUPS, more + 1, &len) == 0) {
            *n = 1 + len / sizeof(gid_t);
            return OK;
        }
        if (errno != ERANGE || len <= size)
            return error_errno(e, errno, "SO_PEERGROUPS");
        size = len;
    }
}

static enum code take_groups(int fd, const struct wire_peer *peer,
                             struct identity *id, struct error *e)
{
    size_t n = 0;
    enum code rc = peer_groups(fd, &id->gids, &n, e);
    if (rc)
        return rc;
    id->gids[0] = peer->gid;
    for (size_t i = 0; i < n; i++)
        if (id->gids[i] != own.overflow_gid)
            id->gids[id->gids_n++] = id->gids[i];
    return OK;
}

/* ---- the process ---- */

static bool has_ended(int pidfd)
{
    struct pollfd p = {.fd = pidfd, .events = POLLIN};
    return poll(&p, 1, 0) != 0;
}

/* The value behind "\nNAME:\t", or NULL. */
static const char *line_of(const char *text, const char *name)
{
    char wanted[32];
    snprintf(wanted, sizeof wanted, "\n%s:\t", name);
    const char *at = strstr(text, wanted);
    return at ? at + strlen(wanted) : NULL;
}

/* The process's number in the /proc that we see (0: none), and whether it is
 * in a pid namespace below: by the kernel's word on the pidfd. */
static pid_t number_of(int pidfd, bool *nested)
{
    char path[64], text[1024];
    snprintf(path, sizeof path, "/proc/self/fdinfo/%d", pidfd);
    *nested = true;
    if (read_text(AT_FDCWD, path, text, sizeof text) < 0)
        return 0;
    const char *pid = line_of(text, "Pid");
    const char *pids = line_of(text, "NSpid");
    long number = pid ? strtol(pid, NULL, 10) : 0;
    if (pids)
        *nested = memchr(pids, '\t', strcspn(pids, "\n")) != NULL;
    return number > 0 && number <= INT_MAX ? (pid_t)number : 0;
}

/* In a user namespace of its own a process may have taken a subordinate uid or
 * dropped groups. Whose that namespace is, and what is between it and ours,
 * cannot be seen from here. */
static bool is_in_our_users(int dir)
{
    char map[4096];
    return read_text(dir, "uid_map", map, sizeof map) > 0 &&
           strcmp(map, own.uid_map) == 0;
}

static int64_t number_in(int dir, const char *name)
{
    char text[32];
    if (read_text(dir, name, text, sizeof text) <= 0)
        return IDENTITY_UNSET;
    unsigned long n = strtoul(text, NULL, 10);
    return n >= UINT32_MAX ? IDENTITY_UNSET : (int64_t)n;
}

static void take_cgroup(int dir, struct identity *id,
                        char unit[CGROUP_UNIT_MAX])
{
    FREE char *text = malloc(FILE_MAX);
    ssize_t len = text ? read_text(dir, "cgroup", text, FILE_MAX) : -1;
    if (len <= 0 || len == FILE_MAX - 1)
        return;
    (void)cgroup_unit(text, (size_t)len, unit);
    id->place = 14695981039346656037u; /* FNV-1a */
    for (ssize_t i = 0; i < len; i++)
        id->place = (id->place ^ (uint8_t)text[i]) * 1099511628211u;
}

/* Where the kernel does not give us the pidfd of whoever connected, a pid may
 * be another's by now. It then has to be one of the same uid. */
static bool is_same_uid(int dir, uid_t uid)
{
    char text[STATUS_MAX];
    unsigned long real, effective;
    if (read_text(dir, "status", text, sizeof text) <= 0)
        return false;
    const char *at = line_of(text, "Uid");
    return at && sscanf(at, "%lu %lu", &real, &effective) == 2 &&
           effective == uid;
}

struct looked { /* at /proc/PID */
    char unit[CGROUP_UNIT_MAX];
    char exe[PATH_MAX];
    bool any_uid;
};

/* Only the link is read, never what it points to: that may be on a file system
 * that does not answer. */
static void take_exe(int dir, char exe[PATH_MAX])
{
    static const char deleted[] = " (deleted)";
    ssize_t n = readlinkat(dir, "exe", exe, PATH_MAX - 1);
    if (n <= 0 || exe[0] != '/')
        n = 0;
    size_t len = (size_t)n, tail = sizeof deleted - 1;
    if (len >= tail && memcmp(exe + len - tail, deleted, tail) == 0)
        len = 0;
    exe[len] = '\0';
}

/* All of it through one descriptor, which stays with the process whatever
 * becomes of its number; and that it was the peer, the pidfd says at the end. */
static bool look(const struct wire_peer *peer, struct identity *id,
                 struct looked *l)
{
    bool nested;
    char path[32];
    pid_t pid = peer->pidfd >= 0 ? number_of(peer->pidfd, &nested) : 0;
    if (pid == 0)
        return false;
    snprintf(path, sizeof path, "/proc/%d", (int)pid);
    FD dir = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (dir < 0)
        return false;
    take_cgroup(dir, id, l->unit);
    take_exe(dir, l->exe);
    /* Root of a container may take any uid, and make a user namespace as it. */
    l->any_uid = nested || !is_in_our_users(dir);
    id->login_uid = number_in(dir, "loginuid");
    id->audit_session = number_in(dir, "sessionid");
    return (peer->vouched || is_same_uid(dir, peer->uid)) &&
           !has_ended(peer->pidfd);
}

enum code peer_identify(int fd, const struct wire_peer *peer,
                        struct identity *out, struct error *e)
{
    struct looked l = {.any_uid = true};
    CLEANUP(identity_clear)
    struct identity id = {.uid = peer->uid,
                          .pid = peer->pid,
                          .login_uid = IDENTITY_UNSET,
                          .audit_session = IDENTITY_UNSET};
    pthread_once(&own.once, look_at_ourselves);
    enum code rc = take_groups(fd, peer, &id, e);
    if (rc)
        return rc;
    if (!look(peer, &id, &l)) {
        l = (struct looked){.any_uid = true};
        id.login_uid = id.audit_session = IDENTITY_UNSET;
        id.place = 0;
    }
    id.borrowed = l.any_uid || id.uid == own.overflow_uid;
    id.unit = strdup(l.unit);
    id.exe = strdup(l.exe);
    if (!id.unit || !id.exe)
        return error_set(e, ERR_NOMEM, "identity of process %d", (int)id.pid);
    *out = id;
    id = (struct identity){.uid = 0};
    return OK;
}
