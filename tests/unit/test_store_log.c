/* The log in the store: numbers without gaps, each record after the one that
 * its own transaction saw before it, and a tree that is theirs; whatever is
 * undone, fails or goes. Lines here are the hash of the record before. */
#include "config.h"

#include "module/store/state.h"
#include "tests/unit/store_fixture.h"

#include <errno.h>
#include <openssl/evp.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/syscall.h>
#include <time.h>

/* ---- a disk that does not sync ---- */

static atomic_int syncs_fail; /* how many more */
static atomic_int syncs_failed;

static int sync_one(int fd)
{
    if (atomic_load(&syncs_fail) > 0) {
        atomic_fetch_sub(&syncs_fail, 1);
        atomic_fetch_add(&syncs_failed, 1);
        errno = EIO;
        return -1;
    }
    return (int)syscall(SYS_fdatasync, fd);
}

/* In the place of the C library's, for SQLite. */
__attribute__((visibility("default"))) int fsync(int fd)
{
    return sync_one(fd);
}

__attribute__((visibility("default"))) int fdatasync(int fd)
{
    return sync_one(fd);
}

/* ---- records ---- */

struct adds {
    int n;     /* records */
    bool fail; /* and then gives up */
    long wait_ms;
};

static enum code add_one(struct store_tx *tx, struct error *e)
{
    struct store_head head;
    char line[2 * MERKLE_HASH + 1];
    int64_t sequence;
    enum code code = store_record_head(tx, &head, e);
    if (code)
        return code;
    text_hex(line, head.last.bytes, MERKLE_HASH);
    code = store_record_add(tx, line, &sequence, e);
    if (code == OK)
        assert_int_equal(sequence, head.size + 1);
    return code;
}

static enum code add_some(struct store_tx *tx, void *ctx, struct error *e)
{
    const struct adds *a = ctx;
    const struct timespec t = {a->wait_ms / 1000,
                               a->wait_ms % 1000 * 1000000};
    enum code code = OK;
    for (int i = 0; i < a->n && code == OK; i++)
        code = add_one(tx, e);
    (void)nanosleep(&t, NULL);
    return code == OK && a->fail ? error_set(e, ERR_DENIED, "it gives up")
                                 : code;
}

static void add(struct fixture *f, int n)
{
    struct adds a = {.n = n};
    SUCCEEDS(store_commit(f->s, STORE_NORMAL, add_some, &a, e));
}

struct reading {
    struct merkle tree;
    struct merkle_hash last;
};

static enum code read_one(int64_t sequence, const char *line, void *ctx,
                          struct error *e)
{
    struct reading *r = ctx;
    char prev[2 * MERKLE_HASH + 1];
    assert_int_equal(sequence, r->tree.size + 1);
    text_hex(prev, r->last.bytes, MERKLE_HASH);
    assert_string_equal(line, prev);
    enum code code = merkle_leaf(line, strlen(line), &r->last, e);
    return code ? code : merkle_append(&r->tree, &r->last, e);
}

/* The store's tree of these sizes, computed from what it keeps. */
static void same_root(struct fixture *f, const struct merkle *tree)
{
    struct merkle loaded;
    struct merkle_hash ours, theirs;
    SUCCEEDS(merkle_load(&loaded, tree->size, store_tree_read, f->s, e));
    SUCCEEDS(merkle_root(&loaded, &theirs, e));
    SUCCEEDS(merkle_root(tree, &ours, e));
    assert_memory_equal(ours.bytes, theirs.bytes, MERKLE_HASH);
}

static uint64_t check_log(struct fixture *f)
{
    struct reading r = {.tree.size = 0};
    struct store_head head;
    SUCCEEDS(store_record_each(f->s, 0, 0, read_one, &r, e));
    SUCCEEDS(store_log_head(f->s, &head, e));
    assert_int_equal(head.size, r.tree.size);
    assert_memory_equal(head.last.bytes, r.last.bytes, MERKLE_HASH);
    same_root(f, &r.tree);
    return r.tree.size;
}

/* ---- the tree ---- */

static enum code keep_leaf(int64_t sequence, const char *line, void *ctx,
                           struct error *e)
{
    struct merkle_hash *leaves = ctx;
    return merkle_leaf(line, strlen(line), &leaves[sequence - 1], e);
}

static void proofs_hold(struct fixture *f, const struct merkle_hash *leaves,
                        const struct merkle *tree, uint64_t from,
                        const struct merkle_hash *old)
{
    static struct merkle_proof p;
    struct merkle_hash root;
    SUCCEEDS(merkle_root(tree, &root, e));
    SUCCEEDS(merkle_prove_inclusion(&p, from, tree->size, store_tree_read, f->s,
                                    e));
    SUCCEEDS(merkle_check_inclusion(&p, from, tree->size, &leaves[from], &root,
                                    e));
    SUCCEEDS(merkle_prove_consistency(&p, from, tree->size, store_tree_read,
                                      f->s, e));
    SUCCEEDS(merkle_check_consistency(&p, from, tree->size, old, &root, e));
}

static void tree_is_of_the_records(void **state)
{
    enum { N = 65536 + 300, OLD = 1000 };
    struct fixture *f = *state;
    struct merkle tree = {.size = 0};
    struct merkle_hash old = {.bytes = {0}};
    struct merkle_hash *leaves = calloc(N + 1, sizeof(*leaves));
    assert_non_null(leaves);
    add(f, N);
    SUCCEEDS(store_record_each(f->s, 0, 0, keep_leaf, leaves, e));
    for (uint64_t i = 0; i < N; i++) {
        SUCCEEDS(merkle_append(&tree, &leaves[i], e));
        if (tree.size == OLD)
            SUCCEEDS(merkle_root(&tree, &old, e));
        if (i < 600 || i % 4099 == 0 || i >= 65530)
            same_root(f, &tree);
    }
    proofs_hold(f, leaves, &tree, OLD, &old);
    size_t got;
    SUCCEEDS(store_tree_leaves(f->s, N - 10, leaves, 20, &got, e));
    assert_int_equal(got, 10);
    SUCCEEDS(store_tree_leaves(f->s, N, leaves, 20, &got, e));
    assert_int_equal(got, 0);
    FAILS(ERR_NOT_FOUND, merkle_load(&tree, N + 1, store_tree_read, f->s, e));
    free(leaves);
}

/* ---- what is undone ---- */

/* Also at the record that completes a tile, and with it the first node. */
static void a_member_that_gives_up_leaves_nothing(void **state)
{
    struct fixture *f = *state;
    add(f, 254);
    for (int i = 0; i < 4; i++) {
        struct adds gives_up = {.n = 3, .fail = true};
        FAILS(ERR_DENIED,
              store_commit(f->s, STORE_NORMAL, add_some, &gives_up, e));
        assert_int_equal(check_log(f), 254 + i);
        add(f, 1);
    }
    assert_int_equal(check_log(f), 258);
}

static uint64_t commits(struct fixture *f)
{
    struct histogram_reading r;
    histogram_read(store_commit_sizes(f->s), &histogram_numbers, &r);
    return r.cumulative[histogram_numbers.n];
}

struct worker {
    struct fixture *f;
    struct adds adds;
    enum code expected;
};

static void *commit_one(void *arg)
{
    struct worker *w = arg;
    struct error e = {.code = OK};
    assert_int_equal(store_commit(w->f->s, STORE_NORMAL, add_some, &w->adds, &e),
                     w->expected);
    return NULL;
}

/* While the first has the writer, the others gather to one transaction. */
static void members_of_one_commit_have_numbers_of_their_own(void **state)
{
    enum { N = 24 };
    struct fixture *f = *state;
    struct worker w[N];
    pthread_t threads[N];
    uint64_t before;
    int kept = 0;
    add(f, 240);
    before = commits(f);
    for (int i = 0; i < N; i++) {
        bool fail = i % 3 == 1;
        w[i] = (struct worker){.f = f,
                               .adds = {.n = i % 4 + 1,
                                        .fail = fail,
                                        .wait_ms = i == 0 ? 200 : 0},
                               .expected = fail ? ERR_DENIED : OK};
        kept += fail ? 0 : w[i].adds.n;
        assert_int_equal(pthread_create(&threads[i], NULL, commit_one, &w[i]),
                         0);
        const struct timespec first = {0, 50000000};
        if (i == 0)
            (void)nanosleep(&first, NULL);
    }
    for (int i = 0; i < N; i++)
        pthread_join(threads[i], NULL);
    assert_in_range(commits(f) - before,
                    1, N - 1); /* some were together */
    assert_int_equal(check_log(f), 240 + kept);
}

static void a_sync_that_fails_leaves_nothing(void **state)
{
    struct fixture *f = *state;
    add(f, 255);
    for (int i = 0; i < 3; i++) {
        struct adds two = {.n = 2};
        struct error why = {.code = OK};
        int failed = atomic_load(&syncs_failed);
        atomic_store(&syncs_fail, 1);
        enum code code =
            store_commit(f->s, STORE_NORMAL, add_some, &two, &why);
        atomic_store(&syncs_fail, 0);
        assert_int_equal(atomic_load(&syncs_failed), failed + 1);
        assert_int_equal(code, ERR_IO);
        assert_int_equal(check_log(f), 255 + i);
        add(f, 1);
    }
    assert_int_equal(check_log(f), 258);
    close_store(f);
    open_store(f, 0);
    assert_int_equal(check_log(f), 258);
}

/* ---- what goes ---- */

static enum code prune(struct store_tx *tx, void *ctx, struct error *e)
{
    uint64_t *before = ctx;
    return store_record_prune(tx, *before, 2, before, e);
}

static uint64_t pruned(struct fixture *f, uint64_t before)
{
    SUCCEEDS(store_commit(f->s, STORE_NORMAL, prune, &before, e));
    return before;
}

static enum code first_of(int64_t sequence, const char *line, void *ctx,
                          struct error *e)
{
    (void)line, (void)e;
    *(int64_t *)ctx = sequence;
    return OK;
}

static void whole_tiles_go_and_the_tree_stays(void **state)
{
    struct fixture *f = *state;
    struct reading r = {.tree.size = 0};
    struct merkle_hash leaf;
    int64_t first = 0;
    size_t got;
    add(f, 1024);
    SUCCEEDS(store_record_each(f->s, 0, 0, read_one, &r, e));
    assert_int_equal(pruned(f, 255), 0);
    assert_int_equal(pruned(f, 511), 256);
    assert_int_equal(pruned(f, 511), 0);
    same_root(f, &r.tree);
    SUCCEEDS(store_record_each(f->s, 0, 1, first_of, &first, e));
    assert_int_equal(first, 257);
    FAILS(ERR_NOT_FOUND, store_tree_leaves(f->s, 0, &leaf, 1, &got, e));
    FAILS(ERR_NOT_FOUND, store_tree_read(f->s, 0, 255, &leaf, e));
    SUCCEEDS(store_tree_read(f->s, 8, 0, &leaf, e));
    /* All but the tile of the last record, whose hash the next one needs. */
    assert_int_equal(pruned(f, 5000), 512);
    assert_int_equal(pruned(f, 5000), 0);
    same_root(f, &r.tree);
    add(f, 1);
    struct store_head head;
    SUCCEEDS(store_log_head(f->s, &head, e));
    assert_int_equal(head.size, 1025);
}

/* ---- logs of version 1 ---- */

static void the_first_log_is_kept_apart(void **state)
{
    struct fixture *f = *state;
    char path[512];
    struct conn *c;
    uint8_t sum[32], again[32];
    int64_t n = -1;
    SUCCEEDS(store_old_records(f->s, &n, sum, e));
    assert_int_equal(n, 0);
    close_store(f);
    remove_dir(f->dir);
    assert_int_equal(mkdir(f->dir, 0700), 0);
    snprintf(path, sizeof(path), "%s/store.db", f->dir);
    FD made = open(path, O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
    assert_true(made >= 0);
    SUCCEEDS(conn_open(&c, path, CONN_WRITER, e));
    SUCCEEDS(schema_apply(c, f->dir, schema_steps, 2, e));
    SUCCEEDS(conn_exec(c,
                       "INSERT INTO record(line) VALUES('{\"v\":1}');"
                       "INSERT INTO record(line) VALUES('{\"v\":1,\"a\":2}');",
                       e));
    conn_close(c);
    open_store(f, 0);
    SUCCEEDS(store_old_records(f->s, &n, sum, e));
    assert_int_equal(n, 2);
    static const char both[] = "{\"v\":1}\n{\"v\":1,\"a\":2}\n";
    unsigned len = 0;
    assert_int_equal(
        EVP_Digest(both, strlen(both), again, &len, EVP_sha256(), NULL), 1);
    assert_memory_equal(sum, again, 32);
    assert_int_equal(check_log(f), 0); /* the new one begins with 1 */
    add(f, 300);
    assert_int_equal(check_log(f), 300);
    SUCCEEDS(store_old_records(f->s, &n, sum, e));
    assert_int_equal(n, 2);
    assert_memory_equal(sum, again, 32);
}

/* ---- checkpoints, keys ---- */

static enum code put_checkpoint(struct store_tx *tx, void *ctx,
                                struct error *e)
{
    const uint64_t *size = ctx;
    char note[32];
    snprintf(note, sizeof(note), "note of %d", (int)*size);
    return store_checkpoint_put(tx, *size, note, 1000 + (int64_t)*size, e);
}

static enum code count_checkpoint(const struct store_checkpoint *k, void *ctx,
                                  struct error *e)
{
    (void)e;
    assert_non_null(strstr(k->note, "note of "));
    *(uint64_t *)ctx = *(uint64_t *)ctx * 100 + k->size;
    return OK;
}

static void checkpoints_are_found_by_size(void **state)
{
    struct fixture *f = *state;
    CLEANUP(store_checkpoint_clear) struct store_checkpoint k = {.note = NULL};
    uint64_t seen = 0;
    FAILS(ERR_NOT_FOUND, store_checkpoint_get(f->s, UINT64_MAX, &k, e));
    for (uint64_t size = 3; size <= 9; size += 3)
        SUCCEEDS(store_commit(f->s, STORE_NORMAL, put_checkpoint, &size, e));
    SUCCEEDS(store_checkpoint_get(f->s, 8, &k, e));
    assert_int_equal(k.size, 6);
    assert_string_equal(k.note, "note of 6");
    assert_int_equal(k.time_ms, 1006);
    store_checkpoint_clear(&k);
    FAILS(ERR_NOT_FOUND, store_checkpoint_get(f->s, 2, &k, e));
    SUCCEEDS(store_checkpoint_each(f->s, 4, 0, count_checkpoint, &seen, e));
    assert_int_equal(seen, 609);
}

/* One is made every few seconds for years. */
static void checkpoints_go_with_their_records(void **state)
{
    struct fixture *f = *state;
    uint64_t seen = 0;
    add(f, 600);
    for (uint64_t size = 10; size <= 70; size += 60)
        SUCCEEDS(store_commit(f->s, STORE_NORMAL, put_checkpoint, &size, e));
    for (uint64_t size = 255; size <= 257; size++)
        SUCCEEDS(store_commit(f->s, STORE_NORMAL, put_checkpoint, &size, e));
    assert_int_equal(pruned(f, 255), 0);
    SUCCEEDS(store_checkpoint_each(f->s, 0, 2, count_checkpoint, &seen, e));
    assert_int_equal(seen, 1070);
    assert_int_equal(pruned(f, 256), 256);
    seen = 0;
    SUCCEEDS(store_checkpoint_each(f->s, 0, 0, count_checkpoint, &seen, e));
    assert_int_equal(seen, 256 * 100 + 257);
}

struct minted {
    uint8_t hmac[STORE_KEY_HMAC];
    char lease[32];
};

static enum code put_key(struct store_tx *tx, void *ctx, struct error *e)
{
    const struct minted *m = ctx;
    enum code code = add_one(tx, e);
    return code ? code : store_key_put(tx, m->hmac, m->lease, e);
}

static void keys_are_found_by_their_hash(void **state)
{
    struct fixture *f = *state;
    struct store_key k;
    for (int i = 1; i <= 500; i++) {
        struct minted m = {.hmac = {(uint8_t)i, (uint8_t)(i >> 8)}};
        snprintf(m.lease, sizeof(m.lease), "lease-%d", i);
        SUCCEEDS(store_commit(f->s, STORE_NORMAL, put_key, &m, e));
    }
    const uint8_t wanted[STORE_KEY_HMAC] = {300 & 255, 300 >> 8};
    const uint8_t none[STORE_KEY_HMAC] = {300 & 255, 300 >> 8, 1};
    SUCCEEDS(store_key_find(f->s, wanted, &k, e));
    assert_int_equal(k.record, 300);
    assert_string_equal(k.lease, "lease-300");
    FAILS(ERR_NOT_FOUND, store_key_find(f->s, none, &k, e));
    (void)pruned(f, 256); /* the record goes, whose it was stays */
    const uint8_t gone[STORE_KEY_HMAC] = {7};
    SUCCEEDS(store_key_find(f->s, gone, &k, e));
    assert_string_equal(k.lease, "lease-7");
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(tree_is_of_the_records),
        TEST(a_member_that_gives_up_leaves_nothing),
        TEST(members_of_one_commit_have_numbers_of_their_own),
        TEST(a_sync_that_fails_leaves_nothing),
        TEST(whole_tiles_go_and_the_tree_stays),
        TEST(the_first_log_is_kept_apart),
        TEST(checkpoints_are_found_by_size),
        TEST(checkpoints_go_with_their_records),
        TEST(keys_are_found_by_their_hash),
    };
    return cmocka_run_group_tests_name("store: log", tests, NULL, NULL);
}
