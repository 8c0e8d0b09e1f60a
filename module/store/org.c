#include "config.h"

#include "module/store/state.h"

#include <stdlib.h>

#define SELECT_ORG "SELECT id, name, created_ms, config, admin_blob FROM org"

void store_org_clear(struct store_org *o)
{
    free(o->name);
    free(o->config);
    free(o->admin_blob);
    *o = (struct store_org){.id = 0};
}

enum code store_org_add(struct store_tx *tx, const char *name, int64_t now_ms,
                        int64_t *id, struct error *e)
{
    QUERY q = {.st = NULL};
    enum code code = query_open(&q, tx->c, "add organisation",
                                "INSERT INTO org(name, created_ms, config)"
                                " VALUES(?, ?, '{}')",
                                e);
    if (code)
        return code;
    query_text(&q, name);
    query_int(&q, now_ms);
    code = query_run(&q, e);
    if (code == ERR_EXISTS)
        return error_set(e, code, "organisation \"%s\" exists already", name);
    if (code == OK)
        *id = sqlite3_last_insert_rowid(tx->c->db);
    return code;
}

static enum code run_one(struct query *q, int64_t org, struct error *e)
{
    enum code code = query_run(q, e);
    if (code == OK && query_changes(q) == 0)
        return error_set(e, ERR_NOT_FOUND, "there is no organisation %lld",
                         (long long)org);
    return code;
}

enum code store_org_set_config(struct store_tx *tx, int64_t org,
                               const char *config, struct error *e)
{
    QUERY q = {.st = NULL};
    enum code code = query_open(&q, tx->c, "set configuration",
                                "UPDATE org SET config = ? WHERE id = ?", e);
    if (code)
        return code;
    query_text(&q, config);
    query_int(&q, org);
    return run_one(&q, org, e);
}

enum code store_org_set_blob(struct store_tx *tx, int64_t org, const void *blob,
                             size_t len, struct error *e)
{
    QUERY q = {.st = NULL};
    enum code code =
        query_open(&q, tx->c, "set admin key",
                   "UPDATE org SET admin_blob = ? WHERE id = ?", e);
    if (code)
        return code;
    query_blob(&q, blob, len);
    query_int(&q, org);
    return run_one(&q, org, e);
}

static enum code dup_org(const struct query *q, struct store_org *out,
                         struct error *e)
{
    void *blob = NULL;
    out->id = query_get_int(q, 0);
    out->created_ms = query_get_int(q, 2);
    enum code code = query_dup_text(q, 1, &out->name, e);
    if (code == OK)
        code = query_dup_text(q, 3, &out->config, e);
    if (code == OK)
        code = query_dup_blob(q, 4, &blob, &out->admin_blob_len, e);
    out->admin_blob = blob;
    if (code)
        store_org_clear(out);
    return code;
}

enum code store_org_get(struct store *s, const char *name,
                        struct store_org *out, struct error *e)
{
    *out = (struct store_org){.id = 0};
    READER r = {.c = NULL};
    QUERY q = {.st = NULL};
    bool row = false;
    enum code code = reader_take(&r, s, e);
    if (code == OK)
        code = query_open(&q, r.c, "get organisation",
                          SELECT_ORG " WHERE name = ?", e);
    if (code)
        return code;
    query_text(&q, name);
    code = query_step(&q, &row, e);
    if (code)
        return code;
    if (!row)
        return error_set(e, ERR_NOT_FOUND,
                         "there is no organisation \"%s\": make it with "
                         "`hsmint init --org`",
                         name);
    return dup_org(&q, out, e);
}

enum code store_org_each(struct store *s, store_org_fn fn, void *ctx,
                         struct error *e)
{
    READER r = {.c = NULL};
    QUERY q = {.st = NULL};
    enum code code = reader_take(&r, s, e);
    if (code == OK)
        code = query_open(&q, r.c, "list organisations",
                          SELECT_ORG " ORDER BY id", e);
    bool row = false;
    while (code == OK) {
        code = query_step(&q, &row, e);
        if (code || !row)
            break;
        struct store_org o = {
            .id = query_get_int(&q, 0),
            .name = query_borrow_text(&q, 1),
            .created_ms = query_get_int(&q, 2),
            .config = query_borrow_text(&q, 3),
        };
        o.admin_blob = query_borrow_blob(&q, 4, &o.admin_blob_len);
        code = fn(&o, ctx, e);
    }
    return code;
}
