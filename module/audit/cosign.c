/* cosign - see cosign.h. */
#include "config.h"

#include "module/audit/cosign.h"

#include "common/base64.h"
#include "common/file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define REQUEST_HASHES 63 /* the protocol's most */

enum code cosign_request(uint64_t old, const struct merkle_proof *proof,
                         const char *note, size_t len, char **body,
                         struct error *e)
{
    size_t n;
    *body = NULL;
    if (proof->n > REQUEST_HASHES)
        return error_set(e, ERR_INTERNAL, "a proof of %zu hashes", proof->n);
    FILE *f = open_memstream(body, &n);
    if (!f)
        return error_set(e, ERR_NOMEM, "a witness's request");
    bool good = fprintf(f, "old %llu\n", (unsigned long long)old) > 0;
    for (size_t i = 0; i < proof->n; i++) {
        FREE char *hash = base64_encode(proof->hashes[i].bytes, MERKLE_HASH);
        good = hash && fprintf(f, "%s\n", hash) > 0 && good;
    }
    good = fputc('\n', f) != EOF && good;
    good = fwrite(note, 1, len, f) == len && good;
    if (fclose(f) == 0 && good)
        return OK;
    free(*body);
    *body = NULL;
    return error_set(e, ERR_NOMEM, "a witness's request");
}

enum code cosign_conflict(const char *body, size_t len, uint64_t *size,
                          struct error *e)
{
    *size = 0;
    for (size_t i = 0; i < len; i++) {
        if (i > 0 && i + 1 == len && body[i] == '\n')
            return OK;
        if (i == 18 || body[i] < '0' || body[i] > '9' ||
            (i == 1 && body[0] == '0'))
            break;
        *size = *size * 10 + (uint64_t)(body[i] - '0');
    }
    return error_set(e, ERR_SERVICE_REPLY,
                     "the witness has seen another checkpoint, and does not "
                     "say how many records it had");
}

/* ---- the answer ---- */

static bool is_of(const struct note_signature *s, const struct note_key *key)
{
    return strcmp(s->name, key->name) == 0 &&
           memcmp(s->id, key->id, sizeof s->id) == 0;
}

/* The lines of a note's signatures as they are, those of `key` or all others. */
static bool put_lines(FILE *out, const char *bytes, size_t len,
                      const struct note *n, const struct note_key *key,
                      bool own)
{
    const char *at = bytes + n->text_len + 1, *end = bytes + len;
    for (size_t i = 0; i < n->n && at < end; i++) {
        const char *newline = memchr(at, '\n', (size_t)(end - at));
        size_t line = (size_t)((newline ? newline + 1 : end) - at);
        if (is_of(&n->signatures[i], key) == own &&
            fwrite(at, 1, line, out) != line)
            return false;
        at += line;
    }
    return true;
}

/* Text and answer as one note: so it is parsed once, by the one parser. */
static enum code check_answer(const struct note *n, const char *answer,
                              size_t len, const struct note_key *key,
                              char **bytes, struct note *parsed,
                              struct error *e)
{
    bool found = false;
    size_t all = n->text_len + 1 + len;
    if (len > NOTE_MAX)
        return error_set(e, ERR_INVALID, "the witness's answer is too long");
    *bytes = malloc(all + 1);
    if (!*bytes)
        return error_set(e, ERR_NOMEM, "a witness's answer");
    memcpy(*bytes, n->text, n->text_len);
    (*bytes)[n->text_len] = '\n';
    memcpy(*bytes + n->text_len + 1, answer, len);
    (*bytes)[all] = '\0';
    enum code rc = note_parse(parsed, *bytes, all, e);
    if (rc == OK && parsed->text_len != n->text_len)
        rc = error_set(e, ERR_INVALID, "more than signatures");
    if (rc == OK)
        rc = note_verify(parsed, key, &found, e);
    if (rc == OK && !found)
        rc = error_set(e, ERR_SEAL, "no cosignature of %s in it", key->name);
    return rc ? error_prefix(e, "the witness's answer") : OK;
}

enum code cosign_take(const char *note, size_t len, const char *answer,
                      size_t answer_len, const struct note_key *key, char **out,
                      struct error *e)
{
    struct note n, added;
    FREE char *bytes = NULL;
    size_t out_len;
    *out = NULL;
    enum code rc = note_parse(&n, note, len, e);
    if (rc == OK)
        rc = check_answer(&n, answer, answer_len, key, &bytes, &added, e);
    if (rc)
        return rc;
    FILE *f = open_memstream(out, &out_len);
    if (!f)
        return error_set(e, ERR_NOMEM, "a cosigned checkpoint");
    bool good = fwrite(note, 1, n.text_len + 1, f) == n.text_len + 1 &&
                put_lines(f, note, len, &n, key, false) &&
                put_lines(f, bytes, n.text_len + 1 + answer_len, &added, key,
                          true);
    if (fclose(f) != 0 || !good) {
        free(*out);
        *out = NULL;
        return error_set(e, ERR_NOMEM, "a cosigned checkpoint");
    }
    return note_parse(&n, *out, out_len, e); /* not too many by now */
}
