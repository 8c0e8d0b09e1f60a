#include "config.h"

#include "tools/application.h"

#include "common/file.h"
#include "common/log.h"
#include "common/secret.h"
#include "common/text.h"

#include <errno.h>
#include <limits.h>
#include <openssl/evp.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

struct applications {
    struct core *core;
    struct store *store;
    int epoll;
    pthread_mutex_t lock;
    int most, most_of_uid;
    struct application *first; /* the living */
    uint64_t numbers;
    bool grace;
    bool retired;
    int held; /* logins that the daemon before left */
};

/* Daemons that start and die within their graces sweep nothing: more than can
 * have been attached is not kept for the next one. */
static enum code bound_held(const struct store_document *d, void *ctx,
                            struct error *e)
{
    struct applications *t = ctx;
    (void)e;
    if (++t->held > APPLICATION_HELD_MAX)
        core_end_session(t->core, d->name, 0);
    return OK;
}

enum code applications_new(struct applications **out, struct core *core,
                           struct store *store, int epoll, struct error *e)
{
    struct applications *t = calloc(1, sizeof *t);
    if (!t)
        return error_set(e, ERR_NOMEM, "table of applications");
    t->core = core;
    t->store = store;
    t->epoll = epoll;
    t->most = t->most_of_uid = INT_MAX;
    t->grace = true;
    enum code rc = store_document_each(store, HELD_KIND, bound_held, t, e);
    if (rc) {
        free(t);
        return rc;
    }
    pthread_mutex_init(&t->lock, NULL);
    *out = t;
    return OK;
}

void applications_limit(struct applications *t, int total, int of_uid)
{
    pthread_mutex_lock(&t->lock);
    t->most = total;
    t->most_of_uid = of_uid;
    pthread_mutex_unlock(&t->lock);
}

void applications_free(struct applications *t)
{
    if (!t)
        return;
    pthread_mutex_destroy(&t->lock);
    free(t);
}

/* ---- tokens ---- */

static enum code token_hash(const char *token, char hash[WIRE_TOKEN_HEX + 1],
                            struct error *e)
{
    uint8_t bytes[WIRE_TOKEN_HEX / 2], digest[EVP_MAX_MD_SIZE];
    size_t len = 0;
    unsigned digest_len = 0;
    if (text_unhex(bytes, sizeof bytes, &len, token, NULL) ||
        len != sizeof bytes)
        return error_set(e, ERR_INVALID, "token: has to be %d hex digits",
                         WIRE_TOKEN_HEX);
    int ok =
        EVP_Digest(bytes, len, digest, &digest_len, EVP_sha256(), NULL) == 1;
    wipe(bytes, sizeof bytes);
    if (!ok)
        return error_set(e, ERR_INTERNAL, "SHA-256 of an attach token");
    text_hex(hash, digest, digest_len);
    return OK;
}

static enum code token_new(char token[WIRE_TOKEN_HEX + 1], struct error *e)
{
    uint8_t bytes[WIRE_TOKEN_HEX / 2];
    enum code rc = text_random(bytes, sizeof bytes, e);
    if (rc)
        return rc;
    text_hex(token, bytes, sizeof bytes);
    wipe(bytes, sizeof bytes);
    return OK;
}

/* ---- the table; its lock is held ---- */

static struct application *find_hash(struct applications *t, const char *hash)
{
    struct application *a = t->first;
    while (a && strcmp(a->hash, hash))
        a = a->next;
    return a;
}

static void unlink_application(struct applications *t, struct application *a)
{
    struct application **p = &t->first;
    while (*p != a)
        p = &(*p)->next;
    *p = a->next;
}

/* Is its end anything to core? */
static bool leaves(const struct application *a)
{
    return a->bound > 0 || a->login.name[0];
}

/* Nobody finds it any more; it is freed with its last connection. */
static void bury(struct applications *t, struct application *a)
{
    a->dead = true;
    unlink_application(t, a);
    if (a->pidfd >= 0) {
        epoll_ctl(t->epoll, EPOLL_CTL_DEL, a->pidfd, NULL);
        fd_closep(&a->pidfd);
    }
}

static void add(struct applications *t, struct application *a)
{
    a->number = APPLICATION_NUMBERS + ++t->numbers;
    a->connections = 1;
    a->next = t->first;
    t->first = a;
    struct epoll_event ev = {.events = EPOLLIN, .data.u64 = a->number};
    if (a->pidfd >= 0 && epoll_ctl(t->epoll, EPOLL_CTL_ADD, a->pidfd, &ev) < 0)
        log_warning("cannot watch process %d (%s): its end shows only by its "
                    "connections",
                    (int)a->pid, strerror(errno));
}

/* ---- attach and detach ---- */

struct before { /* the bound leases that an application left */
    char owner[IDENTITY_OWNER_MAX]; /* as its socket shows it */
    bool own, foreign;
};

static void note_owner(struct before *b, const char *owner)
{
    static const char login[] = "login:";
    if (strcmp(owner, b->owner) == 0)
        b->own = true;
    else if (strncmp(owner, login, strlen(login)) != 0)
        b->foreign = true;
}

static enum code find_bound(const struct store_lease *l, void *ctx,
                            struct error *e)
{
    (void)e;
    if (l->bound && (l->state == LEASE_PENDING || l->state == LEASE_ACTIVE))
        note_owner(ctx, l->owner);
    return OK;
}

static enum code find_holder(const char *application, const char *owner,
                             void *ctx, struct error *e)
{
    (void)application, (void)e;
    note_owner(ctx, owner);
    return OK;
}

/* A login that is held for the hash, or leases that are bound to it or held by
 * it, and nothing of another uid's. By leases of logins alone nobody is known again. */
static enum code left_from_before(struct applications *t,
                                  const struct caller *by,
                                  struct core_login *login, bool *found,
                                  struct error *e)
{
    struct before b = {.own = false};
    struct store_lease_query q = {
        .application = by->application, .live_only = true, .limit = 64};
    struct error why = {.code = OK};
    *login = (struct core_login){.name = ""};
    *found = false;
    strcpy(b.owner, by->owner);
    enum code rc = store_lease_each(t->store, &q, find_bound, &b, e);
    if (!rc)
        rc = store_holder_each(t->store, by->application, find_holder, &b, e);
    if (rc || b.foreign)
        return rc;
    rc = core_login_resume(t->core, by, login, &why);
    *found = rc == OK || (rc == ERR_NOT_FOUND && b.own);
    if (rc == OK || rc == ERR_NOT_FOUND || rc == ERR_DENIED)
        return OK;
    if (e)
        *e = why;
    return rc;
}

static bool is_same(const struct application *a, uid_t uid, bool borrowed,
                    const char *unit)
{
    return a->uid == uid && a->borrowed == borrowed &&
           strcmp(a->unit, unit) == 0;
}

static bool join(struct applications *t, const char *hash,
                 const struct identity *id, struct application **out)
{
    pthread_mutex_lock(&t->lock);
    struct application *a = find_hash(t, hash);
    if (a && is_same(a, id->uid, id->borrowed, id->unit ? id->unit : ""))
        a->connections++;
    else
        a = NULL;
    pthread_mutex_unlock(&t->lock);
    *out = a;
    return a != NULL;
}

/* Is there room for one more of this uid? */
static enum code check_limit(struct applications *t, uid_t uid,
                             struct error *e)
{
    int all = 0, own = 0;
    for (const struct application *a = t->first; a; a = a->next) {
        all++;
        own += a->uid == uid;
    }
    if (own >= t->most_of_uid)
        return error_set(e, ERR_LIMIT,
                         "%d programs of uid %lu are attached, which is the "
                         "limit: end some, or raise [limits] applications",
                         own, (unsigned long)uid);
    if (all >= t->most)
        return error_set(e, ERR_LIMIT,
                         "%d programs are attached, which is the limit: raise "
                         "[daemon] max_connections or LimitNOFILE",
                         all);
    return OK;
}

/* Put a new application into the table, unless two connections of one client
 * return at the same moment and the other was first. */
static enum code enter(struct applications *t, struct application *a,
                       bool returning, struct application **out,
                       struct error *e)
{
    pthread_mutex_lock(&t->lock);
    struct application *twin = find_hash(t, a->hash);
    enum code rc = OK;
    if (twin && is_same(twin, a->uid, a->borrowed, a->unit))
        twin->connections++;
    else if (twin || (returning && !t->grace))
        rc = error_set(e, ERR_NOT_FOUND, "this token is not known");
    else
        rc = check_limit(t, a->uid, e);
    if (rc == OK && !twin)
        add(t, a);
    pthread_mutex_unlock(&t->lock);
    if (rc == OK)
        *out = twin ? twin : a;
    return rc;
}

static void application_free(struct application *a)
{
    free(a->unit);
    free(a);
}

static void application_freep(struct application **a)
{
    if (!*a)
        return;
    fd_closep(&(*a)->pidfd);
    application_free(*a);
}

static enum code enter_new(struct applications *t, struct wire_peer *peer,
                           const struct identity *id, const char *program,
                           const char *hash, const struct core_login *returning,
                           struct application **out, struct error *e)
{
    CLEANUP(application_freep) struct application *a = calloc(1, sizeof *a);
    if (a)
        a->pidfd = -1;
    if (!a || !(a->unit = strdup(id->unit ? id->unit : "")))
        return error_set(e, ERR_NOMEM, "application of process %d",
                         (int)peer->pid);
    strcpy(a->hash, hash);
    text_quote(a->program, sizeof a->program, program, strlen(program));
    a->uid = id->uid;
    a->borrowed = id->borrowed;
    a->pid = peer->pid;
    a->pidfd = peer->pidfd;
    a->bound = returning != NULL; /* it has some, from before */
    peer->pidfd = -1;
    if (returning)
        a->login = *returning;
    enum code rc = enter(t, a, returning != NULL, out, e);
    if (rc == OK && *out == a)
        a = NULL;
    return rc;
}

static enum code attach_known(struct applications *t, struct wire_peer *peer,
                              const struct identity *id, const char *program,
                              const char *token, struct application **out,
                              struct error *e)
{
    char hash[WIRE_TOKEN_HEX + 1], owner[IDENTITY_OWNER_MAX];
    struct core_login login;
    bool found = false;
    const struct caller by = {.owner = owner,
                              .id = id,
                              .uid = id->uid,
                              .pid = peer->pid,
                              .program = program,
                              .application = hash};
    identity_owner(id, owner);
    enum code rc = token_hash(token, hash, e);
    if (rc)
        return rc;
    if (join(t, hash, id, out))
        return OK;
    pthread_mutex_lock(&t->lock);
    bool grace = t->grace;
    pthread_mutex_unlock(&t->lock);
    if (grace)
        rc = left_from_before(t, &by, &login, &found, e);
    if (rc)
        return rc;
    if (!found)
        return error_set(e, ERR_NOT_FOUND, "this token is not known");
    rc = enter_new(t, peer, id, program, hash, &login, out, e);
    if (rc == OK)
        log_info("%s, process %d, is back%s%s", (*out)->program,
                 (int)peer->pid, login.name[0] ? " as login:" : "",
                 login.name);
    return rc;
}

enum code application_attach(struct applications *t, struct wire_peer *peer,
                             const struct identity *id, const char *program,
                             const char *token,
                             char new_token[WIRE_TOKEN_HEX + 1],
                             struct application **out, struct error *e)
{
    char hash[WIRE_TOKEN_HEX + 1];
    if (token)
        return attach_known(t, peer, id, program, token, out, e);
    enum code rc = token_new(new_token, e);
    if (rc == OK)
        rc = token_hash(new_token, hash, e);
    if (rc == OK)
        rc = enter_new(t, peer, id, program, hash, NULL, out, e);
    return rc;
}

void application_set_login(struct applications *t, struct application *a,
                           const struct core_login *login)
{
    pthread_mutex_lock(&t->lock);
    if (login->turn >= a->login.turn)
        a->login = *login;
    bool tell = a->dead && leaves(a); /* it was told before this was on disk */
    pthread_mutex_unlock(&t->lock);
    if (tell)
        core_end_session(t->core, a->hash, 0);
}

void application_login(struct applications *t, const struct application *a,
                       struct core_login *out)
{
    pthread_mutex_lock(&t->lock);
    *out = a->login;
    pthread_mutex_unlock(&t->lock);
}

void application_detach(struct applications *t, struct application *a)
{
    if (!a)
        return;
    pthread_mutex_lock(&t->lock);
    bool last = --a->connections == 0;
    bool ends = last && !a->dead;
    bool tell = ends && !t->retired && leaves(a);
    if (ends)
        bury(t, a);
    pthread_mutex_unlock(&t->lock);
    if (tell)
        core_end_session(t->core, a->hash, 0);
    if (last)
        application_free(a);
}

void application_bind(struct applications *t, struct application *a, bool is)
{
    pthread_mutex_lock(&t->lock);
    a->bound += is ? 1 : -1;
    pthread_mutex_unlock(&t->lock);
}

bool application_bound(struct applications *t, struct application *a)
{
    pthread_mutex_lock(&t->lock);
    bool bound = a->bound > 0;
    pthread_mutex_unlock(&t->lock);
    return bound;
}

bool application_dead(struct applications *t, struct application *a)
{
    pthread_mutex_lock(&t->lock);
    bool dead = a->dead;
    pthread_mutex_unlock(&t->lock);
    return dead;
}

void applications_exited(struct applications *t, uint64_t number)
{
    char hash[WIRE_TOKEN_HEX + 1];
    pthread_mutex_lock(&t->lock);
    struct application *a = t->first;
    while (a && a->number != number)
        a = a->next;
    bool tell = a && leaves(a);
    if (a) {
        strcpy(hash, a->hash);
        bury(t, a);
    }
    pthread_mutex_unlock(&t->lock);
    if (tell)
        core_end_session(t->core, hash, 0);
}

/* ---- the grace after a restart ---- */

struct left { /* at the daemon before, by one application */
    char hash[WIRE_TOKEN_HEX + 1]; /* first: compare_left() */
    bool back;
};

struct lefts {
    struct left *items;
    size_t n, room;
};

static void lefts_clear(struct lefts *h)
{
    free(h->items);
}

static enum code collect(struct lefts *h, const char *hash, struct error *e)
{
    if (strlen(hash) != WIRE_TOKEN_HEX)
        return OK;
    if (h->n == h->room) {
        size_t room = h->room ? 2 * h->room : 64;
        void *more = reallocarray(h->items, room, sizeof h->items[0]);
        if (!more)
            return error_set(e, ERR_NOMEM, "list of applications");
        h->items = more;
        h->room = room;
    }
    struct left *l = &h->items[h->n++];
    *l = (struct left){.back = false};
    strcpy(l->hash, hash);
    return OK;
}

static int compare_left(const void *a, const void *b)
{
    return strcmp(a, b);
}

/* In order, each once, and marked whose application is back. */
static void look_who_is_back(struct applications *t, struct lefts *h)
{
    size_t n = 0;
    if (!h->n)
        return;
    qsort(h->items, h->n, sizeof h->items[0], compare_left);
    for (size_t i = 1; i < h->n; i++)
        if (strcmp(h->items[i].hash, h->items[n].hash))
            h->items[++n] = h->items[i];
    h->n = n + 1;
    pthread_mutex_lock(&t->lock);
    for (const struct application *a = t->first; a; a = a->next) {
        struct left *l = bsearch(a->hash, h->items, h->n, sizeof h->items[0],
                                 compare_left);
        if (l)
            l->back = true;
    }
    pthread_mutex_unlock(&t->lock);
}

static enum code collect_bound(const struct store_lease *l, void *ctx,
                               struct error *e)
{
    if (!l->bound || (l->state != LEASE_PENDING && l->state != LEASE_ACTIVE))
        return OK;
    return collect(ctx, l->application, e);
}

static enum code collect_holder(const char *application, const char *owner,
                                void *ctx, struct error *e)
{
    (void)owner;
    return collect(ctx, application, e);
}

static enum code collect_held(const struct store_document *d, void *ctx,
                              struct error *e)
{
    return collect(ctx, d->name, e);
}

void applications_end_grace(struct applications *t)
{
    CLEANUP(lefts_clear) struct lefts left = {.n = 0};
    struct store_lease_query q = {.live_only = true};
    struct error e = {.code = OK};
    pthread_mutex_lock(&t->lock);
    bool retired = t->retired;
    t->grace = retired && t->grace;
    pthread_mutex_unlock(&t->lock);
    /* Who was cut off by a daemon that leaves has not stayed away. */
    if (retired)
        return;
    /* From here on nobody returns: who is not in the table never will be. */
    if (store_lease_each(t->store, &q, collect_bound, &left, &e) ||
        store_document_each(t->store, HELD_KIND, collect_held, &left, &e) ||
        store_holder_each(t->store, NULL, collect_holder, &left, &e))
        log_failure(&e, "look for what applications left that are gone");
    look_who_is_back(t, &left);
    for (size_t i = 0; i < left.n; i++)
        if (!left.items[i].back)
            core_end_session(t->core, left.items[i].hash, 0);
}

void applications_retire(struct applications *t)
{
    pthread_mutex_lock(&t->lock);
    t->retired = true;
    pthread_mutex_unlock(&t->lock);
}

size_t applications_count(struct applications *t)
{
    size_t n = 0;
    pthread_mutex_lock(&t->lock);
    for (struct application *a = t->first; a; a = a->next)
        n++;
    pthread_mutex_unlock(&t->lock);
    return n;
}
