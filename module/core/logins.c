#include "config.h"

#include "module/core/logins.h"

#include "common/clock.h"
#include "common/file.h"
#include "common/text.h"
#include "module/core/entrance.h"
#include "module/core/held.h"
#include "module/core/internal.h"
#include "module/core/logbook.h"
#include "module/core/login.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- make and rotate ---- */

struct change {
    struct core *core;
    const char *name;
    const struct caller *by;
    bool rotates, deletes;
    struct login_fields fields;
    struct login_secret made;
    struct login login; /* as it is afterwards */
    char *was;          /* as it was before, for the record; NULL: not there */
};

static void change_clear(struct change *w)
{
    free(w->was);
}
#define CHANGE CLEANUP(change_clear) struct change

static enum code read_login(struct store_tx *tx, const char *name,
                            struct login *l, struct error *e)
{
    CLEANUP(store_document_clear) struct store_document d = {.kind = NULL};
    enum code rc = store_tx_document_get(tx, LOGIN_KIND, name, &d, e);
    return rc ? rc : login_parse(l, d.body, e);
}

static enum code write_login(struct store_tx *tx, const char *name,
                             const struct login *l, int64_t now,
                             struct error *e)
{
    FREE char *body = NULL;
    enum code rc = login_body(l, &body, e);
    return rc ? rc
              : store_document_put(tx, LOGIN_KIND, name, body, now, e);
}

static bool made_by(const struct login *l, const char *request_id)
{
    return l->secrets_n == 1 &&
           strcmp(l->secrets[0].request_id, request_id) == 0;
}

static bool any_role(int64_t org, const char *role, void *ctx)
{
    (void)org, (void)role, (void)ctx;
    return true;
}

/* Leases of a login that was deleted would be those of whoever gets its name,
 * with their kept keys. */
static enum code check_heritage(struct store_tx *tx, const char *name,
                                struct error *e)
{
    char owner[IDENTITY_OWNER_MAX];
    const struct store_usage_query q = {.owner = owner, .match = any_role};
    struct store_usage left;
    snprintf(owner, sizeof owner, "login:%s", name);
    enum code rc = store_tx_usage(tx, &q, &left, e);
    if (rc || left.live == 0)
        return rc;
    return error_set(e, ERR_EXISTS,
                     "%lld leases of a login %s that was deleted live on, and "
                     "would be the new one's: revoke them (`hsmint lease list "
                     "--all`), wait for their end, or take another name",
                     (long long)left.live, name);
}

/* What is there already: nothing for a new login, unless the same request made
 * it; something for a rotation. */
static enum code start_from(struct store_tx *tx, struct change *w, int64_t now,
                            struct error *e)
{
    w->login = (struct login){.created_ms = now};
    enum code rc = read_login(tx, w->name, &w->login, e);
    if (rc == ERR_NOT_FOUND && !w->rotates) {
        error_clear(e);
        return check_heritage(tx, w->name, e);
    }
    if (rc || w->rotates || made_by(&w->login, w->made.request_id))
        return rc;
    return error_set(e, ERR_EXISTS,
                     "there is a login %s already: `hsmint login rotate` gives "
                     "it another secret id",
                     w->name);
}

/* What a login is, but for its secrets' hashes, which others need not have. */
static enum code record_change(struct store_tx *tx, const struct change *w,
                               const char *action, struct error *e)
{
    JSON now = w->deletes ? NULL : login_json(w->name, &w->login);
    FREE char *body = json_text(now, JSON_COMPACT);
    const struct logbook_entry r = {
        .kind = RECORD_LOGIN_CHANGE,
        .by = w->by,
        .more = !w->deletes && !body
                    ? NULL
                    : logbook_change(w->name, action, w->was, body)};
    return logbook_add(w->core, tx, &r, e);
}

static enum code note_was(struct change *w, struct error *e)
{
    JSON was = login_json(w->name, &w->login);
    free(w->was);
    w->was = json_text(was, JSON_COMPACT);
    return w->was ? OK : error_set(e, ERR_NOMEM, "login");
}

static enum code write_change(struct store_tx *tx, void *ctx, struct error *e)
{
    struct change *w = ctx;
    int64_t now = clock_wall_ms();
    enum code rc = start_from(tx, w, now, e);
    if (rc == OK && w->login.secrets_n > 0)
        rc = note_was(w, e);
    if (rc)
        return rc;
    login_put_secret(&w->login, &w->fields, &w->made, now);
    rc = write_login(tx, w->name, &w->login, now, e);
    return rc ? rc : record_change(tx, w, w->rotates ? "rotate" : "create", e);
}

/* The keeper's, by descriptor: it is never here. */
static enum code make_secret(struct core *c, struct change *w,
                             const char *request_id, int *fd, struct error *e)
{
    FRAME request = FRAME_INIT;
    FRAME reply = FRAME_INIT;
    request.verb = VERB_MAKE_LOGIN;
    request.head = json_pack("{ss}", "name", w->name);
    if (!request.head)
        return error_set(e, ERR_NOMEM, "secret id");
    enum code rc = unlock_call(c, &request, (int)c->settings->hsm_deadline_ms,
                               &reply, NULL, e);
    if (rc)
        return rc;
    const char *hmac = json_string_value(json_object_get(reply.head, "hmac"));
    if (!hmac || strlen(hmac) != LOGIN_HMAC_HEX || reply.fd < 0)
        return error_set(e, ERR_KEEPER, "the keeper gave no secret id");
    strcpy(w->made.hmac, hmac);
    strcpy(w->made.request_id, request_id);
    *fd = reply.fd;
    reply.fd = -1;
    return text_id(w->made.accessor, e);
}

static enum code change(struct core *c, struct change *w, json_t *fields,
                        const char *request_id, json_t **out, int *secret_fd,
                        struct error *e)
{
    FD fd = -1;
    enum code rc = text_check_name("login", w->name, e);
    if (!rc)
        rc = login_fields_parse(&w->fields, fields, w->rotates, e);
    if (!rc)
        rc = make_secret(c, w, request_id, &fd, e);
    if (!rc)
        rc = store_commit(c->store, STORE_NORMAL, write_change, w, e);
    if (rc)
        return rc;
    *out = login_json(w->name, &w->login);
    if (!*out)
        return error_set(e, ERR_NOMEM, "login");
    *secret_fd = fd;
    fd = -1;
    return OK;
}

enum code core_login_create(struct core *c, const struct caller *by,
                            const char *name, json_t *fields,
                            const char *request_id, json_t **out,
                            int *secret_fd, struct error *e)
{
    CHANGE w = {.core = c, .name = name, .by = by};
    return change(c, &w, fields, request_id, out, secret_fd, e);
}

enum code core_login_rotate(struct core *c, const struct caller *by,
                            const char *name, json_t *fields,
                            const char *request_id, json_t **out,
                            int *secret_fd, struct error *e)
{
    CHANGE w = {.core = c, .name = name, .by = by, .rotates = true};
    return change(c, &w, fields, request_id, out, secret_fd, e);
}

/* ---- look and delete ---- */

static enum code find_login(struct core *c, const char *name, struct login *l,
                            struct error *e)
{
    CLEANUP(store_document_clear) struct store_document d = {.kind = NULL};
    enum code rc = store_document_get(c->store, LOGIN_KIND, name, &d, e);
    return rc ? rc : login_parse(l, d.body, e);
}

enum code core_login_get(struct core *c, const char *name, json_t **out,
                         struct error *e)
{
    struct login l;
    enum code rc = find_login(c, name, &l, e);
    if (rc)
        return rc;
    *out = login_json(name, &l);
    return *out ? OK : error_set(e, ERR_NOMEM, "login");
}

static enum code add_login(const struct store_document *d, void *ctx,
                           struct error *e)
{
    struct login l;
    enum code rc = login_parse(&l, d->body, e);
    if (rc)
        return error_prefix(e, "login %s", d->name);
    if (json_array_append_new(ctx, login_json(d->name, &l)))
        return error_set(e, ERR_NOMEM, "list of logins");
    return OK;
}

enum code core_login_list(struct core *c, json_t **out, struct error *e)
{
    JSON list = json_array();
    if (!list)
        return error_set(e, ERR_NOMEM, "list of logins");
    enum code rc =
        store_document_each(c->store, LOGIN_KIND, add_login, list, e);
    if (!rc)
        *out = json_incref(list);
    return rc;
}

static enum code delete_login(struct store_tx *tx, void *ctx, struct error *e)
{
    struct change *w = ctx;
    /* One that cannot be read any more can still be deleted. */
    if (read_login(tx, w->name, &w->login, NULL) == OK) {
        enum code noted = note_was(w, e);
        if (noted)
            return noted;
    }
    enum code rc = store_document_delete(tx, LOGIN_KIND, w->name, e);
    return rc ? rc : record_change(tx, w, "delete", e);
}

/* May use the reserve: it takes away. */
enum code core_login_delete(struct core *c, const struct caller *by,
                            const char *name, struct error *e)
{
    CHANGE w = {.core = c, .name = name, .by = by, .deletes = true};
    return store_commit(c->store, STORE_RESERVE, delete_login, &w, e);
}

/* ---- an application's login ---- */

static const struct login_secret *by_accessor(const struct login *l,
                                              const char *accessor)
{
    for (size_t i = 0; i < l->secrets_n; i++)
        if (strcmp(l->secrets[i].accessor, accessor) == 0)
            return &l->secrets[i];
    return NULL;
}

enum code core_login_alive(struct core *c, const struct core_login *l,
                           struct error *e)
{
    struct login login;
    enum code rc = find_login(c, l->name, &login, e);
    if (rc == ERR_NOT_FOUND)
        return error_set(e, ERR_NOT_LOGGED_IN, "login %s was deleted", l->name);
    if (rc)
        return rc;
    const struct login_secret *s = by_accessor(&login, l->accessor);
    if (!l->accessor[0])
        return error_set(e, ERR_NOT_LOGGED_IN,
                         "login %s: it is bound to other uids by now: log in "
                         "by another one",
                         l->name);
    if (!s)
        return error_set(e, ERR_NOT_LOGGED_IN,
                         "login %s: its secret id was rotated: log in again "
                         "with the new one",
                         l->name);
    if (login_secret_over(s, clock_wall_ms()))
        return error_set(e, ERR_NOT_LOGGED_IN,
                         "login %s: the lifetime of its secret id is over: log "
                         "in again with another one",
                         l->name);
    return OK;
}

/* ---- a use ---- */

struct use {
    const struct proof *proof;
    const struct caller *by;
    const char *kind;
    struct core *core;
    bool hold;
    bool again; /* the application has this login, by this secret */
    struct core_login login;
};

static bool serves(const struct login *l, const struct identity *id)
{
    return l->uids_n == 0 || (!id->borrowed && login_serves_uid(l, id->uid));
}

/* Only who brought the right one learns why it is not good enough. */
static enum code check_use(const struct login *l, const struct login_secret *s,
                           const struct use *u, struct error *e)
{
    const struct identity *id = u->by->id;
    if (login_secret_over(s, clock_wall_ms()))
        return error_set(e, ERR_PIN_WRONG,
                         "login %s: the lifetime of this secret id is over",
                         u->proof->name);
    if (s->uses_left == 0 && !u->again)
        return error_set(e, ERR_PIN_WRONG,
                         "login %s: this secret id was used as often as it may",
                         u->proof->name);
    if (!serves(l, id))
        return error_set(e, ERR_DENIED,
                         "login %s is bound to other uids than %lu%s",
                         u->proof->name, (unsigned long)id->uid,
                         id->borrowed ? ", for which nothing vouches" : "");
    return OK;
}

static enum code record_use(struct store_tx *tx, const struct use *u,
                            struct error *e)
{
    const struct logbook_entry r = {
        .kind = RECORD_LOGIN,
        .by = u->by,
        .more = json_pack("{ss ss ss sb}", "name", u->login.name, "accessor",
                          u->login.accessor, "entrance", u->kind, "again",
                          (int)u->again)};
    return logbook_add(u->core, tx, &r, e);
}

/* Was the login's answer lost? Then its use is counted already. */
static enum code look_again(struct store_tx *tx, struct use *u,
                            struct error *e)
{
    struct held h;
    if (!u->by->application)
        return OK;
    enum code rc = held_read(tx, u->by->application, &h, e);
    u->again = !rc && held_is_of(&h, u->by->id) &&
               strcmp(h.login.name, u->login.name) == 0 &&
               strcmp(h.login.accessor, u->login.accessor) == 0;
    if (rc != ERR_NOT_FOUND)
        return rc;
    error_clear(e);
    return OK;
}

static enum code write_use(struct store_tx *tx, void *ctx, struct error *e)
{
    struct use *u = ctx;
    struct login l;
    enum code rc = read_login(tx, u->proof->name, &l, e);
    if (rc && rc != ERR_NOT_FOUND)
        return rc;
    struct login_secret *s = rc ? NULL : login_find_hmac(&l, u->proof->hmac);
    if (!s)
        return entrance_refuse(e);
    error_clear(e);
    strcpy(u->login.accessor, s->accessor);
    rc = look_again(tx, u, e);
    if (!rc)
        rc = check_use(&l, s, u, e);
    if (rc)
        return rc;
    if (s->uses_left != LOGIN_ANY && !u->again)
        s->uses_left--;
    s->last_used_ms = clock_wall_ms();
    rc = write_login(tx, u->proof->name, &l, s->last_used_ms, e);
    if (!rc && u->hold)
        rc = held_put(tx, u->core, u->by, &u->login, e);
    return rc ? rc : record_use(tx, u, e);
}

/* A look first, so that what is wrong takes no turn of the one writer. */
enum code logins_use(struct core *c, const struct caller *by, const char *kind,
                     const struct proof *p, bool hold, struct core_login *out,
                     struct error *e)
{
    struct login l = {.secrets_n = 1};
    struct use u = {
        .proof = p, .by = by, .kind = kind, .core = c, .hold = hold};
    enum code rc = find_login(c, p->name, &l, e);
    if (rc && rc != ERR_NOT_FOUND)
        return rc;
    if (!login_find_hmac(&l, p->hmac))
        return entrance_refuse(e);
    error_clear(e);
    strcpy(u.login.name, p->name);
    rc = store_commit(c->store, STORE_RESERVE, write_use, &u, e);
    if (!rc)
        *out = u.login;
    return rc;
}

/* ---- after a restart ---- */

struct resume {
    struct core *core;
    const struct caller *by;
};

/* Once for all connections that an application returns with. */
static enum code write_resume(struct store_tx *tx, void *ctx, struct error *e)
{
    struct resume *r = ctx;
    struct held h;
    enum code rc = held_read(tx, r->by->application, &h, e);
    if (rc || strcmp(h.run, r->core->run) == 0)
        return rc;
    strcpy(h.run, r->core->run);
    rc = held_write(tx, r->by->application, &h, e);
    if (rc)
        return rc;
    const struct logbook_entry record = {
        .kind = RECORD_LOGIN,
        .by = r->by,
        .more = json_pack("{ss ss ss sI}", "name", h.login.name, "accessor",
                          h.login.accessor, "entrance", "resumed", "since_ms",
                          (json_int_t)h.since_ms)};
    return logbook_add(r->core, tx, &record, e);
}

enum code core_login_resume(struct core *c, const struct caller *by,
                            struct core_login *out, struct error *e)
{
    struct held h;
    struct login l;
    struct resume r = {.core = c, .by = by};
    enum code rc = held_find(c, by->application, &h, e);
    if (rc)
        return rc;
    if (!held_is_of(&h, by->id))
        return error_set(e, ERR_DENIED, "this application is not the caller's");
    if (ended_since(&c->ended, by->application, 0, 0))
        return error_set(e, ERR_NOT_FOUND, "this application has ended");
    *out = h.login;
    rc = core_login_alive(c, out, e);
    if (rc == ERR_NOT_LOGGED_IN) { /* told at each of its calls */
        error_clear(e);
        return OK;
    }
    if (!rc)
        rc = find_login(c, out->name, &l, e);
    if (rc)
        return rc;
    if (!serves(&l, by->id)) {
        out->accessor[0] = '\0';
        return OK;
    }
    return strcmp(h.run, c->run)
               ? store_commit(c->store, STORE_RESERVE, write_resume, &r, e)
               : OK;
}
