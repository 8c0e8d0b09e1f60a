/* A stranger's bytes in two pieces: wherever they are cut, the same messages
 * come out and the same end, by reads that do not wait and by those that do. */
#include "config.h"

#include "common/buffer.h"
#include "common/file.h"
#include "common/wire.h"

#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

#define LEN_MAX 512 /* each cut is tried */
#define VALUES_MAX 16384

static void check(bool good)
{
    if (!good)
        abort();
}

struct link {
    struct wire *w;
    int peer;
};

static void link_clear(struct link *l)
{
    wire_free(l->w);
    fd_closep(&l->peer);
}

static struct link link_new(void)
{
    int ends[2];
    struct link l = {NULL, -1};
    check(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) == 0);
    check(wire_new(&l.w, ends[0], NULL) == OK);
    l.peer = ends[1];
    return l;
}
#define LINK CLEANUP(link_clear) struct link

static void give(int fd, const uint8_t *data, size_t len)
{
    check(len == 0 || send(fd, data, len, MSG_NOSIGNAL) == (ssize_t)len);
}

/* All messages that are there, one a line; the error that ended it. */
static enum code take_all(struct wire *w, struct buffer *out)
{
    for (;;) {
        JSON message = NULL;
        FD fd = -1;
        bool whole = false;
        size_t before = wire_memory(w);
        enum code rc = wire_fill(w, &whole, NULL);
        if (rc == OK && !whole && wire_memory(w) == before)
            return OK;
        if (rc == OK && whole)
            rc = wire_take(w, VALUES_MAX, &message, &fd, NULL);
        if (rc)
            return rc;
        if (message)
            check(buffer_append_json(out, message, JSON_COMPACT, NULL) == OK &&
                  buffer_append(out, "\n", 1, NULL) == OK);
    }
}

static enum code waiting(const uint8_t *data, size_t len, struct buffer *out)
{
    LINK l = link_new();
    enum code rc = OK;
    give(l.peer, data, len);
    fd_closep(&l.peer);
    while (rc == OK) {
        JSON message = NULL;
        FD fd = -1;
        rc = wire_recv(l.w, &message, &fd, -1, NULL);
        if (rc == OK)
            check(buffer_append_json(out, message, JSON_COMPACT, NULL) == OK &&
                  buffer_append(out, "\n", 1, NULL) == OK);
    }
    return rc;
}

static enum code in_two(const uint8_t *data, size_t len, size_t cut,
                        struct buffer *out)
{
    LINK l = link_new();
    give(l.peer, data, cut);
    enum code rc = take_all(l.w, out);
    if (rc)
        return rc;
    give(l.peer, data + cut, len - cut);
    fd_closep(&l.peer);
    while (rc == OK)
        rc = take_all(l.w, out);
    return rc;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    if (len > LEN_MAX)
        return 0;
    BUFFER wanted = BUFFER_INIT(1 << 20);
    enum code end = waiting(data, len, &wanted);
    for (size_t cut = 0; cut <= len; cut++) {
        BUFFER got = BUFFER_INIT(1 << 20);
        check(in_two(data, len, cut, &got) == end);
        check(got.len == wanted.len);
        check(!got.len || !memcmp(got.data, wanted.data, got.len));
    }
    return 0;
}
