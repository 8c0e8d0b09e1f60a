/* Copies of the log: those that hold, and each way in which one does not. */
#include "config.h"

#include "audit_fixture.h"

#include "module/audit/proof.h"
#include "module/audit/tile.h"
#include "module/audit/tree.h"

#include <ftw.h>
#include <unistd.h>

static char place[] = "/tmp/hsmint-audit-XXXXXX";
static char path[256];

static int remove_one(const char *p, const struct stat *st, int type,
                      struct FTW *ftw)
{
    (void)st, (void)type, (void)ftw;
    return remove(p);
}

static int make_place(void **state)
{
    (void)state;
    strcpy(place, "/tmp/hsmint-audit-XXXXXX");
    if (!mkdtemp(place))
        return -1;
    snprintf(path, sizeof path, "%s/log", place);
    return 0;
}

static int remove_place(void **state)
{
    (void)state;
    return nftw(place, remove_one, 16, FTW_DEPTH | FTW_PHYS);
}

/* ---- what holds ---- */

static void whole_logs_hold(void **state)
{
    (void)state;
    static const size_t sizes[] = {2, 3, 255, 256, 257, 511, 512, 700};
    struct fake_log l;
    struct note_key key;
    fake_log_new(&l);
    fake_log_key(&l, &key);
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        struct verdict v;
        size_t len;
        char file[300];
        fake_log_grow(&l, sizes[i]);
        FREE char *text = fake_log_text(&l, &len);
        snprintf(file, sizeof file, "%s/lines", place);
        write_file(file, text, len);
        fake_log_export(&l, path); /* goes on from the last size */
        const char *const copies[] = {file, path};
        for (size_t j = 0; j < 2; j++) {
            verdict_of(copies[j], j ? &key : NULL, NULL, NULL, &v);
            if (v.result.faults)
                fail_msg("%s, %zu records: %s %lld: %s", copies[j], sizes[i],
                         verify_what_name(v.first.what),
                         (long long)v.first.seq, v.first.text);
            assert_int_equal(v.result.records, sizes[i]);
            assert_int_equal(v.result.checkpoint.size, sizes[i]);
            assert_int_equal(v.result.keys_given, j);
        }
    }
    fake_log_clear(&l);
}

static void calls_under_way_are_no_fault(void **state)
{
    (void)state;
    struct fake_log l;
    struct verdict v;
    fake_log_new(&l);
    fake_log_call(&l, "open");
    fake_log_export(&l, path);
    verdict_of(path, NULL, NULL, NULL, &v);
    assert_int_equal(v.result.faults, 0);
    assert_int_equal(v.result.open_calls, 1);
    fake_log_clear(&l);
}

/* ---- a text of lines that somebody changed ---- */

struct text {
    char *lines[64];
    size_t n;
    char *note;
};

static void take_out(struct text *t, size_t at)
{
    for (size_t i = at; i + 1 < t->n; i++)
        t->lines[i] = t->lines[i + 1];
    t->n--;
}

static void put_in(struct text *t, size_t at, char *line)
{
    for (size_t i = t->n++; i > at; i--)
        t->lines[i] = t->lines[i - 1];
    t->lines[at] = line;
}

static void text_of(const struct fake_log *l, struct text *t)
{
    t->n = l->n;
    for (size_t i = 0; i < l->n; i++)
        t->lines[i] = l->lines[i];
    t->note = fake_log_checkpoint(l);
}

static void verdict_of_text(struct text *t, struct verdict *v)
{
    FILE *f = fopen(path, "w");
    for (size_t i = 0; i < t->n; i++)
        fprintf(f, "%s\n", t->lines[i]);
    fprintf(f, "\n%s", t->note);
    assert_int_equal(fclose(f), 0);
    free(t->note);
    verdict_of(path, NULL, NULL, NULL, v);
}

static void expect(const struct verdict *v, enum verify_what what, int64_t seq)
{
    if (v->first.what != what || v->first.seq != seq ||
        v->result.faults == 0)
        fail_msg("%s %lld: %s", verify_what_name(v->first.what),
                 (long long)v->first.seq, v->first.text);
}

static void records_that_were_moved(void **state)
{
    (void)state;
    struct fake_log l;
    struct text t;
    struct verdict v;
    char *kept;
    fake_log_new(&l);
    fake_log_grow(&l, 12);

    text_of(&l, &t); /* dropped */
    take_out(&t, 5);
    verdict_of_text(&t, &v);
    expect(&v, VERIFY_MISSING, 6);

    text_of(&l, &t); /* doubled */
    put_in(&t, 5, t.lines[5]);
    verdict_of_text(&t, &v);
    expect(&v, VERIFY_INSERTED, 6);

    text_of(&l, &t); /* swapped */
    kept = t.lines[7];
    t.lines[7] = t.lines[8];
    t.lines[8] = kept;
    verdict_of_text(&t, &v);
    expect(&v, VERIFY_MISSING, 8);
    assert_true(v.faults[VERIFY_INSERTED] > 0);

    text_of(&l, &t); /* the end is cut */
    t.n -= 3;
    verdict_of_text(&t, &v);
    expect(&v, VERIFY_CUT, 10);

    text_of(&l, &t); /* one more behind the checkpoint */
    t.lines[t.n++] = t.lines[0];
    verdict_of_text(&t, &v);
    expect(&v, VERIFY_INSERTED, 1);
    fake_log_clear(&l);
}

/* A record put in between, by somebody who can do all but sign. */
static void an_inserted_record(void **state)
{
    (void)state;
    struct fake_log l, forged;
    struct text t;
    struct verdict v;
    fake_log_new(&l);
    fake_log_grow(&l, 6);
    forged = l;
    forged.lines = NULL;
    forged.n = forged.cap = 0;
    forged.tree = (struct merkle){.size = 0};
    forged.last = (struct merkle_hash){.bytes = {0}};
    for (size_t i = 0; i < 4; i++)
        fake_log_take(&forged, strdup(l.lines[i]));
    fake_log_add(&forged, "policy", json_pack("{ss}", "name", "mine"));
    text_of(&l, &t);
    put_in(&t, 4, forged.lines[4]);
    verdict_of_text(&t, &v);
    expect(&v, VERIFY_INSERTED, 5);
    for (size_t i = 0; i < forged.n; i++)
        free(forged.lines[i]);
    free(forged.lines);
    fake_log_clear(&l);
}

static void calls_and_outcomes(void **state)
{
    (void)state;
    struct fake_log l;
    struct verdict v;
    fake_log_new(&l);
    fake_log_outcome(&l, "never-begun");
    fake_log_export(&l, path);
    verdict_of(path, NULL, NULL, NULL, &v);
    expect(&v, VERIFY_ORPHAN, 3);
    fake_log_clear(&l);

    /* Signed by a key that no record introduced as this one. */
    fake_log_new(&l);
    EVP_PKEY_free(l.call_key);
    l.call_key = EVP_EC_gen("P-256");
    fake_log_call(&l, "forged");
    char other[300];
    snprintf(other, sizeof other, "%s/other", place);
    fake_log_export(&l, other);
    verdict_of(other, NULL, NULL, NULL, &v);
    expect(&v, VERIFY_SIGNATURE, 3);
    fake_log_clear(&l);
}

/* ---- checkpoints ---- */

static void verdict_with_note(struct fake_log *l, char *note, struct verdict *v)
{
    struct text t;
    text_of(l, &t);
    free(t.note);
    t.note = note;
    verdict_of_text(&t, v);
}

static void checkpoints_of_others(void **state)
{
    (void)state;
    struct fake_log l;
    struct verdict v;
    struct checkpoint c = {.origin = ORIGIN};
    EVP_PKEY *stranger = EVP_EC_gen("P-256");
    fake_log_new(&l);
    fake_log_grow(&l, 9);
    c.size = 9;
    assert_int_equal(merkle_root(&l.tree, &c.root, NULL), OK);

    verdict_with_note(&l, sign_checkpoint(stranger, &c), &v); /* another key */
    expect(&v, VERIFY_CHECKPOINT, 0);

    strcpy(c.origin, "hsmint/other"); /* another log, our key */
    verdict_with_note(&l, sign_checkpoint(l.log_key, &c), &v);
    expect(&v, VERIFY_CHECKPOINT, 0);

    strcpy(c.origin, ORIGIN); /* a smaller tree */
    c.size = 8;
    verdict_with_note(&l, sign_checkpoint(l.log_key, &c), &v);
    expect(&v, VERIFY_INSERTED, 9);

    c.size = 9;
    c.root.bytes[7] ^= 1; /* other records */
    verdict_with_note(&l, sign_checkpoint(l.log_key, &c), &v);
    expect(&v, VERIFY_ROOT, 9);

    verdict_with_note(&l, strdup(""), &v);
    expect(&v, VERIFY_CHECKPOINT, 0);
    EVP_PKEY_free(stranger);
    fake_log_clear(&l);
}

static void earlier_checkpoints(void **state)
{
    (void)state;
    struct fake_log l, other;
    struct verdict v;
    struct note n;
    struct checkpoint c;
    struct note_key key;
    fake_log_new(&l);
    fake_log_grow(&l, 20);
    fake_log_key(&l, &key);
    FREE char *early = fake_log_checkpoint(&l);
    assert_int_equal(note_parse(&n, early, strlen(early), NULL), OK);
    assert_int_equal(checkpoint_parse(&c, n.text, n.text_len, NULL), OK);
    fake_log_grow(&l, 31);
    fake_log_export(&l, path);
    verdict_of(path, &key, &c, &n, &v);
    assert_int_equal(v.result.faults, 0);

    /* The same key, another history: a fork. */
    fake_log_new(&other);
    EVP_PKEY_free(other.log_key);
    other.log_key = l.log_key;
    EVP_PKEY_up_ref(l.log_key);
    fake_log_grow(&other, 31);
    char forked[300];
    snprintf(forked, sizeof forked, "%s/forked", place);
    fake_log_export(&other, forked);
    verdict_of(forked, &key, &c, &n, &v);
    expect(&v, VERIFY_CHECKPOINT, 20);

    /* Shorter than it was: rolled back. */
    char back[300];
    struct fake_log shorter = l;
    shorter.n = 10;
    shorter.tree = (struct merkle){.size = 0};
    for (size_t i = 0; i < 10; i++) {
        struct merkle_hash leaf;
        assert_int_equal(
            merkle_leaf(l.lines[i], strlen(l.lines[i]), &leaf, NULL), OK);
        assert_int_equal(merkle_append(&shorter.tree, &leaf, NULL), OK);
    }
    snprintf(back, sizeof back, "%s/back", place);
    fake_log_export(&shorter, back);
    verdict_of(back, &key, &c, &n, &v);
    expect(&v, VERIFY_CHECKPOINT, 0);
    fake_log_clear(&other);
    fake_log_clear(&l);
}

/* ---- every byte ---- */

/* Under valgrind, which looks for something else, every so many-th. */
static size_t stride(void)
{
    const char *text = getenv("TEST_STRIDE");
    return text ? (size_t)atoi(text) : 1;
}

static void every_byte_of_a_text(void **state)
{
    (void)state;
    struct fake_log l;
    struct note_key key;
    size_t len;
    fake_log_new(&l);
    fake_log_grow(&l, 5);
    fake_log_key(&l, &key);
    FREE char *text = fake_log_text(&l, &len);
    for (size_t i = 0; i < len; i += stride()) {
        struct verdict v;
        text[i] ^= 1;
        write_file(path, text, len);
        verdict_of(path, &key, NULL, NULL, &v);
        if (v.result.faults == 0)
            fail_msg("byte %zu of %zu was changed, unseen", i, len);
        text[i] ^= 1;
    }
    fake_log_clear(&l);
}

static bool proof_holds(const char *text, const struct keyring *keys)
{
    PROOF p = {.index = 0};
    RECORD r = {.json = NULL};
    struct checkpoint c;
    struct error e;
    return proof_parse(&p, text, strlen(text), &e) == OK &&
           proof_check(&p, keys, &r, &c, &e) == OK;
}

static int flips;

static int flip_file(const char *p, const struct stat *st, int type,
                     struct FTW *ftw)
{
    char bytes[65536];
    (void)ftw;
    if (type != FTW_F)
        return 0;
    size_t len = (size_t)st->st_size;
    FILE *f = fopen(p, "r");
    assert_int_equal(fread(bytes, 1, sizeof bytes, f), len);
    fclose(f);
    for (size_t i = 0; i < len; i += stride()) {
        struct verdict v;
        bytes[i] ^= 1;
        write_file(p, bytes, len);
        verdict_of(path, NULL, NULL, NULL, &v);
        if (v.result.faults == 0)
            fail_msg("byte %zu of %s was changed, unseen", i, p);
        bytes[i] ^= 1;
        flips++;
    }
    for (size_t cut = 1; cut < len; cut += len / 7 + 1) {
        struct verdict v;
        write_file(p, bytes, len - cut);
        verdict_of(path, NULL, NULL, NULL, &v);
        if (v.result.faults == 0)
            fail_msg("%zu bytes of %s were cut, unseen", cut, p);
    }
    write_file(p, bytes, len);
    return 0;
}

static void every_byte_of_tiles(void **state)
{
    (void)state;
    struct fake_log l;
    fake_log_new(&l);
    fake_log_grow(&l, 5);
    fake_log_export(&l, path);
    assert_int_equal(nftw(path, flip_file, 16, FTW_PHYS), 0);
    assert_true(flips > 2000 / (int)stride());
    fake_log_clear(&l);
}

static void every_byte_of_a_proof(void **state)
{
    (void)state;
    struct fake_log l;
    struct note_key key;
    struct proof p = {.index = 3};
    CLEANUP(keyring_freep) struct keyring *keys = NULL;
    FREE char *text = NULL;
    fake_log_new(&l);
    fake_log_grow(&l, 5);
    fake_log_key(&l, &key);
    FREE char *note = fake_log_checkpoint(&l);
    fake_log_export(&l, path);
    struct tree t = {.dir = path, .size = 5};
    assert_int_equal(
        merkle_prove_inclusion(&p.path, p.index, 5, tree_read, &t, NULL), OK);
    p.line = l.lines[3];
    p.line_len = strlen(p.line);
    p.note = note;
    p.note_len = strlen(note);
    assert_int_equal(proof_format(&p, &text, NULL), OK);
    assert_int_equal(keyring_new(&keys, NULL), OK);
    assert_int_equal(keyring_give(keys, &key, NULL), OK);
    assert_true(proof_holds(text, keys));
    for (size_t i = 0, len = strlen(text); i < len; i += stride()) {
        text[i] ^= 1;
        if (proof_holds(text, keys))
            fail_msg("byte %zu was changed, unseen", i);
        text[i] ^= 1;
    }
    for (size_t n = strlen(text); n > 0; n -= n > 40 ? 40 : 1) {
        text[n - 1] = '\0';
        assert_false(proof_holds(text, keys));
    }
    fake_log_clear(&l);
}

/* A changed record is named, in tiles that all stand, and in lines alone. */
static void the_changed_record_is_named(void **state)
{
    (void)state;
    struct fake_log l;
    struct text t;
    struct verdict v;
    fake_log_new(&l);
    fake_log_grow(&l, 20);
    for (size_t i = 0; i < 19; i++) {
        text_of(&l, &t);
        FREE char *changed = strdup(t.lines[i]);
        char *owner = strstr(changed, "user:1000");
        owner[8] = '1';
        t.lines[i] = changed;
        verdict_of_text(&t, &v);
        expect(&v, VERIFY_CHANGED, (int64_t)i + 1);
    }
    fake_log_clear(&l);
}

static void garbage(void **state)
{
    (void)state;
    struct verdict v;
    size_t len = 3u << 20;
    FREE char *bytes = malloc(len);
    for (size_t i = 0; i < len; i++)
        bytes[i] = (char)(i * 2654435761u >> 13);
    write_file(path, bytes, len);
    verdict_of(path, NULL, NULL, NULL, &v);
    assert_true(v.result.faults > 0);
    memset(bytes, 'x', len); /* one line */
    write_file(path, bytes, len);
    verdict_of(path, NULL, NULL, NULL, &v);
    assert_int_equal(v.faults[VERIFY_FORMAT], 1);
    write_file(path, "", 0);
    verdict_of(path, NULL, NULL, NULL, &v);
    assert_true(v.faults[VERIFY_CHECKPOINT] > 0);
}

static void exports_that_do_not_fit(void **state)
{
    (void)state;
    struct fake_log l;
    fake_log_new(&l);
    fake_log_grow(&l, 5);
    fake_log_export(&l, path);
    /* A checkpoint of fewer records than were added is not taken. */
    CLEANUP(export_freep) struct export *x = NULL;
    FREE char *note = fake_log_checkpoint(&l);
    assert_int_equal(export_open(&x, path, NULL), OK);
    assert_int_equal(export_size(x), 5);
    struct export *second = NULL;
    assert_int_equal(export_open(&second, path, NULL), ERR_BUSY);
    assert_int_equal(export_add(x, "more", 4, NULL), OK);
    assert_int_equal(export_finish(x, note, strlen(note), NULL), ERR_SEAL);
    struct verdict v;
    verdict_of(path, NULL, NULL, NULL, &v);
    assert_int_equal(v.result.faults, 0);
    export_free(x);
    x = NULL;
    /* Nor is one gone on with whose tiles were changed. */
    char tile[400];
    snprintf(tile, sizeof tile, "%s/tile/0/000.p/5", path);
    FREE char *hashes = calloc(5, MERKLE_HASH);
    write_file(tile, hashes, 5 * MERKLE_HASH);
    CLEANUP(export_freep) struct export *y = NULL;
    assert_int_equal(export_open(&y, path, NULL), ERR_SEAL);
    fake_log_clear(&l);
}

#define IN_PLACE(test)                                                         \
    cmocka_unit_test_setup_teardown(test, make_place, remove_place)

int main(void)
{
    const struct CMUnitTest tests[] = {
        IN_PLACE(whole_logs_hold),
        IN_PLACE(calls_under_way_are_no_fault),
        IN_PLACE(records_that_were_moved),
        IN_PLACE(an_inserted_record),
        IN_PLACE(calls_and_outcomes),
        IN_PLACE(checkpoints_of_others),
        IN_PLACE(earlier_checkpoints),
        IN_PLACE(every_byte_of_a_text),
        IN_PLACE(every_byte_of_tiles),
        IN_PLACE(every_byte_of_a_proof),
        IN_PLACE(the_changed_record_is_named),
        IN_PLACE(garbage),
        IN_PLACE(exports_that_do_not_fit),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
