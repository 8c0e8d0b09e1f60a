#include "config.h"

#include "module/core/held.h"

#include "common/clock.h"
#include "common/file.h"
#include "common/json.h"
#include "common/log.h"
#include "module/core/internal.h"

#include <stdlib.h>
#include <string.h>

/* ---- the document ---- */

static enum code take_text(char *to, size_t cap, const char *name,
                           const char *from, struct error *e)
{
    if (strlen(from) >= cap)
        return error_set(e, ERR_INVALID, "%s: too long", name);
    strcpy(to, from);
    return OK;
}

enum code held_parse(struct held *out, const char *body, struct error *e)
{
    JSON j = NULL;
    const char *login, *accessor, *unit, *run;
    json_int_t uid, since;
    bool borrowed;
    const struct json_field fields[] = {
        {"login", FIELD_STRING, true, &login, NULL},
        {"accessor", FIELD_STRING, true, &accessor, NULL},
        {"uid", FIELD_INT, true, &uid, NULL},
        {"borrowed", FIELD_BOOL, true, &borrowed, NULL},
        {"unit", FIELD_STRING, true, &unit, NULL},
        {"run", FIELD_STRING, true, &run, NULL},
        {"since_ms", FIELD_INT, true, &since, NULL},
    };
    enum code rc = json_parse(body, strlen(body), "held login", &j, e);
    if (!rc)
        rc = json_decode(j, JSON_FIELDS(fields), false, "held login", e);
    if (rc)
        return rc;
    if (uid < 0 || uid > UINT32_MAX)
        return error_set(e, ERR_INVALID, "uid: has to be one");
    *out = (struct held){
        .uid = (uid_t)uid, .borrowed = borrowed, .since_ms = since};
    rc = take_text(out->login.name, sizeof out->login.name, "login", login, e);
    if (!rc)
        rc = take_text(out->login.accessor, sizeof out->login.accessor,
                       "accessor", accessor, e);
    if (!rc)
        rc = take_text(out->unit, sizeof out->unit, "unit", unit, e);
    return rc ? rc : take_text(out->run, sizeof out->run, "run", run, e);
}

bool held_is_of(const struct held *h, const struct identity *id)
{
    return h->uid == id->uid && h->borrowed == id->borrowed &&
           strcmp(h->unit, id->unit ? id->unit : "") == 0;
}

/* ---- in the store ---- */

enum code held_find(struct core *c, const char *application, struct held *out,
                    struct error *e)
{
    CLEANUP(store_document_clear) struct store_document d = {.kind = NULL};
    enum code rc =
        store_document_get(c->store, HELD_KIND, application, &d, e);
    return rc ? rc : held_parse(out, d.body, e);
}

enum code held_read(struct store_tx *tx, const char *application,
                    struct held *out, struct error *e)
{
    CLEANUP(store_document_clear) struct store_document d = {.kind = NULL};
    enum code rc = store_tx_document_get(tx, HELD_KIND, application, &d, e);
    return rc ? rc : held_parse(out, d.body, e);
}

enum code held_write(struct store_tx *tx, const char *application,
                     const struct held *h, struct error *e)
{
    JSON j = json_pack("{ss ss sI sb ss ss sI}", "login", h->login.name,
                       "accessor", h->login.accessor, "uid",
                       (json_int_t)h->uid, "borrowed", (int)h->borrowed, "unit",
                       h->unit, "run", h->run, "since_ms",
                       (json_int_t)h->since_ms);
    FREE char *body = json_text(j, JSON_COMPACT);
    if (!body)
        return error_set(e, ERR_NOMEM, "held login");
    return store_document_put(tx, HELD_KIND, application, body, clock_wall_ms(),
                              e);
}

static bool has_application(const struct caller *by)
{
    return by->application && by->application[0];
}

enum code held_put(struct store_tx *tx, struct core *c, const struct caller *by,
                   struct core_login *l, struct error *e)
{
    struct held h = {.login = *l,
                     .uid = by->id->uid,
                     .borrowed = by->id->borrowed,
                     .since_ms = clock_wall_ms()};
    /* One transaction after the other: the last number is what is on disk. */
    l->turn = atomic_fetch_add(&c->turns, 1) + 1;
    if (!has_application(by))
        return OK;
    enum code rc = take_text(h.unit, sizeof h.unit, "unit",
                             by->id->unit ? by->id->unit : "", e);
    strcpy(h.run, c->run);
    return rc ? rc : held_write(tx, by->application, &h, e);
}

/* ---- hold and let go ---- */

struct hold {
    struct core *core;
    const struct caller *by;
    const char *application;
    struct core_login login;
};

static enum code write_hold(struct store_tx *tx, void *ctx, struct error *e)
{
    struct hold *h = ctx;
    return held_put(tx, h->core, h->by, &h->login, e);
}

enum code core_login_hold(struct core *c, const struct caller *by,
                          struct core_login *l, struct error *e)
{
    struct hold h = {.core = c, .by = by, .login = *l};
    enum code rc = store_commit(c->store, STORE_RESERVE, write_hold, &h, e);
    if (!rc)
        *l = h.login;
    return rc;
}

static enum code delete_held(struct store_tx *tx, void *ctx, struct error *e)
{
    struct hold *h = ctx;
    h->login.turn = atomic_fetch_add(&h->core->turns, 1) + 1;
    enum code rc = store_document_delete(tx, HELD_KIND, h->application, e);
    if (rc != ERR_NOT_FOUND)
        return rc;
    error_clear(e);
    return OK;
}

void core_login_drop(struct core *c, const struct caller *by,
                     struct core_login *none)
{
    struct error e = {.code = OK};
    struct hold h = {.core = c, .application = by->application};
    if (store_commit(c->store, STORE_RESERVE, delete_held, &h, &e)) {
        log_failure(&e, "forget a login on disk: a restart may give it back "
                        "to the application");
        h.login.turn = atomic_fetch_add(&c->turns, 1) + 1;
    }
    *none = h.login;
}

enum code held_drop(struct core *c, const char *application, struct error *e)
{
    CLEANUP(store_document_clear) struct store_document d = {.kind = NULL};
    struct hold h = {.core = c, .application = application};
    enum code rc =
        store_document_get(c->store, HELD_KIND, application, &d, e);
    if (rc == ERR_NOT_FOUND) {
        error_clear(e);
        return OK;
    }
    return rc ? rc
              : store_commit(c->store, STORE_RESERVE, delete_held, &h, e);
}
