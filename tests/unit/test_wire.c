#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "common/file.h"
#include "common/socket.h"
#include "common/wire.h"

#include <dirent.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define WIRE CLEANUP(wire_freep) struct wire *

struct pair {
    struct wire *w; /* under test */
    int peer;       /* raw */
};

static void pair_clear(struct pair *p)
{
    wire_free(p->w);
    fd_closep(&p->peer);
}

static struct pair pair_new(void)
{
    int ends[2];
    struct pair p = {.peer = -1};
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends),
                     0);
    assert_int_equal(wire_new(&p.w, ends[0], NULL), OK);
    p.peer = ends[1];
    return p;
}
#define PAIR CLEANUP(pair_clear) struct pair

static void send_raw(int fd, const char *bytes, size_t len)
{
    assert_int_equal(send(fd, bytes, len, MSG_NOSIGNAL), len);
}

static void send_fds(int sock, const char *bytes, size_t len, const int *fds,
                     size_t n)
{
    _Alignas(struct cmsghdr) char space[CMSG_SPACE(8 * sizeof(int))] = {0};
    struct iovec part;
    memset(&part, 0, sizeof part);
    char copy[256];
    memcpy(copy, bytes, len);
    part.iov_base = copy;
    part.iov_len = len;
    struct msghdr m = {.msg_iov = &part,
                       .msg_iovlen = 1,
                       .msg_control = space,
                       .msg_controllen = CMSG_SPACE(n * sizeof(int))};
    struct cmsghdr *c = CMSG_FIRSTHDR(&m);
    c->cmsg_level = SOL_SOCKET;
    c->cmsg_type = SCM_RIGHTS;
    c->cmsg_len = CMSG_LEN(n * sizeof(int));
    memcpy(CMSG_DATA(c), fds, n * sizeof(int));
    assert_int_equal(sendmsg(sock, &m, MSG_NOSIGNAL), len);
}

static unsigned open_descriptors(void)
{
    unsigned n = 0;
    DIR *d = opendir("/proc/self/fd");
    while (d && readdir(d))
        n++;
    if (d)
        closedir(d);
    return n;
}

static enum code receive(struct wire *w, const char *method, int *fd,
                         struct error *e)
{
    JSON message = NULL;
    FD own = -1;
    enum code rc = wire_recv(w, &message, fd ? fd : &own, 1000, e);
    if (rc)
        assert_null(message);
    else
        assert_string_equal(
            json_string_value(json_object_get(message, "method")), method);
    return rc;
}

static void messages_go_both_ways(void **state)
{
    (void)state;
    PAIR p = pair_new();
    JSON m = wire_request("org.hsmint.Status", json_pack("{s:i}", "a", 1));
    static const char wanted[] =
        "{\"method\":\"org.hsmint.Status\",\"parameters\":{\"a\":1}}";
    char got[256];
    assert_int_equal(wire_send(p.w, m, -1, 1000, NULL), OK);
    assert_int_equal(read(p.peer, got, sizeof got), sizeof wanted);
    assert_memory_equal(got, wanted, sizeof wanted); /* with its NUL */
    send_raw(p.peer, wanted, sizeof wanted);
    assert_int_equal(receive(p.w, "org.hsmint.Status", NULL, NULL), OK);
    assert_false(wire_buffered(p.w));
}

static void pieces_are_put_together(void **state)
{
    (void)state;
    PAIR p = pair_new();
    static const char text[] = "{\"method\":\"a\"}";
    JSON m = NULL;
    int fd;
    for (size_t i = 0; i + 1 < sizeof text; i++) {
        send_raw(p.peer, text + i, 1);
        assert_int_equal(wire_recv(p.w, &m, &fd, 0, NULL), ERR_DEADLINE);
    }
    send_raw(p.peer, "", 1);
    assert_int_equal(receive(p.w, "a", NULL, NULL), OK);
}

/* Two messages and a descriptor with the second, cut in two at each byte. */
static void any_cut_gives_the_same(void **state)
{
    (void)state;
    static const char text[] = "{\"method\":\"a\"}\0{\"method\":\"b\"}";
    FD memory = memfd_create("x", MFD_CLOEXEC);
    for (size_t cut = 0; cut <= sizeof text; cut++) {
        PAIR p = pair_new();
        FD first = -1;
        FD second = -1;
        JSON a = NULL;
        JSON b = NULL;
        bool whole = false;
        send_raw(p.peer, text, cut);
        for (int i = 0; i < 3; i++)
            assert_int_equal(wire_fill(p.w, &whole, NULL), OK);
        assert_int_equal(whole, cut >= 15);
        if (cut < sizeof text)
            send_fds(p.peer, text + cut, sizeof text - cut, &memory, 1);
        while (!whole)
            assert_int_equal(wire_fill(p.w, &whole, NULL), OK);
        assert_int_equal(wire_take(p.w, 100, &a, &first, NULL), OK);
        for (whole = false; !whole;)
            assert_int_equal(wire_fill(p.w, &whole, NULL), OK);
        assert_int_equal(wire_take(p.w, 100, &b, &second, NULL), OK);
        assert_string_equal(json_string_value(json_object_get(a, "method")),
                            "a");
        assert_string_equal(json_string_value(json_object_get(b, "method")),
                            "b");
        assert_int_equal(first, -1);
        assert_int_equal(second >= 0, cut < sizeof text);
        assert_int_equal(wire_memory(p.w), 0);
    }
}

static void nothing_is_waited_for(void **state)
{
    (void)state;
    PAIR p = pair_new();
    bool whole = true, done = true;
    assert_int_equal(wire_fill(p.w, &whole, NULL), OK);
    assert_false(whole);
    assert_int_equal(wire_memory(p.w), 0);
    FREE char *text = calloc(1, 600000);
    memset(text, 'x', 599999);
    JSON large = json_pack("{s:s}", "a", text);
    int fd = memfd_create("x", MFD_CLOEXEC);
    assert_int_equal(wire_put(p.w, large, &fd, NULL), OK);
    assert_int_equal(fd, -1); /* taken */
    assert_int_equal(wire_flush(p.w, &done, NULL), OK);
    assert_false(done);
    assert_true(wire_memory(p.w) > 0);
    size_t got = 0;
    while (!done) {
        static char block[65536];
        ssize_t n = recv(p.peer, block, sizeof block, MSG_DONTWAIT);
        got += n > 0 ? (size_t)n : 0;
        assert_int_equal(wire_flush(p.w, &done, NULL), OK);
    }
    assert_int_equal(wire_memory(p.w), 0);
    fd_closep(&p.peer);
    assert_int_equal(wire_fill(p.w, &whole, NULL), ERR_DAEMON_DOWN);
    assert_int_equal(wire_put(p.w, large, &fd, NULL), OK);
    assert_int_equal(wire_flush(p.w, &done, NULL), ERR_DAEMON_DOWN);
}

static void many_values_are_refused(void **state)
{
    static const struct {
        const char *text;
        size_t values;
    } cases[] = {
        {"1", 1},          {"[]", 2},         {"[1,2]", 3},
        {"{\"a\":1}", 2},  {"\",,[{\"", 1},   {"\"\\\",,\"", 1},
        {"[\",\",[]]", 4}, {"[[[[", 5},       {"", 1},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        assert_int_equal(json_values(cases[i].text, strlen(cases[i].text)),
                         cases[i].values);
    PAIR p = pair_new();
    JSON m = NULL;
    int fd;
    bool whole = false;
    struct error e;
    send_raw(p.peer, "{\"a\":[1,2]}\0{}", 15);
    assert_int_equal(wire_fill(p.w, &whole, NULL), OK);
    assert_true(whole);
    assert_int_equal(wire_take(p.w, 3, &m, &fd, &e), ERR_PROTOCOL);
    assert_non_null(strstr(e.text, "more than 3 values"));
    assert_int_equal(wire_take(p.w, 3, &m, &fd, &e), ERR_PROTOCOL);
    assert_int_equal(wire_fill(p.w, &whole, &e), ERR_PROTOCOL);
    assert_int_equal(wire_memory(p.w), 0);
}

static void several_in_one_read_are_kept(void **state)
{
    (void)state;
    PAIR p = pair_new();
    static const char text[] =
        "{\"method\":\"a\"}\0{\"method\":\"b\"}\0{\"method\":\"c\"";
    send_raw(p.peer, text, sizeof text - 1);
    assert_int_equal(receive(p.w, "a", NULL, NULL), OK);
    assert_true(wire_buffered(p.w));
    assert_int_equal(receive(p.w, "b", NULL, NULL), OK);
    assert_true(wire_buffered(p.w));
    send_raw(p.peer, "}", 2);
    assert_int_equal(receive(p.w, "c", NULL, NULL), OK);
    assert_false(wire_buffered(p.w));
}

static void a_descriptor_goes_along(void **state)
{
    (void)state;
    int ends[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    WIRE a = NULL;
    WIRE b = NULL;
    assert_int_equal(wire_new(&a, ends[0], NULL), OK);
    assert_int_equal(wire_new(&b, ends[1], NULL), OK);
    JSON m = wire_request("a", NULL);
    FD memory = memfd_create("x", MFD_CLOEXEC);
    FD got = -1;
    struct stat x, y;
    assert_int_equal(wire_send(a, m, memory, 1000, NULL), OK);
    assert_int_equal(receive(b, "a", &got, NULL), OK);
    assert_true(got >= 0);
    assert_true(fcntl(got, F_GETFD) & FD_CLOEXEC);
    assert_int_equal(fstat(memory, &x) | fstat(got, &y), 0);
    assert_int_equal(x.st_ino, y.st_ino);
    FD none = -1;
    assert_int_equal(wire_send(a, m, -1, 1000, NULL), OK);
    assert_int_equal(receive(b, "a", &none, NULL), OK);
    assert_int_equal(none, -1);
}

/* A descriptor belongs to the message that it was sent with, also when the
 * one before was read in the same breath. */
static void a_descriptor_stays_with_its_message(void **state)
{
    (void)state;
    PAIR p = pair_new();
    FD memory = memfd_create("x", MFD_CLOEXEC);
    FD first = -1;
    FD second = -1;
    send_raw(p.peer, "{\"method\":\"a\"}", 15);
    send_fds(p.peer, "{\"method\":\"b\"}", 15, &memory, 1);
    send_raw(p.peer, "{\"method\":\"c\"}", 15);
    assert_int_equal(receive(p.w, "a", &first, NULL), OK);
    assert_int_equal(first, -1);
    assert_int_equal(receive(p.w, "b", &second, NULL), OK);
    assert_true(second >= 0);
    assert_int_equal(receive(p.w, "c", &first, NULL), OK);
    assert_int_equal(first, -1);
}

static void more_descriptors_are_closed_and_refused(void **state)
{
    (void)state;
    for (size_t n = 2; n <= 8; n += 2) {
        unsigned before = open_descriptors();
        {
            PAIR p = pair_new();
            FD memory = memfd_create("x", MFD_CLOEXEC);
            int fds[8];
            struct error e;
            for (size_t i = 0; i < n; i++)
                fds[i] = memory;
            send_fds(p.peer, "{\"method\":\"a\"}", 15, fds, n);
            assert_int_equal(receive(p.w, "", NULL, &e), ERR_PROTOCOL);
            assert_int_equal(receive(p.w, "", NULL, &e), ERR_PROTOCOL);
            assert_int_equal(open_descriptors(), before + 4);
        }
        assert_int_equal(open_descriptors(), before);
    }
}

static void a_second_descriptor_is_one_too_many(void **state)
{
    (void)state;
    unsigned before = open_descriptors();
    {
        PAIR p = pair_new();
        FD memory = memfd_create("x", MFD_CLOEXEC);
        send_fds(p.peer, "{\"method\":", 10, &memory, 1);
        send_fds(p.peer, "\"a\"}", 5, &memory, 1);
        assert_int_equal(receive(p.w, "", NULL, NULL), ERR_PROTOCOL);
    }
    assert_int_equal(open_descriptors(), before);
}

struct writer {
    int fd;
    size_t bytes;
};

static void *write_much(void *arg)
{
    struct writer *w = arg;
    char block[4096];
    memset(block, 'x', sizeof block);
    for (size_t at = 0; at < w->bytes; at += sizeof block)
        if (send(w->fd, block, sizeof block, MSG_NOSIGNAL) < 0)
            break;
    return NULL;
}

static void too_long_is_refused(void **state)
{
    (void)state;
    PAIR p = pair_new();
    struct writer writer = {p.peer, 4 * WIRE_MESSAGE_MAX};
    pthread_t thread;
    struct error e;
    pthread_create(&thread, NULL, write_much, &writer);
    assert_int_equal(receive(p.w, "", NULL, &e), ERR_PROTOCOL);
    wire_freep(&p.w);
    pthread_join(thread, NULL);
    assert_non_null(strstr(e.text, "more than"));
}

static void *receive_one(void *arg)
{
    struct wire *w = arg;
    json_t *message = NULL;
    int fd;
    return wire_recv(w, &message, &fd, 5000, NULL) == OK ? message : NULL;
}

static void the_longest_fits(void **state)
{
    (void)state;
    int ends[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    WIRE a = NULL;
    WIRE b = NULL;
    assert_int_equal(wire_new(&a, ends[0], NULL), OK);
    assert_int_equal(wire_new(&b, ends[1], NULL), OK);
    size_t len = WIRE_MESSAGE_MAX - strlen("{\"a\":\"\"}");
    FREE char *text = malloc(len + 2);
    memset(text, 'x', len + 1);
    text[len + 1] = '\0';
    JSON longest = json_pack("{s:s%}", "a", text, len);
    JSON longer = json_pack("{s:s}", "a", text);
    pthread_t thread;
    void *got;
    pthread_create(&thread, NULL, receive_one, b);
    assert_int_equal(wire_send(a, longer, -1, 5000, NULL), ERR_PROTOCOL);
    assert_int_equal(wire_send(a, longest, -1, 5000, NULL), OK);
    pthread_join(thread, &got);
    assert_non_null(got);
    JSON message = got;
    assert_true(json_equal(message, longest));
}

static void nonsense_is_refused(void **state)
{
    static const char *const bad[] = {"",
                                      "null",
                                      "[]",
                                      "{",
                                      "\"a",
                                      "1",
                                      "{\"a\":1,\"a\":2}",
                                      "{\"a\":\"\xff\"}"};
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        PAIR p = pair_new();
        struct error e;
        send_raw(p.peer, bad[i], strlen(bad[i]) + 1);
        assert_int_equal(receive(p.w, "", NULL, &e), ERR_PROTOCOL);
        assert_int_equal(e.code, ERR_PROTOCOL);
        /* and nothing more is taken from it */
        send_raw(p.peer, "{\"method\":\"a\"}", 15);
        assert_int_equal(receive(p.w, "a", NULL, &e), ERR_PROTOCOL);
        /* but the peer can be told why */
        JSON m = wire_error_reply(&e);
        assert_int_equal(wire_send(p.w, m, -1, 100, &e), OK);
    }
}

static void the_end_of_the_peer_is_seen(void **state)
{
    (void)state;
    PAIR p = pair_new();
    fd_closep(&p.peer);
    assert_int_equal(receive(p.w, "", NULL, NULL), ERR_DAEMON_DOWN);
    PAIR q = pair_new();
    send_raw(q.peer, "{\"met", 5);
    fd_closep(&q.peer);
    assert_int_equal(receive(q.w, "", NULL, NULL), ERR_DAEMON_DOWN);
    PAIR r = pair_new();
    JSON m = wire_request("a", NULL);
    fd_closep(&r.peer);
    /* SIGPIPE has its default action here: it would end the test */
    assert_int_equal(wire_send(r.w, m, -1, 1000, NULL), ERR_DAEMON_DOWN);
}

static void deadlines_end(void **state)
{
    (void)state;
    PAIR p = pair_new();
    JSON m = NULL;
    int fd;
    assert_int_equal(wire_recv(p.w, &m, &fd, 50, NULL), ERR_DEADLINE);
    FREE char *text = calloc(1, 600000);
    memset(text, 'x', 599999);
    JSON large = json_pack("{s:s}", "a", text);
    assert_int_equal(wire_send(p.w, large, -1, 50, NULL), ERR_DEADLINE);
    assert_int_equal(wire_send(p.w, large, -1, 50, NULL), ERR_PROTOCOL);
}

static void peers_are_known(void **state)
{
    (void)state;
    PAIR p = pair_new();
    struct wire_peer peer;
    assert_int_equal(wire_peer(wire_fd(p.w), &peer, NULL), OK);
    assert_int_equal(peer.uid, geteuid());
    assert_int_equal(peer.gid, getegid());
    assert_int_equal(peer.pid, getpid());
    if (peer.pidfd < 0) /* valgrind on an older kernel */
        skip();
    struct pollfd alive = {.fd = peer.pidfd, .events = POLLIN};
    assert_int_equal(poll(&alive, 1, 0), 0);
    close(peer.pidfd);
    assert_int_equal(wire_peer(-1, &peer, NULL), ERR_IO);
}

static void requests_are_strict(void **state)
{
    static const char *const bad[] = {"{}",
                                      "{\"method\":1}",
                                      "{\"method\":\"a\",\"parameters\":[]}",
                                      "{\"method\":\"a\",\"more\":true}",
                                      "{\"method\":\"a\",\"oneway\":true}",
                                      "{\"method\":\"a\",\"upgrade\":false}",
                                      "{\"method\":\"a\",\"else\":1}"};
    (void)state;
    const char *method;
    json_t *parameters;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        JSON m = json_loads(bad[i], 0, NULL);
        assert_int_equal(wire_parse_request(m, &method, &parameters, NULL),
                         ERR_INVALID);
    }
    JSON m = json_loads("{\"method\":\"a\"}", 0, NULL);
    assert_int_equal(wire_parse_request(m, &method, &parameters, NULL), OK);
    assert_string_equal(method, "a");
    assert_int_equal(json_object_size(parameters), 0);
}

static void replies_carry_parameters_or_errors(void **state)
{
    (void)state;
    json_t *parameters;
    struct error e;
    JSON plain = wire_reply(json_pack("{s:i}", "a", 1));
    assert_int_equal(wire_parse_reply(plain, &parameters, &e), OK);
    assert_int_equal(json_integer_value(json_object_get(parameters, "a")), 1);
    JSON none = wire_reply(NULL);
    assert_int_equal(wire_parse_reply(none, &parameters, &e), OK);
    assert_int_equal(json_object_size(parameters), 0);

    struct error sent = {.code = ERR_SERVICE_RATE, .retry_after_ms = 1500};
    snprintf(sent.text, sizeof sent.text, "slow down");
    snprintf(sent.service_request_id, sizeof sent.service_request_id, "req_1");
    JSON failure = wire_error_reply(&sent);
    assert_string_equal(json_string_value(json_object_get(failure, "error")),
                        "org.hsmint.ServiceRate");
    assert_int_equal(wire_parse_reply(failure, &parameters, &e),
                     ERR_SERVICE_RATE);
    assert_null(parameters);
    assert_memory_equal(&e.text, "slow down", 10);
    assert_string_equal(e.service_request_id, "req_1");
    assert_int_equal(e.retry_after_ms, 1500);
    assert_int_equal(wire_parse_reply(failure, &parameters, NULL),
                     ERR_SERVICE_RATE);
}

static void odd_replies(void **state)
{
    static const struct {
        const char *text;
        enum code code;
    } cases[] = {
        {"{\"error\":\"org.hsmint.PinWrong\"}", ERR_PIN_WRONG},
        {"{\"error\":\"org.hsmint.PinWrong\",\"parameters\":{\"text\":1}}",
         ERR_PIN_WRONG},
        {"{\"error\":\"org.hsmint.NewInVersion9\"}", ERR_INTERNAL},
        {"{\"error\":\"org.varlink.service.MethodNotFound\"}", ERR_PROTOCOL},
        {"{\"error\":1}", ERR_PROTOCOL},
        {"{\"parameters\":1}", ERR_PROTOCOL},
        {"{\"parameters\":{},\"continues\":true}", ERR_PROTOCOL},
        {"{\"parameters\":{},\"later\":1}", OK},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        JSON m = json_loads(cases[i].text, 0, NULL);
        json_t *parameters;
        struct error e = {0};
        assert_int_equal(wire_parse_reply(m, &parameters, &e), cases[i].code);
        assert_true(cases[i].code == OK || e.text[0]);
    }
}

/* ---- listening and connecting ------------------------------------------ */

static char dir[] = "/tmp/hsmint-wire-XXXXXX";
static char name[256];

static const char *at(const char *leaf)
{
    snprintf(name, sizeof name, "%s/%s", dir, leaf);
    return name;
}

static void listeners_have_their_mode(void **state)
{
    (void)state;
    struct stat st;
    mode_t old = umask(077);
    FD all = -1;
    FD own = -1;
    assert_int_equal(wire_listen(at("all"), 0666, &all, NULL), OK);
    assert_int_equal(stat(name, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0666);
    umask(0);
    assert_int_equal(wire_listen(at("own"), 0600, &own, NULL), OK);
    assert_int_equal(stat(name, &st), 0);
    assert_int_equal(st.st_mode & 07777, 0600);
    umask(old);
    FD client = -1;
    assert_int_equal(wire_connect(name, 100, &client, NULL), OK);
    FD served = accept4(own, NULL, NULL, SOCK_CLOEXEC);
    assert_true(served >= 0);
}

static void only_stale_sockets_are_replaced(void **state)
{
    (void)state;
    FD first = -1;
    FD second = -1;
    struct error e;
    assert_int_equal(wire_listen(at("s"), 0600, &first, NULL), OK);
    assert_int_equal(wire_listen(name, 0600, &second, &e), ERR_BUSY);
    fd_closep(&first);
    assert_int_equal(wire_listen(name, 0600, &second, NULL), OK);
    FD file = open(at("file"), O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    assert_true(file >= 0);
    assert_int_equal(wire_listen(name, 0600, &first, &e), ERR_CONFIG);
    assert_int_equal(access(name, F_OK), 0);
    assert_int_equal(wire_listen(at("no/s"), 0600, &first, &e), ERR_IO);
}

static void nobody_listens(void **state)
{
    (void)state;
    FD fd = -1;
    struct error e;
    FD stale = -1;
    assert_int_equal(wire_connect(at("none"), 100, &fd, &e), ERR_DAEMON_DOWN);
    assert_int_equal(wire_listen(at("stale"), 0600, &stale, NULL), OK);
    fd_closep(&stale);
    assert_int_equal(wire_connect(name, 100, &fd, &e), ERR_DAEMON_DOWN);
    char longest[200];
    memset(longest, 'x', sizeof longest - 1);
    longest[sizeof longest - 1] = '\0';
    assert_int_equal(wire_connect(longest, 100, &fd, &e), ERR_CONFIG);
    assert_int_equal(wire_connect("", 100, &fd, &e), ERR_CONFIG);
    assert_int_equal(fd, -1);
}

static void a_full_queue_is_not_waited_for(void **state)
{
    (void)state;
    FD s = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    snprintf(a.sun_path, sizeof a.sun_path, "%s/full", dir);
    assert_int_equal(bind(s, (struct sockaddr *)&a, sizeof a), 0);
    assert_int_equal(listen(s, 0), 0);
    int fds[4] = {-1, -1, -1, -1};
    enum code rc = OK;
    for (int i = 0; i < 4 && !rc; i++)
        rc = wire_connect(a.sun_path, 50, &fds[i], NULL);
    assert_int_equal(rc, ERR_DEADLINE);
    for (int i = 0; i < 4; i++)
        fd_closep(&fds[i]);
}

static int setup(void **state)
{
    (void)state;
    return mkdtemp(dir) ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    char command[300];
    snprintf(command, sizeof command, "rm -rf '%s'", dir);
    return system(command);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(messages_go_both_ways),
        cmocka_unit_test(pieces_are_put_together),
        cmocka_unit_test(any_cut_gives_the_same),
        cmocka_unit_test(nothing_is_waited_for),
        cmocka_unit_test(many_values_are_refused),
        cmocka_unit_test(several_in_one_read_are_kept),
        cmocka_unit_test(a_descriptor_goes_along),
        cmocka_unit_test(a_descriptor_stays_with_its_message),
        cmocka_unit_test(more_descriptors_are_closed_and_refused),
        cmocka_unit_test(a_second_descriptor_is_one_too_many),
        cmocka_unit_test(too_long_is_refused),
        cmocka_unit_test(the_longest_fits),
        cmocka_unit_test(nonsense_is_refused),
        cmocka_unit_test(the_end_of_the_peer_is_seen),
        cmocka_unit_test(deadlines_end),
        cmocka_unit_test(peers_are_known),
        cmocka_unit_test(requests_are_strict),
        cmocka_unit_test(replies_carry_parameters_or_errors),
        cmocka_unit_test(odd_replies),
        cmocka_unit_test(listeners_have_their_mode),
        cmocka_unit_test(only_stale_sockets_are_replaced),
        cmocka_unit_test(nobody_listens),
        cmocka_unit_test(a_full_queue_is_not_waited_for),
    };
    return cmocka_run_group_tests_name("wire", tests, setup, teardown);
}
