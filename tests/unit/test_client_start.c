/* Where the daemon is, and its start, for which this program stands in. */
#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "common/client.h"
#include "common/file.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define CLIENT CLEANUP(client_freep) struct client *

static char dir[] = "/tmp/hsmint-client-XXXXXX";

static void default_places(void **state)
{
    (void)state;
    char found[108];
    struct error e;
    setenv("HSMINT_SOCKET", "/x/socket", 1);
    assert_int_equal(client_default_socket(found, sizeof found, NULL), OK);
    assert_string_equal(found, "/x/socket");
    assert_int_equal(client_default_socket(found, 5, NULL), ERR_CONFIG);
    unsetenv("HSMINT_SOCKET");
    if (access("/run/hsmint/socket", F_OK) == 0)
        return;
    setenv("XDG_RUNTIME_DIR", "/run/me", 1);
    assert_int_equal(client_default_socket(found, sizeof found, NULL), OK);
    assert_string_equal(found, "/run/me/hsmint/socket");
    setenv("XDG_RUNTIME_DIR", "relative", 1);
    enum code rc = client_default_socket(found, sizeof found, &e);
    assert_true(rc == ERR_CONFIG || strstr(found, "/run/user/") == found);
    unsetenv("XDG_RUNTIME_DIR");
}

static unsigned descriptors(void)
{
    unsigned n = 0;
    DIR *list = opendir("/proc/self/fd");
    for (struct dirent *entry; list && (entry = readdir(list));)
        n += entry->d_name[0] != '.';
    if (list)
        closedir(list);
    return n - 1; /* the list's own */
}

/* This program, started as a daemon: tells what it found and serves once. */
static int stand_in(int argc, char **argv)
{
    char facts[512], file[320];
    const char *socket_path = argv[3];
    sigset_t blocked;
    sigprocmask(SIG_SETMASK, NULL, &blocked);
    struct sigaction term;
    sigaction(SIGTERM, NULL, &term);
    int n = snprintf(
        facts, sizeof facts, "%s %s %s %s|env %d|fds %u|sid %d|usr1 %d|term %d",
        argv[0], argv[1], argv[2], argc > 5 ? argv[5] : "-", environ[0] != NULL,
        descriptors(), getsid(0) != 0 && getpgrp() != getpid(),
        sigismember(&blocked, SIGUSR1), term.sa_handler == SIG_DFL);
    snprintf(file, sizeof file, "%s.facts", socket_path);
    int fd;
    if (strstr(socket_path, "dies"))
        return 1;
    if (file_write_atomic(file, facts, (size_t)n, 0600, NULL) != OK ||
        wire_listen(socket_path, 0600, &fd, NULL) != OK)
        return 1;
    alarm(20);
    for (;;) { /* probes come and go; the one that speaks is the last */
        int peer = accept4(fd, NULL, NULL, SOCK_CLOEXEC);
        char c;
        if (peer >= 0 && recv(peer, &c, 1, 0) == 1) {
            struct wire *w;
            JSON reply = wire_reply(json_pack(
                "{s:s}", "token",
                "0000000000000000000000000000000000000000000000000000000000000"
                "000"));
            if (wire_new(&w, peer, NULL) != OK ||
                wire_send(w, reply, -1, 1000, NULL) != OK)
                return 1;
            wire_free(w);
            return 0;
        }
        close(peer);
    }
}

static _Atomic int children;

static void on_child(int signum)
{
    (void)signum;
    children++;
}

static char program[300];

/* A copy that nobody else may write, whatever the build tree's mode. */
static void copy_self(void)
{
    FREE char *bytes = NULL;
    size_t len;
    char self[256];
    ssize_t n = readlink("/proc/self/exe", self, sizeof self - 1);
    assert_true(n > 0);
    self[n] = '\0';
    snprintf(program, sizeof program, "%s/hsmintd", dir);
    assert_int_equal(file_read(self, 256 << 20, FILE_ANY, &bytes, &len, NULL),
                     OK);
    assert_int_equal(file_write_atomic(program, bytes, len, 0700, NULL), OK);
}

static void expect_facts(const char *socket_path, const char *config)
{
    FREE char *facts = NULL;
    char file[320], wanted[400];
    snprintf(file, sizeof file, "%s.facts", socket_path);
    assert_int_equal(file_read(file, 1000, FILE_ANY, &facts, NULL, NULL), OK);
    snprintf(wanted, sizeof wanted,
             "hsmintd --user --socket %s|env 0|fds 3|sid 1|usr1 0|term 1",
             config);
    assert_string_equal(facts, wanted);
    unlink(file);
    unlink(socket_path);
}

static void a_daemon_is_started_without_a_trace(void **state)
{
    (void)state;
    char at[300];
    struct error e;
    copy_self();
    snprintf(at, sizeof at, "%s/started", dir);
    setenv("HSMINT_DAEMON", program, 1);
    setenv("HSMINT_CONFIG", "/etc/x.conf", 1);
    struct sigaction count = {.sa_handler = on_child}, before;
    sigaction(SIGCHLD, &count, &before);
    FD leak = open("/dev/null", O_RDONLY); /* not CLOEXEC */
    signal(SIGTERM, SIG_IGN);
    sigset_t usr1;
    sigemptyset(&usr1);
    sigaddset(&usr1, SIGUSR1);
    sigprocmask(SIG_BLOCK, &usr1, NULL);

    const struct client_options o = {.socket = at,
                                     .program = "test",
                                     .connect_ms = 2000,
                                     .start_daemon = true,
                                     .allow_root_start = true};
    CLIENT c = NULL;
    assert_int_equal(client_new(&c, &o, NULL), OK);
    client_allow_start(c, false); /* C_Initialize */
    assert_int_equal(client_connect(c, &e), ERR_DAEMON_DOWN);
    client_allow_start(c, true); /* C_OpenSession */
    assert_int_equal(client_tell(c, "Echo", NULL, &e), ERR_DAEMON_DOWN);
    if (client_connect(c, &e) != OK)
        fail_msg("%s", e.text);

    sigprocmask(SIG_UNBLOCK, &usr1, NULL);
    signal(SIGTERM, SIG_DFL);
    sigaction(SIGCHLD, &before, NULL);
    unsetenv("HSMINT_CONFIG");
    assert_int_equal(children, 0); /* no SIGCHLD … */
    errno = 0;
    assert_int_equal(waitpid(-1, NULL, WNOHANG), -1); /* … and no child */
    assert_int_equal(errno, ECHILD);
    expect_facts(at, "/etc/x.conf");
}

static void a_daemon_that_dies_is_told_soon(void **state)
{
    (void)state;
    char at[300];
    struct error e;
    struct timespec a, b;
    snprintf(at, sizeof at, "%s/dies", dir);
    clock_gettime(CLOCK_MONOTONIC, &a);
    assert_int_equal(client_start_daemon(at, true, &e), ERR_DAEMON_DOWN);
    clock_gettime(CLOCK_MONOTONIC, &b);
    FD pidfd = (int)syscall(SYS_pidfd_open, getpid(), 0);
    if (pidfd >= 0) /* valgrind has none: then it takes the whole 5 s */
        assert_true(b.tv_sec - a.tv_sec < 4);
    assert_non_null(strstr(e.text, "hsmintd --user"));
}

static void what_is_not_trusted_is_not_started(void **state)
{
    (void)state;
    char at[300];
    struct error e;
    snprintf(at, sizeof at, "%s/untrusted", dir);
    assert_int_equal(chmod(program, 0770), 0);
    /* then the compiled-in path is taken, which may not be installed */
    if (access(HSMINT_SBINDIR "/hsmintd", X_OK) != 0) {
        assert_int_equal(client_start_daemon(at, true, &e), ERR_DAEMON_DOWN);
        assert_non_null(strstr(e.text, HSMINT_SBINDIR "/hsmintd"));
    }
    assert_int_equal(chmod(program, 0700), 0);
    if (geteuid() == 0) {
        assert_int_equal(client_start_daemon(at, false, &e), ERR_DAEMON_DOWN);
        assert_non_null(strstr(e.text, "root"));
    }
}

static int setup(void **state)
{
    (void)state;
    if (!mkdtemp(dir) || chmod(dir, 0711) != 0)
        return -1;
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    char command[300];
    snprintf(command, sizeof command, "rm -rf '%s'", dir);
    return system(command);
}

int main(int argc, char **argv)
{
    if (argc > 3 && strcmp(argv[0], "hsmintd") == 0)
        return stand_in(argc, argv);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(default_places),
        cmocka_unit_test(a_daemon_is_started_without_a_trace),
        cmocka_unit_test(a_daemon_that_dies_is_told_soon),
        cmocka_unit_test(what_is_not_trusted_is_not_started),
    };
    return cmocka_run_group_tests_name("client start", tests, setup, teardown);
}
