/* A program's calls and the daemon's answers, both told by the bytes. The
 * daemon is a double of common/client.h: it fails, or it answers what its
 * method should, as it is or with one member gone wrong, or the bytes' own
 * JSON. Whatever comes: no handle comes with an error, no success without one,
 * nothing is written beyond a buffer, and C_Finalize ends it all. */
#include "config.h"

#include "common/client.h"
#include "common/file.h"
#include "common/text.h"
#include "module/pkcs11/cryptoki.h"
#include "module/pkcs11/hsmint.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define CHECK(what)                                                            \
    do {                                                                       \
        if (!(what))                                                           \
            abort();                                                           \
    } while (0)
#define COUNT(t) (sizeof(t) / sizeof((t)[0]))
#define STEPS_MAX 64
#define ATTRS_MAX 12
#define HANDLES 8

/* ---- the bytes: calls take them from the front ---- */

static const uint8_t *at;
static size_t left;

static uint8_t take(void)
{
    if (left == 0)
        return 0;
    left--;
    return *at++;
}

/* As many as there are; the caller frees. Exact, so that a step beyond is
 * seen; NULL for none. */
static void *take_some(size_t want, size_t *len)
{
    *len = want < left ? want : left;
    void *copy = *len ? malloc(*len) : NULL;
    if (copy)
        memcpy(copy, at, *len);
    at += *len;
    left -= *len;
    return copy;
}

/* ---- the daemon ---- */

struct client {
    char nothing;
};

enum code client_new(struct client **out, const struct client_options *o,
                     struct error *e)
{
    (void)o;
    *out = calloc(1, sizeof(**out));
    return *out ? OK : error_set(e, ERR_NOMEM, "no memory");
}

void client_free(struct client *c)
{
    free(c);
}

void client_freep(struct client **c)
{
    client_free(*c);
    *c = NULL;
}

void client_abandon(struct client *c)
{
    (void)c;
    abort(); /* there is no fork here */
}

void client_allow_start(struct client *c, bool allow)
{
    CHECK(c);
    (void)allow;
}

enum code client_connect(struct client *c, struct error *e)
{
    CHECK(c);
    return take() % 16 == 1 ? error_set(e, ERR_DAEMON_DOWN, "as told") : OK;
}

#define LEASE                                                                  \
    "{\"lease_id\":\"01jd0000000000000000000000\",\"org\":\"default\","        \
    "\"role\":\"my-role\",\"state\":\"active\",\"owner\":\"user:0\","          \
    "\"program\":\"p\",\"bound\":true,\"session\":1,\"issued_ms\":1,"          \
    "\"expires_ms\":4000000000000,\"max_expires_ms\":4100000000000,"           \
    "\"lease_duration\":60,\"lease_renewable\":true,\"project_id\":\"proj\","  \
    "\"service_account\":\"sa\",\"service_account_id\":\"u\","                 \
    "\"api_key_id\":\"k\",\"api_base\":\"https://x/v1\",\"label\":\"\","       \
    "\"id\":\"cafe\",\"kept\":true}"

static const struct {
    const char *method;
    const char *reply;
    bool secret; /* comes along */
} replies[] = {
    {"Slots",
     "{\"slots\":[{\"id\":1,\"org\":\"default\",\"label\":\"hsmint\","
     "\"serial\":\"0123\"},{\"id\":7,\"org\":\"lab\",\"label\":\"l\","
     "\"serial\":\"9\"}],\"locked\":false,\"protected\":false,"
     "\"version\":\"0.1.0\"}",
     false},
    {"Login", "{\"login\":\"batch\"}", false},
    {"Mint", "{\"lease\":" LEASE ",\"warnings\":[]}", true},
    {"Renew", "{\"lease\":" LEASE "}", false},
    {"GetLease", "{\"lease\":" LEASE "}", false},
    {"ListLeases", "{\"leases\":[" LEASE "],\"more\":false}", false},
    {"ReadKey", "{}", true},
    {"SetRole", "{\"role\":{\"name\":\"r\",\"ttl\":60}}", false},
    {"ListRoles", "{\"roles\":[{\"name\":\"r\",\"ttl\":60}]}", false},
    {"SetPolicy", "{\"policy\":{\"name\":\"p\",\"orgs\":[\"*\"]}}", false},
    {"ListPolicies",
     "{\"policies\":[{\"name\":\"p\",\"source\":\"file\"},"
     "{\"name\":\"q\"}]}",
     false},
    {"GetConfig",
     "{\"config\":{\"configured\":true,\"admin_api_key_id\":\"key_1\"}}",
     false},
    {"SetConfig",
     "{\"config\":{\"configured\":true,\"admin_api_key_id\":\"key_1\"},"
     "\"warnings\":[]}",
     false},
    {"AuditKeys",
     "{\"keys\":[{\"id\":\"00\",\"label\":\"hsmint-log-1\",\"public_key\":"
     "\"MFkwEwYHKoZIzj0CAQYIKoZIzj0DAQcDQgAEwUpBwRDdnL4HLBNk/o4Ak91K+O1Y"
     "zS/dvlK+QF1olJddqdhnBas5/v0bJ6NGtvot0YWpx+4OO1TqL/D0Ye7dcg==\"}]}",
     false},
    {"Random", "{}", true},
};

static const char *const odd_values[] = {
    "null",
    "-1",
    "9223372036854775807",
    "\"\"",
    "\"\\u0001\\n\\u202e\"",
    "[]",
    "{}",
    "true",
    "[[[[[[[[]]]]]]]]",
    "1e300",
    "\"zz\"",
    "\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
    "a"
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
    "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
    "\"",
};

/* The nth member at any depth becomes `value`, or goes. */
static void spoil(json_t *j, unsigned *n, json_t *value)
{
    const char *name;
    json_t *member;
    void *next;
    size_t i;
    if (json_is_array(j)) {
        json_array_foreach(j, i, member) spoil(member, n, value);
        return;
    }
    json_object_foreach_safe(j, next, name, member)
    {
        if ((*n)-- == 0) {
            if (value)
                json_object_set(j, name, value);
            else
                json_object_del(j, name);
            return;
        }
        spoil(member, n, value);
    }
}

static json_t *answer(const char *method, bool *secret)
{
    uint8_t how = take();
    const char *text = "{}";
    *secret = false;
    for (size_t i = 0; i < COUNT(replies); i++) {
        if (strcmp(replies[i].method, method) == 0) {
            text = replies[i].reply;
            *secret = replies[i].secret;
        }
    }
    if (how % 4 == 3) { /* the bytes' own */
        size_t len;
        void *own = take_some(take(), &len);
        json_t *j = json_loadb(own ? own : "", len, 0, NULL);
        free(own);
        *secret = how & 8;
        return json_is_object(j) ? j : (json_decref(j), json_object());
    }
    json_t *j = json_loads(text, 0, NULL);
    CHECK(j);
    if (how % 4 == 2) {
        unsigned n = take();
        uint8_t which = take();
        JSON value = which < 0xf0
                         ? json_loads(odd_values[which % COUNT(odd_values)],
                                      JSON_DECODE_ANY, NULL)
                         : NULL;
        spoil(j, &n, value);
        *secret = *secret != (which & 1);
    }
    return j;
}

enum code client_call(struct client *c, const char *method, json_t *parameters,
                      const struct secret *in, json_t **reply,
                      struct secret **out, struct error *e)
{
    CHECK(c && method);
    FREE char *sent = parameters ? json_dumps(parameters, 0) : NULL;
    CHECK(!parameters || sent); /* it can be sent: valid UTF-8 throughout */
    CHECK(!in || secret_len(in) <= 4096);
    json_decref(parameters);
    if (reply)
        *reply = NULL;
    if (out)
        *out = NULL;
    uint8_t fate = take();
    if (fate % 8 == 7)
        return error_set(e, (enum code)(1 + fate / 8 % (ERR_INTERNAL - 1)),
                         "as told");
    bool secret;
    JSON j = answer(method, &secret);
    if (out && secret) {
        size_t len = take() % 80;
        static const char key[80] = "sk-svcacct-0123456789";
        CHECK(secret_dup(out, key, len ? len : 1, e) == OK);
    }
    if (reply)
        *reply = json_incref(j);
    return OK;
}

enum code client_tell(struct client *c, const char *method, json_t *parameters,
                      struct error *e)
{
    return client_call(c, method, parameters, NULL, NULL, NULL, e);
}

/* ---- the program ---- */

static CK_FUNCTION_LIST *p11;
static struct functions_3_0 *v3;
static CK_SESSION_HANDLE sessions[HANDLES];
static CK_OBJECT_HANDLE objects[HANDLES];
static size_t n_sessions, n_objects;

static CK_ULONG pick(const CK_ULONG *list, uint8_t which)
{
    static const CK_ULONG guesses[] = {0, 1, ~0UL, 1UL << 32};
    return which < 0xf0 ? list[which % HANDLES]
                        : guesses[which % COUNT(guesses)];
}

static void got(CK_RV rv, CK_ULONG handle, CK_ULONG *list, size_t *n)
{
    CHECK((rv == CKR_OK) == (handle != CK_INVALID_HANDLE));
    if (rv == CKR_OK)
        list[(*n)++ % HANDLES] = handle;
}

static const CK_ATTRIBUTE_TYPE types[] = {
    CKA_CLASS,        CKA_TOKEN,      CKA_LABEL,       CKA_VALUE,
    CKA_KEY_TYPE,     CKA_ID,         CKA_APPLICATION, CKA_EXTRACTABLE,
    CKA_VALUE_LEN,    CKA_START_DATE, CKA_UNIQUE_ID,   CKA_HSMINT_TTL,
    CKA_SENSITIVE,    CKA_EC_POINT,   CKA_HSMINT_ROLE, CKA_HSMINT_API_BASE,
    CKA_PRIVATE,      CKA_MODIFIABLE, CKA_ENCRYPT,     CKA_WRAP_TEMPLATE,
    CKA_HSMINT_STATE, 0x601UL,        CKA_END_DATE,    0x7fffffffUL,
};

/* Words that a program means, so that bytes need not guess them. */
static const struct {
    const void *data;
    size_t len;
} words[] = {
    {&(const CK_ULONG){CKO_SECRET_KEY}, sizeof(CK_ULONG)},
    {&(const CK_ULONG){CKO_DATA}, sizeof(CK_ULONG)},
    {&(const CK_ULONG){CKK_GENERIC_SECRET}, sizeof(CK_ULONG)},
    {&(const CK_ULONG){60}, sizeof(CK_ULONG)},
    {&(const CK_BBOOL){CK_TRUE}, 1},
    {&(const CK_BBOOL){CK_FALSE}, 1},
    {"my-role", 7},
    {"admin-key", 9},
    {HSMINT_APPLICATION_ROLE, sizeof(HSMINT_APPLICATION_ROLE) - 1},
    {HSMINT_APPLICATION_CONFIG, sizeof(HSMINT_APPLICATION_CONFIG) - 1},
    {HSMINT_APPLICATION_LAST_ERROR, sizeof(HSMINT_APPLICATION_LAST_ERROR) - 1},
    {"{\"ttl\":60}", 10},
    {"01jd0000000000000000000000", 26},
    {HSMINT_APPLICATION_POLICY, sizeof(HSMINT_APPLICATION_POLICY) - 1},
};

struct attributes {
    CK_ATTRIBUTE list[ATTRS_MAX];
    void *memory[ATTRS_MAX];
    CK_ULONG n;
};

static void attributes_take(struct attributes *a)
{
    a->n = take() % (ATTRS_MAX + 1);
    for (CK_ULONG i = 0; i < a->n; i++) {
        uint8_t what = take(), lie = take();
        size_t len = 0;
        a->memory[i] = NULL;
        if (lie < 0x80) {
            len = words[lie % COUNT(words)].len;
            a->memory[i] = malloc(len);
            CHECK(a->memory[i]);
            memcpy(a->memory[i], words[lie % COUNT(words)].data, len);
        } else if (lie < 0xf0) {
            a->memory[i] = take_some(take(), &len);
        }
        a->list[i] = (CK_ATTRIBUTE){types[what % COUNT(types)], a->memory[i],
                                    lie == 0xfe   ? ~0UL
                                    : lie == 0xff ? 8
                                                  : len};
    }
}

static void attributes_clear(struct attributes *a)
{
    for (CK_ULONG i = 0; i < a->n; i++)
        free(a->memory[i]);
}

static void slots_and_session(uint8_t op)
{
    CK_SLOT_ID list[4];
    CK_ULONG n = op & 1 ? COUNT(list) : 0;
    CK_TOKEN_INFO token;
    CK_SLOT_INFO slot;
    CK_SESSION_HANDLE s = CK_INVALID_HANDLE;
    CK_SLOT_ID id = take() & 1 ? 1 : 7;
    (void)p11->C_GetSlotList(CK_TRUE, op & 1 ? list : NULL, &n);
    (void)p11->C_GetTokenInfo(id, &token);
    (void)p11->C_GetSlotInfo(id, &slot);
    (void)p11->C_WaitForSlotEvent(CKF_DONT_BLOCK, &n, NULL);
    CK_FLAGS flags = take() & 1 ? 0 : CKF_RW_SESSION;
    CK_RV rv =
        p11->C_OpenSession(id, CKF_SERIAL_SESSION | flags, NULL, NULL, &s);
    got(rv, s, sessions, &n_sessions);
}

static void log_in(CK_SESSION_HANDLE s)
{
    static CK_BYTE pin[] = "1234";
    uint8_t how = take();
    CK_USER_TYPE user = how & 1 ? CKU_SO : CKU_USER;
    CK_BYTE *given = how & 2 ? NULL : pin;
    CK_ULONG len = how & 2 ? 0 : sizeof(pin) - 1;
    if (how & 4) {
        size_t name_len;
        FREE void *name = take_some(how >> 3, &name_len);
        (void)v3->C_LoginUser(s, user, given, len, name, name_len);
    } else {
        (void)p11->C_Login(s, user, given, len);
    }
}

static void create(CK_SESSION_HANDLE s, bool generate)
{
    CLEANUP(attributes_clear) struct attributes a;
    CK_MECHANISM m = {CKM_GENERIC_SECRET_KEY_GEN, NULL, 0};
    CK_OBJECT_HANDLE o = CK_INVALID_HANDLE;
    attributes_take(&a);
    CK_RV rv = generate ? p11->C_GenerateKey(s, &m, a.list, a.n, &o)
                        : p11->C_CreateObject(s, a.list, a.n, &o);
    got(rv, o, objects, &n_objects);
}

static void search(CK_SESSION_HANDLE s)
{
    CLEANUP(attributes_clear) struct attributes a;
    attributes_take(&a);
    CK_ULONG n = 0, max = take() % 4;
    CK_OBJECT_HANDLE *list = malloc((max ? max : 1) * sizeof(*list));
    CHECK(list);
    (void)p11->C_FindObjectsInit(s, a.list, a.n);
    CK_RV rv = p11->C_FindObjects(s, list, max, &n);
    CHECK(rv != CKR_OK || n <= max);
    for (CK_ULONG i = 0; rv == CKR_OK && i < n; i++)
        got(rv, list[i], objects, &n_objects);
    if (take() & 1)
        (void)p11->C_FindObjectsFinal(s);
    free(list);
}

static void get(CK_SESSION_HANDLE s, CK_OBJECT_HANDLE o)
{
    CLEANUP(attributes_clear) struct attributes a;
    attributes_take(&a);
    CK_RV rv = p11->C_GetAttributeValue(s, o, a.list, a.n);
    for (CK_ULONG i = 0; rv == CKR_OK && i < a.n; i++)
        CHECK(a.list[i].ulValueLen != CK_UNAVAILABLE_INFORMATION);
}

static void set(CK_SESSION_HANDLE s, CK_OBJECT_HANDLE o)
{
    CLEANUP(attributes_clear) struct attributes a;
    attributes_take(&a);
    (void)p11->C_SetAttributeValue(s, o, a.list, a.n);
}

static void random_bytes(CK_SESSION_HANDLE s)
{
    size_t n = take();
    CK_BYTE *out = malloc(n ? n : 1);
    CHECK(out);
    (void)p11->C_GenerateRandom(s, out, n);
    (void)p11->C_SeedRandom(s, out, n ? 1 : 0);
    free(out);
}

static void step(void)
{
    uint8_t op = take();
    CK_SESSION_HANDLE s = pick(sessions, take());
    CK_OBJECT_HANDLE o = pick(objects, take());
    CK_SESSION_INFO info;
    CK_ULONG n;
    switch (op % 16) {
    case 0:
    case 1:
        slots_and_session(op);
        break;
    case 2:
        log_in(s);
        break;
    case 3:
        (void)p11->C_Logout(s);
        break;
    case 4:
    case 5:
        create(s, op & 1);
        break;
    case 6:
    case 7:
        search(s);
        break;
    case 8:
    case 9:
        get(s, o);
        break;
    case 10:
        set(s, o);
        break;
    case 11:
        (void)p11->C_DestroyObject(s, o);
        break;
    case 12:
        (void)p11->C_GetSessionInfo(s, &info);
        (void)p11->C_GetObjectSize(s, o, &n);
        (void)p11->C_CopyObject(s, o, NULL, 0, &o);
        (void)p11->C_FindObjectsFinal(s);
        break;
    case 13:
        (void)p11->C_CloseSession(s);
        break;
    case 14:
        random_bytes(s);
        break;
    default:
        (void)p11->C_CloseAllSessions(op & 16 ? 1 : 7);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    CK_INFO info;
    at = data;
    left = size;
    n_sessions = n_objects = 0;
    memset(sessions, 0, sizeof(sessions));
    memset(objects, 0, sizeof(objects));
    CK_INTERFACE *latest;
    CHECK(C_GetFunctionList(&p11) == CKR_OK);
    CHECK(C_GetInterface(NULL, NULL, &latest, 0) == CKR_OK);
    v3 = latest->pFunctionList;
    CHECK(p11->C_Initialize(NULL) == CKR_OK);
    for (int i = 0; i < STEPS_MAX && left > 0; i++)
        step();
    CHECK(p11->C_Finalize(NULL) == CKR_OK);
    CHECK(p11->C_GetInfo(&info) == CKR_CRYPTOKI_NOT_INITIALIZED);
    return 0;
}
