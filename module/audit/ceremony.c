/* ceremony - see ceremony.h. */
#include "config.h"

#include "module/audit/ceremony.h"

#include "common/base64.h"
#include "common/file.h"
#include "common/text.h"
#include "module/audit/attestation.h"
#include "module/audit/signer.h"

#include <openssl/evp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static enum code no_memory(struct error *e)
{
    return error_set(e, ERR_NOMEM, "no memory for a verdict");
}

struct verdict {
    const struct transcript *t;
    json_t *faults, *notices;
};

static const char *member(const json_t *object, const char *name)
{
    const char *text = json_string_value(json_object_get(object, name));
    return text ? text : "";
}

static const json_t *part(const struct transcript *t, const char *name)
{
    return json_object_get(t->json, name);
}

static PRINTF(2, 3) enum code tell(json_t *list, const char *fmt, ...)
{
    char text[ERROR_TEXT_MAX];
    va_list args;
    va_start(args, fmt);
    (void)vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    return json_array_append_new(list, json_string(text)) ? ERR_NOMEM : OK;
}

/* ---- keys of the HSM ---- */

static enum code check_fingerprint(struct verdict *v, const json_t *key)
{
    uint8_t spki[TRANSCRIPT_KEY_MAX], digest[32];
    char hex[2 * 32 + 1];
    size_t len;
    enum code rc = transcript_key(key, spki, &len, digest, NULL);
    if (rc || len == 0)
        return rc;
    text_hex(hex, digest, sizeof digest);
    return strcmp(hex, member(key, "fingerprint")) == 0
               ? OK
               : tell(v->faults, "%s: its fingerprint is not that of its "
                                 "public key",
                      member(key, "label"));
}

/* Made inside, and cannot leave. */
static enum code check_attributes(struct verdict *v, const json_t *key)
{
    static const struct {
        const char *member, *name;
        bool wanted;
    } rules[] = {{"local", "CKA_LOCAL", true},
                 {"never_extractable", "CKA_NEVER_EXTRACTABLE", true},
                 {"always_sensitive", "CKA_ALWAYS_SENSITIVE", true},
                 {"sensitive", "CKA_SENSITIVE", true},
                 {"extractable", "CKA_EXTRACTABLE", false}};
    enum code rc = OK;
    if (!json_is_true(json_object_get(key, "present")))
        return OK;
    for (size_t i = 0; rc == OK && i < sizeof rules / sizeof rules[0]; i++) {
        const json_t *said = json_object_get(key, rules[i].member);
        if (!json_is_boolean(said) || json_is_true(said) != rules[i].wanted)
            rc = tell(v->faults, "%s: %s is not %s: it may have been outside "
                                 "the HSM",
                      member(key, "label"), rules[i].name,
                      rules[i].wanted ? "yes" : "no");
    }
    return rc;
}

static enum code check_keys(struct verdict *v)
{
    const json_t *keys = part(v->t, "keys");
    enum code rc = OK;
    for (size_t i = 0; rc == OK && i < json_array_size(keys); i++) {
        const json_t *one = json_array_get(keys, i);
        rc = check_fingerprint(v, one);
        if (rc == OK)
            rc = check_attributes(v, one);
    }
    return rc;
}

/* ---- the log's signatures ---- */

static enum code check_log(struct verdict *v, const struct keyring *keys)
{
    const char *origin = member(part(v->t, "log"), "origin");
    struct error why = {.code = OK};
    struct note n;
    enum code rc = OK;
    if (transcript_check_log(v->t, &why))
        rc = tell(v->faults, "%s", why.text);
    transcript_note(v->t, &n);
    if (rc == OK && keyring_was_given(keys) &&
        keyring_check_note(keys, &n, origin, &why))
        rc = tell(v->faults, "by the keys that were given: %s", why.text);
    return rc;
}

/* ---- participants ---- */

static enum code check_participant(struct verdict *v, size_t i, json_t *list)
{
    const json_t *one = json_array_get(part(v->t, "participants"), i);
    const struct transcript_signature *s = &v->t->by[i];
    uint8_t spki[TRANSCRIPT_KEY_MAX], digest[32];
    char kind[SIGNER_KIND_MAX] = "", hex[2 * 32 + 1] = "";
    const char *signature = "none";
    struct error why = {.code = OK};
    size_t len;
    enum code rc = transcript_key(one, spki, &len, digest, NULL);
    if (rc == OK && len) {
        text_hex(hex, digest, sizeof digest);
        signature = "not yet";
        if (signer_kind(spki, len, kind, &why))
            rc = tell(v->faults, "participant %s: %s", member(one, "name"),
                      why.text);
    }
    if (rc == OK && s->len) {
        signature = "good";
        if (signer_verify(spki, len, v->t->text, v->t->text_len, s->bytes,
                          s->len, &why)) {
            signature = "bad";
            rc = tell(v->faults, "participant %s: %s", member(one, "name"),
                      why.text);
        }
    }
    if (rc)
        return rc;
    return json_array_append_new(
               list, json_pack("{ss ss ss ss ss}", "name", member(one, "name"),
                               "role", member(one, "role"), "key", kind,
                               "fingerprint", hex, "signature", signature))
               ? ERR_NOMEM
               : OK;
}

/* ---- attestations ---- */

/* The key of that label; its SPKI. */
static enum code find_spki(struct verdict *v, const char *label,
                           uint8_t spki[TRANSCRIPT_KEY_MAX], size_t *len,
                           bool *found)
{
    const json_t *keys = part(v->t, "keys");
    uint8_t digest[32];
    *len = 0;
    *found = false;
    for (size_t i = 0; i < json_array_size(keys); i++) {
        const json_t *one = json_array_get(keys, i);
        if (strcmp(member(one, "label"), label) != 0)
            continue;
        *found = true;
        return transcript_key(one, spki, len, digest, NULL);
    }
    return OK;
}

static enum code check_attestation(struct verdict *v, const json_t *one,
                                   json_t *list)
{
    const char *of = member(one, "key"), *text = member(one, "bytes");
    FREE uint8_t *bytes = malloc(TRANSCRIPT_ATTESTATION_MAX);
    uint8_t spki[TRANSCRIPT_KEY_MAX], digest[EVP_MAX_MD_SIZE];
    char hex[2 * 32 + 1];
    struct attestation a;
    size_t len, spki_len;
    bool found;
    enum code rc = find_spki(v, of, spki, &spki_len, &found);
    if (rc || !bytes ||
        !base64_decode(text, strlen(text), bytes, TRANSCRIPT_ATTESTATION_MAX,
                       &len) ||
        EVP_Digest(bytes, len, digest, NULL, EVP_sha256(), NULL) != 1)
        return ERR_NOMEM;
    text_hex(hex, digest, 32);
    attestation_look(&a, bytes, len, spki, spki_len);
    if (!found && strcmp(of, "hsm") != 0)
        rc = tell(v->notices, "attestation of %s: no key here is called so",
                  of);
    else if (a.certificates && spki_len && !a.is_about)
        rc = tell(v->notices,
                  "attestation of %s: its certificates are about other keys",
                  of);
    if (rc)
        return rc;
    return json_array_append_new(
               list,
               json_pack("{ss ss sI ss sI ss ss ss}", "key", of, "sha256", hex,
                         "bytes", (json_int_t)len, "kind",
                         a.certificates ? "X.509" : "bytes", "certificates",
                         (json_int_t)a.certificates, "subject", a.subject,
                         "issuer", a.issuer, "about",
                         !a.certificates ? "not known"
                         : a.is_about    ? "this key"
                         : spki_len      ? "another key"
                                         : "no key here"))
               ? ERR_NOMEM
               : OK;
}

/* ---- all ---- */

static json_t *log_keys(const struct transcript *t)
{
    json_t *list = json_array();
    for (size_t i = 0; i < t->log_n; i++) {
        FREE char *text = NULL;
        struct note_key key;
        if (transcript_log_key(t, i, &key, NULL) == OK &&
            note_key_format(&key, &text, NULL) == OK)
            (void)json_array_append_new(list, json_string(text));
    }
    return list;
}

enum code ceremony_check(const struct transcript *t,
                         const struct keyring *keys, json_t **out,
                         struct error *e)
{
    JSON faults = json_array();
    JSON notices = json_array();
    JSON people = json_array();
    JSON attested = json_array();
    struct verdict v = {t, faults, notices};
    enum code rc = check_log(&v, keys);
    if (rc == OK)
        rc = check_keys(&v);
    for (size_t i = 0; rc == OK && i < json_array_size(part(t, "participants"));
         i++)
        rc = check_participant(&v, i, people);
    for (size_t i = 0; rc == OK && i < json_array_size(part(t, "attestations"));
         i++)
        rc = check_attestation(&v, json_array_get(part(t, "attestations"), i),
                               attested);
    *out = rc ? NULL
              : json_pack("{sO sO so sO sO}", "faults", faults, "notices",
                          notices, "log_keys", log_keys(t), "participants",
                          people, "attestations", attested);
    return *out ? OK : no_memory(e);
}

/* ---- what the log says ---- */

static enum code digest_of(const char *text, char out[64], struct error *e)
{
    uint8_t digest[EVP_MAX_MD_SIZE];
    FREE char *base64 = NULL;
    if (text && EVP_Digest(text, strlen(text), digest, NULL, EVP_sha256(),
                           NULL) == 1)
        base64 = base64_encode(digest, 32);
    if (!base64)
        return no_memory(e);
    snprintf(out, 64, "%s", base64);
    return OK;
}

/* The first one is of version 1. */
static bool forgets(const struct transcript *t)
{
    const json_t *keys = part(t, "keys");
    for (size_t i = 0; i < json_array_size(keys); i++) {
        const json_t *one = json_array_get(keys, i);
        if (strcmp(member(one, "use"), "call") == 0 &&
            json_integer_value(json_object_get(one, "version")) == 1)
            return false;
    }
    return true;
}

enum code ceremony_trace_begin(struct ceremony_trace *c,
                               const struct transcript *t, struct error *e)
{
    FREE char *given = transcript_given(t->json);
    *c = (struct ceremony_trace){
        .t = t,
        .record = json_integer_value(
            json_object_get(part(t, "log"), "record")),
        .forgets = forgets(t)};
    enum code rc = digest_of(given, c->given, e);
    return rc ? rc : digest_of(t->text, c->statement, e);
}

static bool has_call_key(const struct transcript *t, const char *hex)
{
    const json_t *keys = part(t, "keys");
    size_t i;
    json_t *key;
    json_array_foreach((json_t *)(uintptr_t)keys, i, key)
    {
        if (strcmp(member(key, "use"), "call") == 0 &&
            strcmp(member(key, "fingerprint"), hex) == 0)
            return true;
    }
    return false;
}

/* The keeper told of each key that it and the pins knew, those of before, too.
 * What signed calls before and is none of them, no HSM had. */
static void look_for_strangers(struct ceremony_trace *c, const struct record *r)
{
    const json_t *calls = json_object_get(r->json, "call");
    size_t i;
    json_t *call;
    json_array_foreach((json_t *)(uintptr_t)calls, i, call)
    {
        uint8_t spki[TRANSCRIPT_KEY_MAX], digest[32] = {0};
        char hex[2 * 32 + 1];
        size_t len = 0;
        enum code rc = transcript_key(call, spki, &len, digest, NULL);
        text_hex(hex, digest, sizeof digest);
        if (c->stranger_seq ||
            (rc == OK && len > 0 && has_call_key(c->t, hex)))
            continue;
        c->stranger_seq = r->seq;
        (void)text_escape(c->stranger, sizeof c->stranger,
                          member(call, "keyid"), strlen(member(call, "keyid")));
    }
}

void ceremony_trace_record(struct ceremony_trace *c, const struct record *r)
{
    if (r->kind == RECORD_KEYS && r->seq < c->record)
        look_for_strangers(c, r);
    if (r->kind != RECORD_CEREMONY)
        return;
    if (r->seq == c->record &&
        strcmp(member(r->json, "step"), "given") == 0 &&
        strcmp(member(r->json, "given"), c->given) == 0)
        c->told = true;
    if (strcmp(member(r->json, "step"), "signed") == 0 &&
        strcmp(member(r->json, "statement"), c->statement) == 0)
        c->signed_seq = r->seq;
}

enum code ceremony_checkpoint(const struct transcript *t,
                              struct checkpoint *c, struct error *e)
{
    const json_t *log = part(t, "log");
    const char *origin = member(log, "origin"), *root = member(log, "root");
    size_t len = 0;
    *c = (struct checkpoint){
        .size = (uint64_t)json_integer_value(json_object_get(log, "size"))};
    if (strlen(origin) >= sizeof c->origin ||
        !base64_decode(root, strlen(root), c->root.bytes, MERKLE_HASH, &len) ||
        len != MERKLE_HASH)
        return error_set(e, ERR_INVALID, "the statement names no tree");
    strcpy(c->origin, origin);
    return OK;
}

/* ---- signing ---- */

enum code ceremony_sign(struct transcript *t, const char *name,
                        const uint8_t *signature, size_t len, struct error *e)
{
    const json_t *people = part(t, "participants");
    uint8_t spki[TRANSCRIPT_KEY_MAX], digest[32];
    size_t i = 0, key = 0;
    while (i < json_array_size(people) &&
           strcmp(member(json_array_get(people, i), "name"), name) != 0)
        i++;
    if (i == json_array_size(people))
        return error_set(e, ERR_NOT_FOUND,
                         "no participant of it is called \"%.128s\": `hsmint "
                         "ceremony show` lists them",
                         name);
    enum code rc =
        transcript_key(json_array_get(people, i), spki, &key, digest, e);
    if (rc == OK && key == 0)
        rc = error_set(e, ERR_INVALID,
                       "participant %s was named without a key, so nothing can "
                       "tell whether a signature is theirs",
                       name);
    struct transcript_signature s;
    if (rc == OK)
        rc = signer_take(spki, key, t->text, t->text_len, signature, len,
                         s.bytes, sizeof s.bytes, &s.len, e);
    if (rc)
        return rc == ERR_SEAL ? error_prefix(e, "participant %s", name) : rc;
    if (t->by[i].len &&
        signer_verify(spki, key, t->text, t->text_len, t->by[i].bytes,
                      t->by[i].len, NULL) == OK)
        return error_set(e, ERR_EXISTS, "participant %s has signed already",
                         name);
    t->by[i] = s;
    return OK;
}
