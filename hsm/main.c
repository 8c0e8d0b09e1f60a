/* hsmint-keeper - the boundary: the only process with the HSM, the network and,
 * for the length of one call, the admin key. spec/KEEPER.md.
 *
 * Order matters: no dump, no other privileges and an environment of our own
 * come before any library is initialised, because libcurl, libcrypto and
 * vendors' libraries take orders from it.
 */
#include "config.h"

#include "common/log.h"
#include "hsm/http.h"
#include "hsm/keeper.h"

#include <errno.h>
#include <getopt.h>
#include <openssl/crypto.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#ifdef HSMINT_COVERAGE
extern void __gcov_dump(void); /* _exit() would lose what was counted */
#endif

#define CHANNELS_MAX 64
#define FIRST_FD 3
#define STACK_SIZE (512 * 1024)

static const char help[] =
    "usage: hsmint-keeper --config FILE --channels N\n"
    "\n"
    "Started by hsmintd with N connected sockets as descriptors 3 and up; not\n"
    "meant to be run by hand. It alone opens the HSM and the network.\n"
    "\n"
    "  --config FILE   the settings (hsmint.conf) that the daemon runs with\n"
    "  --channels N    1 to 64\n"
    "  --help, --version\n";

struct options {
    const char *config;
    int channels;
};

/* 0: go on; else exit with the status - 1. */
static int parse_options(int argc, char **argv, struct options *o)
{
    static const struct option longs[] = {
        {"config", required_argument, NULL, 'c'},
        {"channels", required_argument, NULL, 'n'},
        {"help", no_argument, NULL, 'h'},
        {"version", no_argument, NULL, 'V'},
        {NULL, 0, NULL, 0}};
    int option;
    char *end = NULL;
    while ((option = getopt_long(argc, argv, "", longs, NULL)) != -1) {
        switch (option) {
        case 'c':
            o->config = optarg;
            break;
        case 'n':
            o->channels = (int)strtol(optarg, &end, 10);
            break;
        case 'h':
            return fputs(help, stdout) < 0 ? 2 : 1;
        case 'V':
            return puts("hsmint-keeper " PACKAGE_VERSION) < 0 ? 2 : 1;
        default:
            return 3;
        }
    }
    if (optind == argc && o->config && end && !*end && o->channels >= 1 &&
        o->channels <= CHANNELS_MAX)
        return 0;
    fputs(help, stderr);
    return 3;
}

/* What the process may not do, whoever started it. It ends with its channels: a
 * terminal's or a service manager's signals must not take it away while the
 * daemon still revokes. */
static enum code confine(struct error *e)
{
    const struct rlimit none = {0, 0};
    static const int ignored[] = {SIGPIPE, SIGINT, SIGTERM, SIGHUP, SIGQUIT};
    if (prctl(PR_SET_DUMPABLE, 0L) || setrlimit(RLIMIT_CORE, &none) ||
        prctl(PR_SET_NO_NEW_PRIVS, 1L, 0L, 0L, 0L))
        return error_errno(e, errno, "cannot confine the process");
    for (size_t i = 0; i < sizeof(ignored) / sizeof(ignored[0]); i++)
        signal(ignored[i], SIG_IGN);
    umask(077);
    if (clearenv())
        return error_errno(e, errno, "cannot clear the environment");
    return OK;
}

static enum code check_channels(int n, struct error *e)
{
    struct stat st;
    for (int fd = FIRST_FD; fd < FIRST_FD + n; fd++)
        if (fstat(fd, &st) || !S_ISSOCK(st.st_mode))
            return error_set(e, ERR_USAGE,
                             "descriptor %d is no socket: hsmintd starts this "
                             "program",
                             fd);
    if (close_range(FIRST_FD + (unsigned)n, ~0u, 0) ||
        close_range(FIRST_FD, ~0u, CLOSE_RANGE_CLOEXEC))
        return error_errno(e, errno, "cannot close foreign descriptors");
    return OK;
}

static enum code configure(struct settings *s, const char *path,
                           struct error *e)
{
    enum code rc = settings_read(s, path, false, e);
    if (rc)
        return rc;
    for (char **entry = s->hsm_env; entry && *entry; entry++)
        if (putenv(*entry))
            return error_errno(e, errno, "cannot set [hsm.env]");
    return chdir("/") ? error_errno(e, errno, "cannot go to /") : OK;
}

static void open_log(const struct settings *s)
{
    static const char *const sinks[] = {"stderr", "syslog", "journal", "none"};
    static const char *const levels[] = {"error", "warning", "info", "debug"};
    enum log_sink sink = LOG_SINK_STDERR;
    enum log_level level = LOG_LEVEL_INFO;
    for (size_t i = 0; i < 4; i++) {
        if (s->log && strcmp(s->log, sinks[i]) == 0)
            sink = (enum log_sink)i;
        if (s->log_level && strcmp(s->log_level, levels[i]) == 0)
            level = (enum log_level)i;
    }
    log_open("hsmint-keeper", sink, level);
}

static enum code start_libraries(struct error *e)
{
    if (OPENSSL_init_crypto(
            OPENSSL_INIT_NO_LOAD_CONFIG | OPENSSL_INIT_NO_ATEXIT, NULL) != 1)
        return error_set(e, ERR_INTERNAL, "libcrypto does not start");
    return http_global_init(e);
}

static void *serve(void *channel)
{
    permit_serve(channel);
    return NULL;
}

/* Until the daemon has closed all of them, or died. Not PR_SET_PDEATHSIG: that
 * is bound to the thread of the daemon that started us. A thread that still
 * works, or hangs in the HSM, has nobody left to answer. */
static void wait_for_end(int n)
{
    struct pollfd p[CHANNELS_MAX];
    for (int i = 0; i < n; i++)
        p[i] = (struct pollfd){.fd = FIRST_FD + i}; /* POLLHUP comes anyway */
    for (int left = n; left > 0;) {
        if (poll(p, (nfds_t)n, -1) < 0)
            continue;
        for (int i = 0; i < n; i++) {
            if (p[i].fd >= 0 && p[i].revents) {
                p[i].fd = -1;
                left--;
            }
        }
    }
}

static enum code serve_all(struct keeper *k, int n, struct error *e)
{
    static struct channel channels[CHANNELS_MAX];
    pthread_t thread;
    pthread_attr_t attr;
    if (pthread_attr_init(&attr) ||
        pthread_attr_setstacksize(&attr, STACK_SIZE) ||
        pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED))
        return error_set(e, ERR_INTERNAL, "no thread attributes");
    for (int i = 0; i < n; i++) {
        channels[i] = (struct channel){.keeper = k, .sock = FIRST_FD + i};
        int failed = pthread_create(&thread, &attr, serve, &channels[i]);
        if (failed)
            return error_errno(e, failed, "cannot start thread %d", i);
    }
    pthread_attr_destroy(&attr);
    wait_for_end(n);
    return OK;
}

static enum code run(const struct options *o, struct settings *s,
                     struct error *e)
{
    static struct keeper keeper;
    enum code rc;
    if ((rc = check_channels(o->channels, e)) ||
        (rc = configure(s, o->config, e)))
        return rc;
    open_log(s);
    if ((rc = start_libraries(e)) || (rc = keeper_init(&keeper, s, e)))
        return rc;
    return serve_all(&keeper, o->channels, e);
}

int main(int argc, char **argv)
{
    static struct settings settings;
    struct options o = {.config = NULL};
    struct error e = {.code = OK};
    int stop = parse_options(argc, argv, &o);
    if (stop)
        return stop - 1;
    enum code rc = confine(&e);
    if (rc == OK)
        rc = run(&o, &settings, &e);
    if (rc)
        fprintf(stderr, "hsmint-keeper: %s\n", e.text);
    fflush(NULL);
#ifdef HSMINT_COVERAGE
    __gcov_dump();
#endif
    /* No atexit handlers: vendors' libraries crash in theirs, and nothing here
     * needs an end. */
    _exit(error_exit_code(rc));
}
