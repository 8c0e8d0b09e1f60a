/* hsmintd - the daemon: options, and the order in which it begins and ends.
 *
 * Exit status: 0 it left in order, 1 it could not start or go on, 2 usage.
 */
#include "config.h"

#include "common/clock.h"
#include "common/error.h"
#include "common/file.h"
#include "common/filter.h"
#include "common/log.h"
#include "common/settings.h"
#include "common/wire.h"
#include "tools/process.h"
#include "tools/server.h"

#include <errno.h>
#include <getopt.h>
#include <limits.h>
#include <openssl/crypto.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LEAVING_MS 3000
#define LOOK_AGAIN_MS 50

enum exit_status { EXIT_ORDERLY = 0, EXIT_FAILED = 1, EXIT_USAGE = 2 };

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
    "Exit status: 0 left in order, 1 could not start or go on, 2 usage.\n";

struct options {
    bool user, system, foreground;
    char *config, *state, *socket, *keeper; /* absolute */
};

static void options_clear(struct options *o)
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
static int read_options(struct options *o, int argc, char **argv)
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

/* ---- settings ---- */

static enum code replace(char **setting, const char *with, struct error *e)
{
    if (!with)
        return OK;
    char *copy = strdup(with);
    if (!copy)
        return error_set(e, ERR_NOMEM, "settings");
    free(*setting);
    *setting = copy;
    return OK;
}

/* Option and file have to agree: the mode is never a matter of falling back. */
static enum code check_mode(const struct settings *s, const struct options *o,
                            const char *path, struct error *e)
{
    if (o->system && s->mode != MODE_SYSTEM)
        return error_set(e, ERR_CONFIG,
                         "--system, but %s does not say mode = system", path);
    if (o->user && s->mode != MODE_USER)
        return error_set(e, ERR_CONFIG, "--user, but %s says mode = system",
                         path);
    return OK;
}

/* Without one there is nothing that it could do. */
static enum code check_hsm(const struct settings *s, const char *path,
                           struct error *e)
{
    if (s->hsm_module && *s->hsm_module)
        return OK;
    return error_set(e, ERR_CONFIG,
                     "%s names no HSM: `hsmint init --hsm-module PATH "
                     "--hsm-uri URI` writes one, see hsmint.conf(5)",
                     path);
}

static enum code read_settings(struct settings *s, char **path,
                               const struct options *o, struct error *e)
{
    enum code rc =
        o->config ? replace(path, o->config, e)
                  : settings_default_path(o->system ? MODE_SYSTEM : MODE_USER,
                                          path, e);
    if (rc == OK)
        rc = settings_read(s, *path, o->config != NULL, e);
    if (rc == OK)
        rc = check_mode(s, o, *path, e);
    if (rc == OK)
        rc = check_hsm(s, *path, e);
    if (rc == OK)
        rc = replace(&s->state_dir, o->state, e);
    if (rc == OK)
        rc = replace(&s->socket, o->socket, e);
    if (rc == OK)
        rc = replace(&s->log, o->foreground ? "stderr" : NULL, e);
    return rc;
}

/* True: its lines go to standard error. */
static bool open_log(const struct settings *s)
{
    static const struct {
        const char *name;
        enum log_sink sink;
    } sinks[] = {{"stderr", LOG_SINK_STDERR},
                 {"syslog", LOG_SINK_SYSLOG},
                 {"journal", LOG_SINK_JOURNAL},
                 {"none", LOG_SINK_NONE}};
    static const char *const levels[] = {"error", "warning", "info", "debug"};
    enum log_sink sink = LOG_SINK_STDERR;
    int level = LOG_LEVEL_INFO;
    for (size_t i = 0; i < sizeof sinks / sizeof sinks[0]; i++)
        if (!strcmp(s->log, sinks[i].name))
            sink = sinks[i].sink;
    for (int i = 0; i < 4; i++)
        if (!strcmp(s->log_level, levels[i]))
            level = i;
    log_open("hsmintd", sink, (enum log_level)level);
    return sink == LOG_SINK_STDERR;
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

/* Connections wait in the backlog until core is open. */
static enum code serve(struct daemon *d, const struct core_options *co,
                       const struct process_inherited *in, const int *listeners,
                       size_t listeners_n, struct error *e)
{
    bool drained = true;
    struct server *server = NULL;
    enum code rc = core_open(&d->core, co, e);
    if (rc)
        return rc;
    rc = server_new(&server, d, listeners, listeners_n, e);
    if (rc == OK) {
        process_notify(in, "READY=1");
        log_info("ready: %s mode, %s",
                 d->settings->mode == MODE_USER ? "user" : "system",
                 in->listeners_n ? "socket from systemd" : d->settings->socket);
        rc = server_run(server, &drained, e);
        process_notify(in, "STOPPING=1");
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
static enum code open_and_serve(const struct settings *s, const char *path,
                                const char *keeper,
                                const struct process_inherited *in,
                                struct error *e)
{
    struct daemon d = {
        .settings = s, .config_path = path, .uid = geteuid()};
    struct store_options so = {.dir = s->state_dir,
                               .disk_reserve = s->disk_reserve};
    enum code rc = open_store(&d.store, &so, e);
    if (rc)
        return rc;
    int own = -1;
    if (!in->listeners_n)
        rc = listen_at(s, &own, e);
    if (rc == OK) {
        struct core_options co = {.store = d.store,
                                  .settings = s,
                                  .config_path = path,
                                  .keeper_path = keeper};
        rc = serve(&d, &co, in, in->listeners_n ? in->listeners : &own,
                   in->listeners_n ? in->listeners_n : 1, e);
        if (own >= 0)
            unlink(s->socket);
    }
    store_close(d.store);
    return rc;
}

/* *shown: the log tells errors on standard error already. */
static enum code start(const struct options *o, bool *shown, struct error *e)
{
    struct process_inherited in;
    CLEANUP(settings_clear) struct settings s = {.mode = MODE_USER};
    FREE char *path = NULL;
    enum code rc = process_inherit(&in, e);
    if (rc == OK)
        rc = process_harden(e);
    if (rc == OK)
        rc = read_settings(&s, &path, o, e);
    if (rc)
        return rc;
    *shown = open_log(&s);
    process_raise_limits();
    if (chdir("/") < 0)
        return error_errno(e, errno, "leave the working directory");
    rc = filter_install(s.keeper_socket ? FILTER_DAEMON : FILTER_PARENT, &s, e);
    if (rc == OK)
        rc = open_and_serve(
            &s, path,
            o->keeper ? o->keeper : HSMINT_LIBEXECDIR "/hsmint-keeper", &in, e);
    if (rc)
        log_failure(e, "hsmintd ends");
    return rc;
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
    CLEANUP(options_clear) struct options o = {.user = false};
    int status = read_options(&o, argc, argv);
    if (status >= 0)
        return status;
    struct error e = {.code = OK};
    bool shown = false;
    enum code rc = start(&o, &shown, &e);
    if (rc && !shown)
        fprintf(stderr, "hsmintd: %s\n", e.text);
    log_close();
    return rc ? EXIT_FAILED : EXIT_ORDERLY;
}
