#include "config.h"

#include "module/pkcs11/attribute.h"
#include "module/pkcs11/object.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

const struct template template_any = {NULL, 0};

/* ---- templates ---- */

/* Quadratic, for at most TEMPLATE_MAX attributes. */
static bool comes_twice(const struct template *t, CK_ULONG i)
{
    for (CK_ULONG k = 0; k < i; k++) {
        if (t->attrs[k].type == t->attrs[i].type)
            return true;
    }
    return false;
}

CK_RV template_check(struct call *c, const struct template *t)
{
    if (t->n > 0 && !t->attrs)
        return CKR_ARGUMENTS_BAD;
    if (t->n > TEMPLATE_MAX)
        return call_fail(c, CKR_ARGUMENTS_BAD,
                         "a template of %lu attributes; %d are the limit", t->n,
                         TEMPLATE_MAX);
    for (CK_ULONG i = 0; i < t->n; i++) {
        const CK_ATTRIBUTE *a = &t->attrs[i];
        if (a->ulValueLen == CK_UNAVAILABLE_INFORMATION ||
            (!a->pValue && a->ulValueLen > 0))
            return call_fail(c, CKR_ATTRIBUTE_VALUE_INVALID,
                             "attribute 0x%lx has a length and no value",
                             a->type);
        if (comes_twice(t, i))
            return call_fail(c, CKR_TEMPLATE_INCONSISTENT,
                             "attribute 0x%lx comes twice", a->type);
    }
    return CKR_OK;
}

static const struct attribute_rule *rule_find(const struct attribute_schema *s,
                                              CK_ATTRIBUTE_TYPE type)
{
    for (size_t i = 0; i < s->n; i++) {
        if (s->rules[i].type == type)
            return &s->rules[i];
    }
    return NULL;
}

static CK_ULONG get_ulong(const CK_ATTRIBUTE *a)
{
    CK_ULONG value;
    memcpy(&value, a->pValue, sizeof(value)); /* may not be aligned */
    return value;
}

static CK_BBOOL get_bool(const CK_ATTRIBUTE *a)
{
    return *(const CK_BBOOL *)a->pValue;
}

/* The length fits the shape, and so does what the bytes say. */
static bool well_shaped(const struct attribute_rule *r, const CK_ATTRIBUTE *a)
{
    switch (r->shape) {
    case SHAPE_BOOL:
        return a->ulValueLen == sizeof(CK_BBOOL) &&
               (get_bool(a) == CK_TRUE || get_bool(a) == CK_FALSE);
    case SHAPE_ULONG:
        return a->ulValueLen == sizeof(CK_ULONG);
    case SHAPE_DATE:
        return a->ulValueLen == 0 || a->ulValueLen == sizeof(CK_DATE);
    case SHAPE_TEXT:
        return a->ulValueLen <= r->max &&
               (a->ulValueLen == 0 ||
                (!memchr(a->pValue, 0, a->ulValueLen) &&
                 text_utf8_valid(a->pValue, a->ulValueLen)));
    case SHAPE_BYTES:
        return a->ulValueLen <= r->max;
    }
    return false;
}

/* Is this the value that every object of the kind has? */
static bool is_fixed_value(const struct attribute_rule *r,
                           const CK_ATTRIBUTE *a)
{
    if (!well_shaped(r, a))
        return false;
    if (r->shape == SHAPE_BOOL)
        return get_bool(a) == (r->fixed ? CK_TRUE : CK_FALSE);
    if (r->shape == SHAPE_ULONG)
        return get_ulong(a) == r->fixed;
    size_t len = r->text ? strlen(r->text) : 0;
    return a->ulValueLen == len &&
           (len == 0 || memcmp(a->pValue, r->text, len) == 0);
}

static CK_RV check_attribute(struct call *c, const struct attribute_schema *s,
                             const CK_ATTRIBUTE *a, unsigned use)
{
    const struct attribute_rule *r = rule_find(s, a->type);
    if (!r)
        return call_fail(c, CKR_ATTRIBUTE_TYPE_INVALID,
                         "%s: it has no attribute 0x%lx", s->what, a->type);
    if (!(r->use & use))
        return call_fail(c, CKR_ATTRIBUTE_READ_ONLY,
                         "%s: attribute 0x%lx is not yours to set", s->what,
                         a->type);
    if (!well_shaped(r, a))
        return call_fail(c, CKR_ATTRIBUTE_VALUE_INVALID,
                         "%s: attribute 0x%lx has a bad length or value",
                         s->what, a->type);
    if ((r->use & USE_FIXED) && !is_fixed_value(r, a))
        return call_fail(c, CKR_TEMPLATE_INCONSISTENT,
                         "%s: attribute 0x%lx cannot have this value", s->what,
                         a->type);
    return r->check ? r->check(c, a) : CKR_OK;
}

CK_RV template_check_schema(struct call *c, const struct template *t,
                            const struct attribute_schema *s, unsigned use,
                            bool needed)
{
    for (CK_ULONG i = 0; i < t->n; i++) {
        CK_RV rv = check_attribute(c, s, &t->attrs[i], use);
        if (rv != CKR_OK)
            return rv;
    }
    for (size_t i = 0; needed && i < s->n; i++) {
        const struct attribute_rule *r = &s->rules[i];
        if ((r->use & USE_NEEDED) && !template_find(t, r->type))
            return call_fail(c, CKR_TEMPLATE_INCOMPLETE,
                             "%s: attribute 0x%lx is needed", s->what, r->type);
    }
    return CKR_OK;
}

const CK_ATTRIBUTE *template_find(const struct template *t,
                                  CK_ATTRIBUTE_TYPE type)
{
    for (CK_ULONG i = 0; i < t->n; i++) {
        if (t->attrs[i].type == type)
            return &t->attrs[i];
    }
    return NULL;
}

CK_ULONG template_ulong(const struct template *t, CK_ATTRIBUTE_TYPE type,
                        CK_ULONG fallback)
{
    const CK_ATTRIBUTE *a = template_find(t, type);
    return a && a->ulValueLen == sizeof(CK_ULONG) ? get_ulong(a) : fallback;
}

bool template_bool(const struct template *t, CK_ATTRIBUTE_TYPE type,
                   bool fallback)
{
    const CK_ATTRIBUTE *a = template_find(t, type);
    return a && a->ulValueLen == sizeof(CK_BBOOL) ? get_bool(a) != CK_FALSE
                                                  : fallback;
}

char *template_text(const struct template *t, CK_ATTRIBUTE_TYPE type)
{
    const CK_ATTRIBUTE *a = template_find(t, type);
    if (!a)
        return NULL;
    return a->ulValueLen ? strndup(a->pValue, a->ulValueLen) : strdup("");
}

bool template_text_is(const struct template *t, CK_ATTRIBUTE_TYPE type,
                      const char *text)
{
    const CK_ATTRIBUTE *a = template_find(t, type);
    return a && a->ulValueLen == strlen(text) &&
           memcmp(a->pValue, text, a->ulValueLen) == 0;
}

/* ---- values ---- */

CK_RV attribute_truth(struct attribute_value *v, bool truth)
{
    v->room.truth = truth ? CK_TRUE : CK_FALSE;
    v->data = &v->room.truth;
    v->len = sizeof(v->room.truth);
    return CKR_OK;
}

CK_RV attribute_number(struct attribute_value *v, CK_ULONG number)
{
    v->room.number = number;
    v->data = &v->room.number;
    v->len = sizeof(v->room.number);
    return CKR_OK;
}

CK_RV attribute_text(struct attribute_value *v, const char *text)
{
    v->data = text;
    v->len = strlen(text);
    return CKR_OK;
}

CK_RV attribute_date(struct attribute_value *v, int64_t wall_ms)
{
    time_t t = (time_t)(wall_ms / 1000);
    struct tm tm;
    v->data = v->room.bytes;
    v->len = 0;
    if (wall_ms <= 0 || !gmtime_r(&t, &tm))
        return CKR_OK;
    v->len =
        strftime((char *)v->room.bytes, sizeof(v->room.bytes), "%Y%m%d", &tm);
    if (v->len != sizeof(CK_DATE))
        v->len = 0;
    return CKR_OK;
}

static CK_RV read_member(const struct attribute_rule *r, const struct object *o,
                         struct attribute_value *v)
{
    const char *text = "";
    switch (r->shape) {
    case SHAPE_BOOL:
        return attribute_truth(
            v, json_is_true(json_object_get(o->facts, r->member)));
    case SHAPE_ULONG: /* the daemon's milliseconds */
        return attribute_number(v,
                                (CK_ULONG)(object_number(o, r->member) / 1000));
    case SHAPE_DATE:
        return attribute_date(v, object_number(o, r->member));
    case SHAPE_TEXT:
    case SHAPE_BYTES:
        object_text(o, r->member, &text);
        return attribute_text(v, text);
    }
    return CKR_GENERAL_ERROR;
}

static CK_RV attribute_read(const struct attribute_rule *r,
                            const struct object *o, struct attribute_value *v)
{
    if (r->read)
        return r->read(o, v);
    if (r->member)
        return read_member(r, o, v);
    switch (r->shape) {
    case SHAPE_BOOL:
        return attribute_truth(v, r->fixed != 0);
    case SHAPE_ULONG:
        return attribute_number(v, r->fixed);
    case SHAPE_DATE:
    case SHAPE_TEXT:
    case SHAPE_BYTES:
        return attribute_text(v, r->text ? r->text : "");
    }
    return CKR_GENERAL_ERROR;
}

/* ---- search ---- */

bool attribute_excludes(const struct attribute_schema *s,
                        const struct template *t)
{
    for (CK_ULONG i = 0; i < t->n; i++) {
        const struct attribute_rule *r = rule_find(s, t->attrs[i].type);
        if (!r || ((r->use & USE_FIXED) && !is_fixed_value(r, &t->attrs[i])))
            return true;
    }
    return false;
}

static bool matches(const struct object *o, const CK_ATTRIBUTE *a)
{
    const struct attribute_rule *r = rule_find(&o->kind->schema, a->type);
    struct attribute_value v;
    /* An equal value would tell a key to whoever guesses it. */
    if (!r || (a->type == CKA_VALUE && o->kind->load))
        return false;
    return attribute_read(r, o, &v) == CKR_OK && v.len == a->ulValueLen &&
           (v.len == 0 || memcmp(v.data, a->pValue, v.len) == 0);
}

bool attribute_matches(const struct object *o, const struct template *t)
{
    for (CK_ULONG i = 0; i < t->n; i++) {
        if (!matches(o, &t->attrs[i]))
            return false;
    }
    return true;
}

/* ---- C_GetAttributeValue ---- */

static CK_RV get_one(const struct object *o, CK_ATTRIBUTE *a)
{
    const struct attribute_rule *r = rule_find(&o->kind->schema, a->type);
    struct attribute_value v;
    CK_RV rv = r ? attribute_read(r, o, &v) : CKR_ATTRIBUTE_TYPE_INVALID;
    CK_ULONG room = a->ulValueLen;
    a->ulValueLen = CK_UNAVAILABLE_INFORMATION;
    if (rv != CKR_OK)
        return rv;
    /* All ones is what a refusal left there, not the size of a buffer. */
    if (a->pValue && (room < v.len || room == CK_UNAVAILABLE_INFORMATION))
        return CKR_BUFFER_TOO_SMALL;
    if (a->pValue && v.len > 0)
        memcpy(a->pValue, v.data, v.len);
    a->ulValueLen = v.len;
    return CKR_OK;
}

CK_RV attribute_get(const struct object *o, CK_ATTRIBUTE *attrs, CK_ULONG n)
{
    CK_RV rv = CKR_OK;
    for (CK_ULONG i = 0; i < n; i++) {
        CK_RV one = get_one(o, &attrs[i]);
        if (one != CKR_OK)
            rv = one;
    }
    return rv;
}
