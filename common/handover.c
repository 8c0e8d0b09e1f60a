/* handover - see handover.h. */
#include "config.h"

#include "common/deadline.h"
#include "common/handover.h"

#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define MAGIC 0x686d4331u /* "hmC1" */
#define HANDOVER_VERSION 1

struct header {
    uint32_t magic;
    uint16_t version;
    uint16_t count;
};
_Static_assert(sizeof(struct header) == 8, "spec/KEEPER.md");

/* One more than may come: what is too much is seen, not cut off. */
union control {
    struct cmsghdr head;
    char space[CMSG_SPACE((HANDOVER_MAX + 1) * sizeof(int))];
};

void handover_clear(struct handover *h)
{
    while (h->n > 0)
        close(h->fd[--h->n]);
}

enum code handover_send(int sock, const int *fds, int n, int deadline_ms,
                        struct error *e)
{
    struct header h = {MAGIC, HANDOVER_VERSION, (uint16_t)n};
    struct iovec part = {&h, sizeof h};
    union control c = {.space = {0}};
    size_t size = (size_t)n * sizeof *fds;
    if (n < 1 || n > HANDOVER_MAX)
        return error_set(e, ERR_INTERNAL, "%d channels to hand over", n);
    struct msghdr m = {.msg_iov = &part,
                       .msg_iovlen = 1,
                       .msg_control = &c,
                       .msg_controllen = CMSG_SPACE(size)};
    c.head = (struct cmsghdr){.cmsg_level = SOL_SOCKET,
                              .cmsg_type = SCM_RIGHTS,
                              .cmsg_len = CMSG_LEN(size)};
    memcpy(CMSG_DATA(&c.head), fds, size);
    enum code rc = deadline_wait(sock, POLLOUT, deadline_after(deadline_ms), e);
    if (rc)
        return rc;
    ssize_t sent = sendmsg(sock, &m, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (sent == (ssize_t)sizeof h)
        return OK;
    if (sent < 0 && (errno == EPIPE || errno == ECONNRESET))
        return error_set(e, ERR_DAEMON_DOWN, "the other side is gone");
    return error_errno(e, sent < 0 ? errno : EIO, "hand over the channels");
}

static bool is_stream(int fd)
{
    int type = 0, domain = 0;
    socklen_t len = sizeof type;
    struct sockaddr peer;
    socklen_t peer_len = sizeof peer;
    return getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &len) == 0 &&
           getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &len) == 0 &&
           type == SOCK_STREAM && domain == AF_UNIX &&
           getpeername(fd, &peer, &peer_len) == 0;
}

/* Every descriptor that came, so that none stays open unseen. */
static bool take(struct msghdr *m, struct handover *h)
{
    bool good = !(m->msg_flags & (MSG_CTRUNC | MSG_TRUNC));
    for (struct cmsghdr *c = CMSG_FIRSTHDR(m); c; c = CMSG_NXTHDR(m, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
            continue;
        size_t n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < n; i++) {
            int fd;
            memcpy(&fd, CMSG_DATA(c) + i * sizeof fd, sizeof fd);
            if (h->n < HANDOVER_MAX) {
                h->fd[h->n++] = fd;
                continue;
            }
            close(fd);
            good = false;
        }
    }
    return good;
}

static enum code check(const struct header *got, ssize_t size, bool whole,
                       const struct handover *h, struct error *e)
{
    if (size != (ssize_t)sizeof *got || got->magic != MAGIC)
        return error_set(e, ERR_PROTOCOL,
                         "what came is no handover of channels");
    if (got->version != HANDOVER_VERSION)
        return error_set(e, ERR_PROTOCOL,
                         "daemon and keeper are of different versions (%u and "
                         "%d): start both again",
                         got->version, HANDOVER_VERSION);
    if (!whole || h->n < 1 || got->count != h->n)
        return error_set(e, ERR_PROTOCOL,
                         "a handover of %u channels brought %d descriptors",
                         got->count, h->n);
    for (int i = 0; i < h->n; i++)
        if (!is_stream(h->fd[i]))
            return error_set(e, ERR_PROTOCOL,
                             "channel %d of the handover is no connected "
                             "socket",
                             i);
    return OK;
}

enum code handover_recv(int sock, struct handover *h, int deadline_ms,
                        struct error *e)
{
    struct header got = {0};
    struct iovec part = {&got, sizeof got};
    union control c = {.space = {0}};
    struct msghdr m = {.msg_iov = &part,
                       .msg_iovlen = 1,
                       .msg_control = &c,
                       .msg_controllen = sizeof c};
    *h = (struct handover){.n = 0};
    enum code rc = deadline_wait(sock, POLLIN, deadline_after(deadline_ms), e);
    if (rc)
        return rc;
    ssize_t size = recvmsg(sock, &m, MSG_CMSG_CLOEXEC | MSG_DONTWAIT);
    if (size < 0)
        return error_errno(e, errno, "receive the channels");
    bool whole = take(&m, h);
    rc = size == 0 ? error_set(e, ERR_DAEMON_DOWN, "the other side is gone")
                   : check(&got, size, whole, h, e);
    if (rc)
        handover_clear(h);
    return rc;
}
