/* Forced audit in one process: its clock, its bounds, its file, an HSM that
 * another instance writes to. */
#include "config.h"

#include "tests/unit/hsm_fixture.h"

#include "common/clock.h"
#include "hsm/ledger.h"
#include "hsm/ledgerfile.h"

#include <fcntl.h>
#include <sys/resource.h>

#define ORIGIN "forced.test"
#define LEDGER CLEANUP(ledger_freep) struct ledger *

static void ledger_freep(struct ledger **l)
{
    ledger_free(*l);
}

/* ---- a clock that is set ---- */

static int64_t boot = 1000000;

static int64_t boot_ms(void *ctx)
{
    (void)ctx;
    return boot;
}

static int64_t wall_ms(void *ctx)
{
    (void)ctx;
    return 1763712000000 + boot;
}

static const struct clock_source set_clock = {wall_ms, boot_ms, boot_ms, NULL};

static struct merkle_hash leaf_of(unsigned n)
{
    struct merkle_hash h;
    must(merkle_leaf(&n, sizeof n, &h, &error));
    return h;
}

static struct ledger *ledger_at(struct fixture *f, const char *name)
{
    static char dirs[2][400]; /* a test has two at most */
    static int turn;
    char *dir = dirs[turn ^= 1];
    struct ledger *l;
    snprintf(dir, sizeof dirs[0], "%s/%s", f->token.dir, name);
    must(ledger_new(&l, f->hsm, dir, 900 * 1000, &error));
    return l;
}

static struct ledger *begun(void **state)
{
    const struct merkle none = {.size = 0};
    char *note;
    (void)provisioned(state);
    clock_replace(&set_clock);
    struct ledger *l = ledger_at(fixture(state), "keeper");
    must(ledger_begin(l, ORIGIN, &none, NULL, &note, &error));
    free(note);
    return l;
}

static enum code remember(struct ledger *l, unsigned n)
{
    struct merkle_hash h = leaf_of(n);
    return ledger_remember(l, ledger_era(l), &h, &error);
}

static enum code sign_with(struct ledger *l, const unsigned *show, size_t n,
                           bool *anchored)
{
    struct merkle_hash leaves[16];
    struct ledger_state s;
    char *note = NULL;
    uint64_t size;
    if (ledger_look(l, &s, &error)) /* a planted anchor is told there, too */
        s.size = 0;
    for (size_t i = 0; i < n; i++)
        leaves[i] = leaf_of(show[i]);
    enum code rc = ledger_extend(l, s.size, leaves, n, &error);
    if (rc == OK)
        rc = ledger_sign(l, false, &note, &size, anchored, &error);
    free(note);
    return rc;
}

static void a_minute_of_boot_time(void **state)
{
    LEDGER l = begun(state);
    const unsigned two[] = {1, 2};
    bool anchored;
    must(remember(l, 1));
    boot += LEDGER_OPEN_MS;
    must(remember(l, 2));
    boot += 1;
    must_fail(ERR_NOT_LOGGED, remember(l, 3));
    assert_non_null(strstr(error.text, "for 60 s"));
    must(sign_with(l, two, 2, &anchored));
    assert_false(anchored);
    must(remember(l, 3));
    /* What is there already when the call is made is never outstanding. */
    const unsigned early[] = {3, 4};
    must(sign_with(l, early, 2, &anchored));
    must(remember(l, 4));
    boot += 10 * LEDGER_OPEN_MS;
    must(remember(l, 5));
    clock_replace(NULL);
}

static void anchors_are_seldom(void **state)
{
    LEDGER l = begun(state);
    bool anchored;
    for (int i = 0; i < 3; i++) {
        boot += 899 * 1000;
        must(sign_with(l, NULL, 0, &anchored));
        assert_int_equal(anchored, i == 1);
        if (i == 0)
            boot += 1000;
        else
            boot -= 899 * 1000;
    }
    clock_replace(NULL);
}

/* A copy of this machine, or another one, with the same HSM. */
static void another_instance_writes(void **state)
{
    LEDGER l = begun(state);
    LEDGER other = ledger_at(fixture(state), "other");
    const struct merkle none = {.size = 0};
    const unsigned one[] = {1};
    bool anchored;
    char *note = NULL;
    struct ledger_state s;
    must_fail(ERR_NOT_LOGGED, remember(other, 1));
    must(ledger_begin(other, ORIGIN, &none, NULL, &note, &error));
    free(note);
    must(ledger_look(other, &s, &error));
    assert_string_equal(s.origin, ORIGIN "/1");
    /* The first notices before it overwrites, and stops. */
    must(remember(l, 1));
    boot += 901 * 1000;
    must_fail(ERR_NOT_LOGGED, sign_with(l, one, 1, &anchored));
    assert_non_null(strstr(error.text, "another instance"));
    must_fail(ERR_NOT_LOGGED, remember(l, 2));
    must(ledger_begin(l, ORIGIN, &none, NULL, &note, &error));
    assert_non_null(strstr(note, ORIGIN "/2\n"));
    free(note);
    must(remember(l, 3));
    clock_replace(NULL);
}

/* Somebody with the PIN puts an anchor of their own there. */
static void a_planted_anchor(void **state)
{
    LEDGER l = begun(state);
    struct fixture *f = fixture(state);
    static const char planted[] =
        "{\"format\":1,\"epoch\":0,\"time_ms\":0,\"note\":\"forced.test\\n9\\n"
        "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\\n\\n\\u2014 forced.test "
        "AAAAAAAAAAA=\\n\"}";
    bool anchored;
    must(hsm_data_put(f->hsm, ANCHOR_LABEL, (const uint8_t *)planted,
                      strlen(planted), &error));
    boot += 901 * 1000;
    must_fail(ERR_SEAL, sign_with(l, NULL, 0, &anchored));
    must_fail(ERR_NOT_LOGGED, remember(l, 1));
    LEDGER next = ledger_at(f, "keeper2");
    must_fail(ERR_SEAL, remember(next, 1));
    clock_replace(NULL);
}

/* What cannot be remembered is not done. */
static void a_file_that_cannot_be_written(void **state)
{
    LEDGER l = begun(state);
    struct rlimit was, none;
    bool anchored;
    const unsigned one[] = {1};
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &was), 0);
    none = (struct rlimit){0, was.rlim_max};
    must(remember(l, 1));
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &none), 0);
    enum code made = remember(l, 2);
    enum code signs = sign_with(l, one, 1, &anchored);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &was), 0);
    assert_int_not_equal(made, OK);
    assert_int_not_equal(signs, OK);
    struct ledger_state s;
    must(ledger_look(l, &s, &error));
    assert_int_equal(s.size, 0);
    assert_int_equal(s.outstanding, 1);
    must(sign_with(l, one, 1, &anchored));
    must(remember(l, 2));
    clock_replace(NULL);
}

/* ---- the file's bytes ---- */

static void a_file_comes_back(void **state)
{
    struct fixture *f = fixture(state);
    char dir[400], path[500];
    struct ledgerfile file = LEDGERFILE_INIT;
    struct ledger_head h = {.origin = "o", .epoch = 3, .lost = 2}, back;
    static struct leaves l, again;
    bool found;
    snprintf(dir, sizeof dir, "%s/file", f->token.dir);
    snprintf(path, sizeof path, "%s/ledger", dir);
    must(ledgerfile_open(&file, dir, &found, &back, &again, &error));
    assert_false(found);
    for (unsigned i = 0; i < 5; i++) {
        struct merkle_hash leaf = leaf_of(i);
        must(merkle_append(&h.tree, &leaf, &error));
    }
    for (unsigned i = 0; i < LEAVES_MAX; i++) {
        struct merkle_hash leaf = leaf_of(i);
        assert_true(leaves_add(&l, &leaf, i));
        if (i == 9)
            must(ledgerfile_write(&file, &h, &l, &error));
        if (i > 9)
            must(ledgerfile_append(&file, &l.list[i], &error));
    }
    ledgerfile_close(&file);
    must(ledgerfile_open(&file, dir, &found, &back, &again, &error));
    assert_true(found);
    assert_memory_equal(&back.tree, &h.tree, sizeof h.tree);
    assert_string_equal(back.origin, "o");
    assert_int_equal(back.epoch, 3);
    assert_int_equal(again.n, LEAVES_MAX);
    for (unsigned i = 0; i < LEAVES_MAX; i++)
        assert_true(merkle_equal(&again.list[i].hash, &l.list[i].hash));
    /* A head that is cut off leaves the one before. */
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    h.epoch = 4;
    l.n = 1;
    must(ledgerfile_write(&file, &h, &l, &error));
    FD raw = open(path, O_RDWR | O_CLOEXEC);
    assert_int_equal(pwrite(raw, "torn", 4, 0), 4);
    ledgerfile_close(&file);
    must(ledgerfile_open(&file, dir, &found, &back, &again, &error));
    assert_true(found);
    assert_int_equal(back.epoch, 3);
    ledgerfile_close(&file);
    struct stat now;
    assert_int_equal(stat(path, &now), 0);
    assert_int_equal(now.st_size, st.st_size);
    /* Both gone: nothing is made up. */
    assert_int_equal(pwrite(raw, "torn", 4, LEDGERFILE_AREA), 4);
    must(ledgerfile_open(&file, dir, &found, &back, &again, &error));
    assert_false(found);
    assert_int_equal(again.n, 0);
    ledgerfile_close(&file);
}

static void the_last_leaves(void **state)
{
    struct recent *r;
    (void)state;
    must(recent_new(&r, &error));
    unsigned n = 3 * LEAVES_RECENT + 17, first = n - LEAVES_RECENT;
    for (unsigned i = 100; i < n; i++) {
        struct merkle_hash h = leaf_of(i);
        recent_add(r, i, &h);
    }
    for (unsigned i = first - 50; i < n; i++) {
        struct merkle_hash h = leaf_of(i);
        uint64_t want = i < first ? UINT64_MAX : i;
        assert_int_equal(recent_find(r, &h), want);
    }
    recent_cut(r, n - 1000);
    for (unsigned i = first; i < n; i += 7) {
        struct merkle_hash h = leaf_of(i);
        uint64_t want = i < n - 1000 ? i : UINT64_MAX;
        assert_int_equal(recent_find(r, &h), want);
    }
    for (unsigned i = n - 1000; i < n + 5000; i++) {
        struct merkle_hash h = leaf_of(i + 1000000);
        recent_add(r, i, &h);
    }
    struct merkle_hash h = leaf_of(n - 500 + 1000000);
    assert_int_equal(recent_find(r, &h), n - 500);
    h = leaf_of(n - 500);
    assert_int_equal(recent_find(r, &h), UINT64_MAX);
    h = leaf_of(n - 1500);
    assert_int_equal(recent_find(r, &h), n - 1500);
    recent_free(r);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        FIXTURE_TEST(a_minute_of_boot_time),
        FIXTURE_TEST(anchors_are_seldom),
        FIXTURE_TEST(another_instance_writes),
        FIXTURE_TEST(a_planted_anchor),
        FIXTURE_TEST(a_file_that_cannot_be_written),
        FIXTURE_TEST(a_file_comes_back),
        cmocka_unit_test(the_last_leaves),
    };
    if (!softhsm_module()) {
        print_message("no SoftHSM2 here\n");
        return 77;
    }
    return cmocka_run_group_tests_name("forced", tests, NULL, NULL);
}
