/* attribute - schema tables: which attributes a kind of object has, their
 * shape, their value, and who may give or change them.
 *
 * Every refusal of a template and every answer of C_GetAttributeValue comes
 * from here. Callers lie: a pointer may be NULL, a length anything; nothing is
 * read before its length was checked against the attribute's shape.
 */
#ifndef HSMINT_ATTRIBUTE_H
#define HSMINT_ATTRIBUTE_H

#include "module/pkcs11/module.h"

struct object;

enum attribute_shape {
    SHAPE_BOOL,
    SHAPE_ULONG,
    SHAPE_DATE, /* CK_DATE: 8 bytes, or none */
    SHAPE_TEXT, /* UTF-8 without NUL */
    SHAPE_BYTES
};

enum attribute_use {
    USE_CREATE = 1 << 0, /* C_CreateObject, C_GenerateKey */
    USE_MODIFY = 1 << 1, /* C_SetAttributeValue */
    USE_NEEDED = 1 << 2, /* to be given by C_CreateObject */
    USE_FIXED = 1 << 3   /* `fixed` is the value of every object of the kind;
                            another one in a template contradicts it */
};

/* The bytes of an attribute; `data` points into the object or to `room`. */
struct attribute_value {
    const void *data;
    size_t len;
    union {
        CK_BBOOL truth;
        CK_ULONG number;
        CK_BYTE bytes[128];
    } room;
};

struct attribute_rule {
    CK_ATTRIBUTE_TYPE type;
    enum attribute_shape shape;
    unsigned use;
    size_t max;         /* bytes, of SHAPE_TEXT and SHAPE_BYTES in a template */
    CK_ULONG fixed;     /* SHAPE_BOOL, SHAPE_ULONG: its value, unless … */
    const char *text;   /* … SHAPE_TEXT: its fixed value, … */
    const char *member; /* … the member of the object's facts, or … */
    /* … what this says: CKR_OK, CKR_ATTRIBUTE_SENSITIVE,
     * CKR_ATTRIBUTE_TYPE_INVALID. Under the lock. */
    CK_RV (*read)(const struct object *o, struct attribute_value *v);
    /* May refuse a well-formed value in a template; fills c->e. */
    CK_RV (*check)(struct call *c, const CK_ATTRIBUTE *a);
};

/* A flag that is what it is, and nobody's to give. */
#define ATTRIBUTE_ALWAYS(attr, is)                                             \
    {                                                                          \
        .type = (attr), .shape = SHAPE_BOOL, .fixed = (is)                     \
    }

struct attribute_schema {
    const char *what; /* "lease" */
    const struct attribute_rule *rules;
    size_t n;
};
#define ATTRIBUTE_SCHEMA(name, table)                                          \
    {                                                                          \
        (name), (table), sizeof(table) / sizeof((table)[0])                    \
    }

/* A template as the caller gave it; stays the caller's. */
struct template
{
    const CK_ATTRIBUTE *attrs;
    CK_ULONG n;
};

extern const struct template template_any; /* what matches all */

/* Pointers, count and lengths make sense, nothing comes twice. */
CK_RV template_check(struct call *c, const struct template *t);
/* The same, and all of it is allowed by the schema for `use` (one bit); with
 * `needed`, what has to be there is. */
CK_RV template_check_schema(struct call *c, const struct template *t,
                            const struct attribute_schema *s, unsigned use,
                            bool needed);
/* Of a checked template. NULL / fallback when the attribute is not there. */
const CK_ATTRIBUTE *template_find(const struct template *t,
                                  CK_ATTRIBUTE_TYPE type);
CK_ULONG template_ulong(const struct template *t, CK_ATTRIBUTE_TYPE type,
                        CK_ULONG fallback);
bool template_bool(const struct template *t, CK_ATTRIBUTE_TYPE type,
                   bool fallback);
/* A copy with NUL, the caller's; NULL when missing or without memory. */
char *template_text(const struct template *t, CK_ATTRIBUTE_TYPE type);
bool template_text_is(const struct template *t, CK_ATTRIBUTE_TYPE type,
                      const char *text);

/* No object of the schema can match: no need to ask the daemon. */
bool attribute_excludes(const struct attribute_schema *s,
                        const struct template *t);
/* Under the lock. A key's value never matches. */
bool attribute_matches(const struct object *o, const struct template *t);
/* C_GetAttributeValue: every attribute of the template gets its answer.
 * Under the lock. */
CK_RV attribute_get(const struct object *o, CK_ATTRIBUTE *attrs, CK_ULONG n);

/* For rules' read(). */
CK_RV attribute_truth(struct attribute_value *v, bool truth);
CK_RV attribute_number(struct attribute_value *v, CK_ULONG number);
CK_RV attribute_text(struct attribute_value *v, const char *text);
CK_RV attribute_date(struct attribute_value *v, int64_t wall_ms);

#endif
