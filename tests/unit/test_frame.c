#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "common/file.h"
#include "common/frame.h"

#include <fcntl.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

struct pair {
    int a, b;
};

static void pair_clear(struct pair *p)
{
    fd_closep(&p->a);
    fd_closep(&p->b);
}

static struct pair pair_new(void)
{
    int ends[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends),
                     0);
    return (struct pair){ends[0], ends[1]};
}
#define PAIR CLEANUP(pair_clear) struct pair

static void verbs_have_names(void **state)
{
    (void)state;
    assert_null(verb_name((enum verb)0));
    for (unsigned v = 1; v < VERBS; v++)
        assert_non_null(verb_name((enum verb)v));
    assert_string_equal(verb_name(VERB_SIGN_CALL), "sign-call");
    assert_null(verb_name(VERBS));
    assert_null(verb_name((enum verb) - 1));
}

static void bytes_are_as_specified(void **state)
{
    (void)state;
    PAIR p = pair_new();
    FRAME f = FRAME_INIT;
    uint8_t got[64];
    f.verb = VERB_EXECUTE;
    f.head = json_pack("{s:i}", "a", 1);
    f.body = (uint8_t *)strdup("xyz");
    f.body_len = 3;
    assert_int_equal(frame_send(p.a, &f, 1000, NULL), OK);
    assert_int_equal(read(p.b, got, sizeof got), 16 + 7 + 3);
    uint32_t magic = 0x686d4b31, lengths[2] = {7, 3};
    uint16_t verb[2] = {VERB_EXECUTE, 0};
    assert_memory_equal(got, &magic, 4);
    assert_memory_equal(got + 4, verb, 4);
    assert_memory_equal(got + 8, lengths, 8);
    assert_memory_equal(got + 16, "{\"a\":1}xyz", 10);
}

static void empty_heads_and_bodies(void **state)
{
    (void)state;
    PAIR p = pair_new();
    FRAME f = FRAME_INIT;
    FRAME got = FRAME_INIT;
    f.verb = VERB_LOGOUT;
    assert_int_equal(frame_send(p.a, &f, 1000, NULL), OK);
    assert_int_equal(frame_recv(p.b, &got, 1000, NULL), OK);
    assert_int_equal(got.verb, VERB_LOGOUT);
    assert_int_equal(got.status, OK);
    assert_null(got.head);
    assert_null(got.body);
    assert_int_equal(got.fd, -1);
    assert_int_equal(frame_result(&got, NULL), OK);
}

struct sender {
    int sock;
    struct frame *f;
    enum code rc;
};

static void *send_in_thread(void *arg)
{
    struct sender *s = arg;
    s->rc = frame_send(s->sock, s->f, 5000, NULL);
    return NULL;
}

static void every_size_passes(void **state)
{
    static const size_t sizes[] = {1,     8175,    8176,          8177,
                                   70000, 1 << 20, FRAME_BODY_MAX};
    (void)state;
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        PAIR p = pair_new();
        FRAME f = FRAME_INIT;
        FRAME got = FRAME_INIT;
        f.verb = VERB_SEAL_VALUE;
        f.head = json_pack("{s:s}", "org", "default");
        f.body = malloc(sizes[i]);
        f.body_len = sizes[i];
        for (size_t k = 0; k < sizes[i]; k++)
            f.body[k] = (uint8_t)(k * 31 + k / 251);
        struct sender s = {p.a, &f, OK};
        pthread_t thread;
        pthread_create(&thread, NULL, send_in_thread, &s);
        assert_int_equal(frame_recv(p.b, &got, 5000, NULL), OK);
        pthread_join(thread, NULL);
        assert_int_equal(s.rc, OK);
        assert_true(json_equal(f.head, got.head));
        assert_int_equal(got.body_len, sizes[i]);
        assert_memory_equal(got.body, f.body, sizes[i]);
    }
}

static void a_descriptor_goes_along(void **state)
{
    (void)state;
    PAIR p = pair_new();
    FRAME f = FRAME_INIT;
    FRAME got = FRAME_INIT;
    struct stat x, y;
    f.verb = VERB_LOGIN;
    f.fd = memfd_create("x", MFD_CLOEXEC);
    assert_int_equal(frame_send(p.a, &f, 1000, NULL), OK);
    assert_int_equal(frame_recv(p.b, &got, 1000, NULL), OK);
    assert_int_equal(fstat(f.fd, &x) | fstat(got.fd, &y), 0);
    assert_int_equal(x.st_ino, y.st_ino);
    assert_true(fcntl(got.fd, F_GETFD) & FD_CLOEXEC);
    int fd = got.fd;
    frame_clear(&got);
    assert_int_equal(fcntl(fd, F_GETFD), -1);
}

static void refuse(const void *bytes, size_t len, enum code code)
{
    PAIR p = pair_new();
    FRAME got = FRAME_INIT;
    struct error e;
    assert_int_equal(write(p.a, bytes, len), len);
    fd_closep(&p.a);
    assert_int_equal(frame_recv(p.b, &got, 1000, &e), code);
    assert_null(got.head);
    assert_null(got.body);
    assert_int_equal(got.fd, -1);
}

static void malformed_frames_are_refused(void **state)
{
    (void)state;
    struct {
        uint32_t magic;
        uint16_t verb, status;
        uint32_t head, body;
        char rest[8];
    } f = {FRAME_MAGIC, VERB_DESCRIBE, 0, 0, 0, "{}"};
    refuse(&f, 0, ERR_KEEPER);
    refuse(&f, 15, ERR_KEEPER);
    refuse(&f, 17, ERR_PROTOCOL); /* a byte behind it */
    f.head = 2;
    refuse(&f, 17, ERR_KEEPER);
    f.head = FRAME_HEAD_MAX + 1;
    refuse(&f, 18, ERR_PROTOCOL);
    f.head = 0;
    f.body = FRAME_BODY_MAX + 1;
    refuse(&f, 18, ERR_PROTOCOL);
    f.body = 100;
    refuse(&f, 18, ERR_KEEPER);
    f.body = 0;
    f.verb = VERBS;
    refuse(&f, 16, ERR_PROTOCOL);
    f.verb = 1;
    f.status = ERR_CODES;
    refuse(&f, 16, ERR_PROTOCOL);
    f.status = 0;
    f.magic++;
    refuse(&f, 16, ERR_PROTOCOL);
    f.magic--;
    f.head = 2;
    memcpy(f.rest, "[]", 2);
    refuse(&f, 18, ERR_PROTOCOL);
    memcpy(f.rest, "{]", 2);
    refuse(&f, 18, ERR_PROTOCOL);
}

static void too_large_is_not_sent(void **state)
{
    (void)state;
    PAIR p = pair_new();
    FRAME f = FRAME_INIT;
    f.verb = VERB_EXECUTE;
    f.body = calloc(1, FRAME_BODY_MAX + 1);
    f.body_len = FRAME_BODY_MAX + 1;
    assert_int_equal(frame_send(p.a, &f, 1000, NULL), ERR_PROTOCOL);
    f.body_len = 0;
    FREE char *text = calloc(1, FRAME_HEAD_MAX + 1);
    memset(text, 'x', FRAME_HEAD_MAX);
    f.head = json_pack("{s:s}", "a", text);
    assert_int_equal(frame_send(p.a, &f, 1000, NULL), ERR_PROTOCOL);
    char c;
    assert_int_equal(recv(p.b, &c, 1, MSG_DONTWAIT), -1);
}

static void errors_travel(void **state)
{
    (void)state;
    PAIR p = pair_new();
    FRAME got = FRAME_INIT;
    struct error e, sent = {.code = ERR_SERVICE_RATE, .retry_after_ms = 20};
    strcpy(sent.text, "slow down");
    strcpy(sent.service_request_id, "req_1");
    assert_int_equal(frame_send_error(p.a, &sent, 1000), OK);
    assert_int_equal(frame_recv(p.b, &got, 1000, NULL), OK);
    assert_int_equal(frame_result(&got, &e), ERR_SERVICE_RATE);
    assert_string_equal(e.text, "slow down");
    assert_string_equal(e.service_request_id, "req_1");
    assert_int_equal(e.retry_after_ms, 20);
    assert_int_equal(frame_result(&got, NULL), ERR_SERVICE_RATE);
    json_object_set_new(got.head, "text", json_integer(1));
    assert_int_equal(frame_result(&got, &e), ERR_KEEPER);
    json_freep(&got.head);
    assert_int_equal(frame_result(&got, &e), ERR_SERVICE_RATE);
    assert_true(e.text[0]);
    error_clear(&sent); /* an error without code is one all the same */
    assert_int_equal(frame_send_error(p.a, &sent, 1000), OK);
    assert_int_equal(frame_recv(p.b, &got, 1000, NULL), OK);
    assert_int_equal(frame_result(&got, &e), ERR_INTERNAL);
}

static void silence_ends(void **state)
{
    (void)state;
    PAIR p = pair_new();
    FRAME got = FRAME_INIT;
    assert_int_equal(frame_recv(p.b, &got, 30, NULL), ERR_DEADLINE);
    fd_closep(&p.a);
    assert_int_equal(frame_recv(p.b, &got, -1, NULL), ERR_KEEPER);
    FRAME f = FRAME_INIT;
    f.verb = VERB_DESCRIBE;
    assert_int_equal(frame_send(p.b, &f, 30, NULL), ERR_KEEPER);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(verbs_have_names),
        cmocka_unit_test(bytes_are_as_specified),
        cmocka_unit_test(empty_heads_and_bodies),
        cmocka_unit_test(every_size_passes),
        cmocka_unit_test(a_descriptor_goes_along),
        cmocka_unit_test(malformed_frames_are_refused),
        cmocka_unit_test(too_large_is_not_sent),
        cmocka_unit_test(errors_travel),
        cmocka_unit_test(silence_ends),
    };
    return cmocka_run_group_tests_name("frame", tests, NULL, NULL);
}
