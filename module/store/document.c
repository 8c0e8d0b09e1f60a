#include "config.h"

#include "module/store/state.h"

#include <stdlib.h>

#define SELECT_DOCUMENT "SELECT name, body, version, changed_ms FROM document"

void store_document_clear(struct store_document *d)
{
    free(d->name);
    free(d->body);
    *d = (struct store_document){.kind = NULL};
}

enum code store_document_put(struct store_tx *tx, const char *kind,
                             const char *name, const char *body, int64_t now_ms,
                             struct error *e)
{
    QUERY q = {.st = NULL};
    enum code code = query_open(
        &q, tx->c, "put document",
        "INSERT INTO document(kind, name, body, version, changed_ms)"
        " VALUES(?, ?, ?, 1, ?) ON CONFLICT(kind, name) DO UPDATE SET"
        " body = excluded.body, version = version + 1,"
        " changed_ms = excluded.changed_ms",
        e);
    if (code)
        return code;
    query_text(&q, kind);
    query_text(&q, name);
    query_text(&q, body);
    query_int(&q, now_ms);
    return query_run(&q, e);
}

static enum code unknown(const char *kind, const char *name, struct error *e)
{
    return error_set(e, ERR_NOT_FOUND, "there is no %s \"%s\"", kind, name);
}

enum code store_document_delete(struct store_tx *tx, const char *kind,
                                const char *name, struct error *e)
{
    QUERY q = {.st = NULL};
    enum code code =
        query_open(&q, tx->c, "delete document",
                   "DELETE FROM document WHERE kind = ? AND name = ?", e);
    if (code)
        return code;
    query_text(&q, kind);
    query_text(&q, name);
    code = query_run(&q, e);
    if (code == OK && query_changes(&q) == 0)
        return unknown(kind, name, e);
    return code;
}

static enum code dup_document(const struct query *q, const char *kind,
                              struct store_document *out, struct error *e)
{
    out->kind = kind;
    out->version = query_get_int(q, 2);
    out->changed_ms = query_get_int(q, 3);
    enum code code = query_dup_text(q, 0, &out->name, e);
    if (code == OK)
        code = query_dup_text(q, 1, &out->body, e);
    if (code)
        store_document_clear(out);
    return code;
}

static enum code get(struct conn *c, const char *kind, const char *name,
                     struct store_document *out, struct error *e)
{
    QUERY q = {.st = NULL};
    bool row = false;
    enum code code =
        query_open(&q, c, "get document",
                   SELECT_DOCUMENT " WHERE kind = ? AND name = ?", e);
    if (code)
        return code;
    query_text(&q, kind);
    query_text(&q, name);
    code = query_step(&q, &row, e);
    if (code)
        return code;
    return row ? dup_document(&q, kind, out, e) : unknown(kind, name, e);
}

enum code store_document_get(struct store *s, const char *kind,
                             const char *name, struct store_document *out,
                             struct error *e)
{
    *out = (struct store_document){.kind = NULL};
    READER r = {.c = NULL};
    enum code code = reader_take(&r, s, e);
    return code ? code : get(r.c, kind, name, out, e);
}

enum code store_tx_document_get(struct store_tx *tx, const char *kind,
                                const char *name, struct store_document *out,
                                struct error *e)
{
    *out = (struct store_document){.kind = NULL};
    return get(tx->c, kind, name, out, e);
}

enum code store_document_each(struct store *s, const char *kind,
                              store_document_fn fn, void *ctx, struct error *e)
{
    READER r = {.c = NULL};
    QUERY q = {.st = NULL};
    enum code code = reader_take(&r, s, e);
    if (code == OK)
        code = query_open(&q, r.c, "list documents",
                          SELECT_DOCUMENT " WHERE kind = ? ORDER BY name", e);
    if (code)
        return code;
    query_text(&q, kind);
    bool row = false;
    while (code == OK) {
        code = query_step(&q, &row, e);
        if (code || !row)
            break;
        const struct store_document d = {
            .kind = kind,
            .name = query_borrow_text(&q, 0),
            .body = query_borrow_text(&q, 1),
            .version = query_get_int(&q, 2),
            .changed_ms = query_get_int(&q, 3),
        };
        code = fn(&d, ctx, e);
    }
    return code;
}
