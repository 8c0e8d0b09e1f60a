/* rollback - see rollback.h. */
#include "config.h"

#include "module/core/rollback.h"

#include "common/base64.h"
#include "common/clock.h"
#include "common/file.h"
#include "common/log.h"
#include "module/core/internal.h"
#include "module/core/logbook.h"

#include <stdlib.h>
#include <string.h>

#define META_ROLLBACK "log.rollback" /* empty: none */
#define OBJECT "log"

/* ---- the state ---- */

static void raise_alarm(struct core *c, const char *why)
{
    struct notary *n = &c->notary;

    pthread_mutex_lock(&n->lock);
    n->rolled_back = true;
    snprintf(n->why, sizeof(n->why), "%s", why);
    pthread_mutex_unlock(&n->lock);
    warnings_raise(&c->warnings, ALARM_LOG_ROLLED_BACK, OBJECT, "%s", why);
}

static void drop_alarm(struct core *c)
{
    struct notary *n = &c->notary;

    pthread_mutex_lock(&n->lock);
    n->rolled_back = false;
    pthread_mutex_unlock(&n->lock);
    warnings_drop(&c->warnings, ALARM_LOG_ROLLED_BACK, OBJECT);
}

bool notary_rolled_back(struct core *c, struct error *why)
{
    struct notary *n = &c->notary;
    bool is;

    pthread_mutex_lock(&n->lock);
    is = n->rolled_back;
    if (is)
        error_set(why, ERR_ROLLED_BACK,
                  "%s: nothing that the store does not know is deleted until "
                  "`hsmint audit accept-rollback --reason TEXT`",
                  n->why);
    pthread_mutex_unlock(&n->lock);
    return is;
}

/* {anchor: {origin, size, root}, reason, size, time_ms}; NULL: none. */
static enum code remembered(struct core *c, json_t **out, struct error *e)
{
    FREE void *text = NULL;
    size_t len = 0;
    enum code code = store_meta_get(c->store, META_ROLLBACK, &text, &len, e);

    *out = NULL;
    if (code == ERR_NOT_FOUND || (!code && len == 0)) {
        error_clear(e);
        return OK;
    }
    return code ? code : json_parse(text, len, "the rollback", out, e);
}

enum code rollback_load(struct core *c, struct error *e)
{
    JSON is = NULL;
    enum code code = remembered(c, &is, e);
    const char *why = json_string_value(json_object_get(is, "reason"));

    if (!code && is)
        raise_alarm(c, why ? why : "");
    return code;
}

/* ---- it is noticed ---- */

struct change {
    struct core *core;
    const struct caller *by;
    enum record_kind kind;
    json_t *more; /* borrowed */
    const char *row;
};

static enum code write_change(struct store_tx *tx, void *ctx, struct error *e)
{
    const struct change *x = ctx;
    const struct logbook_entry r = {
        .kind = x->kind, .by = x->by, .more = json_incref(x->more)};
    enum code code = store_meta_put(tx, META_ROLLBACK, x->row, strlen(x->row),
                                    e);

    if (code)
        json_decref(r.more);
    return code ? code : logbook_add(x->core, tx, &r, e);
}

/* Its reserve may be used: it only tells what is so. */
static enum code commit(struct core *c, const struct caller *by,
                        enum record_kind kind, json_t *more, const char *row,
                        struct error *e)
{
    struct change x = {c, by, kind, more, row};

    if (!more || !row)
        return error_set(e, ERR_NOMEM, "no memory to note a rollback");
    return store_commit(c->store, STORE_RESERVE, write_change, &x, e);
}

static json_t *tree_json(const struct checkpoint *t)
{
    FREE char *root = base64_encode(t->root.bytes, MERKLE_HASH);

    return json_pack("{ss sI ss}", "origin", t->origin, "size",
                     (json_int_t)t->size, "root", root);
}

enum code rollback_note(struct core *c, const struct checkpoint_state *s,
                        const struct error *why, struct error *e)
{
    JSON anchor = tree_json(s->anchored ? &s->anchor : &s->tree);
    JSON before = NULL;
    JSON is = json_pack("{sO* ss}", "anchor", anchor, "reason", why->text);
    FREE char *row = json_text(is, JSON_COMPACT);
    enum code code = remembered(c, &before, e);

    raise_alarm(c, why->text);
    if (code || (before && json_equal(before, is)))
        return code; /* told already, and cut off before the next epoch */
    log_error("the store was rolled back, restored or copied: %s", why->text);
    return commit(c, NULL, RECORD_ROLLBACK, is, row, e);
}

/* ---- it is accepted ---- */

enum code core_accept_rollback(struct core *c, const struct caller *by,
                               const char *reason, struct error *e)
{
    JSON is = NULL;
    JSON more = NULL;
    enum code code = remembered(c, &is, e);

    if (!code && !is)
        return error_set(e, ERR_NOT_FOUND,
                         "no rollback of the store was noticed: there is none "
                         "to accept");
    if (!code && !*reason)
        return error_set(e, ERR_INVALID, "reason: says nothing");
    if (code)
        return code;
    more = json_pack("{sO* so}", "anchor", json_object_get(is, "anchor"),
                     "reason", logbook_text(reason, LOGBOOK_TEXT_MAX));
    code = commit(c, by, RECORD_ROLLBACK_ACCEPTED, more, "", e);
    if (!code)
        drop_alarm(c);
    return code;
}
