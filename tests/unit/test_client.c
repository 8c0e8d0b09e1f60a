/* The client against a small daemon of our own, in threads, that breaks as it
 * is told. */
#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "common/client.h"
#include "common/file.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define CLIENT CLEANUP(client_freep) struct client *
#define SECRET_TEXT "sk-svcacct-0123456789"

static char dir[] = "/tmp/hsmint-client-XXXXXX";
static char path[64];

/* ---- a daemon ---------------------------------------------------------- */

static struct {
    int listening;
    pthread_t thread;
    pthread_t served[256];
    int sockets[256];
    _Atomic unsigned connections, attached, joined, calls;
    _Atomic int break_next; /* calls that end without an answer */
    _Atomic int cut_next;   /* attaching ends without an answer */
    _Atomic bool forget;    /* refuse every token that is not new */
    _Atomic bool stop;
    char token[WIRE_TOKEN_HEX + 1];
    char last_pin[64];
} d;

static json_t *on_attach(json_t *parameters)
{
    const char *token = json_string_value(json_object_get(parameters, "token"));
    if (token && (d.forget || strcmp(token, d.token) != 0)) {
        struct error e;
        d.forget = false;
        error_set(&e, ERR_NOT_FOUND, "no such application");
        return wire_error_reply(&e);
    }
    if (token)
        d.joined++;
    else
        snprintf(d.token, sizeof d.token, "%064x", ++d.attached);
    return wire_reply(json_pack("{s:s, s:s, s:s}", "token", d.token, "mode",
                                "user", "instance", "i"));
}

static void read_pin(int fd)
{
    SECRET s = NULL;
    if (fd >= 0 && secret_from_fd(&s, fd, 60, 1000, true, NULL) == OK) {
        memcpy(d.last_pin, secret_data(s), secret_len(s));
        d.last_pin[secret_len(s)] = '\0';
    }
}

static json_t *on_call(const char *method, json_t *parameters, int fd, int *out)
{
    struct error e;
    d.calls++;
    read_pin(fd);
    if (strcmp(method, "org.hsmint.Mint") == 0) {
        SECRET s = NULL;
        if (secret_dup(&s, SECRET_TEXT, strlen(SECRET_TEXT), NULL) != OK ||
            secret_to_pipe(s, out, NULL) != OK)
            abort();
    }
    if (strcmp(method, "org.hsmint.Slow") == 0)
        poll(NULL, 0, 300);
    if (strcmp(method, "org.hsmint.Fail") == 0) {
        error_set(&e, ERR_LIMIT, "too many");
        return wire_error_reply(&e);
    }
    return wire_reply(json_incref(parameters));
}

static void *serve(void *arg)
{
    struct wire *w CLEANUP(wire_freep) = NULL;
    if (wire_new(&w, (int)(intptr_t)arg, NULL) != OK)
        abort();
    for (;;) {
        JSON m = NULL;
        FD fd = -1;
        FD out = -1;
        const char *method;
        json_t *parameters;
        if (wire_recv(w, &m, &fd, -1, NULL) != OK ||
            wire_parse_request(m, &method, &parameters, NULL) != OK)
            return NULL;
        bool attach = strcmp(method, "org.hsmint.Attach") == 0;
        if (attach && d.cut_next > 0 && d.cut_next-- > 0) {
            shutdown(wire_fd(w), SHUT_RDWR);
            return NULL;
        }
        if (!attach && d.break_next > 0 && d.break_next-- > 0) {
            d.calls++;
            shutdown(wire_fd(w), SHUT_RDWR);
            return NULL;
        }
        JSON reply = attach ? on_attach(parameters)
                            : on_call(method, parameters, fd, &out);
        if (wire_send(w, reply, out, 1000, NULL) != OK)
            return NULL;
    }
}

static void *accept_all(void *arg)
{
    (void)arg;
    while (!d.stop) {
        struct pollfd p = {.fd = d.listening, .events = POLLIN};
        if (poll(&p, 1, 5) <= 0)
            continue;
        int fd = accept4(d.listening, NULL, NULL, SOCK_CLOEXEC);
        if (fd < 0)
            continue;
        unsigned i = d.connections++;
        d.sockets[i] = dup(fd);
        pthread_create(&d.served[i], NULL, serve, (void *)(intptr_t)fd);
    }
    return NULL;
}

static void daemon_start(void)
{
    d.stop = false;
    d.connections = 0;
    assert_int_equal(wire_listen(path, 0600, &d.listening, NULL), OK);
    assert_int_equal(pthread_create(&d.thread, NULL, accept_all, NULL), 0);
}

/* All connections end, as when it is killed. */
static void daemon_stop(void)
{
    d.stop = true;
    pthread_join(d.thread, NULL);
    fd_closep(&d.listening);
    for (unsigned i = 0; i < d.connections; i++) {
        shutdown(d.sockets[i], SHUT_RDWR);
        pthread_join(d.served[i], NULL);
        close(d.sockets[i]);
    }
}

static int fresh_daemon(void **state)
{
    (void)state;
    memset(&d, 0, sizeof d);
    daemon_start();
    return 0;
}

static int end_daemon(void **state)
{
    (void)state;
    daemon_stop();
    unlink(path);
    return 0;
}

static struct client *make(int call_ms)
{
    const struct client_options o = {.socket = path,
                                     .program = "test",
                                     .connect_ms = 2000,
                                     .call_ms = call_ms};
    struct client *c;
    assert_int_equal(client_new(&c, &o, NULL), OK);
    return c;
}

static enum code echo(struct client *c, int number)
{
    JSON reply = NULL;
    enum code rc = client_call(c, "Echo", json_pack("{s:i}", "n", number), NULL,
                               &reply, NULL, NULL);
    if (!rc)
        assert_int_equal(json_integer_value(json_object_get(reply, "n")),
                         number);
    return rc;
}

/* ---- calls ------------------------------------------------------------- */

static void calls_share_one_connection(void **state)
{
    (void)state;
    CLIENT c = make(5000);
    assert_int_equal(d.connections, 0); /* client_new touches no socket */
    for (int i = 0; i < 5; i++)
        assert_int_equal(echo(c, i), OK);
    assert_int_equal(client_connect(c, NULL), OK);
    assert_int_equal(d.connections, 1);
    assert_int_equal(d.attached, 1);
    assert_int_equal(client_call(c, "Echo", NULL, NULL, NULL, NULL, NULL), OK);
}

static void secrets_travel_both_ways(void **state)
{
    (void)state;
    CLIENT c = make(5000);
    SECRET pin = NULL;
    SECRET key = NULL;
    assert_int_equal(secret_dup(&pin, "1234", 4, NULL), OK);
    assert_int_equal(client_call(c, "Mint", NULL, pin, NULL, &key, NULL), OK);
    assert_string_equal(d.last_pin, "1234");
    assert_int_equal(secret_len(key), strlen(SECRET_TEXT));
    assert_memory_equal(secret_data(key), SECRET_TEXT, strlen(SECRET_TEXT));
    SECRET none = NULL;
    assert_int_equal(client_call(c, "Echo", NULL, NULL, NULL, &none, NULL), OK);
    assert_null(none);
    /* a secret that nobody asked for is closed */
    assert_int_equal(client_call(c, "Mint", NULL, NULL, NULL, NULL, NULL), OK);
}

static void errors_come_through(void **state)
{
    (void)state;
    CLIENT c = make(5000);
    struct error e;
    JSON reply = NULL;
    assert_int_equal(client_call(c, "Fail", NULL, NULL, &reply, NULL, &e),
                     ERR_LIMIT);
    assert_string_equal(e.text, "too many");
    assert_null(reply);
    assert_int_equal(d.calls, 1); /* an answer is never asked for again */
    assert_int_equal(echo(c, 1), OK);
    assert_int_equal(d.connections, 1);
}

static void a_broken_call_is_sent_once_more(void **state)
{
    (void)state;
    CLIENT c = make(5000);
    SECRET pin = NULL;
    assert_int_equal(secret_dup(&pin, "98765", 5, NULL), OK);
    d.break_next = 1;
    assert_int_equal(client_call(c, "Echo", NULL, pin, NULL, NULL, NULL), OK);
    assert_int_equal(d.calls, 2);
    assert_string_equal(d.last_pin, "98765"); /* piped anew */
    assert_int_equal(d.attached, 1);
    assert_int_equal(d.joined, 1);
    d.break_next = 2;
    assert_int_equal(echo(c, 1), ERR_DAEMON_DOWN);
    assert_int_equal(d.calls, 4);
    assert_int_equal(echo(c, 1), OK);
}

static void a_late_answer_is_not_taken_for_the_next(void **state)
{
    (void)state;
    CLIENT c = make(100);
    assert_int_equal(client_call(c, "Slow", json_pack("{s:i}", "n", 7), NULL,
                                 NULL, NULL, NULL),
                     ERR_DEADLINE);
    assert_int_equal(d.calls, 1); /* and it is not sent again */
    assert_int_equal(echo(c, 8), OK);
    assert_int_equal(d.connections, 2);
}

static void a_restarted_daemon_is_found_again(void **state)
{
    (void)state;
    CLIENT c = make(5000);
    assert_int_equal(echo(c, 1), OK);
    daemon_stop();
    assert_int_equal(echo(c, 2), ERR_DAEMON_DOWN);
    daemon_start();
    assert_int_equal(echo(c, 3), OK);
    assert_int_equal(d.attached, 1); /* the token joined */
    assert_int_equal(d.joined, 1);
    daemon_stop();
    daemon_start();
    d.forget = true; /* its state was lost */
    assert_int_equal(echo(c, 4), OK);
    assert_int_equal(d.attached, 2);
    assert_int_equal(echo(c, 5), OK);
}

/* One was accepted by the daemon that leaves, and the next one does not know
 * an application without leases any more. */
static void cut_and_then_forgotten(void **state)
{
    (void)state;
    CLIENT c = make(5000);
    assert_int_equal(echo(c, 1), OK);
    daemon_stop();
    daemon_start();
    d.cut_next = 1;
    d.forget = true;
    assert_int_equal(echo(c, 2), OK);
    assert_int_equal(d.attached, 2);
    daemon_stop();
    daemon_start();
    d.cut_next = 100;
    assert_int_equal(echo(c, 3), ERR_DAEMON_DOWN);
    d.cut_next = 0;
    assert_int_equal(echo(c, 4), OK);
}

struct caller {
    struct client *c;
    unsigned calls;
    unsigned failed;
};

static void *call_often(void *arg)
{
    struct caller *k = arg;
    for (unsigned i = 0; i < k->calls; i++) {
        JSON reply = NULL;
        if (client_call(k->c, "Echo", json_pack("{s:i}", "n", (int)i), NULL,
                        &reply, NULL, NULL) != OK ||
            json_integer_value(json_object_get(reply, "n")) != (json_int_t)i)
            k->failed++;
    }
    return NULL;
}

static void threads_share_the_pool(void **state)
{
    (void)state;
    CLIENT c = make(20000);
    struct caller callers[48];
    pthread_t threads[48];
    for (int i = 0; i < 48; i++) {
        callers[i] = (struct caller){c, 50, 0};
        pthread_create(&threads[i], NULL, call_often, &callers[i]);
    }
    for (int i = 0; i < 48; i++) {
        pthread_join(threads[i], NULL);
        assert_int_equal(callers[i].failed, 0);
    }
    assert_int_equal(d.calls, 48 * 50);
    assert_int_equal(d.attached, 1); /* one application */
    assert_in_range(d.connections, 1, CLIENT_CONNECTIONS);
}

static void *call_slowly(void *arg)
{
    struct caller *k = arg;
    k->failed = client_call(k->c, "Slow", NULL, NULL, NULL, NULL, NULL) != OK;
    return NULL;
}

static unsigned call_slowly_at_once(struct client *c)
{
    struct caller callers[CLIENT_CONNECTIONS + 8];
    pthread_t threads[CLIENT_CONNECTIONS + 8];
    unsigned failed = 0;
    for (int i = 0; i < CLIENT_CONNECTIONS + 8; i++) {
        callers[i] = (struct caller){c, 1, 0};
        pthread_create(&threads[i], NULL, call_slowly, &callers[i]);
    }
    for (int i = 0; i < CLIENT_CONNECTIONS + 8; i++) {
        pthread_join(threads[i], NULL);
        failed += callers[i].failed;
    }
    return failed;
}

static void more_callers_than_connections_wait(void **state)
{
    (void)state;
    CLIENT c = make(20000);
    assert_int_equal(call_slowly_at_once(c), 0);
    assert_in_range(d.connections, 2, CLIENT_CONNECTIONS);
    CLIENT hasty = make(100); /* and not for ever */
    assert_int_equal(call_slowly_at_once(hasty), CLIENT_CONNECTIONS + 8);
}

static void nobody_is_there(void **state)
{
    (void)state;
    CLIENT c = make(1000);
    struct error e;
    assert_int_equal(client_connect(c, &e), ERR_DAEMON_DOWN);
    assert_non_null(strstr(e.text, path));
    assert_int_equal(echo(c, 1), ERR_DAEMON_DOWN);
}

static void a_silent_daemon_is_not_waited_for(void **state)
{
    (void)state;
    FD s = -1;
    const struct client_options o = {.socket = path, .program = "test"};
    CLIENT c = NULL;
    struct timespec a, b;
    assert_int_equal(wire_listen(path, 0600, &s, NULL), OK);
    assert_int_equal(client_new(&c, &o, NULL), OK);
    clock_gettime(CLOCK_MONOTONIC, &a);
    assert_int_equal(client_connect(c, NULL), ERR_DEADLINE);
    clock_gettime(CLOCK_MONOTONIC, &b);
    int64_t ms =
        (b.tv_sec - a.tv_sec) * 1000 + (b.tv_nsec - a.tv_nsec) / 1000000;
    assert_in_range(ms, 90, 2000);
}

/* A child that is content ends so, not by exit: valgrind would look for leaks
 * then, and find the parent's. */
static void child_done(void)
{
    kill(getpid(), SIGKILL);
}

static bool child_was_content(pid_t pid)
{
    int status = -1;
    waitpid(pid, &status, 0);
    return WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL;
}

/* ---- who listens ------------------------------------------------------- */

static void be_stranger(const char *in, const char *at, int ready)
{
    int fd;
    if (chown(in, 12345, 12345) != 0 || setgid(12345) != 0 ||
        setuid(12345) != 0 || wire_listen(at, 0666, &fd, NULL) != OK)
        _exit(1);
    if (write(ready, "x", 1) != 1)
        _exit(1);
    int peer = accept4(fd, NULL, NULL, SOCK_CLOEXEC);
    char c;
    ssize_t n = recv(peer, &c, 1, 0);
    if (n > 0)
        _exit(2); /* something was sent */
    child_done();
}

static void refuse_stranger(const char *in, const char *at)
{
    int ready[2];
    char c;
    assert_int_equal(pipe(ready), 0);
    pid_t pid = fork();
    if (pid == 0)
        be_stranger(in, at, ready[1]);
    close(ready[1]);
    assert_int_equal(read(ready[0], &c, 1), 1);
    close(ready[0]);
    {
        struct client_options o = {.socket = at, .connect_ms = 1000};
        CLIENT k = NULL;
        struct error e;
        assert_int_equal(client_new(&k, &o, &e), OK);
        assert_int_equal(client_connect(k, &e), ERR_DENIED);
        assert_non_null(strstr(e.text, "uid 12345"));
    }
    assert_true(child_was_content(pid));
    unlink(at);
}

static void nothing_is_sent_to_a_stranger(void **state)
{
    (void)state;
    if (geteuid() != 0)
        skip();
    unlink(path);
    refuse_stranger(dir, path);
    assert_int_equal(chown(dir, 0, 0), 0);
}

/* Root made that directory, and gave it away: a user's home. */
static void nor_to_one_at_home(void **state)
{
    (void)state;
    char home[256], at[300];
    if (geteuid() != 0)
        skip();
    snprintf(home, sizeof home, "%s/home", dir);
    snprintf(at, sizeof at, "%s/socket", home);
    assert_int_equal(mkdir(home, 0755), 0);
    assert_int_equal(chmod(dir, 0755), 0);
    refuse_stranger(home, at);
    assert_int_equal(chmod(dir, 0700), 0);
    assert_int_equal(rmdir(home), 0);
}

/* ---- fork -------------------------------------------------------------- */

static void a_forked_child_says_nothing(void **state)
{
    (void)state;
    CLIENT c = make(5000);
    assert_int_equal(echo(c, 1), OK);
    unsigned calls = d.calls;
    for (int told = 0; told < 2; told++) {
        pid_t pid = fork();
        if (pid == 0) {
            if (told)
                client_abandon(c);
            struct error e;
            enum code rc = client_call(c, "Echo", NULL, NULL, NULL, NULL, &e);
            if (rc != ERR_DAEMON_DOWN || !strstr(e.text, "fork"))
                _exit(1);
            client_free(c);
            child_done();
        }
        assert_true(child_was_content(pid));
    }
    assert_int_equal(d.calls, calls);
    assert_int_equal(echo(c, 2), OK); /* the parent's goes on */
    assert_int_equal(d.connections, 1);
}

static void a_child_forked_in_the_middle_of_a_call(void **state)
{
    (void)state;
    CLIENT c = make(5000);
    struct caller k = {c, 400, 0};
    pthread_t thread;
    pthread_create(&thread, NULL, call_often, &k);
    for (int i = 0; i < 20; i++) {
        pid_t pid = fork();
        if (pid == 0) {
            client_abandon(c);
            client_free(c);
            child_done();
        }
        assert_true(child_was_content(pid));
    }
    pthread_join(thread, NULL);
    assert_int_equal(k.failed, 0);
}

static int setup(void **state)
{
    (void)state;
    if (!mkdtemp(dir) || chmod(dir, 0711) != 0)
        return -1;
    snprintf(path, sizeof path, "%s/socket", dir);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    char command[300];
    snprintf(command, sizeof command, "rm -rf '%s'", dir);
    return system(command);
}

#define WITH_DAEMON(test)                                                      \
    cmocka_unit_test_setup_teardown(test, fresh_daemon, end_daemon)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_DAEMON(calls_share_one_connection),
        WITH_DAEMON(secrets_travel_both_ways),
        WITH_DAEMON(errors_come_through),
        WITH_DAEMON(a_broken_call_is_sent_once_more),
        WITH_DAEMON(a_late_answer_is_not_taken_for_the_next),
        WITH_DAEMON(a_restarted_daemon_is_found_again),
        WITH_DAEMON(cut_and_then_forgotten),
        WITH_DAEMON(threads_share_the_pool),
        WITH_DAEMON(more_callers_than_connections_wait),
        cmocka_unit_test(nobody_is_there),
        cmocka_unit_test(a_silent_daemon_is_not_waited_for),
        cmocka_unit_test(nothing_is_sent_to_a_stranger),
        cmocka_unit_test(nor_to_one_at_home),
        WITH_DAEMON(a_forked_child_says_nothing),
        WITH_DAEMON(a_child_forked_in_the_middle_of_a_call),
    };
    return cmocka_run_group_tests_name("client", tests, setup, teardown);
}
