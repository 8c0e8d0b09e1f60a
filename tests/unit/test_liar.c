/* A daemon built to lie, before the real keeper with a real token: the keeper
 * stops making calls, and `verify` names what was done. */
#include "config.h"

#include "tests/unit/keeper_fixture.h"

#include "common/base64.h"
#include "common/clock.h"
#include "common/transcript.h"
#include "hsm/leaves.h"
#include "module/audit/verify.h"

#define ORIGIN "keeper.test" /* the fixture's */
#define BOOK_MAX 64

/* The log as the daemon tells it; lines are its own to change. */
struct book {
    char *lines[BOOK_MAX];
    size_t n;
    struct merkle_hash last;
    size_t signed_size;
    char note[2048]; /* the last */
    json_t *call_keys; /* of provision */
};
struct lie {
    struct fixture *f;
    struct book b;
};

/* ---- the log ---- */

static struct merkle_hash leaf_of(const char *line)
{
    struct merkle_hash leaf;
    assert_int_equal(merkle_leaf(line, strlen(line), &leaf, NULL), OK);
    return leaf;
}

/* Numbered and chained; not in the book yet. own: stolen. */
static char *write_line(const struct book *b, const char *kind, json_t *own)
{
    char now[CLOCK_TEXT_MAX];
    FREE char *prev = base64_encode(b->last.bytes, MERKLE_HASH);
    JSON record = json_pack("{si sI ss ss sb ss s{ss}}", "v", 2, "seq",
                            (json_int_t)b->n + 1, "prev", prev, "time",
                            clock_text(clock_wall_ms(), now), "sync", 1, "kind",
                            kind, "actor", "owner", "hsmintd");
    assert_int_equal(json_object_update(record, own), 0);
    json_decref(own);
    char *line = json_dumps(record, JSON_COMPACT);
    assert_non_null(line);
    return line;
}

static void put(struct book *b, char *line)
{
    assert_true(b->n < BOOK_MAX);
    b->lines[b->n++] = line;
    b->last = leaf_of(line);
}

/* The line of a signed call. */
static char *write_call(const struct book *b, const struct frame *call)
{
    JSON record = NULL;
    json_t *own = json_object();
    FREE char *line = record_of(call);
    assert_int_equal(json_parse(line, strlen(line), "line", &record, NULL), OK);
    json_object_set(own, "method", json_object_get(record, "method"));
    json_object_set(own, "signed", json_object_get(record, "signed"));
    json_object_set_new(own, "call", json_string(member(call, "nonce")));
    if (json_object_get(record, "body"))
        json_object_set(own, "body", json_object_get(record, "body"));
    return write_line(b, "call", own);
}

static void learn_keys(struct lie *l)
{
    FRAME r = FRAME_INIT;
    size_t i;
    json_t *key;
    struct fixture *f = l->f;
    json_t *calls = json_array();
    char keyid[128];
    expect(OK, ask(f, VERB_PROVISION,
                   json_pack("{s:b, s:O}", "create", 0, "pins", f->pins), NULL,
                   &r));
    json_array_foreach(json_object_get(r.head, "keys"), i, key)
    {
        const char *label = json_string_value(json_object_get(key, "label"));
        const char *print =
            json_string_value(json_object_get(key, "fingerprint"));
        if (strcmp(json_string_value(json_object_get(key, "use")), "call") != 0)
            continue;
        snprintf(keyid, sizeof keyid, "%s:%.16s", label, print);
        json_array_append_new(
            calls, json_pack("{s:s, s:O}", "keyid", keyid, "public_key",
                             json_object_get(key, "public_key")));
    }
    expect(OK, ask(f, VERB_LOG_STATE, NULL, NULL, &r));
    put(&l->b, write_line(&l->b, "start", json_pack("{s:s}", "version", "x")));
    put(&l->b, write_line(&l->b, "keys",
                          json_pack("{s:O, s:o}", "log",
                                    json_object_get(r.head, "keys"), "call",
                                    calls)));
}

/* What `verify` says: how often of each kind. */
static void count(void *ctx, const struct verify_finding *v)
{
    ((int *)ctx)[v->what]++;
}

/* Lines 0 … n-1 with `note`, checked with the log's own key. */
static void verify(struct lie *l, size_t n, const char *note, const char *since,
                   int found[VERIFY_WHATS])
{
    struct fixture *f = l->f;
    FRAME r = FRAME_INIT;
    char path[400];
    CLEANUP(source_freep) struct source *source = NULL;
    CLEANUP(keyring_freep) struct keyring *keys = NULL;
    struct note_key key;
    struct note since_note;
    struct checkpoint since_point;
    struct verify_result result;
    snprintf(path, sizeof path, "%s/copy.jsonl", f->token.dir);
    FILE *copy = fopen(path, "w");
    assert_non_null(copy);
    for (size_t i = 0; i < n; i++)
        fprintf(copy, "%s\n", l->b.lines[i]);
    fprintf(copy, "\n%s", note);
    assert_int_equal(fclose(copy), 0);
    memset(found, 0, VERIFY_WHATS * sizeof *found);
    expect(OK, source_open(&source, path, &f->e));
    expect(OK, keyring_new(&keys, &f->e));
    expect(OK, ask(f, VERB_LOG_STATE, NULL, NULL, &r));
    expect(OK, note_key_parse(&key,
                              json_string_value(json_array_get(
                                  json_object_get(r.head, "keys"), 0)),
                              &f->e));
    expect(OK, keyring_give(keys, &key, &f->e));
    struct verify v = {
        .source = source, .keys = keys, .found = count, .ctx = found};
    if (since) {
        expect(OK, note_parse(&since_note, since, strlen(since), &f->e));
        expect(OK, checkpoint_parse(&since_point, since_note.text,
                                    since_note.text_len, &f->e));
        v.since = &since_point;
        v.since_note = &since_note;
    }
    expect(OK, verify_run(&v, &result, &f->e));
}

/* ---- the daemon ---- */

static enum code sign_from(struct lie *l, size_t from, struct frame *r)
{
    struct merkle_hash leaves[BOOK_MAX];
    struct book *b = &l->b;
    for (size_t i = from; i < b->n; i++)
        leaves[i - from] = leaf_of(b->lines[i]);
    enum code rc =
        ask_on(l->f, 0, VERB_SIGN_CHECKPOINT,
               json_pack("{s:I}", "from", (json_int_t)from), leaves,
               (b->n - from) * MERKLE_HASH, -1, r);
    if (rc == OK) {
        b->signed_size = b->n;
        snprintf(b->note, sizeof b->note, "%s", member(r, "note"));
    }
    return rc;
}

static enum code checkpoint(struct lie *l)
{
    FRAME r = FRAME_INIT;
    return sign_from(l, l->b.signed_size, &r);
}

static enum code begin_anew(struct lie *l, struct frame *r)
{
    struct merkle m = {.size = 0};
    struct merkle_hash edge[MERKLE_LEVELS];
    size_t n = 0;
    for (size_t i = 0; i < l->b.n; i++) {
        struct merkle_hash leaf = leaf_of(l->b.lines[i]);
        assert_int_equal(merkle_append(&m, &leaf, NULL), OK);
    }
    for (unsigned level = MERKLE_LEVELS; level-- > 0;)
        if (m.size >> level & 1)
            edge[n++] = m.full[level];
    enum code rc = ask_on(l->f, 0, VERB_LOG_BEGIN,
                          json_pack("{s:s, s:I}", "origin", ORIGIN, "size",
                                    (json_int_t)m.size),
                          edge, n * MERKLE_HASH, -1, r);
    if (rc == OK) {
        l->b.signed_size = l->b.n;
        snprintf(l->b.note, sizeof l->b.note, "%s", member(r, "note"));
    }
    return rc;
}

enum truth { HONEST, DROPPED };

static enum code call(struct lie *l, enum truth how)
{
    FRAME signed_call = FRAME_INIT;
    FRAME r = FRAME_INIT;
    expect_on(l->f, OK,
              sign_on(l->f, 0, "POST", ACCOUNTS, "{\"name\":\"n\"}",
                      &signed_call));
    char *line = write_call(&l->b, &signed_call);
    enum code rc = execute_line(l->f, 0, &signed_call, line, &r);
    if (how == HONEST)
        put(&l->b, line);
    else
        free(line);
    return rc;
}

static int set_up(void **state)
{
    struct lie *l = calloc(1, sizeof *l);
    void *f = NULL;
    assert_non_null(l);
    assert_int_equal(keeper_setup(&f), 0);
    l->f = f;
    ready_with_key(l->f);
    learn_keys(l);
    expect_on(l->f, OK, checkpoint(l));
    *state = l;
    return 0;
}

static int tear_down(void **state)
{
    struct lie *l = *state;
    void *f = l->f;
    keeper_teardown(&f);
    for (size_t i = 0; i < l->b.n; i++)
        free(l->b.lines[i]);
    free(l);
    return 0;
}

static void restart(struct lie *l)
{
    kill(l->f->pid, SIGKILL);
    waitpid(l->f->pid, NULL, 0);
    for (int i = 0; i < CHANNELS; i++)
        close(l->f->channel[i]);
    keeper_spawn(l->f, NULL);
    provision(l->f);
    FRAME r = FRAME_INIT;
    expect_on(l->f, OK,
              ask(l->f, VERB_USE_KEY, json_pack("{s:s}", "org", "main"), NULL,
                  &r));
}

/* ---- its lies ---- */

static void the_truth_is_let_pass(void **state)
{
    struct lie *l = *state;
    int found[VERIFY_WHATS];
    for (int i = 0; i < 3; i++) {
        expect_on(l->f, OK, call(l, HONEST));
        expect_on(l->f, OK, call(l, HONEST));
        expect_on(l->f, OK, checkpoint(l));
    }
    restart(l);
    expect_on(l->f, OK, call(l, HONEST));
    expect_on(l->f, OK, checkpoint(l));
    verify(l, l->b.n, l->b.note, NULL, found);
    for (int i = 0; i < VERIFY_WHATS; i++)
        assert_int_equal(found[i], i == VERIFY_OPEN ? 7 : 0);
}

/* Its record may be in a signed tree before the call is made. */
static void a_record_may_be_early(void **state)
{
    struct lie *l = *state;
    FRAME c = FRAME_INIT;
    FRAME r = FRAME_INIT;
    struct fixture *f = l->f;
    expect(OK, sign_on(f, 0, "GET", PROJECTS, NULL, &c));
    put(&l->b, write_call(&l->b, &c));
    expect(OK, checkpoint(l));
    expect(OK, execute_line(f, 0, &c, l->b.lines[l->b.n - 1], &r));
    expect(OK, checkpoint(l));
    expect(OK, checkpoint(l));
    expect(OK, ask(f, VERB_LOG_STATE, NULL, NULL, &r));
    assert_int_equal(number(&r, "outstanding"), 0);
}

static void drops_a_record(void **state)
{
    struct lie *l = *state;
    struct fixture *f = l->f;
    FRAME r = FRAME_INIT;
    int found[VERIFY_WHATS];
    expect(OK, call(l, DROPPED));
    expect(OK, checkpoint(l)); /* it may be on its way */
    expect(OK, call(l, HONEST));
    int requests = f->server.requests;
    expect(ERR_NOT_LOGGED, checkpoint(l));
    expect(ERR_NOT_LOGGED, call(l, HONEST));
    assert_int_equal(f->server.requests, requests);
    /* The one way on is another epoch, which tells. */
    expect(OK, begin_anew(l, &r));
    assert_string_equal(member(&r, "origin"), ORIGIN "/1");
    expect(OK, call(l, HONEST));
    expect(OK, checkpoint(l));
    verify(l, l->b.n, l->b.note, NULL, found);
    assert_int_equal(found[VERIFY_LOST], 1);
    assert_non_null(strstr(l->b.note, "\nlost 2\n"));
}

/* Never shows the keeper anything: only so many. */
static void shows_no_checkpoint(void **state)
{
    struct lie *l = *state;
    struct fixture *f = l->f;
    enum code rc = OK;
    int made = 0;
    for (; made < 2 * LEAVES_MAX && rc == OK; made++)
        rc = call(l, DROPPED);
    expect(ERR_NOT_LOGGED, rc);
    assert_int_equal(made, LEAVES_MAX + 1);
    assert_int_equal(f->server.requests, LEAVES_MAX);
    restart(l);
    expect(ERR_NOT_LOGGED, call(l, HONEST));
    assert_int_equal(f->server.requests, LEAVES_MAX);
}

static void sends_without_commit(void **state)
{
    static const char *const parts[] = {"target_uri", "content_digest",
                                        "signature_input", "signature",
                                        "keyid", "nonce"};
    struct lie *l = *state;
    struct fixture *f = l->f;
    FRAME r = FRAME_INIT;
    FRAME other = FRAME_INIT;
    expect(OK, sign_on(f, 0, "GET", ADMIN_KEYS, NULL, &other));
    for (size_t i = 0; i < 10 + sizeof parts / sizeof parts[0]; i++) {
        FRAME c = FRAME_INIT;
        FREE char *line = NULL;
        expect(OK, sign_on(f, 0, "POST", ACCOUNTS, "{\"name\":\"n\"}", &c));
        FREE char *good = write_call(&l->b, &c);
        JSON record = NULL;
        expect(OK, json_parse(good, strlen(good), "good", &record, &f->e));
        json_t *object = record;
        const char *name = "x", *value = "other";
        switch (i) {
        case 0: /* of another call */
            line = write_call(&l->b, &other);
            break;
        case 1:
            line = strdup("{}");
            break;
        case 2:
            line = strdup("x");
            break;
        case 3: /* no line at all */
            line = strdup("");
            break;
        case 4:
            assert_true(asprintf(&line, "%s\n", good) > 0);
            break;
        case 5: /* twice a member */
            assert_true(asprintf(&line, "%.*s,\"kind\":\"call\"}",
                                 (int)strlen(good) - 1, good) > 0);
            break;
        case 6:
            name = "method", value = "GET";
            break;
        case 7:
            name = "kind", value = "outcome";
            break;
        case 8:
            name = "body", value = "{\"name\":\"m\"}";
            break;
        case 9:
            json_object_del(record, "body");
            break;
        default:
            object = json_object_get(record, "signed");
            name = parts[i - 10];
        }
        if (!line) {
            if (i != 9)
                json_object_set_new(object, name, json_string(value));
            line = json_dumps(record, JSON_COMPACT);
        }
        expect(ERR_NOT_LOGGED, execute_line(f, 0, &c, line, &r));
        /* And the call is gone. */
        expect(ERR_NOT_SIGNED, execute_line(f, 0, &c, good, &r));
    }
    assert_int_equal(f->server.requests, 0);
    expect(OK, checkpoint(l));
}

static void forks_the_tree(void **state)
{
    struct lie *l = *state;
    struct fixture *f = l->f;
    FRAME r = FRAME_INIT;
    int found[VERIFY_WHATS];
    char since[2048];
    expect(OK, call(l, HONEST));
    expect(OK, call(l, HONEST));
    expect(OK, checkpoint(l));
    memcpy(since, l->b.note, sizeof since);
    /* Another past, in the same log: there is no way to have it signed. */
    char *was = l->b.lines[2];
    l->b.lines[2] = write_line(&l->b, "policy", json_pack("{s:s}", "name", "x"));
    expect(ERR_INVALID, sign_from(l, 2, &r));
    expect(ERR_INVALID, sign_from(l, 0, &r));
    verify(l, l->b.n, since, NULL, found);
    assert_true(found[VERIFY_ROOT] > 0 || found[VERIFY_CHANGED] > 0);
    /* In the next epoch it can be; it has another name, and who has a
     * checkpoint of before sees it. */
    expect(OK, begin_anew(l, &r));
    assert_string_equal(member(&r, "origin"), ORIGIN "/1");
    verify(l, l->b.n, l->b.note, since, found);
    assert_true(found[VERIFY_CHECKPOINT] > 0);
    free(l->b.lines[2]);
    l->b.lines[2] = was;
}

static void shows_a_shorter_tree(void **state)
{
    struct lie *l = *state;
    struct fixture *f = l->f;
    FRAME r = FRAME_INIT;
    int found[VERIFY_WHATS];
    char since[2048];
    expect(OK, call(l, HONEST));
    expect(OK, call(l, HONEST));
    expect(OK, checkpoint(l));
    memcpy(since, l->b.note, sizeof since);
    free(l->b.lines[--l->b.n]);
    expect(ERR_INVALID, sign_from(l, l->b.n, &r));
    verify(l, l->b.n, since, NULL, found);
    assert_int_equal(found[VERIFY_CUT], 1);
    expect(OK, begin_anew(l, &r));
    verify(l, l->b.n, l->b.note, since, found);
    assert_true(found[VERIFY_CHECKPOINT] > 0);
}

/* It keeps a copy of the file, and puts it back. */
static void replays_the_file(void **state)
{
    struct lie *l = *state;
    struct fixture *f = l->f;
    FREE char *old = NULL;
    char path[400], since[2048];
    int found[VERIFY_WHATS];
    size_t len;
    FRAME r = FRAME_INIT;
    snprintf(path, sizeof path, "%s/keeper/ledger", f->token.dir);
    expect(OK, file_read(path, 1 << 20, FILE_PRIVATE, &old, &len, &f->e));
    size_t before = l->b.n;
    expect(OK, call(l, HONEST));
    expect(OK, checkpoint(l));
    memcpy(since, l->b.note, sizeof since);
    kill(f->pid, SIGKILL);
    expect(OK, file_write_atomic(path, old, len, 0600, &f->e));
    restart(l);
    /* Since the last anchor the keeper knows no better; others do. */
    free(l->b.lines[--l->b.n]);
    l->b.last = leaf_of(l->b.lines[l->b.n - 1]);
    put(&l->b, write_line(&l->b, "policy", json_pack("{s:s}", "name", "x")));
    expect(OK, sign_from(l, before, &r));
    verify(l, l->b.n, l->b.note, since, found);
    assert_true(found[VERIFY_CHECKPOINT] > 0);
    /* An anchor later it knows. */
    expect(OK, ask(f, VERB_SIGN_CHECKPOINT,
                   json_pack("{s:I, s:b}", "from", (json_int_t)l->b.n, "anchor",
                             1),
                   NULL, &r));
    kill(f->pid, SIGKILL);
    expect(OK, file_write_atomic(path, old, len, 0600, &f->e));
    restart(l);
    expect(ERR_NOT_LOGGED, call(l, HONEST));
    expect(ERR_NOT_LOGGED, sign_from(l, before, &r));
}

/* As if it had been made twice, and for somebody else. */
static void tells_of_a_call_again(void **state)
{
    struct lie *l = *state;
    int found[VERIFY_WHATS];
    JSON record = NULL;
    json_t *own = json_object();
    expect_on(l->f, OK, call(l, HONEST));
    const char *line = l->b.lines[l->b.n - 1];
    assert_int_equal(json_parse(line, strlen(line), "line", &record, NULL), OK);
    json_object_set(own, "method", json_object_get(record, "method"));
    json_object_set(own, "body", json_object_get(record, "body"));
    json_object_set(own, "signed", json_object_get(record, "signed"));
    json_object_set_new(own, "call", json_string("another"));
    put(&l->b, write_line(&l->b, "call", own));
    /* The keeper sees hashes: it is for `verify` to notice. */
    expect_on(l->f, OK, checkpoint(l));
    verify(l, l->b.n, l->b.note, NULL, found);
    assert_int_equal(found[VERIFY_INSERTED], 1);
}

/* No HSM has made it; with it calls could be invented. */
static void brings_a_key_of_its_own(void **state)
{
    struct lie *l = *state;
    int found[VERIFY_WHATS];
    uint8_t spki[128], *at = spki;
    JSON record = NULL;
    EVP_PKEY *mine = EVP_EC_gen("P-256");
    int len = i2d_PUBKEY(mine, &at);
    FREE char *text = base64_encode(spki, (size_t)len);
    assert_int_equal(json_parse(l->b.lines[1], strlen(l->b.lines[1]), "line",
                                &record, NULL),
                     OK);
    put(&l->b, write_line(&l->b, "keys",
                          json_pack("{s:O, s:[{s:s, s:s}]}", "log",
                                    json_object_get(record, "log"), "call",
                                    "keyid", "mine", "public_key", text)));
    expect_on(l->f, OK, checkpoint(l));
    verify(l, l->b.n, l->b.note, NULL, found);
    assert_int_equal(found[VERIFY_CALL_KEY], 1);
    EVP_PKEY_free(mine);
}

/* The keeper is shown the record, and nobody else is. */
static void shows_the_record_to_the_keeper_alone(void **state)
{
    struct lie *l = *state;
    int found[VERIFY_WHATS];
    expect_on(l->f, OK, call(l, HONEST));
    expect_on(l->f, OK, checkpoint(l));
    size_t at = l->b.n - 1;
    char *shown = l->b.lines[at];
    struct book was = l->b;
    l->b.n = at;
    l->b.last = leaf_of(l->b.lines[at - 1]);
    l->b.lines[at] =
        write_line(&l->b, "policy", json_pack("{s:s}", "name", "x"));
    verify(l, was.n, was.note, NULL, found); /* another in its place */
    assert_int_equal(found[VERIFY_ROOT], 1);
    verify(l, at, was.note, NULL, found); /* none */
    assert_int_equal(found[VERIFY_CUT], 1);
    free(l->b.lines[at]);
    l->b = was;
    l->b.lines[at] = shown;
}

static void kills_the_keeper(void **state)
{
    struct lie *l = *state;
    struct fixture *f = l->f;
    expect(OK, call(l, DROPPED));
    restart(l);
    expect(ERR_NOT_LOGGED, checkpoint(l));
    int requests = f->server.requests;
    expect(ERR_NOT_LOGGED, call(l, HONEST));
    assert_int_equal(f->server.requests, requests);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

/* ---- a ceremony ---- */

#define NOBODY "\"participants\":[],\"attestations\":[]}"
#define GIVEN "{\"states\":[]," NOBODY

static char *ceremony_line(const struct book *b, const char *step,
                           const char *given)
{
    uint8_t digest[EVP_MAX_MD_SIZE];
    assert_int_equal(EVP_Digest(given, strlen(given), digest, NULL,
                                EVP_sha256(), NULL),
                     1);
    FREE char *hash = base64_encode(digest, 32);
    return write_line(b, "ceremony",
                      json_pack("{s:s, s:s}", "step", step, "given", hash));
}

static enum code ceremony(struct lie *l, const char *line, const char *given,
                          struct frame *r)
{
    return ask_on(l->f, 0, VERB_CEREMONY, json_pack("{s:s}", "record", line),
                  given, strlen(given), -1, r);
}

/* No transcript but of what the log tells, and each record is good for one. */
static void has_a_ceremony_of_its_own(void **state)
{
    static const char *const others[] = {
        "{\"states\":[],\"participants\":[{\"name\":\"Eve\",\"role\":\"r\","
        "\"public_key\":null}],\"attestations\":[]}",
        "{\"states\":[],\"keys\":[]," NOBODY, "{" NOBODY, "{}", "[]", "x",
        "{\"states\":[],\"participants\":[{\"name\":\"a\\u001b\",\"role\":"
        "\"r\"}],\"attestations\":[]}"};
    struct lie *l = *state;
    FRAME r = FRAME_INIT;
    FREE char *unseen = ceremony_line(&l->b, "given", GIVEN);
    expect_on(l->f, ERR_NOT_LOGGED, ceremony(l, unseen, GIVEN, &r));
    put(&l->b, strdup(unseen));
    expect_on(l->f, ERR_NOT_LOGGED, ceremony(l, unseen, GIVEN, &r));
    expect_on(l->f, OK, checkpoint(l));
    expect_on(l->f, OK, ceremony(l, unseen, GIVEN, &r));
    TRANSCRIPT t = NULL;
    expect_on(l->f, OK,
              transcript_read((char *)r.body, r.body_len, &t, &l->f->e));
    expect_on(l->f, OK, transcript_check_log(t, &l->f->e));
    assert_int_equal(json_integer_value(json_object_get(
                         json_object_get(t->json, "log"), "record")),
                     l->b.n);
    expect_on(l->f, ERR_NOT_LOGGED, ceremony(l, unseen, GIVEN, &r));
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++) {
        put(&l->b, ceremony_line(&l->b, "given", GIVEN));
        expect_on(l->f, OK, checkpoint(l));
        enum code rc = ceremony(l, l->b.lines[l->b.n - 1], others[i], &r);
        assert_int_equal(rc, i == 0 ? ERR_NOT_LOGGED : ERR_INVALID);
    }
    put(&l->b, ceremony_line(&l->b, "signed", GIVEN));
    put(&l->b, write_line(&l->b, "mint", json_object()));
    expect_on(l->f, OK, checkpoint(l));
    assert_int_not_equal(ceremony(l, l->b.lines[l->b.n - 2], GIVEN, &r), OK);
    assert_int_not_equal(ceremony(l, l->b.lines[l->b.n - 1], GIVEN, &r), OK);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(the_truth_is_let_pass), TEST(a_record_may_be_early),
        TEST(drops_a_record),        TEST(shows_no_checkpoint),
        TEST(sends_without_commit),  TEST(forks_the_tree),
        TEST(shows_a_shorter_tree),  TEST(replays_the_file),
        TEST(tells_of_a_call_again), TEST(brings_a_key_of_its_own),
        TEST(shows_the_record_to_the_keeper_alone),
        TEST(kills_the_keeper),
        TEST(has_a_ceremony_of_its_own),
    };
    if (!softhsm_module()) {
        print_message("no SoftHSM2 here\n");
        return 77;
    }
    return cmocka_run_group_tests_name("liar", tests, NULL, NULL);
}
