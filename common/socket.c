#include "config.h"

#include "common/deadline.h"
#include "common/socket.h"

#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

static enum code broken(struct error *e, int errnum, const char *what)
{
    if (errnum == EPIPE || errnum == ECONNRESET || errnum == ENOTCONN)
        return error_set(e, ERR_DAEMON_DOWN, "the other side is gone");
    return error_errno(e, errnum, "%s", what);
}

static void attach(struct msghdr *m, void *space, size_t space_len, int fd)
{
    memset(space, 0, space_len);
    m->msg_control = space;
    m->msg_controllen = CMSG_SPACE(sizeof fd);
    struct cmsghdr *c = CMSG_FIRSTHDR(m);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(sizeof fd);
    memcpy(CMSG_DATA(c), &fd, sizeof fd);
}

/* Skip `sent` bytes; false when none are left. */
static bool advance(struct msghdr *m, size_t sent)
{
    while (m->msg_iovlen && sent >= m->msg_iov->iov_len) {
        sent -= m->msg_iov->iov_len;
        m->msg_iov++;
        m->msg_iovlen--;
    }
    if (!m->msg_iovlen)
        return false;
    m->msg_iov->iov_base = (char *)m->msg_iov->iov_base + sent;
    m->msg_iov->iov_len -= sent;
    return true;
}

enum code socket_send_some(int sock, const struct iovec *parts, size_t n,
                           int fd, size_t *sent, struct error *e)
{
    struct iovec copy[SOCKET_PARTS];
    _Alignas(struct cmsghdr) char control[CMSG_SPACE(sizeof(int))];
    *sent = 0;
    if (n > SOCKET_PARTS)
        return error_set(e, ERR_INTERNAL, "a message in %zu parts", n);
    memcpy(copy, parts, n * sizeof *parts);
    struct msghdr m = {.msg_iov = copy, .msg_iovlen = n};
    if (fd >= 0)
        attach(&m, control, sizeof control, fd);
    for (;;) {
        ssize_t got = sendmsg(sock, &m, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (got >= 0) {
            *sent = (size_t)got;
            return OK;
        }
        if (errno == EAGAIN)
            return OK;
        if (errno != EINTR)
            return broken(e, errno, "send");
    }
}

enum code socket_send(int sock, const struct iovec *parts, size_t n, int fd,
                      int64_t end, struct error *e)
{
    struct iovec left[SOCKET_PARTS];
    if (n > SOCKET_PARTS)
        return error_set(e, ERR_INTERNAL, "a message in %zu parts", n);
    memcpy(left, parts, n * sizeof *parts);
    struct msghdr m = {.msg_iov = left, .msg_iovlen = n};
    while (advance(&m, 0)) {
        size_t sent = 0;
        enum code rc =
            socket_send_some(sock, m.msg_iov, m.msg_iovlen, fd, &sent, e);
        if (rc == OK && sent == 0)
            rc = deadline_wait(sock, POLLOUT, end, e);
        if (rc)
            return rc;
        if (sent == 0)
            continue;
        fd = -1;
        if (!advance(&m, sent))
            return OK;
    }
    return OK;
}

/* Keep the one descriptor that may come; close all others. Whether there were
 * none. */
static bool take_descriptors(struct msghdr *m, int *fd)
{
    bool good = !(m->msg_flags & MSG_CTRUNC);
    for (struct cmsghdr *c = CMSG_FIRSTHDR(m); c; c = CMSG_NXTHDR(m, c)) {
        if (c->cmsg_level != SOL_SOCKET || c->cmsg_type != SCM_RIGHTS)
            continue;
        size_t n = (c->cmsg_len - CMSG_LEN(0)) / sizeof(int);
        for (size_t i = 0; i < n; i++) {
            int got;
            memcpy(&got, CMSG_DATA(c) + i * sizeof got, sizeof got);
            if (*fd < 0) {
                *fd = got;
                continue;
            }
            close(got);
            good = false;
        }
    }
    return good;
}

/* Room for a few descriptors: what does not fit, the kernel closes. */
enum code socket_recv_some(int sock, void *to, size_t room, size_t *len,
                           int *fd, int flags, struct error *e)
{
    _Alignas(struct cmsghdr) char control[CMSG_SPACE(4 * sizeof(int))];
    struct iovec part = {to, room};
    struct msghdr m = {.msg_iov = &part,
                       .msg_iovlen = 1,
                       .msg_control = control,
                       .msg_controllen = sizeof control};
    ssize_t n;
    *len = 0;
    do {
        n = recvmsg(sock, &m, MSG_CMSG_CLOEXEC | flags);
    } while (n < 0 && errno == EINTR);
    if (n < 0 && errno == EAGAIN)
        return OK;
    if (n < 0)
        return broken(e, errno, "receive");
    *len = (size_t)n;
    if (!take_descriptors(&m, fd))
        return error_set(e, ERR_PROTOCOL,
                         "more than one descriptor with a message");
    if (n == 0)
        return error_set(e, ERR_DAEMON_DOWN,
                         "the other side closed the connection");
    return OK;
}

enum code socket_recv(int sock, void *to, size_t room, size_t *len, int *fd,
                      int64_t end, struct error *e)
{
    /* Without a deadline the call itself waits: one system call less. */
    bool wait = end >= 0;
    for (;;) {
        enum code rc = wait ? deadline_wait(sock, POLLIN, end, e) : OK;
        if (rc == OK)
            rc = socket_recv_some(sock, to, room, len, fd,
                                  end >= 0 ? MSG_DONTWAIT : 0, e);
        if (rc || *len > 0)
            return rc;
        wait = true; /* not for us, or a socket that does not block */
    }
}
