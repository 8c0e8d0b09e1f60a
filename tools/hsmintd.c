/* hsmintd - the daemon: options, and the order in which it begins and ends.
 *
 * Exit status: 0 it left in order, 1 it could not start or go on, 2 usage,
 * 3 the HSM's PIN is locked or must not be tried.
 */
#include "config.h"

#include "common/clock.h"
#include "common/error.h"
#include "common/file.h"
#include "common/filter.h"
#include "common/log.h"
#include "common/settings.h"
#include "common/wire.h"
#include "tools/configure.h"
#include "tools/process.h"
#include "tools/server.h"
#include "tools/supervisor.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <limits.h>
#include <openssl/crypto.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define LEAVING_MS 3000
#define LOOK_AGAIN_MS 50
#define REFUSE_MS 200 /* for each that waits, when there is nothing to serve */
#define REFUSE_MOST 32

enum exit_status {
    EXIT_ORDERLY = 0,
    EXIT_FAILED = 1,
    EXIT_USAGE = 2,
    EXIT_PIN = 3
};

static const char usage[] =
    "Usage: hsmintd [OPTION]...\n"
    "Serves OpenAI credentials whose admin key only the HSM opens.\n"
    "\n"
    "  --user          serve one user; the default\n"
    "  --system        serve the machine; the configuration has to say\n"
    "                  mode = system as well\n"
    "  --config FILE   default ~/.config/hsmint/hsmint.conf, with --system\n"
    "                  " HSMINT_SYSCONFDIR "/hsmint/hsmint.conf\n"
    "  --state DIR     instead of state_dir in the configuration\n"
    "  --socket PATH   instead of socket in the configuration\n"
    "  --foreground    log to standard error, whatever the configuration says\n"
    "  --keeper PATH   the keeper's program; for tests\n"
    "  --help, --version\n"
    "\n"
    "It stays in the foreground, ends in order on SIGTERM and SIGINT, takes a\n"
    "listening socket from systemd and tells it when it is ready.\n"
    "\n"
    "SIGHUP: settings and policies are read again.\n"
    "\n"
    "Exit status: 0 left in order, 1 could not start or go on, 2 usage, 3 the\n"
    "HSM's PIN is locked or must not be tried (system mode).\n";

static void options_clear(struct configure_options *o)
{
    free(o->config);
    free(o->state);
    free(o->socket);
    free(o->keeper);
}

/* It leaves the directory that it was started in. */
static char *absolute(const char *path)
{
    char cwd[PATH_MAX];
    char *out = NULL;
    if (path[0] == '/')
        return strdup(path);
    if (!getcwd(cwd, sizeof cwd) || asprintf(&out, "%s/%s", cwd, path) < 0)
        return NULL;
    return out;
}

static const struct option long_options[] = {
    {"user", no_argument, NULL, 'u'},
    {"system", no_argument, NULL, 's'},
    {"config", required_argument, NULL, 'c'},
    {"state", required_argument, NULL, 'd'},
    {"socket", required_argument, NULL, 'l'},
    {"foreground", no_argument, NULL, 'f'},
    {"keeper", required_argument, NULL, 'k'},
    {"help", no_argument, NULL, 'h'},
    {"version", no_argument, NULL, 'v'},
    {NULL, 0, NULL, 0},
};

static bool set_path(char **path)
{
    free(*path);
    *path = *optarg ? absolute(optarg) : NULL;
    if (!*path)
        fprintf(stderr, "hsmintd: no path: \"%s\"\n", optarg);
    return *path != NULL;
}

/* -1: go on; else the exit status. */
static int read_options(struct configure_options *o, int argc, char **argv)
{
    bool good = true;
    int c;
    while (good && (c = getopt_long(argc, argv, "", long_options, NULL)) != -1)
        switch (c) {
        case 'u':
            o->user = true;
            break;
        case 's':
            o->system = true;
            break;
        case 'f':
            o->foreground = true;
            break;
        case 'c':
            good = set_path(&o->config);
            break;
        case 'd':
            good = set_path(&o->state);
            break;
        case 'l':
            good = set_path(&o->socket);
            break;
        case 'k':
            good = set_path(&o->keeper);
            break;
        case 'h':
            fputs(usage, stdout);
            return EXIT_ORDERLY;
        case 'v':
            puts("hsmintd " PACKAGE_VERSION);
            return EXIT_ORDERLY;
        default:
            good = false;
        }
    if (good && optind == argc && !(o->user && o->system))
        return -1;
    if (good)
        fprintf(stderr, "hsmintd: %s\n",
                optind < argc ? "takes no arguments"
                              : "either --user or --system");
    fputs("Try hsmintd --help.\n", stderr);
    return EXIT_USAGE;
}

/* ---- the life of the daemon ---- */

/* A user's socket is in a directory that only that user can enter; a system
 * daemon's is open to all, and each peer's uid is checked. */
static enum code listen_at(const struct settings *s, int *fd, struct error *e)
{
    if (s->mode == MODE_SYSTEM)
        return wire_listen(s->socket, 0666, fd, e);
    if (!s->socket)
        return error_set(e, ERR_CONFIG,
                         "no XDG_RUNTIME_DIR and no /run/user/%u to put the "
                         "socket in: set socket in the configuration",
                         (unsigned)geteuid());
    FREE char *dir = strdup(s->socket);
    if (!dir)
        return error_set(e, ERR_NOMEM, "socket");
    char *slash = strrchr(dir, '/');
    if (!slash || slash == dir)
        return error_set(e, ERR_CONFIG,
                         "socket %s: has to be in a directory of its own",
                         s->socket);
    *slash = '\0';
    enum code rc = file_private_dir(dir, false, e);
    return rc ? rc : wire_listen(s->socket, 0600, fd, e);
}

/* A locked PIN, or one that must not be tried, does not get better by starting
 * again: a machine's daemon ends with a status that says so. */
static enum code check_pin(struct daemon *d, struct error *e)
{
    struct error why = {.code = OK};
    if (d->settings->mode != MODE_SYSTEM || !core_not_ready(d->core, &why))
        return OK;
    if (why.code == ERR_PIN_LOCKED)
        return error_set(e, why.code, "%s", why.text);
    if (why.code == ERR_PIN_HELD)
        return error_set(e, why.code,
                         "%s. Log in once with the HSM's own tool and the "
                         "right PIN, which resets the count; then start "
                         "hsmintd again",
                         why.text);
    return OK;
}

static void refuse_one(int fd, const struct error *why)
{
    struct wire *wire = NULL;
    JSON request = NULL;
    JSON reply = wire_error_reply(why);
    FD in = -1;
    if (wire_new(&wire, fd, NULL) == OK && reply &&
        wire_recv(wire, &request, &in, REFUSE_MS, NULL) == OK &&
        wire_send(wire, reply, -1, REFUSE_MS, NULL) == OK)
        log_debug("a caller was told why");
    wire_free(wire);
}

/* Callers that wait are told: a connection left in systemd's socket would have
 * the daemon started again at once. */
static void refuse_waiting(const int *listeners, size_t n,
                           const struct error *why)
{
    for (size_t i = 0, told = 0; i < n; i++) {
        int flags = fcntl(listeners[i], F_GETFL), fd;
        if (flags < 0 || fcntl(listeners[i], F_SETFL, flags | O_NONBLOCK) < 0)
            continue;
        while (told++ < REFUSE_MOST &&
               (fd = accept4(listeners[i], NULL, NULL, SOCK_CLOEXEC)) >= 0)
            refuse_one(fd, why); /* takes fd */
    }
}

/* Connections wait in the backlog until core is open. */
static enum code serve(struct daemon *d, const struct core_options *co,
                       const int *listeners, size_t listeners_n,
                       struct error *e)
{
    bool drained = true;
    struct server *server = NULL;
    enum code rc = core_open(&d->core, co, e);
    if (rc)
        return rc;
    d->supervisor->core = d->core;
    rc = check_pin(d, e);
    if (rc)
        refuse_waiting(listeners, listeners_n, e);
    else
        rc = server_new(&server, d, listeners, listeners_n, e);
    d->supervisor->server = server;
    if (rc == OK) {
        supervisor_ready(d->supervisor);
        rc = server_run(server, &drained, e);
    }
    /* Threads that hang go on using store and core: the process ends under
     * them, as a crash would end it, and the next start picks up. */
    if (!drained)
        _exit(rc ? EXIT_FAILED : EXIT_ORDERLY);
    server_free(server);
    core_close(d->core);
    return rc;
}

/* The daemon before may still be leaving. */
static enum code open_store(struct store **store, const struct store_options *o,
                            struct error *e)
{
    int64_t end = clock_monotonic_ms() + LEAVING_MS;
    enum code rc;
    while ((rc = store_open(store, o, e)) == ERR_BUSY &&
           clock_monotonic_ms() < end)
        usleep(LOOK_AGAIN_MS * 1000);
    return rc;
}

/* The store's lock says that this state is ours: only then the socket of a
 * daemon that died is replaced. */
static enum code open_and_serve(struct supervisor *sup, const char *path,
                                struct error *e)
{
    const struct settings *s = sup->settings;
    const struct process_inherited *in = sup->in;
    struct daemon d = {.settings = s,
                       .config_path = path,
                       .uid = geteuid(),
                       .supervisor = sup};
    struct store_options so = {.dir = s->state_dir,
                               .disk_reserve = s->disk_reserve};
    enum code rc = open_store(&d.store, &so, e);
    if (rc)
        return rc;
    int own = -1;
    if (!in->listeners_n)
        rc = listen_at(s, &own, e);
    if (rc == OK) {
        const char *keeper = sup->options->keeper;
        struct core_options co = {
            .store = d.store,
            .settings = s,
            .config_path = path,
            .keeper_path =
                keeper ? keeper : HSMINT_LIBEXECDIR "/hsmint-keeper"};
        sup->where = in->listeners_n ? "socket from systemd" : s->socket;
        rc = serve(&d, &co, in->listeners_n ? in->listeners : &own,
                   in->listeners_n ? in->listeners_n : 1, e);
        if (own >= 0)
            unlink(s->socket);
    }
    store_close(d.store);
    return rc;
}

/* *shown: the log tells errors on standard error already. */
static enum code start(const struct configure_options *o, bool *shown,
                       struct error *e)
{
    struct process_inherited in;
    CLEANUP(settings_clear) struct settings s = {.mode = MODE_USER};
    struct supervisor sup = {.in = &in, .options = o, .settings = &s};
    FREE char *path = NULL;
    enum code rc = process_inherit(&in, e);
    if (rc == OK)
        rc = process_harden(e);
    if (rc == OK)
        rc = configure_read(&s, &path, o, e);
    if (rc)
        return rc;
    *shown = configure_log(&s);
    process_raise_limits();
    if (chdir("/") < 0)
        return error_errno(e, errno, "leave the working directory");
    rc = filter_install(s.keeper_socket ? FILTER_DAEMON : FILTER_PARENT, &s, e);
    if (rc == OK)
        rc = open_and_serve(&sup, path, e);
    if (rc)
        log_failure(e, "hsmintd ends");
    return rc;
}

/* Nothing that a new start would mend. */
static int exit_status(enum code rc)
{
    if (rc == ERR_PIN_LOCKED || rc == ERR_PIN_HELD)
        return EXIT_PIN;
    return rc ? EXIT_FAILED : EXIT_ORDERLY;
}

int main(int argc, char **argv)
{
    process_own_environment(argv);
    /* Before anything asks for SHA-256: no configuration file of OpenSSL may
     * load code into this process. */
    if (OPENSSL_init_crypto(OPENSSL_INIT_NO_LOAD_CONFIG, NULL) != 1) {
        fputs("hsmintd: libcrypto does not start\n", stderr);
        return EXIT_FAILED;
    }
    CLEANUP(options_clear) struct configure_options o = {.user = false};
    int status = read_options(&o, argc, argv);
    if (status >= 0)
        return status;
    struct error e = {.code = OK};
    bool shown = false;
    enum code rc = start(&o, &shown, &e);
    if (rc && !shown)
        fprintf(stderr, "hsmintd: %s\n", e.text);
    log_close();
    return exit_status(rc);
}
