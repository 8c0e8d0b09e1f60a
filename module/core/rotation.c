/* rotation - see rotation.h. */
#include "config.h"

#include "module/core/rotation.h"

#include "common/base64.h"
#include "common/clock.h"
#include "common/file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define KIND "rotation"
#define BLOB_MAX 16384

static const char *const names[ROTATION_STATES] = {
    "make", "prove", "retire", "confirm", "drop", "done"};

const char *rotation_state_name(enum rotation_state s)
{
    return names[s];
}

/* ---- the table ---- */

#define NONE ROTATION_STATES
static const enum rotation_state table[ROTATION_DONE][ROTATION_EVENTS] = {
    /* MADE, FOUND, NOTHING, WORKS, USELESS, GONE, DEAD, KEPT */
    [ROTATION_MAKE] = {ROTATION_PROVE, ROTATION_DROP, ROTATION_DONE, NONE, NONE,
                       NONE, NONE, NONE},
    [ROTATION_PROVE] = {NONE, NONE, NONE, ROTATION_RETIRE, ROTATION_DROP, NONE,
                        NONE, NONE},
    [ROTATION_RETIRE] = {NONE, NONE, NONE, NONE, NONE, ROTATION_CONFIRM, NONE,
                         ROTATION_DONE},
    [ROTATION_CONFIRM] = {NONE, NONE, NONE, NONE, NONE, NONE, ROTATION_DONE,
                          ROTATION_DONE},
    [ROTATION_DROP] = {NONE, NONE, NONE, NONE, NONE, ROTATION_DONE, NONE,
                       ROTATION_DONE},
};

enum code rotation_next(enum rotation_state state, enum rotation_event event,
                        enum rotation_state *next, struct error *e)
{
    enum rotation_state to =
        state < ROTATION_DONE ? table[state][event] : NONE;

    if (to == NONE)
        return error_set(e, ERR_INTERNAL, "rotation: event %d in state %s",
                         (int)event, names[state]);
    *next = to;
    return OK;
}

/* ---- as a document ---- */

void rotation_clear(struct rotation *r)
{
    free(r->sealed);
    free(r->old_sealed);
    r->sealed = r->old_sealed = NULL;
}

static enum code take_blob(const char *text, uint8_t **blob, size_t *len,
                           struct error *e)
{
    if (!*text)
        return OK;
    *blob = malloc(BLOB_MAX);
    if (!*blob)
        return error_set(e, ERR_NOMEM, "no memory for a rotation");
    return base64_decode(text, strlen(text), *blob, BLOB_MAX, len)
               ? OK
               : error_set(e, ERR_SCHEMA, "rotation: a sealed key is no "
                                          "base64");
}

static enum code find_state(const char *name, enum rotation_state *state,
                            struct error *e)
{
    for (int i = 0; i < ROTATION_DONE; i++) {
        if (strcmp(names[i], name) == 0) {
            *state = (enum rotation_state)i;
            return OK;
        }
    }
    return error_set(e, ERR_SCHEMA, "rotation: state \"%.32s\" is unknown",
                     name);
}

static enum code parse(struct rotation *r, const char *document, json_t *body,
                       struct error *e)
{
    const char *state = "", *name = "", *new_id = "", *old_id = "";
    const char *sealed = "", *old_sealed = "", *why = "", *cause = "command";
    json_int_t expires = 0, begun = 0, due = 0, tries = 0;
    const struct json_field fields[] = {
        {"state", FIELD_STRING, true, &state, NULL},
        {"name", FIELD_STRING, true, &name, NULL},
        {"new_id", FIELD_STRING, true, &new_id, NULL},
        {"old_id", FIELD_STRING, true, &old_id, NULL},
        {"sealed", FIELD_STRING, true, &sealed, NULL},
        {"old_sealed", FIELD_STRING, true, &old_sealed, NULL},
        {"expires_ms", FIELD_INT, true, &expires, NULL},
        {"begun_ms", FIELD_INT, true, &begun, NULL},
        {"due_ms", FIELD_INT, true, &due, NULL},
        {"tries", FIELD_INT, true, &tries, NULL},
        {"error", FIELD_STRING, true, &why, NULL},
        {"cause", FIELD_STRING, false, &cause, NULL},
    };
    enum code code =
        json_decode(body, JSON_FIELDS(fields), false, "rotation", e);

    if (!code)
        code = find_state(state, &r->state, e);
    if (!code)
        code = take_blob(sealed, &r->sealed, &r->sealed_len, e);
    if (!code)
        code = take_blob(old_sealed, &r->old_sealed, &r->old_sealed_len, e);
    if (code)
        return code;
    snprintf(r->document, sizeof(r->document), "%s", document);
    snprintf(r->org, sizeof(r->org), "%.*s", (int)strcspn(document, " "),
             document);
    snprintf(r->cause, sizeof(r->cause), "%s", cause);
    snprintf(r->name, sizeof(r->name), "%s", name);
    snprintf(r->new_id, sizeof(r->new_id), "%s", new_id);
    snprintf(r->old_id, sizeof(r->old_id), "%s", old_id);
    snprintf(r->error, sizeof(r->error), "%s", why);
    r->expires_ms = expires;
    r->begun_ms = begun;
    r->due_ms = due;
    r->tries = tries;
    return OK;
}

static enum code read_document(const struct store_document *d,
                               struct rotation *r, struct error *e)
{
    JSON body = NULL;
    enum code code = json_parse(d->body, strlen(d->body), "rotation", &body, e);

    return code ? code : parse(r, d->name, body, e);
}

enum code rotation_load(struct store *s, const char *document,
                        struct rotation *r, struct error *e)
{
    CLEANUP(store_document_clear) struct store_document d = {.name = NULL};
    enum code code = store_document_get(s, KIND, document, &d, e);

    *r = (struct rotation){.org = ""};
    return code ? code : read_document(&d, r, e);
}

bool rotation_is_due(const struct rotation *r, int64_t now_ms)
{
    return r->due_ms <= now_ms || r->begun_ms > now_ms;
}

json_t *rotation_json(const struct rotation *r)
{
    return json_pack("{ss ss ss ss sI ss}", "state", names[r->state], "new",
                     r->new_id, "old", r->old_id, "cause", r->cause, "tries",
                     (json_int_t)r->tries, "error", r->error);
}

enum code rotation_none(struct store *s, const char *org, struct error *e)
{
    ROTATION r = {.org = ""};
    enum code code = rotation_load(s, org, &r, e);

    if (code == ERR_NOT_FOUND) {
        error_clear(e);
        return OK;
    }
    return code ? code
                : error_set(e, ERR_EXISTS,
                            "a rotation of %s's admin key is under way "
                            "(%s%s%s): it ends by itself",
                            org, names[r.state], *r.error ? ": " : "",
                            r.error);
}

static json_t *blob_json(const uint8_t *blob, size_t len)
{
    FREE char *text = blob ? base64_encode(blob, len) : NULL;

    return blob && !text ? NULL : json_string(text ? text : "");
}

/* What is to go has a document of its own; "": there is none any more. */
static void name_document(const struct rotation *r,
                          char name[ROTATION_DOCUMENT_MAX])
{
    const char *goes = r->state == ROTATION_DROP ? r->new_id : r->old_id;

    if (r->state < ROTATION_RETIRE)
        snprintf(name, ROTATION_DOCUMENT_MAX, "%s", r->org);
    else
        snprintf(name, ROTATION_DOCUMENT_MAX, "%s %s", r->org, goes);
    if (r->state == ROTATION_DONE)
        name[0] = '\0';
}

void rotation_saved(struct rotation *r)
{
    name_document(r, r->document);
}

static enum code delete_document(struct store_tx *tx, const char *document,
                                 struct error *e)
{
    enum code code =
        *document ? store_document_delete(tx, KIND, document, e) : OK;

    return code == ERR_NOT_FOUND ? OK : code;
}

static json_t *write_body(const struct rotation *r)
{
    return json_pack(
        "{ss ss ss ss so so ss sI sI sI sI ss}", "state", names[r->state],
        "name", r->name, "new_id", r->new_id, "old_id", r->old_id, "sealed",
        blob_json(r->sealed, r->sealed_len), "old_sealed",
        blob_json(r->old_sealed, r->old_sealed_len), "cause", r->cause,
        "expires_ms", (json_int_t)r->expires_ms, "begun_ms",
        (json_int_t)r->begun_ms, "due_ms", (json_int_t)r->due_ms, "tries",
        (json_int_t)r->tries, "error", r->error);
}

enum code rotation_save(struct store_tx *tx, const struct rotation *r,
                        struct error *e)
{
    char name[ROTATION_DOCUMENT_MAX];
    enum code code = OK;

    name_document(r, name);
    if (strcmp(name, r->document) != 0)
        code = delete_document(tx, r->document, e);
    if (code || !*name)
        return code;
    JSON body = write_body(r);
    FREE char *text = json_text(body, JSON_COMPACT);

    return text ? store_document_put(tx, KIND, name, text, clock_wall_ms(), e)
                : error_set(e, ERR_NOMEM, "no memory for a rotation");
}

enum code rotation_supersede(struct store_tx *tx, const char *org,
                             struct error *e)
{
    CLEANUP(store_document_clear) struct store_document d = {.name = NULL};
    ROTATION r = {.org = ""};
    struct error none = {0};
    enum code code = store_tx_document_get(tx, KIND, org, &d, &none);

    if (code == ERR_NOT_FOUND)
        return OK;
    if (!code)
        code = read_document(&d, &r, e);
    if (code || r.state != ROTATION_PROVE)
        return code;
    r.state = ROTATION_DROP;
    r.due_ms = r.begun_ms; /* at once */
    r.tries = 0;
    return rotation_save(tx, &r, e);
}

struct walk {
    const char *org;
    rotation_fn fn;
    void *ctx;
};

static enum code visit(const struct store_document *d, void *ctx,
                       struct error *e)
{
    const struct walk *w = ctx;
    ROTATION r = {.org = ""};
    enum code code = read_document(d, &r, e);

    if (code || (w->org && strcmp(w->org, r.org) != 0))
        return code;
    return w->fn(&r, w->ctx, e);
}

enum code rotation_each(struct store *s, const char *org, rotation_fn fn,
                        void *ctx, struct error *e)
{
    struct walk w = {org, fn, ctx};

    return store_document_each(s, KIND, visit, &w, e);
}
