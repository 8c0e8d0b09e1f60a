/* hsmint_audit - what the commands of the audit log share.
 *
 * Everything that reads a copy (verify, report, and what takes --copy) needs
 * neither daemon nor HSM; the rest are calls like any other command's.
 */
#ifndef HSMINT_TOOLS_HSMINT_AUDIT_H
#define HSMINT_TOOLS_HSMINT_AUDIT_H

#include "module/audit/verify.h"
#include "tools/hsmint.h"

/* The keys of --key: each a verifier key, or a file with one a line. */
MUST_CHECK enum code audit_keyring(const struct args *a, struct keyring **out,
                                   struct error *e);

/* ---- a verdict: hsmint_audit_verdict.c ---- */

#define AUDIT_FINDINGS_MAX 1000 /* that are kept, and told */

struct audit_verdict {
    const struct args *args;
    json_t *findings; /* the first ones */
    uint64_t told;    /* faults and open calls in all */
    uint64_t total;   /* records that there have to be; 0: unknown */
    bool drawn;       /* a line of progress is on the terminal */
    /* each record, for a report; may be NULL */
    void (*record)(void *ctx, const struct record *r);
    void *ctx;
    struct verify_result result;
};
void audit_verdict_clear(struct audit_verdict *v);
#define AUDIT_VERDICT CLEANUP(audit_verdict_clear) struct audit_verdict

/* Reads a copy to its end, with --key and --since, telling how far it is. */
MUST_CHECK enum code audit_verify(struct audit_verdict *v, const char *path,
                                  struct error *e);
/* {verdict, path, origin, size, root, records, ...}; NULL: no memory. */
json_t *audit_verdict_json(const struct audit_verdict *v, const char *path);
void audit_verdict_print(const struct audit_verdict *v, const char *path);

#endif
