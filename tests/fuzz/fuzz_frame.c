/* The keeper's channel. */
#include "config.h"

#include "common/file.h"
#include "common/frame.h"

#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    int ends[2];
    if (len > 65536 ||
        socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0)
        return 0;
    FD sock = ends[0];
    if (send(ends[1], data, len, MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
        len = 0;
    close(ends[1]);
    for (;;) {
        struct error e;
        FRAME f = FRAME_INIT;
        if (frame_recv(sock, &f, -1, &e) != OK)
            return 0;
        if ((f.body_len && !f.body) || (unsigned)f.verb >= VERBS)
            abort();
        if (frame_result(&f, &e) != f.status && f.status == OK)
            abort();
    }
}
