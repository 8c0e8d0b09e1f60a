/* policies_fixture - a daemon's core in system mode with policies in store and
 * files, and some who ask. */
#ifndef HSMINT_TESTS_POLICIES_FIXTURE_H
#define HSMINT_TESTS_POLICIES_FIXTURE_H

#include "tests/unit/core_fixture.h"

#define UNUSED __attribute__((unused))

struct world {
    struct core_fixture *f;
    char dir[256]; /* policies.d */
};

static struct identity alice_id = {.uid = 1000};
static struct identity bob_id = {.uid = 1001};
static struct identity admin_id = {.uid = 1002};
static struct identity batch_id = {.uid = 1000};
static const struct caller alice UNUSED = {.owner = "user:1000",
                                    .id = &alice_id,
                                    .uid = 1000,
                                    .application = "app-a"};
static const struct caller bob UNUSED = {
    .owner = "user:1001", .id = &bob_id, .uid = 1001, .application = "app-b"};
static const struct caller admin UNUSED = {
    .owner = "user:1002", .id = &admin_id, .uid = 1002};
static const struct caller batch UNUSED = {
    .owner = "login:batch", .id = &batch_id, .uid = 1000};

static inline int policies_set_up(void **state)
{
    struct world *w = calloc(1, sizeof(*w));
    void *fixture = NULL;

    assert_non_null(w);
    snprintf(batch_id.login, sizeof(batch_id.login), "batch");
    assert_int_equal(0, core_set_up(&fixture));
    w->f = fixture;
    make_dir(w->dir, sizeof(w->dir));
    w->f->settings.mode = MODE_SYSTEM;
    w->f->settings.policies_dir = strdup(w->dir);
    SUCCEEDS(core_reload(w->f->core, e));
    *state = w;
    return 0;
}

static inline int policies_tear_down(void **state)
{
    struct world *w = *state;
    void *fixture = w->f;

    remove_dir(w->dir);
    free(w);
    return core_tear_down(&fixture);
}

static inline enum code set_policy(struct world *w, const char *name, const char *json,
                            json_t **warnings, struct error *e)
{
    JSON fields = json_loads(json, 0, NULL);
    JSON out = NULL;
    JSON ignored = NULL;

    assert_non_null(fields);
    return core_policy_set(w->f->core, &admin, name, fields, &out,
                           warnings ? warnings : &ignored, e);
}

static inline void put_file(struct world *w, const char *name, const char *text,
                     mode_t mode)
{
    char path[512];
    FILE *file;

    snprintf(path, sizeof(path), "%s/%s", w->dir, name);
    file = fopen(path, "w");
    assert_non_null(file);
    fputs(text, file);
    fclose(file);
    assert_int_equal(0, chmod(path, mode));
}

static inline void drop_file(struct world *w, const char *name)
{
    char path[512];

    snprintf(path, sizeof(path), "%s/%s", w->dir, name);
    assert_int_equal(0, unlink(path));
}

#define ALLOW(who, what, more)                                                 \
    "{\"subjects\":[\"" who "\"],\"roles\":[\"my-app\"],\"capabilities\":["    \
    "\"" what "\"]" more "}"
#define CALLER(who) ALLOW(who, "caller", "")
#define LIMITS(limits) ",\"limits\":{" limits "}"

static inline enum code mint_ttl(struct world *w, const struct caller *by,
                          int64_t ttl_s, struct minted *m)
{
    return mint_as(w->f, by, &(struct mint_request){.ttl_s = ttl_s}, m);
}

static inline enum code mint_once(struct world *w, const struct caller *by,
                           char text[ERROR_TEXT_MAX])
{
    MINTED m = {.key = NULL};
    enum code code = mint_ttl(w, by, 0, &m);

    snprintf(text, ERROR_TEXT_MAX, "%s", m.error.text);
    return code;
}

struct records {
    const char *kind, *action; /* action NULL: any */
    int n;
    json_t *last;
};

static inline enum code collect(int64_t sequence, const char *line, void *ctx,
                         struct error *e)
{
    struct records *r = ctx;
    json_t *record = json_loads(line, 0, NULL);

    (void)sequence, (void)e;
    assert_non_null(record);
    const char *action = json_string_value(json_object_get(record, "action"));

    if (strcmp(json_string_value(json_object_get(record, "kind")), r->kind) ||
        (r->action && (!action || strcmp(action, r->action)))) {
        json_decref(record);
        return OK;
    }
    r->n++;
    json_decref(r->last);
    r->last = record;
    return OK;
}

/* How many there are; *last is the newest, to be given back. */
static inline int records(struct world *w, const char *kind, const char *action,
                   json_t **last)
{
    struct records r = {.kind = kind, .action = action};

    SUCCEEDS(store_record_each(w->f->store, 0, 0, collect, &r, e));
    if (last)
        *last = json_incref(r.last);
    json_decref(r.last);
    return r.n;
}

static inline const char *text_of(json_t *object, const char *name)
{
    const char *s = json_string_value(json_object_get(object, name));

    return s ? s : "";
}

#define POLICIES_TEST(name)                                                    \
    cmocka_unit_test_setup_teardown(name, policies_set_up, policies_tear_down)

#endif
