/* keystates - see keystates.h. */
#include "config.h"

#include "module/core/keystates.h"

#include "common/clock.h"
#include "common/file.h"
#include "module/core/internal.h"
#include "module/core/keyrotation.h"
#include "module/core/logbook.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- what the keeper read back ---- */

void keystates_clear(struct core *c)
{
    json_decref(c->keystates.attributes);
}

void keystates_heard(struct core *c, json_t *reply)
{
    json_t *told = json_object_get(reply, "attributes");
    json_t *before;

    if (!json_is_object(told))
        return;
    pthread_mutex_lock(&c->keystates.lock);
    before = c->keystates.attributes;
    c->keystates.attributes = json_incref(told);
    pthread_mutex_unlock(&c->keystates.lock);
    json_decref(before);
}

/* NULL: not known. The caller's; nobody changes it. */
static json_t *attributes(struct core *c)
{
    json_t *all;

    pthread_mutex_lock(&c->keystates.lock);
    all = json_incref(c->keystates.attributes);
    pthread_mutex_unlock(&c->keystates.lock);
    return all;
}

/* ---- where each key stands ---- */

struct place {
    enum keyplace place;
    char label[KEYSTATE_LABEL_MAX];
    const char *use, *id, *fingerprint; /* borrowed of pins or plan */
    int64_t version;
};

struct places {
    struct place *list;
    size_t n;
    json_t *pins;
    struct keyrotation rotation;
};

static void places_clear(struct places *p)
{
    free(p->list);
    json_decref(p->pins);
    keyrotation_clear(&p->rotation);
}
#define PLACES CLEANUP(places_clear) struct places

static struct place *place_of(const struct places *p, const char *label)
{
    for (size_t i = 0; i < p->n; i++)
        if (strcmp(p->list[i].label, label) == 0)
            return &p->list[i];
    return NULL;
}

static enum code add_place(struct places *p, json_t *key, enum keyplace place,
                           struct error *e)
{
    const char *use = "", *label = NULL, *id = "", *fingerprint = "";
    json_int_t version = 0;
    const struct json_field fields[] = {
        {"use", FIELD_STRING, true, &use, NULL},
        {"label", FIELD_STRING, false, &label, NULL},
        {"id", FIELD_STRING, true, &id, NULL},
        {"version", FIELD_INT, true, &version, NULL},
        {"fingerprint", FIELD_STRING, false, &fingerprint, NULL},
    };
    enum code code =
        json_decode(key, JSON_FIELDS(fields), true, "a key of the HSM's", e);
    struct place *at;

    if (code)
        return code;
    at = reallocarray(p->list, p->n + 1, sizeof *at);
    if (!at)
        return error_set(e, ERR_NOMEM, "no memory for the HSM's keys");
    p->list = at;
    at = &p->list[p->n];
    *at = (struct place){place, "", use, id, fingerprint, version};
    snprintf(at->label, sizeof at->label, "hsmint-%.16s-%lld", use,
             (long long)version);
    if (label && strcmp(label, at->label) != 0)
        return error_set(e, ERR_INVALID, "pinned HSM keys: %.63s is no label",
                         label);
    p->n++;
    return OK;
}

static enum code add_old(struct places *p, json_t *one, struct error *e)
{
    const char *role = json_string_value(json_object_get(one, "role"));
    enum keyplace place;

    if (!role || !keyplace_of_role(role, &place))
        return error_set(e, ERR_INVALID,
                         "pinned HSM keys: an old one has no role");
    return add_place(p, json_object_get(one, "key"), place, e);
}

/* In use, being made, of before. What is pinned is not being made any more. */
static enum code find_places(struct places *p, struct error *e)
{
    json_t *keys = json_object_get(p->pins, "keys");
    json_t *old = json_object_get(p->pins, "old");
    json_t *plan = p->rotation.plan;
    enum code code = OK;

    for (size_t i = 0; !code && i < json_array_size(keys); i++)
        code = add_place(p, json_array_get(keys, i), KEYPLACE_IN_USE, e);
    for (size_t i = 0; !code && i < json_array_size(plan); i++) {
        size_t before = p->n;

        code = add_place(p, json_array_get(plan, i), KEYPLACE_PLANNED, e);
        if (!code && place_of(p, p->list[before].label) != &p->list[before])
            p->n = before;
    }
    for (size_t i = json_array_size(old); !code && i > 0; i--)
        code = add_old(p, json_array_get(old, i - 1), e);
    return code;
}

static enum code none_is_ok(enum code code, struct error *e)
{
    if (code != ERR_NOT_FOUND)
        return code;
    error_clear(e);
    return OK;
}

/* As the transaction sees them. */
static enum code load_places(struct places *p, struct store_tx *tx,
                             const char *pins, struct error *e)
{
    FREE void *stored = NULL;
    size_t len;
    enum code code = OK;

    if (!pins)
        code = none_is_ok(store_tx_meta_get(tx, META_PINS, &stored, &len, e), e);
    if (!code && !pins && !stored)
        return OK;
    pins = pins ? pins : stored;
    if (!code)
        code = json_parse(pins, strlen(pins), "pinned HSM keys", &p->pins, e);
    if (!code)
        code = none_is_ok(keyrotation_tx_load(tx, &p->rotation, e), e);
    return code ? code : find_places(p, e);
}

/* ---- writing down what is new ---- */

struct noting {
    struct core *core;
    struct store_tx *tx;
    const struct caller *by;
    const char *reason;
    const struct places *places;
    bool since_before; /* they were so before this state knew of states */
    int64_t made_ms;   /* the first ones then; 0: not known */
    json_t *attributes;
};

static enum code record(const struct noting *n, const struct keystate_doc *d,
                        const char *was, struct error *e)
{
    const struct keystate_date *now = keystate_now(d);
    json_t *read_back = json_object_get(n->attributes, d->label);
    char since[CLOCK_TEXT_MAX];
    const struct logbook_entry r = {
        .kind = RECORD_KEY_STATE,
        .by = n->by,
        .more = json_pack(
            "{ss ss sI ss ss ss ss* ss ss sb sO*}", "key", d->label, "use",
            d->use, "version", (json_int_t)d->version, "id", d->id,
            "fingerprint", d->fingerprint, "state", keystate_name(now->state),
            "was", was, "reason", now->reason, "since",
            clock_text(now->at_ms, since), "exact", now->exact, "attributes",
            json_is_object(read_back) ? read_back : NULL)};

    return logbook_add(n->core, n->tx, &r, e);
}

static bool is_compromised(const struct keystate_doc *d)
{
    enum keystate state = keystate_now(d)->state;

    return state == KEYSTATE_COMPROMISED ||
           state == KEYSTATE_DESTROYED_COMPROMISED;
}

static enum code to_state(const struct noting *n, struct keystate_doc *d,
                          enum keystate state, const char *reason,
                          struct error *e)
{
    struct keystate_date date = {
        .state = state, .at_ms = clock_wall_ms(), .exact = !n->since_before};
    const char *was = d->n ? keystate_name(keystate_now(d)->state) : NULL;
    enum code code;

    if (n->made_ms && state == KEYSTATE_ACTIVE && d->version == 1)
        date.at_ms = n->made_ms;
    snprintf(date.reason, sizeof date.reason, "%s", reason);
    keystate_add(d, &date);
    if (is_compromised(d))
        atomic_store(&n->core->keystates.any_compromised, true);
    code = record(n, d, was, e);
    return code ? code : keystate_put(n->tx, d, e);
}

static const char *reason_of(const struct noting *n,
                             const struct keystate_doc *d, enum keystate state)
{
    bool compromised = state == KEYSTATE_COMPROMISED && d->declared_ms;
    bool is_new = state == KEYSTATE_ACTIVE && strcmp(n->reason, PINS_LOST) == 0;

    return compromised ? "declared compromised"
           : is_new    ? "restored"
                       : n->reason;
}

static enum code note_place(const struct noting *n, const struct place *p,
                            struct error *e)
{
    struct keystate_doc d = {.n = 0};
    enum keystate state;
    enum code code = none_is_ok(keystate_tx_get(n->tx, p->label, &d, e), e);

    if (code)
        return code;
    snprintf(d.label, sizeof d.label, "%s", p->label);
    snprintf(d.use, sizeof d.use, "%s", p->use);
    snprintf(d.id, sizeof d.id, "%s", p->id);
    snprintf(d.fingerprint, sizeof d.fingerprint, "%s", p->fingerprint);
    d.version = p->version;
    state = keystate_of(p->place, d.declared_ms != 0);
    if (d.n && keystate_now(&d)->state == state)
        return OK;
    return to_state(n, &d, state, reason_of(n, &d, state), e);
}

/* What a rotation planned and did not come to, or let go. A key that the pins
 * have no room for any more is destroyed already. */
static enum code note_absent(const struct keystate_doc *known, void *ctx,
                             struct error *e)
{
    const struct noting *n = ctx;
    struct keystate_doc d = *known;

    if (place_of(n->places, d.label) ||
        keystate_is_destroyed(keystate_now(&d)->state))
        return OK;
    return to_state(n, &d, keystate_of(KEYPLACE_NONE, d.declared_ms != 0),
                    keystate_now(&d)->state == KEYSTATE_PRE_ACTIVATION
                        ? "not made"
                        : n->reason,
                    e);
}

static enum code note(struct noting *n, const char *pins, struct error *e)
{
    PLACES p = {.n = 0};
    JSON read_back = attributes(n->core);
    enum code code = load_places(&p, n->tx, pins, e);

    n->places = &p;
    n->attributes = read_back;
    for (size_t i = 0; !code && i < p.n; i++)
        code = note_place(n, &p.list[i], e);
    return code ? code : keystate_each(n->core->store, note_absent, n, e);
}

enum code keystates_note(struct core *c, struct store_tx *tx,
                         const struct caller *by, const char *pins,
                         const char *reason, struct error *e)
{
    struct noting n = {.core = c,
                       .tx = tx,
                       .by = by,
                       .reason = reason,
                       .since_before = strcmp(reason, PINS_RECOVERED) == 0};

    return note(&n, pins, e);
}

/* What rotates together: "seal" and the key that signs what it sealed, both of
 * the log. */
static bool belongs(const char *use, const char *which)
{
    static const char *const pairs[][2] = {{"seal", "blob"},
                                           {"log", "log-ed25519"}};

    if (strcmp(use, which) == 0)
        return true;
    for (size_t i = 0; i < sizeof pairs / sizeof pairs[0]; i++)
        if (strcmp(which, pairs[i][0]) == 0)
            return strcmp(use, pairs[i][1]) == 0;
    return false;
}

static enum code declare_one(struct store_tx *tx, const char *label,
                             json_t *declared, struct error *e)
{
    struct keystate_doc d = {.n = 0};
    enum code code = keystate_tx_get(tx, label, &d, e);

    if (!code && json_array_append_new(declared, json_string(label)) != 0)
        code = error_set(e, ERR_NOMEM, "no memory for the HSM's keys");
    if (code || d.declared_ms)
        return code;
    d.declared_ms = clock_wall_ms();
    return keystate_put(tx, &d, e);
}

enum code keystates_declare(struct store_tx *tx, const char *which,
                            json_t *declared, struct error *e)
{
    PLACES p = {.n = 0};
    enum code code = load_places(&p, tx, NULL, e);

    for (size_t i = 0; !code && i < p.n; i++)
        if (p.list[i].place == KEYPLACE_IN_USE &&
            belongs(p.list[i].use, which))
            code = declare_one(tx, p.list[i].label, declared, e);
    return code;
}

bool keystates_is_declared(struct core *c, const char *which)
{
    struct keystate_doc d = {.n = 0};

    return keystates_in_use(c, which, &d, NULL) == OK && d.declared_ms != 0;
}

/* ---- an instance of before ---- */

static enum code first_org(const struct store_org *o, void *ctx,
                           struct error *e)
{
    int64_t *made_ms = ctx;

    (void)e;
    if (!*made_ms)
        *made_ms = o->created_ms;
    return OK;
}

static enum code write_first(struct store_tx *tx, void *ctx, struct error *e)
{
    struct noting *n = ctx;

    n->tx = tx;
    return note(n, NULL, e);
}

struct known {
    struct core *core;
    size_t n;
};

static enum code count_one(const struct keystate_doc *d, void *ctx,
                           struct error *e)
{
    struct known *known = ctx;

    (void)e;
    known->n++;
    if (is_compromised(d))
        atomic_store(&known->core->keystates.any_compromised, true);
    return OK;
}

enum code keystates_begin(struct core *c, struct error *e)
{
    struct noting n = {.core = c,
                       .reason = "made by an older version",
                       .since_before = true};
    JSON pins = NULL;
    struct known known = {.core = c};
    enum code code = keystate_each(c->store, count_one, &known, e);

    if (!code && known.n == 0)
        code = pins_get(c, &pins, e);
    if (code || known.n > 0)
        return none_is_ok(code, e);
    code = store_org_each(c->store, first_org, &n.made_ms, e);
    if (code || !n.made_ms)
        return code;
    return store_commit(c->store, STORE_RESERVE, write_first, &n, e);
}

/* ---- for people ---- */

static json_t *dates_json(const struct keystate_doc *d)
{
    JSON list = json_array();

    for (size_t i = 0; i < d->n; i++) {
        const struct keystate_date *at = &d->dates[i];

        if (json_array_append_new(
                list, json_pack("{ss sI sb ss}", "state",
                                keystate_name(at->state), "at_ms",
                                (json_int_t)at->at_ms, "exact", at->exact,
                                "reason", at->reason)) != 0)
            return NULL;
    }
    return json_incref(list);
}

/* Told, and with nothing to tell of it: it is not there. */
static json_t *missing_json(json_t *read_back, const char *label)
{
    json_t *one = json_object_get(read_back, label);

    return one ? json_boolean(json_is_null(one)) : json_null();
}

static enum code append(struct core *c, json_t *list, json_t *read_back,
                        const struct place *p, struct error *e)
{
    struct keystate_doc d = {.n = 0};
    json_t *told = json_object_get(read_back, p->label);
    enum code code = none_is_ok(keystate_get(c->store, p->label, &d, e), e);
    enum keystate state = keystate_of(p->place, d.declared_ms != 0);
    JSON one = NULL;

    if (code)
        return code;
    one = json_pack(
        "{ss ss sI ss ss ss ss sI sI so so so}", "label", p->label, "use",
        p->use, "version", (json_int_t)p->version, "id", p->id, "fingerprint",
        p->fingerprint, "state", keystate_name(state), "purpose",
        keyplace_purpose(p->use, p->place), "since_ms",
        (json_int_t)(d.n ? keystate_now(&d)->at_ms : 0), "declared_ms",
        (json_int_t)d.declared_ms, "missing",
        missing_json(read_back, p->label), "attributes",
        told ? json_incref(told) : json_null(), "dates", dates_json(&d));
    return one && json_array_append(list, one) == 0
               ? OK
               : error_set(e, ERR_NOMEM, "no memory for the HSM's keys");
}

static enum code read_places(struct core *c, struct places *p, struct error *e)
{
    enum code code = pins_get(c, &p->pins, e);

    if (!code)
        code = none_is_ok(keyrotation_load(c->store, &p->rotation, e), e);
    return code ? code : find_places(p, e);
}

enum code keystates_json(struct core *c, json_t **out, struct error *e)
{
    PLACES p = {.n = 0};
    JSON list = json_array();
    JSON read_back = attributes(c);
    enum code code = none_is_ok(read_places(c, &p, e), e);

    for (size_t i = 0; !code && i < p.n; i++)
        code = append(c, list, read_back, &p.list[i], e);
    if (!code)
        *out = json_incref(list);
    return code;
}

enum code keystates_in_use(struct core *c, const char *use,
                           struct keystate_doc *d, struct error *e)
{
    PLACES p = {.n = 0};
    enum code code = read_places(c, &p, e);

    for (size_t i = 0; !code && i < p.n; i++)
        if (p.list[i].place == KEYPLACE_IN_USE &&
            strcmp(p.list[i].use, use) == 0)
            return keystate_get(c->store, p.list[i].label, d, e);
    return code ? code
                : error_set(e, ERR_NOT_FOUND, "there is no %s key", use);
}

/* ---- compromised ones ---- */

enum code keystates_check_signer(struct core *c, struct store_tx *tx,
                                 const char *keyid, struct error *e)
{
    struct keystate_doc d = {.n = 0};
    char label[KEYSTATE_LABEL_MAX];
    enum code code;

    if (!keyid || !atomic_load(&c->keystates.any_compromised))
        return OK;
    snprintf(label, sizeof label, "%.*s", (int)strcspn(keyid, ":"), keyid);
    code = none_is_ok(keystate_tx_get(tx, label, &d, e), e);
    if (code || d.n == 0 || !is_compromised(&d))
        return code;
    return error_set(e, ERR_NOT_SIGNED,
                     "key %s, which signed this call, is compromised, and the "
                     "HSM has not taken the one in its place yet",
                     label);
}

struct last {
    const char *use;
    int64_t *ms;
};

static enum code take_last(const struct keystate_doc *d, void *ctx,
                           struct error *e)
{
    const struct last *l = ctx;
    const struct keystate_date *at = keystate_first(d, KEYSTATE_COMPROMISED);
    int64_t since = at ? at->at_ms : d->declared_ms;

    (void)e;
    if (strcmp(d->use, l->use) == 0 && is_compromised(d) && since > *l->ms)
        *l->ms = since;
    return OK;
}

enum code keystates_compromised_ms(struct core *c, const char *use, int64_t *ms,
                                   struct error *e)
{
    struct last l = {use, ms};

    *ms = 0;
    return keystate_each(c->store, take_last, &l, e);
}
