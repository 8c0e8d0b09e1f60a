/* Templates as callers lie: any types, lengths, NULL pointers. Whatever passes
 * the check is read, matched and got, within its own bytes. */
#include "config.h"

#include "common/clock.h"
#include "module/pkcs11/hsmint.h"
#include "module/pkcs11/kinds.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* One attribute: 1 byte says which type, 1 what lie, 1 how long. */
#define STEP 3
#define ATTRS_MAX 40

static const CK_ATTRIBUTE_TYPE types[] = {
    CKA_CLASS,        CKA_KEY_TYPE,
    CKA_TOKEN,        CKA_LABEL,
    CKA_ID,           CKA_VALUE,
    CKA_VALUE_LEN,    CKA_EXTRACTABLE,
    CKA_SENSITIVE,    CKA_PRIVATE,
    CKA_ENCRYPT,      CKA_APPLICATION,
    CKA_OBJECT_ID,    CKA_START_DATE,
    CKA_UNIQUE_ID,    CKA_LOCAL,
    CKA_HSMINT_TTL,   CKA_HSMINT_ROLE,
    CKA_HSMINT_STATE, CKA_WRAP_TEMPLATE,
    CKA_END_DATE,     CKA_KEY_GEN_MECHANISM,
    CKA_COPYABLE,     0x7fffffffUL,
};

static const struct object_kind *const kinds[] = {
    &kind_lease, &kind_role, &kind_config, &kind_last_error, &kind_admin_key,
};

/* Each value has memory of its own, so that a step beyond is seen. */
static CK_ULONG build(const uint8_t *data, size_t size, CK_ATTRIBUTE *attrs,
                      void **memory)
{
    CK_ULONG n = 0;
    while (size >= STEP && n < ATTRS_MAX) {
        CK_ATTRIBUTE *a = &attrs[n];
        size_t len = data[2];
        a->type = types[data[0] % (sizeof(types) / sizeof(types[0]))];
        uint8_t lie = data[1];
        data += STEP;
        size -= STEP;
        if (len > size)
            len = size;
        memory[n] = len ? malloc(len) : NULL;
        if (memory[n])
            memcpy(memory[n], data, len);
        data += len;
        size -= len;
        a->pValue = lie == 1 ? NULL : memory[n];
        a->ulValueLen = lie == 2 ? CK_UNAVAILABLE_INFORMATION : len;
        n++;
    }
    return n;
}

static void use(struct call *c, const struct template *t)
{
    for (size_t k = 0; k < sizeof(kinds) / sizeof(kinds[0]); k++) {
        const struct attribute_schema *s = &kinds[k]->schema;
        (void)attribute_excludes(s, t);
        if (template_check_schema(c, t, s, USE_CREATE, true) != CKR_OK)
            continue;
        free(template_text(t, CKA_LABEL));
        (void)template_bool(t, CKA_TOKEN, false);
        (void)template_ulong(t, CKA_HSMINT_TTL, 0);
        (void)template_text_is(t, CKA_APPLICATION, HSMINT_APPLICATION_ROLE);
        (void)admin_key_meant(t);
    }
}

/* An object to match and to read: a lease without its key. */
static void read_object(const struct template *t, CK_ATTRIBUTE *attrs,
                        CK_ULONG n)
{
    char name[] = "01jd0000000000000000000000";
    JSON facts = json_pack("{ss ss ss sb sI sI}", "role", "my-role", "label",
                           "", "id", "zz", "bound", 1, "issued_ms",
                           (json_int_t)INT64_MAX, "expires_ms", (json_int_t)-1);
    const struct object o = {
        .kind = &kind_lease, .slot = 1, .name = name, .facts = facts};
    if (!facts)
        abort();
    (void)attribute_matches(&o, t);
    (void)attribute_get(&o, attrs, n);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    CK_ATTRIBUTE attrs[ATTRS_MAX];
    void *memory[ATTRS_MAX];
    struct call c = {0};
    CK_ULONG n = build(data, size, attrs, memory);
    const struct template t = {attrs, n};
    if (template_check(&c, &t) == CKR_OK) {
        use(&c, &t);
        read_object(&t, attrs, n);
    }
    for (CK_ULONG i = 0; i < n; i++)
        free(memory[i]);
    return 0;
}
