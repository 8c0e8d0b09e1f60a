/* The statement of a ceremony, to text and back; transcript_format and _parse of
 * transcript.h. */
#include "config.h"

#include "common/transcript.h"

#include "common/base64.h"
#include "common/file.h"
#include "common/text.h"

#include <inttypes.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- what it is made of ---- */

enum kind {
    TEXT,
    NUMBER,
    FLAG, /* true, false, or null: the HSM does not say */
    BYTES /* base64; null: there are none */
};
struct row {
    const char *line, *member;
    enum kind kind;
    size_t max; /* BYTES */
};
#define ROWS(r) (r), sizeof(r) / sizeof((r)[0])

static const struct row head_rows[] = {
    {"Instance", "instance", TEXT, 0},
    {"Time by the host's clock", "time", TEXT, 0},
    {"hsmint", "version", TEXT, 0},
};
static const struct row hsm_rows[] = {
    {"HSM manufacturer", "manufacturer", TEXT, 0},
    {"HSM model", "model", TEXT, 0},
    {"HSM serial number", "serial", TEXT, 0},
    {"HSM label", "label", TEXT, 0},
    {"HSM hardware version", "hardware", TEXT, 0},
    {"HSM firmware version", "firmware", TEXT, 0},
    {"HSM flags", "flags", TEXT, 0},
    {"Slot", "slot", TEXT, 0},
    {"Slot manufacturer", "slot_manufacturer", TEXT, 0},
    {"Slot hardware version", "slot_hardware", TEXT, 0},
    {"Slot firmware version", "slot_firmware", TEXT, 0},
    {"Slot says it is hardware", "slot_is_hardware", FLAG, 0},
    {"Library", "library", TEXT, 0},
    {"Library manufacturer", "library_manufacturer", TEXT, 0},
    {"Library version", "library_version", TEXT, 0},
    {"Library file", "library_file", TEXT, 0},
    {"Library file SHA-256", "library_sha256", TEXT, 0},
    {"PKCS#11 version", "pkcs11", TEXT, 0},
    {"Seals by", "seals_by", TEXT, 0},
};
static const struct row mechanism_rows[] = {
    {"Mechanism", "name", TEXT, 0},
};
static const struct row key_rows[] = {
    {"Key", "label", TEXT, 0},
    {"Use", "use", TEXT, 0},
    {"Version", "version", NUMBER, 0},
    {"State", "state", TEXT, 0},
    {"Type", "type", TEXT, 0},
    {"On the HSM", "present", FLAG, 0},
    {"The keeper saw it made", "witnessed", FLAG, 0},
    {"Proved itself", "proof", TEXT, 0},
    {"CKA_ID", "id", TEXT, 0},
    {"CKA_KEY_GEN_MECHANISM", "generated_by", TEXT, 0},
    {"CKA_LOCAL", "local", FLAG, 0},
    {"CKA_NEVER_EXTRACTABLE", "never_extractable", FLAG, 0},
    {"CKA_ALWAYS_SENSITIVE", "always_sensitive", FLAG, 0},
    {"CKA_SENSITIVE", "sensitive", FLAG, 0},
    {"CKA_EXTRACTABLE", "extractable", FLAG, 0},
    {"CKA_TOKEN", "token", FLAG, 0},
    {"CKA_PRIVATE", "private", FLAG, 0},
    {"CKA_MODIFIABLE", "modifiable", FLAG, 0},
    {"CKA_COPYABLE", "copyable", FLAG, 0},
    {"CKA_ENCRYPT", "encrypt", FLAG, 0},
    {"CKA_DECRYPT", "decrypt", FLAG, 0},
    {"CKA_SIGN", "sign", FLAG, 0},
    {"CKA_VERIFY", "verify", FLAG, 0},
    {"CKA_WRAP", "wrap", FLAG, 0},
    {"CKA_UNWRAP", "unwrap", FLAG, 0},
    {"CKA_DERIVE", "derive", FLAG, 0},
    {"Fingerprint", "fingerprint", TEXT, 0},
    {"Public key", "public_key", BYTES, TRANSCRIPT_KEY_MAX},
};
static const struct row log_rows[] = {
    {"Log", "origin", TEXT, 0},
    {"Records", "size", NUMBER, 0},
    {"Root", "root", TEXT, 0},
    {"Record of this ceremony", "record", NUMBER, 0},
    {"Hash of that record", "leaf", TEXT, 0},
};
static const struct row asked_rows[] = {
    {"Asked for by", "asked_by", TEXT, 0},
};
static const struct row state_rows[] = {
    {"State of", "label", TEXT, 0},
    {"Is", "state", TEXT, 0},
    {"Since", "since", TEXT, 0},
};
static const struct row participant_rows[] = {
    {"Participant", "name", TEXT, 0},
    {"Role", "role", TEXT, 0},
    {"Public key", "public_key", BYTES, TRANSCRIPT_KEY_MAX},
};
static const struct row attestation_rows[] = {
    {"Attestation of", "key", TEXT, 0},
    {"Bytes", "bytes", BYTES, TRANSCRIPT_ATTESTATION_MAX},
};

/* Prose, then the rows of one object, or of each of a list that its number goes
 * before; an empty line behind each. */
static const struct section {
    const char *prose;
    const char *member; /* NULL: the whole */
    const char *count;  /* a list's */
    const struct row *rows;
    size_t n, max;
} sections[] = {
    {"hsmint ceremony transcript v1\n"
     "\n"
     "The keys below were in this HSM when this was written. At the end stand the\n"
     "signatures of the HSM's own keys, those that sign hsmint's audit log, and of\n"
     "participants who have keys. Each signature is over all that stands above\n"
     "them. `hsmint ceremony verify` checks them; hsmint-ceremony(1) tells how to\n"
     "do so without hsmint.\n"
     "\n",
     NULL, NULL, ROWS(head_rows), 0},
    {"SEEN BY THE KEEPER\n"
     "\n"
     "hsmint-keeper is the one program that uses the HSM. These are the HSM's own\n"
     "answers, and what it knows of the log.\n"
     "\n",
     "hsm", NULL, ROWS(hsm_rows), 0},
    {"", "mechanisms", "Mechanisms", ROWS(mechanism_rows),
     TRANSCRIPT_MECHANISMS},
    {"", "keys", "Keys", ROWS(key_rows), TRANSCRIPT_KEYS},
    {"", "log", NULL, ROWS(log_rows), 0},
    {"GIVEN TO THE KEEPER\n"
     "\n"
     "It cannot check this. The record of the ceremony in the log has it, too.\n"
     "\n",
     NULL, NULL, ROWS(asked_rows), 0},
    {"", "states", "Key states by the daemon's books", ROWS(state_rows),
     TRANSCRIPT_STATES},
    {"", "participants", "Participants", ROWS(participant_rows),
     TRANSCRIPT_PARTICIPANTS},
    {"", "attestations", "Attestations", ROWS(attestation_rows),
     TRANSCRIPT_ATTESTATIONS},
};
#define SECTIONS (sizeof sections / sizeof sections[0])

static const char closing[] =
    "NOT SHOWN BY THIS\n"
    "\n"
    "That the HSM is genuine: a program can give the same answers. Its maker's\n"
    "attestation, checked with the maker's root certificate, can show it.\n"
    "That no copy of a key is in another HSM, by the HSM's own backup or cloning.\n"
    "That the persons named were there: only that their keys signed this, if they\n"
    "did. That the time is right. That the programs at work were the published\n"
    "ones. What became of the keys afterwards: the log tells.\n";

/* ---- to text ---- */

static enum code no_memory(struct error *e)
{
    return error_set(e, ERR_NOMEM, "no memory for a transcript");
}

/* One line of it, which shows what it is. */
static bool is_line(const char *text)
{
    char same[TRANSCRIPT_TEXT_MAX + 1];
    size_t len = strlen(text);
    return len <= TRANSCRIPT_TEXT_MAX &&
           text_escape(same, sizeof same, text, len) == len &&
           memcmp(same, text, len) == 0 && *text != ' ' &&
           (len == 0 || text[len - 1] != ' ');
}

static enum code refuse(const struct row *r, const char *why, struct error *e)
{
    return error_set(e, ERR_INVALID, "a transcript's \"%s\" %s", r->line, why);
}

#define COLUMN 64
static enum code put_bytes(FILE *out, const struct row *r, const char *text,
                           struct error *e)
{
    FREE uint8_t *bytes = malloc(r->max);
    uint8_t digest[EVP_MAX_MD_SIZE];
    char hex[2 * 32 + 1];
    size_t len = 0;
    if (!bytes)
        return no_memory(e);
    if (!base64_decode(text, strlen(text), bytes, r->max, &len))
        return refuse(r, "is no base64, or too long", e);
    if (EVP_Digest(bytes, len, digest, NULL, EVP_sha256(), NULL) != 1)
        return no_memory(e);
    text_hex(hex, digest, 32);
    fprintf(out, "%s: %zu bytes, SHA-256 %s\n", r->line, len, hex);
    for (size_t at = 0, all = strlen(text); at < all; at += COLUMN)
        fprintf(out, "    %.*s\n", COLUMN, text + at);
    return OK;
}

static enum code put_row(FILE *out, const struct row *r, const json_t *object,
                         struct error *e)
{
    static const char *const said[] = {"not told", "no", "yes"};
    const json_t *value = json_object_get(object, r->member);
    const char *text = json_string_value(value);
    switch (r->kind) {
    case TEXT:
        if (!text || strlen(text) != json_string_length(value) ||
            !is_line(text))
            return refuse(r, "is not one line that can be shown", e);
        fprintf(out, "%s:%s%s\n", r->line, *text ? " " : "", text);
        return OK;
    case NUMBER:
        if (!json_is_integer(value) || json_integer_value(value) < 0)
            return refuse(r, "is no number", e);
        fprintf(out, "%s: %" JSON_INTEGER_FORMAT "\n", r->line,
                json_integer_value(value));
        return OK;
    case FLAG:
        if (!json_is_boolean(value) && !json_is_null(value))
            return refuse(r, "is neither yes nor no", e);
        fprintf(out, "%s: %s\n", r->line,
                said[json_is_null(value) ? 0 : 1 + json_is_true(value)]);
        return OK;
    default:
        if (text)
            return put_bytes(out, r, text, e);
        fprintf(out, "%s: none\n", r->line);
        return OK;
    }
}

static enum code put_rows(FILE *out, const struct section *s,
                          const json_t *object, struct error *e)
{
    enum code rc = OK;
    if (!json_is_object(object))
        return error_set(e, ERR_INVALID, "a transcript's %s: no object",
                         s->member ? s->member : "whole");
    for (size_t i = 0; rc == OK && i < s->n; i++)
        rc = put_row(out, &s->rows[i], object, e);
    return rc;
}

static enum code put_list(FILE *out, const struct section *s,
                          const json_t *list, struct error *e)
{
    size_t n = json_array_size(list);
    enum code rc = OK;
    if (!json_is_array(list) || n > s->max)
        return error_set(e, ERR_INVALID, "a transcript's %s: no list of at "
                                         "most %zu",
                         s->member, s->max);
    fprintf(out, "%s: %zu\n", s->count, n);
    for (size_t i = 0; rc == OK && i < n; i++) {
        if (s->n > 1)
            fputc('\n', out);
        rc = put_rows(out, s, json_array_get(list, i), e);
    }
    return rc;
}

static enum code put_all(FILE *out, const json_t *t, struct error *e)
{
    enum code rc = OK;
    for (size_t i = 0; rc == OK && i < SECTIONS; i++) {
        const struct section *s = &sections[i];
        const json_t *part = s->member ? json_object_get(t, s->member) : t;
        fputs(s->prose, out);
        rc = s->count ? put_list(out, s, part, e) : put_rows(out, s, part, e);
        fputc('\n', out);
    }
    fputs(closing, out);
    return rc;
}

enum code transcript_format(const json_t *t, char **text, struct error *e)
{
    size_t len = 0;
    *text = NULL;
    enum code rc = transcript_check_given(t, e);
    FILE *out = rc ? NULL : open_memstream(text, &len);
    if (rc || !out)
        return rc ? rc : no_memory(e);
    rc = put_all(out, t, e);
    if (fclose(out) != 0 && rc == OK)
        rc = no_memory(e);
    if (rc == OK && len > TRANSCRIPT_MAX)
        rc = error_set(e, ERR_INVALID,
                       "the transcript would be of more than %d bytes: give "
                       "fewer or smaller attestations",
                       TRANSCRIPT_MAX);
    if (rc) {
        free(*text);
        *text = NULL;
    }
    return rc;
}

/* ---- from text ---- */

struct cursor {
    const char *at, *end;
    size_t line; /* that is looked at, from 1 */
};

static enum code bad(const struct cursor *c, const char *wanted,
                     struct error *e)
{
    return error_set(e, ERR_INVALID,
                     "not a transcript that hsmint wrote: line %zu has to be "
                     "%s",
                     c->line, wanted);
}

/* Without its newline. */
static bool next_line(struct cursor *c, const char **line, size_t *len)
{
    const char *newline = memchr(c->at, '\n', (size_t)(c->end - c->at));
    if (!newline)
        return false;
    *line = c->at;
    *len = (size_t)(newline - c->at);
    c->at = newline + 1;
    c->line++;
    return true;
}

static enum code skip_prose(struct cursor *c, const char *prose,
                            struct error *e)
{
    for (; *prose; prose = strchr(prose, '\n') + 1) {
        size_t len = (size_t)(strchr(prose, '\n') - prose) + 1;
        char wanted[128];
        snprintf(wanted, sizeof wanted, "\"%.*s\"", (int)len - 1, prose);
        if ((size_t)(c->end - c->at) < len || memcmp(c->at, prose, len) != 0)
            return bad(c, len == 1 ? "empty" : wanted, e);
        c->at += len;
        c->line++;
    }
    return OK;
}

/* What follows "NAME:" and a space. */
static enum code get_value(struct cursor *c, const char *name,
                           const char **value, size_t *len, struct error *e)
{
    struct cursor here = *c;
    char wanted[96];
    size_t n = strlen(name);
    snprintf(wanted, sizeof wanted, "\"%s: ...\"", name);
    if (!next_line(c, value, len) || *len < n + 1 ||
        memcmp(*value, name, n) != 0 || (*value)[n] != ':')
        return bad(&here, wanted, e);
    *value += n + 1;
    *len -= n + 1;
    if (*len > 0) { /* a space; the bytes are compared in the end */
        (*value)++;
        (*len)--;
    }
    return OK;
}

static bool is_text(const char *value, size_t len, const char *text)
{
    return len == strlen(text) && memcmp(value, text, len) == 0;
}

/* The lines of base64 that follow. */
static json_t *get_bytes(struct cursor *c, const struct row *r)
{
    static const char indent[] = "    ";
    char *text = NULL;
    size_t len = 0;
    FILE *out = open_memstream(&text, &len);
    if (!out)
        return NULL;
    while ((size_t)(c->end - c->at) > strlen(indent) &&
           memcmp(c->at, indent, strlen(indent)) == 0 &&
           (size_t)ftell(out) <= BASE64_LEN(r->max)) {
        const char *line;
        size_t n;
        if (!next_line(c, &line, &n))
            break;
        fwrite(line + strlen(indent), 1, n - strlen(indent), out);
    }
    json_t *bytes = fclose(out) == 0 ? json_stringn(text, len) : NULL;
    free(text);
    return bytes;
}

static json_t *get_number(const char *value, size_t len)
{
    char text[24], *end = NULL;
    if (len == 0 || len > 18 || strspn(value, "0123456789") < len)
        return NULL;
    memcpy(text, value, len);
    text[len] = '\0';
    return json_integer(strtoll(text, &end, 10));
}

static enum code get_row(struct cursor *c, const struct row *r,
                         json_t *object, struct error *e)
{
    struct cursor here = *c;
    const char *value;
    size_t len;
    json_t *j = NULL;
    enum code rc = get_value(c, r->line, &value, &len, e);
    if (rc)
        return rc;
    if (r->kind == TEXT)
        j = json_stringn(value, len);
    else if (r->kind == NUMBER)
        j = get_number(value, len);
    else if (r->kind == FLAG)
        j = is_text(value, len, "yes")        ? json_true()
            : is_text(value, len, "no")       ? json_false()
            : is_text(value, len, "not told") ? json_null()
                                              : NULL;
    else
        j = is_text(value, len, "none") ? json_null() : get_bytes(c, r);
    if (!j)
        return bad(&here, "a value that it may have", e);
    return json_object_set_new(object, r->member, j) ? no_memory(e) : OK;
}

static enum code get_rows(struct cursor *c, const struct section *s,
                          json_t *object, struct error *e)
{
    enum code rc = object ? OK : no_memory(e);
    for (size_t i = 0; rc == OK && i < s->n; i++)
        rc = get_row(c, &s->rows[i], object, e);
    return rc;
}

static enum code get_list(struct cursor *c, const struct section *s,
                          json_t *list, struct error *e)
{
    struct cursor here = *c;
    const char *value;
    size_t len;
    enum code rc = get_value(c, s->count, &value, &len, e);
    JSON number = rc ? NULL : get_number(value, len);
    size_t n = (size_t)json_integer_value(number);
    if (rc == OK && (!number || n > s->max))
        rc = bad(&here, "a number that it may have", e);
    for (size_t i = 0; rc == OK && i < n; i++) {
        JSON one = json_object();
        if (s->n > 1)
            rc = skip_prose(c, "\n", e);
        if (rc == OK)
            rc = get_rows(c, s, one, e);
        if (rc == OK && json_array_append(list, one))
            rc = no_memory(e);
    }
    return rc;
}

static enum code get_section(struct cursor *c, const struct section *s,
                             json_t *t, struct error *e)
{
    enum code rc = skip_prose(c, s->prose, e);
    JSON part = !s->member ? json_incref(t)
                : s->count ? json_array()
                           : json_object();
    if (rc == OK && (!part || (s->member &&
                               json_object_set(t, s->member, part))))
        rc = no_memory(e);
    if (rc == OK)
        rc = s->count ? get_list(c, s, part, e) : get_rows(c, s, part, e);
    return rc ? rc : skip_prose(c, "\n", e);
}

/* One content has one form: what was read is written once more. */
static enum code compare(const json_t *t, const char *text, size_t len,
                         struct error *e)
{
    struct cursor c = {text, text + len, 1};
    FREE char *again = NULL;
    enum code rc = transcript_format(t, &again, e);
    if (rc || (strlen(again) == len && memcmp(again, text, len) == 0))
        return rc;
    for (size_t i = 0; i < len && again[i] && again[i] == text[i]; i++)
        c.line += text[i] == '\n';
    return bad(&c, "as hsmint writes it", e);
}

enum code transcript_parse(const char *text, size_t len, json_t **t,
                           struct error *e)
{
    struct cursor c = {text, text + len, 1};
    JSON made = json_object();
    enum code rc = made ? OK : no_memory(e);
    if (rc == OK && len > TRANSCRIPT_MAX)
        rc = error_set(e, ERR_INVALID, "a transcript has at most %d bytes",
                       TRANSCRIPT_MAX);
    for (size_t i = 0; rc == OK && i < SECTIONS; i++)
        rc = get_section(&c, &sections[i], made, e);
    if (rc == OK)
        rc = skip_prose(&c, closing, e);
    if (rc == OK && c.at != c.end)
        rc = bad(&c, "the last", e);
    if (rc == OK)
        rc = compare(made, text, len, e);
    if (rc)
        return rc;
    *t = made;
    made = NULL;
    return OK;
}
