/* reseal - see reseal.h. */
#include "config.h"

#include "module/core/reseal.h"

#include "common/clock.h"
#include "common/file.h"
#include "common/log.h"
#include "module/core/internal.h"
#include "module/core/lease.h"
#include "module/core/logbook.h"
#include "module/core/orgconfig.h"
#include "module/core/rotation.h"

#include <stdlib.h>
#include <string.h>

enum {
    BATCH = 32,
    NAMED = 20 /* a walk; what is wrong with all of them fills no journal */
};

struct visit {
    struct core *core;
    const struct caller *by;
    struct reseal_walk *walk;
};

/* ---- one blob ---- */

struct blob {
    uint8_t *data; /* owned by whoever has it */
    size_t len;
};

static bool is_current(const struct reseal_walk *w, const uint8_t *blob,
                       size_t len)
{
    char label[SEALED_LABEL_MAX];

    return sealed_label(blob, len, label) && strcmp(label, w->label) == 0;
}

/* The way to the keeper, not this blob. */
static bool is_about_all(enum code code)
{
    return code == ERR_KEEPER || code == ERR_DEADLINE || code == ERR_LOCKED ||
           code == ERR_HSM_ABSENT || code == ERR_HSM_KEYS ||
           code == ERR_NOMEM || code == ERR_PROTOCOL;
}

/* OK: it is counted, and the walk goes on. */
static enum code leave(struct visit *v, const char *what, const char *remedy,
                       const struct error *why, struct error *e)
{
    struct reseal_walk *w = v->walk;

    if (is_about_all(why->code)) {
        if (e)
            *e = *why;
        return why->code;
    }
    if (w->left++ == 0)
        snprintf(w->what, sizeof(w->what), "%s: %.120s; %s", what, why->text,
                 remedy);
    if (w->left <= NAMED)
        log_warning("%s stays sealed by an old key: %s", what, why->text);
    return OK;
}

static enum code ask(struct visit *v, enum verb verb, json_t *head,
                     const uint8_t *blob, size_t len, struct frame *reply,
                     struct error *e)
{
    FRAME request = FRAME_INIT;

    request.verb = verb;
    request.head = head;
    request.body = malloc(len ? len : 1);
    if (!request.head || !request.body)
        return error_set(e, ERR_NOMEM, "no memory to seal a key anew");
    memcpy(request.body, blob, len);
    request.body_len = len;
    return unlock_call(v->core, &request,
                       (int)v->core->settings->hsm_deadline_ms, reply, NULL, e);
}

/* What the key in use sealed comes back as it is. */
static enum code seal_anew(struct visit *v, const uint8_t *blob, size_t len,
                           struct blob *out, struct error *e)
{
    FRAME reply = FRAME_INIT;
    enum code code =
        ask(v, VERB_RESEAL, json_object(), blob, len, &reply, e);

    if (!code && !is_current(v->walk, reply.body, reply.body_len))
        code = error_set(e, ERR_KEEPER,
                         "the keeper sealed nothing with key %s",
                         v->walk->label);
    if (code)
        return code;
    *out = (struct blob){reply.body, reply.body_len};
    reply.body = NULL;
    return OK;
}

/* *changed: it was another key's. `open`: it is opened where it was not, too. */
static enum code renew(struct visit *v, uint8_t **blob, size_t *len, bool open,
                       bool *changed, struct error *e)
{
    struct blob is = {NULL, 0};
    bool current = *blob && is_current(v->walk, *blob, *len);
    enum code code;

    if (!*blob || (current && !open))
        return OK;
    code = seal_anew(v, *blob, *len, &is, e);
    if (code)
        return code;
    *changed = *changed || !current;
    v->walk->anew += !current;
    free(*blob);
    *blob = is.data;
    *len = is.len;
    return OK;
}

/* ---- an organisation: its configuration is held ---- */

static enum code list_one(const struct rotation *r, void *ctx, struct error *e)
{
    return json_array_append_new(ctx, json_string(r->document)) == 0
               ? OK
               : error_set(e, ERR_NOMEM, "no memory for rotations");
}

static enum code save_rotation(struct store_tx *tx, void *ctx, struct error *e)
{
    return rotation_save(tx, ctx, e);
}

static enum code visit_rotation(struct visit *v, const char *document,
                                struct error *e)
{
    ROTATION r = {.org = ""};
    bool changed = false;
    struct error why = {0};
    char what[256];
    enum code code = rotation_load(v->core->store, document, &r, e);

    if (code)
        return code;
    v->walk->seen++;
    code = renew(v, &r.sealed, &r.sealed_len, v->walk->prove, &changed,
                 &why);
    if (!code)
        code = renew(v, &r.old_sealed, &r.old_sealed_len, v->walk->prove,
                     &changed, &why);
    if (changed) {
        enum code rc = store_commit(v->core->store, STORE_RESERVE,
                                    save_rotation, &r, e);

        if (rc)
            return rc;
    }
    snprintf(what, sizeof(what), "the rotation \"%.160s\"", document);
    return code ? leave(v, what, "it ends by itself", &why, e) : OK;
}

static enum code visit_rotations(struct visit *v, const char *org,
                                 struct error *e)
{
    JSON documents = json_array();
    enum code code = documents ? rotation_each(v->core->store, org, list_one,
                                               documents, e)
                               : error_set(e, ERR_NOMEM, "no memory");

    for (size_t i = 0; !code && i < json_array_size(documents); i++)
        code = visit_rotation(
            v, json_string_value(json_array_get(documents, i)), e);
    return code;
}

struct swap {
    struct visit *visit;
    const struct store_org *was;
    struct blob is;
};

static enum code swap_blob(struct store_tx *tx, void *ctx, struct error *e)
{
    const struct swap *s = ctx;
    CONFIG config = {0};
    enum code code = config_parse(&config, s->was->config, e);

    if (!code)
        code = store_org_reseal(tx, s->was, s->is.data, s->is.len, e);
    if (code)
        return code;
    const struct logbook_entry r = {
        .kind = RECORD_SEAL,
        .by = s->visit->by,
        .org = s->was->name,
        .more =
            logbook_seal(config.admin_api_key_id, s->is.data, s->is.len)};

    return logbook_add(s->visit->core, tx, &r, e);
}

static enum code visit_blob(struct visit *v, const struct store_org *org,
                            struct blob *is, struct error *e)
{
    bool changed = false;
    enum code code;

    is->data = malloc(org->admin_blob_len);
    if (!is->data)
        return error_set(e, ERR_NOMEM, "no memory to seal a key anew");
    memcpy(is->data, org->admin_blob, org->admin_blob_len);
    is->len = org->admin_blob_len;
    code = renew(v, &is->data, &is->len, v->walk->prove, &changed, e);
    if (code || !changed)
        return code;
    struct swap s = {v, org, *is};
    return store_commit(v->core->store, STORE_RESERVE, swap_blob, &s, e);
}

static enum code publish(struct visit *v, const char *org,
                         const struct blob *blob, struct blob *best,
                         struct error *e)
{
    FRAME reply = FRAME_INIT;
    enum code code =
        ask(v, VERB_USE_KEY, json_pack("{ss sb}", "org", org, "publish", 1),
            blob->data, blob->len, &reply, e);

    if (code)
        return code;
    *best = (struct blob){reply.body, reply.body_len};
    reply.body = NULL;
    return OK;
}

/* The HSM's copy follows; where that is of a later version than the store's (a
 * state that was put back) it is the one in use, and what is sealed anew. */
static enum code visit_copy(struct visit *v, const char *org,
                            const struct blob *blob, struct error *e)
{
    struct blob best = {NULL, 0}, again = {NULL, 0};
    bool changed = false;
    enum code code = publish(v, org, blob, &best, e);

    if (!code && best.data && !is_current(v->walk, best.data, best.len)) {
        code = renew(v, &best.data, &best.len, false, &changed, e);
        if (!code)
            code = publish(v, org, &best, &again, e);
    }
    free(best.data);
    free(again.data);
    return code;
}

static enum code visit_key(struct visit *v, const struct store_org *org,
                           struct error *e)
{
    struct blob is = {NULL, 0};
    struct error why = {0};
    char what[128];
    enum code code = visit_blob(v, org, &is, &why);

    snprintf(what, sizeof(what), "organisation %.60s's admin key", org->name);
    v->walk->seen++;
    if (!code)
        code = visit_copy(v, org->name, &is, &why);
    free(is.data);
    if (code == ERR_CONFIG) { /* its endpoint: another alarm tells it */
        log_failure(&why, "%s is not copied to the HSM", what);
        return OK;
    }
    return code ? leave(v, what, "`hsmint config set admin_api_key=-` gives it "
                                 "another",
                        &why, e)
                : OK;
}

static enum code visit_org(struct visit *v, const char *name, struct error *e)
{
    CLEANUP(store_org_clear) struct store_org org = {0};
    INFLIGHT hold = {0};

    if (!inflight_try(&v->core->inflight, "config", name, &hold)) {
        v->walk->busy++;
        return OK;
    }
    enum code code = core_org(v->core, name, &org, e);

    if (!code)
        code = visit_rotations(v, org.name, e);
    if (!code && org.admin_blob)
        code = visit_key(v, &org, e);
    return code;
}

/* ---- leases ---- */

struct batch {
    struct visit *visit;
    size_t n;
    struct store_lease was[BATCH], is[BATCH];
};

static void batch_free(struct batch **b)
{
    for (size_t i = 0; *b && i < (*b)->n; i++) {
        store_lease_clear(&(*b)->was[i]);
        store_lease_clear(&(*b)->is[i]);
    }
    free(*b);
}

static enum code read_lease(const struct store_lease *l, void *ctx,
                            struct error *e)
{
    struct batch *b = ctx;
    enum code code = lease_copy(&b->was[b->n], l, e);

    if (!code)
        code = lease_copy(&b->is[b->n], l, e);
    b->n++; /* what there is of it is cleared with the others */
    return code;
}

static enum code renew_lease(struct visit *v, struct store_lease *l,
                             bool *changed, struct error *e)
{
    struct error why = {0};
    char what[128];
    enum code code =
        renew(v, &l->sealed, &l->sealed_len, false, changed, &why);

    if (!code)
        code = renew(v, &l->probe, &l->probe_len, false, changed, &why);
    if (!code)
        return OK;
    snprintf(what, sizeof(what), "lease %s's key", l->id);
    return leave(v, what, "`hsmint lease revoke` lets it go", &why, e);
}

static enum code swap_leases(struct store_tx *tx, void *ctx, struct error *e)
{
    const struct batch *b = ctx;
    enum code code = OK;

    for (size_t i = 0; !code && i < b->n; i++)
        code = store_lease_reseal(tx, &b->was[i], &b->is[i], e);
    return code;
}

static enum code visit_leases(struct visit *v, bool *over, struct error *e)
{
    struct batch *b CLEANUP(batch_free) = calloc(1, sizeof(*b));
    struct reseal_walk *w = v->walk;
    bool changed = false;
    enum code code = b ? store_sealed_each(v->core->store, w->lease, BATCH,
                                           read_lease, b, e)
                       : error_set(e, ERR_NOMEM, "no memory for leases");

    for (size_t i = 0; !code && i < b->n; i++)
        code = renew_lease(v, &b->is[i], &changed, e);
    if (!code && changed)
        code = store_commit(v->core->store, STORE_RESERVE, swap_leases, b, e);
    if (code)
        return code;
    w->seen += (int64_t)b->n;
    if (b->n > 0)
        snprintf(w->lease, sizeof(w->lease), "%s", b->was[b->n - 1].id);
    *over = b->n < BATCH;
    return OK;
}

/* ---- all ---- */

static bool org_at(struct core *c, size_t i, char name[64])
{
    bool there;

    pthread_mutex_lock(&c->orgs_lock);
    there = i < c->n_orgs;
    if (there)
        snprintf(name, 64, "%s", c->orgs[i].name);
    pthread_mutex_unlock(&c->orgs_lock);
    return there;
}

static enum code seal_label(struct core *c, char label[SEALED_LABEL_MAX],
                            struct error *e)
{
    JSON pins = NULL;
    enum code code = pins_get(c, &pins, e);
    const char *text = json_string_value(json_object_get(
        json_array_get(json_object_get(pins, "keys"), 0), "label"));

    if (!code && !text)
        code = error_set(e, ERR_SCHEMA, "the pins name no seal key");
    if (!code)
        snprintf(label, SEALED_LABEL_MAX, "%s", text);
    return code;
}

enum code reseal_begin(struct core *c, struct reseal_walk *w, bool prove,
                       struct error *e)
{
    char label[SEALED_LABEL_MAX];
    enum code code = seal_label(c, label, e);

    /* Another one may have come into use: by a restore on another HSM. */
    if (code || (w->begun && w->prove == prove && strcmp(w->label, label) == 0))
        return code;
    *w = (struct reseal_walk){.prove = prove};
    snprintf(w->label, sizeof(w->label), "%s", label);
    code = store_sealed_count(c->store, &w->of, e);
    w->begun = !code;
    return code;
}

enum code reseal_walk(struct core *c, const struct caller *by,
                      struct reseal_walk *w, int64_t until_ms, bool *over,
                      struct error *e)
{
    struct visit v = {c, by, w};
    enum code code = OK;
    char name[64];

    *over = false;
    while (!code && org_at(c, w->org, name) &&
           clock_monotonic_ms() < until_ms) {
        code = visit_org(&v, name, e);
        if (!code)
            w->org++;
    }
    while (!code && !*over && !org_at(c, w->org, name) &&
           clock_monotonic_ms() < until_ms)
        code = visit_leases(&v, over, e);
    if (*over)
        w->begun = false;
    return code;
}

/* ---- what there is ---- */

enum code reseal_is_wanted(struct core *c, bool *wanted, struct error *e)
{
    JSON pins = NULL;
    enum code code = pins_get(c, &pins, e);
    json_t *old = json_object_get(pins, "old");

    *wanted = false;
    for (size_t i = 0; i < json_array_size(old); i++) {
        const char *role = json_string_value(
            json_object_get(json_array_get(old, i), "role"));

        *wanted = *wanted || (role && strcmp(role, "opens") == 0);
    }
    if (code != ERR_NOT_FOUND)
        return code;
    error_clear(e);
    return OK;
}

struct count {
    const char *label;
    char last[32];
    int64_t n, rows;
};

static void count_blob(struct count *k, const uint8_t *blob, size_t len)
{
    char label[SEALED_LABEL_MAX];

    if (blob && sealed_label(blob, len, label) && strcmp(label, k->label) == 0)
        k->n++;
}

static enum code count_org(const struct store_org *o, void *ctx,
                           struct error *e)
{
    (void)e;
    count_blob(ctx, o->admin_blob, o->admin_blob_len);
    return OK;
}

static enum code count_rotation(const struct rotation *r, void *ctx,
                                struct error *e)
{
    (void)e;
    count_blob(ctx, r->sealed, r->sealed_len);
    count_blob(ctx, r->old_sealed, r->old_sealed_len);
    return OK;
}

static enum code count_lease(const struct store_lease *l, void *ctx,
                             struct error *e)
{
    struct count *k = ctx;

    (void)e;
    count_blob(k, l->sealed, l->sealed_len);
    count_blob(k, l->probe, l->probe_len);
    snprintf(k->last, sizeof(k->last), "%s", l->id);
    k->rows++;
    return OK;
}

enum code reseal_count(struct core *c, const char *label, int64_t *n,
                       struct error *e)
{
    struct count k = {.label = label};
    int64_t before;
    enum code code = store_org_each(c->store, count_org, &k, e);

    if (!code)
        code = rotation_each(c->store, NULL, count_rotation, &k, e);
    do {
        before = k.rows;
        if (!code)
            code = store_sealed_each(c->store, k.last, BATCH, count_lease, &k,
                                     e);
    } while (!code && k.rows > before);
    *n = k.n;
    return code;
}
