/* http - two servers on loopback, the service's and the control's: each
 * connection has a thread, so that a handler may sleep. */
#ifndef ADMINSIM_HTTP_H
#define ADMINSIM_HTTP_H

#include "tests/adminsim/api.h"

typedef void http_serve_fn(struct request *, struct reply *);
struct http_options {
    uint16_t port;          /* 0: any */
    const char *key, *cert; /* PEM; NULL: plain http */
    http_serve_fn *serve;
    bool counted; /* its connections are */
};
/* The port, or 0 with the reason on standard error. */
uint16_t http_start(const struct http_options *o);

/* The service's requests: faults, latency, counters around api_serve(). */
http_serve_fn exchange_serve;
/* /_control/… */
http_serve_fn control_serve;

#endif
