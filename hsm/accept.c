/* accept - see accept.h. */
#include "config.h"

#include "hsm/accept.h"

#include "common/frame.h"
#include "common/wire.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define HANDOVER_MS 5000
#define ANSWER_MS 1000
#define STACK_SIZE (256 * 1024) /* libraries put their thread data there */

static bool environment_is(const char *name, long wanted)
{
    const char *text = getenv(name);
    char *end = NULL;
    return text && *text && strtol(text, &end, 10) == wanted && !*end;
}

enum code accept_check_environment(struct error *e)
{
    int type = 0, listens = 1;
    socklen_t len = sizeof type;
    if (!environment_is("LISTEN_PID", getpid()) ||
        !environment_is("LISTEN_FDS", 1))
        return error_set(e, ERR_USAGE,
                         "--accepted: no connection was handed over "
                         "(LISTEN_FDS=1 and LISTEN_PID); a socket unit with "
                         "Accept=yes or --listen does that");
    if (getsockopt(ACCEPT_FD, SOL_SOCKET, SO_TYPE, &type, &len) ||
        getsockopt(ACCEPT_FD, SOL_SOCKET, SO_ACCEPTCONN, &listens, &len) ||
        type != SOCK_STREAM || listens)
        return error_set(e, ERR_USAGE,
                         "--accepted: descriptor %d is no connection: the "
                         "socket unit needs Accept=yes",
                         ACCEPT_FD);
    return OK;
}

enum code accept_daemon_uid(const struct settings *s, uid_t *uid,
                            struct error *e)
{
    char *end = NULL;
    errno = 0;
    unsigned long n = strtoul(s->user, &end, 10);
    if (s->user[0] >= '0' && s->user[0] <= '9' && !*end) {
        *uid = (uid_t)n;
        if (errno == 0 && n < (uid_t)-1)
            return OK;
    }
    const struct passwd *pw = getpwnam(s->user);
    if (!pw)
        return error_set(e, ERR_CONFIG,
                         "[daemon] user: there is no user %s on this machine",
                         s->user);
    *uid = pw->pw_uid;
    return OK;
}

enum code accept_check_peer(int sock, const struct settings *s, struct error *e)
{
    struct ucred peer = {.uid = (uid_t)-1};
    socklen_t len = sizeof peer;
    uid_t uid = (uid_t)-1;
    enum code rc = accept_daemon_uid(s, &uid, e);
    if (rc)
        return rc;
    if (getsockopt(sock, SOL_SOCKET, SO_PEERCRED, &peer, &len))
        return error_errno(e, errno, "who is the peer");
    if (peer.uid != uid)
        return error_set(e, ERR_DENIED,
                         "this keeper serves %s (uid %u, [daemon] user), not "
                         "uid %u",
                         s->user, (unsigned)uid, (unsigned)peer.uid);
    return OK;
}

enum code accept_channels(const struct settings *s, struct handover *h,
                          struct error *e)
{
    enum code rc = accept_check_peer(ACCEPT_FD, s, e);
    return rc ? rc : handover_recv(ACCEPT_FD, h, HANDOVER_MS, e);
}

/* The daemon says nothing more: anything on this connection is its end. Not
 * exit(): a thread that hangs in the HSM may hold whatever exit() needs. */
static void *watch(void *unused)
{
    struct pollfd p = {.fd = ACCEPT_FD, .events = POLLIN | POLLRDHUP};
    (void)unused;
    while (poll(&p, 1, -1) < 0 && errno == EINTR)
        ;
    _exit(0);
}

enum code accept_ready(struct error *e)
{
    FRAME ready = FRAME_INIT;
    pthread_t thread;
    pthread_attr_t attr;
    if (pthread_attr_init(&attr) ||
        pthread_attr_setstacksize(&attr, STACK_SIZE) ||
        pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED))
        return error_set(e, ERR_INTERNAL, "no thread attributes");
    int failed = pthread_create(&thread, &attr, watch, NULL);
    pthread_attr_destroy(&attr);
    if (failed)
        return error_errno(e, failed, "cannot watch the connection");
    ready.head = json_pack("{s:i}", "pid", (int)getpid());
    if (!ready.head)
        return error_set(e, ERR_NOMEM, "no memory for a reply");
    return frame_send(ACCEPT_FD, &ready, ANSWER_MS, e);
}

void accept_refuse(int sock, const struct error *why)
{
    enum code rc = frame_send_error(sock, why, ANSWER_MS);
    (void)rc; /* a peer that does not listen gets the end instead */
}
