/* hsmint-adminsim: a double of the OpenAI Administration API for tests and
 * for trying things out; README.md. Loopback only. */
#include "config.h"

#include "tests/adminsim/certificate.h"
#include "tests/adminsim/http.h"
#include "tests/adminsim/settings.h"
#include "tests/adminsim/state.h"

#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <unistd.h>

static const char help[] =
    "Usage: hsmint-adminsim [OPTION]...\n"
    "A double of the OpenAI Administration API on 127.0.0.1.\n"
    "\n"
    "  --port N             port of the service (default 0: any)\n"
    "  --control-port N     port of /_control/ (default 0: any)\n"
    "  --tls DIR            https; certificate authority in DIR/ca.pem, made\n"
    "                       when it is not there\n"
    "  --state FILE         keep the world in FILE and go on from it\n"
    "  --admin-key-file F   write the initial admin key to F (mode 0600)\n"
    "                       instead of printing it\n"
    "  --owner WHO          of the initial admin key: user (default) or\n"
    "                       service_account\n"
    "  --latency-ms N       answer after N milliseconds\n"
    "  --set NAME=VALUE     any setting of /_control/settings\n"
    "  --parent-death       end when the parent process does\n"
    "  --help\n"
    "\n"
    "Once it listens, it prints one line of JSON: url, control, admin_key,\n"
    "admin_key_id, ca_file.\n";

struct options {
    uint16_t port, control_port;
    const char *tls, *state, *admin_key_file;
    bool service_owner, parent_death;
};

static int usage(const char *what)
{
    fprintf(stderr, "hsmint-adminsim: %s (see --help)\n", what);
    return 2;
}

static bool parse_port(const char *s, uint16_t *port)
{
    char *end;
    unsigned long n = strtoul(s, &end, 10);
    *port = (uint16_t)n;
    return *s && !*end && n <= 65535;
}

/* NAME=VALUE: VALUE is JSON, or a bare word. */
static bool parse_setting(const char *s)
{
    const char *equals = strchr(s, '='), *field;
    if (!equals)
        return false;
    char *name = must(strndup(s, (size_t)(equals - s)));
    json_t *value = json_loads(equals + 1, JSON_DECODE_ANY, NULL);
    if (!value)
        value = json_string(equals + 1);
    json_t *one = json_pack("{so}", name, value);
    const char *wrong = one ? settings_apply(one, &field) : "is not text";
    if (wrong)
        fprintf(stderr, "hsmint-adminsim: --set %s: %s\n", name, wrong);
    json_decref(one);
    free(name);
    return !wrong;
}

static bool parse_owner(const char *s, bool *service)
{
    *service = !strcmp(s, "service_account");
    return *service || !strcmp(s, "user");
}

static bool parse_one(int c, const char *arg, struct options *o)
{
    char *end;
    switch (c) {
    case 'p':
        return parse_port(arg, &o->port);
    case 'c':
        return parse_port(arg, &o->control_port);
    case 't':
        o->tls = arg;
        return true;
    case 's':
        o->state = arg;
        return true;
    case 'k':
        o->admin_key_file = arg;
        return true;
    case 'o':
        return parse_owner(arg, &o->service_owner);
    case 'l':
        settings.latency_ms = strtoll(arg, &end, 10);
        return *arg && !*end && settings.latency_ms >= 0;
    case 'S':
        return parse_setting(arg);
    case 'd':
        o->parent_death = true;
        return true;
    default:
        return false;
    }
}

/* 0: go on; else the exit code plus one. */
static int parse(int argc, char **argv, struct options *o)
{
    static const struct option longs[] = {
        {"port", required_argument, NULL, 'p'},
        {"control-port", required_argument, NULL, 'c'},
        {"tls", required_argument, NULL, 't'},
        {"state", required_argument, NULL, 's'},
        {"admin-key-file", required_argument, NULL, 'k'},
        {"owner", required_argument, NULL, 'o'},
        {"latency-ms", required_argument, NULL, 'l'},
        {"set", required_argument, NULL, 'S'},
        {"parent-death", no_argument, NULL, 'd'},
        {"help", no_argument, NULL, 'h'},
        {0}};
    int c;
    while ((c = getopt_long(argc, argv, "", longs, NULL)) != -1) {
        if (c == 'h') {
            fputs(help, stdout);
            return 1;
        }
        if (!parse_one(c, optarg, o))
            return 1 + usage("an option is unknown or its value is no good");
    }
    return optind < argc ? 1 + usage("unexpected argument") : 0;
}

static bool write_admin_key(const char *path)
{
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    bool ok = fd >= 0 && fchmod(fd, 0600) == 0 &&
              dprintf(fd, "%s\n", world.first_key->value) > 0;
    if (fd >= 0)
        ok = close(fd) == 0 && ok;
    if (!ok)
        fprintf(stderr, "hsmint-adminsim: %s: %s\n", path, strerror(errno));
    return ok;
}

static void announce(const struct options *o, uint16_t port, uint16_t control)
{
    char *ca = o->tls ? text_format("%s/ca.pem", o->tls) : NULL;
    char *whole = ca ? realpath(ca, NULL) : NULL;
    json_t *j = json_pack(
        "{so, so, ss*, ss, ss?}", "url",
        json_sprintf("%s://127.0.0.1:%d/v1", o->tls ? "https" : "http", port),
        "control", json_sprintf("http://127.0.0.1:%d/_control", control),
        "admin_key", o->admin_key_file ? NULL : world.first_key->value,
        "admin_key_id", world.first_key->o.id, "ca_file", whole);
    json_dumpf(must(j), stdout, JSON_COMPACT);
    putchar('\n');
    fflush(stdout);
    json_decref(j);
    free(whole);
    free(ca);
}

static bool follow_parent(pid_t parent)
{
    if (prctl(PR_SET_PDEATHSIG, SIGTERM) < 0)
        return false;
    return getppid() == parent; /* else it went before we asked */
}

int main(int argc, char **argv)
{
    struct options o = {0};
    pid_t parent = getppid();
    sigset_t ends;
    sigemptyset(&ends);
    sigaddset(&ends, SIGTERM);
    sigaddset(&ends, SIGINT);
    sigaddset(&ends, SIGHUP);
    pthread_sigmask(SIG_BLOCK, &ends, NULL); /* in all threads to come */
    signal(SIGPIPE, SIG_IGN);
    int code = parse(argc, argv, &o);
    if (code)
        return code - 1;
    if (o.parent_death && !follow_parent(parent))
        return 1;
    settings_start();
    char *cert = NULL, *key = NULL;
    if ((o.tls && !certificate_get(o.tls, &cert, &key)) ||
        !state_open(o.state, o.service_owner) ||
        (o.admin_key_file && !write_admin_key(o.admin_key_file)))
        return 1;
    uint16_t port = http_start(
        &(struct http_options){o.port, key, cert, exchange_serve, true});
    uint16_t control = http_start(&(struct http_options){
        o.control_port, NULL, NULL, control_serve, false});
    if (!port || !control)
        return 1;
    world_lock();
    announce(&o, port, control);
    world_unlock();
    int signal_number;
    sigwait(&ends, &signal_number);
    /* Handlers may be asleep: no waiting for them. */
    _exit(state_save() ? 0 : 1);
}
