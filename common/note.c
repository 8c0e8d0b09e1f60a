/* note - see note.h. */
#include "config.h"

#include "common/note.h"

#include "common/base64.h"
#include "common/file.h"
#include "common/text.h"

#include <openssl/evp.h>
#include <openssl/x509.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DASH "\xe2\x80\x94 " /* an em dash and a space begin a signature */
#define DASH_LEN (sizeof DASH - 1)
#define ED25519_KEY 32
#define COSIGNATURE_LEN (8 + 64)

/* ---- keys ---- */

static bool name_is_good(const char *name, size_t len)
{
    if (len == 0 || len >= NOTE_NAME_MAX || !text_utf8_valid(name, len))
        return false;
    for (size_t i = 0; i < len; i++)
        if ((unsigned char)name[i] <= ' ' || name[i] == '+' || name[i] == 0x7f)
            return false;
    return true;
}

static void md_ctx_freep(EVP_MD_CTX **ctx)
{
    EVP_MD_CTX_free(*ctx);
}

/* Ed25519: SHA-256(name ‖ 0x0A ‖ algorithm ‖ key); ECDSA: SHA-256 of the SPKI.
 */
static enum code compute_id(struct note_key *k, struct error *e)
{
    const uint8_t begin[] = {'\n', (uint8_t)k->algorithm};
    uint8_t digest[EVP_MAX_MD_SIZE];
    CLEANUP(md_ctx_freep) EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    bool named = k->algorithm != NOTE_ECDSA;
    if (!ctx || EVP_DigestInit_ex(ctx, EVP_sha256(), NULL) != 1 ||
        (named && (EVP_DigestUpdate(ctx, k->name, strlen(k->name)) != 1 ||
                   EVP_DigestUpdate(ctx, begin, sizeof begin) != 1)) ||
        EVP_DigestUpdate(ctx, k->key, k->key_len) != 1 ||
        EVP_DigestFinal_ex(ctx, digest, NULL) != 1)
        return error_set(e, ERR_NOMEM, "id of a log's key");
    memcpy(k->id, digest, sizeof k->id);
    return OK;
}

static void pkey_freep(EVP_PKEY **key)
{
    EVP_PKEY_free(*key);
}

static EVP_PKEY *pkey(const struct note_key *k)
{
    const unsigned char *at = k->key;
    if (k->algorithm != NOTE_ECDSA)
        return EVP_PKEY_new_raw_public_key(EVP_PKEY_ED25519, NULL, k->key,
                                           k->key_len);
    EVP_PKEY *key = d2i_PUBKEY(NULL, &at, (long)k->key_len);
    char group[32];
    if (key && at == k->key + k->key_len &&
        EVP_PKEY_get_group_name(key, group, sizeof group, NULL) == 1 &&
        strcmp(group, "prime256v1") == 0)
        return key;
    EVP_PKEY_free(key);
    return NULL;
}

enum code note_key(struct note_key *k, const char *name,
                   enum note_algorithm algorithm, const void *key, size_t len,
                   struct error *e)
{
    *k = (struct note_key){.algorithm = algorithm, .key_len = len};
    if (!name_is_good(name, strlen(name)))
        return error_set(e, ERR_INVALID, "\"%s\" cannot name a log", name);
    if (len > sizeof k->key ||
        (algorithm != NOTE_ECDSA && len != ED25519_KEY))
        return error_set(e, ERR_INVALID, "key of log %s: %zu bytes", name, len);
    strcpy(k->name, name);
    memcpy(k->key, key, len);
    CLEANUP(pkey_freep) EVP_PKEY *good = pkey(k);
    if (!good)
        return error_set(e, ERR_INVALID,
                         "key of log %s: neither Ed25519 nor ECDSA P-256",
                         name);
    return compute_id(k, e);
}

enum code note_key_parse(struct note_key *k, const char *text, struct error *e)
{
    const char *plus = strchr(text, '+');
    const char *second = plus ? strchr(plus + 1, '+') : NULL;
    char name[NOTE_NAME_MAX], hex[9];
    uint8_t bytes[sizeof k->key + 4], id[4];
    size_t len, id_len;
    if (!second || (size_t)(plus - text) >= sizeof name ||
        second - plus - 1 != 8)
        return error_set(e, ERR_INVALID,
                         "log key: has to be NAME+ID+KEY, ID in 8 hex digits");
    memcpy(name, text, (size_t)(plus - text));
    name[plus - text] = '\0';
    memcpy(hex, plus + 1, 8);
    hex[8] = '\0';
    enum code rc = text_unhex(id, sizeof id, &id_len, hex, e);
    if (rc)
        return error_prefix(e, "log key %s", name);
    if (!base64_decode(second + 1, strlen(second + 1), bytes, sizeof bytes,
                       &len))
        return error_set(e, ERR_INVALID, "log key %s: not base64", name);
    if (len < 1 || (bytes[0] != NOTE_ED25519 && bytes[0] != NOTE_ECDSA &&
                    bytes[0] != NOTE_COSIGNATURE))
        return error_set(e, ERR_INVALID, "log key %s: unknown algorithm", name);
    rc = note_key(k, name, (enum note_algorithm)bytes[0], bytes + 1, len - 1,
                  e);
    if (rc == OK && memcmp(k->id, id, sizeof id) != 0)
        return error_set(e, ERR_INVALID,
                         "log key %s: its id does not fit the key", name);
    return rc;
}

enum code note_key_format(const struct note_key *k, char **text,
                          struct error *e)
{
    uint8_t bytes[sizeof k->key + 1];
    char id[9];
    bytes[0] = (uint8_t)k->algorithm;
    memcpy(bytes + 1, k->key, k->key_len);
    text_hex(id, k->id, sizeof k->id);
    FREE char *key = base64_encode(bytes, k->key_len + 1);
    if (!key || asprintf(text, "%s+%s+%s", k->name, id, key) < 0) {
        *text = NULL;
        return error_set(e, ERR_NOMEM, "log key %s", k->name);
    }
    return OK;
}

/* ---- notes ---- */

static void set_name(struct note_signature *s, const char *name,
                     const char *end)
{
    memcpy(s->name, name, (size_t)(end - name));
    s->name[end - name] = '\0';
}

/* Of an algorithm that is younger than this program (ML-DSA): let pass, as any
 * signature of an unknown key. */
static enum code parse_long(struct note_signature *s, const char *name,
                            const char *space, size_t text_len,
                            struct error *e)
{
    FREE uint8_t *bytes = malloc(text_len);
    size_t n;
    if (!bytes)
        return error_set(e, ERR_NOMEM, "signed note");
    if (!base64_decode(space + 1, text_len, bytes, text_len, &n))
        return error_set(e, ERR_INVALID, "a signature that is no base64");
    set_name(s, name, space);
    memcpy(s->id, bytes, sizeof s->id);
    s->len = 0;
    return OK;
}

/* `line` has no newline. */
static enum code parse_signature(struct note_signature *s, const char *line,
                                 size_t len, struct error *e)
{
    uint8_t bytes[NOTE_SIGNATURE_MAX + 4];
    size_t n;
    if (len < DASH_LEN || memcmp(line, DASH, DASH_LEN) != 0)
        return error_set(e, ERR_INVALID, "no signature line");
    const char *name = line + DASH_LEN;
    size_t rest = len - DASH_LEN;
    const char *space = memchr(name, ' ', rest);
    if (!space || !name_is_good(name, (size_t)(space - name)))
        return error_set(e, ERR_INVALID, "a signature without a name");
    size_t text_len = rest - (size_t)(space - name) - 1;
    if (text_len > BASE64_LEN(sizeof bytes))
        return parse_long(s, name, space, text_len, e);
    if (!base64_decode(space + 1, text_len, bytes, sizeof bytes, &n))
        return error_set(e, ERR_INVALID, "a signature that is no base64");
    if (n <= sizeof s->id)
        return error_set(e, ERR_INVALID, "a signature of no bytes");
    set_name(s, name, space);
    memcpy(s->id, bytes, sizeof s->id);
    s->len = n - sizeof s->id;
    memcpy(s->bytes, bytes + sizeof s->id, s->len);
    return OK;
}

/* The last empty line parts text and signatures. */
static const char *find_end(const char *bytes, size_t len)
{
    for (size_t i = len; i >= 2; i--)
        if (bytes[i - 1] == '\n' && bytes[i - 2] == '\n')
            return bytes + i - 1;
    return NULL;
}

static bool is_text(const char *s, size_t len)
{
    for (size_t i = 0; i < len; i++)
        if ((unsigned char)s[i] < ' ' && s[i] != '\n')
            return false;
    return text_utf8_valid(s, len);
}

enum code note_parse(struct note *n, const char *bytes, size_t len,
                     struct error *e)
{
    *n = (struct note){.n = 0};
    if (len > NOTE_MAX || !is_text(bytes, len))
        return error_set(e, ERR_INVALID,
                         "not a signed note: no text, or too long");
    const char *end = find_end(bytes, len);
    if (!end || end == bytes)
        return error_set(e, ERR_INVALID, "not a signed note: no signatures");
    n->text = bytes;
    n->text_len = (size_t)(end - bytes);
    const char *line = end + 1, *stop = bytes + len;
    while (line < stop) {
        const char *newline = memchr(line, '\n', (size_t)(stop - line));
        if (!newline || n->n == NOTE_SIGNATURES)
            return error_set(e, ERR_INVALID,
                             "signed note: more than %d signatures, or the "
                             "last line is cut",
                             NOTE_SIGNATURES);
        enum code rc = parse_signature(&n->signatures[n->n], line,
                                       (size_t)(newline - line), e);
        if (rc)
            return error_prefix(e, "signed note, signature %zu", n->n + 1);
        n->n++;
        line = newline + 1;
    }
    return n->n ? OK
                : error_set(e, ERR_INVALID, "signed note without a signature");
}

static enum code format_signature(FILE *out, const struct note_signature *s,
                                  struct error *e)
{
    uint8_t bytes[NOTE_SIGNATURE_MAX + 4];
    if (s->len == 0)
        return error_set(e, ERR_INVALID, "signature of %s: its bytes were not "
                                         "kept",
                         s->name);
    memcpy(bytes, s->id, sizeof s->id);
    memcpy(bytes + sizeof s->id, s->bytes, s->len);
    FREE char *text = base64_encode(bytes, s->len + sizeof s->id);
    if (!text)
        return error_set(e, ERR_NOMEM, "signature of %s", s->name);
    fprintf(out, DASH "%s %s\n", s->name, text);
    return OK;
}

enum code note_format(const char *text, const struct note_signature *s,
                      size_t n, char **out, struct error *e)
{
    size_t len = 0;
    enum code rc = OK;
    *out = NULL;
    FILE *stream = open_memstream(out, &len);
    if (!stream)
        return error_set(e, ERR_NOMEM, "signed note");
    fprintf(stream, "%s\n", text);
    for (size_t i = 0; i < n && rc == OK; i++)
        rc = format_signature(stream, &s[i], e);
    if (fclose(stream) != 0 && rc == OK)
        rc = error_set(e, ERR_NOMEM, "signed note");
    if (rc) {
        free(*out);
        *out = NULL;
    }
    return rc;
}

static bool fits(const struct note_key *k, const uint8_t *signature,
                 size_t signature_len, const void *text, size_t len)
{
    CLEANUP(pkey_freep) EVP_PKEY *key = pkey(k);
    CLEANUP(md_ctx_freep) EVP_MD_CTX *ctx = EVP_MD_CTX_new();
    const EVP_MD *md = k->algorithm == NOTE_ECDSA ? EVP_sha256() : NULL;
    return key && ctx &&
           EVP_DigestVerifyInit(ctx, NULL, md, NULL, key) == 1 &&
           EVP_DigestVerify(ctx, signature, signature_len, text, len) == 1;
}

/* c2sp.org/tlog-cosignature, "Ed25519 signed message". */
static bool is_cosigned(const struct note *n, const struct note_signature *s,
                        const struct note_key *k)
{
    FREE char *message = NULL;
    uint64_t seconds = 0;
    if (s->len != COSIGNATURE_LEN)
        return false;
    for (int i = 0; i < 8; i++)
        seconds = seconds << 8 | s->bytes[i];
    int len = asprintf(&message, "cosignature/v1\ntime %llu\n%.*s",
                       (unsigned long long)seconds, (int)n->text_len, n->text);
    if (len < 0)
        message = NULL;
    return len > 0 && seconds <= INT64_MAX &&
           fits(k, s->bytes + 8, s->len - 8, message, (size_t)len);
}

static bool is_signed(const struct note *n, const struct note_signature *s,
                      const struct note_key *k)
{
    return k->algorithm == NOTE_COSIGNATURE
               ? is_cosigned(n, s, k)
               : fits(k, s->bytes, s->len, n->text, n->text_len);
}

enum code note_verify(const struct note *n, const struct note_key *k,
                      bool *found, struct error *e)
{
    *found = false;
    for (size_t i = 0; i < n->n; i++) {
        const struct note_signature *s = &n->signatures[i];
        if (strcmp(s->name, k->name) != 0 ||
            memcmp(s->id, k->id, sizeof k->id) != 0)
            continue;
        if (!is_signed(n, s, k))
            return error_set(e, ERR_SEAL,
                             "the signature of %s does not fit the text",
                             k->name);
        *found = true;
    }
    return OK;
}

/* ---- checkpoints ---- */

enum code checkpoint_format(const struct checkpoint *c, char **text,
                            struct error *e)
{
    FREE char *root = base64_encode(c->root.bytes, MERKLE_HASH);
    if (!root || asprintf(text, "%s\n%llu\n%s\n", c->origin,
                          (unsigned long long)c->size, root) < 0) {
        *text = NULL;
        return error_set(e, ERR_NOMEM, "checkpoint of %s", c->origin);
    }
    return OK;
}

/* Decimal without leading zeros, below 2^63. */
static bool parse_size(const char *s, size_t len, uint64_t *size)
{
    *size = 0;
    if (len == 0 || len > 19 || (len > 1 && s[0] == '0'))
        return false;
    for (size_t i = 0; i < len; i++) {
        if (s[i] < '0' || s[i] > '9')
            return false;
        *size = *size * 10 + (uint64_t)(s[i] - '0');
    }
    return *size <= INT64_MAX;
}

enum code checkpoint_parse(struct checkpoint *c, const char *text, size_t len,
                           struct error *e)
{
    const char *lines[3], *at = text, *stop = text + len;
    size_t lens[3], n;
    uint8_t root[MERKLE_HASH];
    *c = (struct checkpoint){.size = 0};
    for (int i = 0; i < 3; i++) {
        const char *newline = memchr(at, '\n', (size_t)(stop - at));
        if (!newline)
            return error_set(e, ERR_INVALID,
                             "checkpoint: has to have three lines");
        lines[i] = at;
        lens[i] = (size_t)(newline - at);
        at = newline + 1;
    }
    if (!name_is_good(lines[0], lens[0]))
        return error_set(e, ERR_INVALID, "checkpoint: no origin");
    memcpy(c->origin, lines[0], lens[0]);
    if (!parse_size(lines[1], lens[1], &c->size))
        return error_set(e, ERR_INVALID, "checkpoint of %s: no size",
                         c->origin);
    if (!base64_decode(lines[2], lens[2], root, sizeof root, &n) ||
        n != MERKLE_HASH)
        return error_set(e, ERR_INVALID, "checkpoint of %s: no root hash",
                         c->origin);
    memcpy(c->root.bytes, root, MERKLE_HASH);
    return OK;
}

uint64_t checkpoint_extension(const char *text, size_t len, const char *name)
{
    const char *at = text, *stop = text + len, *end;
    size_t n = strlen(name);
    uint64_t value = 0;
    for (int line = 0; (end = memchr(at, '\n', (size_t)(stop - at))); line++) {
        if (line >= 3 && (size_t)(end - at) > n && at[n] == ' ' &&
            memcmp(at, name, n) == 0 &&
            parse_size(at + n + 1, (size_t)(end - at) - n - 1, &value))
            return value;
        at = end + 1;
    }
    return 0;
}
