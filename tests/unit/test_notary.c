/* The notary over a real store, with a keeper's ledger in the test: checkpoints,
 * what is held back, and stores that are not what was signed last. */
#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "module/core/logbook.h"
#include "module/core/logread.h"
#include "module/core/notary.h"
#include "tests/unit/core_fixture.h"

#include <inttypes.h>

static struct fake_ledger *ledger(struct core_fixture *f)
{
    return &f->fake.ledger;
}

/* What is not atomic is the keeper's threads', too. */
static struct fake_ledger *hold(struct core_fixture *f)
{
    pthread_mutex_lock(&f->fake.lock);
    return &f->fake.ledger;
}

static void let_go(struct core_fixture *f)
{
    pthread_mutex_unlock(&f->fake.lock);
}

static uint64_t tree_size(struct core_fixture *f)
{
    uint64_t size = hold(f)->tree.size;

    let_go(f);
    return size;
}

static uint64_t anchor_size(struct core_fixture *f)
{
    uint64_t size = hold(f)->anchor.size;

    let_go(f);
    return size;
}

static int epoch_of(struct core_fixture *f)
{
    int epoch = hold(f)->epoch;

    let_go(f);
    return epoch;
}

static int count(struct core_fixture *f, const int *of)
{
    (void)hold(f);
    int n = *of;

    let_go(f);
    return n;
}

/* The keeper's file is gone; and the HSM's anchor. */
static void forget(struct core_fixture *f, bool file, bool anchor)
{
    struct fake_ledger *l = hold(f);

    l->begun = false;
    l->known = l->known && !file;
    l->anchored = l->anchored && !anchor;
    let_go(f);
}

static uint64_t size_of(struct core_fixture *f)
{
    struct store_head head;

    SUCCEEDS(store_log_head(f->store, &head, e));
    return head.size;
}

static void sign(struct core_fixture *f)
{
    SUCCEEDS(notary_sign(f->core, false, e));
}

/* Records whose kind is this. */
static size_t records(struct core_fixture *f, const char *kind)
{
    const struct logread_query q = {.kind = kind, .until_ms = INT64_MAX};
    JSON page = NULL;

    SUCCEEDS(core_log_records(f->core, &q, &page, e));
    return json_array_size(json_object_get(page, "lines"));
}

static json_t *head(struct core_fixture *f)
{
    json_t *out = NULL;

    SUCCEEDS(core_log_head(f->core, false, &out, e));
    return out;
}

static bool has_alarm(struct core_fixture *f, enum alarm alarm)
{
    return warnings_has(&f->core->warnings, alarm, "log");
}

/* As a machine that goes back to a snapshot. */
static void copy_dir(const char *from, const char *to)
{
    char command[1200];

    snprintf(command, sizeof(command),
             "rm -rf '%s' && cp -a '%s' '%s'", to, from, to);
    assert_int_equal(system(command), 0);
}

/* ---- checkpoints ---- */

static void checkpoints_come_by_themselves(void **state)
{
    struct core_fixture *f = *state;
    MINTED m = {.key = NULL};
    int before = ledger(f)->checkpoints;
    uint64_t size;

    assert_int_equal(mint(f, &m), OK);
    move_on(f, 11);
    EVENTUALLY(tree_size(f) == size_of(f));
    assert_true(ledger(f)->checkpoints > before);
    /* Nothing new, nothing signed. (Other threads write records, too.) */
    sign(f);
    size = size_of(f);
    before = ledger(f)->checkpoints;
    sign(f);
    assert_true(ledger(f)->checkpoints == before || size_of(f) > size);
}

static void a_head_says_what_is_signed(void **state)
{
    struct core_fixture *f = *state;
    MINTED m = {.key = NULL};
    JSON h = NULL;
    JSON proof = NULL;
    char origin[] = "hsmint/test-instance";

    assert_int_equal(mint(f, &m), OK);
    SUCCEEDS(core_log_head(f->core, true, &h, e));
    assert_string_equal(origin, json_string_value(json_object_get(h, "origin")));
    assert_int_equal(json_integer_value(json_object_get(h, "signed")),
                     size_of(f));
    assert_int_equal(json_array_size(json_object_get(h, "keys")), 1);
    assert_true(json_is_false(json_object_get(h, "rolled_back")));
    SUCCEEDS(core_log_proof(f->core, 3, 0, &proof, e));
    assert_int_equal(json_integer_value(json_object_get(proof, "index")), 2);
    json_freep(&proof);
    FAILS(ERR_NOT_FOUND,
            core_log_proof(f->core, (int64_t)size_of(f) + 1, 0, &proof, e));
    FAILS(ERR_INVALID, core_log_proof(f->core, 0, 0, &proof, e));
    FAILS(ERR_NOT_FOUND, core_log_proof(f->core, 1, 999999, &proof, e));
    FAILS(ERR_INVALID,
            core_log_consistency(f->core, 3, 2, &proof, e));
    SUCCEEDS(core_log_consistency(f->core, 2, (int64_t)size_of(f), &proof, e));
}

static enum code add_many(struct store_tx *tx, void *ctx, struct error *e)
{
    struct core_fixture *f = ctx;
    enum code code = OK;

    for (int i = 0; i < 256 && !code; i++) {
        const struct logbook_entry r = {
            .kind = RECORD_LOGIN_FAILED,
            .more = json_pack("{ss}", "reason", "a test")};

        code = logbook_add(f->core, tx, &r, e);
    }
    return code;
}

static void fill(struct core_fixture *f, int times)
{
    for (int i = 0; i < times; i++)
        SUCCEEDS(store_commit(f->store, STORE_NORMAL, add_many, f, e));
}

static void many_records_do_not_wait(void **state)
{
    struct core_fixture *f = *state;
    uint64_t wanted = size_of(f) + 256;

    fill(f, 1);
    EVENTUALLY(tree_size(f) >= wanted - 1);
}

/* More than one frame holds. */
static void a_long_way_behind(void **state)
{
    struct core_fixture *f = *state;

    /* Under valgrind the double hashes for longer than its deadline. */
    if (getenv("TEST_STRIDE"))
        skip();
    ledger(f)->fails_with = ERR_HSM_FAILED;
    fill(f, 300);
    ledger(f)->fails_with = OK;
    sign(f);
    assert_int_equal(tree_size(f), size_of(f));
    assert_true(size_of(f) > 65536);
}

static void the_last_is_anchored(void **state)
{
    struct core_fixture *f = *state;
    MINTED m = {.key = NULL};
    uint64_t size;

    assert_int_equal(mint(f, &m), OK);
    close_core(f);
    size = tree_size(f);
    assert_int_equal(anchor_size(f), size);
    open_core(f);
    sign(f);
    assert_true(tree_size(f) > size);
    assert_int_equal(epoch_of(f), 0);
    assert_false(notary_rolled_back(f->core, NULL));
    SUCCEEDS(notary_compare(f->core, e));
}

/* ---- what cannot be signed ---- */

static void a_failure_is_told_and_ends(void **state)
{
    struct core_fixture *f = *state;
    MINTED m = {.key = NULL};

    ledger(f)->fails_with = ERR_HSM_FAILED;
    assert_int_equal(mint(f, &m), OK);
    EVENTUALLY((move_on(f, 10), has_alarm(f, ALARM_LOG_UNSIGNED)));
    FAILS(ERR_HSM_FAILED, notary_sign(f->core, false, e));
    assert_int_equal(records(f, "checkpoint-failed"), 1);
    ledger(f)->fails_with = OK;
    sign(f);
    EVENTUALLY(!has_alarm(f, ALARM_LOG_UNSIGNED));
    assert_int_equal(records(f, "forced-stop"), 0);
    minted_clear(&m);
    assert_int_equal(mint(f, &m), OK);
}

static void a_signature_of_another_tree_is_none(void **state)
{
    struct core_fixture *f = *state;
    MINTED m = {.key = NULL};
    JSON before = head(f);
    JSON after = NULL;

    sign(f);
    assert_int_equal(mint(f, &m), OK);
    ledger(f)->lies = true;
    FAILS(ERR_KEEPER, notary_sign(f->core, false, e));
    after = head(f);
    assert_true(json_integer_value(json_object_get(after, "signed")) <
                (json_int_t)tree_size(f));
    (void)before;
}

/* The keeper's bound is never reached: who comes waits, and is told. */
static void calls_stay_below_the_bound(void **state)
{
    struct core_fixture *f = *state;
    uint64_t generation;
    struct error why = {0};
    int entered = 0;

    sign(f);
    ledger(f)->fails_with = ERR_HSM_FAILED;
    fill(f, 1);
    while (entered < 2000 &&
           notary_enter(f->core, &generation, &why) == OK) {
        notary_logged(f->core);
        entered++;
    }
    assert_int_equal(why.code, ERR_NOT_LOGGED);
    assert_true(entered <= NOTARY_CALLS_MAX && entered > 256);
    EVENTUALLY(records(f, "forced-stop") == 1);
    ledger(f)->fails_with = OK;
    sign(f);
    EVENTUALLY(records(f, "forced-end") == 1);
    SUCCEEDS(notary_enter(f->core, &generation, e));
    notary_left(f->core);
}

static void a_hidden_call_stops_all(void **state)
{
    struct core_fixture *f = *state;
    MINTED m = {.key = NULL};
    int made;

    sign(f);
    assert_int_equal(mint(f, &m), OK);
    ledger(f)->hidden = true;
    FAILS(ERR_NOT_LOGGED, notary_sign(f->core, false, e));
    minted_clear(&m);
    made = f->fake.made;
    assert_int_equal(mint(f, &m), ERR_NOT_LOGGED);
    assert_int_equal(f->fake.made, made);
    EVENTUALLY(has_alarm(f, ALARM_LOG_UNSIGNED));
    assert_int_equal(epoch_of(f), 0); /* nothing is given up by itself */
    /* A new daemon begins anew, and says what was lost. */
    close_core(f);
    open_core(f);
    EVENTUALLY(notary_rolled_back(f->core, NULL));
    EVENTUALLY(epoch_of(f) == 1);
    assert_true(count(f, &ledger(f)->lost) > 0);
}

/* ---- another store ---- */

static void go_back(struct core_fixture *f, const char *copy)
{
    close_core(f);
    copy_dir(copy, f->dir);
    open_core(f);
}

static void check_rolled_back(struct core_fixture *f, int epoch)
{
    MINTED m = {.key = NULL};
    struct error why = {0};

    EVENTUALLY(notary_rolled_back(f->core, &why));
    EVENTUALLY(epoch_of(f) == epoch);
    assert_non_null(strstr(why.text, "accept-rollback"));
    assert_true(has_alarm(f, ALARM_LOG_ROLLED_BACK));
    FAILS(ERR_ROLLED_BACK, notary_compare(f->core, e));
    /* Its own leases go on. */
    assert_int_equal(mint(f, &m), OK);
    SUCCEEDS(core_revoke(f->core, &administrator, m.lease.id, "revoked",
                         "01m7yszjambgrr8qt1jnxc9fta", e));
    sign(f);
}

static void a_store_that_went_back(void **state)
{
    struct core_fixture *f = *state;
    MINTED m = {.key = NULL};
    JSON h = NULL;
    char copy[300];

    snprintf(copy, sizeof(copy), "%s.copy", f->dir);
    close_core(f);
    copy_dir(f->dir, copy);
    open_core(f);
    assert_int_equal(mint(f, &m), OK);
    go_back(f, copy);
    check_rolled_back(f, 1);
    assert_int_equal(records(f, "rollback"), 1);
    h = head(f);
    assert_string_equal("hsmint/test-instance/1",
                        json_string_value(json_object_get(h, "origin")));
    assert_true(json_is_true(json_object_get(h, "rolled_back")));
    /* A restart does not forget it, and tells it once. */
    close_core(f);
    open_core(f);
    sign(f);
    assert_true(notary_rolled_back(f->core, NULL));
    assert_int_equal(records(f, "rollback"), 1);
    FAILS(ERR_INVALID,
            core_accept_rollback(f->core, &administrator, "", e));
    SUCCEEDS(core_accept_rollback(f->core, &administrator, "a rehearsal", e));
    assert_false(notary_rolled_back(f->core, NULL));
    assert_false(has_alarm(f, ALARM_LOG_ROLLED_BACK));
    assert_int_equal(records(f, "rollback-accepted"), 1);
    SUCCEEDS(notary_compare(f->core, e));
    FAILS(ERR_NOT_FOUND,
            core_accept_rollback(f->core, &administrator, "again", e));
    /* And once more is another epoch. */
    minted_clear(&m);
    go_back(f, copy);
    check_rolled_back(f, 2);
    remove_dir(copy);
}

/* Two stores that were one: each of them is told from the other's anchor. */
static void a_clone_that_went_on(void **state)
{
    struct core_fixture *f = *state;
    MINTED m = {.key = NULL};
    MINTED n = {.key = NULL};
    char copy[300];

    snprintf(copy, sizeof(copy), "%s.clone", f->dir);
    close_core(f);
    copy_dir(f->dir, copy);
    open_core(f);
    assert_int_equal(mint(f, &m), OK);
    close_core(f);
    /* The other has more records than the anchor, and other ones. */
    copy_dir(copy, f->dir);
    forget(f, true, true); /* its keeper is another */
    open_core(f);
    for (int i = 0; i < 3; i++) {
        assert_int_equal(mint(f, &n), OK);
        minted_clear(&n);
    }
    EVENTUALLY(notary_rolled_back(f->core, NULL)); /* nobody knew its log */
    remove_dir(copy);
}

static void a_keeper_that_forgot(void **state)
{
    struct core_fixture *f = *state;
    MINTED m = {.key = NULL};

    close_core(f);
    forget(f, true, false);
    open_core(f);
    assert_int_equal(mint(f, &m), OK);
    sign(f);
    assert_int_equal(count(f, &ledger(f)->resumed), 1);
    assert_int_equal(epoch_of(f), 0);
    assert_false(notary_rolled_back(f->core, NULL));
}

static void an_anchor_that_is_gone(void **state)
{
    struct core_fixture *f = *state;

    close_core(f);
    forget(f, false, true);
    open_core(f);
    check_rolled_back(f, 1);
}

/* While it runs: the HSM was put back, or another daemon wrote its anchor. */
static void an_anchor_of_somebody_else(void **state)
{
    struct core_fixture *f = *state;

    sign(f);
    hold(f)->anchor.size = 10;
    ledger(f)->anchor.root.bytes[0] ^= 1;
    let_go(f);
    FAILS(ERR_ROLLED_BACK, notary_compare(f->core, e));
    check_rolled_back(f, 1);
}

/* ---- what was exported may go ---- */

static void only_what_was_exported_is_pruned(void **state)
{
    struct core_fixture *f = *state;
    const struct logread_query all = {.limit = 1, .until_ms = INT64_MAX};
    JSON page = NULL;
    JSON h = NULL;
    int64_t pruned = 0;

    fill(f, 3);
    FAILS(ERR_INVALID,
            core_log_exported(f->core, &administrator, 99999, NULL, e));
    SUCCEEDS(core_log_head(f->core, true, &h, e));
    FAILS(ERR_INVALID,
            core_log_prune(f->core, &administrator, 512, NULL, &pruned, e));
    SUCCEEDS(core_log_exported(f->core, &administrator, 600, NULL, e));
    SUCCEEDS(core_log_exported(f->core, &administrator, 500, NULL, e));
    assert_int_equal(records(f, "export"), 1);
    FAILS(ERR_INVALID,
            core_log_prune(f->core, &administrator, 601, NULL, &pruned, e));
    /* No further than the anchor, which is of the log's beginning yet: without
     * another nothing goes. */
    ledger(f)->fails_with = ERR_HSM_FAILED;
    FAILS(ERR_HSM_FAILED,
          core_log_prune(f->core, &administrator, 600, NULL, &pruned, e));
    assert_int_equal(pruned, 0);
    ledger(f)->fails_with = OK;
    SUCCEEDS(core_log_prune(f->core, &administrator, 600, NULL, &pruned, e));
    assert_int_equal(pruned, 512);
    assert_int_equal(records(f, "prune"), 1);
    SUCCEEDS(core_log_records(f->core, &all, &page, e));
    assert_non_null(strstr(json_string_value(json_array_get(
                               json_object_get(page, "lines"), 0)),
                           "\"seq\":513,"));
    /* The tree goes on. */
    sign(f);
    SUCCEEDS(notary_compare(f->core, e));
    close_core(f);
    open_core(f);
    sign(f);
    assert_int_equal(epoch_of(f), 0);
}

#define TEST(name)                                                             \
    cmocka_unit_test_setup_teardown(name, core_set_up, core_tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(checkpoints_come_by_themselves),
        TEST(a_head_says_what_is_signed),
        TEST(many_records_do_not_wait),
        TEST(a_long_way_behind),
        TEST(the_last_is_anchored),
        TEST(a_failure_is_told_and_ends),
        TEST(a_signature_of_another_tree_is_none),
        TEST(calls_stay_below_the_bound),
        TEST(a_hidden_call_stops_all),
        TEST(a_store_that_went_back),
        TEST(a_clone_that_went_on),
        TEST(a_keeper_that_forgot),
        TEST(an_anchor_that_is_gone),
        TEST(an_anchor_of_somebody_else),
        TEST(only_what_was_exported_is_pruned),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
