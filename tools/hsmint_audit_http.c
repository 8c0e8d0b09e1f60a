/* hsmint_audit_http - see hsmint_audit_http.h.
 *
 * libcurl is loaded here and not linked: with it and the thirty libraries that
 * it needs, each `hsmint key` would take 15 ms longer.
 */
#include "config.h"

#include "tools/hsmint_audit_http.h"

#include <curl/curl.h>
#include <dlfcn.h>
#include <stdbool.h>
#include <string.h>

#define CONNECT_MS 10000L
#define CALL_MS 60000L

#undef curl_easy_setopt /* its checks know the function's own name alone */
#undef curl_easy_getinfo

struct curl_library {
    CURL *(*init)(void);
    CURLcode (*setopt)(CURL *, CURLoption, ...);
    CURLcode (*perform)(CURL *);
    CURLcode (*getinfo)(CURL *, CURLINFO, ...);
    void (*cleanup)(CURL *);
    struct curl_slist *(*append)(struct curl_slist *, const char *);
    void (*free_list)(struct curl_slist *);
};

static enum code load(struct curl_library *l, struct error *e)
{
    void *library = dlopen("libcurl.so.4", RTLD_NOW | RTLD_LOCAL);
    if (!library)
        return error_set(e, ERR_CONFIG, "witnesses are asked with libcurl: %s",
                         dlerror());
    const struct {
        const char *name;
        void *at;
    } functions[] = {
        {"curl_easy_init", &l->init},
        {"curl_easy_setopt", &l->setopt},
        {"curl_easy_perform", &l->perform},
        {"curl_easy_getinfo", &l->getinfo},
        {"curl_easy_cleanup", &l->cleanup},
        {"curl_slist_append", &l->append},
        {"curl_slist_free_all", &l->free_list},
    };
    for (size_t i = 0; i < sizeof functions / sizeof functions[0]; i++) {
        void *function = dlsym(library, functions[i].name);
        if (!function)
            return error_set(e, ERR_CONFIG, "libcurl: %s", dlerror());
        memcpy(functions[i].at, &function, sizeof function);
    }
    return OK;
}

static size_t on_body(char *data, size_t size, size_t n, void *ctx)
{
    struct audit_answer *a = ctx;
    size_t len = size * n;
    if (len > sizeof a->body - a->len)
        return 0; /* ends the transfer */
    memcpy(a->body + a->len, data, len);
    a->len += len;
    return len;
}

static bool begins(const char *url, const char *with)
{
    return strncmp(url, with, strlen(with)) == 0;
}

static bool is_loopback(const char *url)
{
    static const char *const hosts[] = {"http://127.0.0.1", "http://[::1]",
                                        "http://localhost"};
    for (size_t i = 0; i < sizeof hosts / sizeof hosts[0]; i++) {
        char next = begins(url, hosts[i]) ? url[strlen(hosts[i])] : 'x';
        if (next == '\0' || next == '/' || next == ':')
            return true;
    }
    return false;
}

static CURLcode set_up(const struct curl_library *l, CURL *c, const char *url,
                       const char *ca_file, const char *body,
                       struct curl_slist *headers, struct audit_answer *a)
{
    CURLcode rc = CURLE_OK;
#define SET(option, value)                                                     \
    do {                                                                       \
        if (rc == CURLE_OK)                                                    \
            rc = l->setopt(c, option, value);                                  \
    } while (0)
    SET(CURLOPT_URL, url);
    SET(CURLOPT_PROTOCOLS_STR, is_loopback(url) ? "http" : "https");
    SET(CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
    if (ca_file)
        SET(CURLOPT_CAINFO, ca_file);
    SET(CURLOPT_FOLLOWLOCATION, 0L);
    SET(CURLOPT_NETRC, (long)CURL_NETRC_IGNORED);
    SET(CURLOPT_NOSIGNAL, 1L);
    SET(CURLOPT_CONNECTTIMEOUT_MS, CONNECT_MS);
    SET(CURLOPT_TIMEOUT_MS, CALL_MS);
    SET(CURLOPT_USERAGENT, "hsmint/" PACKAGE_VERSION);
    SET(CURLOPT_HTTPHEADER, headers);
    SET(CURLOPT_POSTFIELDS, body);
    SET(CURLOPT_WRITEFUNCTION, on_body);
    SET(CURLOPT_WRITEDATA, a);
#undef SET
    return rc;
}

static enum code perform(const struct curl_library *l, CURL *c, const char *url,
                         struct audit_answer *a, struct error *e)
{
    char why[CURL_ERROR_SIZE] = "";
    CURLcode rc = l->setopt(c, CURLOPT_ERRORBUFFER, why);
    if (rc == CURLE_OK)
        rc = l->perform(c);
    if (rc == CURLE_WRITE_ERROR)
        return error_set(e, ERR_SERVICE_REPLY,
                         "witness %s: an answer of more than %d bytes", url,
                         AUDIT_HTTP_MAX);
    if (rc != CURLE_OK)
        return error_set(e, ERR_SERVICE_DOWN, "witness %s: %s", url,
                         *why ? why : "the connection failed");
    rc = l->getinfo(c, CURLINFO_RESPONSE_CODE, &a->status);
    return rc == CURLE_OK ? OK
                          : error_set(e, ERR_SERVICE_REPLY,
                                      "witness %s: no status", url);
}

enum code audit_post(const char *url, const char *ca_file, const char *body,
                     struct audit_answer *answer, struct error *e)
{
    struct curl_library l;
    *answer = (struct audit_answer){.status = 0};
    if ((!begins(url, "https://") && !is_loopback(url)) || strchr(url, '@'))
        return error_set(e, ERR_USAGE,
                         "witness %.200s: https://…, or http:// to this host "
                         "alone",
                         url);
    enum code rc = load(&l, e);
    if (rc)
        return rc;
    CURL *c = l.init();
    struct curl_slist *headers =
        l.append(NULL, "Content-Type: text/plain; charset=utf-8");
    if (!c || !headers ||
        set_up(&l, c, url, ca_file, body, headers, answer) != CURLE_OK)
        rc = error_set(e, ERR_CONFIG,
                       "libcurl cannot be set up for %.200s%s%s", url,
                       ca_file ? " and " : "", ca_file ? ca_file : "");
    if (rc == OK)
        rc = perform(&l, c, url, answer, e);
    if (c)
        l.cleanup(c);
    l.free_list(headers);
    return rc;
}
