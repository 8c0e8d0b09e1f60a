/* policy - one rule of who may do what: its syntax, and whether it matches.
 * spec/POLICY.md. No store, no clock, no lock: policies.h holds the set.
 */
#ifndef HSMINT_CORE_POLICY_H
#define HSMINT_CORE_POLICY_H

#include "common/error.h"
#include "common/json.h"
#include "module/core/hours.h"
#include "module/core/who.h"

#include <stdint.h>

enum capability {
    CAP_MINT,
    CAP_RENEW,
    CAP_REVOKE_OWN,
    CAP_READ,
    CAP_LIST_OWN,
    CAP_LIST_ANY,
    CAP_REVOKE_ANY,
    CAP_ADMINISTER,
    CAP_ROTATE,
    CAP_AUDIT,
    CAP_STATUS,
    CAPABILITIES
};
#define CAPABILITY_BIT(c) (1u << (c))
#define CAPABILITY_ABOUT_ROLES (CAPABILITY_BIT(CAP_ADMINISTER) - 1)
/* Any of these lets see a role. */
#define CAPABILITY_ROLE_SHOWN                                                  \
    (CAPABILITY_ABOUT_ROLES | CAPABILITY_BIT(CAP_ADMINISTER))
#define CAPABILITY_ALL (CAPABILITY_BIT(CAPABILITIES) - 1)
const char *capability_name(enum capability c); /* "revoke-own" */
/* ERR_INVALID */
MUST_CHECK enum code capability_parse(const char *name, enum capability *c,
                                      struct error *e);
bool capability_is_about_roles(enum capability c);

/* ---- one policy ---- */
enum {
    POLICY_BODY_MAX = 65536, /* bytes of JSON */
    POLICY_SUBJECTS_MAX = 64,
    POLICY_GLOBS_MAX = 64, /* of roles, of organisations */
    POLICY_HOURS_MAX = 32,
    POLICY_GLOB_LEN_MAX = 255,
    POLICY_LIVE_MAX = 1000000, /* leases, and mints a minute */
    POLICY_WHERE_MAX = 96
};
#define POLICY_NAME_MAX 64

enum subject_kind {
    SUBJECT_USER,
    SUBJECT_GROUP,
    SUBJECT_UNIT,
    SUBJECT_LOGIN,
    SUBJECT_EXE,
    SUBJECT_KINDS
};
struct policy_subject {
    enum subject_kind kind;
    bool is_number; /* user: and group: in digits */
    uint32_t number;
    char glob[POLICY_GLOB_LEN_MAX + 1];
};

struct policy {
    char name[POLICY_NAME_MAX];
    bool deny;
    uint32_t capabilities; /* CAPABILITY_BIT */
    struct policy_subject *subjects;
    size_t subjects_n;
    char **orgs, **roles;
    size_t orgs_n, roles_n;
    /* 0: no limit */
    int64_t max_ttl_s, live_leases, mints_per_minute;
    struct hours hours[POLICY_HOURS_MAX];
    size_t hours_n;
    char *body; /* its fields as they were given, JSON */
    /* where it is from: the store has no path, a file no version */
    char *path;
    int64_t version, changed_ms;
};
void policy_clear(struct policy *p);
#define POLICY CLEANUP(policy_clear) struct policy

/* Strict. `where` (may be NULL) gets the path of the member that is wrong, with
 * which the error's text begins: "limits.hours[1]", or "". */
MUST_CHECK enum code policy_parse(struct policy *p, const char *name,
                                  json_t *fields, char where[POLICY_WHERE_MAX],
                                  struct error *e);
/* {name, fields as given, effect, source, path | version, changed_ms} */
MUST_CHECK enum code policy_json(const struct policy *p, json_t **out,
                                 struct error *e);
/* It names users or groups by name, so that names have to be looked up. */
bool policy_needs_names(const struct policy *p);

/* ---- does it match? ---- */
enum policy_part { /* the first that does not match, in this order */
    PART_SUBJECT,
    PART_EXE,
    PART_CAPABILITY,
    PART_ORG,
    PART_ROLE,
    PART_NONE /* all match */
};
struct policy_question {
    const struct who *who;
    enum capability cap;
    const char *org;  /* NULL: the whole daemon */
    const char *role; /* NULL: not about roles, or some role is enough */
};
enum policy_part policy_match(const struct policy *p,
                              const struct policy_question *q);
bool policy_is_about(const struct policy *p, const char *org, const char *role);
bool policy_is_open(const struct policy *p, int64_t wall_ms); /* hours */
/* `deny` takes away all that `allow` gives. May miss some. */
bool policy_covers(const struct policy *deny, const struct policy *allow);

#endif
