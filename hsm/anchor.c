/* anchor - see anchor.h. */
#include "config.h"

#include "hsm/anchor.h"

#include "common/clock.h"
#include "common/file.h"
#include "hsm/soft.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ANCHOR_FORMAT 1

/* ---- checkpoints ---- */

static bool ends_in_number(const char *name)
{
    const char *slash = strrchr(name, '/');
    const char *last = slash ? slash + 1 : name;
    return *last && strspn(last, "0123456789") == strlen(last);
}

enum code anchor_origin(char out[NOTE_NAME_MAX], const char *base,
                        uint32_t epoch, struct error *e)
{
    if (ends_in_number(base))
        return error_set(e, ERR_INVALID,
                         "\"%s\" ends in a number, by which a log's epochs "
                         "are told: it cannot name a log",
                         base);
    int n = epoch ? snprintf(out, NOTE_NAME_MAX, "%s/%" PRIu32, base, epoch)
                  : snprintf(out, NOTE_NAME_MAX, "%s", base);
    if (n < 0 || n >= NOTE_NAME_MAX)
        return error_set(e, ERR_INVALID, "a log's name has at most %d bytes",
                         NOTE_NAME_MAX - 16);
    return OK;
}

static enum code text_of(const struct checkpoint *c, uint64_t lost,
                         uint64_t resumed, char **out, struct error *e)
{
    FREE char *text = NULL;
    char more[96] = "";
    int n = 0;
    enum code rc = checkpoint_format(c, &text, e);
    if (rc)
        return rc;
    if (lost)
        n = snprintf(more, sizeof more, "lost %" PRIu64 "\n", lost);
    if (resumed)
        snprintf(more + n, sizeof more - (size_t)n, "resumed %" PRIu64 "\n",
                 resumed);
    if (asprintf(out, "%s%s", text, more) < 0) {
        *out = NULL;
        return error_set(e, ERR_NOMEM, "checkpoint of %s", c->origin);
    }
    return OK;
}

static enum code make_key(const char *origin, enum hsm_use use,
                          const uint8_t *spki, size_t len, struct note_key *key,
                          struct error *e)
{
    return use == HSM_LOG
               ? note_key(key, origin, NOTE_ECDSA, spki, len, e)
               : note_key(key, origin, NOTE_ED25519, spki + len - 32, 32, e);
}

static enum code log_key(struct hsm *h, const char *origin, enum hsm_use use,
                         struct note_key *key, struct error *e)
{
    uint8_t spki[HSM_SPKI_MAX];
    size_t len;
    enum code rc = hsm_public(h, use, spki, &len, e);
    return rc ? rc : make_key(origin, use, spki, len, key, e);
}

static void put_signature(struct note_signature *s, const struct note_key *key)
{
    strcpy(s->name, key->name);
    memcpy(s->id, key->id, sizeof s->id);
}

struct signing {
    struct hsm *hsm;
    const char *origin, *text;
    uint8_t digest[32]; /* of the text, for ECDSA */
    struct note_signature list[4];
    size_t n;
};

/* ERR_NOT_FOUND: there is no such key. */
static enum code sign_one(struct signing *g, enum hsm_use use, bool old,
                          struct error *e)
{
    struct hsm_co_signer by;
    struct note_key key;
    uint8_t raw[64];
    bool ed = use == HSM_LOG_ED25519;
    const void *data = ed ? (const void *)g->text : g->digest;
    size_t len = ed ? strlen(g->text) : sizeof g->digest;
    struct note_signature *s = &g->list[g->n];
    enum code rc = old ? hsm_co_signer(g->hsm, use, &by, e)
                       : log_key(g->hsm, g->origin, use, &key, e);
    if (rc == OK && old)
        rc = make_key(g->origin, use, by.spki, by.len, &key, e);
    if (rc == OK)
        rc = old  ? hsm_co_sign(g->hsm, &by, data, len, raw, e)
             : ed ? hsm_sign_ed25519(g->hsm, data, len, raw, e)
                  : hsm_sign(g->hsm, HSM_LOG, data, raw, e);
    if (rc)
        return rc;
    put_signature(s, &key);
    g->n++;
    if (!ed)
        return soft_der(raw, s->bytes, &s->len, e);
    memcpy(s->bytes, raw, sizeof raw);
    s->len = sizeof raw;
    return OK;
}

/* By the log's keys, and by those of before that still sign. */
static enum code sign_all(struct signing *g, struct error *e)
{
    static const struct {
        enum hsm_use use;
        bool old;
    } by[] = {{HSM_LOG, false},
              {HSM_LOG_ED25519, false},
              {HSM_LOG, true},
              {HSM_LOG_ED25519, true}};
    g->n = 0;
    for (size_t i = 0; i < sizeof by / sizeof by[0]; i++) {
        enum code rc = sign_one(g, by[i].use, by[i].old, e);
        if (rc && (rc != ERR_NOT_FOUND || i == 0))
            return rc;
    }
    return OK;
}

/* A rotation takes place between two signatures, and for good: then all are
 * made once more, so that none goes by another key's name. */
static enum code sign_by_name(struct signing *g, struct error *e)
{
    char before[64] = "", now[64];
    enum code rc = hsm_keyid(g->hsm, HSM_LOG, now, e);
    while (rc == OK && strcmp(before, now) != 0) {
        memcpy(before, now, sizeof before);
        rc = sign_all(g, e);
        if (rc == OK)
            rc = hsm_keyid(g->hsm, HSM_LOG, now, e);
    }
    return rc;
}

enum code anchor_sign_text(struct hsm *h, const char *origin, const char *text,
                           char **note, struct error *e)
{
    struct signing g = {.hsm = h, .origin = origin, .text = text};
    soft_sha256(text, strlen(text), g.digest);
    enum code rc = sign_by_name(&g, e);
    return rc ? rc : note_format(text, g.list, g.n, note, e);
}

enum code anchor_sign(struct hsm *h, const struct checkpoint *c, uint64_t lost,
                      uint64_t resumed, char **note, struct error *e)
{
    FREE char *text = NULL;
    enum code rc = text_of(c, lost, resumed, &text, e);
    return rc ? rc : anchor_sign_text(h, c->origin, text, note, e);
}

static enum code add_vkey(json_t *list, const struct note_key *key,
                          struct error *e)
{
    FREE char *text = NULL;
    enum code rc = note_key_format(key, &text, e);
    if (rc == OK && json_array_append_new(list, json_string(text)))
        rc = error_set(e, ERR_NOMEM, "the log's keys");
    return rc;
}

enum code anchor_keys(struct hsm *h, const char *origin, json_t **out,
                      struct error *e)
{
    static const enum hsm_use uses[] = {HSM_LOG, HSM_LOG_ED25519};
    JSON list = json_array();
    for (int i = 0; i < 2; i++) {
        struct note_key key;
        enum code rc = log_key(h, origin, uses[i], &key, e);
        if (rc == ERR_NOT_FOUND)
            continue;
        if (rc == OK)
            rc = add_vkey(list, &key, e);
        if (rc)
            return rc;
    }
    *out = list;
    list = NULL;
    return OK;
}

/* ---- from bytes ---- */

static enum code refuse(const char *why, struct error *e)
{
    return error_set(e, ERR_SEAL,
                     "HSM: the data object " ANCHOR_LABEL " is not the anchor "
                     "of this log: %s. Somebody has put it there: find out "
                     "who, and delete it",
                     why);
}

static bool fits_epoch(const char *origin, uint32_t epoch)
{
    char end[16];
    snprintf(end, sizeof end, "/%" PRIu32, epoch);
    size_t n = strlen(origin), m = strlen(end);
    return epoch ? n > m && strcmp(origin + n - m, end) == 0
                 : !ends_in_number(origin);
}

static enum code parse_note(struct anchor *a, const char *text,
                            struct note *note, struct error *e)
{
    enum code rc = note_parse(note, text, strlen(text), e);
    if (rc == OK)
        rc = checkpoint_parse(&a->checkpoint, note->text, note->text_len, e);
    if (rc)
        return refuse(e ? e->text : "no note", e);
    if (!fits_epoch(a->checkpoint.origin, a->epoch))
        return refuse("its epoch is not the origin's", e);
    a->lost = checkpoint_extension(note->text, note->text_len, "lost");
    a->resumed = checkpoint_extension(note->text, note->text_len, "resumed");
    soft_sha256(text, strlen(text), a->digest);
    return OK;
}

enum code anchor_parse(struct anchor *a, const uint8_t *bytes, size_t len,
                       json_t **json, struct note *note, struct error *e)
{
    json_int_t format = 0, epoch = 0, time_ms = 0;
    const char *text = NULL;
    JSON j = NULL;
    const struct json_field fields[] = {
        {"format", FIELD_INT, true, &format, NULL},
        {"epoch", FIELD_INT, true, &epoch, NULL},
        {"time_ms", FIELD_INT, true, &time_ms, NULL},
        {"note", FIELD_STRING, true, &text, NULL},
    };
    struct error why = {.code = OK};
    if (json_parse((const char *)bytes, len, "anchor", &j, &why) ||
        json_decode(j, JSON_FIELDS(fields), false, "anchor", &why))
        return refuse(why.text, e);
    if (format != ANCHOR_FORMAT || epoch < 0 || epoch > UINT32_MAX)
        return refuse("another version wrote it", e);
    *a = (struct anchor){.epoch = (uint32_t)epoch, .time_ms = time_ms};
    enum code rc = parse_note(a, text, note, e);
    if (rc)
        return rc;
    *json = j;
    j = NULL;
    return OK;
}

/* ---- of an HSM that is gone ---- */

/* The number that an origin ends in. */
static uint32_t epoch_of(const char *origin)
{
    return ends_in_number(origin)
               ? (uint32_t)strtoul(strrchr(origin, '/') + 1, NULL, 10)
               : 0;
}

enum code anchor_take_old(struct hsm *h, const char *text, struct anchor *a,
                          struct error *e)
{
    struct checkpoint c;
    struct note note;
    enum code rc = note_parse(&note, text, strlen(text), e);
    if (rc == OK)
        rc = checkpoint_parse(&c, note.text, note.text_len, e);
    if (rc)
        return error_prefix(e, "the log's last checkpoint");
    for (size_t i = 0;; i++) {
        struct hsm_co_signer by;
        struct note_key key;
        bool good = false;
        if (hsm_old_log(h, i, &by, NULL))
            break;
        if (make_key(c.origin, HSM_LOG, by.spki, by.len, &key, NULL) ||
            note_verify(&note, &key, &good, NULL) || !good)
            continue;
        *a = (struct anchor){.epoch = strchr(c.origin, '/')
                                          ? epoch_of(c.origin)
                                          : 0};
        return parse_note(a, text, &note, e);
    }
    return error_set(e, ERR_SEAL,
                     "the log's last checkpoint (%s) is not signed by a key "
                     "that this instance had",
                     c.origin);
}

/* ---- on the HSM ---- */

struct reading {
    struct hsm *hsm;
    struct anchor *best;
    bool found;
};

static bool further(const struct anchor *a, const struct anchor *than)
{
    if (a->epoch != than->epoch)
        return a->epoch > than->epoch;
    if (a->checkpoint.size != than->checkpoint.size)
        return a->checkpoint.size > than->checkpoint.size;
    return a->resumed > than->resumed || a->time_ms > than->time_ms;
}

/* By the key in use, or by the one before, until the new one has signed it. */
static enum code check_signer(struct hsm *h, const struct note *note,
                              const char *origin, struct error *e)
{
    struct hsm_co_signer by;
    struct note_key key;
    bool good = false;
    enum code rc = log_key(h, origin, HSM_LOG, &key, e);
    if (rc == OK && (note_verify(note, &key, &good, NULL) || !good))
        good = hsm_signer_before(h, HSM_LOG, &by, NULL) == OK &&
               make_key(origin, HSM_LOG, by.spki, by.len, &key, NULL) == OK &&
               note_verify(note, &key, &good, NULL) == OK && good;
    return rc || good ? rc : refuse("it is not signed by the log's key", e);
}

static enum code take(const uint8_t *data, size_t len, void *ctx,
                      struct error *e)
{
    struct reading *r = ctx;
    struct anchor a;
    struct note note;
    JSON json = NULL;
    enum code rc = anchor_parse(&a, data, len, &json, &note, e);
    if (rc == OK)
        rc = check_signer(r->hsm, &note, a.checkpoint.origin, e);
    if (rc)
        return rc;
    if (!r->found || further(&a, r->best))
        *r->best = a;
    r->found = true;
    return OK;
}

static enum code check_new(const uint8_t *data, size_t len, void *ctx,
                           struct error *e)
{
    struct hsm *h = ctx;
    struct anchor a;
    struct note note;
    struct note_key key;
    JSON json = NULL;
    bool good = false;
    enum code rc = anchor_parse(&a, data, len, &json, &note, e);
    if (rc == OK)
        rc = log_key(h, a.checkpoint.origin, HSM_LOG, &key, e);
    if (rc == OK && (note_verify(&note, &key, &good, NULL) || !good))
        rc = error_set(e, ERR_NOT_LOGGED,
                       "the log's anchor is not signed by its new key yet");
    return rc;
}

enum code anchor_is_handed_over(struct hsm *h, struct error *e)
{
    return hsm_data_get(h, ANCHOR_LABEL, check_new, h, e);
}

enum code anchor_read(struct hsm *h, struct anchor *a, bool *found,
                      struct error *e)
{
    struct reading r = {h, a, false};
    enum code rc = hsm_data_get(h, ANCHOR_LABEL, take, &r, e);
    *found = rc == OK && r.found;
    return rc;
}

static bool same(const uint8_t a[32], const uint8_t b[32])
{
    return memcmp(a, b, 32) == 0;
}

static enum code check_known(struct hsm *h, const struct anchor *a, bool found,
                             struct error *e)
{
    struct anchor now;
    bool there;
    enum code rc = anchor_read(h, &now, &there, e);
    if (rc)
        return rc;
    if (there == found && (!found || same(now.digest, a->digest)))
        return OK;
    if (there && same(now.digest, a->tried))
        return OK;
    return error_set(e, ERR_NOT_LOGGED,
                     "HSM: the log's anchor " ANCHOR_LABEL " is not what this "
                     "keeper left there: another instance writes this log, or "
                     "the HSM's objects were restored");
}

enum code anchor_write(struct hsm *h, const char *note, uint32_t epoch,
                       struct anchor *a, bool *found, struct error *e)
{
    struct note parsed;
    struct anchor made = {.epoch = epoch, .time_ms = clock_wall_ms()};
    enum code rc = check_known(h, a, *found, e);
    if (rc == OK)
        rc = parse_note(&made, note, &parsed, e);
    if (rc)
        return rc;
    JSON j = json_pack("{s:i, s:I, s:I, s:s}", "format", ANCHOR_FORMAT, "epoch",
                       (json_int_t)epoch, "time_ms", (json_int_t)made.time_ms,
                       "note", note);
    FREE char *text = json_text(j, JSON_COMPACT);
    if (!text)
        return error_set(e, ERR_NOMEM, "the log's anchor");
    memcpy(a->tried, made.digest, sizeof a->tried);
    rc = hsm_data_put(h, ANCHOR_LABEL, (const uint8_t *)text, strlen(text), e);
    if (rc)
        return rc;
    *a = made;
    *found = true;
    return OK;
}
