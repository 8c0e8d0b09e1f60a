/* Templates, attributes, searches: any type, length, pointer and handle. */
#include "config.h"

#include "tests/integration/abuse.h"

#include <stdlib.h>
#include <string.h>

static CK_OBJECT_CLASS class_key = CKO_SECRET_KEY, class_data = CKO_DATA;
static CK_BBOOL no = CK_FALSE, yes = CK_TRUE;
static char role[] = ROLE;

static const CK_ATTRIBUTE_TYPE known[] = {
    CKA_CLASS,       CKA_TOKEN,          CKA_PRIVATE,     CKA_LABEL,
    CKA_VALUE,       CKA_KEY_TYPE,       CKA_ID,          CKA_SENSITIVE,
    CKA_ENCRYPT,     CKA_DECRYPT,        CKA_WRAP,        CKA_UNWRAP,
    CKA_SIGN,        CKA_VERIFY,         CKA_DERIVE,      CKA_START_DATE,
    CKA_END_DATE,    CKA_VALUE_LEN,      CKA_EXTRACTABLE, CKA_LOCAL,
    CKA_MODIFIABLE,  CKA_COPYABLE,       CKA_UNIQUE_ID,   CKA_HSMINT_TTL,
    CKA_HSMINT_ROLE, CKA_HSMINT_EXPIRES,
};

/* A template that mints, and one attribute more. */
static CK_RV mint_with(const CK_ATTRIBUTE *more, CK_OBJECT_HANDLE *o)
{
    CK_ATTRIBUTE t[] = {{CKA_CLASS, &class_key, sizeof(class_key)},
                        {CKA_TOKEN, &no, sizeof(no)},
                        {CKA_LABEL, role, strlen(role)},
                        *more};
    CK_ATTRIBUTE *at_edge = guarded(t, sizeof(t));
    *o = CK_INVALID_HANDLE;
    return p11->C_CreateObject(session, at_edge, COUNT(t), o);
}

/* Refused, with no handle and no account. */
static void mints_nothing(CK_ATTRIBUTE_TYPE type, void *value, CK_ULONG len)
{
    CK_ATTRIBUTE a = {type, value, len};
    CK_OBJECT_HANDLE o;
    CK_RV rv = mint_with(&a, &o);
    if (rv == CKR_OK || o != CK_INVALID_HANDLE)
        bad("type 0x%lx, length %lu: 0x%lx, handle %lu", type, len, rv, o);
}

static void label_is_refused(const char *label, size_t len)
{
    CK_OBJECT_HANDLE o = 0;
    CK_ATTRIBUTE t[] = {{CKA_CLASS, &class_key, sizeof(class_key)},
                        {CKA_TOKEN, &no, sizeof(no)},
                        {CKA_LABEL, guarded(label, len), len}};
    CK_RV rv = p11->C_CreateObject(session, t, COUNT(t), &o);
    if (rv == CKR_OK || o != CK_INVALID_HANDLE)
        bad("a label of %zu bytes mints", len);
}

/* ---- templates ---- */

static CK_RV generate(CK_ATTRIBUTE *t, CK_ULONG n, CK_OBJECT_HANDLE *o)
{
    CK_MECHANISM m = {CKM_GENERIC_SECRET_KEY_GEN, NULL, 0};
    return p11->C_GenerateKey(session, &m, t, n, o);
}

/* The same lie to each function that takes a template. */
static void lie(CK_ATTRIBUTE *t, CK_ULONG n)
{
    CK_OBJECT_HANDLE o = 0;
    REFUSES(p11->C_CreateObject(session, t, n, &o));
    CHECK(o == CK_INVALID_HANDLE);
    REFUSES(generate(t, n, &o));
    REFUSES(p11->C_FindObjectsInit(session, t, n));
    REFUSES(p11->C_SetAttributeValue(session, lease, t, n));
    REFUSES(p11->C_GetAttributeValue(session, lease, t, n));
    REFUSES(p11->C_CopyObject(session, lease, t, n, &o));
    lease_lives();
}

static void template_nowhere(void)
{
    lie(NULL, 1);
    lie(NULL, HUGE_COUNT);
    lie(NULL, ALL_ONES);
}

static void template_of_2_to_the_32(void)
{
    CK_ATTRIBUTE t[] = {{CKA_CLASS, &class_key, sizeof(class_key)}};
    lie(guarded(t, sizeof(t)), HUGE_COUNT);
    lie(guarded(t, sizeof(t)), HUGE_COUNT + 1);
}

static void template_of_all_ones(void)
{
    CK_ATTRIBUTE t[] = {{CKA_CLASS, &class_key, sizeof(class_key)}};
    lie(guarded(t, sizeof(t)), ALL_ONES);
    lie(guarded(t, sizeof(t)), ALL_ONES / sizeof(t[0]) + 2);
}

static void template_of_10000(void)
{
    static CK_ATTRIBUTE t[10000];
    for (size_t i = 0; i < COUNT(t); i++)
        t[i] = (CK_ATTRIBUTE){CKA_CLASS, &class_key, sizeof(class_key)};
    lie(t, COUNT(t));
}

static void template_empty(void)
{
    CK_OBJECT_HANDLE o = 0;
    REFUSES(p11->C_CreateObject(session, NULL, 0, &o));
    CHECK(o == CK_INVALID_HANDLE);
    REFUSES(generate(NULL, 0, &o)); /* this daemon has no default role */
    REFUSES(p11->C_SetAttributeValue(session, lease, NULL, 0));
    lease_lives();
}

static void values_nowhere_with_a_length(void)
{
    for (size_t i = 0; i < COUNT(known); i++) {
        mints_nothing(known[i], NULL, 8);
        mints_nothing(known[i], NULL, 1);
    }
}

static void values_of_all_ones(void)
{
    for (size_t i = 0; i < COUNT(known); i++) {
        mints_nothing(known[i], NULL, ALL_ONES);
        mints_nothing(known[i], guarded("x", 1), ALL_ONES);
    }
}

static void values_of_2_to_the_32(void)
{
    for (size_t i = 0; i < COUNT(known); i++) {
        if (known[i] != CKA_VALUE) /* a length that fits its type is believed */
            mints_nothing(known[i], guarded("x", 1), HUGE_COUNT);
    }
}

static void numbers_of_odd_lengths(void)
{
    static const CK_ATTRIBUTE_TYPE numbers[] = {CKA_CLASS, CKA_KEY_TYPE,
                                                CKA_HSMINT_TTL, CKA_VALUE_LEN};
    char eight[16] = {0};
    for (size_t i = 0; i < COUNT(numbers); i++) {
        for (CK_ULONG len = 0; len <= 16; len++) {
            if (len != sizeof(CK_ULONG))
                mints_nothing(numbers[i], guarded(eight, len), len);
        }
    }
}

static void truths_of_odd_lengths(void)
{
    static const CK_ATTRIBUTE_TYPE truths[] = {CKA_PRIVATE, CKA_SENSITIVE,
                                               CKA_EXTRACTABLE, CKA_ENCRYPT};
    char ones[8] = {1, 1, 1, 1, 1, 1, 1, 1};
    for (size_t i = 0; i < COUNT(truths); i++) {
        for (CK_ULONG len = 0; len <= 8; len++) {
            if (len != sizeof(CK_BBOOL))
                mints_nothing(truths[i], guarded(ones, len), len);
        }
    }
}

static void truths_of_odd_values(void)
{
    CK_BBOOL odd = 0x55;
    CK_ATTRIBUTE a = {CKA_ENCRYPT, &odd, 1};
    CK_OBJECT_HANDLE o;
    if (mint_with(&a, &o) == CKR_OK)
        OKAY(p11->C_DestroyObject(session, o));
    mints_nothing(CKA_EXTRACTABLE, &odd, 1);
}

static void values_at_odd_addresses(void)
{
    char room[64];
    CK_OBJECT_HANDLE o = 0;
    memcpy(room + 1, &class_key, sizeof(class_key));
    CK_ULONG ttl = 60;
    memcpy(room + 33, &ttl, sizeof(ttl));
    CK_ATTRIBUTE t[] = {{CKA_CLASS, room + 1, sizeof(class_key)},
                        {CKA_TOKEN, &no, sizeof(no)},
                        {CKA_LABEL, role, strlen(role)},
                        {CKA_HSMINT_TTL, room + 33, sizeof(ttl)}};
    OKAY(p11->C_CreateObject(session, t, COUNT(t), &o));
    CK_ATTRIBUTE read = {CKA_HSMINT_TTL, room + 17, sizeof(ttl)};
    OKAY(p11->C_GetAttributeValue(session, o, &read, 1));
    memcpy(&ttl, room + 17, sizeof(ttl));
    CHECK(ttl <= 60);
}

static void the_same_attribute_twice(void)
{
    for (size_t i = 0; i < COUNT(known); i++) {
        CK_ATTRIBUTE t[] = {{CKA_CLASS, &class_key, sizeof(class_key)},
                            {CKA_LABEL, role, strlen(role)},
                            {CKA_TOKEN, &no, sizeof(no)},
                            {known[i], &no, sizeof(no)},
                            {known[i], &no, sizeof(no)}};
        CK_OBJECT_HANDLE o = 0;
        REFUSES(p11->C_CreateObject(session, t, COUNT(t), &o));
        CHECK(o == CK_INVALID_HANDLE);
    }
}

static void unknown_attributes(void)
{
    static const CK_ATTRIBUTE_TYPE unknown[] = {
        0x7fffffffUL, 0x80000000UL, 0xffffffffUL, ALL_ONES,
        HUGE_COUNT,   CKA_MODULUS,  CKA_OWNER,    HSMINT_VENDOR + 0xff};
    char eight[8] = {0};
    for (size_t i = 0; i < COUNT(unknown); i++)
        mints_nothing(unknown[i], eight, sizeof(eight));
}

static void templates_in_templates(void)
{
    CK_ATTRIBUTE inner[] = {{CKA_CLASS, &class_key, sizeof(class_key)}};
    mints_nothing(CKA_WRAP_TEMPLATE, inner, sizeof(inner));
    mints_nothing(CKA_UNWRAP_TEMPLATE, inner, sizeof(inner));
    mints_nothing(CKA_WRAP_TEMPLATE, NULL, sizeof(inner) * 3);
}

static void read_only_attributes_in_a_template(void)
{
    static const CK_ATTRIBUTE_TYPE types[] = {
        CKA_UNIQUE_ID,    CKA_LOCAL,          CKA_HSMINT_ROLE,
        CKA_HSMINT_OWNER, CKA_HSMINT_EXPIRES, CKA_ALWAYS_SENSITIVE};
    char value[8] = "1234567";
    for (size_t i = 0; i < COUNT(types); i++)
        mints_nothing(types[i], value, sizeof(value));
}

static void keys_are_not_given(void)
{
    char value[] = "sk-svcacct-0123456789";
    mints_nothing(CKA_VALUE, value, strlen(value));
    mints_nothing(CKA_EXTRACTABLE, &no, sizeof(no));
    CK_KEY_TYPE aes = CKK_AES;
    mints_nothing(CKA_KEY_TYPE, &aes, sizeof(aes));
}

static void times_to_live(void)
{
    static const CK_ULONG ttls[] = {0,         ALL_ONES,     HUGE_COUNT,
                                    1UL << 63, 0x7fffffffUL, 1000000};
    for (size_t i = 0; i < COUNT(ttls); i++) {
        CK_ULONG ttl = ttls[i];
        mints_nothing(CKA_HSMINT_TTL, &ttl, sizeof(ttl));
    }
}

static void classes_that_are_not_ours(void)
{
    static const CK_OBJECT_CLASS classes[] = {
        CKO_CERTIFICATE, CKO_PUBLIC_KEY, CKO_PRIVATE_KEY, CKO_HW_FEATURE,
        CKO_MECHANISM,   ALL_ONES,       HUGE_COUNT,      0x80000001UL};
    for (size_t i = 0; i < COUNT(classes); i++) {
        CK_OBJECT_CLASS class = classes[i];
        CK_OBJECT_HANDLE o = 0;
        CK_ATTRIBUTE t[] = {{CKA_CLASS, &class, sizeof(class)},
                            {CKA_LABEL, role, strlen(role)}};
        REFUSES(p11->C_CreateObject(session, t, COUNT(t), &o));
        REFUSES(generate(t, COUNT(t), &o));
        CHECK(o == CK_INVALID_HANDLE);
    }
}

static void labels_that_bite(void)
{
    static char big[65536];
    memset(big, 'a', sizeof(big));
    label_is_refused("a\r\nX-Evil: 1", 12);
    label_is_refused("my-app\0x", 8);
    label_is_refused("\xff\xfe\x80", 3);
    label_is_refused("\"quote\"", 7);
    label_is_refused("\x1b[2Jmy-app", 10);
    label_is_refused("\xe2\x80\xae"
                     "abc",
                     6);
    label_is_refused("../../etc/passwd", 16);
    label_is_refused("{\"role\":\"my-app\"}", 17);
    label_is_refused(big, 255);
    label_is_refused(big, 256);
    label_is_refused(big, sizeof(big));
}

static void ids_that_bite(void)
{
    char id[65] = "\r\n\x00\xff\x1b";
    mints_nothing(CKA_ID, guarded(id, 65), 65);
    CK_ATTRIBUTE a = {CKA_ID, guarded(id, 64), 64};
    CK_OBJECT_HANDLE o;
    OKAY(mint_with(&a, &o));
    char back[64];
    CK_ATTRIBUTE read = {CKA_ID, back, sizeof(back)};
    OKAY(p11->C_GetAttributeValue(session, o, &read, 1));
    CHECK(read.ulValueLen == 64 && memcmp(back, id, 64) == 0);
}

static void no_place_for_the_handle(void)
{
    CK_ATTRIBUTE t[] = {{CKA_CLASS, &class_key, sizeof(class_key)},
                        {CKA_TOKEN, &no, sizeof(no)},
                        {CKA_LABEL, role, strlen(role)}};
    long alive = control("alive");
    REFUSES(p11->C_CreateObject(session, t, COUNT(t), NULL));
    REFUSES(generate(t, COUNT(t), NULL));
    CHECK(control("alive") == alive);
}

static void mechanisms_that_are_not_ours(void)
{
    CK_ATTRIBUTE t[] = {{CKA_LABEL, role, strlen(role)}};
    CK_OBJECT_HANDLE o = 0;
    CK_MECHANISM m = {CKM_AES_KEY_GEN, NULL, 0};
    REFUSES(p11->C_GenerateKey(session, NULL, t, 1, &o));
    REFUSES(p11->C_GenerateKey(session, &m, t, 1, &o));
    m.mechanism = ALL_ONES;
    REFUSES(p11->C_GenerateKey(session, &m, t, 1, &o));
    CHECK(o == CK_INVALID_HANDLE);
}

static void mechanism_parameters(void)
{
    CK_ATTRIBUTE t[] = {{CKA_LABEL, role, strlen(role)}};
    CK_OBJECT_HANDLE o = 0;
    CK_MECHANISM m = {CKM_GENERIC_SECRET_KEY_GEN, NULL, 8};
    REFUSES(p11->C_GenerateKey(session, &m, t, 1, &o));
    m = (CK_MECHANISM){CKM_GENERIC_SECRET_KEY_GEN, role, 4};
    REFUSES(p11->C_GenerateKey(session, &m, t, 1, &o));
    m.ulParameterLen = ALL_ONES;
    REFUSES(p11->C_GenerateKey(session, &m, t, 1, &o));
    CHECK(o == CK_INVALID_HANDLE);
}

static void minting_without_login(void)
{
    CK_OBJECT_HANDLE o = 0;
    long alive = control("alive");
    GIVES(CKR_USER_NOT_LOGGED_IN, try_mint(session, false, &o));
    GIVES(CKR_USER_NOT_LOGGED_IN, try_mint(session, true, &o));
    CHECK(o == CK_INVALID_HANDLE && control("alive") == alive);
}

static CK_RV write_data(const char *application, const char *label,
                        const char *value, size_t len)
{
    CK_OBJECT_HANDLE o = 0;
    CK_ATTRIBUTE t[] = {
        {CKA_CLASS, &class_data, sizeof(class_data)},
        {CKA_TOKEN, &yes, sizeof(yes)},
        {CKA_APPLICATION, (void *)(uintptr_t)application, strlen(application)},
        {CKA_LABEL, (void *)(uintptr_t)label, strlen(label)},
        {CKA_VALUE, guarded(value, len), len}};
    return p11->C_CreateObject(session, t, COUNT(t), &o);
}

static void data_that_bites(void)
{
    static char deep[200000];
    memset(deep, '[', sizeof(deep));
    REFUSES(write_data("hsmint:role", "r", deep, sizeof(deep)));
    REFUSES(write_data("hsmint:role", "r", "{", 1));
    REFUSES(write_data("hsmint:role", "r", "", 0));
    REFUSES(write_data("hsmint:role", "r", "null", 4));
    REFUSES(write_data("hsmint:role", "../r", "{}", 2));
    REFUSES(write_data("hsmint:role", "admin-key", "{}", 2));
    REFUSES(write_data("hsmint:role", "r", "{\"a\":1}\0{}", 10));
    REFUSES(write_data("hsmint:config", "c", "{\"admin_api_key\":\"x\"}", 21));
    REFUSES(write_data("hsmint:last-error", "x", "{}", 2));
    REFUSES(write_data("hsmint:", "x", "{}", 2));
    REFUSES(write_data("nobody", "x", "{}", 2));
    lease_lives();
}

/* ---- reading ---- */

static void each_attribute_into_short_buffers(void)
{
    for (size_t i = 0; i < COUNT(known); i++) {
        CK_ATTRIBUTE a = {known[i], NULL, 0};
        OKAY(p11->C_GetAttributeValue(session, lease, &a, 1));
        CK_ULONG len = a.ulValueLen;
        a.pValue = guarded(NULL, len);
        OKAY(p11->C_GetAttributeValue(session, lease, &a, 1));
        CHECK(a.ulValueLen == len);
        for (CK_ULONG less = 0; less < len; less += 1 + len / 8) {
            a = (CK_ATTRIBUTE){known[i], guarded(NULL, less), less};
            GIVES(CKR_BUFFER_TOO_SMALL,
                  p11->C_GetAttributeValue(session, lease, &a, 1));
            CHECK(a.ulValueLen == CK_UNAVAILABLE_INFORMATION);
        }
    }
}

static void size_queries_with_a_length(void)
{
    for (size_t i = 0; i < COUNT(known); i++) {
        CK_ATTRIBUTE a = {known[i], NULL, ALL_ONES - 7};
        OKAY(p11->C_GetAttributeValue(session, lease, &a, 1));
        CHECK(a.ulValueLen < 4096);
    }
}

static void unknown_attributes_are_told(void)
{
    static const CK_ATTRIBUTE_TYPE types[] = {
        CKA_MODULUS,  CKA_WRAP_TEMPLATE, CKA_UNWRAP_TEMPLATE,
        0x7fffffffUL, ALL_ONES,          CKA_APPLICATION};
    char room[64];
    for (size_t i = 0; i < COUNT(types); i++) {
        CK_ATTRIBUTE a = {types[i], room, sizeof(room)};
        GIVES(CKR_ATTRIBUTE_TYPE_INVALID,
              p11->C_GetAttributeValue(session, lease, &a, 1));
        CHECK(a.ulValueLen == CK_UNAVAILABLE_INFORMATION);
    }
}

static void good_attributes_beside_bad_ones(void)
{
    CK_OBJECT_CLASS class = 0;
    char label[64], room[8];
    CK_ATTRIBUTE t[] = {{CKA_MODULUS, room, sizeof(room)},
                        {CKA_CLASS, &class, sizeof(class)},
                        {CKA_LABEL, label, 1},
                        {CKA_LABEL, label, sizeof(label)}};
    REFUSES(p11->C_GetAttributeValue(session, lease, t, COUNT(t)));
    CHECK(class == CKO_SECRET_KEY && t[0].ulValueLen == ALL_ONES);
    CHECK(t[2].ulValueLen == ALL_ONES && t[3].ulValueLen == strlen(ROLE));
}

static const CK_OBJECT_HANDLE guesses[] = {0, ALL_ONES, HUGE_COUNT,
                                           0x7fffffffUL};

static void guessed_objects(void)
{
    CK_ATTRIBUTE a = {CKA_VALUE, key, sizeof(key)};
    CK_OBJECT_HANDLE o = 0;
    for (size_t i = 0; i <= COUNT(guesses); i++) {
        CK_OBJECT_HANDLE h = i < COUNT(guesses) ? guesses[i] : lease + 1000;
        GIVES(CKR_OBJECT_HANDLE_INVALID,
              p11->C_GetAttributeValue(session, h, &a, 1));
        GIVES(CKR_OBJECT_HANDLE_INVALID, p11->C_DestroyObject(session, h));
        GIVES(CKR_OBJECT_HANDLE_INVALID, p11->C_GetObjectSize(session, h, &o));
        REFUSES(p11->C_SetAttributeValue(session, h, &a, 1));
        REFUSES(p11->C_CopyObject(session, h, NULL, 0, &o));
    }
    lease_lives();
}

static void objects_are_not_copied(void)
{
    CK_OBJECT_HANDLE o = 0;
    long alive = control("alive");
    REFUSES(p11->C_CopyObject(session, lease, NULL, 0, &o));
    REFUSES(p11->C_CopyObject(session, lease, NULL, 0, NULL));
    CHECK(control("alive") == alive);
}

static void sizes_of_objects(void)
{
    CK_ULONG n = 0;
    REFUSES(p11->C_GetObjectSize(session, lease, NULL));
    OKAY(p11->C_GetObjectSize(session, lease, &n));
}

static void destroyed_twice(void)
{
    CK_ATTRIBUTE a = {CKA_VALUE, key, sizeof(key)};
    OKAY(p11->C_DestroyObject(session, lease));
    GIVES(CKR_OBJECT_HANDLE_INVALID, p11->C_DestroyObject(session, lease));
    GIVES(CKR_OBJECT_HANDLE_INVALID,
          p11->C_GetAttributeValue(session, lease, &a, 1));
}

static void object_handles_are_not_used_again(void)
{
    OKAY(p11->C_DestroyObject(session, lease));
    for (int i = 0; i < 3; i++)
        CHECK(mint(session, false) != lease);
}

/* ---- changing ---- */

static CK_RV set(CK_ATTRIBUTE_TYPE type, void *value, CK_ULONG len)
{
    CK_ATTRIBUTE a = {type, value, len};
    return p11->C_SetAttributeValue(session, lease, &a, 1);
}

static void setting_what_is_not_ones_own(void)
{
    char value[8] = {0};
    for (size_t i = 0; i < COUNT(known); i++) {
        if (known[i] != CKA_LABEL && known[i] != CKA_ID &&
            known[i] != CKA_HSMINT_TTL)
            REFUSES(set(known[i], value, sizeof(value)));
    }
    REFUSES(set(CKA_SENSITIVE, &no, sizeof(no)));
    REFUSES(set(CKA_PRIVATE, &no, sizeof(no)));
    REFUSES(set(CKA_TOKEN, &yes, sizeof(yes)));
    lease_lives();
}

static void setting_lies(void)
{
    CK_ULONG ttl = 600;
    REFUSES(set(CKA_HSMINT_TTL, &ttl, 4));
    REFUSES(set(CKA_HSMINT_TTL, NULL, sizeof(ttl)));
    REFUSES(set(CKA_HSMINT_TTL, &ttl, ALL_ONES));
    REFUSES(set(CKA_LABEL, NULL, 5));
    REFUSES(set(CKA_LABEL, guarded("x", 1), ALL_ONES));
    REFUSES(set(CKA_LABEL, guarded("x", 1), HUGE_COUNT));
    REFUSES(set(CKA_LABEL, guarded("\xff", 1), 1));
    REFUSES(set(CKA_ID, NULL, 64));
    REFUSES(set(CKA_ID, guarded("x", 1), 65));
    lease_lives();
}

static void renewing_for_ever(void)
{
    static const CK_ULONG ttls[] = {0, ALL_ONES, HUGE_COUNT, 1UL << 63,
                                    10000000};
    for (size_t i = 0; i < COUNT(ttls); i++) {
        CK_ULONG ttl = ttls[i];
        REFUSES(set(CKA_HSMINT_TTL, &ttl, sizeof(ttl)));
    }
    CK_ULONG left = 0;
    CK_ATTRIBUTE a = {CKA_HSMINT_TTL, &left, sizeof(left)};
    OKAY(p11->C_GetAttributeValue(session, lease, &a, 1));
    CHECK(left > 3000 && left <= 3600);
}

/* ---- searching ---- */

static CK_ULONG found(CK_ATTRIBUTE *t, CK_ULONG n, CK_OBJECT_HANDLE *list,
                      CK_ULONG max)
{
    CK_ULONG got = 0;
    OKAY(p11->C_FindObjectsInit(session, t, n));
    OKAY(p11->C_FindObjects(session, list, max, &got));
    OKAY(p11->C_FindObjectsFinal(session));
    return got;
}

static void searches_out_of_order(void)
{
    CK_OBJECT_HANDLE o;
    CK_ULONG n = 0;
    GIVES(CKR_OPERATION_NOT_INITIALIZED,
          p11->C_FindObjects(session, &o, 1, &n));
    GIVES(CKR_OPERATION_NOT_INITIALIZED, p11->C_FindObjectsFinal(session));
    OKAY(p11->C_FindObjectsInit(session, NULL, 0));
    GIVES(CKR_OPERATION_ACTIVE, p11->C_FindObjectsInit(session, NULL, 0));
    OKAY(p11->C_FindObjectsFinal(session));
    GIVES(CKR_OPERATION_NOT_INITIALIZED, p11->C_FindObjectsFinal(session));
}

static void searches_into_nowhere(void)
{
    CK_OBJECT_HANDLE o;
    CK_ULONG n = 0;
    OKAY(p11->C_FindObjectsInit(session, NULL, 0));
    REFUSES(p11->C_FindObjects(session, NULL, 1, &n));
    REFUSES(p11->C_FindObjects(session, &o, 1, NULL));
    REFUSES(p11->C_FindObjects(session, NULL, ALL_ONES, NULL));
    OKAY(p11->C_FindObjectsFinal(session));
}

static void searches_of_odd_sizes(void)
{
    CK_ATTRIBUTE t = {CKA_CLASS, &class_key, sizeof(class_key)};
    CK_ATTRIBUTE by_label[] = {t, {CKA_LABEL, role, strlen(role)}};
    CK_OBJECT_HANDLE list[64];
    CK_ULONG n = 7;
    OKAY(p11->C_FindObjectsInit(session, by_label, 2));
    OKAY(p11->C_FindObjects(session, list, 0, &n));
    CHECK(n == 0);
    OKAY(p11->C_FindObjects(session, guarded(NULL, sizeof(list[0])), 1, &n));
    CHECK(n == 1);
    OKAY(p11->C_FindObjectsFinal(session));
}

static void searches_with_lies(void)
{
    CK_ATTRIBUTE t = {CKA_LABEL, NULL, 6};
    REFUSES(p11->C_FindObjectsInit(session, &t, 1));
    t = (CK_ATTRIBUTE){CKA_CLASS, guarded("x", 1), ALL_ONES};
    REFUSES(p11->C_FindObjectsInit(session, &t, 1));
    t = (CK_ATTRIBUTE){CKA_LABEL, guarded("x", 1), HUGE_COUNT};
    if (p11->C_FindObjectsInit(session, &t, 1) == CKR_OK)
        OKAY(p11->C_FindObjectsFinal(session));
    /* No search is left behind. */
    OKAY(p11->C_FindObjectsInit(session, NULL, 0));
}

/* A search is no oracle: whoever may not read a key does not test guesses. */
static void searches_for_keys(void)
{
    CK_OBJECT_HANDLE list[8];
    CK_ATTRIBUTE t = {CKA_VALUE, key, strlen(key)};
    CK_RV rv = p11->C_FindObjectsInit(session, &t, 1);
    CK_ULONG n = 0;
    if (rv == CKR_OK) {
        OKAY(p11->C_FindObjects(session, list, COUNT(list), &n));
        CHECK(n == 0);
    }
}

static void search_across_a_logout(void)
{
    CK_OBJECT_HANDLE list[64];
    CK_ULONG n = 0;
    OKAY(p11->C_FindObjectsInit(session, NULL, 0));
    OKAY(p11->C_Logout(session));
    CK_RV rv = p11->C_FindObjects(session, list, COUNT(list), &n);
    for (CK_ULONG i = 0; rv == CKR_OK && i < n; i++)
        CHECK(list[i] != lease);
}

static void search_across_a_destruction(void)
{
    CK_OBJECT_HANDLE list[64];
    CK_ULONG n = 0;
    OKAY(p11->C_FindObjectsInit(session, NULL, 0));
    OKAY(p11->C_DestroyObject(session, lease));
    OKAY(p11->C_FindObjects(session, list, COUNT(list), &n));
    for (CK_ULONG i = 0; i < n; i++)
        CHECK(list[i] != lease);
}

static void strangers_see_nothing(void)
{
    CK_OBJECT_HANDLE list[8];
    CK_ATTRIBUTE t = {CKA_CLASS, &class_key, sizeof(class_key)};
    CK_ATTRIBUTE a = {CKA_LABEL, key, sizeof(key)};
    mint(session, true);
    OKAY(p11->C_Logout(session));
    CK_ULONG n = found(&t, 1, list, COUNT(list));
    for (CK_ULONG i = 0; i < n; i++) { /* the admin key is public */
        a.ulValueLen = sizeof(key);
        OKAY(p11->C_GetAttributeValue(session, list[i], &a, 1));
        CHECK(a.ulValueLen == 9 && memcmp(key, "admin-key", 9) == 0);
    }
}

static void the_admin_key_is_never_read(void)
{
    char label[] = HSMINT_LABEL_ADMIN_KEY, room[512];
    CK_OBJECT_HANDLE o = 0;
    CK_ATTRIBUTE t = {CKA_LABEL, label, strlen(label)};
    CHECK(found(&t, 1, &o, 1) == 1);
    CK_ATTRIBUTE a = {CKA_VALUE, room, sizeof(room)};
    GIVES(CKR_ATTRIBUTE_SENSITIVE, p11->C_GetAttributeValue(session, o, &a, 1));
    CHECK(a.ulValueLen == CK_UNAVAILABLE_INFORMATION);
    a = (CK_ATTRIBUTE){CKA_SENSITIVE, &no, sizeof(no)};
    REFUSES(p11->C_SetAttributeValue(session, o, &a, 1));
    a = (CK_ATTRIBUTE){CKA_EXTRACTABLE, &yes, sizeof(yes)};
    REFUSES(p11->C_SetAttributeValue(session, o, &a, 1));
    REFUSES(p11->C_DestroyObject(session, o));
    CK_OBJECT_HANDLE copy = 0;
    REFUSES(p11->C_CopyObject(session, o, &a, 1, &copy));
}

#define CASE(f)                                                                \
    {                                                                          \
#f, f, AT_LEASE, 0                                                     \
    }

static const struct abuse_case cases[] = {
    CASE(template_nowhere),
    CASE(template_of_2_to_the_32),
    CASE(template_of_all_ones),
    CASE(template_of_10000),
    CASE(template_empty),
    CASE(values_nowhere_with_a_length),
    CASE(values_of_all_ones),
    CASE(values_of_2_to_the_32),
    CASE(numbers_of_odd_lengths),
    CASE(truths_of_odd_lengths),
    CASE(truths_of_odd_values),
    CASE(values_at_odd_addresses),
    CASE(the_same_attribute_twice),
    CASE(unknown_attributes),
    CASE(templates_in_templates),
    CASE(read_only_attributes_in_a_template),
    CASE(keys_are_not_given),
    CASE(times_to_live),
    CASE(classes_that_are_not_ours),
    CASE(labels_that_bite),
    CASE(ids_that_bite),
    CASE(no_place_for_the_handle),
    CASE(mechanisms_that_are_not_ours),
    CASE(mechanism_parameters),
    {"minting_without_login", minting_without_login, AT_SESSION, 0},
    CASE(data_that_bites),
    CASE(each_attribute_into_short_buffers),
    CASE(size_queries_with_a_length),
    CASE(unknown_attributes_are_told),
    CASE(good_attributes_beside_bad_ones),
    CASE(guessed_objects),
    CASE(objects_are_not_copied),
    CASE(sizes_of_objects),
    CASE(destroyed_twice),
    CASE(object_handles_are_not_used_again),
    CASE(setting_what_is_not_ones_own),
    CASE(setting_lies),
    CASE(renewing_for_ever),
    CASE(searches_out_of_order),
    CASE(searches_into_nowhere),
    CASE(searches_of_odd_sizes),
    CASE(searches_with_lies),
    CASE(searches_for_keys),
    CASE(search_across_a_logout),
    CASE(search_across_a_destruction),
    CASE(strangers_see_nothing),
    CASE(the_admin_key_is_never_read),
};

const struct abuse_group abuse_objects = {cases, COUNT(cases)};
