/* hsmint_audit_http - one POST to a witness. */
#ifndef HSMINT_TOOLS_HSMINT_AUDIT_HTTP_H
#define HSMINT_TOOLS_HSMINT_AUDIT_HTTP_H

#include "common/error.h"

#include <stddef.h>

#define AUDIT_HTTP_MAX 65536 /* bytes of an answer */

struct audit_answer {
    long status;
    size_t len;
    char body[AUDIT_HTTP_MAX];
};
/* HTTPS, or HTTP to this host alone; no redirects. ca_file: NULL, the system's.
 * ERR_USAGE for another URL, ERR_SERVICE_DOWN, ERR_SERVICE_REPLY. */
MUST_CHECK enum code audit_post(const char *url, const char *ca_file,
                                const char *body, struct audit_answer *answer,
                                struct error *e);

#endif
