/* reply - what the decoders of this room share: bounded parsing, lenient
 * fields, the ids and values that must be there, pages. */
#ifndef HSMINT_OPENAI_REPLY_H
#define HSMINT_OPENAI_REPLY_H

#include "common/json.h"
#include "module/openai/openai.h"

#define REPLY_MAX (4 * 1024 * 1024)

/* One JSON object; all that is wrong with it is ERR_SERVICE_REPLY. */
MUST_CHECK enum code reply_object(const struct openai_reply *r,
                                  const char *what, json_t **out,
                                  struct error *e);

/* The end of each decoder: an error of this reply gets its x-request-id. */
MUST_CHECK enum code reply_done(const struct openai_reply *r, enum code rc,
                                struct error *e);

/* Missing, null or of another type: NULL, and 0. */
const char *reply_text(const json_t *object, const char *name);
int64_t reply_time(const json_t *object, const char *name);
/* *out: a copy, NULL if there is none. */
MUST_CHECK enum code reply_copy(const json_t *object, const char *name,
                                char **out, struct error *e);
/* The id that must be there, fit for a path. */
MUST_CHECK enum code reply_id(const json_t *object, const char *what,
                              char **out, struct error *e);

/* id, name, times and redacted form; and the value, when wanted. */
MUST_CHECK enum code reply_key(const json_t *object, const char *what,
                               bool with_value, struct openai_key *k,
                               struct error *e);

/* fn for each item of the page; *after as openai.h says. */
typedef enum code (*reply_item_fn)(json_t *item, void *ctx, struct error *e);
MUST_CHECK enum code reply_page(const struct openai_reply *r, const char *what,
                                reply_item_fn fn, void *ctx, char **after,
                                struct error *e);
/* The next page's cursor, borrowed: last_id, else the last item's id; NULL
 * when there is no next page. */
MUST_CHECK enum code reply_cursor(const json_t *page, const char *what,
                                  const char **cursor, struct error *e);

#endif
