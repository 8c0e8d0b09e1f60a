/* ocsf - records as events of the Open Cybersecurity Schema, version 1.3, for
 * those who collect such: API Activity, Account Change, Authentication and
 * Application Lifecycle. The record itself goes along as raw_data.
 */
#ifndef HSMINT_AUDIT_OCSF_H
#define HSMINT_AUDIT_OCSF_H

#include "module/audit/record.h"

/* The event of a record, whose line is `line`, in the log `origin` ("" where it
 * is not known). The caller's. ERR_NOMEM. */
MUST_CHECK enum code ocsf_event(const struct record *r, const char *line,
                                size_t len, const char *origin, json_t **out,
                                struct error *e);

#endif
