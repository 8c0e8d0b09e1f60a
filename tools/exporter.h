/* exporter - the parts of hsmint-exporter: asking the daemon, and serving what
 * it said. A process of its own, a client like any other, so that nothing in
 * the daemon parses what a scraper sends. */
#ifndef HSMINT_EXPORTER_H
#define HSMINT_EXPORTER_H

#include "common/error.h"

#include <stdbool.h>
#include <stddef.h>

/* ---- exporter_scrape.c ---- */
#define SCRAPE_CALL_MS 4000 /* below Prometheus' own 10 s */
#define SCRAPE_KEPT_MS 1000 /* so often the daemon is asked, at most */

struct scrape;
/* socket NULL: the default one. */
MUST_CHECK enum code scrape_new(struct scrape **out, const char *socket,
                                struct error *e);
void scrape_free(struct scrape *s); /* takes NULL */
/* The whole text; the caller frees. Thread-safe. While the daemon does not
 * answer it says so (hsmint_up 0); *why (may be NULL) tells that, too.
 * ERR_NOMEM. */
MUST_CHECK enum code scrape_text(struct scrape *s, char **text, size_t *len,
                                 struct error *why, struct error *e);

/* ---- exporter_http.c ---- */
struct http;
/* ADDR:PORT of this machine itself; ERR_USAGE for any other. */
MUST_CHECK enum code http_listen_loopback(const char *where, int *fd,
                                          struct error *e);
/* ERR_BUSY when somebody listens there. */
MUST_CHECK enum code http_listen_unix(const char *path, int *fd,
                                      struct error *e);
/* Serves on a thread of its own; the socket is taken. */
MUST_CHECK enum code http_start(struct http **out, int fd, struct scrape *s,
                                struct error *e);
void http_stop(struct http *h); /* takes NULL */

#endif
