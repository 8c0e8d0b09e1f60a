/* hsmint-egress: one request on standard input, the verdict on standard output
 * and as the exit status. README beside this file. */
#include "config.h"

#include "contrib/egress/egress.h"

#include "common/clock.h"
#include "common/file.h"

#include <errno.h>
#include <getopt.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { YES = 0, NO = 1, USAGE = 2 };

static const char help[] =
    "usage: hsmint-egress --key KEYID=FILE... --host HOST... --seen DIR\n"
    "                     [--window SECONDS]\n"
    "\n"
    "May the HTTP/1.1 request on standard input leave for OpenAI's Admin API?\n"
    "Exit status 0 and \"allow ...\" where an HSM of hsmint has signed it, for\n"
    "the first time, within the window; 1 and \"deny REASON\" otherwise; 2 where\n"
    "it could not be looked at. Only 0 means yes.\n"
    "\n"
    "  --key KEYID=FILE   a public key that may have signed it: PEM, or base64\n"
    "                     as `hsmint hsm show --json` has it\n"
    "  --host HOST        that it may be for, as in its Host: header\n"
    "  --seen DIR         nonces that were used; a directory of this program's\n"
    "  --window SECONDS   how old a signature may be; default 60\n"
    "  --help, --version\n";

static enum code add_key(struct egress *g, const char *option, struct error *e)
{
    const char *equals = strchr(option, '=');
    FREE char *keyid =
        equals ? strndup(option, (size_t)(equals - option)) : NULL;
    FREE char *text = NULL;
    size_t len;
    if (!keyid || !*keyid)
        return error_set(e, ERR_USAGE, "--key: write KEYID=FILE");
    enum code rc = file_read(equals + 1, 4096, FILE_ANY, &text, &len, e);
    return rc ? rc : egress_add_key(g, keyid, text, e);
}

static enum code take_option(struct egress *g, int option, struct error *e)
{
    char *end = NULL;
    switch (option) {
    case 'k':
        return add_key(g, optarg, e);
    case 'h':
        if (g->hosts_n == EGRESS_HOSTS)
            return error_set(e, ERR_USAGE, "--host: at most %d", EGRESS_HOSTS);
        g->hosts[g->hosts_n++] = optarg;
        return OK;
    case 's':
        g->seen = optarg;
        return OK;
    case 'w':
        g->window_s = strtol(optarg, &end, 10);
        if (*end || g->window_s < 1 || g->window_s > 3600)
            return error_set(e, ERR_USAGE, "--window: 1 to 3600 seconds");
        return OK;
    default:
        return error_set(e, ERR_USAGE, "see hsmint-egress --help");
    }
}

static enum code read_request(char **bytes, size_t *len, struct error *e)
{
    *bytes = malloc(EGRESS_REQUEST_MAX + 1);
    if (!*bytes)
        return error_set(e, ERR_NOMEM, "no memory for a request");
    *len = fread(*bytes, 1, EGRESS_REQUEST_MAX + 1, stdin);
    return ferror(stdin) ? error_errno(e, errno, "standard input") : OK;
}

static int check(const struct egress *g)
{
    FREE char *bytes = NULL;
    struct egress_request r;
    struct error e = {.code = OK};
    size_t len = 0;
    enum code rc = read_request(&bytes, &len, &e);
    if (rc == OK)
        rc = egress_check(g, bytes, len, clock_wall_ms() / 1000, &r, &e);
    int n = rc ? printf("deny %s\n", e.text)
               : printf("allow %s %s %s %s\n", r.keyid, r.nonce, r.method,
                        r.uri);
    if (n < 0 || fflush(stdout) != 0)
        return USAGE;
    return rc == OK ? YES : rc == ERR_DENIED ? NO : USAGE;
}

int main(int argc, char **argv)
{
    static const struct option longs[] = {
        {"key", required_argument, NULL, 'k'},
        {"host", required_argument, NULL, 'h'},
        {"seen", required_argument, NULL, 's'},
        {"window", required_argument, NULL, 'w'},
        {"help", no_argument, NULL, '?' + 1},
        {"version", no_argument, NULL, 'V'},
        {NULL, 0, NULL, 0}};
    EGRESS g = {.window_s = 60};
    struct error e = {.code = OK};
    int option;
    while ((option = getopt_long(argc, argv, "", longs, NULL)) != -1) {
        if (option == '?' + 1)
            return fputs(help, stdout) < 0 ? USAGE : 0;
        if (option == 'V')
            return puts("hsmint-egress " PACKAGE_VERSION) < 0 ? USAGE : 0;
        if (take_option(&g, option, &e)) {
            fprintf(stderr, "hsmint-egress: %s\n", e.text);
            return USAGE;
        }
    }
    if (optind != argc || !g.keys_n || !g.hosts_n || !g.seen) {
        fputs(help, stderr);
        return USAGE;
    }
    return check(&g);
}
