/* Keys that are not ours, not alone, or not what they were. */
#include "config.h"

#include "tests/unit/hsm_fixture.h"

#include "hsm/object.h"
#include "hsm/soft.h"

#include <unistd.h>

/* Objects made and changed behind the keeper's back, in its own session. */
static CK_ATTRIBUTE *planted;
static CK_ULONG planted_count;

static enum code op_plant(struct hsm *h, struct session *s, void *arg,
                          struct error *e)
{
    (void)h;
    (void)arg;
    CK_OBJECT_HANDLE made;
    return HSM_CALL(s, e, "planted", C_CreateObject, planted, planted_count,
                    &made);
}

static void plant(struct hsm *h, CK_ATTRIBUTE *template, CK_ULONG n)
{
    planted = template;
    planted_count = n;
    must(hsm_run(h, NEED_LOGIN, false, op_plant, NULL, &error));
}

static void plant_aes(struct hsm *h, const char *label, const uint8_t id[16],
                      bool extractable)
{
    CK_OBJECT_CLASS class = CKO_SECRET_KEY;
    CK_KEY_TYPE type = CKK_AES;
    CK_BBOOL yes = CK_TRUE, no = CK_FALSE, ex = extractable;
    const uint8_t value[32] = "known to whoever planted it....";
    CK_ATTRIBUTE t[] = {ATTR(CKA_CLASS, class),
                        ATTR(CKA_KEY_TYPE, type),
                        ATTR(CKA_TOKEN, yes),
                        ATTR(CKA_PRIVATE, yes),
                        ATTR(CKA_SENSITIVE, yes),
                        ATTR(CKA_EXTRACTABLE, ex),
                        ATTR(CKA_ENCRYPT, yes),
                        ATTR(CKA_DECRYPT, yes),
                        ATTR(CKA_SIGN, no),
                        ATTR(CKA_VERIFY, no),
                        ATTR(CKA_WRAP, no),
                        ATTR(CKA_UNWRAP, no),
                        ATTR(CKA_VALUE, value),
                        ATTR_TEXT(CKA_LABEL, label),
                        {CKA_ID, (void *)(uintptr_t)id, 16}};
    plant(h, t, sizeof t / sizeof t[0]);
}

static enum code op_destroy(struct hsm *h, struct session *s, void *arg,
                            struct error *e)
{
    (void)h;
    CK_OBJECT_HANDLE found[OBJECTS_MAX];
    size_t n;
    CK_ATTRIBUTE match[] = {ATTR_TEXT(CKA_LABEL, (char *)arg)};
    enum code rc = object_find(s, arg, match, 1, found, &n, e);
    for (size_t i = 0; !rc && i < n; i++)
        rc = object_destroy(s, arg, found[i], e);
    return rc;
}

static void destroy(struct hsm *h, const char *label)
{
    must(hsm_run(h, NEED_LOGIN, false, op_destroy, (void *)(uintptr_t)label,
                 &error));
}

static enum code op_destroy_private(struct hsm *h, struct session *s, void *arg,
                                    struct error *e)
{
    (void)h;
    CK_OBJECT_HANDLE found[OBJECTS_MAX];
    CK_OBJECT_CLASS class = CKO_PRIVATE_KEY;
    size_t n;
    CK_ATTRIBUTE match[] = {ATTR(CKA_CLASS, class),
                            ATTR_TEXT(CKA_LABEL, (char *)arg)};
    enum code rc = object_find(s, arg, match, 2, found, &n, e);
    for (size_t i = 0; !rc && i < n; i++)
        rc = object_destroy(s, arg, found[i], e);
    return rc;
}

static void destroy_private(struct hsm *h, const char *label)
{
    must(hsm_run(h, NEED_LOGIN, false, op_destroy_private,
                 (void *)(uintptr_t)label, &error));
}

static size_t count(struct hsm *h, const char *label);
struct counted {
    const char *label;
    size_t n;
};
static enum code op_count(struct hsm *h, struct session *s, void *arg,
                          struct error *e)
{
    (void)h;
    struct counted *c = arg;
    return keys_count(s, c->label, &c->n, e);
}
static size_t count(struct hsm *h, const char *label)
{
    struct counted c = {label, 0};
    must(hsm_run(h, NEED_LOGIN, false, op_count, &c, &error));
    return c.n;
}

static void log_in_again(struct fixture *f)
{
    bool by_hsm;
    restart(f);
    assert_int_equal(log_in(f->hsm, SOFTHSM_PIN, false, &by_hsm), OK);
}

static enum code check(struct fixture *f)
{
    JSON out = NULL;
    return hsm_provision(f->hsm, false, f->pins, &out, &error);
}

static void refused(struct fixture *f, const char *because)
{
    assert_int_equal(check(f), ERR_HSM_KEYS);
    if (!strstr(error.text, because))
        fail_msg("'%s' does not say '%s'", error.text, because);
    assert_false(hsm_ready(f->hsm));
}

static void pins_hold_over_a_restart(void **state)
{
    struct fixture *f = fixture(state);
    char before[64], after[64];
    must(hsm_keyid(provisioned(state), HSM_CALL, before, &error));
    assert_int_equal(strncmp(before, "hsmint-call-1:", 14), 0);
    log_in_again(f);
    assert_false(hsm_ready(f->hsm));
    must_fail(ERR_HSM_KEYS, hsm_keyid(f->hsm, HSM_CALL, after, &error));
    JSON out = NULL;
    must(hsm_provision(f->hsm, true, f->pins, &out, &error));
    assert_true(json_equal(json_object_get(out, "pins"), f->pins));
    must(hsm_keyid(f->hsm, HSM_CALL, after, &error));
    assert_string_equal(before, after);
    must(check(f)); /* again and again */
}

static void nothing_is_adopted(void **state)
{
    struct fixture *f = fixture(state);
    JSON out = NULL;
    (void)provisioned(state);
    log_in_again(f);
    must_fail(ERR_HSM_KEYS, hsm_provision(f->hsm, false, NULL, &out, &error));
    assert_non_null(strstr(error.text, "does not know"));
    must_fail(ERR_HSM_KEYS, hsm_provision(f->hsm, true, NULL, &out, &error));
    assert_non_null(strstr(error.text, "planted"));
    assert_int_equal(count(f->hsm, "hsmint-seal-1"), 1);
}

static void planted_before_init(void **state)
{
    struct fixture *f = fixture(state);
    const uint8_t id[16] = {1};
    JSON out = NULL;
    log_in_again(f);
    plant_aes(f->hsm, "hsmint-seal-1", id, false);
    must_fail(ERR_HSM_KEYS, hsm_provision(f->hsm, true, NULL, &out, &error));
    assert_int_equal(count(f->hsm, "hsmint-seal-1"), 1);
    assert_int_equal(count(f->hsm, "hsmint-call-1"), 0);
}

static void label_twice(void **state)
{
    struct fixture *f = fixture(state);
    const uint8_t id[16] = {1};
    plant_aes(provisioned(state), "hsmint-seal-1", id, false);
    log_in_again(f);
    refused(f, "several objects");
}

static void data_object_of_our_name(void **state)
{
    struct fixture *f = fixture(state);
    must(hsm_data_put(provisioned(state), "hsmint-log-1", (uint8_t[]){1}, 1,
                      &error));
    log_in_again(f);
    refused(f, "several objects");
}

static void replaced_by_a_planted_one(void **state)
{
    struct fixture *f = fixture(state);
    struct hsm *h = provisioned(state);
    uint8_t id[16];
    memcpy(id, atomic_load(&h->keys)->keys[HSM_SEAL].id, 16);
    destroy(h, "hsmint-seal-1");
    plant_aes(h, "hsmint-seal-1", id, false); /* same label, same id */
    log_in_again(f);
    refused(f, "CKA_LOCAL");
    destroy(f->hsm, "hsmint-seal-1");
    plant_aes(f->hsm, "hsmint-seal-1", id, true);
    refused(f, "CKA_EXTRACTABLE");
    destroy(f->hsm, "hsmint-seal-1");
    id[0] ^= 1;
    plant_aes(f->hsm, "hsmint-seal-1", id, false);
    refused(f, "CKA_ID");
}

static void missing_key(void **state)
{
    struct fixture *f = fixture(state);
    destroy(provisioned(state), "hsmint-call-1");
    log_in_again(f);
    refused(f, "missing");
    JSON out = NULL;
    must_fail(ERR_HSM_KEYS, hsm_provision(f->hsm, true, f->pins, &out, &error));
    assert_int_equal(count(f->hsm, "hsmint-call-1"), 0);
}

/* Another instance's keys, with the pinned ids but not the pinned keys. */
static void other_keys_of_the_same_ids(void **state)
{
    struct fixture *f = fixture(state);
    struct hsm *h = provisioned(state);
    static const char *const labels[] = {"hsmint-seal-1", "hsmint-blob-1",
                                         "hsmint-call-1", "hsmint-log-1",
                                         "hsmint-log-ed25519-1"};
    for (int i = 0; i < 5; i++)
        destroy(h, labels[i]);
    log_in_again(f);
    JSON out = NULL;
    must(hsm_provision(f->hsm, true, NULL, &out, &error));
    json_t *other = json_object_get(json_object_get(out, "pins"), "keys");
    json_t *mine = json_object_get(f->pins, "keys");
    for (size_t i = 0; i < json_array_size(mine); i++)
        json_object_set(json_array_get(mine, i), "id",
                        json_object_get(json_array_get(other, i), "id"));
    must_fail(ERR_HSM_KEYS, check(f)); /* another instance than the one here */
    log_in_again(f);
    refused(f, "does not verify");
    /* The EC keys' pins are right; the AES key's probe is the old one. */
    for (size_t i = 1; i < json_array_size(mine); i++)
        json_array_set(mine, i, json_array_get(other, i));
    refused(f, "probe does not open");
}

static void public_key_may_sign_only(void **state)
{
    struct fixture *f = fixture(state);
    struct hsm *h = provisioned(state);
    char command[600];
    snprintf(command, sizeof command,
             "pkcs11-tool --module %s --login --pin %s -O 2>/dev/null | "
             "grep -A9 'Private Key' | grep 'Usage:' | sort -u | tr -s ' ' | "
             "grep -qx ' Usage: sign'",
             softhsm_module(), SOFTHSM_PIN);
    (void)h;
    setenv("SOFTHSM2_CONF", f->token.conf, 1);
    if (system("command -v pkcs11-tool >/dev/null") != 0)
        skip();
    assert_int_equal(system(command), 0);
}

static void broken_pins(void **state)
{
    struct fixture *f = fixture(state);
    (void)provisioned(state);
    log_in_again(f);
    static const char *const fields[] = {"instance", "mechanism", "keys",
                                         "probe",    "hmac",      "format"};
    JSON whole = json_deep_copy(f->pins);
    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++) {
        JSON out = NULL;
        JSON cut = json_deep_copy(whole);
        json_object_del(cut, fields[i]);
        assert_int_not_equal(hsm_provision(f->hsm, false, cut, &out, &error),
                             OK);
        json_object_set_new(cut, fields[i], json_string("?"));
        assert_int_not_equal(hsm_provision(f->hsm, false, cut, &out, &error),
                             OK);
        assert_false(hsm_ready(f->hsm));
    }
    JSON other = json_deep_copy(whole);
    json_t *key = json_array_get(json_object_get(other, "keys"), HSM_CALL);
    json_object_set_new(key, "fingerprint", json_string("00"));
    JSON out = NULL;
    must_fail(ERR_HSM_KEYS, hsm_provision(f->hsm, false, other, &out, &error));
    must(check(f));
}

/* Text with the log's second key, as an instance of an older version gets it. */
static void older_instances_get_the_ed25519_key(void **state)
{
    static const char text[] = "hsmint/test\n0\n";
    const char *label = "hsmint-log-ed25519-1";
    struct fixture *f = fixture(state);
    uint8_t signature[64];
    JSON first = NULL;
    JSON second = NULL;
    JSON out = NULL;
    JSON again = NULL;
    JSON none = NULL;
    (void)provisioned(state);
    json_t *keys = json_object_get(f->pins, "keys");
    if (json_array_size(keys) != HSM_USES)
        skip(); /* this SoftHSM was built without it */
    must(hsm_sign_ed25519(f->hsm, text, strlen(text), signature, &error));
    const struct keyset *k = atomic_load(&f->hsm->keys);
    EVP_PKEY *public = k->keys[HSM_LOG_ED25519].public;
    assert_true(soft_verify_ed25519(public, text, strlen(text), signature));
    assert_false(soft_verify_ed25519(public, text, 3, signature));
    /* Pins of before: the key on the token is a stranger's then. */
    json_array_remove(keys, HSM_LOG_ED25519);
    log_in_again(f);
    must(hsm_provision(f->hsm, true, f->pins, &first, &error));
    must_fail(ERR_NOT_FOUND,
              hsm_sign_ed25519(f->hsm, text, 1, signature, &error));
    assert_int_equal(count(f->hsm, label), 2); /* left alone */
    destroy(f->hsm, label);
    /* Made only when told, and once. */
    log_in_again(f);
    must(hsm_provision(f->hsm, false, f->pins, &second, &error));
    assert_int_equal(count(f->hsm, label), 0);
    log_in_again(f);
    must(hsm_provision(f->hsm, true, f->pins, &out, &error));
    assert_int_equal(count(f->hsm, label), 2);
    must(hsm_sign_ed25519(f->hsm, text, 1, signature, &error));
    json_t *pins = json_object_get(out, "pins");
    assert_int_equal(json_array_size(json_object_get(pins, "keys")), HSM_USES);
    must(hsm_provision(f->hsm, true, pins, &again, &error));
    assert_true(json_equal(json_object_get(again, "pins"), pins));
    /* Pinned, so it has to be there. */
    destroy(f->hsm, label);
    log_in_again(f);
    must_fail(ERR_HSM_KEYS, hsm_provision(f->hsm, true, pins, &none, &error));
}

/* ---- another generation ---- */

static json_t *plan_of(struct hsm *h, const char *which)
{
    json_t *plan = NULL;
    must(hsm_rekey_plan(h, which, &plan, &error));
    return plan;
}

static json_t *made(struct hsm *h, const char *which, const json_t *plan)
{
    JSON out = NULL;
    must(hsm_rekey_make(h, which, plan, false, &out, &error));
    return json_incref(json_object_get(out, "pins"));
}

static void signed_by(struct hsm *h, const char *keyid_begin)
{
    char id[64];
    uint8_t spki[HSM_SPKI_MAX], digest[32] = {7}, signature[64];
    size_t len;
    EVP_PKEY *public = NULL;
    must(hsm_keyid(h, HSM_CALL, id, &error));
    assert_memory_equal(id, keyid_begin, strlen(keyid_begin));
    must(hsm_public(h, HSM_CALL, spki, &len, &error));
    must(soft_public(spki, len, SOFT_EC, &public, &error));
    must(hsm_sign(h, HSM_CALL, digest, signature, &error));
    assert_true(soft_verify(public, digest, signature));
    EVP_PKEY_free(public);
}

/* What is made is used once its pins are given, and for good. */
static void a_new_generation_is_taken_when_pinned(void **state)
{
    struct fixture *f = fixture(state);
    struct hsm *h = provisioned(state);
    JSON plan = plan_of(h, "call");
    JSON pins = made(h, "call", plan);
    JSON out = NULL;
    signed_by(h, "hsmint-call-1:");
    must(hsm_provision(h, true, pins, &out, &error));
    assert_true(json_equal(json_object_get(out, "pins"), pins));
    signed_by(h, "hsmint-call-2:");
    json_decref(out);
    must_fail(ERR_HSM_KEYS, hsm_provision(h, true, f->pins, &out, &error));
    signed_by(h, "hsmint-call-2:");
    assert_int_equal(count(h, "hsmint-call-1"), 2); /* left */
    /* The same for a keeper that was started again; then another one. */
    log_in_again(f);
    must(hsm_provision(f->hsm, true, pins, &out, &error));
    signed_by(f->hsm, "hsmint-call-2:");
    JSON third = plan_of(f->hsm, "call");
    JSON more = made(f->hsm, "call", third);
    json_decref(out);
    must(hsm_provision(f->hsm, true, more, &out, &error));
    signed_by(f->hsm, "hsmint-call-3:");
    assert_int_equal(json_array_size(json_object_get(more, "old")), 2);
    /* An old one that is only kept need not be there. */
    destroy(f->hsm, "hsmint-call-1");
    log_in_again(f);
    json_decref(out);
    must(hsm_provision(f->hsm, true, more, &out, &error));
    signed_by(f->hsm, "hsmint-call-3:");
}

/* A cut-off attempt's keys go, and nobody else's. */
static void what_is_left_is_made_anew(void **state)
{
    struct hsm *h = provisioned(state);
    const uint8_t id[16] = "somebody else's";
    JSON plan = plan_of(h, "call");
    JSON first = made(h, "call", plan);
    JSON again = made(h, "call", plan);
    JSON out = NULL;
    assert_int_equal(count(h, "hsmint-call-2"), 2);
    assert_false(json_equal(first, again));
    /* The first's key is gone: its pins are refused. */
    must_fail(ERR_HSM_KEYS, hsm_provision(h, true, first, &out, &error));
    signed_by(h, "hsmint-call-1:");
    destroy(h, "hsmint-call-2");
    plant_aes(h, "hsmint-call-2", id, true);
    must_fail(ERR_HSM_KEYS, hsm_rekey_make(h, "call", plan, false, &out, &error));
    assert_int_equal(count(h, "hsmint-call-2"), 1);
    /* Its name is passed over. */
    JSON other = plan_of(h, "call");
    JSON pins = made(h, "call", other);
    must(hsm_provision(h, true, pins, &out, &error));
    signed_by(h, "hsmint-call-3:");
}

/* What the plan names goes, whatever of it is there; and nothing that is pinned,
 * nor what is somebody else's. */
static void what_is_left_is_cleared(void **state)
{
    struct hsm *h = provisioned(state);
    const uint8_t id[16] = "somebody else's";
    JSON plan = plan_of(h, "log");
    JSON pins = made(h, "log", plan);
    JSON out = NULL;
    plant_aes(h, "hsmint-log-2", id, true);
    must(hsm_rekey_clear(h, plan, &error));
    assert_int_equal(count(h, "hsmint-log-2"), 1);
    assert_int_equal(count(h, "hsmint-log-ed25519-2"), 0);
    must(hsm_rekey_clear(h, plan, &error));
    destroy(h, "hsmint-log-2");
    JSON again = made(h, "log", plan);
    must(hsm_provision(h, true, again, &out, &error));
    must_fail(ERR_INVALID, hsm_rekey_clear(h, plan, &error));
    assert_int_equal(count(h, "hsmint-log-2"), 2);
}

/* Of an old log key that was half destroyed the public half is left. */
static void half_of_an_old_key_holds_nobody_up(void **state)
{
    struct fixture *f = fixture(state);
    struct hsm *h = provisioned(state);
    JSON plan = plan_of(h, "log");
    JSON pins = made(h, "log", plan);
    JSON out = NULL;
    JSON end = NULL;
    must(hsm_provision(h, true, pins, &out, &error));
    destroy_private(h, "hsmint-log-1");
    assert_int_equal(count(h, "hsmint-log-1"), 1);
    log_in_again(f);
    json_decref(out);
    must(hsm_provision(f->hsm, true, pins, &out, &error));
    must(hsm_destroy(f->hsm, "hsmint-log-1", &end, &error));
    assert_int_equal(count(f->hsm, "hsmint-log-1"), 0);
}

/* `value` at member of the first old key's object `at` ("key" or NULL). */
static void refused_old(struct hsm *h, const json_t *pins, const char *at,
                        const char *member, json_t *value)
{
    JSON other = json_deep_copy(pins);
    JSON out = NULL;
    json_t *old = json_array_get(json_object_get(other, "old"), 0);
    assert_int_equal(json_object_set_new(at ? json_object_get(old, at) : old,
                                         member, value),
                     0);
    must_fail(ERR_HSM_KEYS, hsm_provision(h, true, other, &out, &error));
}

static void old_keys_in_pins_are_judged(void **state)
{
    struct fixture *f = fixture(state);
    struct hsm *h = provisioned(state);
    JSON plan = plan_of(h, "call");
    JSON pins = made(h, "call", plan);
    JSON one = json_deep_copy(pins);
    JSON out = NULL;
    JSON none = NULL;
    refused_old(h, pins, NULL, "role", json_string("opens"));
    refused_old(h, pins, NULL, "role", json_string("signs"));
    refused_old(h, pins, NULL, "role", json_string("loved"));
    refused_old(h, pins, "key", "version", json_integer(2));
    refused_old(h, pins, "key", "use", json_string("log"));
    refused_old(h, pins, "key", "use", json_string("none"));
    refused_old(h, pins, "key", "label", json_string("hsmint-call-2"));
    refused_old(h, pins, "key", "fingerprint", json_string("00"));
    refused_old(h, pins, "key", "public_key", json_string("!"));
    json_object_set_new(one, "format", json_integer(1));
    must_fail(ERR_HSM_KEYS, hsm_provision(h, true, one, &out, &error));
    must(hsm_provision(h, true, pins, &out, &error));
    json_object_set_new(f->pins, "format", json_integer(2)); /* without any */
    log_in_again(f);
    must_fail(ERR_HSM_KEYS,
              hsm_provision(f->hsm, true, f->pins, &none, &error));
}

/* Not the one in use, not one that was since the start, nobody else's. */
static void an_old_key_is_destroyed_after_a_start(void **state)
{
    struct fixture *f = fixture(state);
    struct hsm *h = provisioned(state);
    JSON plan = plan_of(h, "call");
    JSON pins = made(h, "call", plan);
    JSON out = NULL;
    JSON end = NULL;
    JSON none = NULL;
    must_fail(ERR_INVALID, hsm_destroy(h, "hsmint-call-1", &none, &error));
    must_fail(ERR_NOT_FOUND, hsm_destroy(h, "hsmint-call-2", &none, &error));
    must(hsm_provision(h, true, pins, &out, &error));
    must_fail(ERR_INVALID, hsm_destroy(h, "hsmint-call-1", &none, &error));
    must_fail(ERR_INVALID, hsm_destroy(h, "hsmint-seal-1", &none, &error));
    assert_int_equal(count(h, "hsmint-call-1"), 2);
    log_in_again(f);
    json_decref(out);
    must(hsm_provision(f->hsm, true, pins, &out, &error));
    must(hsm_destroy(f->hsm, "hsmint-call-1", &end, &error));
    assert_int_equal(count(f->hsm, "hsmint-call-1"), 0);
    assert_int_equal(count(f->hsm, "hsmint-call-2"), 2);
    json_t *old = json_array_get(
        json_object_get(json_object_get(end, "pins"), "old"), 0);
    assert_string_equal(text_of(old, "role"), "destroyed");
    json_decref(out);
    must(hsm_provision(f->hsm, true, json_object_get(end, "pins"), &out,
                       &error));
    signed_by(f->hsm, "hsmint-call-2:");
    json_decref(end);
    must(hsm_destroy(f->hsm, "hsmint-call-1", &end, &error)); /* again */
}

static void plans_of_others_are_refused(void **state)
{
    static const char *const plans[] = {
        "[]",
        "[{\"use\": \"call\", \"version\": 1, \"id\": "
        "\"00000000000000000000000000000001\"}]",
        "[{\"use\": \"log\", \"version\": 2, \"id\": "
        "\"00000000000000000000000000000002\"}]",
        "[{\"use\": \"call\", \"version\": 2, \"id\": "
        "\"00000000000000000000000000000003\"}]",
        "[{\"use\": \"call\", \"version\": 256, \"id\": "
        "\"00000000000000000000000000000000\"}]",
        "[{\"use\": \"call\", \"version\": 2, \"id\": \"02\"}]",
        "[7]",
    };
    struct hsm *h = provisioned(state);
    JSON out = NULL;
    JSON none = NULL;
    for (size_t i = 0; i < sizeof plans / sizeof plans[0]; i++) {
        JSON plan = NULL;
        must(json_parse(plans[i], strlen(plans[i]), "plan", &plan, &error));
        assert_int_not_equal(hsm_rekey_make(h, "call", plan, false, &out, &error), OK);
        assert_null(out);
    }
    must_fail(ERR_INVALID, hsm_rekey_plan(h, "blob", &none, &error));
    signed_by(h, "hsmint-call-1:");
    assert_int_equal(count(h, "hsmint-call-1"), 2);
    assert_int_equal(count(h, "hsmint-log-1"), 2);
}

/* Nothing is left over from an init that found no way to seal. */
static void failed_init_leaves_nothing(void **state)
{
    struct fixture *f = fixture(state);
    const enum seal_mechanism none[] = {MECH_GCM_APPENDED, MECH_OAEP_SHA256};
    JSON out = NULL;
    log_in_again(f);
    hsm_mechanisms(f->hsm, none, 2);
    assert_int_not_equal(hsm_provision(f->hsm, true, NULL, &out, &error), OK);
    assert_false(hsm_ready(f->hsm));
    for (int use = 0; use < HSM_USES; use++) {
        char label[BLOB_LABEL_MAX];
        keys_label((enum hsm_use)use, 1, label);
        assert_int_equal(count(f->hsm, label), 0);
    }
}

/* ---- what is on disk before it is told ---- */

static int synced;
static bool used_meanwhile; /* of the pool: nobody waits for a disk */
static struct hsm *watched;

void sync(void)
{
    int open, busy, limit;
    synced++;
    if (!watched)
        return;
    pool_count(&watched->pool, &open, &busy, &limit);
    used_meanwhile |= busy > 0;
}

static CK_RV in_hardware(CK_SLOT_ID slot, CK_SLOT_INFO *info)
{
    (void)slot;
    memset(info, 0, sizeof *info);
    info->flags = CKF_TOKEN_PRESENT | CKF_HW_SLOT;
    return CKR_OK;
}

static void rotate_and_clear(struct fixture *f)
{
    JSON plan = NULL;
    JSON out = NULL;
    JSON gone = NULL;
    must(hsm_rekey_plan(f->hsm, "call", &plan, &error));
    must(hsm_rekey_make(f->hsm, "call", plan, false, &out, &error));
    must(hsm_rekey_clear(f->hsm, plan, &error));
    must(hsm_rekey_make(f->hsm, "call", plan, false, &gone, &error));
}

static void only_files_are_synced(void **state)
{
    struct fixture *f = fixture(state);
    watched = provisioned(state);
    synced = 0;
    rotate_and_clear(f);
    assert_int_equal(synced, 3);
    assert_false(used_meanwhile);

    CK_FUNCTION_LIST *real = watched->pool.f, hardware = *real;
    hardware.C_GetSlotInfo = in_hardware;
    watched->pool.f = &hardware;
    synced = 0;
    rotate_and_clear(f);
    watched->pool.f = real;
    watched = NULL;
    assert_int_equal(synced, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        FIXTURE_TEST(only_files_are_synced),
        FIXTURE_TEST(pins_hold_over_a_restart),
        FIXTURE_TEST(nothing_is_adopted),
        FIXTURE_TEST(planted_before_init),
        FIXTURE_TEST(label_twice),
        FIXTURE_TEST(data_object_of_our_name),
        FIXTURE_TEST(replaced_by_a_planted_one),
        FIXTURE_TEST(missing_key),
        FIXTURE_TEST(other_keys_of_the_same_ids),
        FIXTURE_TEST(public_key_may_sign_only),
        FIXTURE_TEST(broken_pins),
        FIXTURE_TEST(a_new_generation_is_taken_when_pinned),
        FIXTURE_TEST(what_is_left_is_made_anew),
        FIXTURE_TEST(what_is_left_is_cleared),
        FIXTURE_TEST(half_of_an_old_key_holds_nobody_up),
        FIXTURE_TEST(old_keys_in_pins_are_judged),
        FIXTURE_TEST(an_old_key_is_destroyed_after_a_start),
        FIXTURE_TEST(plans_of_others_are_refused),
        FIXTURE_TEST(failed_init_leaves_nothing),
        FIXTURE_TEST(older_instances_get_the_ed25519_key),
    };
    return cmocka_run_group_tests_name("hsm-keys", tests, NULL, NULL);
}
