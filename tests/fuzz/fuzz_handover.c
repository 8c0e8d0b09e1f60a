/* What a daemon, or who says to be one, sends a keeper of another user: the
 * first byte is how many descriptors come along, and of which kind. */
#include "config.h"

#include "common/file.h"
#include "common/handover.h"

#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

#define FDS_MAX 96

static int send_with(int sock, const uint8_t *data, size_t len, int fd, int n)
{
    union {
        struct cmsghdr head;
        char space[CMSG_SPACE(FDS_MAX * sizeof(int))];
    } c = {.space = {0}};
    struct iovec part = {(void *)(uintptr_t)data, len};
    struct msghdr m = {.msg_iov = &part, .msg_iovlen = 1};
    if (n > 0) {
        m.msg_control = &c;
        m.msg_controllen = CMSG_SPACE((size_t)n * sizeof(int));
        c.head = (struct cmsghdr){.cmsg_level = SOL_SOCKET,
                                  .cmsg_type = SCM_RIGHTS,
                                  .cmsg_len =
                                      CMSG_LEN((size_t)n * sizeof(int))};
        for (int i = 0; i < n; i++)
            memcpy(CMSG_DATA(&c.head) + (size_t)i * sizeof fd, &fd, sizeof fd);
    }
    return sendmsg(sock, &m, MSG_NOSIGNAL | MSG_DONTWAIT) < 0 ? -1 : 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    int ends[2], other[2];
    if (len < 1 || len > 4096 ||
        socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0)
        return 0;
    FD sock = ends[0];
    FD peer = ends[1];
    if (socketpair(AF_UNIX, data[0] & 0x80 ? SOCK_DGRAM : SOCK_STREAM, 0,
                   other) != 0)
        return 0;
    FD near = other[0];
    FD far = other[1];
    if (send_with(peer, data + 1, len - 1, far, (data[0] & 0x7f) % FDS_MAX) ||
        shutdown(peer, SHUT_WR))
        return 0;
    struct error e = {.code = OK};
    HANDOVER h = {.n = 0};
    enum code rc = handover_recv(sock, &h, 1000, &e);
    if (rc == OK ? h.n < 1 || h.n > HANDOVER_MAX || (data[0] & 0x80)
                 : h.n != 0 || !e.text[0])
        abort();
    (void)near;
    return 0;
}
