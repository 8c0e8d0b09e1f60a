/* hsmint_audit - what the commands of the audit log share.
 *
 * Everything that reads a copy (verify, report, and what takes --copy) needs
 * neither daemon nor HSM; the rest are calls like any other command's.
 */
#ifndef HSMINT_TOOLS_HSMINT_AUDIT_H
#define HSMINT_TOOLS_HSMINT_AUDIT_H

#include "module/audit/search.h"
#include "module/audit/verify.h"
#include "tools/hsmint.h"

/* The keys of --key: each a verifier key, or a file with one a line. */
MUST_CHECK enum code audit_keyring(const struct args *a, struct keyring **out,
                                   struct error *e);

/* ---- a verdict: hsmint_audit_verdict.c ---- */

#define AUDIT_FINDINGS_MAX 1000 /* that are kept, and told */

struct audit_since { /* the log has to begin with it */
    struct checkpoint checkpoint;
    struct note note; /* borrowed text: what is signed about it */
};

struct audit_verdict {
    const struct args *args;
    const struct audit_since *since; /* NULL: that of --since, if any */
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

/* ---- records: hsmint_audit_read.c ---- */

/* The records that --lease, --role ... want, of --copy or of the daemon. */
struct audit_reader {
    struct cli *cli;
    struct search search;
    struct source *copy; /* NULL: the daemon is asked */
    json_t *page;        /* of the daemon's records */
    size_t at;
    int64_t next; /* seq that the daemon is asked for then */
    bool more;
    int64_t seq; /* of the record that came last */
};
void audit_reader_clear(struct audit_reader *r);
#define AUDIT_READER CLEANUP(audit_reader_clear) struct audit_reader
/* From seq `from` on. ERR_USAGE: an option that is none. */
MUST_CHECK enum code audit_reader_open(struct audit_reader *r, struct cli *c,
                                       int64_t from, struct error *e);
/* The next one's bytes; *line NULL: no more, for now. Good until the next
 * call. */
MUST_CHECK enum code audit_reader_next(struct audit_reader *r,
                                       const char **line, size_t *len,
                                       struct error *e);
/* A command's SEQ. ERR_USAGE. */
MUST_CHECK enum code audit_seq(const char *text, int64_t *seq, struct error *e);
/* How many records there are. */
MUST_CHECK enum code audit_count(struct cli *c, uint64_t *records,
                                 struct error *e);
/* One line for people: seq, time, kind, who, about what, and its members. With
 * --json the bytes as they are. ERR_INVALID: it is no record. */
MUST_CHECK enum code audit_print(const struct args *a, const char *line,
                                 size_t len, struct error *e);
/* --from, --to: "2026-11-21", "2026-11-21T08:00:00Z", or "7d": so long ago. */
MUST_CHECK enum code audit_time(const char *option, const char *text,
                                int64_t *ms, struct error *e);

/* ---- calls: hsmint_audit_head.c ---- */

/* LogHead. sign: a checkpoint of all that is there by now. */
MUST_CHECK enum code audit_head(struct cli *c, bool sign, json_t **reply,
                                struct error *e);
/* failure: what was read does not hold; NULL: it does. */
MUST_CHECK enum code audit_mark_exported(struct cli *c, uint64_t size,
                                         const char *failure, struct error *e);

#endif
