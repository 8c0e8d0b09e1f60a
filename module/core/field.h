/* field - values of roles and configuration as people type them: text, or
 * JSON of the right kind. null and "" are allowed where it says so. */
#ifndef HSMINT_CORE_FIELD_H
#define HSMINT_CORE_FIELD_H

#include "common/json.h"

/* Every member of `fields` must be one of the names (NULL-ended); the error
 * lists those there are. */
MUST_CHECK enum code field_check_names(json_t *fields, const char *const *names,
                                       const char *what, struct error *e);

/* These leave *out as it is when `fields` has no such member. */

/* Valid UTF-8 without control characters; replaces the owned *out. */
MUST_CHECK enum code field_text(json_t *fields, const char *name, size_t max,
                                char **out, struct error *e);
/* true, false, "true", "false", "1", "0", "yes", "no" */
MUST_CHECK enum code field_bool(json_t *fields, const char *name, bool *out,
                                struct error *e);
/* 0 to `max`, as JSON or text; null and "": 0. */
MUST_CHECK enum code field_count(json_t *fields, const char *name, int64_t max,
                                 int64_t *out, struct error *e);
/* Seconds, or as text_duration(). 0 and "" (none) only if `optional`. */
MUST_CHECK enum code field_duration(json_t *fields, const char *name,
                                    bool optional, int64_t *out,
                                    struct error *e);
/* An http or https URL with a host and neither userinfo, query nor fragment;
 * http only to a loopback host. An ending slash goes. */
MUST_CHECK enum code field_check_url(const char *name, char *url,
                                     bool http_loopback, struct error *e);

#endif
