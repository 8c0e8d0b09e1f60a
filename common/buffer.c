#include "config.h"

#include "common/buffer.h"
#include "common/secret.h"

#include <stdlib.h>
#include <string.h>

void buffer_free(struct buffer *b)
{
    if (b->data)
        wipe(b->data, b->cap);
    free(b->data);
    b->data = NULL;
    b->len = b->cap = 0;
}

enum code buffer_reserve(struct buffer *b, size_t more, struct error *e)
{
    if (more <= b->cap - b->len)
        return OK;
    if (more > b->max - b->len)
        return error_set(e, ERR_PROTOCOL, "a message of more than %zu bytes",
                         b->max);
    size_t cap = b->cap ? b->cap : 1024;
    while (cap - b->len < more)
        cap *= 2;
    if (cap > b->max)
        cap = b->max;
    char *data = malloc(cap); /* no realloc: it would leave a copy behind */
    if (!data)
        return error_set(e, ERR_NOMEM, "no memory for %zu bytes", cap);
    if (b->len)
        memcpy(data, b->data, b->len);
    size_t len = b->len;
    buffer_free(b);
    b->data = data;
    b->len = len;
    b->cap = cap;
    return OK;
}

enum code buffer_append(struct buffer *b, const void *data, size_t len,
                        struct error *e)
{
    enum code rc = buffer_reserve(b, len, e);
    if (rc)
        return rc;
    if (len)
        memcpy(b->data + b->len, data, len);
    b->len += len;
    return OK;
}

struct dump {
    struct buffer *to;
    struct error *e;
    enum code rc;
};

static int append_piece(const char *piece, size_t len, void *ctx)
{
    struct dump *d = ctx;
    if (!d->rc)
        d->rc = buffer_append(d->to, piece, len, d->e);
    return d->rc ? -1 : 0;
}

enum code buffer_append_json(struct buffer *b, const json_t *json,
                             size_t flags, struct error *e)
{
    /* By callback: json_dumps() would return memory of an allocator that the
     * application may have replaced. */
    struct dump d = {b, e, OK};
    int failed = json_dump_callback(json, append_piece, &d, flags);
    if (d.rc) /* Jansson forgets a failure at a member's name */
        return d.rc;
    return !failed ? OK
                   : error_set(e, ERR_INTERNAL,
                               "a message that cannot be written");
}

void buffer_consume(struct buffer *b, size_t n)
{
    if (n >= b->len) {
        b->len = 0;
        return;
    }
    memmove(b->data, b->data + n, b->len - n);
    b->len -= n;
}
