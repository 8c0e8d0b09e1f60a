/* Where the daemon listens, and whether it is the one that we mean. */
#include "config.h"

#include "common/client_socket.h"

#include "common/client.h"
#include "common/file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* A system daemon under a user of its own has its socket in a directory of
 * /run, where only root makes one. Not in any that root once gave away: homes
 * are such. */
static bool is_system_socket(const char *path, uid_t uid)
{
    static const char run[] = "/run/";
    struct stat dir, above;
    const char *slash = strrchr(path, '/');
    char parent[256];
    if (strncmp(path, run, strlen(run)) != 0 ||
        strchr(path + strlen(run), '/') != slash ||
        (size_t)(slash - path) >= sizeof parent)
        return false;
    snprintf(parent, sizeof parent, "%.*s", (int)(slash - path), path);
    if (lstat(parent, &dir) != 0 || stat(run, &above) != 0)
        return false;
    return S_ISDIR(dir.st_mode) && (dir.st_uid == 0 || dir.st_uid == uid) &&
           above.st_uid == 0 &&
           !((dir.st_mode | above.st_mode) & (S_IWGRP | S_IWOTH));
}

enum code client_check_peer(const char *path, int fd, struct error *e)
{
    struct wire_peer peer;
    enum code rc = wire_peer(fd, &peer, e);
    if (rc)
        return rc;
    fd_closep(&peer.pidfd);
    if (peer.uid == geteuid() || peer.uid == 0 ||
        is_system_socket(path, peer.uid))
        return OK;
    return error_set(e, ERR_DENIED,
                     "socket %s: uid %u listens, which is neither you nor the "
                     "system's daemon: nothing was sent",
                     path, (unsigned)peer.uid);
}

static bool is_own_dir(const char *path)
{
    struct stat st;
    return lstat(path, &st) == 0 && S_ISDIR(st.st_mode) &&
           st.st_uid == geteuid() && !(st.st_mode & (S_IWGRP | S_IWOTH));
}

enum code client_default_socket(char *path, size_t cap, struct error *e)
{
    const char *set = secure_getenv("HSMINT_SOCKET");
    const char *runtime = secure_getenv("XDG_RUNTIME_DIR");
    char dir[64];
    snprintf(dir, sizeof dir, "/run/user/%u", (unsigned)geteuid());
    int n;
    if (set && set[0])
        n = snprintf(path, cap, "%s", set);
    else if (access(CLIENT_SYSTEM_SOCKET, F_OK) == 0)
        n = snprintf(path, cap, "%s", CLIENT_SYSTEM_SOCKET);
    else if (runtime && runtime[0] == '/')
        n = snprintf(path, cap, "%s/hsmint/socket", runtime);
    else if (is_own_dir(dir))
        n = snprintf(path, cap, "%s/hsmint/socket", dir);
    else
        return error_set(e, ERR_CONFIG,
                         "no place for the daemon's socket: set "
                         "XDG_RUNTIME_DIR or HSMINT_SOCKET");
    if (n < 0 || (size_t)n >= cap)
        return error_set(e, ERR_CONFIG, "the socket's path is too long");
    return OK;
}
