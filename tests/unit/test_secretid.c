/* Secret ids of named logins: the text, and the real keeper's verbs with a real
 * SoftHSM token. */
#include "config.h"

#include "tests/unit/keeper_fixture.h"

#include "hsm/secretid.h"

#include <poll.h>

#define RANDOM "abcdefghijklmnopqrstuvwxyz234567abcdefghijklmnopqrst"
#define N63 "a23456789b23456789c23456789d23456789e23456789f23456789g23456789"

static void texts_are_told_apart(void **state)
{
    (void)state;
    static const struct {
        const char *text, *name, *found; /* found NULL: refused */
    } rows[] = {
        {"batch." RANDOM, NULL, "batch"},
        {"batch." RANDOM, "batch", "batch"},
        {RANDOM, "batch", "batch"},
        {"a.b-c_d." RANDOM, NULL, "a.b-c_d"},
        {N63 "." RANDOM, NULL, N63},
        {RANDOM, N63, N63},
        {"batch." RANDOM, "other", NULL},
        {"batch." RANDOM, "batc", NULL},
        {RANDOM, NULL, NULL},
        {RANDOM, "", NULL},
        {"." RANDOM, NULL, NULL},
        {"batch" RANDOM, NULL, NULL},
        {"batch." RANDOM "a", NULL, NULL},
        {"batch. " RANDOM, NULL, NULL},
        {"b\ntch." RANDOM, NULL, NULL},
        {"-batch." RANDOM, NULL, NULL},
        {"admin-key." RANDOM, NULL, NULL},
        {"a" N63 "." RANDOM, NULL, NULL},
        {RANDOM, "a" N63, NULL},
        {RANDOM, "../x", NULL},
        {"batch.ABCDEFGHIJKLMNOPQRSTUVWXYZ234567ABCDEFGHIJKLMNOPQRST", NULL,
         NULL},
        {"batch.1" RANDOM, NULL, NULL},
        {"271828", NULL, NULL},
        {"271828", "batch", NULL},
        {"", NULL, NULL},
        {"", "batch", NULL},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        struct secretid id;
        struct error e = {.code = OK};
        enum code rc = secretid_parse(&id, rows[i].text, strlen(rows[i].text),
                                      rows[i].name, &e);
        if ((rc == OK) != (rows[i].found != NULL) ||
            (rc && rc != ERR_PIN_WRONG) ||
            (!rc && strcmp(id.name, rows[i].found) != 0))
            fail_msg("row %zu: %d %s", i, (int)rc, e.text);
        assert_null(strstr(e.text, "abcdef"));
    }
    assert_true(secretid_is_one("x." RANDOM, 2 + SECRETID_RANDOM));
    assert_false(secretid_is_one(RANDOM, SECRETID_RANDOM));
}

static enum code check(struct fixture *f, const char *name, const char *text,
                       struct frame *r)
{
    return ask_secret(f, VERB_CHECK_LOGIN, json_pack("{s:s?}", "name", name),
                      text, r);
}

static void made(struct fixture *f, const char *name, char text[128],
                 char hmac[65])
{
    FRAME r = FRAME_INIT;
    SECRET id = NULL;
    expect(OK, ask(f, VERB_MAKE_LOGIN, json_pack("{s:s}", "name", name), NULL,
                   &r));
    assert_string_equal(member(&r, "name"), name);
    assert_int_equal(strlen(member(&r, "hmac")), 64);
    snprintf(hmac, 65, "%s", member(&r, "hmac"));
    assert_true(r.fd >= 0);
    assert_int_equal(secret_from_fd(&id, r.fd, 127, 1000, true, NULL), OK);
    memcpy(text, secret_data(id), secret_len(id));
    text[secret_len(id)] = '\0';
    assert_int_equal(strlen(text), strlen(name) + 1 + SECRETID_RANDOM);
}

static void what_was_made_is_known_again(void **state)
{
    struct fixture *f = *state;
    char text[128], hmac[65], other[128], other_hmac[65], again[130];
    FRAME r = FRAME_INIT;
    provision(f);
    made(f, "batch", text, hmac);
    made(f, "batch", other, other_hmac);
    assert_string_not_equal(text, other);
    assert_string_not_equal(hmac, other_hmac);
    expect(OK, check(f, NULL, text, &r));
    assert_string_equal(member(&r, "name"), "batch");
    assert_string_equal(member(&r, "hmac"), hmac);
    expect(OK, check(f, "batch", text, &r));
    assert_string_equal(member(&r, "hmac"), hmac);
    expect(OK, check(f, "batch", strchr(text, '.') + 1, &r));
    assert_string_equal(member(&r, "hmac"), hmac);
    snprintf(again, sizeof again, "%s\r\n", text);
    expect(OK, check(f, NULL, again, &r)); /* as a file holds it */
    assert_string_equal(member(&r, "hmac"), hmac);
    /* The same characters under another name are another secret. */
    expect(OK, check(f, "other", strchr(text, '.') + 1, &r));
    assert_string_equal(member(&r, "name"), "other");
    assert_string_not_equal(member(&r, "hmac"), hmac);
    /* And not the hash that markers and values have. */
    expect(OK, ask_on(f, 0, VERB_HMAC, json_pack("{s:s}", "purpose", "value"),
                      text, strlen(text), -1, &r));
    assert_string_not_equal(member(&r, "hmac"), hmac);
}

static void what_is_none_is_refused(void **state)
{
    struct fixture *f = *state;
    char text[128], hmac[65], huge[9000];
    FRAME r = FRAME_INIT;
    provision(f);
    made(f, "batch", text, hmac);
    expect(ERR_PIN_WRONG, check(f, "other", text, &r));
    expect(ERR_PIN_WRONG, check(f, NULL, strchr(text, '.') + 1, &r));
    expect(ERR_PIN_WRONG, check(f, NULL, SOFTHSM_PIN, &r));
    expect(ERR_PIN_WRONG, check(f, NULL, "\n", &r));
    memset(huge, 'a', sizeof huge);
    huge[sizeof huge - 1] = '\0';
    expect(ERR_PIN_WRONG, check(f, NULL, huge, &r));
    expect(ERR_INVALID,
           ask(f, VERB_CHECK_LOGIN, json_object(), NULL, &r)); /* no pipe */
    expect(ERR_INVALID, ask_secret(f, VERB_CHECK_LOGIN,
                                   json_pack("{s:i}", "uses", 1), text, &r));
    expect(ERR_INVALID, ask(f, VERB_MAKE_LOGIN, json_object(), NULL, &r));
    expect(ERR_INVALID, ask(f, VERB_MAKE_LOGIN,
                            json_pack("{s:s}", "name", "a b"), NULL, &r));
    expect(ERR_PROTOCOL,
           ask_secret(f, VERB_MAKE_LOGIN, json_pack("{s:s}", "name", "batch"),
                      text, &r));
}

/* No file, and no pipe that a stranger keeps open, holds a channel up. */
static void only_a_whole_pipe_is_read(void **state)
{
    struct fixture *f = *state;
    FRAME r = FRAME_INIT;
    int ends[2];
    struct timespec before, after;
    provision(f);
    FD file = open("/dev/zero", O_RDONLY | O_CLOEXEC);
    expect(ERR_PIN_WRONG, ask_on(f, 0, VERB_CHECK_LOGIN, json_object(), NULL, 0,
                                 file, &r));
    assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
    assert_int_equal(write(ends[1], "batch.", 6), 6);
    clock_gettime(CLOCK_MONOTONIC, &before);
    expect(ERR_PIN_WRONG, ask_on(f, 0, VERB_CHECK_LOGIN, json_object(), NULL, 0,
                                 ends[0], &r));
    clock_gettime(CLOCK_MONOTONIC, &after);
    assert_true(after.tv_sec - before.tv_sec < 3);
    close(ends[0]);
    close(ends[1]);
}

/* Before the HSM is logged in there is no key to hash with; and a secret id
 * that is taken for a PIN costs none of the HSM's tries. */
static void a_locked_hsm_sees_no_secret_id(void **state)
{
    struct fixture *f = *state;
    FRAME r = FRAME_INIT;
    expect(ERR_LOCKED, check(f, NULL, "batch." RANDOM, &r));
    expect(ERR_LOCKED, login(f, "batch." RANDOM, &r));
    expect(ERR_LOCKED, login(f, "batch." RANDOM "\n", &r));
    assert_non_null(strstr(f->e.text, "secret id"));
    provision(f);
    expect(ERR_PIN_WRONG, login(f, "batch." RANDOM, &r));
    expect(OK, login(f, SOFTHSM_PIN, &r)); /* and nobody has to wait */
}

#define test(name)                                                             \
    cmocka_unit_test_setup_teardown(name, keeper_setup, keeper_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(texts_are_told_apart),
        test(what_was_made_is_known_again),
        test(what_is_none_is_refused),
        test(only_a_whole_pipe_is_read),
        test(a_locked_hsm_sees_no_secret_id),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
