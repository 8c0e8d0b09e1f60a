/* p11 - short ways to call the module in tests: the function list, templates,
 * a session that is logged in. Included after cmocka. */
#ifndef HSMINT_TEST_P11_H
#define HSMINT_TEST_P11_H

#include "module/pkcs11/cryptoki.h"
#include "module/pkcs11/hsmint.h"
#include "tests/unit/fake_daemon.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static CK_FUNCTION_LIST *p11;

/* Not every file has a use for all of them. */
#define MAYBE_UNUSED __attribute__((unused))
static MAYBE_UNUSED CK_BBOOL yes = CK_TRUE, no = CK_FALSE;
static MAYBE_UNUSED CK_OBJECT_CLASS class_key = CKO_SECRET_KEY;
static MAYBE_UNUSED CK_OBJECT_CLASS class_data = CKO_DATA;
static MAYBE_UNUSED CK_KEY_TYPE type_generic = CKK_GENERIC_SECRET;

#define A_CLASS                                                                \
    {                                                                          \
        CKA_CLASS, &class_key, sizeof(class_key)                               \
    }
#define A_DATA                                                                 \
    {                                                                          \
        CKA_CLASS, &class_data, sizeof(class_data)                             \
    }
#define A_TYPE                                                                 \
    {                                                                          \
        CKA_KEY_TYPE, &type_generic, sizeof(type_generic)                      \
    }
#define A_BOOL(t, v)                                                           \
    {                                                                          \
        (t), &(v), sizeof(CK_BBOOL)                                            \
    }
#define A_TEXT(t, s)                                                           \
    {                                                                          \
        (t), (void *)(uintptr_t)(s), sizeof(s) - 1                             \
    }
#define A_VAR(t, v)                                                            \
    {                                                                          \
        (t), &(v), sizeof(v)                                                   \
    }
#define COUNT(t) (sizeof(t) / sizeof((t)[0]))

#define FOREIGN "01jd0000000000000000000000" /* another program's lease */

#define T(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)
#define ok(call) assert_int_equal((call), CKR_OK)
#define gives(rv, call) assert_int_equal((call), (rv))

static inline int set_up(void **state)
{
    char reserved[128];
    (void)state;
    fake_start();
    snprintf(reserved, sizeof(reserved), "socket=%s", fake_socket());
    CK_C_INITIALIZE_ARGS args = {.flags = CKF_OS_LOCKING_OK,
                                 .pReserved = reserved};
    ok(C_GetFunctionList(&p11));
    ok(p11->C_Initialize(&args));
    return 0;
}

static inline int tear_down(void **state)
{
    (void)state;
    p11->C_Finalize(NULL);
    fake_stop();
    return 0;
}

/* The 3.0 interface. */
static inline struct functions_3_0 *v3(void)
{
    CK_UTF8CHAR standard[] = "PKCS 11";
    CK_VERSION version = {3, 0};
    CK_INTERFACE *i = NULL;
    ok(C_GetInterface(standard, &version, &i, 0));
    return i->pFunctionList;
}

static inline CK_SESSION_HANDLE open_session(bool rw)
{
    CK_SESSION_HANDLE s = 0;
    ok(p11->C_OpenSession(1, CKF_SERIAL_SESSION | (rw ? CKF_RW_SESSION : 0),
                          NULL, NULL, &s));
    return s;
}

static inline CK_RV try_login(CK_SESSION_HANDLE s, CK_USER_TYPE user,
                              const char *pin)
{
    return p11->C_Login(s, user, (CK_BYTE *)(uintptr_t)pin, strlen(pin));
}

static inline CK_SESSION_HANDLE logged_in(void)
{
    CK_SESSION_HANDLE s = open_session(true);
    ok(try_login(s, CKU_USER, FAKE_PIN));
    return s;
}

static inline CK_RV generate(CK_SESSION_HANDLE s, CK_ATTRIBUTE *t, CK_ULONG n,
                             CK_OBJECT_HANDLE *o)
{
    CK_MECHANISM m = {CKM_GENERIC_SECRET_KEY_GEN, NULL, 0};
    return p11->C_GenerateKey(s, &m, t, n, o);
}

/* A lease of `role`, kept to its end (token) or bound to the session. */
static inline CK_OBJECT_HANDLE minted(CK_SESSION_HANDLE s, const char *role,
                                      bool token)
{
    CK_OBJECT_HANDLE o = 0;
    CK_ATTRIBUTE t[] = {A_BOOL(CKA_TOKEN, yes),
                        {CKA_LABEL, (void *)(uintptr_t)role, strlen(role)}};
    if (!token)
        t[0].pValue = &no;
    ok(generate(s, t, COUNT(t), &o));
    assert_int_not_equal(o, 0);
    return o;
}

/* As text; static, for one use. */
static inline const char *text_of(CK_SESSION_HANDLE s, CK_OBJECT_HANDLE o,
                                  CK_ATTRIBUTE_TYPE type)
{
    static char buf[4096];
    CK_ATTRIBUTE a = {type, buf, sizeof(buf) - 1};
    ok(p11->C_GetAttributeValue(s, o, &a, 1));
    assert_true(a.ulValueLen < sizeof(buf));
    buf[a.ulValueLen] = '\0';
    return buf;
}

static inline CK_ULONG number_of(CK_SESSION_HANDLE s, CK_OBJECT_HANDLE o,
                                 CK_ATTRIBUTE_TYPE type)
{
    CK_ULONG n = 0;
    CK_ATTRIBUTE a = {type, &n, sizeof(n)};
    ok(p11->C_GetAttributeValue(s, o, &a, 1));
    assert_int_equal(a.ulValueLen, sizeof(n));
    return n;
}

static inline bool truth_of(CK_SESSION_HANDLE s, CK_OBJECT_HANDLE o,
                            CK_ATTRIBUTE_TYPE type)
{
    CK_BBOOL b = 2;
    CK_ATTRIBUTE a = {type, &b, sizeof(b)};
    ok(p11->C_GetAttributeValue(s, o, &a, 1));
    assert_true(b == CK_TRUE || b == CK_FALSE);
    return b;
}

/* The role web, and the configuration, as an administrator does. */
static inline void write_role_and_config(CK_SESSION_HANDLE s)
{
    CK_OBJECT_HANDLE o;
    CK_ATTRIBUTE role[] = {A_DATA, A_TEXT(CKA_APPLICATION, "hsmint:role"),
                           A_TEXT(CKA_LABEL, "web"),
                           A_TEXT(CKA_VALUE, "{\"ttl\": 60}"),
                           A_BOOL(CKA_TOKEN, yes)};
    ok(p11->C_CreateObject(s, role, COUNT(role), &o));
    role[1] = (CK_ATTRIBUTE)A_TEXT(CKA_APPLICATION, "hsmint:config");
    ok(p11->C_CreateObject(s, role, COUNT(role), &o));
}

/* How many there are; the first `max` into list. */
static inline CK_ULONG found(CK_SESSION_HANDLE s, CK_ATTRIBUTE *t, CK_ULONG n,
                             CK_OBJECT_HANDLE *list, CK_ULONG max)
{
    CK_OBJECT_HANDLE one;
    CK_ULONG total = 0, got = 1;
    ok(p11->C_FindObjectsInit(s, t, n));
    while (got) {
        ok(p11->C_FindObjects(s, &one, 1, &got));
        if (got && total < max)
            list[total] = one;
        total += got;
    }
    ok(p11->C_FindObjectsFinal(s));
    return total;
}

static inline void wait_for_call(const char *method, int times)
{
    for (int i = 0; i < 6000 && fake_calls(method) < times; i++)
        usleep(10000);
    assert_int_equal(fake_calls(method), times);
}

/* The text behind the last refusal in this session. */
static inline const char *why(CK_SESSION_HANDLE s)
{
    CK_OBJECT_HANDLE o = 0;
    CK_ATTRIBUTE t[] = {A_DATA, A_TEXT(CKA_APPLICATION, "hsmint:last-error")};
    if (found(s, t, COUNT(t), &o, 1) == 0)
        return "";
    return text_of(s, o, CKA_VALUE);
}

#endif
