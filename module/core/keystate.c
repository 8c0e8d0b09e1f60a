/* keystate - see keystate.h. */
#include "config.h"

#include "module/core/keystate.h"

#include "common/clock.h"
#include "common/file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const names[KEYSTATES] = {
    [KEYSTATE_PRE_ACTIVATION] = "pre-activation",
    [KEYSTATE_ACTIVE] = "active",
    [KEYSTATE_DEACTIVATED] = "deactivated",
    [KEYSTATE_COMPROMISED] = "compromised",
    [KEYSTATE_DESTROYED] = "destroyed",
    [KEYSTATE_DESTROYED_COMPROMISED] = "destroyed-compromised",
};

const char *keystate_name(enum keystate s)
{
    return names[s];
}

bool keystate_find(const char *name, enum keystate *s)
{
    for (int i = 0; i < KEYSTATES; i++)
        if (strcmp(names[i], name) == 0) {
            *s = (enum keystate)i;
            return true;
        }
    return false;
}

bool keystate_is_destroyed(enum keystate s)
{
    return s == KEYSTATE_DESTROYED || s == KEYSTATE_DESTROYED_COMPROMISED;
}

/* ---- the table ---- */

static const enum keystate table[KEYPLACES][2] = {
    /* as it is; declared compromised */
    [KEYPLACE_PLANNED] = {KEYSTATE_PRE_ACTIVATION, KEYSTATE_PRE_ACTIVATION},
    [KEYPLACE_IN_USE] = {KEYSTATE_ACTIVE, KEYSTATE_ACTIVE},
    [KEYPLACE_SIGNS] = {KEYSTATE_ACTIVE, KEYSTATE_COMPROMISED},
    [KEYPLACE_OPENS] = {KEYSTATE_DEACTIVATED, KEYSTATE_COMPROMISED},
    [KEYPLACE_KEPT] = {KEYSTATE_DEACTIVATED, KEYSTATE_COMPROMISED},
    [KEYPLACE_DESTROYED] = {KEYSTATE_DESTROYED, KEYSTATE_DESTROYED_COMPROMISED},
    [KEYPLACE_NONE] = {KEYSTATE_DESTROYED, KEYSTATE_DESTROYED_COMPROMISED},
};

enum keystate keystate_of(enum keyplace place, bool compromised)
{
    return table[place][compromised];
}

static const char *const roles[KEYPLACES] = {
    [KEYPLACE_SIGNS] = "signs",
    [KEYPLACE_OPENS] = "opens",
    [KEYPLACE_KEPT] = "kept",
    [KEYPLACE_DESTROYED] = "destroyed",
};

bool keyplace_of_role(const char *role, enum keyplace *place)
{
    for (int i = 0; i < KEYPLACES; i++)
        if (roles[i] && strcmp(roles[i], role) == 0) {
            *place = (enum keyplace)i;
            return true;
        }
    return false;
}

static const struct {
    const char *use, *in_use, *opens, *kept;
} purposes[] = {
    {"seal", "seals", "opens", "none"},
    {"blob", "signs blobs", "verifies", "verifies"},
    {"call", "signs calls", "verifies", "verifies"},
    {"log", "signs log", "verifies", "verifies"},
    {"log-ed25519", "signs log", "verifies", "verifies"},
};

const char *keyplace_purpose(const char *use, enum keyplace place)
{
    for (size_t i = 0; i < sizeof purposes / sizeof purposes[0]; i++) {
        if (strcmp(purposes[i].use, use) != 0)
            continue;
        switch (place) {
        case KEYPLACE_PLANNED:
            return "being made";
        case KEYPLACE_IN_USE:
            return purposes[i].in_use;
        case KEYPLACE_SIGNS:
            return "co-signs";
        case KEYPLACE_OPENS:
            return purposes[i].opens;
        case KEYPLACE_KEPT:
        case KEYPLACE_DESTROYED:
            return purposes[i].kept;
        default:
            return "none";
        }
    }
    return "none";
}

/* ---- dates ---- */

const struct keystate_date *keystate_now(const struct keystate_doc *d)
{
    return &d->dates[d->n - 1];
}

void keystate_add(struct keystate_doc *d, const struct keystate_date *date)
{
    if (d->n == KEYSTATE_DATES_MAX)
        memmove(&d->dates[1], &d->dates[2],
                (--d->n - 1) * sizeof d->dates[0]);
    d->dates[d->n++] = *date;
}

const struct keystate_date *keystate_first(const struct keystate_doc *d,
                                           enum keystate state)
{
    for (size_t i = 0; i < d->n; i++)
        if (d->dates[i].state == state)
            return &d->dates[i];
    return NULL;
}

/* ---- as a document ---- */

#define WHAT "a key of the HSM's"

static enum code parse_date(struct keystate_date *out, json_t *one,
                            struct error *e)
{
    const char *state = "", *reason = "";
    json_int_t at = 0;
    bool exact = true;
    const struct json_field fields[] = {
        {"state", FIELD_STRING, true, &state, NULL},
        {"at_ms", FIELD_INT, true, &at, NULL},
        {"exact", FIELD_BOOL, false, &exact, NULL},
        {"reason", FIELD_STRING, false, &reason, NULL},
    };
    enum code code = json_decode(one, JSON_FIELDS(fields), false, WHAT, e);

    *out = (struct keystate_date){.at_ms = at, .exact = exact};
    if (!code && !keystate_find(state, &out->state))
        code = error_set(e, ERR_SCHEMA, WHAT ": state \"%.32s\" is unknown",
                         state);
    snprintf(out->reason, sizeof out->reason, "%s", reason);
    return code;
}

static enum code parse_dates(struct keystate_doc *d, json_t *dates,
                             struct error *e)
{
    size_t n = json_array_size(dates);
    enum code code = OK;

    if (n == 0 || n > KEYSTATE_DATES_MAX)
        return error_set(e, ERR_SCHEMA, WHAT ": %s has %zu dates", d->label, n);
    for (size_t i = 0; !code && i < n; i++)
        code = parse_date(&d->dates[d->n++], json_array_get(dates, i), e);
    return code;
}

enum code keystate_parse(struct keystate_doc *d, const char *label,
                         const char *body, struct error *e)
{
    const char *use = "", *id = "", *fingerprint = "";
    json_int_t version = 0, declared = 0;
    json_t *dates = NULL;
    JSON json = NULL;
    const struct json_field fields[] = {
        {"use", FIELD_STRING, true, &use, NULL},
        {"version", FIELD_INT, true, &version, NULL},
        {"id", FIELD_STRING, false, &id, NULL},
        {"fingerprint", FIELD_STRING, false, &fingerprint, NULL},
        {"declared_ms", FIELD_INT, false, &declared, NULL},
        {"dates", FIELD_ARRAY, true, &dates, NULL},
    };
    enum code code = json_parse(body, strlen(body), WHAT, &json, e);

    if (!code)
        code = json_decode(json, JSON_FIELDS(fields), false, WHAT, e);
    if (code)
        return code;
    *d = (struct keystate_doc){.version = version, .declared_ms = declared};
    if (strlen(label) >= sizeof d->label || strlen(use) >= sizeof d->use ||
        strlen(id) >= sizeof d->id ||
        strlen(fingerprint) >= sizeof d->fingerprint)
        return error_set(e, ERR_SCHEMA, WHAT ": a text is too long");
    strcpy(d->label, label);
    strcpy(d->use, use);
    strcpy(d->id, id);
    strcpy(d->fingerprint, fingerprint);
    return parse_dates(d, dates, e);
}

static json_t *dates_json(const struct keystate_doc *d)
{
    JSON list = json_array();

    for (size_t i = 0; i < d->n; i++) {
        const struct keystate_date *at = &d->dates[i];

        if (json_array_append_new(
                list, json_pack("{ss sI sb ss}", "state", names[at->state],
                                "at_ms", (json_int_t)at->at_ms, "exact",
                                at->exact, "reason", at->reason)) != 0)
            return NULL;
    }
    return json_incref(list);
}

char *keystate_format(const struct keystate_doc *d)
{
    JSON body = json_pack("{ss sI ss ss sI so}", "use", d->use, "version",
                          (json_int_t)d->version, "id", d->id, "fingerprint",
                          d->fingerprint, "declared_ms",
                          (json_int_t)d->declared_ms, "dates", dates_json(d));

    return body ? json_text(body, JSON_COMPACT) : NULL;
}

/* ---- in the store ---- */

enum code keystate_get(struct store *s, const char *label,
                       struct keystate_doc *d, struct error *e)
{
    CLEANUP(store_document_clear) struct store_document doc = {.name = NULL};
    enum code code = store_document_get(s, KEYSTATE_KIND, label, &doc, e);

    return code ? code : keystate_parse(d, label, doc.body, e);
}

enum code keystate_tx_get(struct store_tx *tx, const char *label,
                          struct keystate_doc *d, struct error *e)
{
    CLEANUP(store_document_clear) struct store_document doc = {.name = NULL};
    enum code code = store_tx_document_get(tx, KEYSTATE_KIND, label, &doc, e);

    return code ? code : keystate_parse(d, label, doc.body, e);
}

enum code keystate_put(struct store_tx *tx, const struct keystate_doc *d,
                       struct error *e)
{
    FREE char *body = keystate_format(d);

    return body ? store_document_put(tx, KEYSTATE_KIND, d->label, body,
                                     clock_wall_ms(), e)
                : error_set(e, ERR_NOMEM, "no memory for " WHAT);
}

struct each {
    keystate_fn fn;
    void *ctx;
};

static enum code take(const struct store_document *doc, void *ctx,
                      struct error *e)
{
    const struct each *each = ctx;
    struct keystate_doc d;
    enum code code = keystate_parse(&d, doc->name, doc->body, e);

    return code ? code : each->fn(&d, each->ctx, e);
}

enum code keystate_each(struct store *s, keystate_fn fn, void *ctx,
                        struct error *e)
{
    struct each each = {fn, ctx};

    return store_document_each(s, KEYSTATE_KIND, take, &each, e);
}
