#include "config.h"

#include "tools/process.h"

#include "common/file.h"
#include "common/log.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define LISTEN_FIRST 3 /* sd_listen_fds(3) */

/* Says that this environment is ours. Whoever sets it beforehand only keeps
 * their own libraries' variables until process_inherit() drops them. */
#define MARK "HSMINTD_ENVIRONMENT"

static const char *const kept[] = {
    "LISTEN_PID",      "LISTEN_FDS",
    "NOTIFY_SOCKET",   "CREDENTIALS_DIRECTORY",
    "WATCHDOG_PID",    "WATCHDOG_USEC",
    "XDG_CONFIG_HOME", "XDG_RUNTIME_DIR",
};
#define KEPT (sizeof kept / sizeof kept[0])

static void die(const char *what)
{
    fprintf(stderr, "hsmintd: %s: %s\n", what, strerror(errno));
    exit(1);
}

void process_own_environment(char **argv)
{
    if (getauxval(AT_SECURE)) {
        fputs("hsmintd: refuses to run set-uid, set-gid or with file "
              "capabilities\n",
              stderr);
        exit(1);
    }
    if (getenv(MARK)) {
        prctl(PR_SET_NAME, "hsmintd"); /* execve() made it "exe" */
        return;
    }

    char *made[KEPT + 2];
    size_t n = 0;
    for (size_t i = 0; i < KEPT; i++) {
        const char *value = getenv(kept[i]);
        if (value && asprintf(&made[n++], "%s=%s", kept[i], value) < 0)
            die("environment");
    }
    char mark[] = MARK "=own";
    made[n++] = mark;
    made[n] = NULL;
    execve("/proc/self/exe", argv, made);
    die("cannot execute itself again (is /proc mounted?)");
}

/* False where it is not set. What is no whole number is -1. */
static bool environment_int(const char *name, long *out)
{
    const char *text = getenv(name);
    char *end = NULL;
    if (!text)
        return false;
    errno = 0;
    *out = strtol(text, &end, 10);
    if (errno || *end || *text < '0' || *text > '9')
        *out = -1;
    return true;
}

static bool is_listener(int fd)
{
    int value = 0;
    socklen_t len = sizeof value;
    struct sockaddr_un a = {0};
    socklen_t alen = sizeof a;
    int type = 0;
    socklen_t tlen = sizeof type;
    return getsockopt(fd, SOL_SOCKET, SO_ACCEPTCONN, &value, &len) == 0 &&
           value == 1 &&
           getsockopt(fd, SOL_SOCKET, SO_TYPE, &type, &tlen) == 0 &&
           type == SOCK_STREAM && getsockname(fd, (struct sockaddr *)&a, &alen) == 0 &&
           a.sun_family == AF_UNIX;
}

static enum code take_listeners(struct process_inherited *in, struct error *e)
{
    long pid = 0, n = 0;
    if (!environment_int("LISTEN_PID", &pid) || pid != getpid() ||
        !environment_int("LISTEN_FDS", &n) || n == 0)
        return OK;
    if (n < 0 || n > PROCESS_LISTENERS)
        return error_set(e, ERR_CONFIG,
                         "LISTEN_FDS is %.32s: 1 to %d sockets are served",
                         getenv("LISTEN_FDS"), PROCESS_LISTENERS);
    for (int fd = LISTEN_FIRST; fd < LISTEN_FIRST + n; fd++) {
        if (!is_listener(fd))
            return error_set(e, ERR_CONFIG,
                             "descriptor %d from systemd is no listening "
                             "AF_UNIX socket (ListenStream= with a path)",
                             fd);
        if (fcntl(fd, F_SETFD, FD_CLOEXEC) < 0)
            return error_errno(e, errno, "descriptor %d from systemd", fd);
        in->listeners[in->listeners_n++] = fd;
    }
    return OK;
}

static enum code open_standard(struct error *e)
{
    for (;;) {
        int fd = open("/dev/null", O_RDWR | O_CLOEXEC);
        if (fd < 0)
            return error_errno(e, errno, "open /dev/null");
        if (fd > STDERR_FILENO) {
            close(fd);
            return OK;
        }
        if (fcntl(fd, F_SETFD, 0) < 0)
            return error_errno(e, errno, "descriptor %d", fd);
    }
}

/* What it is to be told, and how often: sd_notify(3), sd_watchdog_enabled(3).
 */
static void take_notify(struct process_inherited *in)
{
    const char *notify = getenv("NOTIFY_SOCKET");
    long pid = getpid(), usec = 0;
    if (notify && (notify[0] == '/' || notify[0] == '@') && notify[1] &&
        strlen(notify) < sizeof in->notify)
        strcpy(in->notify, notify);
    environment_int("WATCHDOG_PID", &pid);
    if (in->notify[0] && environment_int("WATCHDOG_USEC", &usec) && usec > 0 &&
        pid == getpid())
        in->watchdog_ms = usec < 2000 ? 1 : usec / 2000;
}

/* What libraries and settings may go on reading. */
static enum code empty_environment(struct error *e)
{
    static const char *const stay[] = {"CREDENTIALS_DIRECTORY",
                                       "XDG_CONFIG_HOME", "XDG_RUNTIME_DIR"};
    enum { STAY = sizeof stay / sizeof stay[0] };
    char *values[STAY];
    int failed = 0;
    for (size_t i = 0; i < STAY; i++) {
        const char *value = getenv(stay[i]);
        values[i] = value ? strdup(value) : NULL;
        failed |= value && !values[i];
    }
    failed |= clearenv();
    for (size_t i = 0; i < STAY; i++) {
        failed |= values[i] && setenv(stay[i], values[i], 1);
        free(values[i]);
    }
    return failed ? error_set(e, ERR_NOMEM, "environment") : OK;
}

enum code process_inherit(struct process_inherited *in, struct error *e)
{
    *in = (struct process_inherited){.listeners_n = 0};
    enum code rc = take_listeners(in, e);
    if (rc)
        return rc;
    if (close_range(LISTEN_FIRST + (unsigned)in->listeners_n, ~0U, 0) < 0)
        return error_errno(e, errno, "close inherited descriptors");
    rc = open_standard(e);
    if (rc)
        return rc;

    take_notify(in);
    return empty_environment(e);
}

enum code process_harden(struct error *e)
{
    const struct rlimit none = {0, 0};
    if (prctl(PR_SET_DUMPABLE, 0) < 0 || setrlimit(RLIMIT_CORE, &none) < 0)
        return error_errno(e, errno, "forbid core dumps");
    if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
        return error_errno(e, errno, "forbid new privileges");
    umask(077);
    if (signal(SIGPIPE, SIG_IGN) == SIG_ERR)
        return error_errno(e, errno, "ignore SIGPIPE");
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGHUP);
    if (sigprocmask(SIG_BLOCK, &set, NULL) < 0)
        return error_errno(e, errno, "block signals");
    return OK;
}

void process_raise_limits(void)
{
    struct rlimit files;
    if (getrlimit(RLIMIT_NOFILE, &files) == 0) {
        files.rlim_cur = files.rlim_max;
        if (setrlimit(RLIMIT_NOFILE, &files) < 0)
            log_debug("the limit of descriptors stays as it is");
    }
    struct rlimit locked;
    if (getrlimit(RLIMIT_MEMLOCK, &locked) == 0) {
        locked.rlim_cur = locked.rlim_max;
        if (setrlimit(RLIMIT_MEMLOCK, &locked) < 0)
            log_debug("the limit of locked memory stays as it is");
    }
}

void process_notify(const struct process_inherited *in, const char *fmt, ...)
{
    char state[512];
    if (!in->notify[0])
        return;
    va_list args;
    va_start(args, fmt);
    vsnprintf(state, sizeof state, fmt, args);
    va_end(args);
    struct sockaddr_un a = {.sun_family = AF_UNIX};
    size_t len = strlen(in->notify);
    memcpy(a.sun_path, in->notify, len);
    if (a.sun_path[0] == '@')
        a.sun_path[0] = '\0';
    FD fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    socklen_t alen = (socklen_t)(offsetof(struct sockaddr_un, sun_path) + len);
    if (fd < 0 || sendto(fd, state, strlen(state), MSG_NOSIGNAL,
                         (struct sockaddr *)&a, alen) < 0)
        log_warning("could not tell systemd \"%s\": %s", state,
                    strerror(errno));
}
