/* What the keeper knows of the log: the real keeper, as the daemon speaks to
 * it. */
#include "config.h"

#include "tests/unit/keeper_fixture.h"

#include "common/merkle.h"
#include "common/note.h"

#define ORIGIN "log.example/one"

/* A log as the daemon has it. */
struct log {
    struct merkle_hash leaves[4096];
    size_t n;
    size_t shown; /* to the keeper */
    char note[2048];
};
static struct log the_log;

static void log_add(struct log *g, const char *line)
{
    assert_int_equal(merkle_leaf(line, strlen(line), &g->leaves[g->n++], NULL),
                     OK);
}

static void log_fill(struct log *g, size_t n)
{
    char line[32];
    while (n-- > 0) {
        snprintf(line, sizeof line, "record %zu", g->n + 1);
        log_add(g, line);
    }
}

static struct merkle tree_of(const struct log *g, size_t size)
{
    struct merkle m = {.size = 0};
    for (size_t i = 0; i < size; i++)
        assert_int_equal(merkle_append(&m, &g->leaves[i], NULL), OK);
    return m;
}

static enum code with_edge(struct fixture *f, enum verb verb, json_t *head,
                           const struct merkle *m, struct frame *reply)
{
    struct merkle_hash edge[MERKLE_LEVELS];
    size_t n = 0;
    for (unsigned level = MERKLE_LEVELS; level-- > 0;)
        if (m->size >> level & 1)
            edge[n++] = m->full[level];
    return ask_on(f, 0, verb, head, edge, n * MERKLE_HASH, -1, reply);
}

static enum code begin(struct fixture *f, struct log *g, const char *origin,
                       struct frame *r)
{
    struct merkle m = tree_of(g, g->n);
    enum code rc = with_edge(f, VERB_LOG_BEGIN,
                             json_pack("{s:s, s:I}", "origin", origin, "size",
                                       (json_int_t)m.size),
                             &m, r);
    if (rc == OK)
        g->shown = g->n;
    return rc;
}

static enum code resume(struct fixture *f, struct log *g, size_t size,
                        struct frame *r)
{
    struct merkle m = tree_of(g, size);
    enum code rc = with_edge(f, VERB_LOG_RESUME,
                             json_pack("{s:I}", "size", (json_int_t)m.size), &m,
                             r);
    if (rc == OK)
        g->shown = size;
    return rc;
}

static enum code sign_from(struct fixture *f, struct log *g, size_t from,
                           bool sign, bool anchor, struct frame *r)
{
    enum code rc = ask_on(f, 0, VERB_SIGN_CHECKPOINT,
                          json_pack("{s:I, s:b, s:b}", "from", (json_int_t)from,
                                    "sign", sign, "anchor", anchor),
                          g->leaves + from, (g->n - from) * MERKLE_HASH, -1, r);
    if (rc == OK && sign) {
        g->shown = g->n;
        snprintf(g->note, sizeof g->note, "%s", member(r, "note"));
    }
    return rc;
}

static enum code checkpoint(struct fixture *f, struct log *g, struct frame *r)
{
    return sign_from(f, g, g->shown, true, false, r);
}

/* The note is signed by a key that log-state names, and says this tree. */
static void check_note(struct fixture *f, const struct log *g, const char *text,
                       const char *origin, size_t size, const char *more)
{
    FRAME s = FRAME_INIT;
    struct note n;
    struct note_key key;
    struct checkpoint c;
    struct merkle_hash root;
    bool found = false;
    struct merkle m = tree_of(g, size);
    assert_int_equal(merkle_root(&m, &root, NULL), OK);
    expect(OK, note_parse(&n, text, strlen(text), &f->e));
    expect(OK, checkpoint_parse(&c, n.text, n.text_len, &f->e));
    assert_string_equal(c.origin, origin);
    assert_int_equal(c.size, size);
    assert_true(merkle_equal(&c.root, &root));
    expect(OK, ask(f, VERB_LOG_STATE, NULL, NULL, &s));
    json_t *keys = json_object_get(s.head, "keys"), *one;
    size_t i;
    assert_true(json_array_size(keys) >= 1);
    json_array_foreach(keys, i, one)
    {
        expect(OK, note_key_parse(&key, json_string_value(one), &f->e));
        expect(OK, note_verify(&n, &key, &found, &f->e));
        assert_true(found);
    }
    assert_int_equal(strstr(text, more) != NULL, true);
}

static void a_log_grows(void **state)
{
    struct fixture *f = *state;
    struct log *g = &the_log;
    FRAME r = FRAME_INIT;
    expect(ERR_LOCKED, ask(f, VERB_LOG_STATE, NULL, NULL, &r));
    keys_ready(f);
    expect(OK, ask(f, VERB_LOG_STATE, NULL, NULL, &r));
    assert_true(json_is_false(json_object_get(r.head, "begun")));
    assert_true(json_is_null(json_object_get(r.head, "anchor")));
    expect(ERR_NOT_LOGGED, checkpoint(f, g, &r));
    log_fill(g, 3);
    expect(ERR_INVALID, begin(f, g, "has space", &r));
    expect(ERR_INVALID, begin(f, g, "log.example/7", &r));
    expect(OK, begin(f, g, ORIGIN, &r));
    assert_int_equal(number(&r, "epoch"), 0);
    check_note(f, g, member(&r, "note"), ORIGIN, 3, "");
    log_fill(g, 1000);
    expect(OK, checkpoint(f, g, &r));
    check_note(f, g, g->note, ORIGIN, 1003, "");
    expect(OK, checkpoint(f, g, &r)); /* nothing new is no fault */
    expect(ERR_INVALID, sign_from(f, g, 1, true, false, &r));
    /* In parts; one that is begun anew leaves nothing of the last. */
    log_fill(g, 50);
    expect(OK, sign_from(f, g, g->shown, false, false, &r));
    g->n = g->shown + 10;
    expect(OK, sign_from(f, g, g->shown, false, false, &r));
    size_t first = g->n;
    log_fill(g, 30);
    expect(OK, sign_from(f, g, first, true, false, &r));
    check_note(f, g, g->note, ORIGIN, 1043, "");
    expect(OK, ask(f, VERB_LOG_STATE, NULL, NULL, &r));
    assert_int_equal(number(&r, "size"), 1043);
    assert_int_equal(number(&r, "outstanding"), 0);
    assert_int_equal(
        json_integer_value(
            json_object_get(json_object_get(r.head, "anchor"), "size")),
        3); /* seldom */
    expect(OK, sign_from(f, g, g->shown, true, true, &r));
    assert_true(json_is_true(json_object_get(r.head, "anchored")));
}

static void the_file_is_remembered(void **state)
{
    struct fixture *f = *state;
    struct log *g = &the_log;
    FRAME r = FRAME_INIT;
    char path[400];
    keeper_end(f);
    keeper_spawn(f, NULL);
    keys_ready(f);
    log_fill(g, 5);
    expect(OK, checkpoint(f, g, &r));
    keeper_end(f);
    /* Gone: the anchor's tree has to be shown, and everybody sees it. */
    snprintf(path, sizeof path, "%s/keeper/ledger", f->token.dir);
    assert_int_equal(unlink(path), 0);
    keeper_spawn(f, NULL);
    keys_ready(f);
    expect(ERR_NOT_LOGGED, checkpoint(f, g, &r));
    expect(ERR_NOT_LOGGED, resume(f, g, 17, &r));
    the_log.leaves[4].bytes[0] ^= 1;
    expect(ERR_NOT_LOGGED, resume(f, g, 1043, &r));
    the_log.leaves[4].bytes[0] ^= 1;
    expect(OK, resume(f, g, 1043, &r));
    expect(OK, checkpoint(f, g, &r));
    check_note(f, g, g->note, ORIGIN, 1048, "\nresumed 1\n");
    expect(ERR_INVALID, resume(f, g, 1048, &r));
    /* Another epoch has another name, and what went before is told. */
    g->n = 100;
    expect(OK, begin(f, g, ORIGIN, &r));
    assert_int_equal(number(&r, "epoch"), 1);
    check_note(f, g, member(&r, "note"), ORIGIN "/1", 100, "\nresumed 1\n");
    /* One that is older than the anchor is no better than none. */
    FREE char *old = NULL;
    size_t len;
    expect(OK, file_read(path, 1 << 20, FILE_PRIVATE, &old, &len, &f->e));
    log_fill(g, 5);
    expect(OK, sign_from(f, g, g->shown, true, true, &r));
    keeper_end(f);
    expect(OK, file_write_atomic(path, old, len, 0600, &f->e));
    keeper_spawn(f, NULL);
    keys_ready(f);
    expect(ERR_NOT_LOGGED, checkpoint(f, g, &r));
    expect(OK, resume(f, g, 105, &r));
    check_note(f, g, member(&r, "note"), ORIGIN "/1", 105, "\nresumed 2\n");
}

/* The file is one keeper's at a time: a second that has waited takes it over,
 * for the first may hang, and the first signs no other tree then. */
static void one_keeper_at_a_time(void **state)
{
    struct fixture *f = *state;
    struct log *g = &the_log;
    struct fixture second = *f;
    FRAME r = FRAME_INIT;
    keeper_spawn(&second, NULL);
    keys_ready(&second);
    assert_int_equal(ask(&second, VERB_LOG_STATE, NULL, NULL, &r), OK);
    assert_true(json_is_true(json_object_get(r.head, "begun")));
    assert_int_equal(number(&r, "size"), g->shown);
    log_fill(g, 3);
    expect(ERR_NOT_LOGGED, checkpoint(f, g, &r));
    assert_non_null(strstr(f->e.text, "another keeper"));
    assert_int_equal(checkpoint(&second, g, &r), OK);
    keeper_end(&second);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_log_grows),
        cmocka_unit_test(the_file_is_remembered),
        cmocka_unit_test(one_keeper_at_a_time),
    };
    if (!softhsm_module()) {
        print_message("no SoftHSM2 here\n");
        return 77;
    }
    return cmocka_run_group_tests_name("ledger", tests, keeper_setup,
                                       keeper_teardown);
}
