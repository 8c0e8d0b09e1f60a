/* hsmint-exporter - the daemon's metrics for Prometheus. */
#include "config.h"

#include "common/file.h"
#include "common/log.h"
#include "common/text.h"
#include "tools/exporter.h"

#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <time.h>
#include <unistd.h>

#define LISTEN_DEFAULT "127.0.0.1:9464"
#define INTERVAL_DEFAULT_S 15
#define TEXTFILE_MODE 0644

struct options {
    const char *socket, *listen, *unix_path, *textfile;
    int64_t interval_s;
    bool once, help, version;
};

static const char help_text[] =
    "usage: hsmint-exporter [OPTION...]\n"
    "Serves the metrics of hsmintd to Prometheus.\n"
    "\n"
    "  --listen ADDR:PORT  HTTP on this machine's own address (" LISTEN_DEFAULT
    ")\n"
    "  --unix PATH         HTTP on a socket, for its user and group\n"
    "  --textfile FILE     write them there again and again, for the node\n"
    "                      exporter; its name has to end in .prom\n"
    "  --interval TIME     how often (15s)\n"
    "  --once              print them once\n"
    "  --socket PATH       the daemon's socket\n"
    "  --help, --version\n";

/* ---- the command line ---- */

enum { OPT_LISTEN = 256, OPT_UNIX, OPT_TEXTFILE, OPT_INTERVAL, OPT_ONCE,
       OPT_SOCKET, OPT_HELP, OPT_VERSION };
static const struct option long_options[] = {
    {"listen", required_argument, NULL, OPT_LISTEN},
    {"unix", required_argument, NULL, OPT_UNIX},
    {"textfile", required_argument, NULL, OPT_TEXTFILE},
    {"interval", required_argument, NULL, OPT_INTERVAL},
    {"once", no_argument, NULL, OPT_ONCE},
    {"socket", required_argument, NULL, OPT_SOCKET},
    {"help", no_argument, NULL, OPT_HELP},
    {"version", no_argument, NULL, OPT_VERSION},
    {NULL, 0, NULL, 0},
};

static enum code take_option(struct options *o, int which, struct error *e)
{
    switch (which) {
    case OPT_LISTEN:
        o->listen = optarg;
        return OK;
    case OPT_UNIX:
        o->unix_path = optarg;
        return OK;
    case OPT_TEXTFILE:
        o->textfile = optarg;
        return OK;
    case OPT_INTERVAL:
        if (text_duration(optarg, &o->interval_s, e) == OK)
            return OK;
        return error_set(e, ERR_USAGE, "--interval %.64s: is no time: 15s, 1m",
                         optarg);
    case OPT_ONCE:
        o->once = true;
        return OK;
    case OPT_SOCKET:
        o->socket = optarg;
        return OK;
    case OPT_HELP:
        o->help = true;
        return OK;
    case OPT_VERSION:
        o->version = true;
        return OK;
    default:
        return error_set(e, ERR_USAGE, "wrong options; see --help");
    }
}

/* What the node exporter does not read would be written for nobody. */
static enum code check_options(struct options *o, struct error *e)
{
    size_t len = o->textfile ? strlen(o->textfile) : 0;
    if (o->once && (o->listen || o->unix_path || o->textfile))
        return error_set(e, ERR_USAGE,
                         "--once prints the metrics, and goes with neither "
                         "--listen nor --unix nor --textfile");
    if (o->textfile && (len < 5 || strcmp(o->textfile + len - 5, ".prom")))
        return error_set(e, ERR_USAGE,
                         "--textfile %s: its name has to end in .prom",
                         o->textfile);
    if (!o->once && !o->unix_path && !o->textfile && !o->listen)
        o->listen = LISTEN_DEFAULT;
    return OK;
}

static enum code parse(struct options *o, int argc, char **argv,
                       struct error *e)
{
    enum code rc = OK;
    int which;
    *o = (struct options){.interval_s = INTERVAL_DEFAULT_S};
    while (rc == OK && (which = getopt_long(argc, argv, "", long_options,
                                            NULL)) != -1)
        rc = take_option(o, which, e);
    if (rc == OK && optind < argc)
        rc = error_set(e, ERR_USAGE, "%s: is no option; see --help",
                       argv[optind]);
    return rc == OK && !o->help && !o->version ? check_options(o, e) : rc;
}

/* ---- what it does ---- */

static enum code print_once(struct scrape *s, struct error *e)
{
    FREE char *text = NULL;
    size_t len;
    struct error why = {.code = OK};
    enum code rc = scrape_text(s, &text, &len, &why, e);
    if (rc)
        return rc;
    if (fwrite(text, 1, len, stdout) != len || fflush(stdout) != 0)
        return error_set(e, ERR_IO, "cannot write to standard output");
    *e = why;
    return why.code;
}

static void write_textfile(struct scrape *s, const char *path)
{
    FREE char *text = NULL;
    size_t len;
    struct error e = {.code = OK};
    if (scrape_text(s, &text, &len, NULL, &e) ||
        file_write_atomic(path, text, len, TEXTFILE_MODE, &e))
        log_failure(&e, "--textfile");
}

struct service {
    struct scrape *scrape;
    struct http *loopback, *local;
};

static void service_end(struct service *s)
{
    http_stop(s->loopback);
    http_stop(s->local);
    scrape_free(s->scrape);
}

static enum code start(struct service *s, const struct options *o,
                       struct error *e)
{
    int fd;
    enum code rc = OK;
    if (o->listen) {
        rc = http_listen_loopback(o->listen, &fd, e);
        if (rc == OK)
            rc = http_start(&s->loopback, fd, s->scrape, e);
    }
    if (rc == OK && o->unix_path) {
        rc = http_listen_unix(o->unix_path, &fd, e);
        if (rc == OK)
            rc = http_start(&s->local, fd, s->scrape, e);
    }
    return rc;
}

/* Until a signal comes. */
static void serve(struct service *s, const struct options *o,
                  const sigset_t *signals)
{
    const struct timespec interval = {.tv_sec = (time_t)o->interval_s};
    int got;
    do {
        if (o->textfile)
            write_textfile(s->scrape, o->textfile);
        got = o->textfile ? sigtimedwait(signals, NULL, &interval)
                          : sigwaitinfo(signals, NULL);
    } while (got < 0);
    if (o->unix_path)
        (void)unlink(o->unix_path);
}

static enum code run(const struct options *o, struct error *e)
{
    CLEANUP(service_end) struct service s = {.scrape = NULL};
    sigset_t signals;
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    sigaddset(&signals, SIGHUP);
    sigprocmask(SIG_BLOCK, &signals, NULL);
    enum code rc = scrape_new(&s.scrape, o->socket, e);
    if (rc == OK && o->once)
        return print_once(s.scrape, e);
    if (rc == OK)
        rc = start(&s, o, e);
    if (rc == OK)
        serve(&s, o, &signals);
    return rc;
}

int main(int argc, char **argv)
{
    struct options o;
    struct error e = {.code = OK};
    log_open("hsmint-exporter", LOG_SINK_STDERR, LOG_LEVEL_INFO);
    (void)prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    signal(SIGPIPE, SIG_IGN);
    enum code rc = parse(&o, argc, argv, &e);
    if (rc == OK && o.help)
        fputs(help_text, stdout);
    else if (rc == OK && o.version)
        puts("hsmint-exporter " PACKAGE_VERSION);
    else if (rc == OK)
        rc = run(&o, &e);
    if (rc)
        fprintf(stderr, "hsmint-exporter: %s\n", e.text);
    return error_exit_code(rc);
}
