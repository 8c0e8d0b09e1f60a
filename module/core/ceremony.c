/* ceremony - a transcript of how HSM, keys and log are, signed by them:
 * spec/CEREMONY.md. The record about it goes into the log first, then a
 * checkpoint that holds it is signed, then the statement, which names both. */
#include "config.h"

#include "common/clock.h"
#include "common/file.h"
#include "common/transcript.h"
#include "module/core/internal.h"
#include "module/core/keystate.h"
#include "module/core/logbook.h"

#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>

#define MAKE_FACTOR 6 /* a slow HSM has some hundred mechanisms to tell of */

static enum code no_memory(struct error *e)
{
    return error_set(e, ERR_NOMEM, "no memory for a transcript");
}

/* The SHA-256 of base64's bytes, in hex; null where there are none. */
static json_t *print_of(const char *base64)
{
    uint8_t bytes[TRANSCRIPT_KEY_MAX], digest[32];
    char hex[2 * 32 + 1];
    size_t len = 0;
    JSON object = json_pack("{ss?}", "public_key", base64);

    if (!object || transcript_key(object, bytes, &len, digest, NULL) != OK)
        return NULL;
    if (len == 0)
        return json_null();
    text_hex(hex, digest, sizeof(digest));
    return json_string(hex);
}

static json_t *participants_of(const json_t *given)
{
    const json_t *people = json_object_get(given, "participants");
    JSON list = json_array();

    for (size_t i = 0; i < json_array_size(people); i++) {
        const json_t *one = json_array_get(people, i);
        const char *key = json_string_value(json_object_get(one, "public_key"));

        if (json_array_append_new(
                list, json_pack("{sO sO so}", "name",
                                json_object_get(one, "name"), "role",
                                json_object_get(one, "role"), "key",
                                print_of(key))) != 0)
            return NULL;
    }
    return json_incref(list);
}

/* Their bytes are in the transcript, and in the digest. */
static json_t *attested_of(const json_t *given)
{
    const json_t *attested = json_object_get(given, "attestations");
    JSON list = json_array();

    for (size_t i = 0; i < json_array_size(attested); i++)
        if (json_array_append(list,
                              json_object_get(json_array_get(attested, i),
                                              "key")) != 0)
            return NULL;
    return json_incref(list);
}

/* Of the keys, as the log has them, too: a key that was declared compromised is
 * known here only. */
static enum code add_state(const struct keystate_doc *d, void *ctx,
                           struct error *e)
{
    const struct keystate_date *now = keystate_now(d);
    char since[CLOCK_TEXT_MAX];

    return json_array_append_new(
               ctx, json_pack("{ss ss so}", "label", d->label, "state",
                              keystate_name(now->state), "since",
                              json_sprintf("%s%s",
                                           clock_text(now->at_ms, since),
                                           now->exact ? "" : " or before")))
               ? no_memory(e)
               : OK;
}

struct asking {
    struct core *core;
    const struct caller *by;
    const json_t *given;
    char *body; /* the one text of it */
    char *line; /* of the record */
};

static void asking_clear(struct asking *a)
{
    free(a->body);
    free(a->line);
}

static enum code add_given(struct store_tx *tx, void *ctx, struct error *e)
{
    struct asking *a = ctx;
    const struct logbook_entry r = {
        .kind = RECORD_CEREMONY,
        .by = a->by,
        .more = json_pack("{ss so so so}", "step", "given", "given",
                          logbook_digest(a->body), "participants",
                          participants_of(a->given), "attestations",
                          attested_of(a->given))};

    free(a->line);
    a->line = NULL;
    return logbook_add_line(a->core, tx, &r, &a->line, e);
}

static enum code ask_keeper(const struct asking *a, struct frame *reply,
                            struct error *e)
{
    FRAME request = FRAME_INIT;

    request.verb = VERB_CEREMONY;
    request.head = json_pack("{ss}", "record", a->line);
    request.body = (uint8_t *)strdup(a->body);
    request.body_len = strlen(a->body);
    if (!request.head || !request.body)
        return no_memory(e);
    return unlock_call(a->core, &request,
                       (int)a->core->settings->hsm_deadline_ms * MAKE_FACTOR,
                       reply, NULL, e);
}

static enum code add_signed(const struct asking *a, const struct transcript *t,
                            struct error *e)
{
    const struct logbook_entry r = {
        .kind = RECORD_CEREMONY,
        .by = a->by,
        .more = json_pack("{ss so}", "step", "signed", "statement",
                          logbook_digest(t->text))};

    return logbook_commit(a->core, STORE_NORMAL, &r, e);
}

static enum code answer(const struct asking *a, const struct frame *reply,
                        json_t **out, struct error *e)
{
    TRANSCRIPT t = NULL;
    enum code code = transcript_read(reply->body ? (char *)reply->body : "",
                                     reply->body_len, &t, e);

    if (code)
        return error_set(e, ERR_KEEPER, "the keeper gave no transcript");
    code = add_signed(a, t, e);
    if (code)
        return code;
    *out = json_pack("{ss# sO}", "transcript", reply->body, reply->body_len,
                     "record",
                     json_object_get(json_object_get(t->json, "log"), "record"));
    return *out ? OK : no_memory(e);
}

/* One that ended unseen is started, and made ready, before anything is written:
 * asking it tells. */
static enum code meet_keeper(struct core *c, struct error *e)
{
    FRAME request = FRAME_INIT;
    FRAME reply = FRAME_INIT;

    request.verb = VERB_LOG_STATE;
    return unlock_call(c, &request,
                       (int)c->settings->hsm_deadline_ms * MAKE_FACTOR, &reply,
                       NULL, e);
}

/* The record, a checkpoint that holds it, the statement. */
static enum code attempt(struct asking *a, struct frame *reply, struct error *e)
{
    struct core *c = a->core;
    enum code code = meet_keeper(c, e);

    if (!code)
        code = store_commit(c->store, STORE_NORMAL, add_given, a, e);
    if (!code)
        code = notary_sign(c, false, e);
    return code ? code : ask_keeper(a, reply, e);
}

/* A keeper that was started in between knows nothing of the record: with
 * another one it is done once more. */
static bool is_another_keepers(enum code code)
{
    return code == ERR_KEEPER || code == ERR_NOT_LOGGED;
}

enum code core_ceremony(struct core *c, const struct caller *by, json_t *given,
                        json_t **out, struct error *e)
{
    json_t *people, *attested;
    const struct json_field fields[] = {
        {"participants", FIELD_ARRAY, true, &people, NULL},
        {"attestations", FIELD_ARRAY, true, &attested, NULL},
    };
    CLEANUP(asking_clear) struct asking a = {c, by, given, NULL, NULL};
    FRAME reply = FRAME_INIT;
    JSON states = json_array();
    enum code code =
        json_decode(given, JSON_FIELDS(fields), false, "a ceremony", e);

    if (!code)
        code = transcript_check_given(given, e);
    if (!code)
        code = keystate_each(c->store, add_state, states, e);
    if (code)
        return code;
    JSON all = json_pack("{sO sO sO}", "states", states, "participants", people,
                         "attestations", attested);
    a.body = transcript_given(all);
    if (!a.body)
        return no_memory(e);
    code = attempt(&a, &reply, e);
    if (is_another_keepers(code)) {
        error_clear(e);
        code = attempt(&a, &reply, e);
    }
    return code ? code : answer(&a, &reply, out, e);
}
