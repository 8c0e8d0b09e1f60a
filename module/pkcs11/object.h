/* object - what the application holds handles of.
 *
 * An object is a handle, a kind and the facts that the daemon told about it; a
 * lease also keeps its key's value, locked, for the application that minted
 * it. Handles are never used twice in a process. Objects that the daemon lists
 * again keep their handle. All of it is guarded by the module's lock.
 */
#ifndef HSMINT_OBJECT_H
#define HSMINT_OBJECT_H

#include "module/pkcs11/attribute.h"
#include "module/pkcs11/module.h"

#define OBJECT_NAME_MAX 256

struct handles {
    CK_OBJECT_HANDLE *list;
    size_t n, cap;
};
void handles_clear(struct handles *h);
MUST_CHECK bool handles_add(struct handles *h, CK_OBJECT_HANDLE handle);

struct object_kind {
    struct attribute_schema schema;
    bool is_private; /* seen by the logged-in only */
    /* Ask the daemon; put what matches into the table, and its handles into
     * `out`, newest first. NULL: none is found but by its session. */
    CK_RV(*gather)
    (struct call *c, const struct template *t, struct handles *out);
    /* Of an object that exists and may be seen; template checked. NULL:
     * refused. */
    CK_RV (*set)(struct call *c, CK_OBJECT_HANDLE h, const struct template *t);
    CK_RV (*destroy)(struct call *c, CK_OBJECT_HANDLE h);
    /* CKA_VALUE is asked for and not held: get it, where it may be had. */
    CK_RV (*load)(struct call *c, CK_OBJECT_HANDLE h);
};

struct object {
    CK_OBJECT_HANDLE handle;
    const struct object_kind *kind;
    CK_SLOT_ID slot;
    char *name;           /* lease id, role name; unique in kind and slot */
    json_t *facts;        /* as the daemon told, or made */
    struct secret *value; /* the key, if it is ours to give */
    CK_SESSION_HANDLE session; /* a bound lease's, an error text's; else 0 */
    bool named; /* found by its name, not in a listing of all (lease.c) */
};

struct object_table *object_table_new(void);
void object_table_free(struct object_table *t);

/* For kinds' gather: object_put(), and into `out` where it matches. NULL facts
 * are no memory. Takes the lock. */
CK_RV object_gather(struct call *c, const struct object_kind *kind,
                    const char *name, json_t *facts, const struct template *t,
                    struct handles *out);

/* ---- under the lock ---- */
/* Find by name, or make. facts: stolen; replaces. NULL: no memory. */
struct object *object_put(struct object_table *t,
                          const struct object_kind *kind, CK_SLOT_ID slot,
                          const char *name, json_t *facts);
struct object *object_find(struct object_table *t, CK_OBJECT_HANDLE h);
/* And the call may see it. */
struct object *object_visible(struct call *c, CK_OBJECT_HANDLE h);
void object_drop(struct object_table *t, CK_OBJECT_HANDLE h);
/* A session ended: what was bound to it. */
void object_drop_session(struct object_table *t, CK_SESSION_HANDLE session);
/* Logged out: bound leases, and the values of all others. */
void object_drop_private(struct object_table *t, CK_SLOT_ID slot);
/* The same of all slots. */
void object_drop_all_private(struct object_table *t);
bool object_text(const struct object *o, const char *member, const char **text);
int64_t object_number(const struct object *o, const char *member);

/* ---- the C_* functions ---- */
CK_RV object_create(struct call *c, const struct template *t,
                    CK_OBJECT_HANDLE *out);
CK_RV object_copy(struct call *c, CK_OBJECT_HANDLE h);
CK_RV object_destroy(struct call *c, CK_OBJECT_HANDLE h);
CK_RV object_size(struct call *c, CK_OBJECT_HANDLE h, CK_ULONG *size);
CK_RV object_get(struct call *c, CK_OBJECT_HANDLE h, CK_ATTRIBUTE *attrs,
                 CK_ULONG n);
CK_RV object_set(struct call *c, CK_OBJECT_HANDLE h, const struct template *t);

/* The name of an object that the call may see, copied. */
CK_RV object_name(struct call *c, CK_OBJECT_HANDLE h,
                  char name[OBJECT_NAME_MAX]);

#endif
