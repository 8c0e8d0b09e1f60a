#include "config.h"

#include "module/store/state.h"

#include <stdlib.h>

#define SELECT_ROLE "SELECT org, name, body, version, changed_ms FROM role"

void store_role_clear(struct store_role *r)
{
    free(r->name);
    free(r->body);
    *r = (struct store_role){.org = 0};
}

enum code store_role_put(struct store_tx *tx, int64_t org, const char *name,
                         const char *body, int64_t now_ms, struct error *e)
{
    QUERY q = {.st = NULL};
    enum code code =
        query_open(&q, tx->c, "put role",
                   "INSERT INTO role(org, name, body, version, changed_ms)"
                   " VALUES(?, ?, ?, 1, ?) ON CONFLICT(org, name) DO UPDATE SET"
                   " body = excluded.body, version = version + 1,"
                   " changed_ms = excluded.changed_ms",
                   e);
    if (code)
        return code;
    query_int(&q, org);
    query_text(&q, name);
    query_text(&q, body);
    query_int(&q, now_ms);
    return query_run(&q, e);
}

static enum code unknown(const char *name, struct error *e)
{
    return error_set(e, ERR_ROLE_UNKNOWN,
                     "there is no role \"%s\": make it with `hsmint role set`",
                     name);
}

enum code store_role_delete(struct store_tx *tx, int64_t org, const char *name,
                            struct error *e)
{
    QUERY q = {.st = NULL};
    enum code code =
        query_open(&q, tx->c, "delete role",
                   "DELETE FROM role WHERE org = ? AND name = ?", e);
    if (code)
        return code;
    query_int(&q, org);
    query_text(&q, name);
    code = query_run(&q, e);
    if (code == OK && query_changes(&q) == 0)
        return unknown(name, e);
    return code;
}

enum code store_tx_role_exists(struct store_tx *tx, int64_t org,
                               const char *name, struct error *e)
{
    QUERY q = {.st = NULL};
    bool row = false;
    enum code code =
        query_open(&q, tx->c, "find role",
                   "SELECT 1 FROM role WHERE org = ? AND name = ?", e);
    if (code)
        return code;
    query_int(&q, org);
    query_text(&q, name);
    code = query_step(&q, &row, e);
    return code || row ? code : unknown(name, e);
}

static enum code dup_role(const struct query *q, struct store_role *out,
                          struct error *e)
{
    out->org = query_get_int(q, 0);
    out->version = query_get_int(q, 3);
    out->changed_ms = query_get_int(q, 4);
    enum code code = query_dup_text(q, 1, &out->name, e);
    if (code == OK)
        code = query_dup_text(q, 2, &out->body, e);
    if (code)
        store_role_clear(out);
    return code;
}

static enum code get(struct conn *c, int64_t org, const char *name,
                     struct store_role *out, struct error *e)
{
    QUERY q = {.st = NULL};
    bool row = false;
    enum code code = query_open(&q, c, "get role",
                                SELECT_ROLE " WHERE org = ? AND name = ?", e);
    if (code)
        return code;
    query_int(&q, org);
    query_text(&q, name);
    code = query_step(&q, &row, e);
    if (code)
        return code;
    return row ? dup_role(&q, out, e) : unknown(name, e);
}

enum code store_role_get(struct store *s, int64_t org, const char *name,
                         struct store_role *out, struct error *e)
{
    *out = (struct store_role){.org = 0};
    READER r = {.c = NULL};
    enum code code = reader_take(&r, s, e);
    return code ? code : get(r.c, org, name, out, e);
}

enum code store_tx_role_get(struct store_tx *tx, int64_t org, const char *name,
                            struct store_role *out, struct error *e)
{
    *out = (struct store_role){.org = 0};
    return get(tx->c, org, name, out, e);
}

enum code store_role_each(struct store *s, int64_t org, store_role_fn fn,
                          void *ctx, struct error *e)
{
    READER r = {.c = NULL};
    QUERY q = {.st = NULL};
    enum code code = reader_take(&r, s, e);
    if (code == OK)
        code = query_open(&q, r.c, "list roles",
                          SELECT_ROLE " WHERE org = ? ORDER BY name", e);
    if (code)
        return code;
    query_int(&q, org);
    bool row = false;
    while (code == OK) {
        code = query_step(&q, &row, e);
        if (code || !row)
            break;
        const struct store_role role = {
            .org = query_get_int(&q, 0),
            .name = query_borrow_text(&q, 1),
            .body = query_borrow_text(&q, 2),
            .version = query_get_int(&q, 3),
            .changed_ms = query_get_int(&q, 4),
        };
        code = fn(&role, ctx, e);
    }
    return code;
}
