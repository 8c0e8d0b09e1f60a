/* Searching, who may read what was found, and the objects that all see. */
#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "common/clock.h"
#include "common/text.h"
#include "module/pkcs11/kinds.h"
#include "tests/unit/p11.h"

#include <pthread.h>
#include <unistd.h>

static CK_OBJECT_CLASS class_profile = CKO_PROFILE;
static CK_OBJECT_CLASS class_public = CKO_PUBLIC_KEY;

/* ---- searching ---- */

static void own_leases_are_found_newest_first(void **state)
{
    (void)state;
    CK_SESSION_HANDLE s = logged_in();
    CK_OBJECT_HANDLE made[5], list[8];
    for (int i = 0; i < 5; i++)
        made[i] = minted(s, i == 2 ? "other" : "my-role", true);
    CK_ATTRIBUTE keys[] = {A_CLASS};
    assert_int_equal(found(s, keys, 1, list, 8), 5); /* pages of two */
    for (int i = 0; i < 5; i++)
        assert_int_equal(list[i], made[4 - i]);
    CK_ATTRIBUTE label[] = {A_CLASS, A_TEXT(CKA_LABEL, "other")};
    assert_int_equal(found(s, label, 2, list, 8), 1);
    assert_int_equal(list[0], made[2]);
    char id[64];
    snprintf(id, sizeof(id), "%.60s", text_of(s, made[1], CKA_ID));
    CK_ATTRIBUTE by_id[] = {{CKA_ID, id, strlen(id)}};
    assert_int_equal(found(s, by_id, 1, list, 8), 1);
    assert_int_equal(list[0], made[1]);
    fake_forget_calls();
    CK_ATTRIBUTE unique[] = {{CKA_UNIQUE_ID, id, strlen(id)}};
    assert_int_equal(found(s, unique, 1, list, 8), 1);
    assert_int_equal(list[0], made[1]);
    assert_int_equal(fake_calls("ListLeases"), 0);
    CK_ATTRIBUTE session_objects[] = {A_CLASS, A_BOOL(CKA_TOKEN, no)};
    assert_int_equal(found(s, session_objects, 2, list, 8), 0);
    CK_ATTRIBUTE absent[] = {A_CLASS, A_TEXT(CKA_LABEL, "nobody")};
    assert_int_equal(found(s, absent, 2, list, 8), 0);
}

static void what_cannot_match_is_not_asked_for(void **state)
{
    (void)state;
    CK_SESSION_HANDLE s = logged_in();
    CK_OBJECT_CLASS cert = CKO_CERTIFICATE;
    CK_ATTRIBUTE t[] = {A_VAR(CKA_CLASS, cert)};
    CK_ATTRIBUTE data[] = {A_DATA, A_TEXT(CKA_APPLICATION, "other")};
    CK_OBJECT_HANDLE o = 0;
    fake_forget_calls();
    assert_int_equal(found(s, t, 1, &o, 1), 0);
    assert_int_equal(found(s, data, 2, &o, 1), 0);
    assert_int_equal(fake_calls(NULL), 0);
}

static void before_init_nothing_is_found(void **state)
{
    (void)state;
    CK_SESSION_HANDLE s = logged_in();
    CK_OBJECT_HANDLE o = 0;
    CK_ATTRIBUTE t[] = {A_CLASS};
    CK_ATTRIBUTE private[] = {A_BOOL(CKA_PRIVATE, yes)};
    CK_ATTRIBUTE role[] = {A_TEXT(CKA_LABEL, "my-role")};
    fake_fail("ListLeases", ERR_NOT_FOUND);
    fake_fail("ListRoles", ERR_NOT_FOUND);
    fake_fail("GetConfig", ERR_NOT_FOUND);
    assert_int_equal(found(s, private, 1, &o, 1), 0);
    assert_int_equal(found(s, t, 1, &o, 1), 0);
    /* No handle was given: none can be the invalid one. */
    fake_fail("Mint", ERR_NOT_FOUND);
    gives(CKR_DEVICE_ERROR, generate(s, role, 1, &o));
}

static void a_value_is_no_search_term(void **state)
{
    (void)state;
    CK_SESSION_HANDLE s = logged_in();
    CK_OBJECT_HANDLE o = minted(s, "my-role", true);
    char key[128];
    snprintf(key, sizeof(key), "%.120s", text_of(s, o, CKA_VALUE));
    CK_ATTRIBUTE t[] = {{CKA_VALUE, key, strlen(key)}};
    assert_int_equal(found(s, t, 1, &o, 1), 0);
}

static void searches_have_their_order(void **state)
{
    (void)state;
    CK_SESSION_HANDLE s = logged_in();
    CK_OBJECT_HANDLE list[2];
    CK_ULONG n;
    CK_ATTRIBUTE t[] = {A_CLASS};
    gives(CKR_OPERATION_NOT_INITIALIZED, p11->C_FindObjects(s, list, 1, &n));
    gives(CKR_OPERATION_NOT_INITIALIZED, p11->C_FindObjectsFinal(s));
    ok(p11->C_FindObjectsInit(s, t, 1));
    gives(CKR_OPERATION_ACTIVE, p11->C_FindObjectsInit(s, t, 1));
    gives(CKR_ARGUMENTS_BAD, p11->C_FindObjects(s, NULL, 1, &n));
    gives(CKR_ARGUMENTS_BAD, p11->C_FindObjects(s, list, 1, NULL));
    ok(p11->C_FindObjects(s, list, 0, &n));
    assert_int_equal(n, 0);
    ok(p11->C_FindObjectsFinal(s));
    /* A failed start leaves no operation behind. */
    fake_fail("ListLeases", ERR_IO);
    gives(CKR_DEVICE_ERROR, p11->C_FindObjectsInit(s, t, 1));
    ok(p11->C_FindObjectsInit(s, t, 1));
    ok(p11->C_FindObjectsFinal(s));
}

struct finding {
    CK_SESSION_HANDLE session;
    CK_RV rv;
};

static void *begin_search(void *arg)
{
    struct finding *f = arg;
    f->rv = p11->C_FindObjectsInit(f->session, NULL, 0);
    return NULL;
}

/* What another thread ended and began anew is not that thread's any more. */
static void an_ended_search_leaves_the_next_one_alone(void **state)
{
    (void)state;
    struct finding f = {.session = logged_in()};
    CK_OBJECT_HANDLE o = minted(f.session, "my-role", true), first = 0;
    CK_ATTRIBUTE leases[] = {A_CLASS, A_TEXT(CKA_LABEL, "my-role")};
    pthread_t thread;
    CK_ULONG n = 0;
    fake_forget_calls();
    fake_lose("ListLeases");
    assert_int_equal(pthread_create(&thread, NULL, begin_search, &f), 0);
    wait_for_call("ListLeases", 1);
    ok(p11->C_FindObjectsFinal(f.session));
    ok(p11->C_FindObjectsInit(f.session, leases, COUNT(leases)));
    fake_go_away(); /* the thread's call is cut, and repeated */
    fake_come_back();
    pthread_join(thread, NULL);
    gives(CKR_FUNCTION_CANCELED, f.rv);
    ok(p11->C_FindObjects(f.session, &first, 1, &n));
    assert_int_equal(n, 1);
    assert_int_equal(first, o);
    ok(p11->C_FindObjects(f.session, &first, 1, &n));
    assert_int_equal(n, 0);
    ok(p11->C_FindObjectsFinal(f.session));
}

static void leases_are_private(void **state)
{
    (void)state;
    CK_SESSION_HANDLE s = logged_in();
    CK_OBJECT_HANDLE o = minted(s, "my-role", true), p = 0;
    CK_ATTRIBUTE t[] = {A_CLASS};
    CK_BBOOL b;
    CK_ATTRIBUTE a = {CKA_TOKEN, &b, 1};
    ok(p11->C_Logout(s));
    assert_int_equal(found(s, t, 1, &p, 1), 0);
    gives(CKR_OBJECT_HANDLE_INVALID, p11->C_GetAttributeValue(s, o, &a, 1));
    gives(CKR_OBJECT_HANDLE_INVALID, p11->C_DestroyObject(s, o));
    ok(try_login(s, CKU_USER, FAKE_PIN));
    assert_int_equal(found(s, t, 1, &p, 1), 1);
    assert_int_not_equal(p, o); /* handles are not used again */
    /* And its value went with the logout. */
    CK_ATTRIBUTE v = {CKA_VALUE, NULL, 0};
    gives(CKR_ATTRIBUTE_SENSITIVE, p11->C_GetAttributeValue(s, p, &v, 1));
}

/* A program that lists for months does not keep what it saw for ever. */
static void dead_leases_are_forgotten(void **state)
{
    (void)state;
    struct object_table *t = object_table_new();
    CK_OBJECT_HANDLE first = 0, live = 0;
    char name[32];
    assert_non_null(t);
    for (int i = 0; i < 3000; i++) {
        int64_t end = i == 7 ? INT64_MAX / 2 : 1000;
        snprintf(name, sizeof(name), "lease-%d", i);
        struct object *o =
            object_put(t, &kind_lease, 1, name,
                       json_pack("{sI}", "expires_ms", (json_int_t)end));
        assert_non_null(o);
        if (i == 0)
            first = o->handle;
        if (i == 7)
            live = o->handle;
    }
    assert_null(object_find(t, first));
    assert_non_null(object_find(t, live));
    object_table_free(t);
}

/* ---- reading what others minted ---- */

static void others_keys_are_not_read(void **state)
{
    (void)state;
    CK_SESSION_HANDLE s = logged_in();
    CK_OBJECT_HANDLE o = 0;
    fake_add_lease(FOREIGN, "my-role", false);
    CK_ATTRIBUTE t[] = {A_CLASS, A_TEXT(CKA_LABEL, "my-role")};
    assert_int_equal(found(s, t, 2, &o, 1), 1);
    char buf[64];
    CK_ATTRIBUTE a = {CKA_VALUE, buf, sizeof(buf)};
    gives(CKR_ATTRIBUTE_SENSITIVE, p11->C_GetAttributeValue(s, o, &a, 1));
    assert_int_equal(a.ulValueLen, CK_UNAVAILABLE_INFORMATION);
    assert_non_null(strstr(why(s), "keep_value"));
    assert_true(truth_of(s, o, CKA_SENSITIVE));
    assert_false(truth_of(s, o, CKA_EXTRACTABLE));
    assert_int_equal(fake_calls("ReadKey"), 0);
}

static void kept_keys_are_read_when_named(void **state)
{
    (void)state;
    CK_SESSION_HANDLE s = logged_in();
    CK_OBJECT_HANDLE o = 0, p = 0;
    fake_add_lease(FOREIGN, "keeping", true);
    CK_ATTRIBUTE all[] = {A_CLASS};
    CK_ATTRIBUTE v = {CKA_VALUE, NULL, 0};
    assert_int_equal(found(s, all, 1, &o, 1), 1);
    gives(CKR_ATTRIBUTE_SENSITIVE, p11->C_GetAttributeValue(s, o, &v, 1));
    assert_non_null(strstr(why(s), "label or id"));
    assert_int_equal(fake_calls("ReadKey"), 0);
    CK_ATTRIBUTE named[] = {A_CLASS, A_TEXT(CKA_LABEL, "keeping")};
    assert_int_equal(found(s, named, 2, &p, 1), 1);
    assert_int_equal(p, o);
    assert_false(truth_of(s, o, CKA_SENSITIVE));
    assert_string_equal(text_of(s, o, CKA_VALUE), FAKE_KEY_PREFIX FOREIGN);
    assert_string_equal(text_of(s, o, CKA_VALUE), FAKE_KEY_PREFIX FOREIGN);
    assert_int_equal(fake_calls("ReadKey"), 1); /* then it is held */
}

/* ---- objects ---- */

static void profiles_are_public(void **state)
{
    (void)state;
    CK_SESSION_HANDLE s = open_session(false);
    CK_OBJECT_HANDLE list[4] = {0};
    CK_ATTRIBUTE t[] = {A_VAR(CKA_CLASS, class_profile)};
    assert_int_equal(found(s, t, 1, list, 4), 2);
    assert_int_equal(number_of(s, list[0], CKA_PROFILE_ID),
                     CKP_BASELINE_PROVIDER);
    assert_int_equal(number_of(s, list[1], CKA_PROFILE_ID),
                     CKP_EXTENDED_PROVIDER);
    CK_ULONG id = CKP_EXTENDED_PROVIDER;
    CK_ATTRIBUTE one[] = {A_VAR(CKA_CLASS, class_profile),
                          A_VAR(CKA_PROFILE_ID, id)};
    CK_OBJECT_HANDLE o = 0;
    assert_int_equal(found(s, one, 2, &o, 1), 1);
    assert_int_equal(o, list[1]);
    id = 3; /* CKP_AUTHENTICATION_TOKEN: not claimed */
    assert_int_equal(found(s, one, 2, &o, 1), 0);
    assert_true(truth_of(s, list[0], CKA_TOKEN));
    assert_false(truth_of(s, list[0], CKA_PRIVATE));
    assert_false(truth_of(s, list[0], CKA_MODIFIABLE));
    assert_string_equal(text_of(s, list[0], CKA_LABEL), "Baseline Provider");
    CK_SESSION_HANDLE rw = logged_in();
    gives(CKR_ACTION_PROHIBITED, p11->C_DestroyObject(rw, list[0]));
    gives(CKR_ACTION_PROHIBITED, p11->C_SetAttributeValue(rw, list[0], one, 1));
    gives(CKR_ATTRIBUTE_VALUE_INVALID, p11->C_CreateObject(rw, one, 2, &o));
    fake_forget_calls();
    assert_int_equal(found(s, t, 1, list, 4), 2);
    assert_int_equal(fake_calls(NULL), 0); /* nothing to ask the daemon */
}

/* 3.0, 4.4.1: every object has it, it is unique and read only. */
static void every_object_has_a_unique_id(void **state)
{
    (void)state;
    CK_SESSION_HANDLE s = logged_in();
    CK_OBJECT_HANDLE list[16], o = 0;
    CK_ATTRIBUTE key[] = {A_CLASS, A_TEXT(CKA_LABEL, "admin-key"),
                          A_TEXT(CKA_VALUE, "sk-admin-x"),
                          A_BOOL(CKA_TOKEN, yes)};
    char ids[16][64];
    write_role_and_config(s);
    ok(p11->C_CreateObject(s, key, COUNT(key), &o));
    minted(s, "a", true);
    minted(s, "b", false);
    why(s); /* an error text */
    gives(CKR_OBJECT_HANDLE_INVALID, p11->C_DestroyObject(s, 999999));
    CK_ULONG n = found(s, NULL, 0, list, 16);
    /* two leases, role, configuration, admin key, audit key, two profiles and
     * the error */
    assert_int_equal(n, 9);
    for (CK_ULONG i = 0; i < n; i++) {
        snprintf(ids[i], 64, "%.63s", text_of(s, list[i], CKA_UNIQUE_ID));
        assert_true(ids[i][0] != '\0');
        for (CK_ULONG k = 0; k < i; k++)
            assert_string_not_equal(ids[i], ids[k]);
        CK_ATTRIBUTE by_id[] = {{CKA_UNIQUE_ID, ids[i], strlen(ids[i])}};
        assert_int_equal(found(s, by_id, 1, &o, 1), 1);
        assert_int_equal(o, list[i]);
    }
    for (CK_ULONG i = 0; i + 1 < n; i++) { /* the last is replaced by these */
        CK_ATTRIBUTE id[] = {A_TEXT(CKA_UNIQUE_ID, "x")};
        CK_RV rv = p11->C_SetAttributeValue(s, list[i], id, 1);
        assert_true(rv == CKR_ATTRIBUTE_READ_ONLY ||
                    rv == CKR_ACTION_PROHIBITED);
    }
}

static void audit_key_is_public(void **state)
{
    (void)state;
    static const CK_BYTE curve[] = {0x06, 0x08, 0x2a, 0x86, 0x48,
                                    0xce, 0x3d, 0x03, 0x01, 0x07};
    CK_SESSION_HANDLE s = open_session(false);
    CK_OBJECT_HANDLE o = 0;
    CK_ATTRIBUTE t[] = {A_VAR(CKA_CLASS, class_public)};
    assert_int_equal(found(s, t, 1, &o, 1), 1);
    assert_string_equal(text_of(s, o, CKA_LABEL), "hsmint-log-1");
    assert_int_equal(number_of(s, o, CKA_KEY_TYPE), CKK_EC);
    CK_BYTE params[16], point[80], spki[100], id[8];
    CK_ATTRIBUTE a[] = {A_VAR(CKA_EC_PARAMS, params),
                        A_VAR(CKA_EC_POINT, point),
                        A_VAR(CKA_PUBLIC_KEY_INFO, spki), A_VAR(CKA_ID, id)};
    ok(p11->C_GetAttributeValue(s, o, a, COUNT(a)));
    assert_int_equal(a[0].ulValueLen, sizeof(curve));
    assert_memory_equal(params, curve, sizeof(curve));
    assert_int_equal(a[1].ulValueLen, 67);
    assert_memory_equal(point, "\x04\x41\x04\xc1\x4a\x41\xc1\x10\xdd", 9);
    assert_memory_equal(point + 63, "\x61\xee\xdd\x72", 4);
    assert_int_equal(a[2].ulValueLen, 91);
    assert_memory_equal(spki + 26, point + 2, 65);
    assert_int_equal(a[3].ulValueLen, 4);
    assert_memory_equal(id, "\x01\x02\xca\xfe", 4);
    assert_true(truth_of(s, o, CKA_TOKEN));
    assert_false(truth_of(s, o, CKA_PRIVATE));
    assert_false(truth_of(s, o, CKA_VERIFY));
    /* A daemon that cannot tell spoils no search. */
    fake_fail("AuditKeys", ERR_INTERNAL);
    assert_int_equal(found(s, t, 1, &o, 1), 0);
    gives(CKR_ACTION_PROHIBITED, p11->C_DestroyObject(logged_in(), o));
}

static void policies_are_data(void **state)
{
    (void)state;
    static const char written[] = "{\"subjects\": [\"user:a\"]}";
    CK_SESSION_HANDLE s = logged_in();
    CK_OBJECT_HANDLE o = 0, all[3];
    CK_ATTRIBUTE t[] = {A_DATA, A_TEXT(CKA_APPLICATION, "hsmint:policy"),
                        A_TEXT(CKA_LABEL, "p"), A_TEXT(CKA_VALUE, written),
                        A_BOOL(CKA_TOKEN, yes)};
    ok(p11->C_CreateObject(s, t, COUNT(t), &o));
    assert_null(strstr(fake_last("SetPolicy"), "\"org\""));
    assert_string_equal(text_of(s, o, CKA_UNIQUE_ID), "policy/p");
    assert_non_null(strstr(text_of(s, o, CKA_VALUE), "user:a"));
    assert_null(strstr(text_of(s, o, CKA_VALUE), "name"));
    t[2] = (CK_ATTRIBUTE)A_TEXT(CKA_LABEL, "file");
    ok(p11->C_CreateObject(s, t, COUNT(t), &o));
    assert_int_equal(found(s, t, 2, all, 3), 2);
    assert_int_equal(all[1], o);
    assert_true(truth_of(s, all[0], CKA_MODIFIABLE));
    /* Of files nothing is to be changed, nor are their paths a value. */
    assert_false(truth_of(s, all[1], CKA_MODIFIABLE));
    assert_null(strstr(text_of(s, all[1], CKA_VALUE), "/etc/x.json"));
    t[3].pValue = (void *)(uintptr_t)"{]";
    t[3].ulValueLen = 2;
    gives(CKR_ATTRIBUTE_VALUE_INVALID, p11->C_CreateObject(s, t, COUNT(t), &o));
    assert_non_null(strstr(why(s), ":1:"));
    fake_fail("SetPolicy", ERR_DENIED);
    t[3].ulValueLen = 0;
    gives(CKR_ATTRIBUTE_VALUE_INVALID, p11->C_CreateObject(s, t, COUNT(t), &o));
    ok(p11->C_DestroyObject(s, all[0]));
    assert_int_equal(found(s, t, 2, all, 3), 1);
    fake_fail("ListPolicies", ERR_DENIED);
    assert_int_equal(found(s, t, 2, all, 3), 0);
    CK_ATTRIBUTE key[] = {A_TEXT(CKA_LABEL, "admin-key"),
                          A_BOOL(CKA_TOKEN, yes)};
    ok(generate(s, key, COUNT(key), &o));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        T(own_leases_are_found_newest_first),
        T(what_cannot_match_is_not_asked_for),
        T(before_init_nothing_is_found),
        T(a_value_is_no_search_term),
        T(searches_have_their_order),
        T(an_ended_search_leaves_the_next_one_alone),
        T(leases_are_private),
        T(dead_leases_are_forgotten),
        T(others_keys_are_not_read),
        T(kept_keys_are_read_when_named),
        T(profiles_are_public),
        T(every_object_has_a_unique_id),
        T(audit_key_is_public),
        T(policies_are_data),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
