/* keeper_process - see keeper_process.h. */
#include "config.h"

#include "module/core/keeper_process.h"

#include "common/file.h"
#include "common/handover.h"
#include "common/log.h"
#include "common/wire.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    FIRST_SOCKET = 3,
    REAP_MS = 1000,
    CONNECT_MS = 2000,
    HELLO_MS = 10000, /* a service manager has to start the process first */
    ENV_MAX = 34      /* settings.c's 32, one of ours, the end */
};

/* ---- a child ---- */

static enum code spawn_with(const struct keeper_options *o, int n,
                            posix_spawn_file_actions_t *files,
                            posix_spawnattr_t *attr, pid_t *pid,
                            struct error *e)
{
    char count[12];
    char *argv[] = {(char *)(uintptr_t)o->keeper_path,
                    (char *)(uintptr_t) "--config",
                    (char *)(uintptr_t)o->config_path,
                    (char *)(uintptr_t) "--channels",
                    count,
                    o->settings->state_dir ? (char *)(uintptr_t) "--state"
                                           : NULL,
                    o->settings->state_dir,
                    NULL};
    char *env[ENV_MAX] = {NULL};
    const char *directory = getenv("CREDENTIALS_DIRECTORY");
    FREE char *credentials = NULL;
    int used = 0, r;

    if (directory &&
        asprintf(&credentials, "CREDENTIALS_DIRECTORY=%s", directory) < 0) {
        credentials = NULL;
        return error_set(e, ERR_NOMEM, "no memory to start the keeper");
    }
    if (credentials)
        env[used++] = credentials;
    for (char **v = o->settings->hsm_env; v && *v && used < ENV_MAX - 1; v++)
        env[used++] = *v;
    snprintf(count, sizeof(count), "%d", n);
    r = posix_spawn(pid, o->keeper_path, files, attr, argv, env);
    if (r != 0)
        return error_set(e, ERR_KEEPER, "cannot start the keeper %s: %s",
                         o->keeper_path, strerror(r));
    return OK;
}

/* Descriptors 0 and 1 are /dev/null, 2 is ours, 3 … the sockets, no others. */
enum code keeper_spawn(void *options, const int *sockets, int n,
                       struct keeper_process *out, struct error *e)
{
    posix_spawn_file_actions_t files;
    posix_spawnattr_t attr;
    sigset_t none, all;
    enum code code;

    posix_spawn_file_actions_init(&files);
    posix_spawnattr_init(&attr);
    posix_spawn_file_actions_addopen(&files, 0, "/dev/null", O_RDONLY, 0);
    posix_spawn_file_actions_addopen(&files, 1, "/dev/null", O_WRONLY, 0);
    for (int i = 0; i < n; i++)
        posix_spawn_file_actions_adddup2(&files, sockets[i], FIRST_SOCKET + i);
    posix_spawn_file_actions_addclosefrom_np(&files, FIRST_SOCKET + n);
    sigemptyset(&none);
    sigfillset(&all);
    posix_spawnattr_setsigmask(&attr, &none);
    posix_spawnattr_setsigdefault(&attr, &all);
    posix_spawnattr_setflags(&attr,
                             POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
    code = spawn_with(options, n, &files, &attr, &out->pid, e);
    posix_spawnattr_destroy(&attr);
    posix_spawn_file_actions_destroy(&files);
    if (code)
        return code;
    out->child = true;
    out->watch = pidfd_open(out->pid, 0);
    return OK;
}

/* ---- behind a socket ---- */

static enum code not_there(enum code code, const char *path, struct error *e)
{
    if (code == ERR_DAEMON_DOWN)
        return error_set(e, ERR_KEEPER,
                         "no keeper listens on %s ([daemon] keeper_socket): "
                         "start hsmint-keeper.socket, or hsmint-keeper "
                         "--listen as its user",
                         path);
    if (code == ERR_DENIED)
        return error_set(e, ERR_KEEPER,
                         "the keeper's socket %s is not for uid %u: give it "
                         "to the user that hsmintd runs as",
                         path, (unsigned)geteuid());
    if (e)
        e->code = ERR_KEEPER;
    return error_prefix(e, "the keeper");
}

static enum code introduce(int control, const int *sockets, int n,
                           struct keeper_process *out, struct error *e)
{
    FRAME hello = FRAME_INIT;
    int64_t pid = 0;
    const struct json_field fields[] = {
        {"pid", FIELD_INT, true, &pid, NULL},
    };
    enum code code = handover_send(control, sockets, n, CONNECT_MS, e);

    /* One that refuses says why, and does not wait to be asked. */
    if (!code || code == ERR_DAEMON_DOWN)
        code = frame_recv(control, &hello, HELLO_MS, e);
    if (!code)
        code = frame_result(&hello, e);
    if (!code)
        code = json_decode(hello.head, JSON_FIELDS(fields), false,
                           "the keeper's answer", e);
    out->pid = (pid_t)pid;
    return code;
}

enum code keeper_connect(void *options, const int *sockets, int n,
                         struct keeper_process *out, struct error *e)
{
    const struct keeper_options *o = options;
    const char *path = o->settings->keeper_socket;
    FD control = -1;
    struct error why = {0};
    enum code code = wire_connect(path, CONNECT_MS, &control, &why);

    if (code) {
        if (e)
            *e = why;
        return not_there(code, path, e);
    }
    code = introduce(control, sockets, n, out, &why);
    if (code)
        return error_set(e, ERR_KEEPER, "the keeper on %s does not serve: %s",
                         path, why.text);
    out->watch = control;
    control = -1;
    return OK;
}

/* ---- both ---- */

bool keeper_process_ended(const struct keeper_process *p)
{
    struct pollfd w = {.fd = p->watch, .events = POLLIN};

    return p->watch >= 0 && poll(&w, 1, 0) == 1;
}

bool keeper_process_reap(int pidfd)
{
    siginfo_t info = {0};

    if (waitid(P_PIDFD, (id_t)pidfd, &info, WEXITED | WNOHANG) == 0 &&
        info.si_pid == 0)
        return false;
    close(pidfd);
    return true;
}

/* After SIGKILL a process that hangs inside the kernel (a vendor's driver) may
 * stay: it is left to later, so that its successor need not wait. */
static void kill_child(const struct keeper_process *p, int *left)
{
    struct pollfd w = {.fd = p->watch, .events = POLLIN};

    kill(p->pid, SIGKILL);
    if (p->watch < 0) {
        waitpid(p->pid, NULL, 0);
        return;
    }
    if (poll(&w, 1, REAP_MS) == 1) {
        waitid(P_PIDFD, (id_t)p->watch, &(siginfo_t){0}, WEXITED);
        close(p->watch);
        return;
    }
    log_error("keeper %d does not end: it hangs inside the kernel",
              (int)p->pid);
    *left = p->watch;
}

/* One of another user ends itself when its connection does. */
void keeper_process_end(struct keeper_process *p, int *left)
{
    *left = -1;
    if (p->child)
        kill_child(p, left);
    else if (p->watch >= 0)
        close(p->watch);
    *p = (struct keeper_process){.watch = -1};
}
