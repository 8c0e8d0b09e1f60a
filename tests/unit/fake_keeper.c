/* fake_keeper - see fake_keeper.h. */
#include "config.h"

#include "tests/unit/fake_keeper.h"

#include "common/clock.h"
#include "common/file.h"
#include "common/secret.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define CREATED 1800000000

struct server {
    struct fake *fake;
    int sock;
};

/* ---- the service ---- */

static struct fake_account *find(struct fake *f, const char *id)
{
    for (int i = 0; i < FAKE_ACCOUNTS; i++) {
        if (*f->accounts[i].id && strcmp(f->accounts[i].id, id) == 0)
            return &f->accounts[i];
    }
    return NULL;
}

static struct fake_account *add(struct fake *f, const char *name)
{
    for (int i = 0; i < FAKE_ACCOUNTS; i++) {
        struct fake_account *a = &f->accounts[i];

        if (*a->id)
            continue;
        f->made++;
        snprintf(a->id, sizeof(a->id), "svc_acct_%d", ++f->next_id);
        snprintf(a->name, sizeof(a->name), "%s", name);
        snprintf(a->key, sizeof(a->key), "sk-svcacct-%032d", f->next_id);
        return a;
    }
    abort();
}

static json_t *create(struct fake *f, json_t *body, long *status)
{
    json_t *expires = json_object_get(body, "expires_in_seconds");
    struct fake_account *a;
    json_t *when = json_null();

    f->expires_s = json_integer_value(expires);
    f->created_s = clock_wall_ms() / 1000;
    if (expires && f->refuses_expiry) {
        *status = 400;
        return json_pack("{s{ss ss}}", "error", "message",
                         "Unknown parameter: 'expires_in_seconds'.", "type",
                         "invalid_request_error");
    }
    if (f->demands_expiry) {
        *status = 400;
        return json_pack("{s{ss ss}}", "error", "message",
                         expires ? "'expires_in_seconds' is too long"
                                 : "An expiry is required",
                         "type", "invalid_request_error");
    }
    if (expires && !f->ignores_expiry)
        when = json_integer(CREATED + f->expires_s);
    a = add(f, json_string_value(json_object_get(body, "name")));
    return json_pack("{ss ss ss si s{ss ss si ss so}}", "id", a->id, "name",
                     a->name, "role", "member", "created_at", CREATED,
                     "api_key", "value", a->key, "name", "Secret Key",
                     "created_at", CREATED, "id", "key_1", "expires_at", when);
}

static json_t *list_accounts(struct fake *f)
{
    json_t *data = json_array();

    for (int i = 0; i < FAKE_ACCOUNTS; i++) {
        if (*f->accounts[i].id)
            json_array_append_new(
                data, json_pack("{ss ss ss si}", "id", f->accounts[i].id,
                                "name", f->accounts[i].name, "role", "member",
                                "created_at", CREATED));
    }
    return json_pack("{ss so sb}", "object", "list", "data", data, "has_more",
                     0);
}

static json_t *list_admin_keys(const struct fake *f)
{
    return json_pack("{ss s[{ss ss ss si s{ss ss ss}}] sb}", "object", "list",
                     "data", "id", "key_admin", "name", "initial",
                     "redacted_value", "sk-admin...xyz", "created_at", CREATED,
                     "owner", "type", f->person ? "user" : "service_account",
                     "name", "John", "role", "owner", "has_more", 0);
}

static json_t *delete_account(struct fake *f, const char *path, long *status)
{
    struct fake_account *a = find(f, strrchr(path, '/') + 1);

    if (!a) {
        *status = 404;
        return json_pack("{s{ss}}", "error", "message", "No such account");
    }
    f->deleted++;
    json_t *j = json_pack("{ss sb}", "id", a->id, "deleted", 1);
    *a = (struct fake_account){.id = ""};
    return j;
}

static json_t *update_key(struct fake *f, json_t *body)
{
    /* The service's clock began with CREATED. */
    int64_t expires =
        CREATED + clock_wall_ms() / 1000 - f->created_s +
        json_integer_value(json_object_get(body, "expires_in_seconds"));

    return json_pack("{ss ss si so}", "id", "key_1", "name", "Secret Key",
                     "created_at", CREATED, "expires_at",
                     f->ignores_expiry ? json_null()
                                       : json_integer(expires));
}

static json_t *serve(struct fake *f, const struct fake_call *c, long *status)
{
    json_t *body = c->body ? json_loads(c->body, 0, NULL) : NULL;
    bool get = strcmp(c->method, "GET") == 0;
    json_t *j;

    if (strstr(c->path, "/admin_api_keys"))
        j = list_admin_keys(f);
    else if (strstr(c->path, "/api_keys/"))
        j = update_key(f, body);
    else if (strcmp(c->method, "DELETE") == 0)
        j = delete_account(f, c->path, status);
    else if (strstr(c->path, "/service_accounts"))
        j = get ? list_accounts(f) : create(f, body, status);
    else
        j = json_pack("{ss ss ss}", "id", "proj_abc", "name", "My Project",
                      "status", f->project_archived ? "archived" : "active");
    json_decref(body);
    return j;
}

/* ---- the keeper's verbs ---- */

static enum code sign(struct fake *f, const struct frame *in, struct frame *out,
                      struct error *e)
{
    int i = f->n_calls++ % FAKE_CALLS;
    struct fake_call *c = &f->calls[i];
    char id[16];

    if (!f->logged_in)
        return error_set(e, ERR_LOCKED, "not logged in");
    free(c->body);
    c->body = in->body ? strndup((const char *)in->body, in->body_len) : NULL;
    snprintf(c->method, sizeof(c->method), "%s",
             json_string_value(json_object_get(in->head, "method")));
    snprintf(c->path, sizeof(c->path), "%s",
             json_string_value(json_object_get(in->head, "path")));
    snprintf(id, sizeof(id), "%d", i);
    out->head = json_pack("{ss ss ss ss ss ss sI ss}", "call", id, "target_uri",
                          c->path, "signature", "sig1=:AA==:", "keyid", "test",
                          "content_digest", "sha-256=:AA==:", "signature_input",
                          "sig1=()", "created", (json_int_t)CREATED, "nonce",
                          id);
    return OK;
}

static void answer(struct frame *out, long status, const char *body)
{
    out->head =
        json_pack("{si ss si si}", "status", (int)status, "request_id", "req_1",
                  "retry_after_ms", status == 429 ? 700 : 0, "duration_us", 10);
    out->body = (uint8_t *)strdup(body);
    out->body_len = strlen(body);
}

static enum fake_fault next_fault(struct fake *f, const struct fake_call *c)
{
    if (f->faults == 0 || (f->method && strcmp(f->method, c->method) != 0))
        return FAKE_NONE;
    f->faults--;
    return f->fault;
}

static void run_hook(struct fake *f)
{
    void (*hook)(void *) = f->hook;

    if (!hook)
        return;
    pthread_mutex_unlock(&f->lock);
    hook(f->hook_ctx);
    pthread_mutex_lock(&f->lock);
}

/* A hash that is none: 64 digits that differ with the texts. */
static json_t *hash_text(const char *a, const char *b, size_t b_len)
{
    uint64_t h = 14695981039346656037u;
    char hmac[65];

    for (const char *s = a; *s; s++)
        h = (h ^ (uint8_t)*s) * 1099511628211u;
    for (size_t i = 0; i < b_len; i++)
        h = (h ^ (uint8_t)b[i]) * 1099511628211u;
    snprintf(hmac, sizeof(hmac), "%064llx", (unsigned long long)h);
    return json_string(hmac);
}

static void put_value_hmac(const json_t *reply, struct frame *out)
{
    const char *key = json_string_value(
        json_object_get(json_object_get(reply, "api_key"), "value"));

    if (key)
        json_object_set_new(out->head, "value_hmac",
                            hash_text("value", key, strlen(key)));
}

static void with_effect(struct fake *f, const struct fake_call *c,
                        enum fake_fault fault, struct frame *out)
{
    long status = 200;
    json_t *j = serve(f, c, &status);

    if (fault == FAKE_NO_KEY)
        json_object_set_new(j, "api_key", json_null());
    char *text = json_dumps(j, 0);
    answer(out, fault == FAKE_LATE_500 ? 500 : status,
           fault == FAKE_GARBAGE ? "<html>" : text);
    if (fault == FAKE_NONE)
        put_value_hmac(j, out);
    free(text);
    json_decref(j);
}

/* ERR_CODES: no reply at all. */
static const char *said(const json_t *record, const char *name)
{
    const char *s = json_string_value(json_object_get(record, name));

    return s ? s : "";
}

/* The record's line, of this very call: the real one is hsm/callrecord. */
static enum code check_line(const struct fake_call *c, const struct frame *in,
                            struct error *e)
{
    JSON record = NULL;
    enum code code = json_parse((const char *)in->body, in->body_len,
                                "the record", &record, e);

    if (code)
        return error_set(e, ERR_NOT_LOGGED, "execute brought no record");
    if (strcmp(said(record, "kind"), "call") == 0 &&
        strcmp(said(record, "method"), c->method) == 0 &&
        strcmp(said(record, "body"), c->body ? c->body : "") == 0 &&
        strcmp(said(json_object_get(record, "signed"), "target_uri"),
               c->path) == 0)
        return OK;
    return error_set(e, ERR_NOT_LOGGED, "the record is another call's");
}

static enum code execute(struct fake *f, const struct frame *in,
                         struct frame *out, struct error *e)
{
    const char *id = json_string_value(json_object_get(in->head, "call"));
    const struct fake_call *c = &f->calls[atoi(id)];
    enum code code = check_line(c, in, e);
    enum fake_fault fault;

    if (!code)
        code = fake_remember(&f->ledger, e);
    if (code)
        return code;
    fault = next_fault(f, c);
    f->executed++;
    switch (fault) {
    case FAKE_DOWN:
        return error_set(e, ERR_SERVICE_DOWN, "connection refused");
    case FAKE_UNSENT:
        return error_set(e, ERR_SERVICE_UNKNOWN, "the reply was lost");
    case FAKE_STATUS:
        answer(out, f->status, f->body ? f->body : "{}");
        return OK;
    case FAKE_HANGS:
        return ERR_CODES;
    default:
        break;
    }
    with_effect(f, c, fault, out);
    run_hook(f);
    if (fault == FAKE_LOST)
        return error_set(e, ERR_SERVICE_UNKNOWN, "the reply was lost");
    return fault == FAKE_DIES ? ERR_CODES : OK;
}

static enum code hmac(struct fake *f, const struct frame *in, struct frame *out)
{
    const char *purpose =
        json_string_value(json_object_get(in->head, "purpose"));
    json_t *list = json_array();
    char marker[19];

    if (strcmp(purpose, "value") == 0) {
        json_decref(list);
        out->head =
            json_pack("{so}", "hmac", hash_text("value", (const char *)in->body,
                                                in->body_len));
        return OK;
    }
    for (int i = 0; i < 64; i++) {
        int n = f->markers++;

        memset(marker, 'a', 18);
        for (int d = 0; d < 4; d++, n /= 26)
            marker[d] = (char)('a' + n % 26);
        marker[18] = '\0';
        json_array_append_new(list, json_string(marker));
    }
    out->head = json_pack("{so}", "markers", list);
    return OK;
}

static enum code unwrap(const struct frame *in, struct frame *out,
                        struct error *e)
{
    SECRET s = NULL;
    enum code code = in->body_len > 7
                         ? secret_dup(&s, in->body + 7, in->body_len - 7, e)
                         : ERR_SEAL;

    return code ? code : secret_to_pipe(s, &out->fd, e);
}

static enum code seal_value(const struct frame *in, struct frame *out)
{
    out->body = malloc(in->body_len + 7);
    memcpy(out->body, "sealed:", 7);
    memcpy(out->body + 7, in->body, in->body_len);
    out->body_len = in->body_len + 7;
    return OK;
}

static enum code bind(const struct frame *in, struct frame *out,
                      struct error *e)
{
    const char *want = json_string_value(json_object_get(in->head, "want"));

    if (want && strcmp(want, "key_admin") != 0)
        return error_set(e, ERR_INVALID, "%s is not this key's id", want);
    out->head = json_pack("{ss}", "key_id", "key_admin");
    out->body = (uint8_t *)strdup("blob");
    out->body_len = 4;
    return OK;
}

static enum code log_in(struct fake *f, const struct frame *in,
                        struct frame *out, struct error *e)
{
    if (f->no_hsm)
        return error_set(e, ERR_HSM_ABSENT, "no token");
    if (f->pin_locked)
        return error_set(e, ERR_PIN_LOCKED, "C_Login: CKR_PIN_LOCKED");
    if (f->needs_pin && in->fd < 0)
        return error_set(e, ERR_LOCKED, "no PIN");
    f->logged_in = true;
    if (in->fd >= 0)
        out->fd = fcntl(in->fd, F_DUPFD_CLOEXEC, 0);
    return OK;
}

static json_t *hash_login(const char *name, const char *random)
{
    return json_pack("{ss so}", "name", name, "hmac",
                     hash_text(name, random, strlen(random)));
}

static enum code make_login(struct fake *f, const struct frame *in,
                            struct frame *out, struct error *e)
{
    const char *name = json_string_value(json_object_get(in->head, "name"));
    char text[128], random[16];
    SECRET s = NULL;

    snprintf(random, sizeof(random), "random%d", ++f->logins);
    int len = snprintf(text, sizeof(text), "%s.%s", name, random);
    out->head = hash_login(name, random);
    enum code code = secret_dup(&s, text, (size_t)len, e);
    return code ? code : secret_to_pipe(s, &out->fd, e);
}

static enum code check_login(struct fake *f, const struct frame *in,
                             struct frame *out, struct error *e)
{
    char text[4097] = "";
    ssize_t n = read(in->fd, text, sizeof(text) - 1);
    char *dot = n > 0 ? strrchr(text, '.') : NULL;

    if (!f->logged_in)
        return error_set(e, ERR_LOCKED, "not logged in");
    if (!dot)
        return error_set(e, ERR_PIN_WRONG, "no secret id");
    *dot = '\0';
    out->head = hash_login(text, dot + 1);
    return OK;
}

static enum code dispatch(struct fake *f, const struct frame *in,
                          struct frame *out, struct error *e)
{
    switch (in->verb) {
    case VERB_DESCRIBE:
        while (f->hangs)
            usleep(10000);
        out->head = json_pack("{ss s{sb}}", "state",
                              f->no_hsm      ? "absent"
                              : f->logged_in ? "ready"
                                             : "locked",
                              "pin", "locked", f->pin_locked ? 1 : 0);
        return OK;
    case VERB_LOGIN:
        return log_in(f, in, out, e);
    case VERB_LOGOUT:
        f->logged_in = false;
        return OK;
    case VERB_PROVISION:
        out->head = json_pack("{ss ss s[] s{s[o]}}", "instance",
                              "test-instance", "mechanism", "none", "keys",
                              "pins", "keys", fake_log_pin());
        return OK;
    case VERB_SEAL_KEY:
        out->body = (uint8_t *)strdup("candidate");
        out->body_len = 9;
        return OK;
    case VERB_BIND_KEY:
        return bind(in, out, e);
    case VERB_SIGN_CALL:
        return sign(f, in, out, e);
    case VERB_EXECUTE:
        return execute(f, in, out, e);
    case VERB_LOG_STATE:
        return fake_log_state(&f->ledger, out);
    case VERB_LOG_BEGIN:
        return fake_log_begin(&f->ledger, in, out, e);
    case VERB_LOG_RESUME:
        return fake_log_resume(&f->ledger, in, out, e);
    case VERB_SIGN_CHECKPOINT:
        return fake_sign_checkpoint(&f->ledger, in, out, e);
    case VERB_SEAL_VALUE:
        return seal_value(in, out);
    case VERB_UNWRAP_VALUE:
        return unwrap(in, out, e);
    case VERB_HMAC:
        return hmac(f, in, out);
    case VERB_MAKE_LOGIN:
        return make_login(f, in, out, e);
    case VERB_CHECK_LOGIN:
        return check_login(f, in, out, e);
    default:
        return OK;
    }
}

static void *run(void *arg)
{
    struct server *s = arg;
    bool ends = false;

    while (!ends) {
        FRAME in = FRAME_INIT;
        FRAME out = FRAME_INIT;
        struct error e = {0};

        if (frame_recv(s->sock, &in, -1, NULL) != OK)
            break;
        pthread_mutex_lock(&s->fake->lock);
        enum code code = dispatch(s->fake, &in, &out, &e);
        bool hangs = code == ERR_CODES && s->fake->fault == FAKE_HANGS;
        pthread_mutex_unlock(&s->fake->lock);
        if (hangs) /* until the other side gives up */
            ends = frame_recv(s->sock, &in, 120000, NULL) != OK;
        else if (code == ERR_CODES)
            ends = true;
        else if (code)
            ends = frame_send_error(s->sock, &e, 120000) != OK;
        else
            ends = frame_send(s->sock, &out, 120000, NULL) != OK;
    }
    close(s->sock);
    free(s);
    return NULL;
}

enum code fake_start(void *ctx, const int *sockets, int n,
                     struct keeper_process *out, struct error *e)
{
    struct fake *f = ctx;

    (void)out; /* no process: closing the sockets ends it */
    pthread_mutex_lock(&f->lock);
    f->starts++;
    f->logged_in = false;
    for (int i = 0; i < n; i++) {
        struct server *s = malloc(sizeof(*s));

        if (!s || f->n_threads == FAKE_THREADS)
            abort();
        *s = (struct server){f, fcntl(sockets[i], F_DUPFD_CLOEXEC, 0)};
        pthread_create(&f->threads[f->n_threads++], NULL, run, s);
    }
    pthread_mutex_unlock(&f->lock);
    (void)e;
    return OK;
}

void fake_init(struct fake *f)
{
    memset(f, 0, sizeof(*f));
    pthread_mutex_init(&f->lock, NULL);
}

void fake_clear(struct fake *f)
{
    for (int i = 0; i < f->n_threads; i++)
        pthread_join(f->threads[i], NULL);
    for (int i = 0; i < FAKE_CALLS; i++)
        free(f->calls[i].body);
    pthread_mutex_destroy(&f->lock);
}

void fake_set(struct fake *f, enum fake_fault fault, int n, const char *method)
{
    pthread_mutex_lock(&f->lock);
    f->fault = fault;
    f->faults = n;
    f->method = method;
    pthread_mutex_unlock(&f->lock);
}

int fake_alive(struct fake *f)
{
    int n = 0;

    pthread_mutex_lock(&f->lock);
    for (int i = 0; i < FAKE_ACCOUNTS; i++)
        n += *f->accounts[i].id != '\0';
    pthread_mutex_unlock(&f->lock);
    return n;
}

bool fake_has(struct fake *f, const char *account_id)
{
    pthread_mutex_lock(&f->lock);
    bool has = find(f, account_id) != NULL;
    pthread_mutex_unlock(&f->lock);
    return has;
}

void fake_add(struct fake *f, const char *name)
{
    pthread_mutex_lock(&f->lock);
    add(f, name);
    pthread_mutex_unlock(&f->lock);
}
