/* The verb ceremony: what the keeper saw of HSM, keys and log, and what it was
 * given, as a transcript that the log's keys sign. spec/CEREMONY.md. */
#include "config.h"

#include "hsm/keeper.h"

#include "common/base64.h"
#include "common/clock.h"
#include "common/file.h"
#include "common/text.h"
#include "common/transcript.h"
#include "hsm/ledger.h"
#include "hsm/soft.h"
#include "hsm/witness.h"

#include <stdlib.h>
#include <string.h>

static enum code no_memory(struct error *e)
{
    return error_set(e, ERR_NOMEM, "no memory for a transcript");
}

/* The log has to hold who asked and what was given before it is signed, so that
 * no transcript exists that the log does not tell of. */
static enum code check_record(const char *line, const char *given,
                              json_t **asked_by, struct error *e)
{
    uint8_t digest[32], told[32];
    const char *kind = "", *step = "", *hash = "", *owner = "";
    json_t *actor = NULL;
    size_t len = 0;
    JSON record = NULL;
    const struct json_field fields[] = {
        {"kind", FIELD_STRING, true, &kind, NULL},
        {"step", FIELD_STRING, true, &step, NULL},
        {"given", FIELD_STRING, true, &hash, NULL},
        {"actor", FIELD_OBJECT, true, &actor, NULL},
    };
    const struct json_field whose[] = {
        {"owner", FIELD_STRING, true, &owner, NULL},
    };
    char text[TRANSCRIPT_NAME_MAX];
    enum code rc = json_parse(line, strlen(line), "the record", &record, e);
    if (rc == OK)
        rc = json_decode(record, JSON_FIELDS(fields), true, "the record", e);
    if (rc == OK)
        rc = json_decode(actor, JSON_FIELDS(whose), true, "its actor", e);
    if (rc)
        return rc;
    soft_sha256(given, strlen(given), digest);
    if (strcmp(kind, "ceremony") != 0 || strcmp(step, "given") != 0 ||
        !base64_decode(hash, strlen(hash), told, sizeof told, &len) ||
        len != sizeof told || memcmp(told, digest, sizeof told) != 0)
        return error_set(e, ERR_NOT_LOGGED,
                         "the record is not about what the ceremony is given");
    (void)text_escape(text, sizeof text, owner, strlen(owner));
    *asked_by = json_string(text);
    return *asked_by ? OK : no_memory(e);
}

static json_t *log_json(const struct ledger_place *at,
                        const struct merkle_hash *leaf)
{
    FREE char *root = base64_encode(at->checkpoint.root.bytes, MERKLE_HASH);
    FREE char *hash = base64_encode(leaf->bytes, MERKLE_HASH);
    return root && hash
               ? json_pack("{ss sI ss sI ss}", "origin", at->checkpoint.origin,
                           "size", (json_int_t)at->checkpoint.size, "root",
                           root, "record", (json_int_t)at->index + 1, "leaf",
                           hash)
               : NULL;
}

/* Nothing of it but participants and attestations. */
static enum code take_given(const struct frame *in, json_t **given,
                            struct error *e)
{
    json_t *states, *people, *attested;
    const struct json_field fields[] = {
        {"states", FIELD_ARRAY, true, &states, NULL},
        {"participants", FIELD_ARRAY, true, &people, NULL},
        {"attestations", FIELD_ARRAY, true, &attested, NULL},
    };
    enum code rc = json_parse((const char *)in->body, in->body_len,
                              "what the ceremony is given", given, e);
    if (rc == OK)
        rc = json_decode(*given, JSON_FIELDS(fields), false, "given", e);
    return rc ? rc : transcript_check_given(*given, e);
}

static enum code compose(struct keeper *k, const char *line, json_t *given,
                         const struct ledger_place *at,
                         const struct merkle_hash *leaf, char **text,
                         struct error *e)
{
    char now[CLOCK_TEXT_MAX];
    JSON asked_by = NULL;
    JSON all = NULL;
    FREE char *canonical = transcript_given(given);
    enum code rc =
        canonical ? check_record(line, canonical, &asked_by, e) : no_memory(e);
    if (rc == OK)
        rc = witness_hsm(k->hsm, &all, e);
    if (rc)
        return rc;
    JSON more = json_pack("{ss ss sO so}", "time",
                          clock_text(clock_wall_ms(), now), "version",
                          PACKAGE_VERSION, "asked_by", asked_by, "log",
                          log_json(at, leaf));
    if (!more || json_object_update(all, more) ||
        json_object_update(all, given))
        return no_memory(e);
    return transcript_format(all, text, e);
}

/* By no key that it does not tell of: one that came meanwhile. */
static enum code check_signers(const char *note, struct error *e)
{
    TRANSCRIPT t = NULL;
    enum code rc = transcript_read(note, strlen(note), &t, e);
    if (rc == OK)
        rc = transcript_check_log(t, e);
    return rc ? error_prefix(e, "the transcript that was made") : rc;
}

enum code ceremony_state(struct channel *c, struct frame *in,
                         struct frame *out, struct error *e)
{
    const char *line = NULL;
    const struct json_field fields[] = {
        {"record", FIELD_STRING, true, &line, NULL},
    };
    struct keeper *k = c->keeper;
    struct ledger_place at;
    struct merkle_hash leaf;
    JSON given = NULL;
    FREE char *text = NULL;
    FREE char *note = NULL;
    enum code rc =
        json_decode(in->head, JSON_FIELDS(fields), false, "ceremony", e);
    if (rc == OK)
        rc = take_given(in, &given, e);
    if (rc == OK)
        rc = merkle_leaf(line, strlen(line), &leaf, e);
    if (rc == OK)
        rc = ledger_take(k->ledger, &leaf, &at, e);
    if (rc == OK)
        rc = compose(k, line, given, &at, &leaf, &text, e);
    if (rc == OK)
        rc = anchor_sign_text(k->hsm, at.checkpoint.origin, text, &note, e);
    if (rc == OK)
        rc = check_signers(note, e);
    if (rc)
        return rc;
    out->body_len = strlen(note);
    out->body = (uint8_t *)note;
    note = NULL;
    return OK;
}
