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
};

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

struct before { /* what an application left at the daemon before */
    char owner[IDENTITY_OWNER_MAX]; /* as its socket shows it */
    struct core_login login;
    bool found, foreign;
};

static enum code find_bound(const struct store_lease *l, void *ctx,
                            struct error *e)
{
    static const char login[] = "login:";
    struct before *b = ctx;
    (void)e;
    if (!l->bound || (l->state != LEASE_PENDING && l->state != LEASE_ACTIVE))
        return OK;
    b->found = true;
    if (strncmp(l->owner, login, strlen(login)) == 0 &&
        strlen(l->owner + strlen(login)) < sizeof b->login.name)
        strcpy(b->login.name, l->owner + strlen(login));
    else if (strcmp(l->owner, b->owner) != 0)
        b->foreign = true;
    return OK;
}

/* Do bound leases carry the hash, and none of them is another uid's? */
static enum code left_from_before(struct applications *t,
                                  const struct identity *id, const char *hash,
                                  struct core_login *login, bool *found,
                                  struct error *e)
{
    struct before b = {.found = false};
    struct store_lease_query q = {
        .application = hash, .live_only = true, .limit = 64};
    struct identity peer = *id;
    peer.login[0] = '\0';
    identity_owner(&peer, b.owner);
    enum code rc = store_lease_each(t->store, &q, find_bound, &b, e);
    *found = rc == OK && b.found && !b.foreign;
    *login = b.login;
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
    text_escape(a->program, sizeof a->program, program, strlen(program));
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
    char hash[WIRE_TOKEN_HEX + 1];
    struct core_login login;
    bool found = false;
    enum code rc = token_hash(token, hash, e);
    if (rc)
        return rc;
    if (join(t, hash, id, out))
        return OK;
    pthread_mutex_lock(&t->lock);
    bool grace = t->grace;
    pthread_mutex_unlock(&t->lock);
    if (grace)
        rc = left_from_before(t, id, hash, &login, &found, e);
    if (rc)
        return rc;
    if (!found)
        return error_set(e, ERR_NOT_FOUND, "this token is not known");
    rc = enter_new(t, peer, id, program, hash, &login, out, e);
    if (rc == OK)
        log_info("%s, process %d, is back with its leases", (*out)->program,
                 (int)peer->pid);
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
    a->login = login ? *login : (struct core_login){.name = ""};
    pthread_mutex_unlock(&t->lock);
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
    bool tell = ends && !t->retired && a->bound > 0;
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
    bool tell = a && a->bound > 0;
    if (a) {
        strcpy(hash, a->hash);
        bury(t, a);
    }
    pthread_mutex_unlock(&t->lock);
    if (tell)
        core_end_session(t->core, hash, 0);
}

/* ---- the grace after a restart ---- */

struct hashes {
    char (*items)[WIRE_TOKEN_HEX + 1];
    size_t n;
};

static void hashes_clear(struct hashes *h)
{
    free(h->items);
}

static enum code collect(const struct store_lease *l, void *ctx,
                         struct error *e)
{
    struct hashes *h = ctx;
    if (!l->bound || strlen(l->application) != WIRE_TOKEN_HEX ||
        (l->state != LEASE_PENDING && l->state != LEASE_ACTIVE))
        return OK;
    for (size_t i = 0; i < h->n; i++)
        if (!strcmp(h->items[i], l->application))
            return OK;
    void *more = realloc(h->items, (h->n + 1) * sizeof h->items[0]);
    if (!more)
        return error_set(e, ERR_NOMEM, "list of applications");
    h->items = more;
    strcpy(h->items[h->n++], l->application);
    return OK;
}

void applications_end_grace(struct applications *t)
{
    CLEANUP(hashes_clear) struct hashes left = {NULL, 0};
    struct store_lease_query q = {.live_only = true};
    struct error e = {.code = OK};
    pthread_mutex_lock(&t->lock);
    t->grace = false;
    pthread_mutex_unlock(&t->lock);
    /* From here on nobody returns: who is not in the table never will be. */
    if (store_lease_each(t->store, &q, collect, &left, &e))
        log_failure(&e, "look for leases whose application is gone");
    for (size_t i = 0; i < left.n; i++) {
        pthread_mutex_lock(&t->lock);
        bool back = find_hash(t, left.items[i]) != NULL;
        pthread_mutex_unlock(&t->lock);
        if (!back)
            core_end_session(t->core, left.items[i], 0);
    }
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
