#include "config.h"

#include "common/client.h"
#include "common/deadline.h"
#include "common/file.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#define START_MS 5000
#define AFTER_EXIT_MS 1000 /* another's daemon may be the one that stays */
#define RETRY_MS 10
#define REPORT_FD 3 /* in the child: all above are closed */

#ifndef HSMINT_DAEMON
#define HSMINT_DAEMON HSMINT_SBINDIR "/hsmintd"
#endif

/* What the new process tells: its id, then an errno if it could not begin. */
struct report {
    pid_t pid;
    int errnum;
};

struct start {
    const char *program;
    char *argv[7];
    int report;
};

/* From here to execve: a copy of a process with threads and locks in any
 * state, so only async-signal-safe calls. */

static void close_from(unsigned first)
{
    if (syscall(SYS_close_range, first, ~0u, 0) == 0)
        return;
    struct rlimit limit;
    unsigned last = 65536;
    if (getrlimit(RLIMIT_NOFILE, &limit) == 0 && limit.rlim_cur < last)
        last = (unsigned)limit.rlim_cur;
    for (unsigned fd = first; fd < last; fd++)
        close((int)fd);
}

static void tell(int fd, int errnum)
{
    struct report r = {(pid_t)syscall(SYS_getpid), errnum};
    if (write(fd, &r, sizeof r) != (ssize_t)sizeof r)
        _exit(127);
}

static void reset_signals(void)
{
    struct sigaction standard = {.sa_handler = SIG_DFL};
    sigset_t none;
    for (int i = 1; i < NSIG; i++)
        sigaction(i, &standard, NULL);
    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
}

static _Noreturn void become_daemon(const struct start *s)
{
    static char *const empty[] = {NULL};
    int report = fcntl(s->report, F_DUPFD_CLOEXEC, REPORT_FD + 1);
    int null = open("/dev/null", O_RDWR | O_CLOEXEC);
    if (report < 0 || null < 0 || dup2(null, STDIN_FILENO) < 0 ||
        dup2(null, STDOUT_FILENO) < 0 || dup2(null, STDERR_FILENO) < 0 ||
        dup3(report, REPORT_FD, O_CLOEXEC) < 0)
        _exit(127);
    close_from(REPORT_FD + 1);
    reset_signals();
    umask(077);
    if (chdir("/") != 0)
        _exit(127);
    tell(REPORT_FD, 0);
    execve(s->program, s->argv, empty);
    tell(REPORT_FD, errno);
    _exit(127);
}

/* Its parent is gone at once, so that it is nobody's child but init's. */
static _Noreturn void detach(const struct start *s)
{
    setsid();
    long pid = syscall(SYS_clone, SIGCHLD, 0, 0, 0, 0);
    if (pid == 0)
        become_daemon(s);
    _exit(pid < 0 ? 127 : 0);
}

/* As fork, but no SIGCHLD will tell the application of a child that it never
 * made, and none of its fork handlers run. Signals wait until the child has
 * forgotten the application's handlers. */
static enum code launch(const struct start *s, struct error *e)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    long pid = syscall(SYS_clone, 0, 0, 0, 0, 0);
    if (pid == 0)
        detach(s);
    int errnum = errno;
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (pid < 0)
        return error_errno(e, errnum, "clone");
    while (waitpid((pid_t)pid, NULL, __WALL) < 0 && errno == EINTR)
        ;
    return OK;
}

/* One report; false when the pipe ended or time is up. */
static bool hear(int fd, int64_t end, struct report *r)
{
    if (deadline_wait(fd, POLLIN, end, NULL) != OK)
        return false;
    return read(fd, r, sizeof *r) == (ssize_t)sizeof *r;
}

/* Whether the process ended within `ms`. pidfd -1: it was gone before we could
 * look, or the kernel has none and nothing can be said. */
static bool has_ended(int pidfd, bool gone, int ms)
{
    struct pollfd p = {.fd = pidfd, .events = POLLIN};
    return poll(&p, 1, ms) > 0 || gone;
}

/* Of the build tree, for tests: as trustworthy as what it stands for. */
static const char *daemon_program(void)
{
    const char *set = secure_getenv("HSMINT_DAEMON");
    struct stat st;
    if (set && set[0] == '/' && stat(set, &st) == 0 && S_ISREG(st.st_mode) &&
        (st.st_uid == 0 || st.st_uid == geteuid()) &&
        !(st.st_mode & (S_IWGRP | S_IWOTH)))
        return set;
    return HSMINT_DAEMON;
}

/* Until somebody listens. A daemon that ended without listening will not;
 * unless it gave way to another one that is on its way. */
static enum code wait_socket(const char *socket, pid_t pid, int64_t end,
                             struct error *e)
{
    FD pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
    bool gone = pidfd < 0 && errno == ESRCH, told = false;
    for (;;) {
        FD probe = -1;
        enum code rc = wire_connect(socket, RETRY_MS, &probe, e);
        if (rc != ERR_DAEMON_DOWN && rc != ERR_DEADLINE)
            return rc;
        if (deadline_left(end) == 0)
            return error_set(e, ERR_DAEMON_DOWN,
                             "hsmintd was started but does not listen on %s: "
                             "run `%s --user` to see why",
                             socket, daemon_program());
        if (told) {
            poll(NULL, 0, RETRY_MS);
        } else if (has_ended(pidfd, gone, RETRY_MS)) {
            told = true;
            int64_t sooner = deadline_after(AFTER_EXIT_MS);
            end = sooner < end ? sooner : end;
        }
    }
}

/* The daemon has an empty environment: what the caller's says about the
 * settings goes along, so that both read the same. NULL: its default, also
 * where XDG_CONFIG_HOME holds none of ours, since --config must exist. */
static enum code config_path(char **path, struct error *e)
{
    const char *set = secure_getenv("HSMINT_CONFIG");
    const char *home = secure_getenv("XDG_CONFIG_HOME");
    int rc = 0;
    *path = NULL;
    if (set && set[0] == '/')
        rc = asprintf(path, "%s", set);
    else if (home && home[0] == '/')
        rc = asprintf(path, "%s/hsmint/hsmint.conf", home);
    if (rc < 0) {
        *path = NULL;
        return error_set(e, ERR_NOMEM, "no memory");
    }
    bool named = set && set[0] == '/';
    if (*path && !named && access(*path, F_OK) != 0)
        free_p(path);
    return OK;
}

static enum code may_start(const char *socket, bool allow_root, struct error *e)
{
    if (getauxval(AT_SECURE))
        return error_set(e, ERR_DAEMON_DOWN,
                         "no daemon listens on %s, and a program that runs "
                         "with raised privileges does not start one",
                         socket);
    if (geteuid() == 0 && !allow_root)
        return error_set(e, ERR_DAEMON_DOWN,
                         "no daemon listens on %s, and none is started for "
                         "root: run `hsmint status` or start hsmintd",
                         socket);
    return OK;
}

static enum code run(struct start *s, pid_t *pid, int64_t end, struct error *e)
{
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0)
        return error_errno(e, errno, "pipe");
    FD reader = ends[0];
    s->report = ends[1];
    enum code rc = launch(s, e);
    close(s->report);
    if (rc)
        return rc;
    struct report begun, failed;
    if (!hear(reader, end, &begun))
        return error_set(e, ERR_DAEMON_DOWN, "%s could not be started",
                         s->program);
    if (hear(reader, end, &failed)) {
        error_errno(e, failed.errnum, "cannot start the daemon %s", s->program);
        if (e)
            e->code = ERR_DAEMON_DOWN;
        return ERR_DAEMON_DOWN;
    }
    *pid = begun.pid;
    return OK;
}

enum code client_start_daemon(const char *socket, bool allow_root,
                              struct error *e)
{
    FREE char *config = NULL;
    FREE char *path = strdup(socket); /* argv wants it writable */
    char name[] = "hsmintd", user[] = "--user", at[] = "--socket",
         with[] = "--config";
    enum code rc = may_start(socket, allow_root, e);
    if (!rc)
        rc = config_path(&config, e);
    if (!rc && !path)
        rc = error_set(e, ERR_NOMEM, "no memory");
    if (rc)
        return rc;
    struct start s = {
        .program = daemon_program(),
        .argv = {name, user, at, path, config ? with : NULL, config, NULL}};
    int64_t end = deadline_after(START_MS);
    pid_t pid = 0;
    rc = run(&s, &pid, end, e);
    return rc ? rc : wait_socket(socket, pid, end, e);
}
