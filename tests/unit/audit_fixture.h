/* A log that is made up, with keys of its own: what hsmintd would write. */
#ifndef HSMINT_TEST_AUDIT_FIXTURE_H
#define HSMINT_TEST_AUDIT_FIXTURE_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "common/base64.h"
#include "common/clock.h"
#include "common/file.h"
#include "common/sigbase.h"
#include "common/text.h"
#include "module/audit/export.h"
#include "module/audit/verify.h"

#include <openssl/ec.h>
#include <openssl/evp.h>
#include <openssl/x509.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ORIGIN "hsmint/test"
#define CALL_KEYID "hsmint-call-1:0011223344556677"
#define EPOCH_MS 1763712000000 /* 2025-11-21T08:00:00Z */

struct fake_log {
    EVP_PKEY *log_key, *call_key;
    char **lines;
    size_t n, cap;
    struct merkle tree;
    struct merkle_hash last;
};

static inline void spki_of(EVP_PKEY *key, uint8_t spki[128], size_t *len)
{
    uint8_t *at = spki;
    int n = i2d_PUBKEY(key, &at);
    assert_in_range(n, 80, 128);
    *len = (size_t)n;
}

static inline void fake_log_key(const struct fake_log *l, struct note_key *key)
{
    uint8_t spki[128];
    size_t len;
    spki_of(l->log_key, spki, &len);
    assert_int_equal(note_key(key, ORIGIN, NOTE_ECDSA, spki, len, NULL), OK);
}

/* Its hash goes into the tree as it is. */
static inline void fake_log_take(struct fake_log *l, char *line)
{
    if (l->n == l->cap) {
        l->cap = l->cap ? 2 * l->cap : 64;
        l->lines = realloc(l->lines, l->cap * sizeof *l->lines);
        assert_non_null(l->lines);
    }
    l->lines[l->n++] = line;
    assert_int_equal(merkle_leaf(line, strlen(line), &l->last, NULL), OK);
    assert_int_equal(merkle_append(&l->tree, &l->last, NULL), OK);
}

/* own: stolen. */
static inline void fake_log_add(struct fake_log *l, const char *kind,
                                json_t *own)
{
    char now[CLOCK_TEXT_MAX];
    FREE char *prev = base64_encode(l->last.bytes, MERKLE_HASH);
    JSON record = json_pack(
        "{si sI ss ss sb ss s{ss}}", "v", RECORD_VERSION, "seq",
        (json_int_t)l->n + 1, "prev", prev, "time",
        clock_text(EPOCH_MS + (int64_t)l->n * 1000, now), "sync", 1, "kind",
        kind, "actor", "owner", "user:1000");
    assert_non_null(record);
    assert_int_equal(json_object_update(record, own), 0);
    json_decref(own);
    char *line = json_dumps(record, JSON_COMPACT);
    assert_non_null(line);
    fake_log_take(l, line);
}

static inline void sign_call(const struct fake_log *l,
                             const struct sigbase_call *c, char **input,
                             char **signature)
{
    const struct sigbase_component parts[] = {
        {"@method", c->method},
        {"@target-uri", c->target_uri},
        {"content-digest", c->content_digest},
    };
    uint8_t digest[32], der[80], raw[64];
    const uint8_t *at = der;
    size_t len = sizeof der;
    FREE char *params = NULL;
    FREE char *base = NULL;
    assert_int_equal(sigbase_call(c, &params, digest, NULL), OK);
    assert_int_equal(sigbase_build(parts, 3, params, &base, NULL), OK);
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    assert_int_equal(
        EVP_DigestSignInit(ctx, NULL, EVP_sha256(), NULL, l->call_key), 1);
    assert_int_equal(EVP_DigestSign(ctx, der, &len,
                                    (const unsigned char *)base, strlen(base)),
                     1);
    EVP_MD_CTX_free(ctx);
    ECDSA_SIG *sig = d2i_ECDSA_SIG(NULL, &at, (long)len);
    BN_bn2binpad(ECDSA_SIG_get0_r(sig), raw, 32);
    BN_bn2binpad(ECDSA_SIG_get0_s(sig), raw + 32, 32);
    ECDSA_SIG_free(sig);
    FREE char *text = base64_encode(raw, sizeof raw);
    assert_true(asprintf(input, "sig1=%s", params) > 0);
    assert_true(asprintf(signature, "sig1=:%s:", text) > 0);
}

static inline void fake_log_call(struct fake_log *l, const char *id)
{
    static const char body[] = "{\"name\":\"n\",\"expires_in_seconds\":660}";
    char digest[SIGBASE_DIGEST_MAX];
    FREE char *input = NULL;
    FREE char *signature = NULL;
    assert_int_equal(sigbase_content_digest(body, strlen(body), digest, NULL),
                     OK);
    const struct sigbase_call c = {
        .method = "POST",
        .target_uri = "https://api.openai.com/v1/organization/projects/p/"
                      "service_accounts",
        .content_digest = digest,
        .nonce = id,
        .keyid = CALL_KEYID,
        .created_s = EPOCH_MS / 1000,
    };
    sign_call(l, &c, &input, &signature);
    fake_log_add(l, "call",
                 json_pack("{ss ss ss ss s{ss ss ss ss ss ss sI}}", "call", id,
                           "purpose", "mint", "method", c.method, "body", body,
                           "signed", "target_uri", c.target_uri,
                           "content_digest", digest, "signature_input", input,
                           "signature", signature, "keyid", c.keyid, "nonce",
                           id, "created", (json_int_t)c.created_s));
}

static inline void fake_log_outcome(struct fake_log *l, const char *id)
{
    fake_log_add(l, "outcome",
                 json_pack("{ss ss si}", "call", id, "fate", "answered",
                           "status", 200));
}

static inline void fake_log_keys(struct fake_log *l)
{
    uint8_t spki[128];
    size_t len;
    struct note_key key;
    FREE char *vkey = NULL;
    spki_of(l->call_key, spki, &len);
    FREE char *call = base64_encode(spki, len);
    fake_log_key(l, &key);
    assert_int_equal(note_key_format(&key, &vkey, NULL), OK);
    fake_log_add(l, "keys",
                 json_pack("{s[s] s[{ss ss}]}", "log", vkey, "call", "keyid",
                           CALL_KEYID, "public_key", call));
}

static inline void fake_log_new(struct fake_log *l)
{
    *l = (struct fake_log){.log_key = EVP_EC_gen("P-256"),
                           .call_key = EVP_EC_gen("P-256")};
    assert_true(l->log_key && l->call_key);
    fake_log_add(l, "start", json_pack("{ss}", "version", "test"));
    fake_log_keys(l);
}

static inline void fake_log_clear(struct fake_log *l)
{
    for (size_t i = 0; i < l->n; i++)
        free(l->lines[i]);
    free(l->lines);
    EVP_PKEY_free(l->log_key);
    EVP_PKEY_free(l->call_key);
}

/* A call and its outcome, and every tenth something else. */
static inline void fake_log_grow(struct fake_log *l, size_t records)
{
    while (l->n + 2 <= records) {
        char id[TEXT_ID_LEN + 1];
        assert_int_equal(text_id(id, NULL), OK);
        fake_log_call(l, id);
        fake_log_outcome(l, id);
    }
    while (l->n < records)
        fake_log_add(l, "policy", json_pack("{ss ss}", "name", "p", "action",
                                            "set"));
}

/* The signed note of any tree; caller frees. */
static inline char *sign_checkpoint(EVP_PKEY *key, const struct checkpoint *c)
{
    struct note_signature s = {.len = sizeof s.bytes};
    struct note_key k;
    uint8_t spki[128];
    size_t len;
    FREE char *text = NULL;
    char *note;
    spki_of(key, spki, &len);
    assert_int_equal(note_key(&k, c->origin, NOTE_ECDSA, spki, len, NULL), OK);
    assert_int_equal(checkpoint_format(c, &text, NULL), OK);
    strcpy(s.name, k.name);
    memcpy(s.id, k.id, sizeof s.id);
    EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    assert_int_equal(EVP_DigestSignInit(ctx, NULL, EVP_sha256(), NULL, key), 1);
    assert_int_equal(EVP_DigestSign(ctx, s.bytes, &s.len,
                                    (const unsigned char *)text, strlen(text)),
                     1);
    EVP_MD_CTX_free(ctx);
    assert_int_equal(note_format(text, &s, 1, &note, NULL), OK);
    return note;
}

static inline char *fake_log_checkpoint(const struct fake_log *l)
{
    struct checkpoint c = {.origin = ORIGIN, .size = l->tree.size};
    assert_int_equal(merkle_root(&l->tree, &c.root, NULL), OK);
    return sign_checkpoint(l->log_key, &c);
}

static inline void write_file(const char *path, const void *data, size_t len)
{
    FILE *f = fopen(path, "w");
    assert_non_null(f);
    assert_int_equal(fwrite(data, 1, len, f), len);
    assert_int_equal(fclose(f), 0);
}

/* All lines of it, an empty one, the checkpoint; caller frees. */
static inline char *fake_log_text(const struct fake_log *l, size_t *len)
{
    char *text;
    FILE *f = open_memstream(&text, len);
    FREE char *note = fake_log_checkpoint(l);
    for (size_t i = 0; i < l->n; i++)
        fprintf(f, "%s\n", l->lines[i]);
    fprintf(f, "\n%s", note);
    assert_int_equal(fclose(f), 0);
    return text;
}

static inline void fake_log_export(const struct fake_log *l, const char *dir)
{
    FREE char *note = fake_log_checkpoint(l);
    CLEANUP(export_freep) struct export *x = NULL;
    assert_int_equal(export_open(&x, dir, NULL), OK);
    for (size_t i = export_size(x); i < l->n; i++)
        assert_int_equal(
            export_add(x, l->lines[i], strlen(l->lines[i]), NULL), OK);
    assert_int_equal(export_finish(x, note, strlen(note), NULL), OK);
}

/* ---- verdicts ---- */

struct verdict {
    struct verify_result result;
    struct verify_finding first; /* fault */
    uint64_t faults[VERIFY_WHATS];
};

static inline void take_finding(void *ctx, const struct verify_finding *f)
{
    struct verdict *v = ctx;
    if (f->what < VERIFY_FAULTS && v->first.text[0] == '\0')
        v->first = *f;
    v->faults[f->what]++;
}

/* given: NULL, the log's own keys. */
static inline void verdict_of(const char *path, const struct note_key *given,
                              const struct checkpoint *since,
                              const struct note *since_note, struct verdict *v)
{
    CLEANUP(source_freep) struct source *source = NULL;
    CLEANUP(keyring_freep) struct keyring *keys = NULL;
    *v = (struct verdict){.result.records = 0};
    assert_int_equal(source_open(&source, path, NULL), OK);
    assert_int_equal(keyring_new(&keys, NULL), OK);
    if (given)
        assert_int_equal(keyring_give(keys, given, NULL), OK);
    const struct verify run = {.source = source,
                               .keys = keys,
                               .since = since,
                               .since_note = since_note,
                               .found = take_finding,
                               .ctx = v};
    struct error e = {.code = OK};
    if (verify_run(&run, &v->result, &e) != OK)
        fail_msg("%s", e.text);
}

#endif
