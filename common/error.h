/* error - what went wrong, on which object, and what to do about it.
 *
 * Every function that can fail returns `enum code` (OK is 0) and must be
 * checked. Its last parameter, `struct error *e`, receives the text; NULL is
 * allowed where the caller has no use for it. One table (error.c) maps each
 * code to its wire name, default text, exit code and CK_RV.
 *
 * Texts never hold a secret. error_set() escapes control characters and
 * invalid UTF-8, so names given by callers may be put in as they are.
 */
#ifndef HSMINT_ERROR_H
#define HSMINT_ERROR_H

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#define MUST_CHECK __attribute__((warn_unused_result))
#define PRINTF(fmt, args) __attribute__((format(printf, fmt, args)))
#define CLEANUP(fn) __attribute__((cleanup(fn)))

enum code {
    OK = 0,
    ERR_USAGE,     /* the command line or the method's parameters */
    ERR_INVALID,   /* a value was refused: a field, an attribute, a name */
    ERR_TTL,       /* ttl beyond max_ttl, or not positive */
    ERR_NOT_FOUND, /* lease, organisation, object */
    ERR_ROLE_UNKNOWN,
    ERR_EXISTS,        /* or: in use, e.g. a role with live leases */
    ERR_DENIED,        /* policy or identity */
    ERR_NOT_LOGGED_IN, /* this application has to log in first */
    ERR_SENSITIVE,     /* the key's value is not to be had (any more) */
    ERR_PIN_WRONG,
    ERR_PIN_HELD,   /* not tried: refused before, or few tries left */
    ERR_PIN_LOCKED, /* the HSM says so */
    ERR_LOCKED,     /* daemon without PIN: log in to unlock it */
    ERR_LIMIT,      /* guard: too many live leases, connections … */
    ERR_NO_ADMIN_KEY,
    ERR_PROJECT,           /* unknown, archived */
    ERR_CONFIG,            /* settings file or stored configuration */
    ERR_HSM_ABSENT,        /* no module, no token, token gone */
    ERR_HSM_KEYS,          /* keys missing, doubled, planted, changed */
    ERR_HSM_FAILED,        /* any other CK_RV of the HSM */
    ERR_SEAL,              /* a blob that does not verify or open */
    ERR_KEEPER,            /* keeper died, hung, or said nonsense; restarted */
    ERR_NOT_SIGNED,        /* execute without a fresh signature */
    ERR_NOT_LOGGED,        /* the keeper has not seen its calls in the log */
    ERR_SERVICE_DOWN,      /* no connection, TLS refused, nothing was sent */
    ERR_SERVICE_UNKNOWN,   /* sent, and the outcome is not known */
    ERR_SERVICE_AUTH,      /* 401 */
    ERR_SERVICE_FORBIDDEN, /* 403 */
    ERR_SERVICE_RATE,      /* 429 */
    ERR_SERVICE_REFUSED,   /* any other 4xx, redirects */
    ERR_SERVICE_FAILED,    /* 5xx */
    ERR_SERVICE_REPLY,     /* truncated, oversized, not JSON, fields missing */
    ERR_DISK_FULL,         /* or below the reserve */
    ERR_READ_ONLY,         /* state directory or database */
    ERR_SCHEMA,            /* the store was written by a newer version */
    ERR_ROLLED_BACK,       /* the store is not what was signed last */
    ERR_BUSY,              /* another daemon has this state */
    ERR_IO,                /* any other errno on a file or socket */
    ERR_DAEMON_DOWN,       /* no daemon listens, or it went away */
    ERR_DEADLINE,
    ERR_PROTOCOL, /* malformed or oversized message */
    ERR_NOMEM,
    ERR_INTERNAL,
    ERR_CODES /* how many there are */
};

#define ERROR_TEXT_MAX 1024
#define ERROR_REQUEST_ID_MAX 80

struct error {
    enum code code;
    char text[ERROR_TEXT_MAX];
    char service_request_id[ERROR_REQUEST_ID_MAX]; /* x-request-id, or "" */
    uint32_t retry_after_ms;                       /* 0: not told */
};

/* Fill *e and return `code`, so that one line fails: return error_set(...).
 * A long text is cut at ERROR_TEXT_MAX - 1. */
enum code error_set(struct error *e, enum code code, const char *fmt, ...)
    PRINTF(3, 4);
/* As error_set, with ": <strerror(errnum)>" appended; ENOSPC, EDQUOT and
 * EROFS choose ERR_DISK_FULL and ERR_READ_ONLY, ENOMEM ERR_NOMEM, all others
 * ERR_IO. */
enum code error_errno(struct error *e, int errnum, const char *fmt, ...)
    PRINTF(3, 4);
/* Put "<prefix>: " before the text that is there. Returns e->code. */
enum code error_prefix(struct error *e, const char *fmt, ...) PRINTF(2, 3);
void error_clear(struct error *e);

const char *error_name(enum code code); /* "PinWrong": varlink error name */
const char *error_default_text(enum code code);
int error_exit_code(enum code code); /* 0..5, spec/ERRORS.md */
unsigned long error_ckrv(enum code code);
enum code error_from_name(const char *name); /* unknown: ERR_INTERNAL */

#endif
