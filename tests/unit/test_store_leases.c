/* Leases in the store: what is put in comes out; lists, lanes, and what is counted. */
#include "config.h"

#include "tests/unit/store_fixture.h"

#include <inttypes.h>

#define T(text) ((char *)(uintptr_t)(text))

static void lease_keeps_every_field(void **state)
{
    struct fixture *f = *state;
    struct store_lease in = {.org = f->org,
                             .role = T("r\"'ole"),
                             .owner = T("user:1"),
                             .program = T("prog"),
                             .application = T("abcd"),
                             .session = 7,
                             .state = LEASE_ACTIVE,
                             .bound = true,
                             .reusable = true,
                             .issued_ms = 1,
                             .expires_ms = 2,
                             .max_expires_ms = 3,
                             .provider_expires_ms = 4,
                             .revoked_ms = 5,
                             .project = T("proj_1"),
                             .account_name = T("name"),
                             .account_id = T("sa_1"),
                             .key_id = T("key_1"),
                             .api_base = T("https://eu"),
                             .label = T("label"),
                             .cka_id = (uint8_t *)T("\0id"),
                             .cka_id_len = 3,
                             .sealed = (uint8_t *)T("se\0al"),
                             .sealed_len = 5,
                             .next_try_ms = 6,
                             .tries = 8,
                             .last_error = T("boom"),
                             .request_id = T("req"),
                             .reason = T("why")};
    SUCCEEDS(text_id(in.id, e));
    insert(f, &in);
    struct store_lease out;
    SUCCEEDS(store_lease_get(f->s, in.id, &out, e));
    assert_string_equal(out.id, in.id);
#define SAME_TEXT(name) assert_string_equal(out.name, in.name)
#define SAME_INT(name) assert_int_equal(out.name, in.name)
    SAME_INT(org), SAME_TEXT(role), SAME_TEXT(owner), SAME_TEXT(program);
    SAME_TEXT(application), SAME_INT(session), SAME_INT(state);
    SAME_INT(bound), SAME_INT(reusable), SAME_INT(issued_ms);
    SAME_INT(expires_ms), SAME_INT(max_expires_ms);
    SAME_INT(provider_expires_ms), SAME_INT(revoked_ms), SAME_TEXT(project);
    SAME_TEXT(account_name), SAME_TEXT(account_id), SAME_TEXT(key_id);
    SAME_TEXT(api_base), SAME_TEXT(label), SAME_INT(cka_id_len);
    SAME_INT(sealed_len), SAME_INT(next_try_ms), SAME_INT(tries);
    SAME_TEXT(last_error), SAME_TEXT(request_id), SAME_TEXT(reason);
    assert_memory_equal(out.cka_id, "\0id", 3);
    assert_memory_equal(out.sealed, "se\0al", 5);
    store_lease_clear(&out);
    assert_null(out.role);

    FAILS(ERR_EXISTS, store_commit(f->s, STORE_NORMAL, insert_lease, &in, e));
    FAILS(ERR_NOT_FOUND, store_lease_get(f->s, "nope", &out, e));
    in.org = 99;
    SUCCEEDS(text_id(in.id, e));
    FAILS(ERR_NOT_FOUND,
          store_commit(f->s, STORE_NORMAL, insert_lease, &in, e));
}

struct lease_change {
    struct store_lease *l;
    enum lease_state expect;
};

static enum code update_lease(struct store_tx *tx, void *ctx, struct error *e)
{
    struct lease_change *c = ctx;
    return store_lease_update(tx, c->l, c->expect, e);
}

static void update_needs_the_expected_state(void **state)
{
    struct fixture *f = *state;
    struct store_lease l = some_lease(f->org), out;
    insert(f, &l);
    l.state = LEASE_ACTIVE;
    l.key_id = T("key_9");
    l.sealed = (uint8_t *)T("x");
    l.sealed_len = 1;
    struct lease_change c = {&l, LEASE_PENDING};
    SUCCEEDS(store_commit(f->s, STORE_NORMAL, update_lease, &c, e));
    FAILS(ERR_EXISTS, store_commit(f->s, STORE_NORMAL, update_lease, &c, e));
    SUCCEEDS(store_lease_get(f->s, l.id, &out, e));
    assert_int_equal(out.state, LEASE_ACTIVE);
    assert_string_equal(out.key_id, "key_9");
    assert_string_equal(out.role, "my-app");
    store_lease_clear(&out);
    l.sealed = NULL;
    c.expect = LEASE_ACTIVE;
    SUCCEEDS(store_commit(f->s, STORE_NORMAL, update_lease, &c, e));
    SUCCEEDS(store_lease_get(f->s, l.id, &out, e));
    assert_null(out.sealed);
    store_lease_clear(&out);
}

struct names {
    int n;
    char text[2048];
};

static enum code collect_lease(const struct store_lease *l, void *ctx,
                               struct error *e)
{
    struct names *names = ctx;
    (void)e;
    names->n++;
    strcat(names->text, l->label);
    strcat(names->text, " ");
    return OK;
}

/* label, owner, role, application, session, state, reusable */
static void add_labelled(struct fixture *f, const char *label,
                         const char *owner, const char *role,
                         const char *application, int64_t session,
                         enum lease_state st, bool reusable, char id[32])
{
    struct store_lease l = some_lease(f->org);
    l.label = T(label);
    l.owner = T(owner);
    l.role = T(role);
    l.application = T(application);
    l.session = session;
    l.bound = *application != '\0';
    l.state = st;
    l.reusable = reusable;
    insert(f, &l);
    if (id)
        strcpy(id, l.id);
}

static void lists(struct fixture *f, struct store_lease_query q,
                  const char *expected)
{
    struct names names = {0};
    SUCCEEDS(store_lease_each(f->s, &q, collect_lease, &names, e));
    assert_string_equal(names.text, expected);
}

static void lists_filter_and_page(void **state)
{
    struct fixture *f = *state;
    char id[32];
    add_labelled(f, "a", "u1", "r1", "", 0, LEASE_ACTIVE, false, NULL);
    add_labelled(f, "b", "u1", "r2", "app", 1, LEASE_ACTIVE, false, NULL);
    add_labelled(f, "c", "u2", "r1", "app", 2, LEASE_PENDING, false, NULL);
    add_labelled(f, "d", "u1", "r1", "", 0, LEASE_REVOKED, false, NULL);
    add_labelled(f, "e", "u1", "r1", "", 0, LEASE_REVOKING, true, id);
    add_labelled(f, "f", "u1", "r1", "app", 1, LEASE_REVOKED, false, NULL);
    typedef struct store_lease_query Q;
    lists(f, (Q){.owner = NULL}, "f e d c b a ");
    lists(f, (Q){.live_only = true}, "e c b a ");
    lists(f, (Q){.owner = "u1"}, "f e d b a ");
    lists(f, (Q){.owner = "u1", .live_only = true}, "e b a ");
    lists(f, (Q){.owner = "u1", .role = "r1", .org = f->org}, "f e d a ");
    lists(f, (Q){.role = "r1", .org = f->org, .live_only = true}, "e c a ");
    lists(f, (Q){.org = 99}, "");
    lists(f, (Q){.application = "app"}, "f c b ");
    lists(f, (Q){.application = "app", .live_only = true}, "c b ");
    lists(f, (Q){.application = "app", .session = 1, .live_only = true}, "b ");
    lists(f, (Q){.owner = "u1", .reusable_only = true, .live_only = true},
          "e ");
    lists(f, (Q){.owner = "u1", .limit = 2}, "f e ");
    lists(f, (Q){.owner = "u1", .limit = 2, .before = id}, "d b ");
    lists(f, (Q){.owner = "u1", .live_only = true, .before = id}, "b a ");

    struct store_counts n;
    SUCCEEDS(store_lease_counts(f->s, 0, NULL, &n, e));
    assert_true(n.pending == 1 && n.active == 2 && n.revoking == 1);
    SUCCEEDS(store_lease_counts(f->s, f->org, "r1", &n, e));
    assert_true(n.pending == 1 && n.active == 1 && n.revoking == 1);
    SUCCEEDS(store_lease_counts(f->s, f->org, NULL, &n, e));
    assert_int_equal(n.active, 2);
    SUCCEEDS(store_lease_counts(f->s, 0, "r2", &n, e));
    assert_true(n.pending == 0 && n.active == 1 && n.revoking == 0);
}

static void add_due(struct fixture *f, const char *label, enum lease_state st,
                    int64_t expires_ms, int64_t next_try_ms)
{
    struct store_lease l = some_lease(f->org);
    l.label = T(label);
    l.state = st;
    l.expires_ms = expires_ms;
    l.next_try_ms = next_try_ms;
    insert(f, &l);
}

static void the_next_due_is_found(void **state)
{
    struct fixture *f = *state;
    int64_t due;
    SUCCEEDS(store_lease_next_due(f->s, &due, e));
    assert_true(due == INT64_MAX);
    add_due(f, "active50", LEASE_ACTIVE, 50, 1);
    SUCCEEDS(store_lease_next_due(f->s, &due, e));
    assert_int_equal(due, 50);
    add_due(f, "active20", LEASE_ACTIVE, 20, 1);
    add_due(f, "pending30", LEASE_PENDING, 1, 30);
    add_due(f, "revoking10", LEASE_REVOKING, 1, 10);
    add_due(f, "revoked", LEASE_REVOKED, 1, 1);
    add_due(f, "active70", LEASE_ACTIVE, 70, 1);
    SUCCEEDS(store_lease_next_due(f->s, &due, e));
    assert_int_equal(due, 10);

}

static void add_of(struct fixture *f, const char *project, const char *label,
                   enum lease_state st, int64_t due_ms)
{
    struct store_lease l = some_lease(f->org);
    l.project = T(project);
    l.label = T(label);
    l.state = st;
    l.expires_ms = l.next_try_ms = due_ms;
    insert(f, &l);
}

static enum code collect_lane(const struct store_lane *l, void *ctx,
                              struct error *e)
{
    static const char *const kinds[] = {"expiry", "retry", "proof"};
    char *text = ctx;
    (void)e;
    snprintf(text + strlen(text), 256 - strlen(text), "%s:%s:%d ", l->project,
             kinds[l->kind], (int)l->due_ms);
    return OK;
}

/* However many wait in one, the others are found. */
static void lanes_keep_apart(void **state)
{
    struct fixture *f = *state;
    char lanes[256] = "";
    add_of(f, "b", "b50", LEASE_ACTIVE, 50);
    add_of(f, "a", "a20", LEASE_ACTIVE, 20);
    add_of(f, "a", "a10", LEASE_ACTIVE, 10);
    add_of(f, "a", "a30", LEASE_REVOKING, 30);
    add_of(f, "c", "c5", LEASE_PENDING, 5);
    add_of(f, "c", "dead", LEASE_REVOKED, 1);
    SUCCEEDS(store_lane_each(f->s, collect_lane, lanes, e));
    assert_string_equal(lanes, "a:expiry:10 b:expiry:50 a:retry:30 c:retry:5 ");

    struct names names = {0};
    struct store_lane lane = {.org = f->org, .project = "a"};
    SUCCEEDS(store_lane_due(f->s, &lane, 15, 10, collect_lease, &names, e));
    assert_string_equal(names.text, "a10 ");
    names = (struct names){0};
    SUCCEEDS(store_lane_due(f->s, &lane, 99, 1, collect_lease, &names, e));
    assert_string_equal(names.text, "a10 ");
    names = (struct names){0};
    SUCCEEDS(store_lane_due(f->s, &lane, 99, 0, collect_lease, &names, e));
    assert_string_equal(names.text, "a10 a20 ");
    names = (struct names){0};
    lane.kind = LANE_RETRY;
    SUCCEEDS(store_lane_due(f->s, &lane, 29, 0, collect_lease, &names, e));
    assert_int_equal(names.n, 0);
}

static enum code prune_leases(struct store_tx *tx, void *ctx, struct error *e)
{
    return store_lease_prune(tx, 100, *(int *)ctx, e);
}

static void prune_takes_old_revoked_ones(void **state)
{
    struct fixture *f = *state;
    for (int i = 0; i < 6; i++) {
        struct store_lease l = some_lease(f->org);
        l.label = T(i % 2 ? "live" : "old");
        l.state = i % 2 ? LEASE_REVOKING : LEASE_REVOKED;
        l.revoked_ms = 99;
        insert(f, &l);
    }
    struct store_lease young = some_lease(f->org);
    young.label = T("young");
    young.state = LEASE_REVOKED;
    young.revoked_ms = 100;
    insert(f, &young);
    int limit = 2;
    SUCCEEDS(store_commit(f->s, STORE_NORMAL, prune_leases, &limit, e));
    lists(f, (struct store_lease_query){.owner = NULL},
          "young live old live live ");
    limit = 10;
    SUCCEEDS(store_commit(f->s, STORE_NORMAL, prune_leases, &limit, e));
    lists(f, (struct store_lease_query){.owner = NULL},
          "young live live live ");
}

/* A callback may read on: it gets a connection of its own. */
static enum code read_again(const struct store_lease *l, void *ctx,
                            struct error *e)
{
    struct fixture *f = ctx;
    struct store_lease other;
    enum code code = store_lease_get(f->s, l->id, &other, e);
    if (code == OK)
        store_lease_clear(&other);
    return code;
}

static void reads_nest(void **state)
{
    struct fixture *f = *state;
    for (int i = 0; i < 3; i++)
        add_due(f, "x", LEASE_ACTIVE, i, 0);
    struct store_lease_query q = {.live_only = true};
    SUCCEEDS(store_lease_each(f->s, &q, read_again, f, e));
}

/* ---- usage ---- */

static bool is_pay(int64_t org, const char *role, void *ctx)
{
    return org == *(int64_t *)ctx && strncmp(role, "pay", 3) == 0;
}

struct counted {
    struct store_lease *l;
    struct store_usage_query *q;
    struct store_usage before, after;
};

static enum code count_and_insert(struct store_tx *tx, void *ctx,
                                  struct error *e)
{
    struct counted *c = ctx;
    enum code code = store_tx_usage(tx, c->q, &c->before, e);
    if (code == OK)
        code = store_lease_insert(tx, c->l, e);
    return code ? code : store_tx_usage(tx, c->q, &c->after, e);
}

static void usage_of_one_owner(void **state)
{
    struct fixture *f = *state;
    static const struct {
        const char *owner, *role;
        enum lease_state state;
        int64_t issued_ms, revoked_ms;
    } rows[] = {
        {"user:1", "pay-a", LEASE_ACTIVE, 100, 0},
        {"user:1", "pay-b", LEASE_PENDING, 5000, 0},
        {"user:1", "pay-b", LEASE_REVOKING, 5001, 0},
        {"user:1", "pay-b", LEASE_REVOKED, 5002, 6000},
        {"user:1", "pay-b", LEASE_REVOKED, 100, 200},
        {"user:1", "pay-b", LEASE_REVOKED, 100, 6000}, /* issued long ago */
        {"user:1", "pay-b", LEASE_ACTIVE, 99999, 0},   /* the clock went back */
        {"user:1", "other", LEASE_ACTIVE, 5000, 0},
        {"user:2", "pay-a", LEASE_ACTIVE, 5000, 0},
    };
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct store_lease l = some_lease(f->org);
        l.owner = (char *)(uintptr_t)rows[i].owner;
        l.role = (char *)(uintptr_t)rows[i].role;
        l.state = rows[i].state;
        l.issued_ms = rows[i].issued_ms;
        l.revoked_ms = rows[i].revoked_ms;
        insert(f, &l);
    }
    struct store_usage u;
    struct store_usage_query q = {.owner = "user:1",
                                  .since_ms = 1000,
                                  .now_ms = 7000,
                                  .match = is_pay,
                                  .ctx = &f->org};
    SUCCEEDS(store_usage(f->s, &q, &u, e));
    assert_int_equal(u.live, 4);
    assert_int_equal(u.issued, 3);
    struct store_lease l = some_lease(f->org);
    l.owner = (char *)(uintptr_t) "user:1";
    l.role = (char *)(uintptr_t) "pay-c";
    l.issued_ms = 7000;
    struct counted c = {.l = &l, .q = &q};
    SUCCEEDS(store_commit(f->s, STORE_NORMAL, count_and_insert, &c, e));
    assert_int_equal(c.before.live, 4);
    assert_int_equal(c.after.live, 5);
    assert_int_equal(c.after.issued, 4);
    q.owner = "user:3";
    SUCCEEDS(store_usage(f->s, &q, &u, e));
    assert_int_equal(u.live + u.issued, 0);
}

static void states_have_names(void **state)
{
    (void)state;
    assert_string_equal(lease_state_name(LEASE_PENDING), "pending");
    assert_string_equal(lease_state_name(LEASE_REVOKED), "revoked");
    assert_string_equal(lease_state_name((enum lease_state)9), "unknown");
    store_close(NULL);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(lease_keeps_every_field),
        TEST(update_needs_the_expected_state),
        TEST(lists_filter_and_page),
        TEST(the_next_due_is_found),
        TEST(lanes_keep_apart),
        TEST(prune_takes_old_revoked_ones),
        TEST(reads_nest),
        TEST(usage_of_one_owner),
        TEST(states_have_names),
    };
    return cmocka_run_group_tests_name("store leases", tests, NULL, NULL);
}
