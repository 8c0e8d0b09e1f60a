#include "config.h"

#include "common/clock.h"
#include "module/pkcs11/kinds.h"
#include "module/pkcs11/object.h"
#include "module/pkcs11/session.h"

#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct object_table {
    struct object **list; /* handles ascend */
    size_t n, cap;
    size_t sweep_at; /* look for dead leases when there are so many */
    json_t *by_name; /* kind, slot and name → handle */
};

#define SWEEP_FIRST 1024
#define SWEEP_AFTER_MS 60000 /* so long a dead lease's handle is kept */

/* Never starts again, not even after C_Finalize. */
static atomic_ulong last_handle;

void handles_clear(struct handles *h)
{
    free(h->list);
    *h = (struct handles){0};
}

bool handles_add(struct handles *h, CK_OBJECT_HANDLE handle)
{
    if (h->n == h->cap) {
        size_t cap = h->cap ? h->cap * 2 : 64;
        CK_OBJECT_HANDLE *list = realloc(h->list, cap * sizeof(*list));
        if (!list)
            return false;
        h->list = list;
        h->cap = cap;
    }
    h->list[h->n++] = handle;
    return true;
}

static void object_free(struct object *o)
{
    secret_free(o->value);
    json_decref(o->facts);
    free(o->name);
    free(o);
}

struct object_table *object_table_new(void)
{
    struct object_table *t = calloc(1, sizeof(*t));
    if (!t)
        return NULL;
    t->sweep_at = SWEEP_FIRST;
    t->by_name = json_object();
    if (t->by_name)
        return t;
    free(t);
    return NULL;
}

void object_table_free(struct object_table *t)
{
    if (!t)
        return;
    for (size_t i = 0; i < t->n; i++)
        object_free(t->list[i]);
    free(t->list);
    json_decref(t->by_name);
    free(t);
}

#define KEY_MAX (OBJECT_NAME_MAX + 64)

static void object_key(char key[KEY_MAX], const struct object_kind *kind,
                       CK_SLOT_ID slot, const char *name)
{
    snprintf(key, KEY_MAX, "%s/%lu/%s", kind->schema.what, slot, name);
}

static size_t object_index(const struct object_table *t, CK_OBJECT_HANDLE h)
{
    size_t low = 0, high = t->n;
    while (low < high) {
        size_t mid = low + (high - low) / 2;
        if (t->list[mid]->handle < h)
            low = mid + 1;
        else
            high = mid;
    }
    return low;
}

struct object *object_find(struct object_table *t, CK_OBJECT_HANDLE h)
{
    size_t i = object_index(t, h);
    return i < t->n && t->list[i]->handle == h ? t->list[i] : NULL;
}

/* ---- dropping ---- */

typedef bool (*object_test)(const struct object *o, const void *ctx);

static void object_forget(struct object_table *t, struct object *o)
{
    char key[KEY_MAX];
    object_key(key, o->kind, o->slot, o->name);
    json_object_del(t->by_name, key);
    object_free(o);
}

static void drop_where(struct object_table *t, object_test test,
                       const void *ctx)
{
    size_t kept = 0;
    for (size_t i = 0; i < t->n; i++) {
        if (test(t->list[i], ctx))
            object_forget(t, t->list[i]);
        else
            t->list[kept++] = t->list[i];
    }
    t->n = kept;
}

void object_drop(struct object_table *t, CK_OBJECT_HANDLE h)
{
    size_t i = object_index(t, h);
    if (i == t->n || t->list[i]->handle != h)
        return;
    object_forget(t, t->list[i]);
    memmove(&t->list[i], &t->list[i + 1], (t->n - i - 1) * sizeof(*t->list));
    t->n--;
}

static bool of_session(const struct object *o, const void *ctx)
{
    return o->session == *(const CK_SESSION_HANDLE *)ctx;
}

void object_drop_session(struct object_table *t, CK_SESSION_HANDLE session)
{
    drop_where(t, of_session, &session);
}

static bool private_of_slot(const struct object *o, const void *ctx)
{
    return o->kind->is_private && o->slot == *(const CK_SLOT_ID *)ctx;
}

void object_drop_private(struct object_table *t, CK_SLOT_ID slot)
{
    drop_where(t, private_of_slot, &slot);
}

static bool is_private(const struct object *o, const void *ctx)
{
    (void)ctx;
    return o->kind->is_private;
}

void object_drop_all_private(struct object_table *t)
{
    drop_where(t, is_private, NULL);
}

static bool long_dead(const struct object *o, const void *ctx)
{
    int64_t end = object_number(o, "expires_ms");
    return o->kind == &kind_lease &&
           end + SWEEP_AFTER_MS < *(const int64_t *)ctx;
}

/* A program that lists for months must not grow with every lease it saw. */
static void object_sweep(struct object_table *t)
{
    int64_t now = clock_wall_ms();
    if (t->n < t->sweep_at)
        return;
    drop_where(t, long_dead, &now);
    t->sweep_at = t->n * 2 > SWEEP_FIRST ? t->n * 2 : SWEEP_FIRST;
}

/* ---- putting ---- */

static struct object *object_new(const struct object_kind *kind,
                                 CK_SLOT_ID slot, const char *name,
                                 json_t *facts)
{
    struct object *o = calloc(1, sizeof(*o));
    char *copy = strdup(name);
    if (!o || !copy) {
        free(o);
        free(copy);
        json_decref(facts);
        return NULL;
    }
    *o = (struct object){
        .kind = kind, .slot = slot, .name = copy, .facts = facts};
    return o;
}

static bool object_append(struct object_table *t, struct object *o,
                          const char *key)
{
    if (t->n == t->cap) {
        size_t cap = t->cap ? t->cap * 2 : 64;
        struct object **list = realloc(t->list, cap * sizeof(*list));
        if (!list)
            return false;
        t->list = list;
        t->cap = cap;
    }
    CK_OBJECT_HANDLE h = atomic_fetch_add(&last_handle, 1) + 1;
    if (json_object_set_new(t->by_name, key, json_integer((json_int_t)h)))
        return false;
    o->handle = h;
    t->list[t->n++] = o;
    return true;
}

struct object *object_put(struct object_table *t,
                          const struct object_kind *kind, CK_SLOT_ID slot,
                          const char *name, json_t *facts)
{
    char key[KEY_MAX];
    if (!facts)
        return NULL;
    object_key(key, kind, slot, name);
    json_t *known = json_object_get(t->by_name, key);
    if (known) {
        CK_OBJECT_HANDLE h = (CK_OBJECT_HANDLE)json_integer_value(known);
        struct object *o = object_find(t, h);
        json_decref(o->facts);
        o->facts = facts;
        return o;
    }
    object_sweep(t);
    struct object *o = object_new(kind, slot, name, facts);
    if (!o || object_append(t, o, key))
        return o;
    object_free(o);
    return NULL;
}

CK_RV object_gather(struct call *c, const struct object_kind *kind,
                    const char *name, json_t *facts, const struct template *t,
                    struct handles *out)
{
    module_lock(c->in);
    struct object *o =
        object_put(module_objects(c->in), kind, c->slot, name, facts);
    bool good = o && (!attribute_matches(o, t) || handles_add(out, o->handle));
    module_unlock(c->in);
    return good ? CKR_OK : CKR_HOST_MEMORY;
}

bool object_text(const struct object *o, const char *member, const char **text)
{
    const char *s = json_string_value(json_object_get(o->facts, member));
    if (s)
        *text = s;
    return s && *s;
}

int64_t object_number(const struct object *o, const char *member)
{
    return json_integer_value(json_object_get(o->facts, member));
}

struct object *object_visible(struct call *c, CK_OBJECT_HANDLE h)
{
    struct object *o = object_find(module_objects(c->in), h);
    if (!o || o->slot != c->slot)
        return NULL;
    if (o->kind->is_private &&
        slot_login(module_slots(c->in), c->slot) == LOGIN_NONE)
        return NULL;
    if (o->kind == &kind_last_error && o->session != c->session)
        return NULL;
    return o;
}

CK_RV object_name(struct call *c, CK_OBJECT_HANDLE h,
                  char name[OBJECT_NAME_MAX])
{
    module_lock(c->in);
    const struct object *o = object_visible(c, h);
    if (o)
        snprintf(name, OBJECT_NAME_MAX, "%s", o->name);
    module_unlock(c->in);
    return o ? CKR_OK : CKR_OBJECT_HANDLE_INVALID;
}

/* ---- the C_* functions ---- */

static const struct object_kind *kind_of(struct call *c, CK_OBJECT_HANDLE h)
{
    module_lock(c->in);
    const struct object *o = object_visible(c, h);
    const struct object_kind *kind = o ? o->kind : NULL;
    module_unlock(c->in);
    return kind;
}

CK_RV object_create(struct call *c, const struct template *t,
                    CK_OBJECT_HANDLE *out)
{
    if (!out)
        return CKR_ARGUMENTS_BAD;
    *out = CK_INVALID_HANDLE;
    CK_RV rv = template_check(c, t);
    if (rv != CKR_OK)
        return rv;
    const CK_ATTRIBUTE *class = template_find(t, CKA_CLASS);
    if (!class)
        return call_fail(c, CKR_TEMPLATE_INCOMPLETE, "CKA_CLASS is needed");
    if (class->ulValueLen != sizeof(CK_OBJECT_CLASS))
        return call_fail(c, CKR_ATTRIBUTE_VALUE_INVALID,
                         "CKA_CLASS has a bad length");
    rv = session_need_login(c);
    if (rv != CKR_OK)
        return rv;
    switch (template_ulong(t, CKA_CLASS, 0)) {
    case CKO_SECRET_KEY:
        return admin_key_meant(t) ? admin_key_create(c, t, out)
                                  : mint_create(c, t, out);
    case CKO_DATA:
        return data_create(c, t, out);
    default:
        return call_fail(c, CKR_ATTRIBUTE_VALUE_INVALID,
                         "only secret keys (to mint, or the admin key) and "
                         "data objects can be created");
    }
}

CK_RV object_copy(struct call *c, CK_OBJECT_HANDLE h)
{
    if (!kind_of(c, h))
        return CKR_OBJECT_HANDLE_INVALID;
    return call_fail(c, CKR_ACTION_PROHIBITED, "objects cannot be copied");
}

CK_RV object_destroy(struct call *c, CK_OBJECT_HANDLE h)
{
    const struct object_kind *kind = kind_of(c, h);
    if (!kind)
        return CKR_OBJECT_HANDLE_INVALID;
    if (!kind->destroy)
        return call_fail(c, CKR_ACTION_PROHIBITED, "%s: cannot be destroyed",
                         kind->schema.what);
    return kind->destroy(c, h);
}

CK_RV object_size(struct call *c, CK_OBJECT_HANDLE h, CK_ULONG *size)
{
    if (!size)
        return CKR_ARGUMENTS_BAD;
    if (!kind_of(c, h))
        return CKR_OBJECT_HANDLE_INVALID;
    *size = CK_UNAVAILABLE_INFORMATION; /* it is not on a token of ours */
    return CKR_OK;
}

CK_RV object_set(struct call *c, CK_OBJECT_HANDLE h, const struct template *t)
{
    CK_RV rv = template_check(c, t);
    if (rv != CKR_OK)
        return rv;
    if (t->n == 0)
        return CKR_ARGUMENTS_BAD;
    const struct object_kind *kind = kind_of(c, h);
    if (!kind)
        return CKR_OBJECT_HANDLE_INVALID;
    if (!kind->set)
        return call_fail(c, CKR_ACTION_PROHIBITED, "%s: cannot be changed",
                         kind->schema.what);
    rv = template_check_schema(c, t, &kind->schema, USE_MODIFY, false);
    return rv == CKR_OK ? kind->set(c, h, t) : rv;
}

static bool wants_value(const CK_ATTRIBUTE *attrs, CK_ULONG n)
{
    for (CK_ULONG i = 0; i < n; i++) {
        if (attrs[i].type == CKA_VALUE)
            return true;
    }
    return false;
}

CK_RV object_get(struct call *c, CK_OBJECT_HANDLE h, CK_ATTRIBUTE *attrs,
                 CK_ULONG n)
{
    if (!attrs || n == 0)
        return CKR_ARGUMENTS_BAD;
    if (n > TEMPLATE_MAX)
        return call_fail(c, CKR_ARGUMENTS_BAD,
                         "%lu attributes at once; %d are the limit", n,
                         TEMPLATE_MAX);
    const struct object_kind *kind = kind_of(c, h);
    if (!kind)
        return CKR_OBJECT_HANDLE_INVALID;
    /* A refusal is the attribute's answer below, with this text. */
    if (kind->load && wants_value(attrs, n)) {
        CK_RV rv = kind->load(c, h);
        if (rv != CKR_OK && rv != CKR_ATTRIBUTE_SENSITIVE)
            return rv;
    }
    module_lock(c->in);
    const struct object *o = object_visible(c, h);
    CK_RV rv = o ? attribute_get(o, attrs, n) : CKR_OBJECT_HANDLE_INVALID;
    module_unlock(c->in);
    if (kind->load)
        secret_clear_registers();
    return rv;
}
