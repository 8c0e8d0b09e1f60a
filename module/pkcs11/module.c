#include "config.h"

#include "module/pkcs11/module.h"

#include "common/clock.h"
#include "module/pkcs11/object.h"
#include "module/pkcs11/session.h"
#include "module/pkcs11/slot.h"

#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

/* A daemon that is started anew (its package was updated) takes less. */
#define RECONNECT_MS 5000
#define TIMEOUT_MAX 3600 /* seconds */

/* What x-init-reserved and the environment say. */
struct module_settings {
    char *socket; /* NULL: the default */
    int call_ms;  /* 0: the client's default */
};

struct module {
    int refs; /* one for being initialised, one a call inside */
    bool closed;
    struct module_settings settings;
    struct client *client; /* made when first needed */
    struct slot_table *slots;
    struct session_table *sessions;
    struct object_table *objects;
};

/* Whose the statics below are: 0 nobody's yet, PID that process's, -PID it is
 * just making them its own. */
static atomic_int owner;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t finalized = PTHREAD_COND_INITIALIZER; /* with lock */
static struct module *current; /* NULL: not initialised */

static void module_free(struct module *m)
{
    if (!m)
        return;
    client_free(m->client);
    session_table_free(m->sessions);
    object_table_free(m->objects);
    slot_table_free(m->slots);
    free(m->settings.socket);
    free(m);
}

/* In a forked child: close the connections without a word, and forget. The
 * lock tells whether one of the parent's threads was amid a change; then only
 * memory is lost. */
static void forget_parent(void)
{
    struct module *m = current;
    bool whole = pthread_mutex_trylock(&lock) == 0;
    current = NULL;
    pthread_mutex_init(&lock, NULL);
    pthread_cond_init(&finalized, NULL); /* the parent's waiters are not here */
    if (whole)
        module_free(m);
    else if (m && m->client)
        client_abandon(m->client);
}

/* Make the statics this process's own, once; its threads may race. */
static void own(void)
{
    int pid = getpid();
    for (;;) {
        int was = atomic_load(&owner);
        if (was == pid)
            return;
        if (was == -pid) {
            sched_yield();
            continue;
        }
        if (!atomic_compare_exchange_strong(&owner, &was, -pid))
            continue;
        if (was != 0)
            forget_parent();
        atomic_store(&owner, pid);
        return;
    }
}

static bool owned(void)
{
    return atomic_load(&owner) == getpid();
}

void module_lock(struct module *m)
{
    (void)m;
    pthread_mutex_lock(&lock);
}

void module_unlock(struct module *m)
{
    (void)m;
    pthread_mutex_unlock(&lock);
}

void module_wait(struct module *m, int ms)
{
    struct timespec end = clock_in_ms(ms);
    (void)m;
    pthread_cond_clockwait(&finalized, &lock, CLOCK_MONOTONIC, &end);
}

bool module_closed(const struct module *m)
{
    return m->closed;
}

struct slot_table *module_slots(struct module *m)
{
    return m->slots;
}

struct session_table *module_sessions(struct module *m)
{
    return m->sessions;
}

struct object_table *module_objects(struct module *m)
{
    return m->objects;
}

const char *module_socket(const struct module *m)
{
    return m->settings.socket;
}

const char *module_program(void)
{
    return PACKAGE_NAME "-pkcs11 " PACKAGE_VERSION;
}

/* ---- C_Initialize, C_Finalize ---- */

static CK_RV check_locking(const CK_C_INITIALIZE_ARGS *args)
{
    int given = !!args->CreateMutex + !!args->DestroyMutex + !!args->LockMutex +
                !!args->UnlockMutex;
    if (given != 0 && given != 4)
        return CKR_ARGUMENTS_BAD;
    /* Our mutexes are the system's; others' we cannot use. */
    if (given == 4 && !(args->flags & CKF_OS_LOCKING_OK))
        return CKR_CANT_LOCK;
    return CKR_OK;
}

/* Whole seconds, 1 to TIMEOUT_MAX; else 0. */
static int read_timeout(const char *s)
{
    int seconds = 0;
    for (; *s >= '0' && *s <= '9' && seconds <= TIMEOUT_MAX; s++)
        seconds = seconds * 10 + (*s - '0');
    return *s || seconds > TIMEOUT_MAX ? 0 : seconds;
}

static CK_RV read_word(char *word, struct module_settings *out)
{
    if (strncmp(word, "socket=/", 8) == 0 && !out->socket) {
        out->socket = strdup(word + 7);
        return out->socket ? CKR_OK : CKR_HOST_MEMORY;
    }
    if (strncmp(word, "timeout=", 8) != 0 || out->call_ms)
        return CKR_ARGUMENTS_BAD;
    out->call_ms = read_timeout(word + 8) * 1000;
    return out->call_ms ? CKR_OK : CKR_ARGUMENTS_BAD;
}

/* p11-kit hands x-init-reserved over as it is: "socket=/path timeout=30", each
 * at most once; or nothing. */
static CK_RV read_reserved(const char *reserved, struct module_settings *out)
{
    FREE char *copy = strdup(reserved ? reserved : "");
    if (!copy)
        return CKR_HOST_MEMORY;
    char *save = NULL;
    for (char *w = strtok_r(copy, " ", &save); w;
         w = strtok_r(NULL, " ", &save)) {
        CK_RV rv = read_word(w, out);
        if (rv != CKR_OK)
            return rv;
    }
    return CKR_OK;
}

/* What the environment says holds where x-init-reserved says nothing: GnuTLS
 * and others give arguments of their own. Nonsense in it is passed over: it
 * would take the token away from programs that cannot say why. */
static void read_environment(struct module_settings *out)
{
    const char *timeout = secure_getenv("HSMINT_TIMEOUT");
    if (timeout && !out->call_ms)
        out->call_ms = read_timeout(timeout) * 1000;
}

static CK_RV read_settings(const CK_C_INITIALIZE_ARGS *args,
                           struct module_settings *out)
{
    CK_RV rv = args ? check_locking(args) : CKR_OK;
    if (rv == CKR_OK && args)
        rv = read_reserved(args->pReserved, out);
    if (rv == CKR_OK) {
        read_environment(out);
        return CKR_OK;
    }
    free(out->socket);
    return rv;
}

static struct module *module_new(struct module_settings settings)
{
    struct module *m = calloc(1, sizeof(*m));
    if (!m) {
        free(settings.socket);
        return NULL;
    }
    m->refs = 1;
    m->settings = settings;
    m->slots = slot_table_new();
    m->sessions = session_table_new();
    m->objects = object_table_new();
    if (!m->slots || !m->sessions || !m->objects) {
        module_free(m);
        return NULL;
    }
    return m;
}

CK_RV module_initialize(CK_C_INITIALIZE_ARGS *args)
{
    struct module_settings settings = {.socket = NULL};
    CK_RV rv = read_settings(args, &settings);
    if (rv != CKR_OK)
        return rv;
    struct module *m = module_new(settings);
    if (!m)
        return CKR_HOST_MEMORY;
    own();
    pthread_mutex_lock(&lock);
    bool first = !current;
    if (first)
        current = m;
    pthread_mutex_unlock(&lock);
    if (first)
        return CKR_OK;
    module_free(m);
    return CKR_CRYPTOKI_ALREADY_INITIALIZED;
}

static void module_release(struct module *m)
{
    pthread_mutex_lock(&lock);
    bool last = --m->refs == 0;
    pthread_mutex_unlock(&lock);
    if (last)
        module_free(m);
}

CK_RV module_finalize(void)
{
    if (!owned()) {
        /* A child leaving its parent's connections for good. */
        if (atomic_load(&owner) != 0)
            own();
        return CKR_CRYPTOKI_NOT_INITIALIZED;
    }
    pthread_mutex_lock(&lock);
    struct call c = {.in = current};
    if (current)
        current->closed = true;
    if (current && current->client)
        client_allow_start(current->client, false);
    current = NULL;
    pthread_cond_broadcast(&finalized);
    pthread_mutex_unlock(&lock);
    if (!c.in)
        return CKR_CRYPTOKI_NOT_INITIALIZED;
    session_end_all(&c);
    module_release(c.in);
    return CKR_OK;
}

/* ---- calls ---- */

CK_RV call_begin(struct call *c)
{
    if (!owned())
        return CKR_CRYPTOKI_NOT_INITIALIZED;
    pthread_mutex_lock(&lock);
    c->in = current;
    if (c->in)
        c->in->refs++;
    pthread_mutex_unlock(&lock);
    return c->in ? CKR_OK : CKR_CRYPTOKI_NOT_INITIALIZED;
}

CK_RV call_begin_session(struct call *c, CK_SESSION_HANDLE session)
{
    CK_RV rv = call_begin(c);
    if (rv != CKR_OK)
        return rv;
    pthread_mutex_lock(&lock);
    struct session *s = session_find(c->in->sessions, session);
    if (s) {
        c->session = session;
        c->slot = s->slot;
    }
    pthread_mutex_unlock(&lock);
    return s ? CKR_OK : CKR_SESSION_HANDLE_INVALID;
}

static void keep_error(struct call *c, CK_RV rv)
{
    pthread_mutex_lock(&lock);
    struct session *s = session_find(c->in->sessions, c->session);
    if (s)
        session_keep_error(c->in, s, &c->e, rv);
    pthread_mutex_unlock(&lock);
}

CK_RV call_end(struct call *c, CK_RV rv)
{
    if (!c->in)
        return rv;
    if (rv != CKR_OK && c->session != CK_INVALID_HANDLE)
        keep_error(c, rv);
    module_release(c->in);
    c->in = NULL;
    return rv;
}

CK_RV call_fail(struct call *c, CK_RV rv, const char *fmt, ...)
{
    char text[ERROR_TEXT_MAX];
    va_list ap;
    va_start(ap, fmt);
    int n = vsnprintf(text, sizeof(text), fmt, ap);
    va_end(ap);
    error_set(&c->e, ERR_INVALID, "%s", n < 0 ? "" : text);
    return rv;
}

/* The daemon no longer knows that we logged in (it was locked or started
 * anew): let C_Login be called again. */
static void note_login_lost(struct call *c)
{
    if (c->e.code != ERR_NOT_LOGGED_IN && c->e.code != ERR_LOCKED)
        return;
    pthread_mutex_lock(&lock);
    slot_forget_logins(c->in->slots);
    pthread_mutex_unlock(&lock);
}

CK_RV call_error(struct call *c)
{
    note_login_lost(c);
    pthread_mutex_lock(&lock);
    bool closed = c->in->closed;
    pthread_mutex_unlock(&lock);
    if (closed) /* whatever the daemon said then */
        return CKR_CRYPTOKI_NOT_INITIALIZED;
    CK_RV rv = error_ckrv(c->e.code);
    return rv == CKR_OK ? CKR_GENERAL_ERROR : rv;
}

CK_RV call_error_no_object(struct call *c)
{
    CK_RV rv = call_error(c);
    return rv == CKR_OBJECT_HANDLE_INVALID ? CKR_DEVICE_ERROR : rv;
}

/* ---- the daemon ---- */

static enum code get_client(struct call *c, struct client **out)
{
    struct module *m = c->in;
    struct client_options o = {
        .socket = m->settings.socket,
        .program = module_program(),
        .connect_ms = SLOT_WAIT_MS,
        .call_ms = m->settings.call_ms,
        .reconnect_ms = RECONNECT_MS,
        .start_daemon = true, /* the client is made by C_OpenSession */
    };
    pthread_mutex_lock(&lock);
    enum code rc = m->client ? OK : client_new(&m->client, &o, &c->e);
    if (!rc && m->closed)
        client_allow_start(m->client, false);
    *out = m->client;
    pthread_mutex_unlock(&lock);
    return rc;
}

enum code module_connect(struct call *c)
{
    struct client *client;
    enum code rc = get_client(c, &client);
    return rc ? rc : client_connect(client, &c->e);
}

enum code module_ask(struct call *c, const char *method, json_t *parameters,
                     const struct secret *in, json_t **reply,
                     struct secret **out)
{
    struct client *client;
    enum code rc = get_client(c, &client);
    if (rc) {
        json_decref(parameters);
        return rc;
    }
    rc = client_call(client, method, parameters, in, reply, out, &c->e);
    if (!rc)
        session_tell_unended(c);
    return rc;
}

enum code module_tell(struct call *c, const char *method, json_t *parameters)
{
    struct client *client;
    enum code rc = get_client(c, &client);
    if (rc) {
        json_decref(parameters);
        return rc;
    }
    return client_tell(client, method, parameters, &c->e);
}

json_t *module_parameters(struct call *c, bool org, bool request_id)
{
    JSON p = json_object();
    char id[TEXT_ID_LEN + 1];
    if (request_id && text_id(id, &c->e))
        return NULL;
    pthread_mutex_lock(&lock);
    const char *name = slot_org(c->in->slots, c->slot);
    int bad = p ? 0 : -1;
    bool lost = org && !name;
    if (org && name)
        bad |= json_object_set_new(p, "org", json_string(name));
    pthread_mutex_unlock(&lock);
    if (lost) { /* without one the daemon would take its default one */
        error_set(&c->e, ERR_NOT_FOUND,
                  "slot %lu: the daemon has no such organisation (any more): "
                  "open a session in another slot",
                  c->slot);
        return NULL;
    }
    if (request_id)
        bad |= json_object_set_new(p, "request_id", json_string(id));
    if (bad) {
        error_set(&c->e, ERR_NOMEM, "a request to the daemon: no memory");
        return NULL;
    }
    json_t *out = p;
    p = NULL;
    return out;
}
