/* Who an application is: Login, Logout, and the named logins. */
#include "config.h"

#include "common/file.h"
#include "module/core/logins.h"
#include "module/core/permit.h"
#include "tools/handler.h"

#include <string.h>

static enum code reply_login(const struct call *c, json_t **out,
                             struct error *e)
{
    struct core_login login;
    application_login(c->daemon->applications, *c->application, &login);
    *out = json_pack("{s:s}", "login", login.name);
    return *out ? OK : error_set(e, ERR_NOMEM, "reply to Login");
}

static enum code need_administer(const struct call *c, const struct caller *by,
                                 struct error *e)
{
    return core_permit(c->daemon->core, by, CAP_ADMINISTER, NULL, NULL, e);
}

/* The caller as it would be with this login; "" for none. */
struct person {
    struct identity id; /* shares what the call's owns */
    char owner[IDENTITY_OWNER_MAX];
};

static struct caller caller_as(const struct call *c, const char *login,
                               struct person *p)
{
    struct caller by = handler_caller(c);
    p->id = *c->id;
    strcpy(p->id.login, login);
    identity_owner(&p->id, p->owner);
    by.id = &p->id;
    by.owner = p->owner;
    return by;
}

/* The application has none any more: on disk too, if it had one. */
static void forget_login(const struct call *c)
{
    struct core_login was, none;
    struct caller by = handler_caller(c);
    application_login(c->daemon->applications, *c->application, &was);
    if (!was.name[0])
        return;
    core_login_drop(c->daemon->core, &by, &none);
    application_set_login(c->daemon->applications, *c->application, &none);
}

/* By what came along: from now on the application is login:NAME. As
 * administrator only if that login is one. */
static enum code log_in_by_name(struct call *c, const struct arguments *a,
                                struct error *e)
{
    struct core_login login;
    struct person p;
    struct caller by = caller_as(c, "", &p);
    enum code rc = core_login_prove(c->daemon->core, &by, a->kind, a->name,
                                    c->fd_in, !a->so, &login, e);
    if (!rc && a->so) { /* held when it is allowed, never before */
        by = caller_as(c, login.name, &p);
        rc = need_administer(c, &by, e);
        if (!rc)
            rc = core_login_hold(c->daemon->core, &by, &login, e);
    }
    if (rc)
        return rc;
    application_set_login(c->daemon->applications, *c->application, &login);
    return OK;
}

/* The HSM's PIN, or none: the configured one. Only an administrator brings it
 * in system mode: each wrong one costs a try of the HSM's. */
static enum code unlock_hsm(struct call *c, const struct arguments *a,
                            const struct caller *by, struct error *e)
{
    struct core *core = c->daemon->core;
    bool system = c->daemon->settings->mode == MODE_SYSTEM;
    if (system && !a->so && !a->force &&
        !core_may(core, by, CAPABILITY_BIT(CAP_ADMINISTER), NULL, NULL))
        return error_set(e, ERR_LOCKED,
                         "hsmint is locked: an administrator has to unlock it "
                         "(`hsmint hsm unlock`)");
    enum code rc =
        system || a->so || a->force ? need_administer(c, by, e) : OK;
    return rc ? rc : core_login(core, by, c->fd_in, a->force, e);
}

/* Whether it was deleted, rotated or is over, nobody has asked yet: Login is
 * for those who lost theirs, too. */
static enum code need_login_alive(const struct call *c, struct error *e)
{
    struct core_login login;
    application_login(c->daemon->applications, *c->application, &login);
    return login.name[0] ? core_login_alive(c->daemon->core, &login, e) : OK;
}

/* Without a named login the socket says who asks. Once it may, whatever the
 * application was logged in as is over, unless it unlocks the HSM by that
 * login; a login that failed changes nothing, or it would go on as its uid. */
static enum code log_in_as_peer(struct call *c, const struct arguments *a,
                                struct error *e)
{
    struct daemon *d = c->daemon;
    struct person p;
    struct caller by = caller_as(c, a->force ? c->id->login : "", &p);
    enum code rc = a->force ? need_login_alive(c, e) : OK;
    if (rc)
        return rc;
    if (c->fd_in >= 0 || a->force || d->settings->mode == MODE_USER ||
        core_locked(d->core))
        rc = unlock_hsm(c, a, &by, e);
    else if (a->so)
        rc = need_administer(c, &by, e);
    if (rc == OK && !a->force)
        forget_login(c);
    return rc;
}

enum code handle_login(struct call *c, const struct arguments *a, json_t **out,
                       struct error *e)
{
    bool named = a->name || a->kind;
    if (named && (c->fd_in < 0 || a->force))
        return error_set(e, ERR_INVALID,
                         "Login: a named login comes with its secret id, and "
                         "without force");
    bool secret_id = named || (c->fd_in >= 0 && !a->force &&
                               c->daemon->settings->mode == MODE_SYSTEM &&
                               !core_wants_pin(c->daemon->core));
    enum code rc =
        secret_id ? log_in_by_name(c, a, e) : log_in_as_peer(c, a, e);
    return rc ? rc : reply_login(c, out, e);
}

/* This application's only; what PKCS#11 counts is the module's. */
enum code handle_logout(struct call *c, const struct arguments *a, json_t **out,
                        struct error *e)
{
    (void)a, (void)out, (void)e;
    forget_login(c);
    return OK;
}

/* ---- named logins ---- */

static enum code reply_with_login(json_t **out, json_t *login, struct error *e)
{
    *out = json_pack("{s:o}", "login", login);
    return *out ? OK : error_set(e, ERR_NOMEM, "reply with a login");
}

enum code handle_create_login(struct call *c, const struct arguments *a,
                              json_t **out, struct error *e)
{
    json_t *login = NULL;
    struct caller by = handler_caller(c);
    enum code rc = core_login_create(c->daemon->core, &by, a->name, a->fields,
                                     a->request_id, &login, &c->fd_out, e);
    return rc ? rc : reply_with_login(out, login, e);
}

enum code handle_rotate_login(struct call *c, const struct arguments *a,
                              json_t **out, struct error *e)
{
    json_t *login = NULL;
    struct caller by = handler_caller(c);
    enum code rc = core_login_rotate(c->daemon->core, &by, a->name, a->fields,
                                     a->request_id, &login, &c->fd_out, e);
    return rc ? rc : reply_with_login(out, login, e);
}

enum code handle_get_login(struct call *c, const struct arguments *a,
                           json_t **out, struct error *e)
{
    json_t *login = NULL;
    enum code rc = core_login_get(c->daemon->core, a->name, &login, e);
    return rc ? rc : reply_with_login(out, login, e);
}

enum code handle_list_logins(struct call *c, const struct arguments *a,
                             json_t **out, struct error *e)
{
    (void)a;
    JSON logins = NULL;
    enum code rc = core_login_list(c->daemon->core, &logins, e);
    if (rc)
        return rc;
    *out = json_pack("{s:O}", "logins", logins);
    return *out ? OK : error_set(e, ERR_NOMEM, "list of logins");
}

enum code handle_delete_login(struct call *c, const struct arguments *a,
                              json_t **out, struct error *e)
{
    (void)out;
    struct caller by = handler_caller(c);
    return core_login_delete(c->daemon->core, &by, a->name, e);
}
