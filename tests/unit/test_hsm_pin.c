/* The PIN rules: what the HSM sees, and what it does not. */
#include "config.h"

#include "tests/unit/hsm_fixture.h"

#include "common/clock.h"

#include <pthread.h>
#include <sys/stat.h>

static void wrong_pin_reaches_the_hsm_once(void **state)
{
    struct hsm *h = fixture(state)->hsm;
    bool by_hsm;
    assert_int_equal(log_in(h, "0000", false, &by_hsm), ERR_PIN_WRONG);
    assert_true(by_hsm);
    assert_int_equal(log_in(h, "0000", false, &by_hsm), ERR_PIN_WRONG);
    assert_false(by_hsm);
    /* SoftHSM reports low tries after one: others are held back. */
    for (int i = 0; i < 5; i++) {
        char pin[8];
        snprintf(pin, sizeof pin, "111%d", i);
        assert_int_equal(log_in(h, pin, false, &by_hsm), ERR_PIN_HELD);
        assert_false(by_hsm);
    }
    assert_int_equal(log_in(h, SOFTHSM_PIN, false, &by_hsm), ERR_PIN_HELD);
    /* Even forced, a refused one is not tried while tries are low. */
    assert_int_equal(log_in(h, "0000", true, &by_hsm), ERR_PIN_WRONG);
    assert_false(by_hsm);
    assert_int_equal(log_in(h, SOFTHSM_PIN, true, &by_hsm), OK);
    assert_true(by_hsm);
}

static void refused_pin_may_become_right(void **state)
{
    struct fixture *f = fixture(state);
    uint8_t hash[PIN_HASH];
    SECRET pin = secret_of("2222");
    must(pin_hash(&f->hsm->pins, pin, hash, &error));
    pin_refused(&f->hsm->pins, hash);
    struct pin_rules *p = &f->hsm->pins;
    must_fail(ERR_PIN_WRONG, pin_may_try(p, hash, 0, false, &error));
    must(pin_may_try(p, hash, 0, true, &error));
    must_fail(ERR_PIN_WRONG,
              pin_may_try(p, hash, CKF_USER_PIN_COUNT_LOW, true, &error));
}

static void flags_hold_and_lock(void **state)
{
    struct pin_rules *p = &fixture(state)->hsm->pins;
    const uint8_t hash[PIN_HASH] = {1};
    must(pin_may_try(p, hash, 0, false, &error));
    must_fail(ERR_PIN_HELD,
              pin_may_try(p, hash, CKF_USER_PIN_COUNT_LOW, false, &error));
    must_fail(ERR_PIN_HELD,
              pin_may_try(p, hash, CKF_USER_PIN_FINAL_TRY, false, &error));
    must(pin_may_try(p, hash, CKF_USER_PIN_FINAL_TRY, true, &error));
    must_fail(ERR_PIN_LOCKED,
              pin_may_try(p, hash, CKF_USER_PIN_LOCKED, true, &error));
}

/* For HSMs that do not tell how many tries are left. */
static void three_refusals_are_enough(void **state)
{
    struct pin_rules *p = &fixture(state)->hsm->pins;
    const uint8_t next[PIN_HASH] = {200};
    for (uint8_t i = 0; i < PIN_TRIES; i++) {
        uint8_t hash[PIN_HASH] = {i};
        must(pin_may_try(p, next, 0, false, &error));
        pin_refused(p, hash);
    }
    must_fail(ERR_PIN_HELD, pin_may_try(p, next, 0, false, &error));
    must(pin_may_try(p, next, 0, true, &error));
    pin_accepted(p, next);
    must(pin_may_try(p, next, 0, false, &error));
}

static void verifier_while_logged_in(void **state)
{
    struct hsm *h = fixture(state)->hsm;
    bool by_hsm;
    assert_int_equal(log_in(h, SOFTHSM_PIN, false, &by_hsm), OK);
    assert_true(by_hsm);
    assert_int_equal(log_in(h, SOFTHSM_PIN, false, &by_hsm), OK);
    assert_false(by_hsm);
    int64_t begin = clock_monotonic_ms();
    for (int i = 0; i < 3; i++) {
        assert_int_equal(log_in(h, "0000", false, &by_hsm), ERR_PIN_WRONG);
        assert_false(by_hsm);
    }
    assert_true(clock_monotonic_ms() - begin >= 100 + 200);
    assert_int_equal(log_in(h, SOFTHSM_PIN, false, &by_hsm), OK);
    JSON d = NULL;
    must(hsm_describe(h, &d, &error));
    json_t *pin = json_object_get(d, "pin");
    assert_true(json_is_false(json_object_get(pin, "count_low")));
}

static void after_logout_the_hsm_is_asked(void **state)
{
    struct hsm *h = provisioned(state);
    bool by_hsm;
    uint8_t digest[32] = {0}, signature[64];
    must(hsm_logout(h, &error));
    assert_false(hsm_ready(h));
    must_fail(ERR_LOCKED, hsm_sign(h, HSM_CALL, digest, signature, &error));
    assert_int_equal(log_in(h, SOFTHSM_PIN, false, &by_hsm), OK);
    assert_true(by_hsm);
    assert_true(hsm_ready(h)); /* the pins are still known */
    must(hsm_sign(h, HSM_CALL, digest, signature, &error));
    must(hsm_logout(h, &error));
    must(hsm_logout(h, &error));
    assert_null(h->pin);
}

struct guess {
    struct hsm *h;
    enum code got;
};

static void *wrong_guess(void *arg)
{
    struct guess *g = arg;
    struct secret *pin = NULL;
    bool by_hsm;
    struct error e;
    g->got = secret_dup(&pin, "9999", 4, &e);
    if (!g->got)
        g->got = hsm_login(g->h, pin, false, &by_hsm, &e);
    secret_free(pin);
    return NULL;
}

static int64_t sign_20(struct hsm *h)
{
    uint8_t digest[32] = {0}, signature[64];
    int64_t begin = clock_monotonic_ms();
    for (int i = 0; i < 20; i++)
        must(hsm_sign(h, HSM_CALL, digest, signature, &error));
    return clock_monotonic_ms() - begin;
}

/* 20 signatures amid wrong PINs, against as many alone. */
static bool signs_amid_wrong_pins(struct hsm *h)
{
    enum { THREADS = 6 };
    pthread_t threads[THREADS];
    struct guess guesses[THREADS];
    int held = 0, wrong = 0;
    int64_t quiet = sign_20(h);
    for (int i = 0; i < THREADS; i++) {
        guesses[i] = (struct guess){h, OK};
        assert_int_equal(
            pthread_create(&threads[i], NULL, wrong_guess, &guesses[i]), 0);
    }
    int64_t flooded = sign_20(h);
    for (int i = 0; i < THREADS; i++) {
        (void)pthread_join(threads[i], NULL);
        held += guesses[i].got == ERR_PIN_HELD;
        wrong += guesses[i].got == ERR_PIN_WRONG;
    }
    assert_int_equal(held + wrong, THREADS);
    assert_true(wrong <= PIN_WAITERS);
    return flooded < 400 + 4 * quiet;
}

/* A flood of wrong PINs holds two threads at most, and no signature: the time
 * that a busy machine takes away is not taken away each time. */
static void flood_blocks_nobody(void **state)
{
    struct hsm *h = provisioned(state);
    bool by_hsm, free = false;
    for (int i = 0; i < 4; i++) /* now each waits most of a second */
        assert_int_equal(log_in(h, "9999", false, &by_hsm), ERR_PIN_WRONG);
    for (int i = 0; i < 3 && !free; i++)
        free = signs_amid_wrong_pins(h);
    assert_true(free);
}

static void odd_pins(void **state)
{
    struct hsm *h = fixture(state)->hsm;
    bool by_hsm;
    char many[PIN_MAX + 2];
    memset(many, '1', sizeof many);
    many[PIN_MAX + 1] = '\0';
    SECRET none = NULL;
    must(secret_new(&none, 8, &error));
    must_fail(ERR_PIN_WRONG, hsm_login(h, none, false, &by_hsm, &error));
    assert_int_equal(log_in(h, many, false, &by_hsm), ERR_PIN_WRONG);
    assert_false(by_hsm);
}

static void write_pin(const char *path, const char *pin, mode_t mode)
{
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    fputs(pin, f);
    fclose(f);
    assert_int_equal(chmod(path, mode), 0);
}

static void configured_sources(void **state)
{
    struct fixture *f = fixture(state);
    struct settings *s = &f->settings;
    char path[300], source[320], uri[400];
    bool by_hsm;
    snprintf(path, sizeof path, "%s/pin", f->token.dir);
    must_fail(ERR_PIN_HELD, hsm_login(f->hsm, NULL, false, &by_hsm, &error));

    write_pin(path, SOFTHSM_PIN "\n", 0644); /* others may read it */
    s->pin_source = path;
    enum code open = hsm_login(f->hsm, NULL, false, &by_hsm, &error);
    assert_int_not_equal(open, OK);
    assert_false(by_hsm);

    write_pin(path, SOFTHSM_PIN "\n", 0600);
    must(hsm_login(f->hsm, NULL, false, &by_hsm, &error));
    assert_true(by_hsm);

    restart(f);
    snprintf(source, sizeof source, "file:%s", path);
    s->pin_source = source;
    must(hsm_login(f->hsm, NULL, false, &by_hsm, &error));

    restart(f);
    setenv("CREDENTIALS_DIRECTORY", f->token.dir, 1);
    s->pin_source = (char *)(uintptr_t) "credential:pin";
    must(hsm_login(f->hsm, NULL, false, &by_hsm, &error));
    s->pin_source = (char *)(uintptr_t) "credential:../pin";
    must_fail(ERR_CONFIG, hsm_login(f->hsm, NULL, false, &by_hsm, &error));
    unsetenv("CREDENTIALS_DIRECTORY");
    s->pin_source = (char *)(uintptr_t) "credential:pin";
    must_fail(ERR_CONFIG, hsm_login(f->hsm, NULL, false, &by_hsm, &error));
    snprintf(source, sizeof source, "credential:%s", path);
    s->pin_source = source;
    must(hsm_login(f->hsm, NULL, false, &by_hsm, &error));
    s->pin_source = (char *)(uintptr_t) "pin";
    must_fail(ERR_CONFIG, hsm_login(f->hsm, NULL, false, &by_hsm, &error));

    s->pin_source = NULL;
    snprintf(uri, sizeof uri, "pkcs11:token=fixture?pin-source=file:%s", path);
    s->hsm_uri = uri;
    restart(f);
    must(hsm_login(f->hsm, NULL, false, &by_hsm, &error));
    assert_true(by_hsm);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        FIXTURE_TEST(wrong_pin_reaches_the_hsm_once),
        FIXTURE_TEST(refused_pin_may_become_right),
        FIXTURE_TEST(flags_hold_and_lock),
        FIXTURE_TEST(three_refusals_are_enough),
        FIXTURE_TEST(verifier_while_logged_in),
        FIXTURE_TEST(after_logout_the_hsm_is_asked),
        FIXTURE_TEST(flood_blocks_nobody),
        FIXTURE_TEST(odd_pins),
        FIXTURE_TEST(configured_sources),
    };
    return cmocka_run_group_tests_name("hsm-pin", tests, NULL, NULL);
}
