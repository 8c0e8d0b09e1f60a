/* method - the table of what a client may call: name, parameters, rights.
 *
 * spec/org.hsmint.varlink is the contract; a test compares the table with it.
 *
 * Who may do what is spec/POLICY.md; the table says which capabilities a
 * method needs, and core is asked before the method is called. A named login is
 * the application's: it is looked at for every call, and one that was deleted
 * or is over is told so instead. Whether an application is logged in as PKCS#11
 * counts it is the module's to remember.
 */
#ifndef HSMINT_METHOD_H
#define HSMINT_METHOD_H

#include "common/json.h"
#include "common/wire.h"
#include "module/core/policy.h"
#include "tools/daemon.h"

#include <stdint.h>

#define METHOD_PROTOCOL 1 /* version in Attach */

/* Parameters of all methods: one name has one meaning. */
enum method_param {
    PARAM_VERSION,
    PARAM_PROGRAM,
    PARAM_TOKEN,
    PARAM_SO,
    PARAM_FORCE,
    PARAM_SESSION,
    PARAM_ORG,
    PARAM_REQUEST_ID,
    PARAM_FIELDS,
    PARAM_NAME,
    PARAM_ROLE,
    PARAM_TTL,
    PARAM_BOUND,
    PARAM_REUSE,
    PARAM_LABEL,
    PARAM_ID,
    PARAM_LEASE_ID,
    PARAM_ALL,
    PARAM_LIVE,
    PARAM_BEFORE,
    PARAM_LIMIT,
    PARAM_INTERFACE,
    PARAM_COUNT,
    PARAM_KIND,
    PARAM_WHO,
    PARAM_CAPABILITY,
    PARAM_FROM,
    PARAM_TO,
    PARAM_SIZE,
    PARAM_SEQ,
    PARAM_SIGN,
    PARAM_OWNER,
    PARAM_SINCE_MS,
    PARAM_UNTIL_MS,
    PARAM_REQUEST,
    PARAM_REASON,
    PARAM_DRY_RUN,
    PARAM_AUDIT,
    PARAM_ADOPT,
    PARAM_PREFIX,
    PARAM_PROJECT,
    PARAM_REVOKE,
    PARAM_RECOVER,
    PARAM_KEEP_FIRST,
    PARAM_OLD,
    PARAM_COMPROMISED,
    PARAM_CHECKPOINT,
    PARAM_ABANDON,
    METHOD_PARAMS
};

struct arguments { /* absent: NULL, 0, false */
    const char *program, *token, *org, *request_id, *name, *role, *label, *id;
    const char *lease_id, *before, *interface, *kind, *capability;
    const char *owner, *request, *reason, *old, *prefix, *project;
    const char *checkpoint;
    json_int_t version, session, ttl, limit, count;
    json_int_t from, to, size, seq, since_ms, until_ms;
    bool so, force, bound, reuse, all, live, sign, keep_first, compromised,
        abandon;
    bool dry_run, audit, adopt, revoke, recover;
    json_t *fields, *who; /* borrowed */
    bool given[METHOD_PARAMS];
};

struct call { /* one request on one connection */
    struct daemon *daemon;
    struct wire_peer *peer;
    const char *owner;
    const struct identity *id; /* with the application's login, once called */
    struct application **application; /* of the connection; Attach sets it */
    int fd_in;  /* came along, or -1; stays the server's */
    int fd_out; /* goes along with the reply, or -1 */
};

typedef enum code (*method_fn)(struct call *c, const struct arguments *a,
                               json_t **out, struct error *e);

enum method_flags {
    METHOD_OPEN = 1,    /* before Attach, too */
    METHOD_FD = 2,      /* a descriptor may come along */
    METHOD_JOURNAL = 4, /* the answer is kept for retries by the server; core
                           itself keeps those of leases */
    METHOD_DAEMON = 8,  /* about the whole daemon: `org` is not asked for */
    METHOD_ROLE = 16,   /* `name` is the role that it is about */
    METHOD_LEASE = 32,  /* core asks, by the role of lease or mint */
    METHOD_ANYBODY = 64, /* also for an application whose login is over */
};

struct method {
    const char *name; /* without "org.hsmint." unless it holds a dot */
    method_fn call;
    uint64_t required, optional; /* bits of enum method_param */
    unsigned flags;
    uint32_t needs; /* one of these capabilities; 0: none */
};

extern const struct method method_table[];
extern const size_t method_count;

const char *method_param_name(enum method_param p);
const char *method_param_type(enum method_param p); /* "string" … of Varlink */

/* The reply to a request, or to what should have been one; never a NULL but
 * without memory. */
json_t *method_answer(struct call *c, json_t *message);

/* spec/org.hsmint.varlink, compiled in. */
extern const char method_interface[];

#endif
