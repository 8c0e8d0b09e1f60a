#include "config.h"

#include "module/pkcs11/kinds.h"

#include <stdio.h>

/* The profiles of PKCS#11 3.x that the token conforms to, so that a program
 * can find out: one public object each. */

static const struct profile {
    CK_ULONG id;
    const char *name;
} profiles[] = {
    {CKP_BASELINE_PROVIDER, "Baseline Provider"},
    {CKP_EXTENDED_PROVIDER, "Extended Provider"},
};

static CK_RV read_profile_id(const struct object *o, struct attribute_value *v)
{
    return attribute_number(v, (CK_ULONG)object_number(o, "id"));
}

static const struct attribute_rule rules[] = {
    {.type = CKA_CLASS,
     .shape = SHAPE_ULONG,
     .use = USE_FIXED,
     .fixed = CKO_PROFILE},
    {.type = CKA_PROFILE_ID, .shape = SHAPE_ULONG, .read = read_profile_id},
    {.type = CKA_LABEL, .shape = SHAPE_TEXT, .member = "label"},
    {.type = CKA_UNIQUE_ID, .shape = SHAPE_TEXT, .member = "unique"},
    ATTRIBUTE_ALWAYS(CKA_TOKEN, CK_TRUE),
    ATTRIBUTE_ALWAYS(CKA_PRIVATE, CK_FALSE),
    ATTRIBUTE_ALWAYS(CKA_MODIFIABLE, CK_FALSE),
    ATTRIBUTE_ALWAYS(CKA_COPYABLE, CK_FALSE),
    ATTRIBUTE_ALWAYS(CKA_DESTROYABLE, CK_FALSE),
};

static json_t *facts_of(const struct profile *p)
{
    char unique[32];
    snprintf(unique, sizeof(unique), "profile/%lu", p->id);
    return json_pack("{sI ss ss}", "id", (json_int_t)p->id, "label", p->name,
                     "unique", unique);
}

static CK_RV profile_gather(struct call *c, const struct template *t,
                            struct handles *out)
{
    CK_RV rv = CKR_OK;
    for (size_t i = 0;
         rv == CKR_OK && i < sizeof(profiles) / sizeof(*profiles); i++)
        rv = object_gather(c, &kind_profile, profiles[i].name,
                           facts_of(&profiles[i]), t, out);
    return rv;
}

const struct object_kind kind_profile = {
    .schema = ATTRIBUTE_SCHEMA("profile", rules),
    .gather = profile_gather,
};
