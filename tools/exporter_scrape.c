/* One question to the daemon, and its answer as text. */
#include "config.h"

#include "common/client.h"
#include "common/clock.h"
#include "common/file.h"
#include "tools/exporter.h"
#include "tools/exposition.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#define CONNECT_MS 1000

struct scrape {
    struct client *client;
    pthread_mutex_t lock; /* one asks, the others take what it got */
    char *kept;
    size_t kept_len;
    struct error kept_why;
    int64_t kept_ms; /* monotonic */
};

enum code scrape_new(struct scrape **out, const char *socket, struct error *e)
{
    const struct client_options o = {.socket = socket,
                                     .program = "hsmint-exporter",
                                     .connect_ms = CONNECT_MS,
                                     .call_ms = SCRAPE_CALL_MS};
    struct scrape *s = calloc(1, sizeof(*s));
    if (!s)
        return error_set(e, ERR_NOMEM, "no memory");
    pthread_mutex_init(&s->lock, NULL);
    enum code rc = client_new(&s->client, &o, e);
    if (rc) {
        scrape_free(s);
        return rc;
    }
    *out = s;
    return OK;
}

void scrape_free(struct scrape *s)
{
    if (!s)
        return;
    client_free(s->client);
    free(s->kept);
    pthread_mutex_destroy(&s->lock);
    free(s);
}

/* *text is whole, or NULL. */
static enum code ask(struct scrape *s, char **text, struct error *e)
{
    JSON reply = NULL;
    size_t len;
    enum code rc =
        client_call(s->client, "Metrics", NULL, NULL, &reply, NULL, e);
    FILE *out = rc ? NULL : open_memstream(text, &len);
    if (rc == OK && !out)
        return error_set(e, ERR_NOMEM, "no memory for metrics");
    if (rc == OK)
        rc = exposition_write(out, json_object_get(reply, "families"), e);
    if (out && fclose(out) && rc == OK)
        rc = error_set(e, ERR_NOMEM, "no memory for metrics");
    if (rc) {
        free(*text);
        *text = NULL;
    }
    return rc;
}

static void write_own(FILE *out, const struct error *why, double seconds)
{
    exposition_one(out, "hsmint_up", "gauge",
                   "1: the daemon answered this scrape.", NULL, NULL,
                   why->code == OK);
    exposition_one(out, "hsmint_scrape_seconds", "gauge",
                   "How long the daemon took.", NULL, NULL, seconds);
    exposition_one(out, "hsmint_exporter_build_info", "gauge",
                   "1: the exporter's version.", "version", PACKAGE_VERSION, 1);
    if (why->code)
        exposition_one(out, "hsmint_scrape_error", "gauge",
                       "1: why the daemon did not answer.", "error",
                       error_name(why->code), 1);
}

/* With the lock held. */
static enum code refresh(struct scrape *s, struct error *e)
{
    struct error why = {.code = OK};
    FREE char *told = NULL;
    FREE char *text = NULL;
    size_t len = 0;
    int64_t began = clock_monotonic_us();
    why.code = ask(s, &told, &why);
    FILE *out = open_memstream(&text, &len);
    if (!out)
        return error_set(e, ERR_NOMEM, "no memory for metrics");
    if (told)
        fputs(told, out);
    write_own(out, &why, (double)(clock_monotonic_us() - began) / 1e6);
    if (fclose(out))
        return error_set(e, ERR_NOMEM, "no memory for metrics");
    free(s->kept);
    s->kept = text;
    s->kept_len = len;
    s->kept_why = why;
    s->kept_ms = clock_monotonic_ms();
    text = NULL;
    return OK;
}

static enum code take(struct scrape *s, char **text, size_t *len,
                      struct error *why, struct error *e)
{
    bool fresh = s->kept && clock_monotonic_ms() - s->kept_ms < SCRAPE_KEPT_MS;
    enum code rc = fresh ? OK : refresh(s, e);
    if (rc)
        return rc;
    *text = malloc(s->kept_len + 1);
    if (!*text)
        return error_set(e, ERR_NOMEM, "no memory for metrics");
    memcpy(*text, s->kept, s->kept_len + 1);
    *len = s->kept_len;
    if (why)
        *why = s->kept_why;
    return OK;
}

enum code scrape_text(struct scrape *s, char **text, size_t *len,
                      struct error *why, struct error *e)
{
    pthread_mutex_lock(&s->lock);
    enum code rc = take(s, text, len, why, e);
    pthread_mutex_unlock(&s->lock);
    return rc;
}
