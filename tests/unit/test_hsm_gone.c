/* The HSM that is not there, goes away, and comes back. */
#include "config.h"

#include "tests/unit/hsm_fixture.h"

#include "hsm/object.h"

#include <pthread.h>

static void move(const char *dir, const char *suffix, bool away)
{
    char other[320];
    snprintf(other, sizeof other, "%s%s", dir, suffix);
    assert_int_equal(away ? rename(dir, other) : rename(other, dir), 0);
    if (away)
        assert_int_equal(mkdir(dir, 0700), 0);
}

static void unplug(struct fixture *f)
{
    move(f->token.tokens, ".away", true);
}

static void plug_in(struct fixture *f)
{
    assert_int_equal(rmdir(f->token.tokens), 0);
    move(f->token.tokens, ".away", false);
}

static enum code sign(struct hsm *h)
{
    uint8_t digest[32] = {0}, signature[64];
    return hsm_sign(h, HSM_CALL, digest, signature, &error);
}

/* As an HSM says it: by a code on the next call. */
static enum code op_fail(struct hsm *h, struct session *s, void *arg,
                         struct error *e)
{
    (void)h;
    int *left = arg;
    if ((*left)-- > 0)
        return session_check(s, CKR_DEVICE_REMOVED, "C_Sign", "test", e);
    return OK;
}

static void tried_once_more(void **state)
{
    struct hsm *h = provisioned(state);
    int once = 1;
    must(hsm_run(h, NEED_READY, true, op_fail, &once, &error));
    int twice = 2;
    must_fail(ERR_HSM_ABSENT,
              hsm_run(h, NEED_READY, true, op_fail, &twice, &error));
    int never = 1;
    must_fail(ERR_HSM_ABSENT,
              hsm_run(h, NEED_READY, false, op_fail, &never, &error));
    must(sign(h)); /* back, logged in, keys checked */
    assert_true(hsm_ready(h));
}

static void sessions_lost(void **state)
{
    struct hsm *h = provisioned(state);
    must(sign(h));
    /* What a restarted HSM does to its clients. */
    assert_int_equal(h->token.f->C_CloseAllSessions(h->token.slot), CKR_OK);
    must(sign(h));
    assert_int_equal(h->token.f->C_Finalize(NULL), CKR_OK);
    must(sign(h));
}

static void logged_out_behind_our_back(void **state)
{
    struct hsm *h = provisioned(state);
    assert_int_equal(h->token.f->C_Logout(h->pool.sessions[0].handle), CKR_OK);
    must(sign(h));
}

static void away_and_back(void **state)
{
    struct fixture *f = fixture(state);
    struct hsm *h = provisioned(state);
    struct seal_subject s = {.kind = SEAL_VALUE, .version = 1}, got;
    SECRET plain = secret_of("value");
    SECRET opened = NULL;
    FREE uint8_t *blob = NULL;
    size_t len;
    must(hsm_seal(h, &s, plain, &blob, &len, &error));

    unplug(f);
    atomic_store(&h->pool.gone, true); /* SoftHSM keeps what it has read */
    must_fail(ERR_HSM_ABSENT, sign(h));
    must_fail(ERR_HSM_ABSENT, sign(h));
    assert_false(hsm_ready(h));
    JSON d = NULL;
    must(hsm_describe(h, &d, &error));
    assert_string_equal(text_of(d, "state"), "absent");
    assert_non_null(strstr(text_of(d, "error"), "pkcs11:token=fixture"));

    plug_in(f);
    must(hsm_unseal(h, blob, len, &got, &opened, &error));
    assert_true(secret_equal(plain, opened));
    assert_true(hsm_ready(h));
    JSON back = NULL;
    must(hsm_describe(h, &back, &error));
    assert_string_equal(text_of(back, "state"), "ready");
}

/* Nobody may put another token in the slot while we are away and get the PIN
 * or our trust. */
static void another_token_comes_back(void **state)
{
    struct fixture *f = fixture(state);
    struct hsm *h = provisioned(state);
    unplug(f);
    assert_true(softhsm_add(&f->token, "fixture")); /* same label */
    atomic_store(&h->pool.gone, true);
    must_fail(ERR_LOCKED, sign(h));
    assert_non_null(strstr(error.text, "another token"));
    assert_null(h->pin);
    must_fail(ERR_LOCKED, sign(h));
    bool by_hsm;
    assert_int_equal(log_in(h, SOFTHSM_PIN, false, &by_hsm), OK);
    must_fail(ERR_HSM_KEYS, sign(h));
    assert_false(hsm_ready(h));
}

static void keys_changed_meanwhile(void **state)
{
    struct hsm *h = provisioned(state);
    must(hsm_data_put(h, "hsmint-log-1", (uint8_t[]){1}, 1, &error));
    atomic_store(&h->pool.gone, true);
    must_fail(ERR_HSM_KEYS, sign(h));
    must_fail(ERR_HSM_KEYS, sign(h));
    assert_false(hsm_ready(h));
}

static void pin_changed_meanwhile(void **state)
{
    struct fixture *f = fixture(state);
    struct hsm *h = provisioned(state);
    CK_UTF8CHAR old[] = SOFTHSM_PIN, new[] = "987654";
    assert_int_equal(
        h->token.f->C_SetPIN(h->pool.sessions[0].handle, old, 4, new, 6),
        CKR_OK);
    atomic_store(&h->pool.gone, true);
    must_fail(ERR_PIN_WRONG, sign(h));
    must_fail(ERR_LOCKED, sign(h)); /* one try, no more */
    assert_null(h->pin);
    bool by_hsm;
    assert_int_equal(log_in(h, "987654", true, &by_hsm), OK);
    must(sign(h));
    (void)f;
}

struct caller {
    struct hsm *h;
    atomic_bool *stop;
    int done, absent, other;
    struct error last;
};

static void *call_on(void *arg)
{
    struct caller *c = arg;
    uint8_t digest[32] = {0}, signature[64];
    struct error e;
    while (!atomic_load(c->stop)) {
        enum code rc = hsm_sign(c->h, HSM_CALL, digest, signature, &e);
        c->done += rc == OK;
        c->absent += rc == ERR_HSM_ABSENT;
        if (rc != OK && rc != ERR_HSM_ABSENT) {
            c->other++;
            c->last = e;
        }
    }
    return NULL;
}

/* C_Finalize never races a call of another thread. */
static void initialised_anew_under_load(void **state)
{
    struct hsm *h = provisioned(state);
    enum { THREADS = 4 };
    pthread_t t[THREADS];
    struct caller c[THREADS];
    atomic_bool stop = false;
    for (int i = 0; i < THREADS; i++) {
        c[i] = (struct caller){.h = h, .stop = &stop};
        assert_int_equal(pthread_create(&t[i], NULL, call_on, &c[i]), 0);
    }
    for (int i = 0; i < 20; i++) {
        usleep(10000);
        atomic_store(&h->pool.gone, true);
    }
    atomic_store(&stop, true);
    int done = 0;
    for (int i = 0; i < THREADS; i++) {
        (void)pthread_join(t[i], NULL);
        if (c[i].other)
            fail_msg("%s: %s", error_name(c[i].last.code), c[i].last.text);
        done += c[i].done;
    }
    assert_true(done > 0);
    must(sign(h));
}

static enum code describe_state(struct fixture *f, const char *state)
{
    restart(f);
    JSON d = NULL;
    must(hsm_describe(f->hsm, &d, &error));
    assert_string_equal(text_of(d, "state"), state);
    bool by_hsm;
    return log_in(f->hsm, SOFTHSM_PIN, false, &by_hsm);
}

static void settings_that_do_not_work(void **state)
{
    struct fixture *f = fixture(state);
    struct settings *s = &f->settings;
    static const struct {
        const char *uri;
        enum code code;
    } uris[] = {
        {"pkcs11:token=nobody", ERR_HSM_ABSENT},
        {"pkcs11:token=fixture?pin-value=1234", ERR_CONFIG},
        {"pkcs11:token=fixture?module-path=/x", ERR_CONFIG},
        {"pkcs11:token=nobody?pin-valeu=1234", ERR_HSM_ABSENT},
        {"pkcs11:token=nobody;pin-value=1234", ERR_CONFIG},
        {"pkcs11:colour=green", ERR_CONFIG},
        {"not a uri", ERR_CONFIG},
        {"pkcs11:slot-id=77", ERR_HSM_ABSENT},
    };
    for (size_t i = 0; i < sizeof uris / sizeof uris[0]; i++) {
        s->hsm_uri = (char *)(uintptr_t)uris[i].uri;
        assert_int_equal(describe_state(f, "absent"), uris[i].code);
        assert_null(strstr(error.text, "1234"));
    }
    s->hsm_uri = NULL; /* one token: no need to name it */
    assert_int_equal(describe_state(f, "locked"), OK);
    assert_true(softhsm_add(&f->token, "second"));
    assert_int_equal(describe_state(f, "absent"), ERR_CONFIG);
    s->hsm_uri = (char *)(uintptr_t) "pkcs11:token=second";
    assert_int_equal(describe_state(f, "locked"), OK);
}

static void modules_that_do_not_work(void **state)
{
    struct fixture *f = fixture(state);
    struct settings *s = &f->settings;
    char copy[320], command[700];
    snprintf(copy, sizeof copy, "%s/libsofthsm2.so", f->token.dir);
    snprintf(command, sizeof command, "cp %s %s && chmod 666 %s",
             softhsm_module(), copy, copy);
    assert_int_equal(system(command), 0);
    char proxy[320];
    snprintf(proxy, sizeof proxy, "%s/p11-kit-proxy.so", f->token.dir);
    assert_int_equal(symlink(softhsm_module(), proxy), 0);
    char link[320]; /* the true name counts as well */
    char kit[320];
    snprintf(kit, sizeof kit, "%s/libp11-kit.so.0", f->token.dir);
    snprintf(link, sizeof link, "%s/innocent.so", f->token.dir);
    FILE *made = fopen(kit, "w");
    assert_non_null(made);
    fclose(made);
    assert_int_equal(symlink(kit, link), 0);
    const struct {
        const char *path;
        enum code code;
    } modules[] = {
        {NULL, ERR_CONFIG},
        {"libsofthsm2.so", ERR_CONFIG},
        {"/nowhere/lib.so", ERR_HSM_ABSENT},
        {"/etc/passwd", ERR_HSM_ABSENT},
        {copy, ERR_CONFIG},
        {proxy, ERR_CONFIG},
        {link, ERR_CONFIG},
    };
    for (size_t i = 0; i < sizeof modules / sizeof modules[0]; i++) {
        s->hsm_module = (char *)(uintptr_t)modules[i].path;
        assert_int_equal(describe_state(f, "absent"), modules[i].code);
    }
}

/* An HSM with fewer sessions than are configured. */
static CK_FUNCTION_LIST few;
static CK_C_OpenSession real_open;
static atomic_int opened;

static CK_RV open_few(CK_SLOT_ID slot, CK_FLAGS flags, void *app,
                      CK_NOTIFY notify, CK_SESSION_HANDLE *handle)
{
    if (atomic_fetch_add(&opened, 1) >= 2)
        return CKR_SESSION_COUNT;
    return real_open(slot, flags, app, notify, handle);
}

static void fewer_sessions(void **state)
{
    struct hsm *h = provisioned(state);
    few = *h->pool.f;
    real_open = few.C_OpenSession;
    few.C_OpenSession = open_few;
    atomic_store(&opened, 1); /* one is open */
    h->pool.f = &few;
    struct session *a, *b, *c;
    must(pool_take(&h->pool, false, &a, &error));
    must(pool_take(&h->pool, false, &b, &error));
    h->pool.deadline_ms = 50;
    must_fail(ERR_DEADLINE, pool_take(&h->pool, false, &c, &error));
    must_fail(ERR_DEADLINE, pool_take(&h->pool, true, &c, &error));
    int open, busy, limit;
    pool_count(&h->pool, &open, &busy, &limit);
    assert_int_equal(limit, 2);
    pool_give(&h->pool, a);
    pool_give(&h->pool, b);
    must(sign(h));
    h->pool.f = h->token.f;
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        FIXTURE_TEST(tried_once_more),
        FIXTURE_TEST(sessions_lost),
        FIXTURE_TEST(logged_out_behind_our_back),
        FIXTURE_TEST(away_and_back),
        FIXTURE_TEST(another_token_comes_back),
        FIXTURE_TEST(keys_changed_meanwhile),
        FIXTURE_TEST(pin_changed_meanwhile),
        FIXTURE_TEST(initialised_anew_under_load),
        FIXTURE_TEST(settings_that_do_not_work),
        FIXTURE_TEST(modules_that_do_not_work),
        FIXTURE_TEST(fewer_sessions),
    };
    return cmocka_run_group_tests_name("hsm-gone", tests, NULL, NULL);
}
