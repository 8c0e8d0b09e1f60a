/* Private data objects on the token: hsm_data_* of hsm.h. */
#include "config.h"

#include "hsm/object.h"
#include "hsm/state.h"

#include <stdlib.h>
#include <string.h>

#define APPLICATION "hsmint"
#define DATA_MAX (1024 * 1024)

struct data {
    const char *label;
    const uint8_t *bytes;
    size_t len;
    struct item *items; /* what was read */
    size_t count;
};

struct item {
    uint8_t *bytes;
    size_t len;
};

static enum code find(struct session *s, const char *label,
                      CK_OBJECT_HANDLE found[OBJECTS_MAX], size_t *n,
                      struct error *e)
{
    CK_OBJECT_CLASS class = CKO_DATA;
    CK_ATTRIBUTE match[] = {ATTR(CKA_CLASS, class),
                            ATTR_TEXT(CKA_APPLICATION, APPLICATION),
                            ATTR_TEXT(CKA_LABEL, label)};
    return object_find(s, label, match, 3, found, n, e);
}

static enum code destroy_all(struct session *s, const char *label,
                             const CK_OBJECT_HANDLE *found, size_t n,
                             struct error *e)
{
    enum code rc = OK;
    for (size_t i = 0; !rc && i < n; i++)
        rc = object_destroy(s, label, found[i], e);
    return rc;
}

static enum code op_put(struct hsm *h, struct session *s, void *arg,
                        struct error *e)
{
    (void)h;
    struct data *d = arg;
    CK_OBJECT_HANDLE old[OBJECTS_MAX], made;
    size_t n;
    CK_OBJECT_CLASS class = CKO_DATA;
    CK_BBOOL yes = CK_TRUE;
    CK_ATTRIBUTE template[] = {
        ATTR(CKA_CLASS, class),
        ATTR(CKA_TOKEN, yes),
        ATTR(CKA_PRIVATE, yes),
        ATTR_TEXT(CKA_APPLICATION, APPLICATION),
        ATTR_TEXT(CKA_LABEL, d->label),
        {CKA_VALUE, (void *)(uintptr_t)d->bytes, d->len},
    };
    enum code rc = find(s, d->label, old, &n, e);
    if (!rc)
        rc = HSM_CALL(s, e, d->label, C_CreateObject, template,
                      sizeof template / sizeof template[0], &made);
    return rc ? rc : destroy_all(s, d->label, old, n, e);
}

enum code hsm_data_put(struct hsm *h, const char *label, const uint8_t *data,
                       size_t len, struct error *e)
{
    if (len == 0 || len > DATA_MAX)
        return error_set(e, ERR_INVALID, "HSM: data object %s of %zu bytes",
                         label, len);
    struct data d = {.label = label, .bytes = data, .len = len};
    return hsm_run(h, NEED_LOGIN, true, op_put, &d, e);
}

static enum code op_delete(struct hsm *h, struct session *s, void *arg,
                           struct error *e)
{
    (void)h;
    struct data *d = arg;
    CK_OBJECT_HANDLE found[OBJECTS_MAX];
    size_t n;
    enum code rc = find(s, d->label, found, &n, e);
    return rc ? rc : destroy_all(s, d->label, found, n, e);
}

enum code hsm_data_delete(struct hsm *h, const char *label, struct error *e)
{
    struct data d = {.label = label};
    return hsm_run(h, NEED_LOGIN, true, op_delete, &d, e);
}

/* ---- get ---- */

static void items_clear(struct data *d)
{
    for (size_t i = 0; i < d->count; i++)
        free(d->items[i].bytes);
    free(d->items);
    d->items = NULL;
    d->count = 0;
}

static enum code read_item(struct session *s, const char *label,
                           CK_OBJECT_HANDLE object, struct item *item,
                           struct error *e)
{
    CK_ULONG len = 0;
    enum code rc = object_read(s, label, object, CKA_VALUE, NULL, 0, &len, e);
    if (rc)
        return rc;
    if (len > DATA_MAX) /* or unavailable */
        return error_set(e, ERR_HSM_FAILED,
                         "HSM: data object %s is too long or unreadable",
                         label);
    item->bytes = malloc(len + 1);
    if (!item->bytes)
        return error_set(e, ERR_NOMEM, "HSM: data object");
    rc = object_read(s, label, object, CKA_VALUE, item->bytes, len, &len, e);
    item->len = len;
    return rc;
}

static enum code op_get(struct hsm *h, struct session *s, void *arg,
                        struct error *e)
{
    (void)h;
    struct data *d = arg;
    CK_OBJECT_HANDLE found[OBJECTS_MAX];
    size_t n;
    items_clear(d); /* of a try that was cut off */
    enum code rc = find(s, d->label, found, &n, e);
    if (rc)
        return rc;
    d->items = calloc(n + 1, sizeof *d->items);
    if (!d->items)
        return error_set(e, ERR_NOMEM, "HSM: data objects");
    for (d->count = 0; !rc && d->count < n; d->count++)
        rc = read_item(s, d->label, found[d->count], &d->items[d->count], e);
    return rc;
}

/* fn runs without a session: it may call hsm_* itself. */
enum code hsm_data_get(struct hsm *h, const char *label, hsm_data_fn fn,
                       void *ctx, struct error *e)
{
    struct data d CLEANUP(items_clear) = {.label = label};
    enum code rc = hsm_run(h, NEED_LOGIN, true, op_get, &d, e);
    for (size_t i = 0; !rc && i < d.count; i++)
        rc = fn(d.items[i].bytes, d.items[i].len, ctx, e);
    return rc;
}
