/* What a ceremony is given, and the file with its signatures; the rest of
 * transcript.h. */
#include "config.h"

#include "common/transcript.h"

#include "common/base64.h"
#include "common/file.h"
#include "common/text.h"

#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define DASH "\xe2\x80\x94 " /* begins a signature line */
#define BY "participant/"
#define NOTE_ED25519_KEY 32u

static enum code no_memory(struct error *e)
{
    return error_set(e, ERR_NOMEM, "no memory for a transcript");
}

/* ---- names ---- */

/* Zero-width characters, by which one name looks like another. */
static bool is_hidden(const char *at)
{
    static const char *const hidden[] = {
        "\xe2\x80\x8b", "\xe2\x80\x8c", "\xe2\x80\x8d", "\xe2\x81\xa0",
        "\xef\xbb\xbf", "\xc2\xad",     "\xe1\x85\x9f", "\xe3\x85\xa4"};
    for (size_t i = 0; i < sizeof hidden / sizeof hidden[0]; i++)
        if (strncmp(at, hidden[i], strlen(hidden[i])) == 0)
            return true;
    return false;
}

enum code transcript_check_name(const char *what, const char *name,
                                struct error *e)
{
    char same[TRANSCRIPT_NAME_MAX + 1];
    size_t len = strlen(name);
    bool good = len > 0 && len <= TRANSCRIPT_NAME_MAX && *name != ' ' &&
                name[len - 1] != ' ' &&
                text_escape(same, sizeof same, name, len) == len &&
                memcmp(same, name, len) == 0;
    for (const char *at = name; good && *at; at++)
        good = !is_hidden(at);
    if (good)
        return OK;
    return error_set(e, ERR_INVALID,
                     "%s \"%.64s\": 1 to %d bytes of UTF-8 that can be seen, "
                     "without control characters and spaces at its ends",
                     what, name, TRANSCRIPT_NAME_MAX);
}

/* ---- given ---- */

static enum code check_bytes(const char *what, const char *text, size_t max,
                             size_t *len, struct error *e)
{
    FREE uint8_t *bytes = malloc(max);
    if (!bytes)
        return no_memory(e);
    if (base64_decode(text, strlen(text), bytes, max, len))
        return OK;
    return error_set(e, ERR_INVALID,
                     "%s has to be 1 to %zu bytes (in base64, on its way)",
                     what, max);
}

static enum code check_participant(json_t *one, const json_t *list, size_t i,
                                   struct error *e)
{
    const char *name = "", *role = "", *key = NULL;
    const struct json_field fields[] = {
        {"name", FIELD_STRING, true, &name, NULL},
        {"role", FIELD_STRING, true, &role, NULL},
        {"public_key", FIELD_STRING, false, &key, NULL},
    };
    size_t len;
    enum code rc =
        json_decode(one, JSON_FIELDS(fields), false, "a participant", e);
    if (rc == OK)
        rc = transcript_check_name("participant", name, e);
    if (rc == OK)
        rc = transcript_check_name("a participant's role", role, e);
    if (rc == OK && key)
        rc = check_bytes("a participant's public key", key, TRANSCRIPT_KEY_MAX,
                         &len, e);
    for (size_t k = 0; rc == OK && k < i; k++) {
        const json_t *other = json_array_get(list, k);
        const char *its = json_string_value(json_object_get(other, "name"));
        const char *has =
            json_string_value(json_object_get(other, "public_key"));
        if (its && strcmp(its, name) == 0)
            rc = error_set(e, ERR_INVALID,
                           "participant %s is named twice: tell them apart",
                           name);
        else if (has && key && strcmp(has, key) == 0)
            rc = error_set(e, ERR_INVALID,
                           "participants %s and %s have the same public key: "
                           "each signs with a key of their own",
                           its ? its : "", name);
    }
    return rc;
}

static enum code check_attestation(json_t *one, size_t *all, struct error *e)
{
    const char *key = "", *bytes = "";
    const struct json_field fields[] = {
        {"key", FIELD_STRING, true, &key, NULL},
        {"bytes", FIELD_STRING, true, &bytes, NULL},
    };
    size_t len = 0;
    enum code rc =
        json_decode(one, JSON_FIELDS(fields), false, "an attestation", e);
    if (rc == OK)
        rc = text_check_name("attestation of", key, e);
    if (rc == OK)
        rc = check_bytes("an attestation", bytes, TRANSCRIPT_ATTESTATION_MAX,
                         &len, e);
    *all += len;
    if (rc == OK && *all > TRANSCRIPT_ATTESTED_MAX)
        rc = error_set(e, ERR_INVALID,
                       "the attestations are of more than %d bytes together",
                       TRANSCRIPT_ATTESTED_MAX);
    return rc;
}

enum code transcript_check_given(const json_t *given, struct error *e)
{
    const json_t *people = json_object_get(given, "participants");
    const json_t *attested = json_object_get(given, "attestations");
    size_t all = 0, n = json_array_size(people), m = json_array_size(attested);
    if (!json_is_array(people) || !json_is_array(attested))
        return error_set(e, ERR_INVALID,
                         "a ceremony is given lists of participants and "
                         "attestations");
    if (n > TRANSCRIPT_PARTICIPANTS || m > TRANSCRIPT_ATTESTATIONS)
        return error_set(e, ERR_INVALID,
                         "a ceremony has at most %d participants and %d "
                         "attestations, not %zu and %zu",
                         TRANSCRIPT_PARTICIPANTS, TRANSCRIPT_ATTESTATIONS, n,
                         m);
    for (size_t i = 0; i < n; i++) {
        enum code rc =
            check_participant(json_array_get(people, i), people, i, e);
        if (rc)
            return rc;
    }
    for (size_t i = 0; i < m; i++) {
        enum code rc = check_attestation(json_array_get(attested, i), &all, e);
        if (rc)
            return rc;
    }
    return OK;
}

/* Members that are missing are null, and in one order. */
static json_t *pick(const json_t *list, const char *const members[3])
{
    JSON out = json_array();
    for (size_t i = 0; out && i < json_array_size(list); i++) {
        JSON one = json_object();
        for (size_t k = 0; k < 3 && members[k]; k++) {
            json_t *value =
                json_object_get(json_array_get(list, i), members[k]);
            if (json_object_set_new(one, members[k],
                                    value ? json_incref(value) : json_null()))
                return NULL;
        }
        if (json_array_append(out, one))
            return NULL;
    }
    return json_incref(out);
}

char *transcript_given(const json_t *t)
{
    static const char *const person[3] = {"name", "role", "public_key"};
    static const char *const attestation[3] = {"key", "bytes"};
    static const char *const state[3] = {"label", "state", "since"};
    JSON given = json_pack(
        "{so so so}", "states", pick(json_object_get(t, "states"), state),
        "participants",
        pick(json_object_get(t, "participants"), person), "attestations",
        pick(json_object_get(t, "attestations"), attestation));
    return json_text(given, JSON_COMPACT);
}

/* ---- the file ---- */

void transcript_freep(struct transcript **t)
{
    if (!*t)
        return;
    free((*t)->text);
    json_decref((*t)->json);
    free(*t);
}

enum code transcript_key(const json_t *participant,
                         uint8_t spki[TRANSCRIPT_KEY_MAX], size_t *len,
                         uint8_t digest[32], struct error *e)
{
    const char *key =
        json_string_value(json_object_get(participant, "public_key"));
    *len = 0;
    if (!key)
        return OK;
    if (!base64_decode(key, strlen(key), spki, TRANSCRIPT_KEY_MAX, len))
        return error_set(e, ERR_INVALID, "a participant's key is no base64");
    return EVP_Digest(spki, *len, digest, NULL, EVP_sha256(), NULL) == 1
               ? OK
               : no_memory(e);
}

/* The number in "participant/N", from 1; 0: it is none. */
static size_t number_of(const char *name)
{
    size_t n = 0;
    if (strncmp(name, BY, strlen(BY)) != 0)
        return 0;
    name += strlen(BY);
    if (*name < '1' || *name > '9' || strlen(name) > 3)
        return 0;
    for (; *name >= '0' && *name <= '9'; name++)
        n = 10 * n + (size_t)(*name - '0');
    return *name ? 0 : n;
}

static enum code take_log(struct transcript *t, const char *name,
                          const uint8_t *bytes, size_t len, struct error *e)
{
    struct note_signature *s = &t->log[t->log_n];
    if (t->log_n == sizeof t->log / sizeof t->log[0] || len <= sizeof s->id ||
        len - sizeof s->id > sizeof s->bytes)
        return error_set(e, ERR_INVALID, "a transcript with too many or too "
                                         "long signatures of the log");
    t->log_n++;
    strcpy(s->name, name);
    memcpy(s->id, bytes, sizeof s->id);
    s->len = len - sizeof s->id;
    memcpy(s->bytes, bytes + sizeof s->id, s->len);
    return OK;
}

static enum code take_participant(struct transcript *t, size_t i,
                                  const uint8_t *bytes, size_t len,
                                  struct error *e)
{
    const json_t *people = json_object_get(t->json, "participants");
    uint8_t spki[TRANSCRIPT_KEY_MAX], digest[32];
    size_t key = 0;
    struct error why = {.code = OK};
    if (i > json_array_size(people) ||
        transcript_key(json_array_get(people, i - 1), spki, &key, digest,
                       &why) ||
        key == 0 || len <= 4 || len - 4 > TRANSCRIPT_SIGNATURE_MAX ||
        memcmp(bytes, digest, 4) != 0)
        return error_set(e, ERR_INVALID,
                         "a signature of " BY "%zu, who has no such key", i);
    struct transcript_signature *s = &t->by[i - 1];
    for (size_t k = i - 1; k < TRANSCRIPT_PARTICIPANTS; k++)
        if (t->by[k].len)
            return error_set(e, ERR_INVALID,
                             "participants' signatures have to stand in their "
                             "order, once each");
    s->len = len - 4;
    memcpy(s->bytes, bytes + 4, s->len);
    return OK;
}

/* `line` has no newline. */
static enum code take_line(struct transcript *t, const char *line, size_t len,
                           struct error *e)
{
    const char *origin = json_string_value(
        json_object_get(json_object_get(t->json, "log"), "origin"));
    uint8_t bytes[TRANSCRIPT_SIGNATURE_MAX + 4];
    char name[NOTE_NAME_MAX];
    size_t n, dash = strlen(DASH);
    const char *space = len > dash ? memchr(line + dash, ' ', len - dash)
                                   : NULL;
    size_t of_name = space ? (size_t)(space - line) - dash : 0;
    if (!space || memcmp(line, DASH, dash) != 0 || of_name >= sizeof name ||
        !base64_decode(space + 1, len - dash - of_name - 1, bytes,
                       sizeof bytes, &n))
        return error_set(e, ERR_INVALID,
                         "a transcript's last lines are no signatures");
    memcpy(name, line + dash, of_name);
    name[of_name] = '\0';
    size_t i = number_of(name);
    if (i > 0 && t->log_n > 0)
        return take_participant(t, i, bytes, n, e);
    for (size_t k = 0; k < TRANSCRIPT_PARTICIPANTS; k++)
        if (t->by[k].len || strcmp(name, origin) != 0)
            return error_set(e, ERR_INVALID,
                             "a signature by \"%.64s\", who is neither the log "
                             "nor a participant, or not in its place",
                             name);
    return take_log(t, name, bytes, n, e);
}

/* The last empty line parts statement and signatures. */
static const char *find_end(const char *bytes, size_t len)
{
    for (size_t i = len; i >= 2; i--)
        if (bytes[i - 1] == '\n' && bytes[i - 2] == '\n')
            return bytes + i - 1;
    return NULL;
}

static enum code read_all(struct transcript *t, const char *bytes, size_t len,
                          struct error *e)
{
    const char *end = find_end(bytes, len), *stop = bytes + len;
    if (!end)
        return error_set(e, ERR_INVALID, "not a transcript: it has no "
                                         "signatures");
    t->text_len = (size_t)(end - bytes);
    t->text = strndup(bytes, t->text_len);
    if (!t->text)
        return no_memory(e);
    enum code rc = transcript_parse(bytes, t->text_len, &t->json, e);
    for (const char *line = end + 1; rc == OK && line < stop;) {
        const char *newline = memchr(line, '\n', (size_t)(stop - line));
        if (!newline)
            return error_set(e, ERR_INVALID,
                             "a transcript whose last line is cut");
        rc = take_line(t, line, (size_t)(newline - line), e);
        line = newline + 1;
    }
    if (rc == OK && t->log_n == 0)
        rc = error_set(e, ERR_INVALID, "a transcript that no log has signed");
    return rc;
}

enum code transcript_read(const char *bytes, size_t len,
                          struct transcript **out, struct error *e)
{
    TRANSCRIPT t = calloc(1, sizeof *t);
    if (!t)
        return no_memory(e);
    if (len > TRANSCRIPT_MAX || memchr(bytes, '\0', len))
        return error_set(e, ERR_INVALID,
                         "not a transcript: no text of at most %d bytes",
                         TRANSCRIPT_MAX);
    enum code rc = read_all(t, bytes, len, e);
    if (rc)
        return rc;
    *out = t;
    t = NULL;
    return OK;
}

/* ---- the log's signatures ---- */

void transcript_note(const struct transcript *t, struct note *n)
{
    *n = (struct note){.text = t->text, .text_len = t->text_len, .n = t->log_n};
    memcpy(n->signatures, t->log, t->log_n * sizeof t->log[0]);
}

static const char *member(const json_t *object, const char *name)
{
    const char *text = json_string_value(json_object_get(object, name));
    return text ? text : "";
}

/* Does it sign the log? Then its note's key. */
static enum code log_key(const json_t *key, const char *origin, bool *signs,
                         struct note_key *out, struct error *e)
{
    const char *use = member(key, "use"), *state = member(key, "state");
    bool ed = strcmp(use, "log-ed25519") == 0;
    uint8_t spki[TRANSCRIPT_KEY_MAX], digest[32];
    size_t len;
    *signs = (ed || strcmp(use, "log") == 0) &&
             json_is_true(json_object_get(key, "present")) &&
             (strcmp(state, TRANSCRIPT_ACTIVE) == 0 ||
              strcmp(state, TRANSCRIPT_SIGNS) == 0);
    if (!*signs)
        return OK;
    enum code rc = transcript_key(key, spki, &len, digest, e);
    if (rc == OK && (len < NOTE_ED25519_KEY || !ed))
        return len ? note_key(out, origin, NOTE_ECDSA, spki, len, e)
                   : error_set(e, ERR_INVALID, "a log's key without a public "
                                               "one");
    return rc ? rc
              : note_key(out, origin, NOTE_ED25519,
                         spki + len - NOTE_ED25519_KEY, NOTE_ED25519_KEY, e);
}

enum code transcript_log_key(const struct transcript *t, size_t i,
                             struct note_key *out, struct error *e)
{
    const char *origin = member(json_object_get(t->json, "log"), "origin");
    const json_t *keys = json_object_get(t->json, "keys");
    for (size_t k = 0; k < json_array_size(keys); k++) {
        bool signs;
        enum code rc =
            log_key(json_array_get(keys, k), origin, &signs, out, e);
        if (rc)
            return rc;
        if (signs && memcmp(out->id, t->log[i].id, sizeof out->id) == 0)
            return OK;
    }
    return error_set(e, ERR_NOT_FOUND, "no key of the log has signed this");
}

enum code transcript_check_log(const struct transcript *t, struct error *e)
{
    const char *origin = member(json_object_get(t->json, "log"), "origin");
    const json_t *keys = json_object_get(t->json, "keys");
    struct note n;
    size_t done = 0;
    transcript_note(t, &n);
    for (size_t i = 0; i < json_array_size(keys); i++) {
        const json_t *one = json_array_get(keys, i);
        struct note_key key;
        bool signs, found = false;
        enum code rc = log_key(one, origin, &signs, &key, e);
        if (rc == OK && signs && done < t->log_n &&
            memcmp(t->log[done].id, key.id, sizeof key.id) == 0)
            rc = note_verify(&n, &key, &found, e);
        if (rc)
            return error_prefix(e, "signature of %s", member(one, "label"));
        if (signs && !found)
            return error_set(e, ERR_SEAL,
                             "%s has not signed it, or not in its place",
                             member(one, "label"));
        done += found;
    }
    if (done == t->log_n && done > 0)
        return OK;
    return error_set(e, ERR_SEAL,
                     "it is signed by a key of the log that it does not tell "
                     "of as active");
}

/* ---- writing ---- */

static enum code put_signature(FILE *out, const char *name,
                               const uint8_t id[4], const uint8_t *bytes,
                               size_t len, struct error *e)
{
    uint8_t all[TRANSCRIPT_SIGNATURE_MAX + 4];
    memcpy(all, id, 4);
    memcpy(all + 4, bytes, len);
    FREE char *text = base64_encode(all, len + 4);
    if (!text)
        return no_memory(e);
    fprintf(out, DASH "%s %s\n", name, text);
    return OK;
}

static enum code put_participants(const struct transcript *t, FILE *out,
                                  struct error *e)
{
    const json_t *people = json_object_get(t->json, "participants");
    enum code rc = OK;
    for (size_t i = 0; rc == OK && i < json_array_size(people); i++) {
        uint8_t spki[TRANSCRIPT_KEY_MAX], digest[32];
        char name[NOTE_NAME_MAX];
        size_t len;
        if (t->by[i].len == 0)
            continue;
        snprintf(name, sizeof name, BY "%zu", i + 1);
        rc = transcript_key(json_array_get(people, i), spki, &len, digest, e);
        if (rc == OK)
            rc = put_signature(out, name, digest, t->by[i].bytes, t->by[i].len,
                               e);
    }
    return rc;
}

enum code transcript_write(const struct transcript *t, char **bytes,
                           struct error *e)
{
    size_t len = 0;
    enum code rc = OK;
    *bytes = NULL;
    FILE *out = open_memstream(bytes, &len);
    if (!out)
        return no_memory(e);
    fprintf(out, "%s\n", t->text);
    for (size_t i = 0; rc == OK && i < t->log_n; i++)
        rc = put_signature(out, t->log[i].name, t->log[i].id, t->log[i].bytes,
                           t->log[i].len, e);
    if (rc == OK)
        rc = put_participants(t, out, e);
    if (fclose(out) != 0 && rc == OK)
        rc = no_memory(e);
    if (rc) {
        free(*bytes);
        *bytes = NULL;
    }
    return rc;
}
