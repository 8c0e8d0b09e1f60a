/* The store's nouns but leases: what is put in comes out, and nothing else. */
#include "config.h"

#include "tests/unit/store_fixture.h"

#include <inttypes.h>

/* ---- meta ---- */

struct meta {
    const char *key;
    const void *value;
    size_t len;
};

static enum code put_meta(struct store_tx *tx, void *ctx, struct error *e)
{
    struct meta *m = ctx;
    return store_meta_put(tx, m->key, m->value, m->len, e);
}

static void meta_keeps_bytes(void **state)
{
    struct fixture *f = *state;
    void *value;
    size_t len;
    FAILS(ERR_NOT_FOUND, store_meta_get(f->s, "pins", &value, &len, e));
    struct meta m = {"pins", "a\0b", 3};
    SUCCEEDS(store_commit(f->s, STORE_NORMAL, put_meta, &m, e));
    SUCCEEDS(store_meta_get(f->s, "pins", &value, &len, e));
    assert_int_equal(len, 3);
    assert_memory_equal(value, "a\0b\0", 4);
    free(value);
    m = (struct meta){"pins", NULL, 0};
    SUCCEEDS(store_commit(f->s, STORE_NORMAL, put_meta, &m, e));
    SUCCEEDS(store_meta_get(f->s, "pins", &value, &len, e));
    assert_int_equal(len, 0);
    free(value);
}

/* ---- organisations ---- */

struct org_change {
    int64_t org;
    const char *name, *config;
    const void *blob;
    size_t len;
};

static enum code add_org(struct store_tx *tx, void *ctx, struct error *e)
{
    struct org_change *c = ctx;
    return store_org_add(tx, c->name, 2000, &c->org, e);
}

static enum code set_org(struct store_tx *tx, void *ctx, struct error *e)
{
    struct org_change *c = ctx;
    enum code code = store_org_set_config(tx, c->org, c->config, e);
    return code ? code : store_org_set_blob(tx, c->org, c->blob, c->len, e);
}

static enum code collect_org(const struct store_org *o, void *ctx,
                             struct error *e)
{
    char *text = ctx;
    (void)e;
    sprintf(text + strlen(text), "%" PRId64 ":%s:%s;", o->id, o->name,
            o->config);
    return OK;
}

static void organisations(void **state)
{
    struct fixture *f = *state;
    struct store_org o;
    SUCCEEDS(store_org_get(f->s, "default", &o, e));
    assert_int_equal(o.id, f->org);
    assert_string_equal(o.config, "{}");
    assert_null(o.admin_blob);
    store_org_clear(&o);

    struct org_change c = {.name = "default"};
    FAILS(ERR_EXISTS, store_commit(f->s, STORE_NORMAL, add_org, &c, e));
    FAILS(ERR_NOT_FOUND, store_org_get(f->s, "other", &o, e));
    c = (struct org_change){
        .name = "other", .config = "{\"a\":1}", .blob = "\0blob", .len = 5};
    SUCCEEDS(store_commit(f->s, STORE_NORMAL, add_org, &c, e));
    assert_int_equal(c.org, f->org + 1);
    SUCCEEDS(store_commit(f->s, STORE_NORMAL, set_org, &c, e));
    SUCCEEDS(store_org_get(f->s, "other", &o, e));
    assert_int_equal(o.admin_blob_len, 5);
    assert_memory_equal(o.admin_blob, "\0blob", 5);
    assert_int_equal(o.created_ms, 2000);
    store_org_clear(&o);

    char text[256] = "";
    SUCCEEDS(store_org_each(f->s, collect_org, text, e));
    assert_string_equal(text, "1:default:{};2:other:{\"a\":1};");

    c.blob = NULL;
    SUCCEEDS(store_commit(f->s, STORE_NORMAL, set_org, &c, e));
    SUCCEEDS(store_org_get(f->s, "other", &o, e));
    assert_null(o.admin_blob);
    store_org_clear(&o);
    c.org = 99;
    FAILS(ERR_NOT_FOUND, store_commit(f->s, STORE_NORMAL, set_org, &c, e));
}

/* ---- roles ---- */

struct role_change {
    int64_t org;
    const char *name, *body; /* body NULL: delete */
    int64_t now_ms;
};

static enum code change_role(struct store_tx *tx, void *ctx, struct error *e)
{
    struct role_change *c = ctx;
    if (!c->body)
        return store_role_delete(tx, c->org, c->name, e);
    return store_role_put(tx, c->org, c->name, c->body, c->now_ms, e);
}

static enum code collect_role(const struct store_role *r, void *ctx,
                              struct error *e)
{
    char *text = ctx;
    (void)e;
    sprintf(text + strlen(text), "%s=%s v%" PRId64 ";", r->name, r->body,
            r->version);
    return OK;
}

static enum code stop_at_once(const struct store_role *r, void *ctx,
                              struct error *e)
{
    ++*(int *)ctx;
    return error_set(e, ERR_DENIED, "no more after %s", r->name);
}

static void roles(void **state)
{
    struct fixture *f = *state;
    struct role_change changes[] = {{f->org, "web", "{}", 1},
                                    {f->org, "app", "{}", 2},
                                    {f->org, "web", "{\"ttl\":1}", 3}};
    for (size_t i = 0; i < 3; i++)
        SUCCEEDS(store_commit(f->s, STORE_NORMAL, change_role, &changes[i], e));
    struct store_role r;
    SUCCEEDS(store_role_get(f->s, f->org, "web", &r, e));
    assert_string_equal(r.body, "{\"ttl\":1}");
    assert_int_equal(r.version, 2);
    assert_int_equal(r.changed_ms, 3);
    store_role_clear(&r);

    char text[256] = "";
    SUCCEEDS(store_role_each(f->s, f->org, collect_role, text, e));
    assert_string_equal(text, "app={} v1;web={\"ttl\":1} v2;");
    int seen = 0;
    FAILS(ERR_DENIED, store_role_each(f->s, f->org, stop_at_once, &seen, e));
    assert_int_equal(seen, 1);

    struct role_change gone = {f->org, "web", NULL, 0};
    SUCCEEDS(store_commit(f->s, STORE_NORMAL, change_role, &gone, e));
    FAILS(ERR_ROLE_UNKNOWN, store_role_get(f->s, f->org, "web", &r, e));
    FAILS(ERR_ROLE_UNKNOWN,
          store_commit(f->s, STORE_NORMAL, change_role, &gone, e));
    struct role_change nowhere = {99, "web", "{}", 0};
    FAILS(ERR_NOT_FOUND,
          store_commit(f->s, STORE_NORMAL, change_role, &nowhere, e));
}

/* ---- journal and records ---- */

struct entry {
    const char *owner, *request, *method, *result;
    int64_t now_ms;
};

static enum code put_entry(struct store_tx *tx, void *ctx, struct error *e)
{
    struct entry *n = ctx;
    return store_journal_put(tx, n->owner, n->request, n->method, n->result,
                             n->now_ms, e);
}

static enum code prune_journal(struct store_tx *tx, void *ctx, struct error *e)
{
    return store_journal_prune(tx, *(int64_t *)ctx, e);
}

static void journal_answers_its_owner_only(void **state)
{
    struct fixture *f = *state;
    struct entry entries[] = {{"u1", "r1", "Mint", "{\"a\":1}", 10},
                              {"u2", "r1", "Revoke", "{}", 20},
                              {"u1", "r2", "Mint", "{}", 30}};
    for (size_t i = 0; i < 3; i++)
        SUCCEEDS(store_commit(f->s, STORE_NORMAL, put_entry, &entries[i], e));
    struct entry again = {"u1", "r2", "Mint", "{\"b\":2}", 30};
    SUCCEEDS(store_commit(f->s, STORE_NORMAL, put_entry, &again, e));
    char *method, *result;
    SUCCEEDS(store_journal_get(f->s, "u1", "r1", &method, &result, e));
    assert_string_equal(method, "Mint");
    assert_string_equal(result, "{\"a\":1}");
    free(method);
    free(result);
    FAILS(ERR_NOT_FOUND,
          store_journal_get(f->s, "u3", "r1", &method, &result, e));
    assert_null(method);

    int64_t before = 30;
    SUCCEEDS(store_commit(f->s, STORE_NORMAL, prune_journal, &before, e));
    FAILS(ERR_NOT_FOUND,
          store_journal_get(f->s, "u2", "r1", &method, &result, e));
    SUCCEEDS(store_journal_get(f->s, "u1", "r2", &method, &result, e));
    assert_string_equal(result, "{\"b\":2}"); /* replaced */
    free(method);
    free(result);
    before = INT64_MAX;
    SUCCEEDS(store_commit(f->s, STORE_NORMAL, prune_journal, &before, e));
    FAILS(ERR_NOT_FOUND,
          store_journal_get(f->s, "u1", "r2", &method, &result, e));
}

struct record {
    const char *line;
    int64_t sequence;
    bool fail;
};

static enum code add_record(struct store_tx *tx, void *ctx, struct error *e)
{
    struct record *r = ctx;
    enum code code = store_record_add(tx, r->line, &r->sequence, e);
    if (code == OK && r->fail)
        return error_set(e, ERR_DENIED, "on second thought");
    return code;
}

static enum code collect_record(int64_t sequence, const char *line, void *ctx,
                                struct error *e)
{
    (void)e;
    sprintf((char *)ctx + strlen(ctx), "%" PRId64 "=%s;", sequence, line);
    return OK;
}

static void records_have_no_gaps(void **state)
{
    struct fixture *f = *state;
    struct record a = {.line = "a"}, undone = {.line = "x", .fail = true},
                  b = {.line = "b"}, c = {.line = "c"};
    SUCCEEDS(store_commit(f->s, STORE_NORMAL, add_record, &a, e));
    FAILS(ERR_DENIED, store_commit(f->s, STORE_NORMAL, add_record, &undone, e));
    close_store(f);
    open_store(f, 0);
    SUCCEEDS(store_commit(f->s, STORE_NORMAL, add_record, &b, e));
    SUCCEEDS(store_commit(f->s, STORE_NORMAL, add_record, &c, e));
    assert_int_equal(b.sequence, 2);
    char text[64] = "";
    SUCCEEDS(store_record_each(f->s, 2, 10, collect_record, text, e));
    assert_string_equal(text, "2=b;3=c;");
    *text = '\0';
    SUCCEEDS(store_record_each(f->s, 0, 1, collect_record, text, e));
    assert_string_equal(text, "1=a;");

    char *line = malloc(STORE_RECORD_MAX + 2);
    assert_non_null(line);
    memset(line, 'x', STORE_RECORD_MAX + 1);
    line[STORE_RECORD_MAX + 1] = '\0';
    struct record longest = {.line = line};
    FAILS(ERR_INVALID,
          store_commit(f->s, STORE_NORMAL, add_record, &longest, e));
    line[STORE_RECORD_MAX] = '\0';
    SUCCEEDS(store_commit(f->s, STORE_NORMAL, add_record, &longest, e));
    free(line);
}

/* ---- documents ---- */

struct document {
    const char *kind, *name, *body;
    bool fail;
};

static enum code put_document(struct store_tx *tx, void *ctx, struct error *e)
{
    const struct document *d = ctx;
    struct store_document seen;
    enum code code = store_document_put(tx, d->kind, d->name, d->body, 9, e);
    if (code == OK)
        code = store_tx_document_get(tx, d->kind, d->name, &seen, e);
    if (code)
        return code;
    assert_string_equal(seen.body, d->body);
    store_document_clear(&seen);
    return d->fail ? error_set(e, ERR_DENIED, "on second thought") : OK;
}

static enum code delete_document(struct store_tx *tx, void *ctx,
                                 struct error *e)
{
    const struct document *d = ctx;
    return store_document_delete(tx, d->kind, d->name, e);
}

static enum code collect_document(const struct store_document *d, void *ctx,
                                  struct error *e)
{
    (void)e;
    sprintf((char *)ctx + strlen(ctx), "%s=%s/%" PRId64 ";", d->name, d->body,
            d->version);
    return OK;
}

static void documents(void **state)
{
    struct fixture *f = *state;
    struct document b = {.kind = "policy", .name = "b", .body = "1"},
                    a = {.kind = "policy", .name = "a", .body = "2"},
                    other = {.kind = "login", .name = "a", .body = "3"},
                    undone = {
                        .kind = "policy", .name = "a", .body = "x", .fail = 1};
    struct store_document d;
    SUCCEEDS(store_commit(f->s, STORE_NORMAL, put_document, &b, e));
    SUCCEEDS(store_commit(f->s, STORE_NORMAL, put_document, &a, e));
    SUCCEEDS(store_commit(f->s, STORE_NORMAL, put_document, &a, e));
    SUCCEEDS(store_commit(f->s, STORE_NORMAL, put_document, &other, e));
    FAILS(ERR_DENIED,
          store_commit(f->s, STORE_NORMAL, put_document, &undone, e));
    char text[64] = "";
    SUCCEEDS(store_document_each(f->s, "policy", collect_document, text, e));
    assert_string_equal(text, "a=2/2;b=1/1;");
    SUCCEEDS(store_document_get(f->s, "login", "a", &d, e));
    assert_string_equal(d.body, "3");
    assert_int_equal(d.changed_ms, 9);
    store_document_clear(&d);
    SUCCEEDS(store_commit(f->s, STORE_NORMAL, delete_document, &a, e));
    FAILS(ERR_NOT_FOUND,
          store_commit(f->s, STORE_NORMAL, delete_document, &a, e));
    FAILS(ERR_NOT_FOUND, store_document_get(f->s, "policy", "a", &d, e));
    SUCCEEDS(store_document_get(f->s, "login", "a", &d, e));
    store_document_clear(&d);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(meta_keeps_bytes),
        TEST(organisations),
        TEST(roles),
        TEST(journal_answers_its_owner_only),
        TEST(records_have_no_gaps),
        TEST(documents),
    };
    return cmocka_run_group_tests_name("store", tests, NULL, NULL);
}
