/* hsm_fixture - a fresh SoftHSM2 token and a keeper's HSM on it, per test. */
#ifndef HSMINT_TESTS_HSM_FIXTURE_H
#define HSMINT_TESTS_HSM_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "common/file.h"
#include "hsm/state.h"
#include "tests/unit/softhsm.h"

/* SoftHSM 2.6.1 leaks the curve's name each time that it signs with Ed25519.
 * Its frames are seen by the slow unwinder only. */
#ifdef __SANITIZE_ADDRESS__
#define EXPORTED __attribute__((visibility("default")))
EXPORTED const char *__lsan_default_suppressions(void);
EXPORTED const char *__asan_default_options(void);
const char *__lsan_default_suppressions(void)
{
    return "leak:libsofthsm2.so\n";
}
const char *__asan_default_options(void)
{
    return "fast_unwind_on_malloc=0";
}
#endif

struct fixture {
    struct softhsm token;
    struct settings settings;
    struct hsm *hsm;
    json_t *pins;
};

static struct error error __attribute__((unused));

#define must(call)                                                             \
    do {                                                                       \
        error_clear(&error);                                                   \
        if ((call) != OK)                                                      \
            fail_msg("%s: %s", #call, error.text);                             \
    } while (0)

#define must_fail(want, call)                                                  \
    do {                                                                       \
        error_clear(&error);                                                   \
        enum code got_ = (call);                                               \
        if (got_ != (want))                                                    \
            fail_msg("%s: %s instead of %s: %s", #call, error_name(got_),      \
                     error_name(want), error.text);                            \
    } while (0)

static inline struct fixture *fixture(void **state)
{
    return *state;
}

static inline const char *text_of(const json_t *o, const char *name)
{
    const char *s = json_string_value(json_object_get(o, name));
    return s ? s : "(none)";
}

static inline struct secret *secret_of(const char *text)
{
    struct secret *s = NULL;
    must(secret_dup(&s, text, strlen(text), &error));
    return s;
}

/* As after a restart of the keeper: nothing is remembered. */
static inline void restart(struct fixture *f)
{
    hsm_free(f->hsm);
    f->hsm = NULL;
    must(hsm_new(&f->hsm, &f->settings, &error));
}

static inline enum code log_in(struct hsm *h, const char *pin, bool force,
                               bool *by_hsm)
{
    SECRET s = secret_of(pin);
    return hsm_login(h, s, force, by_hsm, &error);
}

static inline int fixture_setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    assert_non_null(f);
    assert_true(softhsm_make(&f->token, "fixture"));
    f->settings.hsm_module = (char *)(uintptr_t)softhsm_module();
    f->settings.hsm_uri = (char *)(uintptr_t) "pkcs11:token=fixture";
    f->settings.hsm_sessions = 4;
    f->settings.hsm_deadline_ms = 10000;
    restart(f);
    *state = f;
    return 0;
}

static inline int fixture_teardown(void **state)
{
    struct fixture *f = *state;
    hsm_free(f->hsm);
    softhsm_remove(&f->token);
    json_decref(f->pins);
    free(f);
    return 0;
}

/* Logged in, keys made; f->pins is what the daemon would keep. */
static inline struct hsm *provisioned(void **state)
{
    struct fixture *f = fixture(state);
    bool by_hsm;
    JSON out = NULL;
    assert_int_equal(log_in(f->hsm, SOFTHSM_PIN, false, &by_hsm), OK);
    must(hsm_provision(f->hsm, true, NULL, &out, &error));
    f->pins = json_incref(json_object_get(out, "pins"));
    return f->hsm;
}

#define FIXTURE_TEST(test)                                                     \
    cmocka_unit_test_setup_teardown(test, fixture_setup, fixture_teardown)

#endif
