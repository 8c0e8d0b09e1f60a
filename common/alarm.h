/* alarm - what an operator has to know of and to act on: one table, with which
 * the daemon raises alarms (core/warnings.h), and from which the command line
 * and spec/RUNBOOK.md explain them.
 *
 * An id never changes its meaning; a test compares the page with the table. */
#ifndef HSMINT_ALARM_H
#define HSMINT_ALARM_H

#include <stdbool.h>

enum alarm {
    /* HSM and keeper */
    ALARM_HSM_DOWN,  /* absent, or fails */
    ALARM_HSM_KEYS,  /* missing, doubled, planted, changed */
    ALARM_HSM_ROTATION, /* of them: it does not go on */
    ALARM_PIN_LOCKED, /* by the HSM */
    ALARM_PIN_LOW,   /* few tries are left */
    ALARM_PIN_HELD,  /* refused, and not tried again */
    ALARM_LOCKED,    /* the daemon has no PIN */
    ALARM_KEEPER,    /* ended by itself, or hung */
    ALARM_SECCOMP,   /* the filters are off */
    /* the admin key; object: organisation */
    ALARM_ADMIN_KEY,         /* its sealed form cannot be used */
    ALARM_ADMIN_KEY_REFUSED, /* by the service: 401, 403 */
    ALARM_ADMIN_KEY_EXPIRES, /* soon, or has */
    ALARM_ADMIN_KEY_LEFT,    /* one that was replaced is not dead */
    ALARM_ROTATION_OVERDUE,  /* of the admin key, or of a key of the HSM's */
    ALARM_KEY_COMPROMISED,   /* of the HSM's, and in use still */
    /* the service; object: organisation, of a project organisation/role */
    ALARM_SERVICE_UNREACHABLE,
    ALARM_SERVICE_FAILING,  /* 5xx, replies that make no sense */
    ALARM_SERVICE_RATE,     /* 429 */
    ALARM_SERVICE_REFUSING, /* other 4xx, one after another */
    ALARM_EXPIRY_IGNORED,
    ALARM_EXPIRY_REFUSED,
    ALARM_PROJECT_GONE,
    /* leases */
    ALARM_REVOCATION_LATE,
    ALARM_REVOCATION_WAITS,
    ALARM_KEY_LIVES, /* object: lease */
    /* the host */
    ALARM_DISK,
    ALARM_STATE_READ_ONLY,
    ALARM_STORE_BROKEN,
    ALARM_CLOCK_STEPPED,
    /* the audit log */
    ALARM_LOG_UNSIGNED,    /* no checkpoint can be signed */
    ALARM_LOG_ROLLED_BACK, /* the store is not what was signed last */
    /* callers */
    ALARM_POLICY_FILES,
    ALARM_PEERS_HIDDEN,
    ALARM_LIMITS,
    ALARM_ADMIN_KEY_USED,
    ALARM_STATE_RESTORED,
    ALARM_UNKNOWN_ACCOUNTS,
    ALARM_ACCOUNTS_VANISHED,
    ALARM_RECOVERY_KEY, /* the HMAC key is not kept for it */
    ALARM_COUNT
};

enum alarm_severity {
    ALARM_WARNING, /* nothing is lost yet */
    ALARM_CRITICAL /* nothing is minted, or a key may outlive its lease */
};

struct alarm_text {
    const char *id; /* "hsm-down" */
    enum alarm_severity severity;
    const char *meaning; /* one line, without a full stop */
    const char *remedy;  /* what to do first; spec/RUNBOOK.md has all steps */
    const char *leases;  /* what it means for leases meanwhile */
};
extern const struct alarm_text alarm_table[ALARM_COUNT];

const char *alarm_severity_name(enum alarm_severity s); /* "critical" */
/* false: no such id. */
bool alarm_find(const char *id, enum alarm *out);

#endif
