#include "config.h"

#include "tests/unit/fake_daemon.h"

#include "common/clock.h"
#include "common/file.h"
#include "common/text.h"
#include "common/wire.h"

#include <poll.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define CONNECTIONS_MAX 64

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_t acceptor;
static pthread_t threads[CONNECTIONS_MAX];
static int sockets[CONNECTIONS_MAX];
static int n_threads;
static int listener = -1;
static char directory[64], path[96];

/* All below: under the lock. */
static json_t *calls, *last, *leases, *roles, *policies, *config, *faults,
    *journal;
static char lost[32];
static bool hanging, second_slot, is_protected;
static char pin_state[16], login[64];
static char sealed[256], last_text[4096];

static void check(bool ok, const char *what)
{
    if (ok)
        return;
    fprintf(stderr, "fake daemon: %s\n", what);
    abort();
}

/* ---- leases ---- */

static json_t *new_lease(const char *id, const char *role, int64_t ttl)
{
    int64_t now = clock_wall_ms();
    json_t *l = json_pack(
        "{ss ss ss ss ss ss sb si sI sI sI sI sb ss ss ss ss ss ss ss sb}",
        "lease_id", id, "org", "default", "role", role, "state", "active",
        "owner", "user:1000", "program", "test", "bound", 0, "session", 0,
        "issued_ms", now, "expires_ms", now + ttl * 1000, "max_expires_ms",
        now + 86400000, "lease_duration", ttl, "lease_renewable", 1,
        "project_id", "proj_1", "service_account", "sa-name",
        "service_account_id", "user-1", "api_key_id", "key_1", "api_base",
        "https://api.openai.com/v1", "label", "", "id", "", "kept", 0);
    check(l != NULL, "no lease");
    return l;
}

void fake_add_lease(const char *id, const char *role, bool kept)
{
    pthread_mutex_lock(&lock);
    json_t *l = new_lease(id, role, 3600);
    json_object_set_new(l, "kept", json_boolean(kept));
    json_array_insert_new(leases, 0, l);
    pthread_mutex_unlock(&lock);
}

static json_t *find_lease(json_t *p, struct error *e)
{
    const char *id = json_string_value(json_object_get(p, "lease_id"));
    size_t i;
    json_t *l;
    json_array_foreach(leases, i, l)
    {
        if (id &&
            strcmp(json_string_value(json_object_get(l, "lease_id")), id) == 0)
            return l;
    }
    error_set(e, ERR_NOT_FOUND, "no lease %s", id ? id : "");
    return NULL;
}

static bool is_active(const json_t *l)
{
    return strcmp(json_string_value(json_object_get(l, "state")), "active") ==
           0;
}

static int key_of(const json_t *lease)
{
    char text[128];
    SECRET s = NULL;
    int fd = -1;
    snprintf(text, sizeof(text), FAKE_KEY_PREFIX "%s",
             json_string_value(json_object_get(lease, "lease_id")));
    check(secret_dup(&s, text, strlen(text), NULL) == OK, "secret");
    check(secret_to_pipe(s, &fd, NULL) == OK, "pipe");
    return fd;
}

/* ---- methods: parameters → reply; *fd_out to send along ---- */

struct asked {
    json_t *p;
    int fd_in;
    int *fd_out;
};

static json_t *do_slots(struct asked *a, struct error *e)
{
    (void)a, (void)e;
    json_t *slots = json_pack("[{si ss ss ss}]", "id", 1, "org", "default",
                              "label", "hsmint", "serial", "0123456789ab");
    if (second_slot)
        json_array_append_new(slots, json_pack("{si ss ss ss}", "id", 7, "org",
                                               "lab", "label", "hsmint lab",
                                               "serial", "ba9876543210"));
    return json_pack("{so sb sb ss s{sb}}", "slots", slots, "locked", 0,
                     "protected", is_protected, "version", "7.3.1", "pin",
                     *pin_state ? pin_state : "none", 1);
}

/* The second is no key that we know. */
static json_t *do_audit_keys(struct asked *a, struct error *e)
{
    (void)a, (void)e;
    return json_pack("{s[{ss ss ss} {ss ss ss}]}", "keys", "label",
                     "hsmint-log-1", "id", "0102cafe", "public_key",
                     FAKE_LOG_KEY, "label", "hsmint-log-2", "id", "00",
                     "public_key", "MCowBQYDK2VwAyEA");
}

static json_t *do_random(struct asked *a, struct error *e)
{
    size_t n = (size_t)json_integer_value(json_object_get(a->p, "count"));
    SECRET s = NULL;
    check(n >= 1 && n <= 1024, "count");
    check(secret_new(&s, n, e) == OK, "secret");
    check(text_random(secret_bytes(s), n, e) == OK, "random");
    secret_set_len(s, n);
    check(secret_to_pipe(s, a->fd_out, e) == OK, "pipe");
    return json_object();
}

static bool is(const struct secret *s, const char *text)
{
    return secret_len(s) == strlen(text) &&
           memcmp(secret_data(s), text, strlen(text)) == 0;
}

/* By the name (whole or the secret alone), by the whole alone, or the PIN. */
static json_t *do_login(struct asked *a, struct error *e)
{
    SECRET pin = NULL;
    const char *name = json_string_value(json_object_get(a->p, "name"));
    bool good = a->fd_in < 0 && is_protected && !name;
    bool by_name = false;
    if (a->fd_in >= 0 &&
        secret_from_fd(&pin, a->fd_in, 4096, 1000, true, e) == OK) {
        bool ours = !name || strcmp(name, FAKE_LOGIN) == 0;
        by_name = ours && (is(pin, FAKE_LOGIN "." FAKE_SECRET) ||
                           (name && is(pin, FAKE_SECRET)));
        good = by_name || (!name && is(pin, FAKE_PIN));
    }
    if (!good) {
        error_set(e, ERR_PIN_WRONG, "the PIN is wrong");
        return NULL;
    }
    snprintf(login, sizeof(login), "%s", by_name ? FAKE_LOGIN : "");
    return json_pack("{ss}", "login", login);
}

static json_t *do_logout(struct asked *a, struct error *e)
{
    (void)a, (void)e;
    login[0] = '\0';
    return json_object();
}

static json_t *do_end_session(struct asked *a, struct error *e)
{
    (void)e;
    json_int_t session = json_integer_value(json_object_get(a->p, "session"));
    size_t i;
    json_t *l;
    json_array_foreach(leases, i, l)
    {
        if (json_is_true(json_object_get(l, "bound")) &&
            json_integer_value(json_object_get(l, "session")) == session)
            json_object_set_new(l, "state", json_string("revoked"));
    }
    return json_object();
}

/* A retry has the answer of the first call. */
static json_t *do_mint_again(struct asked *a)
{
    const char *id = json_string_value(json_object_get(a->p, "request_id"));
    json_t *l = json_object_get(journal, id ? id : "");
    if (l)
        *a->fd_out = key_of(l);
    return l ? json_pack("{sO s[]}", "lease", l, "warnings") : NULL;
}

static json_t *do_mint(struct asked *a, struct error *e)
{
    char id[TEXT_ID_LEN + 1];
    json_t *again = do_mint_again(a);
    if (again)
        return again;
    const char *role = json_string_value(json_object_get(a->p, "role"));
    json_int_t ttl = json_integer_value(json_object_get(a->p, "ttl"));
    check(text_id(id, e) == OK, "id");
    if (role && strcmp(role, "unknown") == 0) {
        error_set(e, ERR_ROLE_UNKNOWN, "no role unknown");
        return NULL;
    }
    json_t *l = new_lease(id, role ? role : "default-role", ttl ? ttl : 3600);
    static const char *const copied[] = {"bound", "session", "id", "org"};
    for (size_t i = 0; i < sizeof(copied) / sizeof(copied[0]); i++) {
        json_t *v = json_object_get(a->p, copied[i]);
        if (v)
            json_object_set(l, copied[i], v);
    }
    json_object_set_new(l, "kept",
                        json_boolean(role && strcmp(role, "keeping") == 0));
    json_array_insert_new(leases, 0, l);
    json_object_set(journal,
                    json_string_value(json_object_get(a->p, "request_id")), l);
    *a->fd_out = key_of(l);
    return json_pack("{sO s[]}", "lease", l, "warnings");
}

static json_t *do_renew(struct asked *a, struct error *e)
{
    json_t *l = find_lease(a->p, e);
    json_int_t ttl = json_integer_value(json_object_get(a->p, "ttl"));
    if (!l)
        return NULL;
    if (ttl > 86400) {
        error_set(e, ERR_TTL, "ttl beyond max_ttl");
        return NULL;
    }
    json_object_set_new(l, "expires_ms",
                        json_integer(clock_wall_ms() + ttl * 1000));
    return json_pack("{so}", "lease", json_deep_copy(l));
}

static json_t *do_revoke(struct asked *a, struct error *e)
{
    json_t *l = find_lease(a->p, e);
    if (!l)
        return NULL;
    json_object_set_new(l, "state", json_string("revoked"));
    return json_object();
}

static json_t *do_get_lease(struct asked *a, struct error *e)
{
    json_t *l = find_lease(a->p, e);
    return l ? json_pack("{so}", "lease", json_deep_copy(l)) : NULL;
}

/* Pages of two, so that paging happens. */
static json_t *do_list(struct asked *a, struct error *e)
{
    (void)e;
    const char *before = json_string_value(json_object_get(a->p, "before"));
    const char *org = json_string_value(json_object_get(a->p, "org"));
    json_t *page = json_array();
    bool skip = before, more = false;
    size_t i;
    json_t *l;
    json_array_foreach(leases, i, l)
    {
        const char *id = json_string_value(json_object_get(l, "lease_id"));
        bool wanted =
            is_active(l) &&
            strcmp(org, json_string_value(json_object_get(l, "org"))) == 0;
        if (skip) {
            skip = strcmp(id, before) != 0;
        } else if (wanted && json_array_size(page) == 2) {
            more = true;
            break;
        } else if (wanted) {
            json_array_append_new(page, json_deep_copy(l));
        }
    }
    return json_pack("{so sb}", "leases", page, "more", more);
}

static json_t *do_read_key(struct asked *a, struct error *e)
{
    json_t *l = find_lease(a->p, e);
    if (l && json_is_true(json_object_get(l, "kept"))) {
        *a->fd_out = key_of(l);
        return json_object();
    }
    error_set(e, ERR_SENSITIVE, "not kept");
    return NULL;
}

static json_t *do_label(struct asked *a, struct error *e)
{
    json_t *l = find_lease(a->p, e);
    if (!l)
        return NULL;
    if (json_object_get(a->p, "label"))
        json_object_set(l, "label", json_object_get(a->p, "label"));
    if (json_object_get(a->p, "id"))
        json_object_set(l, "id", json_object_get(a->p, "id"));
    return json_object();
}

static json_t *set_in(json_t *all, const char *member, struct asked *a)
{
    const char *name = json_string_value(json_object_get(a->p, "name"));
    json_t *one = json_deep_copy(json_object_get(a->p, "fields"));
    json_object_set(one, "name", json_object_get(a->p, "name"));
    json_object_set(all, name, one);
    return json_pack("{so}", member, one);
}

static json_t *list_of(json_t *all, const char *member)
{
    json_t *list = json_array(), *one;
    const char *name;
    json_object_foreach(all, name, one) json_array_append(list, one);
    return json_pack("{so}", member, list);
}

static json_t *delete_from(json_t *all, struct asked *a)
{
    json_object_del(all, json_string_value(json_object_get(a->p, "name")));
    return json_object();
}

static json_t *do_set_role(struct asked *a, struct error *e)
{
    (void)e;
    return set_in(roles, "role", a);
}

static json_t *do_list_roles(struct asked *a, struct error *e)
{
    (void)a, (void)e;
    return list_of(roles, "roles");
}

static json_t *do_delete_role(struct asked *a, struct error *e)
{
    (void)e;
    return delete_from(roles, a);
}

/* One named "file" is in a file of the daemon's host. */
static json_t *do_set_policy(struct asked *a, struct error *e)
{
    (void)e;
    json_t *reply = set_in(policies, "policy", a);
    json_t *file = json_object_get(policies, "file");
    if (file) {
        json_object_set_new(file, "source", json_string("file"));
        json_object_set_new(file, "path", json_string("/etc/x.json"));
    }
    return reply;
}

static json_t *do_list_policies(struct asked *a, struct error *e)
{
    (void)a, (void)e;
    return list_of(policies, "policies");
}

static json_t *do_delete_policy(struct asked *a, struct error *e)
{
    (void)e;
    return delete_from(policies, a);
}

static json_t *do_set_config(struct asked *a, struct error *e)
{
    if (!config)
        config = json_pack("{sb}", "configured", 1);
    json_object_update(config, json_object_get(a->p, "fields"));
    if (a->fd_in >= 0) {
        SECRET key = NULL;
        check(secret_from_fd(&key, a->fd_in, 4096, 1000, true, e) == OK, "key");
        snprintf(sealed, sizeof(sealed), "%.*s", (int)secret_len(key),
                 (const char *)secret_data(key));
        json_object_set_new(config, "admin_api_key_id", json_string("key_adm"));
    }
    return json_pack("{sO s[]}", "config", config, "warnings");
}

static json_t *do_get_config(struct asked *a, struct error *e)
{
    (void)a;
    if (config)
        return json_pack("{sO}", "config", config);
    error_set(e, ERR_NOT_FOUND, "no configuration");
    return NULL;
}

static json_t *do_rotate_config(struct asked *a, struct error *e)
{
    (void)a, (void)e;
    return json_pack("{ss}", "admin_api_key_id", "key_adm");
}

static json_t *do_delete_config(struct asked *a, struct error *e)
{
    (void)a, (void)e;
    json_decref(config);
    config = NULL;
    return json_object();
}

static json_t *do_attach(struct asked *a, struct error *e)
{
    (void)a, (void)e;
    char token[WIRE_TOKEN_HEX + 1];
    memset(token, 'a', WIRE_TOKEN_HEX);
    token[WIRE_TOKEN_HEX] = '\0';
    return json_pack("{ss ss ss ss}", "token", token, "mode", "user",
                     "instance", "i", "login", login);
}

static const struct {
    const char *name;
    json_t *(*fn)(struct asked *a, struct error *e);
} methods[] = {
    {"Attach", do_attach},
    {"Slots", do_slots},
    {"AuditKeys", do_audit_keys},
    {"Random", do_random},
    {"Login", do_login},
    {"Logout", do_logout},
    {"EndSession", do_end_session},
    {"Mint", do_mint},
    {"Renew", do_renew},
    {"Revoke", do_revoke},
    {"GetLease", do_get_lease},
    {"ListLeases", do_list},
    {"ReadKey", do_read_key},
    {"LabelLease", do_label},
    {"SetRole", do_set_role},
    {"ListRoles", do_list_roles},
    {"DeleteRole", do_delete_role},
    {"SetPolicy", do_set_policy},
    {"ListPolicies", do_list_policies},
    {"DeletePolicy", do_delete_policy},
    {"SetConfig", do_set_config},
    {"GetConfig", do_get_config},
    {"RotateConfig", do_rotate_config},
    {"DeleteConfig", do_delete_config},
};

/* ---- the server ---- */

static json_t *run(const char *method, struct asked *a, struct error *e)
{
    json_int_t n = json_integer_value(json_object_get(calls, method));
    json_object_set_new(calls, method, json_integer(n + 1));
    json_object_set(last, method, a->p);
    json_t *fault = json_object_get(faults, method);
    if (fault) {
        enum code code = (enum code)json_integer_value(fault);
        json_object_del(faults, method);
        error_set(e, code, "%s fails as told", method);
        return NULL;
    }
    for (size_t i = 0; i < sizeof(methods) / sizeof(methods[0]); i++) {
        if (strcmp(methods[i].name, method) == 0)
            return methods[i].fn(a, e);
    }
    error_set(e, ERR_PROTOCOL, "no method %s", method);
    return NULL;
}

static bool serve_one(struct wire *w)
{
    JSON message = NULL;
    FD fd_in = -1;
    FD fd_out = -1;
    struct error e;
    const char *method;
    json_t *p;
    if (wire_recv(w, &message, &fd_in, -1, &e) ||
        wire_parse_request(message, &method, &p, &e))
        return false;
    check(strncmp(method, "org.hsmint.", 11) == 0, "interface");
    struct asked a = {p ? p : NULL, fd_in, &fd_out};
    JSON none = json_object();
    if (!p)
        a.p = none;
    pthread_mutex_lock(&lock);
    bool hang = hanging;
    json_t *result = hang ? NULL : run(method + 11, &a, &e);
    if (strcmp(lost, method + 11) == 0) {
        lost[0] = '\0';
        hang = true;
    }
    JSON reply = hang     ? NULL
                 : result ? wire_reply(json_deep_copy(result))
                          : wire_error_reply(&e);
    json_decref(result);
    pthread_mutex_unlock(&lock);
    return hang || wire_send(w, reply, fd_out, 1000, &e) == OK;
}

static void *serve(void *arg)
{
    int fd = *(int *)arg;
    CLEANUP(wire_freep) struct wire *w = NULL;
    check(wire_new(&w, dup(fd), NULL) == OK, "wire");
    while (serve_one(w))
        ;
    shutdown(fd, SHUT_RDWR); /* the other descriptor is closed at the end */
    return NULL;
}

static void *accept_all(void *arg)
{
    (void)arg;
    for (;;) {
        int fd = accept(listener, NULL, NULL);
        if (fd < 0)
            return NULL;
        check(n_threads < CONNECTIONS_MAX, "too many connections");
        sockets[n_threads] = fd;
        check(pthread_create(&threads[n_threads], NULL, serve,
                             &sockets[n_threads]) == 0,
              "thread");
        n_threads++;
    }
}

void fake_start(void)
{
    snprintf(directory, sizeof(directory), "/tmp/hsmint-test-XXXXXX");
    check(mkdtemp(directory) != NULL, "mkdtemp");
    snprintf(path, sizeof(path), "%s/socket", directory);
    calls = json_object();
    last = json_object();
    roles = json_object();
    policies = json_object();
    faults = json_object();
    leases = json_array();
    journal = json_object();
    config = NULL;
    hanging = second_slot = is_protected = false;
    sealed[0] = lost[0] = pin_state[0] = login[0] = '\0';
    fake_come_back();
}

void fake_come_back(void)
{
    n_threads = 0;
    check(wire_listen(path, 0600, &listener, NULL) == OK, "listen");
    check(pthread_create(&acceptor, NULL, accept_all, NULL) == 0, "thread");
}

void fake_go_away(void)
{
    shutdown(listener, SHUT_RDWR);
    pthread_join(acceptor, NULL);
    close(listener);
    for (int i = 0; i < n_threads; i++) {
        shutdown(sockets[i], SHUT_RDWR);
        pthread_join(threads[i], NULL);
        close(sockets[i]);
    }
    unlink(path);
    login[0] = '\0'; /* a new one knows nobody */
}

void fake_stop(void)
{
    fake_go_away();
    rmdir(directory);
    json_decref(calls);
    json_decref(last);
    json_decref(roles);
    json_decref(policies);
    json_decref(faults);
    json_decref(leases);
    json_decref(journal);
    json_decref(config);
}

const char *fake_socket(void)
{
    return path;
}

int fake_calls(const char *method)
{
    json_int_t n = 0;
    const char *name;
    json_t *v;
    pthread_mutex_lock(&lock);
    json_object_foreach(calls, name, v)
    {
        if (!method || strcmp(method, name) == 0)
            n += json_integer_value(v);
    }
    pthread_mutex_unlock(&lock);
    return (int)n;
}

void fake_forget_calls(void)
{
    pthread_mutex_lock(&lock);
    json_object_clear(calls);
    pthread_mutex_unlock(&lock);
}

void fake_fail(const char *method, enum code code)
{
    pthread_mutex_lock(&lock);
    json_object_set_new(faults, method, json_integer(code));
    pthread_mutex_unlock(&lock);
}

void fake_lose(const char *method)
{
    pthread_mutex_lock(&lock);
    snprintf(lost, sizeof(lost), "%s", method);
    pthread_mutex_unlock(&lock);
}

void fake_hang(bool hang)
{
    pthread_mutex_lock(&lock);
    hanging = hang;
    pthread_mutex_unlock(&lock);
}

int fake_live(void)
{
    int n = 0;
    size_t i;
    json_t *l;
    pthread_mutex_lock(&lock);
    json_array_foreach(leases, i, l) n += is_active(l);
    pthread_mutex_unlock(&lock);
    return n;
}

void fake_second_slot(bool there)
{
    pthread_mutex_lock(&lock);
    second_slot = there;
    pthread_mutex_unlock(&lock);
}

void fake_protected(bool is)
{
    pthread_mutex_lock(&lock);
    is_protected = is;
    pthread_mutex_unlock(&lock);
}

void fake_pin(const char *state)
{
    pthread_mutex_lock(&lock);
    snprintf(pin_state, sizeof(pin_state), "%s", state);
    pthread_mutex_unlock(&lock);
}

const char *fake_login(void)
{
    static char text[sizeof(login)];
    pthread_mutex_lock(&lock);
    memcpy(text, login, sizeof(text));
    pthread_mutex_unlock(&lock);
    return text;
}

const char *fake_last(const char *method)
{
    pthread_mutex_lock(&lock);
    FREE char *text = json_dumps(json_object_get(last, method),
                                 JSON_COMPACT | JSON_SORT_KEYS);
    snprintf(last_text, sizeof(last_text), "%s", text ? text : "");
    pthread_mutex_unlock(&lock);
    return last_text;
}

const char *fake_sealed(void)
{
    return sealed;
}
