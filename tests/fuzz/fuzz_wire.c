/* A stranger's bytes on a connection: framing, then every message as request
 * and as reply. */
#include "config.h"

#include "common/file.h"
#include "common/wire.h"

#include <fcntl.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void parse(json_t *message)
{
    struct error e;
    const char *method;
    json_t *parameters;
    JSON copy = json_deep_copy(message);
    if (wire_parse_request(message, &method, &parameters, &e) == OK &&
        (!method || !json_is_object(parameters)))
        abort();
    if (wire_parse_reply(copy, &parameters, &e) == OK &&
        !json_is_object(parameters))
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    int ends[2];
    if (len > 65536 ||
        socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0)
        return 0;
    if (send(ends[1], data, len, MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
        len = 0;
    close(ends[1]);
    struct wire *w CLEANUP(wire_freep) = NULL;
    if (wire_new(&w, ends[0], NULL) != OK)
        return 0;
    for (;;) {
        struct error e;
        JSON message = NULL;
        FD fd = -1;
        if (wire_recv(w, &message, &fd, -1, &e) != OK)
            return 0;
        parse(message);
    }
}
