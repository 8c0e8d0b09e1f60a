/* json - strict decoding over Jansson.
 *
 * A decoder walks one object with a table of fields; unknown fields are
 * refused (requests, our own files) or ignored (replies of the service).
 * Errors name the field and what it should be. */
#ifndef HSMINT_JSON_H
#define HSMINT_JSON_H

#include "common/error.h"

#include <jansson.h>
#include <stdbool.h>

void json_freep(json_t **j);
#define JSON CLEANUP(json_freep) json_t *

enum json_kind {
    FIELD_STRING,
    FIELD_INT,
    FIELD_BOOL,
    FIELD_OBJECT,
    FIELD_ARRAY,
    FIELD_ANY
};

struct json_field {
    const char *name;
    enum json_kind kind;
    bool required;
    void *out; /* const char **, json_int_t *, bool *, json_t ** (borrowed) */
    bool *present; /* may be NULL */
};

/* null counts as absent; what is absent leaves *out as it was. Strings have no
 * embedded NUL. ERR_INVALID. */
MUST_CHECK enum code json_decode(json_t *object,
                                 const struct json_field *fields, size_t n,
                                 bool allow_unknown, const char *what,
                                 struct error *e);
#define JSON_FIELDS(f) (f), sizeof(f) / sizeof((f)[0])
#define JSON_DEPTH_MAX 64
/* One value from text: depth and size bounded (JSON_DEPTH_MAX, `len`),
 * duplicates refused: "WHAT:LINE:COLUMN: why". */
MUST_CHECK enum code json_parse(const char *text, size_t len, const char *what,
                                json_t **out, struct error *e);
/* Its text, for free(); NULL: no memory, or no `json`. `flags`: Jansson's. Not
 * json_dumps(): short of memory that may leave a member's name out, and say
 * nothing. */
MUST_CHECK char *json_text(const json_t *json, size_t flags);
/* At most so many values are in the text (what it says is not looked at): one
 * of three bytes takes some hundred in memory. */
size_t json_values(const char *text, size_t len);

#endif
