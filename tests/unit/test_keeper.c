/* The keeper program: its permit table, one verb after the other. */
#include "config.h"

#include "tests/unit/keeper_fixture.h"

#include "hsm/call.h"
#include "common/sigbase.h"

#include <openssl/ecdsa.h>

#define LEASE "01kbzexamp1e00000000000000"

static void needs_are_told(void **state)
{
    struct fixture *f = *state;
    FRAME r = FRAME_INIT;
    expect(OK, ask(f, VERB_DESCRIBE, NULL, NULL, &r));
    assert_string_equal(member(&r, "state"), "locked");
    expect(ERR_LOCKED, sign_on(f, 0, "GET", PROJECTS, NULL, &r));
    assert_non_null(strstr(f->e.text, "hsmint hsm unlock"));
    expect(OK, login(f, SOFTHSM_PIN, &r));
    expect(ERR_HSM_KEYS, sign_on(f, 0, "GET", PROJECTS, NULL, &r));
    assert_non_null(strstr(f->e.text, "hsmint init"));
    provision(f);
    expect(ERR_NO_ADMIN_KEY, sign_on(f, 0, "GET", PROJECTS, NULL, &r));
    expect(OK, ask(f, VERB_DESCRIBE, NULL, NULL, &r));
    assert_string_equal(member(&r, "state"), "ready");
    expect(OK, ask(f, VERB_LOGOUT, NULL, NULL, &r));
    expect(ERR_LOCKED, sign_on(f, 0, "GET", PROJECTS, NULL, &r));
}

static void strangers_are_refused(void **state)
{
    struct fixture *f = *state;
    FRAME r = FRAME_INIT;
    expect(ERR_PROTOCOL, ask(f, (enum verb)0, NULL, NULL, &r));
    expect(ERR_PROTOCOL, ask_on(f, 0, VERB_DESCRIBE, NULL, "body", 4, -1, &r));
    FD fd = open("/dev/null", O_RDONLY | O_CLOEXEC);
    expect(ERR_PROTOCOL, ask_on(f, 0, VERB_DESCRIBE, NULL, NULL, 0, fd, &r));
    assert_int_not_equal(
        ask(f, VERB_DESCRIBE, json_pack("{s:i}", "x", 1), NULL, &r), OK);
    expect(ERR_INVALID,
           ask(f, VERB_LOGIN, json_pack("{s:s}", "source", "argv"), NULL, &r));
    expect(ERR_INVALID,
           ask_on(f, 0, VERB_LOGIN, json_pack("{s:s}", "source", "descriptor"),
                  NULL, 0, fd, &r)); /* neither a pipe nor an escrow */
    expect(OK, ask(f, VERB_DESCRIBE, NULL, NULL, &r));
}

static void login_and_escrow(void **state)
{
    struct fixture *f = *state;
    FRAME r = FRAME_INIT;
    FRAME again = FRAME_INIT;
    expect(ERR_INVALID, login(f, "", &r));
    expect(ERR_INVALID, login(f, "\n", &r));
    expect(ERR_PIN_WRONG, login(f, "9999", &r));
    assert_int_equal(r.fd, -1);
    expect(OK, ask_secret(
                   f, VERB_LOGIN,
                   json_pack("{s:s, s:b}", "source", "descriptor", "force", 1),
                   SOFTHSM_PIN "\n", &r));
    assert_string_equal(member(&r, "checked"), "hsm");
    assert_true(r.fd >= 0);
    expect(OK, login(f, SOFTHSM_PIN, &again));
    assert_string_equal(member(&again, "checked"), "verifier");
    assert_int_equal(again.fd, -1);
    /* A pipe's pages are never swapped out, a memfd's are. */
    struct stat st;
    assert_int_equal(fstat(r.fd, &st), 0);
    assert_true(S_ISFIFO(st.st_mode));
    /* The escrow cannot be changed, and opens the next keeper, twice. */
    assert_true(write(r.fd, "x", 1) < 0);
    for (int i = 0; i < 2; i++) {
        keeper_end(f);
        keeper_spawn(f, NULL);
        expect(OK, ask_on(f, 0, VERB_LOGIN,
                          json_pack("{s:s}", "source", "descriptor"), NULL, 0,
                          r.fd, &again));
        assert_string_equal(member(&again, "checked"), "hsm");
    }
}

static void binding_is_checked(void **state)
{
    struct fixture *f = *state;
    FRAME c = FRAME_INIT;
    FRAME r = FRAME_INIT;
    provision(f);
    expect(ERR_INVALID, ask_secret(f, VERB_SEAL_KEY,
                                   json_pack("{s:s, s:s}", "org", "main",
                                             "endpoint", "http://h.example/"),
                                   ADMIN_KEY, &r));
    expect(ERR_INVALID, ask_secret(f, VERB_SEAL_KEY,
                                   json_pack("{s:s, s:s}", "org", "main",
                                             "endpoint", f->endpoint),
                                   "sk-admin-two\nlines", &r));
    expect(OK, ask_secret(f, VERB_SEAL_KEY,
                          json_pack("{s:s, s:s}", "org", "main", "endpoint",
                                    f->endpoint),
                          ADMIN_KEY, &c));
    expect(ERR_INVALID, ask(f, VERB_BIND_KEY,
                            one_candidate("sk-admin-*...ABC", NULL), &c, &r));
    expect(ERR_INVALID,
           ask(f, VERB_BIND_KEY, one_candidate(REDACTED, "key_9"), &c, &r));
    expect(ERR_INVALID,
           ask(f, VERB_BIND_KEY,
               json_pack("{s:s, s:[{s:s, s:s}, {s:s, s:s}]}", "org", "main",
                         "candidates", "id", "key_1", "redacted", REDACTED,
                         "id", "key_2", "redacted", REDACTED),
               &c, &r));
    assert_non_null(strstr(f->e.text, "admin_api_key_id"));
    assert_null(strstr(f->e.text, "XYZ"));
    /* A candidate is of use for its own checking, and for nothing else. */
    expect(ERR_SEAL,
           ask(f, VERB_USE_KEY, json_pack("{s:s}", "org", "main"), &c, &r));
    expect(ERR_NO_ADMIN_KEY, sign_on(f, 0, "GET", ADMIN_KEYS, NULL, &r));
    expect(OK, ask(f, VERB_SIGN_CALL,
                   json_pack("{s:s, s:b, s:s, s:s}", "org", "main", "candidate",
                             1, "method", "GET", "path", ADMIN_KEYS),
                   NULL, &r));
    FRAME done = FRAME_INIT;
    expect(OK, execute_on(f, 0, &r, &done));
    assert_true(httpd_saw(&f->server, "Bearer " ADMIN_KEY "\r\n"));
    expect(OK, ask(f, VERB_BIND_KEY, one_candidate(REDACTED, "key_1"), &c, &r));
    c.body[c.body_len / 2] ^= 1;
    expect(ERR_SEAL,
           ask(f, VERB_BIND_KEY, one_candidate(REDACTED, NULL), &c, &r));
}

static void key_survives_on_the_hsm(void **state)
{
    struct fixture *f = *state;
    FRAME r = FRAME_INIT;
    ready_with_key(f);
    keeper_end(f);
    keeper_spawn(f, NULL);
    provision(f);
    expect(OK,
           ask(f, VERB_USE_KEY, json_pack("{s:s}", "org", "main"), NULL, &r));
    assert_string_equal(member(&r, "key_id"), "key_1");
    assert_string_equal(member(&r, "endpoint"), f->endpoint);
    assert_string_equal(member(&r, "organization_id"), "org-77");
    assert_true(r.body_len > 0);
    FRAME other = FRAME_INIT;
    expect(ERR_SEAL, ask(f, VERB_USE_KEY, json_pack("{s:s}", "org", "other"),
                         &r, &other));
    expect(OK, ask(f, VERB_DROP_KEY, json_pack("{s:s}", "org", "main"), NULL,
                   &other));
    expect(ERR_NO_ADMIN_KEY,
           ask(f, VERB_USE_KEY, json_pack("{s:s}", "org", "main"), NULL, &r));
}

static void only_what_was_signed(void **state)
{
    struct fixture *f = *state;
    FRAME call = FRAME_INIT;
    FRAME r = FRAME_INIT;
    ready_with_key(f);
    expect(ERR_NOT_SIGNED,
           ask(f, VERB_EXECUTE,
               json_pack("{s:s}", "call", "00000000000000000000000000000000"),
               NULL, &r));
    expect(ERR_INVALID, sign_on(f, 0, "GET", "/organization/users", NULL, &r));
    expect(ERR_INVALID, sign_on(f, 0, "PUT", PROJECTS, NULL, &r));
    assert_int_equal(f->server.requests, 0);
    expect(OK, sign_on(f, 0, "POST", ACCOUNTS, "{\"name\":\"p\"}", &call));
    expect(OK, execute_on(f, 1, &call, &r)); /* on whichever channel */
    assert_int_equal(number(&r, "status"), 200);
    assert_true(httpd_saw(&f->server, "POST /v1" ACCOUNTS " HTTP"));
    assert_true(httpd_saw(&f->server, "Bearer " ADMIN_KEY "\r\n"));
    assert_true(httpd_saw(&f->server, "OpenAI-Organization: org-77\r\n"));
    assert_true(httpd_saw(&f->server, "\r\n\r\n{\"name\":\"p\"}"));
    assert_false(httpd_saw(&f->server, "Signature"));
    expect(ERR_NOT_SIGNED, execute_on(f, 0, &call, &r)); /* once */
    assert_int_equal(f->server.requests, 1);
    /* Also when nothing came of it. */
    httpd_next(&f->server, (struct httpd_step){.act = HTTPD_DROP});
    expect(OK, sign_on(f, 1, "POST", ACCOUNTS, "{}", &call));
    expect(ERR_SERVICE_UNKNOWN, execute_on(f, 1, &call, &r));
    expect(ERR_NOT_SIGNED, execute_on(f, 1, &call, &r));
    assert_int_equal(f->server.requests, 2);
    /* A key that was deleted takes its signed calls along. */
    expect(OK, sign_on(f, 0, "GET", PROJECTS, NULL, &call));
    expect(OK,
           ask(f, VERB_DROP_KEY, json_pack("{s:s}", "org", "main"), NULL, &r));
    expect(ERR_NO_ADMIN_KEY, execute_on(f, 0, &call, &r));
    assert_int_equal(f->server.requests, 2);
}

static EVP_PKEY *call_key(struct fixture *f)
{
    FRAME r = FRAME_INIT;
    size_t i;
    json_t *key;
    EVP_PKEY *found = NULL;
    expect(OK, ask(f, VERB_PROVISION,
                   json_pack("{s:b, s:O}", "create", 0, "pins", f->pins), NULL,
                   &r));
    json_array_foreach(json_object_get(r.head, "keys"), i, key)
    {
        unsigned char der[1024];
        const unsigned char *p = der;
        const char *text =
            json_string_value(json_object_get(key, "public_key"));
        if (!text ||
            strcmp(json_string_value(json_object_get(key, "use")), "call") != 0)
            continue;
        int len = EVP_DecodeBlock(der, (const unsigned char *)text,
                                  (int)strlen(text));
        found = d2i_PUBKEY(NULL, &p, len);
    }
    assert_non_null(found);
    return found;
}

/* Raw r||s in base64 between "sig1=:" and ":". */
static bool verifies(EVP_PKEY *key, const char *header, const char *base)
{
    unsigned char raw[72], *der = NULL;
    char text[100] = "";
    assert_int_equal(sscanf(header, "sig1=:%99[^:]:", text), 1);
    assert_int_equal(
        EVP_DecodeBlock(raw, (unsigned char *)text, (int)strlen(text)), 66);
    ECDSA_SIG *sig = ECDSA_SIG_new();
    ECDSA_SIG_set0(sig, BN_bin2bn(raw, 32, NULL),
                   BN_bin2bn(raw + 32, 32, NULL));
    int len = i2d_ECDSA_SIG(sig, &der);
    EVP_MD_CTX *md = EVP_MD_CTX_new();
    bool ok = EVP_DigestVerifyInit(md, NULL, EVP_sha256(), NULL, key) == 1 &&
              EVP_DigestVerify(md, der, (size_t)len,
                               (const unsigned char *)base, strlen(base)) == 1;
    EVP_MD_CTX_free(md);
    OPENSSL_free(der);
    ECDSA_SIG_free(sig);
    return ok;
}

static void signatures_verify(void **state)
{
    struct fixture *f = *state;
    FRAME call = FRAME_INIT;
    char digest[SIGBASE_DIGEST_MAX], target[128];
    ready_with_key(f);
    expect(OK, sign_on(f, 0, "POST", ACCOUNTS, "{\"name\":\"p\"}", &call));
    assert_int_equal(
        sigbase_content_digest("{\"name\":\"p\"}", 12, digest, NULL), OK);
    snprintf(target, sizeof target, "%s%s", f->endpoint, ACCOUNTS);
    assert_string_equal(member(&call, "content_digest"), digest);
    assert_string_equal(member(&call, "target_uri"), target);
    const char *input = member(&call, "signature_input");
    assert_memory_equal(input, "sig1=(", 6);
    assert_non_null(strstr(input, member(&call, "nonce")));
    assert_non_null(strstr(input, member(&call, "keyid")));
    const struct sigbase_component c[] = {{"@method", "POST"},
                                          {"@target-uri", target},
                                          {"content-digest", digest}};
    FREE char *base = NULL;
    assert_int_equal(sigbase_build(c, 3, input + 5, &base, NULL), OK);
    EVP_PKEY *key = call_key(f);
    assert_true(verifies(key, member(&call, "signature"), base));
    base[12] ^= 1;
    assert_false(verifies(key, member(&call, "signature"), base));
    EVP_PKEY_free(key);
}

static void new_admin_key_stays_inside(void **state)
{
    struct fixture *f = *state;
    FRAME r = FRAME_INIT;
    FRAME used = FRAME_INIT;
    ready_with_key(f);
    httpd_next(&f->server,
               (struct httpd_step){
                   .body = "{\"id\":\"key_2\",\"name\":\"n\",\"value\":"
                           "\"sk-admin-second-0123456789\"}"});
    expect(OK, call_on(f, 0, "POST", ADMIN_KEYS, "{\"name\":\"n\"}", &r));
    JSON j = json_loadb((const char *)r.body, r.body_len, 0, NULL);
    const char *sealed = json_string_value(json_object_get(j, "sealed"));
    assert_non_null(sealed);
    assert_null(json_object_get(j, "value"));
    assert_string_equal(json_string_value(json_object_get(j, "id")), "key_2");
    assert_null(memmem(r.body, r.body_len, "second", 6));
    size_t len = strlen(sealed);
    uint8_t blob[8192];
    assert_true(len < sizeof blob);
    int n = EVP_DecodeBlock(blob, (const unsigned char *)sealed, (int)len);
    n -= (sealed[len - 1] == '=') + (sealed[len - 2] == '=');
    expect(OK, ask_on(f, 0, VERB_USE_KEY, json_pack("{s:s}", "org", "main"),
                      blob, (size_t)n, -1, &used));
    assert_string_equal(member(&used, "key_id"), "key_2");
    assert_int_equal(number(&used, "version"), 2);
    expect(OK, call_on(f, 0, "GET", PROJECTS, NULL, &r));
    assert_true(httpd_saw(&f->server, "Bearer sk-admin-second-0123456789\r\n"));
}

/* Whatever came instead of a key, nothing of it leaves. */
static void odd_answers_stay_inside(void **state)
{
    struct fixture *f = *state;
    FRAME r = FRAME_INIT;
    ready_with_key(f);
    httpd_next(&f->server, (struct httpd_step){
                               .body = "{\"value\":\"sk-admin-third-0123\"}"});
    expect(ERR_SERVICE_UNKNOWN, call_on(f, 0, "POST", ADMIN_KEYS, "{}", &r));
    httpd_next(&f->server, (struct httpd_step){.body = "sk-admin-third-0123"});
    expect(ERR_SERVICE_UNKNOWN, call_on(f, 0, "POST", ADMIN_KEYS, "{}", &r));
    httpd_next(&f->server,
               (struct httpd_step){
                   .status = 500, .body = "{\"id\":\"k\",\"x\":\"sk-third\"}"});
    expect(OK, call_on(f, 0, "POST", ADMIN_KEYS, "{}", &r));
    assert_int_equal(number(&r, "status"), 500);
    assert_null(memmem(r.body, r.body_len, "third", 5));
    httpd_next(&f->server,
               (struct httpd_step){.status = 502, .body = "<html>third"});
    expect(OK, call_on(f, 0, "POST", ADMIN_KEYS, "{}", &r));
    assert_int_equal(number(&r, "status"), 502);
    assert_int_equal(r.body_len, 0);
    httpd_next(&f->server,
               (struct httpd_step){
                   .status = 429,
                   .body = "{\"error\":{\"message\":\"try again in 2s\"}}"});
    expect(OK, call_on(f, 0, "POST", ADMIN_KEYS, "{}", &r));
    assert_int_equal(number(&r, "retry_after_ms"), 2000);
    assert_non_null(memmem(r.body, r.body_len, "try again", 9));
}

/* Services and proxies quote what they were sent; the daemon must not see it.
 */
static void echoes_stay_inside(void **state)
{
    struct fixture *f = *state;
    FRAME r = FRAME_INIT;
    ready_with_key(f);
    httpd_next(&f->server,
               (struct httpd_step){
                   .status = 401,
                   .headers = "X-Request-Id: " ADMIN_KEY "\r\n",
                   .body =
                       "{\"error\":{\"message\":\"Incorrect API key: " ADMIN_KEY
                       ".\",\"code\":\"" ADMIN_KEY "\"}}"});
    expect(OK, call_on(f, 0, "GET", PROJECTS, NULL, &r));
    assert_int_equal(number(&r, "status"), 401);
    assert_string_equal(member(&r, "request_id"), "");
    assert_null(memmem(r.body, r.body_len, "T3stAdm1n", 9));
    JSON j = json_loadb((const char *)r.body, r.body_len, 0, NULL);
    assert_non_null(j);
    /* A piece of it. */
    httpd_next(&f->server,
               (struct httpd_step){.status = 500,
                                   .body = "authorization: Bearer sk-admin-"
                                           "T3stAdm1nKey0fTheKeeper"});
    expect(OK, call_on(f, 0, "GET", PROJECTS, NULL, &r));
    assert_null(memmem(r.body, r.body_len, "T3stAdm1n", 9));
    assert_null(memmem(r.body, r.body_len, "Keeper", 6));
    /* What shows a key in short is left as it is. */
    httpd_next(&f->server, (struct httpd_step){.body = "\"" REDACTED "\""});
    expect(OK, call_on(f, 0, "GET", PROJECTS, NULL, &r));
    assert_int_equal(r.body_len, strlen(REDACTED) + 2);
    assert_memory_equal(r.body, "\"" REDACTED "\"", r.body_len);
    /* A new key that comes under another name, too. */
    httpd_next(
        &f->server,
        (struct httpd_step){.body = "{\"id\":\"key_2\",\"redacted_value\":"
                                    "\"sk-admin-second-0123456789\",\"value\":"
                                    "\"sk-admin-second-0123456789\"}"});
    expect(OK, call_on(f, 0, "POST", ADMIN_KEYS, "{}", &r));
    assert_null(memmem(r.body, r.body_len, "second", 6));
    /* Made, by any word of success: it must not pass for a refusal. */
    httpd_next(&f->server, (struct httpd_step){
                               .status = 201,
                               .body = "{\"value\":\"sk-admin-third-0123\"}"});
    expect(ERR_SERVICE_UNKNOWN, call_on(f, 0, "POST", ADMIN_KEYS, "{}", &r));
}

static json_t *lease(const char *id, const char *base)
{
    return json_pack("{s:s, s:s, s:s?}", "org", "main", "lease", id, "api_base",
                     base);
}

static void values(void **state)
{
    struct fixture *f = *state;
    static const char value[] = "sk-svcacct-0123456789";
    FRAME blob = FRAME_INIT;
    FRAME r = FRAME_INIT;
    SECRET s = NULL;
    ready_with_key(f);
    expect(OK, ask_on(f, 0, VERB_SEAL_VALUE,
                      json_pack("{s:s, s:s}", "org", "main", "lease", LEASE),
                      value, strlen(value), -1, &blob));
    assert_null(memmem(blob.body, blob.body_len, "sk-svcacct", 10));
    expect(OK, ask(f, VERB_UNWRAP_VALUE,
                   json_pack("{s:s, s:s}", "org", "main", "lease", LEASE),
                   &blob, &r));
    assert_int_equal(secret_from_fd(&s, r.fd, 1000, 1000, true, NULL), OK);
    assert_int_equal(secret_len(s), strlen(value));
    assert_memory_equal(secret_data(s), value, strlen(value));
    expect(ERR_SEAL, ask(f, VERB_UNWRAP_VALUE,
                         json_pack("{s:s, s:s}", "org", "main", "lease",
                                   "01kbzexamp1e00000000000001"),
                         &blob, &r));
    expect(OK, ask(f, VERB_PROBE, lease(LEASE, f->endpoint), &blob, &r));
    assert_true(json_is_true(json_object_get(r.head, "alive")));
    assert_true(httpd_saw(&f->server, "GET /v1/models HTTP"));
    assert_true(httpd_saw(&f->server, "Bearer sk-svcacct-0123456789\r\n"));
    httpd_next(&f->server,
               (struct httpd_step){
                   .status = 401,
                   .body = "{\"error\":{\"code\":\"invalid_api_key\"}}"});
    expect(OK, ask(f, VERB_PROBE, lease(LEASE, f->endpoint), &blob, &r));
    assert_true(json_is_false(json_object_get(r.head, "alive")));
    assert_int_equal(number(&r, "status"), 401);
    assert_string_equal(member(&r, "code"), "invalid_api_key");
    expect(ERR_INVALID,
           ask(f, VERB_PROBE, lease(LEASE, "http://h.example"), &blob, &r));
    /* An admin key is no value, and the reverse. */
    expect(OK,
           ask(f, VERB_USE_KEY, json_pack("{s:s}", "org", "main"), NULL, &r));
    FRAME no = FRAME_INIT;
    expect(ERR_SEAL, ask(f, VERB_UNWRAP_VALUE,
                         json_pack("{s:s, s:s}", "org", "main", "lease", LEASE),
                         &r, &no));
    expect(OK, ask(f, VERB_USE_KEY, json_pack("{s:s}", "org", "main"), &blob,
                   &r)); /* passed over: the HSM's is taken */
    assert_string_equal(member(&r, "key_id"), "key_1");
}

/* The hash of the minted key comes with the reply, and is the one that a leaked
 * key is looked for by. */
static void minted_keys_are_hashed(void **state)
{
    static const char key[] = "sk-svcacct-0123456789";
    static const char *const bodies[] = {
        "{\"id\":\"a\",\"api_key\":{\"value\":\"sk-svcacct-0123456789\"}}",
        "{\"id\":\"k\",\"value\":\"sk-svcacct-0123456789\"}",
        "{\"id\":\"a\",\"api_key\":null}",
        "[1]",
        "<html>",
        "{\"value\":7}",
    };
    struct fixture *f = *state;
    FRAME r = FRAME_INIT;
    FRAME mac = FRAME_INIT;
    ready_with_key(f);
    expect(OK, ask_on(f, 0, VERB_HMAC, json_pack("{s:s}", "purpose", "value"),
                      key, strlen(key), -1, &mac));
    for (size_t i = 0; i < sizeof bodies / sizeof bodies[0]; i++) {
        httpd_next(&f->server, (struct httpd_step){.body = bodies[i]});
        expect(OK, call_on(f, 0, "POST", ACCOUNTS, "{}", &r));
        assert_string_equal(member(&r, "value_hmac"),
                            i < 2 ? member(&mac, "hmac") : "(none)");
    }
    httpd_next(&f->server, (struct httpd_step){.body = bodies[0]});
    expect(OK, call_on(f, 0, "GET", ACCOUNTS "/a", NULL, &r));
    assert_string_equal(member(&r, "value_hmac"), "(none)");
    httpd_next(&f->server,
               (struct httpd_step){.status = 500, .body = bodies[0]});
    expect(OK, call_on(f, 0, "POST", ACCOUNTS, "{}", &r));
    assert_string_equal(member(&r, "value_hmac"), "(none)");
}

/* With probe a daemon that was taken over could make the keeper carry whatever
 * it likes to wherever it likes. */
static void probes_go_to_the_service_only(void **state)
{
    struct fixture *f = *state;
    struct httpd other;
    char base[64];
    FRAME blob = FRAME_INIT;
    FRAME r = FRAME_INIT;
    provision(f);
    httpd_start(&other, true);
    expect(OK, ask_on(f, 0, VERB_SEAL_VALUE,
                      json_pack("{s:s, s:s}", "org", "main", "lease", LEASE),
                      "stolen-data", 11, -1, &blob));
    expect(ERR_NO_ADMIN_KEY,
           ask(f, VERB_PROBE, lease(LEASE, f->endpoint), &blob, &r));
    ready_with_key(f);
    static const char *const elsewhere[] = {
        "https://h.example/v1", "https://localhost/v1", "https://127.0.0.1/v1",
        "https://127.0.0.1.example/v1"};
    for (size_t i = 0; i < 4; i++)
        expect(ERR_INVALID,
               ask(f, VERB_PROBE, lease(LEASE, elsewhere[i]), &blob, &r));
    snprintf(base, sizeof base, "https://127.0.0.1:%d/v1", other.port);
    expect(ERR_INVALID, ask(f, VERB_PROBE, lease(LEASE, base), &blob, &r));
    assert_int_equal(other.connections, 0);
    assert_int_equal(f->server.requests, 0);
    httpd_stop(&other);
}

static void markers_are_ours(void **state)
{
    struct fixture *f = *state;
    char ours[64], theirs[64];
    FRAME r = FRAME_INIT;
    provision(f);
    expect(OK, ask(f, VERB_HMAC,
                   json_pack("{s:s, s:i}", "purpose", "marker", "count", 3),
                   NULL, &r));
    json_t *list = json_object_get(r.head, "markers");
    assert_int_equal(json_array_size(list), 3);
    const char *m = json_string_value(json_array_get(list, 2));
    assert_int_equal(strlen(m), 18);
    snprintf(ours, sizeof ours, "my-app-%s", m);
    snprintf(theirs, sizeof theirs, "my-app-%s", m);
    theirs[7] = theirs[7] == 'a' ? 'b' : 'a';
    FRAME c = FRAME_INIT;
    expect(OK, ask(f, VERB_HMAC,
                   json_pack("{s:s, s:[s, s, s]}", "purpose", "check-marker",
                             "names", "foreign", theirs, ours),
                   NULL, &c));
    json_t *answer = json_object_get(c.head, "ours");
    assert_int_equal(json_array_size(answer), 3);
    assert_true(json_is_false(json_array_get(answer, 0)));
    assert_true(json_is_false(json_array_get(answer, 1)));
    assert_true(json_is_true(json_array_get(answer, 2)));
    expect(OK, ask_on(f, 0, VERB_HMAC, json_pack("{s:s}", "purpose", "value"),
                      "sk-1", 4, -1, &r));
    assert_int_equal(strlen(member(&r, "hmac")), 64);
    expect(ERR_INVALID,
           ask(f, VERB_HMAC, json_pack("{s:s}", "purpose", "any"), NULL, &c));
    expect(ERR_INVALID,
           ask(f, VERB_HMAC, json_pack("{s:s}", "purpose", "value"), NULL, &c));
}

static void random_numbers_are_the_hsms(void **state)
{
    struct fixture *f = *state;
    FRAME a = FRAME_INIT;
    FRAME b = FRAME_INIT;
    /* No login is needed. */
    expect(OK,
           ask(f, VERB_RANDOM, json_pack("{s:i}", "count", 1024), NULL, &a));
    expect(OK,
           ask(f, VERB_RANDOM, json_pack("{s:i}", "count", 1024), NULL, &b));
    assert_int_equal(a.body_len, 1024);
    assert_int_equal(b.body_len, 1024);
    assert_memory_not_equal(a.body, b.body, 1024);
    assert_memory_not_equal(a.body + 1016, a.body + 1008, 8);
    static const int bad[] = {0, -1, 1025, 1 << 30};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        expect(ERR_INVALID, ask(f, VERB_RANDOM,
                                json_pack("{s:i}", "count", bad[i]), NULL, &b));
    expect(ERR_INVALID, ask(f, VERB_RANDOM, json_object(), NULL, &b));
}

struct worker {
    struct fixture *f;
    int channel, done;
};

static void *work(void *ctx)
{
    struct worker *w = ctx;
    struct fixture mine = {.pid = w->f->pid}; /* an error of its own */
    memcpy(mine.channel, w->f->channel, sizeof mine.channel);
    for (int i = 0; i < 50; i++) {
        FRAME r = FRAME_INIT;
        if (call_on(&mine, w->channel, "POST", ACCOUNTS, "{}", &r) == OK)
            w->done++;
        else
            printf("# channel %d: %s\n", w->channel, mine.e.text);
    }
    return NULL;
}

static void channels_side_by_side(void **state)
{
    struct fixture *f = *state;
    struct worker w[CHANNELS];
    pthread_t t[CHANNELS];
    ready_with_key(f);
    for (int i = 0; i < CHANNELS; i++) {
        w[i] = (struct worker){.f = f, .channel = i};
        assert_int_equal(pthread_create(&t[i], NULL, work, &w[i]), 0);
    }
    for (int i = 0; i < CHANNELS; i++) {
        pthread_join(t[i], NULL);
        assert_int_equal(w[i].done, 50);
    }
    assert_int_equal(f->server.requests, 200);
    assert_int_equal(f->server.connections, CHANNELS);
}

/* What the caller's environment says is not heard. */
static void environment_without_effect(void **state)
{
    struct fixture *f = *state;
    char keylog[400], cnf[400], a[420], b[420];
    FRAME r = FRAME_INIT;
    snprintf(keylog, sizeof keylog, "%s/keylog", f->token.dir);
    snprintf(cnf, sizeof cnf, "%s/openssl.cnf", f->token.dir);
    snprintf(a, sizeof a, "SSLKEYLOGFILE=%s", keylog);
    snprintf(b, sizeof b, "OPENSSL_CONF=%s", cnf);
    FILE *c = fopen(cnf, "w"); /* whoever reads it has no TLS any more */
    assert_non_null(c);
    fputs("openssl_conf = o\n[o]\nproviders = p\n[p]\nnull = n\n[n]\n"
          "activate = 1\n",
          c);
    assert_int_equal(fclose(c), 0);
    char *envp[] = {a,
                    b,
                    (char[]){"https_proxy=http://127.0.0.1:1"},
                    (char[]){"ALL_PROXY=http://127.0.0.1:1"},
                    (char[]){"SOFTHSM2_CONF=/nowhere"},
                    NULL};
    keeper_end(f);
    keeper_spawn(f, envp);
    ready_with_key(f);
    expect(OK, call_on(f, 0, "GET", PROJECTS, NULL, &r));
    assert_int_equal(number(&r, "status"), 200);
    assert_int_equal(access(keylog, F_OK), -1);
}

/* A hung call does not outlive the daemon; teardown waits for the end. */
static void ends_with_its_channels(void **state)
{
    struct fixture *f = *state;
    FRAME call = FRAME_INIT;
    struct frame q = {.verb = VERB_EXECUTE, .fd = -1};
    ready_with_key(f);
    httpd_next(&f->server, (struct httpd_step){.act = HTTPD_HANG});
    expect(OK, sign_on(f, 0, "GET", PROJECTS, NULL, &call));
    FREE char *line = record_of(&call);
    q.head = json_pack("{s:s}", "call", member(&call, "call"));
    q.body = (uint8_t *)line;
    q.body_len = strlen(line);
    expect(OK, frame_send(f->channel[0], &q, 60000, &f->e));
    json_decref(q.head);
    for (int i = 0; i < 60000 && f->server.requests == 0; i++)
        usleep(1000);
    assert_int_equal(f->server.requests, 1);
    /* One that says nonsense loses its channel, and no other. */
    assert_int_equal(send(f->channel[1], "GET / HTTP/1.1\r\n\r\n", 18, 0), 18);
    FRAME r = FRAME_INIT;
    assert_int_equal(frame_recv(f->channel[1], &r, 60000, &f->e), ERR_KEEPER);
    expect(OK, ask_on(f, 2, VERB_DESCRIBE, NULL, NULL, 0, -1, &r));
}

static int run(const char *arguments)
{
    char command[600];
    const char *build = getenv("top_builddir");
    snprintf(command, sizeof command, "%s/hsmint-keeper %s >/dev/null 2>&1",
             build ? build : ".", arguments);
    int status = system(command);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static void command_line(void **state)
{
    (void)state;
    assert_int_equal(run("--help"), 0);
    assert_int_equal(run("--version"), 0);
    assert_int_equal(run(""), 2);
    assert_int_equal(run("--what"), 2);
    assert_int_equal(run("--config x --channels 1"), 2);
    assert_int_equal(run("--config /x --listen y"), 2);
    assert_int_equal(run("--config /x --channels 0"), 2);
    assert_int_equal(run("--config /x --channels 65"), 2);
    assert_int_equal(run("--config /x --channels 1x"), 2);
    assert_int_equal(run("--config /x --channels 1 </dev/null 3</dev/null"), 2);
}

/* For an egress gateway that lets out only signed calls. */
/* The settings' text with `was` put in the place of `is`, which is as long. */
static void change_settings(struct fixture *f, const char *is, const char *was)
{
    char text[4096];
    FILE *c = fopen(f->conf, "r+e");
    assert_non_null(c);
    text[fread(text, 1, sizeof text - 1, c)] = '\0';
    char *at = strstr(text, is);
    assert_non_null(at);
    memcpy(at, was, strlen(was));
    rewind(c);
    fputs(text, c);
    assert_int_equal(fclose(c), 0);
}

/* A key that is sealed for a host that has gone from the list. */
static void keys_go_to_listed_hosts_only(void **state)
{
    struct fixture *f = *state;
    FRAME candidate = FRAME_INIT;
    FRAME r = FRAME_INIT;
    ready_with_key(f);
    expect(ERR_CONFIG,
           ask_secret(f, VERB_SEAL_KEY,
                      json_pack("{s:s, s:s}", "org", "main", "endpoint",
                                "https://collector.example/v1"),
                      ADMIN_KEY, &r));
    assert_non_null(strstr(f->e.text, "collector.example"));
    assert_non_null(strstr(f->e.text, "[service] hosts"));
    expect(OK, ask_secret(f, VERB_SEAL_KEY,
                          json_pack("{s:s, s:s}", "org", "main", "endpoint",
                                    f->endpoint),
                          ADMIN_KEY, &candidate));
    keeper_end(f);
    change_settings(f, "hosts = 127.0.0.1\n", "hosts = 127.0.0.2\n");
    keeper_spawn(f, NULL);
    provision(f);
    expect(ERR_CONFIG,
           ask(f, VERB_USE_KEY, json_pack("{s:s}", "org", "main"), NULL, &r));
    assert_non_null(strstr(f->e.text, "127.0.0.1"));
    expect(ERR_CONFIG, ask(f, VERB_BIND_KEY, one_candidate(REDACTED, NULL),
                           &candidate, &r));
    expect(ERR_NO_ADMIN_KEY, sign_on(f, 0, "GET", PROJECTS, NULL, &r));
    assert_int_equal(f->server.requests, 0);
    keeper_end(f);
    change_settings(f, "hosts = 127.0.0.2\n", "hosts = 127.0.0.1\n");
    keeper_spawn(f, NULL);
    provision(f);
    expect(OK,
           ask(f, VERB_USE_KEY, json_pack("{s:s}", "org", "main"), NULL, &r));
}

/* The settings name a source: a PIN that was given is not handed back. */
static void no_escrow_of_a_configured_pin(void **state)
{
    struct fixture *f = *state;
    FRAME r = FRAME_INIT;
    FILE *c = fopen(f->conf, "ae");
    assert_non_null(c);
    fputs("[hsm]\npin_source = /nowhere/pin\n", c);
    assert_int_equal(fclose(c), 0);
    keeper_end(f);
    keeper_spawn(f, NULL);
    expect(OK, login(f, SOFTHSM_PIN, &r));
    assert_string_equal(member(&r, "checked"), "hsm");
    assert_int_equal(r.fd, -1);
}

static void signatures_go_upstream_when_told(void **state)
{
    struct fixture *f = *state;
    FRAME call = FRAME_INIT;
    FRAME r = FRAME_INIT;
    char line[600];
    FILE *c = fopen(f->conf, "ae");
    assert_non_null(c);
    fputs("send_signature = yes\n", c);
    assert_int_equal(fclose(c), 0);
    keeper_end(f);
    keeper_spawn(f, NULL);
    ready_with_key(f);
    expect(OK, sign_on(f, 0, "POST", ACCOUNTS, "{}", &call));
    expect(OK, execute_on(f, 0, &call, &r));
    const char *const fields[][2] = {
        {"Signature-Input", "signature_input"},
        {"Signature", "signature"},
        {"Content-Digest", "content_digest"},
    };
    for (size_t i = 0; i < 3; i++) {
        snprintf(line, sizeof line, "\r\n%s: %s\r\n", fields[i][0],
                 member(&call, fields[i][1]));
        assert_true(httpd_saw(&f->server, line));
    }
}

#define TEST(name)                                                             \
    cmocka_unit_test_setup_teardown(name, keeper_setup, keeper_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(needs_are_told),
        TEST(strangers_are_refused),
        TEST(login_and_escrow),
        TEST(binding_is_checked),
        TEST(key_survives_on_the_hsm),
        TEST(only_what_was_signed),
        TEST(signatures_verify),
        TEST(new_admin_key_stays_inside),
        TEST(odd_answers_stay_inside),
        TEST(echoes_stay_inside),
        TEST(values),
        TEST(minted_keys_are_hashed),
        TEST(probes_go_to_the_service_only),
        TEST(markers_are_ours),
        TEST(random_numbers_are_the_hsms),
        TEST(channels_side_by_side),
        TEST(environment_without_effect),
        TEST(signatures_go_upstream_when_told),
        TEST(keys_go_to_listed_hosts_only),
        TEST(no_escrow_of_a_configured_pin),
        TEST(ends_with_its_channels),
        cmocka_unit_test(command_line),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
