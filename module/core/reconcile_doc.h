/* reconcile_doc - what reconcile keeps in the store: documents of kind
 * "reconcile". See reconcile.h. */
#ifndef HSMINT_CORE_RECONCILE_DOC_H
#define HSMINT_CORE_RECONCILE_DOC_H

#include "common/error.h"
#include "common/json.h"
#include "common/text.h"

#include <stdbool.h>

struct core;
struct logbook_entry;

#define RECONCILE_JOB "job"           /* under way: gone on with after a restart */
#define RECONCILE_PROGRESS "progress" /* what of it is done */
#define RECONCILE_LAST "last"         /* the last report */

/* body NULL: it is deleted. `entry` (NULL: none) is of the same transaction. */
MUST_CHECK enum code reconcile_doc_keep(struct core *c, const char *name,
                                        json_t *body,
                                        const struct logbook_entry *entry,
                                        struct error *e);
/* OK with *body NULL: there is none. The caller frees it. */
MUST_CHECK enum code reconcile_doc_load(struct core *c, const char *name,
                                        char **body, struct error *e);

/* Of one job. Projects that were gone through are members of `done`, as
 * "ORGANISATION/PROJECT"; the report is as it was at that time. */
struct reconcile_progress {
    char job[TEXT_ID_LEN + 1];
    int64_t at_ms; /* wall */
    bool complete;
    json_t *done, *report; /* owned */
};
void reconcile_progress_clear(struct reconcile_progress *p);
/* NULL: no memory. */
json_t *reconcile_progress_json(const struct reconcile_progress *p);
/* Strict: it was written by us. */
MUST_CHECK enum code reconcile_progress_parse(struct reconcile_progress *p,
                                              const char *text,
                                              struct error *e);

#endif
