/* hsmint-keeper - the boundary: the only process with the HSM, the network and,
 * for the length of one call, the admin key. spec/KEEPER.md.
 *
 * Order matters: no dump, no other privileges and an environment of our own
 * come before any library is initialised, because libcurl, libcrypto and
 * vendors' libraries take orders from it.
 */
#include "config.h"

#include "common/file.h"
#include "common/filter.h"
#include "common/handover.h"
#include "common/log.h"
#include "hsm/accept.h"
#include "hsm/http.h"
#include "hsm/keeper.h"
#include "hsm/listen.h"

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

#define FIRST_FD 3
#define STACK_SIZE (512 * 1024)

static const char help[] =
    "usage: hsmint-keeper --config FILE --channels N [--state DIR] |\n"
    "                                   --accepted | --listen PATH\n"
    "\n"
    "It alone opens the HSM and the network. Started by hsmintd, or under a\n"
    "user of its own by a socket ([daemon] keeper_socket).\n"
    "\n"
    "  --config FILE   the settings (hsmint.conf) that the daemon runs with\n"
    "  --channels N    serve N connected sockets, descriptors 3 and up: what\n"
    "                  hsmintd starts it with\n"
    "  --state DIR     hsmintd's, below which it keeps its own state\n"
    "  --accepted      serve the connection that is descriptor 3: for systemd,\n"
    "                  Accept=yes\n"
    "  --listen PATH   start a keeper for each connection of hsmintd, where\n"
    "                  there is no systemd\n"
    "  --help, --version\n";

struct options {
    const char *config, *listen, *state;
    int channels;
    bool accepted;
};

/* 0: go on; else exit with the status - 1. */
static int parse_options(int argc, char **argv, struct options *o)
{
    static const struct option longs[] = {
        {"config", required_argument, NULL, 'c'},
        {"channels", required_argument, NULL, 'n'},
        {"accepted", no_argument, NULL, 'a'},
        {"listen", required_argument, NULL, 'l'},
        {"state", required_argument, NULL, 's'},
        {"help", no_argument, NULL, 'h'},
        {"version", no_argument, NULL, 'V'},
        {NULL, 0, NULL, 0}};
    int option;
    char *end = NULL;
    bool good = true;
    while ((option = getopt_long(argc, argv, "", longs, NULL)) != -1) {
        switch (option) {
        case 'c':
            o->config = optarg;
            break;
        case 'n':
            o->channels = (int)strtol(optarg, &end, 10);
            good = end && !*end && o->channels >= 1 &&
                   o->channels <= HANDOVER_MAX;
            break;
        case 'a':
            o->accepted = true;
            break;
        case 'l':
            o->listen = optarg;
            break;
        case 's':
            o->state = optarg;
            break;
        case 'h':
            return fputs(help, stdout) < 0 ? 2 : 1;
        case 'V':
            return puts("hsmint-keeper " PACKAGE_VERSION) < 0 ? 2 : 1;
        default:
            return 3;
        }
    }
    /* It goes to / before it uses them, and executes itself again. */
    if ((o->config && o->config[0] != '/') ||
        (o->listen && o->listen[0] != '/') ||
        (o->state && o->state[0] != '/')) {
        fputs("hsmint-keeper: --config, --listen and --state: write absolute "
              "paths\n",
              stderr);
        return 3;
    }
    if (optind == argc && o->config && good && (!o->state || o->channels) &&
        (o->channels > 0) + o->accepted + (o->listen != NULL) == 1)
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
    prctl(PR_SET_NAME, "hsmint-keeper"); /* --listen executes "exe" */
    if (prctl(PR_SET_DUMPABLE, 0L) || setrlimit(RLIMIT_CORE, &none) ||
        prctl(PR_SET_NO_NEW_PRIVS, 1L, 0L, 0L, 0L))
        return error_errno(e, errno, "cannot confine the process");
    for (size_t i = 0; i < sizeof(ignored) / sizeof(ignored[0]); i++)
        signal(ignored[i], SIG_IGN);
    umask(077);
    return OK;
}

/* systemd's directory of credentials stays: the PIN may be one of them. */
static enum code empty_environment(char **credentials, struct error *e)
{
    const char *directory = getenv("CREDENTIALS_DIRECTORY");
    *credentials = directory ? strdup(directory) : NULL;
    if ((directory && !*credentials) || clearenv() ||
        (*credentials && setenv("CREDENTIALS_DIRECTORY", *credentials, 1)))
        return error_set(e, ERR_NOMEM, "cannot clear the environment");
    return OK;
}

static enum code close_others(unsigned first, struct error *e)
{
    if (close_range(first, ~0u, 0) ||
        close_range(FIRST_FD, ~0u, CLOSE_RANGE_CLOEXEC))
        return error_errno(e, errno, "cannot close foreign descriptors");
    return OK;
}

/* The channels that we were started with. */
static enum code inherit(int n, struct handover *h, struct error *e)
{
    struct stat st;
    for (int fd = FIRST_FD; fd < FIRST_FD + n; fd++) {
        if (fstat(fd, &st) || !S_ISSOCK(st.st_mode))
            return error_set(e, ERR_USAGE,
                             "descriptor %d is no socket: hsmintd starts this "
                             "program",
                             fd);
        h->fd[h->n++] = fd;
    }
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
static void wait_for_end(const struct handover *h)
{
    struct pollfd p[HANDOVER_MAX];
    for (int i = 0; i < h->n; i++)
        p[i] = (struct pollfd){.fd = h->fd[i]}; /* POLLHUP comes anyway */
    for (int left = h->n; left > 0;) {
        if (poll(p, (nfds_t)h->n, -1) < 0)
            continue;
        for (int i = 0; i < h->n; i++) {
            if (p[i].fd >= 0 && p[i].revents) {
                p[i].fd = -1;
                left--;
            }
        }
    }
}

static enum code serve_all(struct keeper *k, const struct handover *h,
                           struct error *e)
{
    static struct channel channels[HANDOVER_MAX];
    pthread_t thread;
    pthread_attr_t attr;
    if (pthread_attr_init(&attr) ||
        pthread_attr_setstacksize(&attr, STACK_SIZE) ||
        pthread_attr_setdetachstate(&attr, PTHREAD_CREATE_DETACHED))
        return error_set(e, ERR_INTERNAL, "no thread attributes");
    for (int i = 0; i < h->n; i++) {
        channels[i] = (struct channel){.keeper = k, .sock = h->fd[i]};
        int failed = pthread_create(&thread, &attr, serve, &channels[i]);
        if (failed)
            return error_errno(e, failed, "cannot start thread %d", i);
    }
    pthread_attr_destroy(&attr);
    wait_for_end(h);
    return OK;
}

static enum code start_and_serve(const struct options *o,
                                 const struct settings *s, struct error *e)
{
    static struct keeper keeper;
    static struct handover h; /* its sockets live as long as the process */
    const char *state = o->accepted ? NULL : o->state ? o->state : s->state_dir;
    enum code rc = o->accepted ? accept_channels(s, &h, e)
                               : inherit(o->channels, &h, e);
    if (rc || (rc = start_libraries(e)) || (rc = keeper_init(&keeper, s, state, e)) ||
        (rc = filter_install(FILTER_KEEPER, s, e)) ||
        (o->accepted && (rc = accept_ready(e))))
        return rc;
    return serve_all(&keeper, &h, e);
}

static enum code run(const struct options *o, struct settings *s,
                     struct error *e)
{
    FREE char *credentials = NULL;
    int taken = o->accepted ? 1 : o->channels;
    enum code rc = o->accepted ? accept_check_environment(e) : OK;
    if (rc || (rc = close_others(FIRST_FD + (unsigned)taken, e)) ||
        (rc = empty_environment(&credentials, e)) ||
        (rc = configure(s, o->config, e)))
        return rc;
    open_log(s);
    return o->listen ? listen_run(o->listen, o->config, credentials, s, e)
                     : start_and_serve(o, s, e);
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
    if (rc) {
        fprintf(stderr, "hsmint-keeper: %s\n", e.text);
        if (o.accepted && rc != ERR_USAGE)
            accept_refuse(ACCEPT_FD, &e);
    }
    fflush(NULL);
#ifdef HSMINT_COVERAGE
    __gcov_dump();
#endif
    /* No atexit handlers: vendors' libraries crash in theirs, and nothing here
     * needs an end. */
    _exit(error_exit_code(rc));
}
