/* report - what auditors ask of a log, for a span of time.
 *
 * It is fed every record, in order, and remembers keys that live and a bounded
 * number of rows a table.
 */
#ifndef HSMINT_AUDIT_REPORT_H
#define HSMINT_AUDIT_REPORT_H

#include "module/audit/record.h"

#define REPORT_ROWS 1000 /* a table; what is more is counted in "omitted" */

struct report;

/* Times in milliseconds since 1970; 0: from the log's begin, to its end. */
MUST_CHECK enum code report_new(struct report **out, int64_t from_ms,
                                int64_t to_ms, struct error *e);
void report_free(struct report *r); /* takes NULL */
void report_freep(struct report **r);
/* Those before the span count, too: keys that live in it begin there. */
void report_take(struct report *r, const struct record *record);
/* {period, records, keys, callers, calls, rotations, refusals, ...}: man page
 * hsmint-audit(1). The caller's. After it nothing more is taken. */
MUST_CHECK enum code report_json(struct report *r, json_t **out,
                                 struct error *e);

#endif
