/* listen - see listen.h. */
#include "config.h"

#include "hsm/listen.h"

#include "common/clock.h"
#include "common/file.h"
#include "common/log.h"
#include "common/wire.h"
#include "hsm/accept.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

/* A daemon has one, and leaves a few behind that hang inside the kernel. */
#define KEEPERS_MAX 16
#define TELL_MS 1000 /* of strangers */

struct listener {
    const char *config, *credentials;
    const struct settings *settings;
    int sock, signals;
    sigset_t before;
    int keepers;
    int64_t told_ms;
};

static char *text_of(const char *name, const char *value)
{
    char *text = NULL;
    return asprintf(&text, "%s=%s", name, value) < 0 ? NULL : text;
}

/* In the child: never returns. The environment is of our own making. */
static void become_keeper(const struct listener *l, int sock)
{
    char pid[16];
    char *argv[] = {(char *)(uintptr_t) "hsmint-keeper",
                    (char *)(uintptr_t) "--config",
                    (char *)(uintptr_t)l->config,
                    (char *)(uintptr_t) "--accepted", NULL};
    snprintf(pid, sizeof pid, "%d", (int)getpid());
    char *env[] = {text_of("LISTEN_FDS", "1"), text_of("LISTEN_PID", pid), NULL,
                   NULL};
    if (l->credentials)
        env[2] = text_of("CREDENTIALS_DIRECTORY", l->credentials);
    /* Above 3 it is, since the listening socket has a lower number. */
    if (env[0] && env[1] && (env[2] || !l->credentials) &&
        dup2(sock, ACCEPT_FD) == ACCEPT_FD &&
        sigprocmask(SIG_SETMASK, &l->before, NULL) == 0)
        execve("/proc/self/exe", argv, env);
    _exit(127);
}

static enum code admit(struct listener *l, int sock, struct error *e)
{
    enum code rc = accept_check_peer(sock, l->settings, e);
    if (rc)
        return rc;
    if (l->keepers >= KEEPERS_MAX)
        return error_set(e, ERR_BUSY,
                         "%d keepers run already and do not end: the HSM's "
                         "driver needs attention",
                         l->keepers);
    pid_t pid = fork();
    if (pid < 0)
        return error_errno(e, errno, "cannot start a keeper");
    if (pid == 0)
        become_keeper(l, sock);
    l->keepers++;
    log_info("keeper %d started", (int)pid);
    return OK;
}

static void take_connection(struct listener *l)
{
    struct error e = {.code = OK};
    FD sock = accept4(l->sock, NULL, NULL, SOCK_CLOEXEC);
    if (sock < 0 || admit(l, sock, &e) == OK)
        return;
    accept_refuse(sock, &e);
    if (clock_monotonic_ms() - l->told_ms >= TELL_MS) {
        l->told_ms = clock_monotonic_ms();
        log_failure(&e, "connection refused");
    }
}

static void reap(struct listener *l)
{
    int status = 0;
    pid_t pid;
    while ((pid = waitpid(-1, &status, WNOHANG)) > 0) {
        l->keepers--;
        if (WIFSIGNALED(status))
            log_warning("keeper %d ended by signal %d", (int)pid,
                        WTERMSIG(status));
        else
            log_info("keeper %d ended with %d", (int)pid, WEXITSTATUS(status));
    }
}

/* False: it is time to leave. */
static bool take_signal(struct listener *l)
{
    struct signalfd_siginfo info;
    if (read(l->signals, &info, sizeof info) != (ssize_t)sizeof info)
        return true;
    if (info.ssi_signo != SIGCHLD)
        return false;
    reap(l);
    return true;
}

static enum code take_signals(struct listener *l, struct error *e)
{
    static const int wanted[] = {SIGCHLD, SIGTERM, SIGINT};
    sigset_t set;
    sigemptyset(&set);
    for (size_t i = 0; i < sizeof wanted / sizeof wanted[0]; i++) {
        signal(wanted[i], SIG_DFL); /* what is ignored may not arrive */
        sigaddset(&set, wanted[i]);
    }
    if (sigprocmask(SIG_BLOCK, &set, &l->before))
        return error_errno(e, errno, "cannot block signals");
    l->signals = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK);
    return l->signals < 0 ? error_errno(e, errno, "cannot wait for signals")
                          : OK;
}

/* A stranger who can connect is refused by uid; where the directory lets none
 * in, none asks. */
enum code listen_run(const char *path, const char *config,
                     const char *credentials, const struct settings *s,
                     struct error *e)
{
    struct listener l = {.config = config,
                         .credentials = credentials,
                         .settings = s,
                         .told_ms = -TELL_MS};
    uid_t uid;
    enum code rc = accept_daemon_uid(s, &uid, e);
    if (rc || (rc = wire_listen(path, 0666, &l.sock, e)) ||
        (rc = take_signals(&l, e)))
        return rc;
    log_info("listening on %s for %s", path, s->user);
    struct pollfd p[] = {{.fd = l.signals, .events = POLLIN},
                         {.fd = l.sock, .events = POLLIN}};
    for (;;) {
        if (poll(p, 2, -1) < 0)
            continue;
        if (p[0].revents && !take_signal(&l))
            break;
        if (p[1].revents)
            take_connection(&l);
    }
    unlink(path);
    log_info("leaving; %d keepers end with their daemon", l.keepers);
    return OK;
}
