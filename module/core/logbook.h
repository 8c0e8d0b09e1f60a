/* logbook - the audit log's records as the daemon writes them: spec/AUDIT.md.
 *
 * Each is one line, written in the transaction of what it records. Its number,
 * its hash and that of the record before come from that transaction, so that
 * one that is undone leaves no gap. Never give one a secret.
 */
#ifndef HSMINT_CORE_LOGBOOK_H
#define HSMINT_CORE_LOGBOOK_H

#include "module/audit/record.h"
#include "module/core/core.h"

struct logbook_entry {
    enum record_kind kind;
    const struct caller *by;         /* NULL: the daemon itself */
    const char *org, *role, *lease;  /* NULL or "": about none */
    json_t *more; /* the kind's own members, stolen. NULL counts as no memory,
                     but for the kinds that need none */
};
MUST_CHECK enum code logbook_add(struct core *c, struct store_tx *tx,
                                 const struct logbook_entry *r,
                                 struct error *e);
/* The same, and the line (the leaf's bytes), which is the caller's. */
MUST_CHECK enum code logbook_add_line(struct core *c, struct store_tx *tx,
                                      const struct logbook_entry *r,
                                      char **line, struct error *e);
/* In a transaction of its own. */
MUST_CHECK enum code logbook_commit(struct core *c, enum store_urgency urgency,
                                    const struct logbook_entry *r,
                                    struct error *e);

/* Text that strangers chose, for a member: quoted (text_quote()), and cut to
 * `most` bytes (at most LOGBOOK_TEXT_MAX). NULL: no memory. */
#define LOGBOOK_TEXT_MAX 4096
json_t *logbook_text(const char *text, size_t most);
/* The same of the text of an error, or of what was quoted before: a backslash
 * stays one. */
json_t *logbook_error_text(const char *text, size_t most);
/* Base64 of the SHA-256 of a document; of NULL JSON's null (there is none).
 * NULL: no memory. */
json_t *logbook_digest(const char *document);
/* {name, action, old, new: digests; document: what is new, if it is not long}.
 * The document goes into the log as it is: no secret may be in it. */
json_t *logbook_change(const char *name, const char *action, const char *was,
                       const char *is);
/* {version, mechanism, key_id, blob: digest} of a sealed admin key; the first
 * two of them as far as the blob tells. */
int64_t logbook_seal_version(const uint8_t *blob, size_t len); /* -1: none */
json_t *logbook_seal(const char *key_id, const uint8_t *blob, size_t len);

#endif
