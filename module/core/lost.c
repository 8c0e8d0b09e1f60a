/* lost - see lost.h. */
#include "config.h"

#include "module/core/lost.h"

#include "common/clock.h"
#include "common/file.h"
#include "module/core/internal.h"
#include "module/core/logbook.h"
#include "module/core/orgconfig.h"

#include <stdlib.h>
#include <string.h>

#define META_HASHES "hsm.hashes" /* {seq, since_ms} */
#define LOGIN_KIND "login"
#define SHOW_MS 60000 /* a key that was being tried may not show itself yet */

struct lost_org {
    struct store_org org;
    struct config config; /* as it will be */
    char old_id[132];     /* the key that was its; "": it had none */
    struct inflight_hold hold;
};

void lost_leave(struct lost *l)
{
    for (size_t i = 0; i < l->orgs_n; i++) {
        inflight_leave(&l->orgs[i].hold);
        l->orgs[i].hold = (struct inflight_hold){0};
    }
}

void lost_clear(struct lost *l)
{
    lost_leave(l);
    for (size_t i = 0; i < l->orgs_n; i++) {
        store_org_clear(&l->orgs[i].org);
        config_clear(&l->orgs[i].config);
    }
    for (size_t i = 0; i < l->rotations_n; i++)
        rotation_clear(&l->rotations[i]);
    free(l->orgs);
    free(l->rotations);
    json_decref(l->logins);
}

/* ---- looking ---- */

static enum code count_org(const struct store_org *o, void *ctx,
                           struct error *e)
{
    struct lost *l = ctx;
    struct lost_org *more =
        reallocarray(l->orgs, l->orgs_n + 1, sizeof(*more));

    if (!more)
        return error_set(e, ERR_NOMEM, "no memory for organisations");
    l->orgs = more;
    more = &more[l->orgs_n++];
    *more = (struct lost_org){.org = {.id = o->id, .name = strdup(o->name)}};
    return more->org.name ? OK
                          : error_set(e, ERR_NOMEM,
                                      "no memory for organisations");
}

/* Read once nobody else changes it. */
static enum code look_at_org(struct lost *l, struct lost_org *o, bool hold,
                             struct error *e)
{
    FREE char *name = o->org.name;
    enum code code = OK;

    o->org.name = NULL;
    if (hold)
        code = core_hold_config(l->core, name, &o->hold, e);
    if (!code)
        code = core_org(l->core, name, &o->org, e);
    if (!code)
        code = config_parse(&o->config, o->org.config, e);
    if (code || !o->org.admin_blob)
        return code;
    snprintf(o->old_id, sizeof(o->old_id), "%s", o->config.admin_api_key_id);
    o->config.admin_api_key_id[0] = '\0';
    o->config.rotation_wanted[0] = '\0';
    o->config.key_expires_ms = 0;
    return OK;
}

/* A key that was made and not taken yet goes; of those that are to go the ids
 * are enough. */
static void move_rotation(struct rotation *r, int64_t now)
{
    r->tries = 0;
    r->due_ms = now;
    if (r->state != ROTATION_PROVE)
        return;
    r->state = ROTATION_DROP;
    r->begun_ms = now;
    r->due_ms = now + SHOW_MS;
}

static enum code look_at_rotation(const struct rotation *r, void *ctx,
                                  struct error *e)
{
    struct lost *l = ctx;
    struct rotation *more =
        reallocarray(l->rotations, l->rotations_n + 1, sizeof(*more));

    if (!more)
        return error_set(e, ERR_NOMEM, "no memory for rotations");
    l->rotations = more;
    more = &more[l->rotations_n++];
    *more = *r;
    more->sealed = more->old_sealed = NULL; /* no use any more */
    more->sealed_len = more->old_sealed_len = 0;
    move_rotation(more, steady_ms(l->core));
    return OK;
}

static enum code look_at_login(const struct store_document *d, void *ctx,
                               struct error *e)
{
    return json_array_append_new(ctx, json_string(d->name))
               ? error_set(e, ERR_NOMEM, "no memory for logins")
               : OK;
}

enum code lost_look(struct lost *l, bool hold, struct error *e)
{
    struct store *s = l->core->store;
    enum code code = store_org_each(s, count_org, l, e);

    for (size_t i = 0; !code && i < l->orgs_n; i++)
        code = look_at_org(l, &l->orgs[i], hold, e);
    if (!code)
        code = rotation_each(s, NULL, look_at_rotation, l, e);
    if (!code)
        code = store_seals_count(s, &l->seals, e);
    l->logins = json_array();
    if (!code && !l->keeps_hmac)
        code = store_document_each(s, LOGIN_KIND, look_at_login, l->logins, e);
    return code;
}

json_t *lost_json(const struct lost *l)
{
    JSON orgs = json_array();

    for (size_t i = 0; i < l->orgs_n; i++) {
        const struct lost_org *o = &l->orgs[i];

        if (o->org.admin_blob &&
            json_array_append_new(
                orgs, json_pack("{ss ss}", "org", o->org.name,
                                "admin_api_key_id",
                                o->old_id)))
            return NULL;
    }
    return json_pack("{sI sI sI sO sI sO}", "sealed_values",
                     (json_int_t)l->seals.values, "proofs",
                     (json_int_t)l->seals.probes, "rotations",
                     (json_int_t)l->rotations_n, "organisations", orgs,
                     "mints_told",
                     (json_int_t)(l->keeps_hmac ? 0 : l->seals.minted),
                     "logins", l->logins);
}

/* ---- rotations ---- */

/* May be run more than once: nothing of `l` changes. */
static enum code save_rotation(struct store_tx *tx, const struct lost *l,
                               const struct rotation *r, struct error *e)
{
    const struct logbook_entry entry = {
        .kind = RECORD_ROTATE,
        .by = l->by,
        .org = r->org,
        .more = json_pack("{ss ss ss ss ss si}", "state",
                          rotation_state_name(r->state), "cause", r->cause,
                          "name", r->name, "new", r->new_id, "old", r->old_id,
                          "tries", (int)r->tries)};
    enum code code = rotation_save(tx, r, e);

    if (code)
        json_decref(entry.more);
    return code ? code : logbook_add(l->core, tx, &entry, e);
}

/* Its value is gone, and it lives at the service. */
static enum code retire(struct store_tx *tx, const struct lost *l,
                        const struct lost_org *o, struct error *e)
{
    int64_t now = steady_ms(l->core);
    struct rotation r = {
        .state = ROTATION_RETIRE, .begun_ms = now, .due_ms = now};

    if (!*o->old_id)
        return OK;
    snprintf(r.org, sizeof(r.org), "%s", o->org.name);
    snprintf(r.cause, sizeof(r.cause), LOST_CAUSE);
    snprintf(r.old_id, sizeof(r.old_id), "%s", o->old_id);
    return save_rotation(tx, l, &r, e);
}

/* ---- organisations ---- */

static enum code let_go(struct store_tx *tx, const struct lost *l,
                        const struct lost_org *o, struct error *e)
{
    FREE char *text = NULL;
    enum code code = retire(tx, l, o, e);

    if (!code)
        code = config_text(&o->config, &text, e);
    if (!code)
        code = store_org_set_config(tx, o->org.id, text, e);
    if (!code)
        code = store_org_set_blob(tx, o->org.id, NULL, 0, e);
    if (code)
        return code;
    const struct logbook_entry entry = {
        .kind = RECORD_CONFIG,
        .by = l->by,
        .org = o->org.name,
        .more = logbook_change(o->org.name, LOST_CAUSE, o->org.config, text)};

    return logbook_add(l->core, tx, &entry, e);
}

/* ---- hashes ---- */

static enum code note_hashes(struct store_tx *tx, struct error *e)
{
    struct store_head head;
    enum code code = store_record_head(tx, &head, e);

    if (code)
        return code;
    JSON j = json_pack("{sI sI}", "seq", (json_int_t)head.size, "since_ms",
                       (json_int_t)clock_wall_ms());
    FREE char *text = json_text(j, JSON_COMPACT);

    return text ? store_meta_put(tx, META_HASHES, text, strlen(text), e)
                : error_set(e, ERR_NOMEM, "no memory for the hashes' end");
}

enum code lost_hashes(struct core *c, int64_t *seq, int64_t *since_ms,
                      struct error *e)
{
    FREE void *text = NULL;
    JSON j = NULL;
    size_t len = 0;
    json_int_t at = 0, ms = 0;
    const struct json_field fields[] = {
        {"seq", FIELD_INT, true, &at, NULL},
        {"since_ms", FIELD_INT, true, &ms, NULL},
    };
    enum code code = store_meta_get(c->store, META_HASHES, &text, &len, e);

    *seq = *since_ms = 0;
    if (code == ERR_NOT_FOUND) {
        error_clear(e);
        return OK;
    }
    if (!code)
        code = json_parse(text, len, META_HASHES, &j, e);
    if (!code)
        code = json_decode(j, JSON_FIELDS(fields), true, META_HASHES, e);
    *seq = at;
    *since_ms = ms;
    return code;
}

enum code lost_write(struct store_tx *tx, struct lost *l, struct error *e)
{
    enum code code = store_seals_drop(tx, &l->seals, e);

    for (size_t i = 0; !code && i < l->rotations_n; i++)
        code = save_rotation(tx, l, &l->rotations[i], e);
    for (size_t i = 0; !code && i < l->orgs_n; i++)
        if (l->orgs[i].org.admin_blob)
            code = let_go(tx, l, &l->orgs[i], e);
    if (!code && !l->keeps_hmac)
        code = note_hashes(tx, e);
    return code;
}
