/* api - one request of the service's interface, and its reply.
 *
 * Handlers run under world_lock(). */
#ifndef ADMINSIM_API_H
#define ADMINSIM_API_H

#include "tests/adminsim/world.h"

#include <jansson.h>

#define API_SEGMENTS 10

struct request {
    const char *method;
    const char *path; /* as it came, without query */
    char *segments[API_SEGMENTS + 1];
    size_t n_segments;
    json_t *query;   /* name (without "[]") → array of strings */
    json_t *headers; /* lower-case name → text; Authorization left out */
    const char *bearer;
    const char *body;
    size_t body_len;
    json_t *json;    /* the body; NULL if there is none or it does not parse */
    struct key *key; /* whose bearer it is; under world_lock() */
    char key_id[64]; /* and its id, to keep */
    const char *ids[4]; /* what the {} of the route stand for */
    int served;         /* how often it was dealt with */
    char made[64];      /* id of what the last time made */
};

struct reply {
    int status;
    json_t *json; /* or */
    char *raw;
    size_t raw_len;
    size_t announced_len; /* larger than raw_len: cut short */
    json_t *headers;
    bool drop;  /* close without a word */
    bool reset; /* and without a TCP end: a RST */
};
void reply_clear(struct reply *r);
void reply_error(struct reply *r, int status, const char *type,
                 const char *code, const char *param, const char *fmt, ...)
    __attribute__((format(printf, 6, 7)));

typedef void handler_fn(struct request *, struct reply *);
struct route {
    const char *method;
    const char *pattern; /* "organization/projects/{}": without /v1 */
    bool admin;          /* wants an admin key; else a project's key */
    handler_fn *handle;
};
extern const struct route admin_routes[], key_routes[], audit_routes[],
    inference_routes[];

/* Check the bearer and the rate, find the route, run it. *pattern is what the
 * counters call this request. */
void api_serve(struct request *q, struct reply *r, const char **pattern);
/* The pattern alone, for requests that a fault answers before. */
const char *api_pattern(const struct request *q);
void api_reset_rate(void);
/* Does `path` match; ids[] get what the {} stand for. */
bool api_match(const char *pattern, const struct request *q, size_t skip,
               const char *ids[4]);

/* ---- for handlers ---- */
/* The first value of a query parameter, NULL if there is none. */
const char *query_value(const struct request *q, const char *name);
/* Is `value` among the given ones, or the parameter not given at all? */
bool query_admits(const struct request *q, const char *name, const char *value);
/* NULL and an error in *r. */
struct project *request_project(struct request *q, struct reply *r);
/* A required name; NULL and a 400. */
const char *request_name(struct request *q, struct reply *r);
/* expires_in_seconds → expires_at (0: never) under the settings; false: 400.*/
bool request_expiry(struct request *q, struct reply *r, int64_t *expires_s);
/* One page of those that `show` renders (NULL: leave it out). */
typedef json_t *show_fn(const struct object *o, const struct request *q);
void reply_list(struct request *q, struct reply *r, const struct list *l,
                show_fn *show, bool newest_first);
void reply_deleted(struct reply *r, const char *object, const char *id);

#endif
