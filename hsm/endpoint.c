/* endpoint - see endpoint.h. */
#include "config.h"

#include "hsm/endpoint.h"

#include "common/hosts.h"

#include <curl/curl.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

static void urlp(CURLU **u)
{
    curl_url_cleanup(*u);
}

static void curl_strp(char **s)
{
    curl_free(*s);
}

static bool has_part(CURLU *u, CURLUPart part)
{
    CLEANUP(curl_strp) char *text = NULL;
    return curl_url_get(u, part, &text, 0) == CURLUE_OK;
}

static bool is_loopback(const char *host)
{
    unsigned a, b, c, d;
    char rest;
    if (strcasecmp(host, "localhost") == 0 || strcmp(host, "[::1]") == 0)
        return true;
    return sscanf(host, "%3u.%3u.%3u.%3u%c", &a, &b, &c, &d, &rest) == 4 &&
           a == 127 && b < 256 && c < 256 && d < 256;
}

static enum code check_scheme(const struct settings *s, CURLU *u,
                              const char *what, struct error *e)
{
    CLEANUP(curl_strp) char *scheme = NULL;
    CLEANUP(curl_strp) char *host = NULL;
    if (curl_url_get(u, CURLUPART_SCHEME, &scheme, 0) ||
        curl_url_get(u, CURLUPART_HOST, &host, 0) || !*host)
        return error_set(e, ERR_INVALID, "%s has no host", what);
    if (strcmp(scheme, "https") == 0)
        return OK;
    if (strcmp(scheme, "http") != 0 || !is_loopback(host))
        return error_set(e, ERR_INVALID, "%s must begin with https://", what);
    if (!s->allow_http_loopback)
        return error_set(e, ERR_INVALID,
                         "%s must begin with https:// (plain http to this "
                         "machine needs allow_http_loopback in hsmint.conf)",
                         what);
    return OK;
}

enum code endpoint_check(const struct settings *s, const char *what,
                         const char *url, char base[ENDPOINT_MAX],
                         struct error *e)
{
    CLEANUP(urlp) CURLU *u = curl_url();
    if (!u)
        return error_set(e, ERR_NOMEM, "no memory for %s", what);
    size_t len = strlen(url);
    if (strspn(url, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
                    "0123456789-._~:/[]") != len ||
        !strstr(url, "://") || curl_url_set(u, CURLUPART_URL, url, 0))
        return error_set(e, ERR_INVALID,
                         "%s is no plain URL (https://host/path, without "
                         "user, query or fragment)",
                         what);
    enum code rc = check_scheme(s, u, what, e);
    if (rc)
        return rc;
    if (has_part(u, CURLUPART_USER) || has_part(u, CURLUPART_PASSWORD) ||
        has_part(u, CURLUPART_QUERY) || has_part(u, CURLUPART_FRAGMENT) ||
        strstr(strstr(url, "://") + 2, "//") || strstr(url, "/."))
        return error_set(e, ERR_INVALID, "%s must be a host and a path alone",
                         what);
    while (len > 0 && url[len - 1] == '/')
        len--;
    if (len >= ENDPOINT_MAX)
        return error_set(e, ERR_INVALID, "%s is longer than %d characters",
                         what, ENDPOINT_MAX - 1);
    memcpy(base, url, len);
    base[len] = '\0';
    return OK;
}

enum code endpoint_listed(const struct settings *s, const char *what,
                          const char *url, struct error *e)
{
    CLEANUP(urlp) CURLU *u = curl_url();
    CLEANUP(curl_strp) char *host = NULL;
    if (!u || curl_url_set(u, CURLUPART_URL, url, 0) ||
        curl_url_get(u, CURLUPART_HOST, &host, 0))
        return error_set(e, ERR_INVALID, "%s names no host", what);
    if (hosts_match(s->hosts, host))
        return OK;
    return error_set(e, ERR_CONFIG,
                     "%s is on host %s, which is not among [service] hosts of "
                     "hsmint.conf (%s): no key is sent there",
                     what, host, s->hosts);
}

static void take_part(CURLU *u, CURLUPart part, char **text)
{
    if (curl_url_get(u, part, text, CURLU_DEFAULT_PORT))
        *text = NULL;
}

struct place {
    CURLU *url;
    char *scheme, *host, *port;
};

static void place_clear(struct place *p)
{
    curl_free(p->scheme);
    curl_free(p->host);
    curl_free(p->port);
    curl_url_cleanup(p->url);
}

static bool place_of(struct place *p, const char *url)
{
    p->url = curl_url();
    if (!p->url || curl_url_set(p->url, CURLUPART_URL, url, 0))
        return false;
    take_part(p->url, CURLUPART_SCHEME, &p->scheme);
    take_part(p->url, CURLUPART_HOST, &p->host);
    take_part(p->url, CURLUPART_PORT, &p->port);
    return p->scheme && p->host && p->port;
}

bool endpoint_serves(const char *base, const char *endpoint)
{
    CLEANUP(place_clear) struct place at = {.url = NULL};
    CLEANUP(place_clear) struct place home = {.url = NULL};
    if (!place_of(&at, base) || !place_of(&home, endpoint) ||
        strcmp(at.scheme, home.scheme) != 0 || strcmp(at.port, home.port) != 0)
        return false;
    size_t n = strlen(at.host), of = strlen(home.host);
    if (n < of || strcasecmp(at.host + n - of, home.host) != 0)
        return false;
    return n == of || at.host[n - of - 1] == '.';
}
