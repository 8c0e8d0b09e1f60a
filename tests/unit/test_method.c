/* The daemon's method table and spec/org.hsmint.varlink say the same. */
#include "config.h"

#include "common/file.h"
#include "tools/method.h"

#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* The parameter list of a method in the text, or NULL; the caller frees. */
static char *declared(const char *method)
{
    char wanted[80];
    snprintf(wanted, sizeof wanted, "\nmethod %s(", method);
    const char *at = strstr(method_interface, wanted);
    if (!at)
        return NULL;
    at += strlen(wanted);
    return strndup(at, strcspn(at, ")"));
}

static enum method_param param_named(const char *name)
{
    for (unsigned p = 0; p < METHOD_PARAMS; p++)
        if (!strcmp(method_param_name(p), name))
            return (enum method_param)p;
    fail_msg("no method decodes the parameter %s", name);
    return METHOD_PARAMS;
}

static void check_parameters(const struct method *m, char *list)
{
    uint64_t required = 0, optional = 0;
    char *rest = NULL;
    for (char *one = strtok_r(list, ",", &rest); one;
         one = strtok_r(NULL, ",", &rest)) {
        char name[32], type[32];
        assert_int_equal(sscanf(one, " %31[a-z_]: %31s", name, type), 2);
        enum method_param p = param_named(name);
        const char *bare = type[0] == '?' ? type + 1 : type;
        if (strcmp(bare, method_param_type(p)))
            fail_msg("%s: %s is %s in the table, %s in the interface", m->name,
                     name, method_param_type(p), bare);
        *(type[0] == '?' ? &optional : &required) |= UINT64_C(1) << p;
    }
    if (required != m->required || optional != m->optional)
        fail_msg("%s: parameters of table and interface differ: required "
                 "%#" PRIx64 " and %#" PRIx64 ", optional %#" PRIx64
                 " and %#" PRIx64,
                 m->name, m->required, required, m->optional, optional);
}

static void table_is_in_interface(void **state)
{
    (void)state;
    for (size_t i = 0; i < method_count; i++) {
        const struct method *m = &method_table[i];
        if (strchr(m->name, '.'))
            continue;
        FREE char *list = declared(m->name);
        if (!list)
            fail_msg("%s is in no interface", m->name);
        check_parameters(m, list);
    }
}

static void interface_is_in_table(void **state)
{
    (void)state;
    size_t n = 0;
    const char *at = method_interface;
    while ((at = strstr(at, "\nmethod "))) {
        char name[64];
        at += strlen("\nmethod ");
        assert_int_equal(sscanf(at, "%63[A-Za-z]", name), 1);
        bool found = false;
        for (size_t i = 0; i < method_count; i++)
            found |= !strcmp(method_table[i].name, name);
        if (!found)
            fail_msg("%s of the interface is not served", name);
        n++;
    }
    assert_true(n > 20);
}

/* Whatever changes something carries the caller's request_id, and the server
 * keeps no answer that it cannot name. */
static void journaled_methods_have_request_ids(void **state)
{
    (void)state;
    for (size_t i = 0; i < method_count; i++)
        if (method_table[i].flags & METHOD_JOURNAL)
            assert_true(method_table[i].required &
                        UINT64_C(1) << PARAM_REQUEST_ID);
}

#define CAP(name) CAPABILITY_BIT(CAP_##name)
#define SHOWN CAPABILITY_ROLE_SHOWN

/* What is not here needs nothing, and that is written down, too. */
static const struct {
    const char *name;
    uint32_t needs;
} rights[] = {
    {"Attach", 0},
    {"Login", 0},
    {"Logout", 0},
    {"CreateLogin", CAP(ADMINISTER)},
    {"RotateLogin", CAP(ADMINISTER)},
    {"GetLogin", CAP(ADMINISTER)},
    {"ListLogins", CAP(ADMINISTER)},
    {"DeleteLogin", CAP(ADMINISTER)},
    {"Lock", CAP(ADMINISTER)},
    {"Stop", CAP(ADMINISTER)},
    {"Status", CAP(STATUS)},
    {"Hsm", CAP(STATUS)},
    {"CheckService", CAP(STATUS)},
    {"Metrics", CAP(STATUS)},
    {"Slots", 0},
    {"AuditKeys", 0},
    {"Random", CAPABILITY_ALL},
    {"EndSession", 0},
    {"Init", CAP(ADMINISTER)},
    {"SetConfig", CAP(ADMINISTER)},
    {"GetConfig", CAP(ADMINISTER) | CAP(STATUS)},
    {"RotateConfig", CAP(ROTATE)},
    {"RotateHsm", CAP(ADMINISTER)},
    {"CompromisedHsmKey", CAP(ADMINISTER)},
    {"DestroyHsmKey", CAP(ADMINISTER)},
    {"Ceremony", CAP(ADMINISTER)},
    {"RestoreHsm", CAP(ADMINISTER)},
    {"GetRecovery", CAP(ADMINISTER)},
    {"DeleteConfig", CAP(ADMINISTER)},
    {"SetRole", CAP(ADMINISTER)},
    {"GetRole", SHOWN},
    {"ListRoles", 0},
    {"DeleteRole", CAP(ADMINISTER)},
    {"Mint", CAP(MINT)},
    {"Renew", CAP(RENEW)},
    {"Revoke", CAP(REVOKE_OWN) | CAP(REVOKE_ANY)},
    {"RevokeMany", CAP(REVOKE_OWN) | CAP(REVOKE_ANY)},
    {"RevokeAll", CAP(ADMINISTER)},
    {"RevokeAllStatus", CAP(ADMINISTER) | CAP(STATUS)},
    {"GetLease", CAP(LIST_OWN) | CAP(LIST_ANY)},
    {"ListLeases", CAP(LIST_OWN) | CAP(LIST_ANY)},
    {"ReadKey", CAP(READ)},
    {"LabelLease", CAP(MINT)},
    {"WhoAmI", 0},
    {"SetPolicy", CAP(ADMINISTER)},
    {"GetPolicy", CAP(ADMINISTER) | CAP(AUDIT)},
    {"ListPolicies", CAP(ADMINISTER) | CAP(AUDIT)},
    {"DeletePolicy", CAP(ADMINISTER)},
    {"TestPolicy", CAP(ADMINISTER) | CAP(AUDIT)},
    {"Records", CAP(AUDIT)},
    {"Reconcile", CAP(ADMINISTER)},
    {"ReconcileStatus", CAP(ADMINISTER) | CAP(AUDIT)},
    {"Backup", CAP(ADMINISTER)},
    {"Reconcile", CAP(ADMINISTER)},
    {"ReconcileStatus", CAP(ADMINISTER) | CAP(AUDIT)},
    {"Backup", CAP(ADMINISTER)},
    {"LogHead", CAP(AUDIT)},
    {"LogProof", CAP(AUDIT)},
    {"LogConsistency", CAP(AUDIT)},
    {"MarkExported", CAP(AUDIT)},
    {"PruneLog", CAP(ADMINISTER)},
    {"AcceptRollback", CAP(ADMINISTER)},
    {"Whose", CAP(AUDIT)},
    {"org.varlink.service.GetInfo", 0},
    {"org.varlink.service.GetInterfaceDescription", 0},
};

static void rights_are_as_decided(void **state)
{
    (void)state;
    for (size_t i = 0; i < method_count; i++) {
        const struct method *m = &method_table[i];
        bool found = false;
        for (size_t r = 0; r < sizeof rights / sizeof rights[0]; r++) {
            if (strcmp(rights[r].name, m->name))
                continue;
            found = true;
            if (rights[r].needs != m->needs)
                fail_msg("%s needs %#x, not %#x", m->name, rights[r].needs,
                         m->needs);
        }
        if (!found)
            fail_msg("%s: who may call it is not decided", m->name);
        /* What is about a role or the daemon is not left to core. */
        if (m->flags & METHOD_LEASE)
            assert_false(m->flags & (METHOD_ROLE | METHOD_DAEMON));
        if (m->flags & METHOD_OPEN)
            assert_int_equal(m->needs, 0);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(table_is_in_interface),
        cmocka_unit_test(interface_is_in_table),
        cmocka_unit_test(journaled_methods_have_request_ids),
        cmocka_unit_test(rights_are_as_decided),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
