/* Renewing, renaming and revoking; leases that are bound to a session. */
#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/unit/p11.h"

#include <pthread.h>

/* ---- changing ---- */

static void renew_and_relabel(void **state)
{
    (void)state;
    CK_SESSION_HANDLE s = logged_in(), ro = open_session(false);
    CK_OBJECT_HANDLE o = minted(s, "my-role", true);
    CK_ULONG ttl = 7200, far = 1000000;
    CK_BYTE id[] = {1, 2};
    CK_ATTRIBUTE t[] = {A_VAR(CKA_HSMINT_TTL, ttl), A_TEXT(CKA_LABEL, "nicer"),
                        A_VAR(CKA_ID, id)};
    gives(CKR_SESSION_READ_ONLY, p11->C_SetAttributeValue(ro, o, t, 1));
    ok(p11->C_SetAttributeValue(s, o, t, COUNT(t)));
    assert_in_range(number_of(s, o, CKA_HSMINT_TTL), 7100, 7200);
    assert_string_equal(text_of(s, o, CKA_LABEL), "nicer");
    assert_string_equal(text_of(s, o, CKA_HSMINT_ROLE), "my-role");
    CK_ATTRIBUTE by_label[] = {A_TEXT(CKA_LABEL, "nicer")};
    CK_OBJECT_HANDLE p = 0;
    assert_int_equal(found(s, by_label, 1, &p, 1), 1);
    assert_int_equal(p, o);
    assert_non_null(strstr(text_of(s, o, CKA_VALUE), FAKE_KEY_PREFIX));
    CK_ATTRIBUTE beyond[] = {A_VAR(CKA_HSMINT_TTL, far)};
    gives(CKR_ATTRIBUTE_VALUE_INVALID,
          p11->C_SetAttributeValue(s, o, beyond, 1));
    CK_ATTRIBUTE fixed[] = {A_BOOL(CKA_TOKEN, no)};
    gives(CKR_ATTRIBUTE_READ_ONLY, p11->C_SetAttributeValue(s, o, fixed, 1));
    CK_ATTRIBUTE value[] = {A_TEXT(CKA_VALUE, "x")};
    gives(CKR_ATTRIBUTE_READ_ONLY, p11->C_SetAttributeValue(s, o, value, 1));
}

/* All of a template, or nothing. */
static void a_refused_renewal_renames_nothing(void **state)
{
    (void)state;
    CK_SESSION_HANDLE s = logged_in();
    CK_OBJECT_HANDLE o = minted(s, "my-role", true);
    CK_ULONG ttl = 1000000;
    CK_ATTRIBUTE t[] = {A_TEXT(CKA_LABEL, "renamed"),
                        A_VAR(CKA_HSMINT_TTL, ttl)};
    fake_fail("Renew", ERR_TTL);
    gives(error_ckrv(ERR_TTL), p11->C_SetAttributeValue(s, o, t, COUNT(t)));
    assert_string_equal(text_of(s, o, CKA_LABEL), "my-role");
    assert_int_equal(fake_calls("LabelLease"), 0);
}

static void destroy_revokes(void **state)
{
    (void)state;
    CK_SESSION_HANDLE s = logged_in(), ro = open_session(false);
    CK_OBJECT_HANDLE o = minted(s, "my-role", true), p = minted(s, "x", true);
    gives(CKR_SESSION_READ_ONLY, p11->C_DestroyObject(ro, o));
    assert_int_equal(fake_live(), 2);
    ok(p11->C_DestroyObject(s, o));
    assert_int_equal(fake_live(), 1);
    gives(CKR_OBJECT_HANDLE_INVALID, p11->C_DestroyObject(s, o));
    /* Not known to have happened: the handle stays, to try again. */
    fake_fail("Revoke", ERR_SERVICE_DOWN);
    gives(CKR_DEVICE_ERROR, p11->C_DestroyObject(s, p));
    ok(p11->C_DestroyObject(s, p));
    fake_add_lease(FOREIGN, "my-role", false);
    CK_ATTRIBUTE t[] = {A_CLASS};
    assert_int_equal(found(s, t, 1, &o, 1), 1);
    fake_fail("Revoke", ERR_NOT_FOUND);
    gives(CKR_OBJECT_HANDLE_INVALID, p11->C_DestroyObject(s, o));
}

/* ---- bound leases ---- */

static void bound_leases_end_with_their_session(void **state)
{
    (void)state;
    CK_SESSION_HANDLE s = logged_in(), t = open_session(false);
    CK_OBJECT_HANDLE in_s = minted(s, "my-role", false);
    CK_OBJECT_HANDLE in_t = minted(t, "my-role", false);
    CK_OBJECT_HANDLE kept = minted(s, "my-role", true);
    CK_BBOOL b;
    CK_ATTRIBUTE a = {CKA_TOKEN, &b, 1};
    assert_false(truth_of(s, in_t, CKA_TOKEN));
    ok(p11->C_CloseSession(t));
    assert_int_equal(fake_live(), 2);
    gives(CKR_OBJECT_HANDLE_INVALID, p11->C_GetAttributeValue(s, in_t, &a, 1));
    assert_false(truth_of(s, in_s, CKA_TOKEN));
    ok(p11->C_Logout(s));
    assert_int_equal(fake_live(), 1);
    ok(try_login(s, CKU_USER, FAKE_PIN));
    minted(s, "my-role", false);
    ok(p11->C_CloseAllSessions(1));
    assert_int_equal(fake_live(), 1);
    s = logged_in();
    minted(s, "my-role", false);
    ok(p11->C_Finalize(NULL));
    assert_int_equal(fake_live(), 1);
    (void)kept;
}

static void a_session_without_bound_leases_tells_nothing(void **state)
{
    (void)state;
    CK_SESSION_HANDLE s = logged_in();
    minted(s, "my-role", true);
    ok(p11->C_CloseSession(s));
    assert_int_equal(fake_calls("EndSession"), 0);
}

static void an_end_that_could_not_be_told_is_told_later(void **state)
{
    (void)state;
    CK_SESSION_HANDLE s = logged_in(), t = open_session(true);
    minted(t, "my-role", false);
    fake_fail("EndSession", ERR_IO);
    ok(p11->C_CloseSession(t));
    assert_int_equal(fake_live(), 1);
    t = open_session(true);
    assert_int_equal(fake_live(), 0);
    (void)s;
}

struct minter {
    CK_SESSION_HANDLE s;
    CK_RV rv;
};

static void *mint_in_thread(void *arg)
{
    struct minter *m = arg;
    CK_OBJECT_HANDLE o = 0;
    CK_ATTRIBUTE t[] = {A_TEXT(CKA_LABEL, "my-role"), A_BOOL(CKA_TOKEN, yes)};
    m->rv = generate(m->s, t, COUNT(t), &o);
    return NULL;
}

static void threads_mint_at_once(void **state)
{
    (void)state;
    enum { THREADS = 8 };
    pthread_t threads[THREADS];
    struct minter m[THREADS];
    logged_in();
    for (int i = 0; i < THREADS; i++) {
        m[i].s = open_session(true);
        assert_int_equal(
            pthread_create(&threads[i], NULL, mint_in_thread, &m[i]), 0);
    }
    for (int i = 0; i < THREADS; i++) {
        pthread_join(threads[i], NULL);
        ok(m[i].rv);
    }
    assert_int_equal(fake_live(), THREADS);
}

static void *mint_bound_in_thread(void *arg)
{
    struct minter *m = arg;
    CK_OBJECT_HANDLE o = 0;
    CK_ATTRIBUTE t[] = {A_TEXT(CKA_LABEL, "my-role")};
    m->rv = generate(m->s, t, COUNT(t), &o);
    return NULL;
}

/* Logged out and in again meanwhile: it is bound to its session all the same. */
static void a_mint_across_a_logout_is_bound(void **state)
{
    (void)state;
    struct minter m = {.s = logged_in()};
    pthread_t thread;
    fake_hang(true);
    assert_int_equal(pthread_create(&thread, NULL, mint_bound_in_thread, &m),
                     0);
    usleep(200000); /* until it has asked */
    ok(p11->C_Logout(m.s));
    fake_hang(false);
    open_session(true); /* tells what the daemon missed */
    ok(try_login(m.s, CKU_USER, FAKE_PIN));
    assert_int_equal(fake_live(), 0);
    fake_go_away(); /* the thread's call is cut, and repeated */
    fake_come_back();
    pthread_join(thread, NULL);
    ok(m.rv);
    assert_int_equal(fake_live(), 1);
    ok(p11->C_CloseSession(m.s));
    assert_int_equal(fake_live(), 0);
}

/* C_Finalize while others are inside: each gets an answer, nothing is left. */
static void finalise_races_calls(void **state)
{
    for (int round = 0; round < 20; round++) {
        pthread_t thread;
        struct minter m = {.s = logged_in()};
        assert_int_equal(pthread_create(&thread, NULL, mint_in_thread, &m), 0);
        if (round % 2)
            usleep((useconds_t)(round * 20));
        ok(p11->C_Finalize(NULL));
        pthread_join(thread, NULL);
        if (m.rv != CKR_OK)
            assert_int_equal(fake_live(), 0);
        tear_down(state);
        set_up(state);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(renew_and_relabel),
        T(a_refused_renewal_renames_nothing),
        T(destroy_revokes),
        T(bound_leases_end_with_their_session),
        T(a_session_without_bound_leases_tells_nothing),
        T(an_end_that_could_not_be_told_is_told_later),
        T(a_mint_across_a_logout_is_bound),
        T(threads_mint_at_once),
        T(finalise_races_calls),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
