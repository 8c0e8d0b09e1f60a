/* keeper_fixture - the real hsmint-keeper on a real SoftHSM token and a real
 * TLS server, spoken to as the daemon does. */
#ifndef HSMINT_TESTS_KEEPER_FIXTURE_H
#define HSMINT_TESTS_KEEPER_FIXTURE_H

#include <setjmp.h>
#include <stdatomic.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "common/file.h"
#include "common/frame.h"
#include "common/secret.h"
#include "tests/unit/httpd.h"
#include "tests/unit/softhsm.h"

#include <fcntl.h>
#include <sys/wait.h>

#define CHANNELS 4
#define ADMIN_KEY                                                              \
    "sk-admin-T3stAdm1nKey0fTheKeeperTest-0123456789abcdefghijklmXYZ"
#define REDACTED "sk-admin-*...XYZ"
#define PROJECTS "/organization/projects"
#define ACCOUNTS PROJECTS "/p/service_accounts"
#define ADMIN_KEYS "/organization/admin_api_keys"

struct fixture {
    struct softhsm token;
    struct httpd server;
    char conf[320];
    char endpoint[64];
    pid_t pid;
    int channel[CHANNELS];
    json_t *pins;
    struct error e; /* of the last refusal */
};

/* envp: of the keeper, NULL for an empty one. */
static inline void keeper_spawn(struct fixture *f, char *const envp[])
{
    int ends[CHANNELS];
    char path[512];
    char *none[] = {NULL};
    const char *build = getenv("top_builddir");
    snprintf(path, sizeof path, "%s/hsmint-keeper", build ? build : ".");
    for (int i = 0; i < CHANNELS; i++) {
        int pair[2];
        assert_int_equal(
            socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair), 0);
        f->channel[i] = pair[0];
        /* Well above the places where they go. */
        ends[i] = fcntl(pair[1], F_DUPFD_CLOEXEC, 100);
        close(pair[1]);
    }
    fflush(NULL);
    f->pid = fork();
    if (f->pid == 0) {
        for (int i = 0; i < CHANNELS; i++)
            dup2(ends[i], 3 + i);
        char *argv[] = {path,          (char[]){"--config"},
                        f->conf,       (char[]){"--channels"},
                        (char[]){"4"}, NULL};
        execve(path, argv, envp ? envp : none);
        _exit(127);
    }
    assert_true(f->pid > 0);
    for (int i = 0; i < CHANNELS; i++)
        close(ends[i]);
}

/* Its channels end, so it does. */
static inline void keeper_end(struct fixture *f)
{
    int status = -1;
    for (int i = 0; i < CHANNELS; i++)
        close(f->channel[i]);
    for (int i = 0; i < 30000 && waitpid(f->pid, &status, WNOHANG) == 0; i++)
        usleep(1000);
    if (status == -1) {
        kill(f->pid, SIGKILL);
        waitpid(f->pid, NULL, 0);
        fail_msg("the keeper did not end with its channels");
    }
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
}

static inline int keeper_setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    assert_non_null(f);
    assert_true(softhsm_make(&f->token, "keeper-test"));
    httpd_start(&f->server, true);
    snprintf(f->conf, sizeof f->conf, "%s/hsmint.conf", f->token.dir);
    snprintf(f->endpoint, sizeof f->endpoint, "https://127.0.0.1:%d/v1",
             f->server.port);
    FILE *c = fopen(f->conf, "w");
    assert_non_null(c);
    fprintf(c,
            "[daemon]\nlog = stderr\nlog_level = error\n"
            "[hsm]\nmodule = %s\nuri = pkcs11:token=keeper-test\n"
            "sessions = 4\nkeeper_state_dir = %s/keeper\n"
            "[hsm.env]\nSOFTHSM2_CONF = %s\n"
            "[service]\nhosts = 127.0.0.1\nca_file = %s\nconnect_timeout = 60s\n"
            "call_timeout = 60s\n",
            softhsm_module(), f->token.dir, f->token.conf,
            f->server.ca_file);
    assert_int_equal(fclose(c), 0);
    assert_int_equal(chmod(f->conf, 0600), 0);
    keeper_spawn(f, NULL);
    *state = f;
    return 0;
}

static inline int keeper_teardown(void **state)
{
    struct fixture *f = *state;
    keeper_end(f);
    httpd_stop(&f->server);
    softhsm_remove(&f->token);
    json_decref(f->pins);
    free(f);
    return 0;
}

/* head is stolen; the descriptor stays the caller's. */
static inline enum code ask_on(struct fixture *f, int channel, enum verb verb,
                               json_t *head, const void *body, size_t len,
                               int fd, struct frame *reply)
{
    struct frame q = {.verb = verb,
                      .head = head,
                      .body = (uint8_t *)(uintptr_t)body,
                      .body_len = len,
                      .fd = fd};
    frame_clear(reply);
    error_clear(&f->e);
    enum code rc = frame_send(f->channel[channel], &q, 60000, &f->e);
    json_decref(head);
    if (rc == OK)
        rc = frame_recv(f->channel[channel], reply, 120000, &f->e);
    return rc ? rc : frame_result(reply, &f->e);
}

static inline enum code ask(struct fixture *f, enum verb verb, json_t *head,
                            const struct frame *body, struct frame *reply)
{
    return ask_on(f, 0, verb, head, body ? body->body : NULL,
                  body ? body->body_len : 0, -1, reply);
}

static inline enum code ask_secret(struct fixture *f, enum verb verb,
                                   json_t *head, const char *text,
                                   struct frame *reply)
{
    SECRET s = NULL;
    FD fd = -1;
    assert_int_equal(secret_dup(&s, text, strlen(text), NULL), OK);
    assert_int_equal(secret_to_pipe(s, &fd, NULL), OK);
    return ask_on(f, 0, verb, head, NULL, 0, fd, reply);
}

#define expect_on(fixture, want, call)                                         \
    do {                                                                       \
        enum code got_ = (call);                                               \
        if (got_ != (want))                                                    \
            fail_msg("%s: %d instead of %d: %s", #call, (int)got_,             \
                     (int)(want), (fixture)->e.text);                          \
    } while (0)
#define expect(want, call) expect_on(f, want, call)

static inline const char *member(const struct frame *reply, const char *name)
{
    const char *s = json_string_value(json_object_get(reply->head, name));
    return s ? s : "(none)";
}

static inline json_int_t number(const struct frame *reply, const char *name)
{
    return json_integer_value(json_object_get(reply->head, name));
}

static inline enum code login(struct fixture *f, const char *pin,
                              struct frame *reply)
{
    return ask_secret(f, VERB_LOGIN, json_pack("{s:s}", "source", "descriptor"),
                      pin, reply);
}

static inline void keys_ready(struct fixture *f)
{
    FRAME r = FRAME_INIT;
    expect(OK, login(f, SOFTHSM_PIN, &r));
    expect(OK,
           ask(f, VERB_PROVISION,
               f->pins ? json_pack("{s:b, s:O}", "create", 0, "pins", f->pins)
                       : json_pack("{s:b}", "create", 1),
               NULL, &r));
    if (!f->pins)
        f->pins = json_incref(json_object_get(r.head, "pins"));
}

/* The first time, the log begins, too. */
static inline void provision(struct fixture *f)
{
    FRAME r = FRAME_INIT;
    bool first = !f->pins;
    keys_ready(f);
    if (first)
        expect(OK, ask(f, VERB_LOG_BEGIN,
                       json_pack("{s:s, s:i}", "origin", "keeper.test", "size",
                                 0),
                       NULL, &r));
}

static inline json_t *one_candidate(const char *redacted, const char *want)
{
    return json_pack("{s:s, s:[{s:s, s:s}], s:s?}", "org", "main", "candidates",
                     "id", "key_1", "redacted", redacted, "want", want);
}

/* From nothing to an admin key in use. */
static inline void ready_with_key(struct fixture *f)
{
    FRAME candidate = FRAME_INIT;
    FRAME bound = FRAME_INIT;
    FRAME r = FRAME_INIT;
    provision(f);
    expect(OK,
           ask_secret(f, VERB_SEAL_KEY,
                      json_pack("{s:s, s:s, s:s}", "org", "main", "endpoint",
                                f->endpoint, "organization_id", "org-77"),
                      ADMIN_KEY "\n", &candidate));
    expect(OK, ask(f, VERB_BIND_KEY, one_candidate(REDACTED, NULL), &candidate,
                   &bound));
    assert_string_equal(member(&bound, "key_id"), "key_1");
    expect(OK, ask(f, VERB_USE_KEY,
                   json_pack("{s:s, s:b}", "org", "main", "publish", 1), &bound,
                   &r));
}

/* Method and body go with the reply, for the record. */
static inline enum code sign_on(struct fixture *f, int channel,
                                const char *method, const char *path,
                                const char *body, struct frame *reply)
{
    enum code rc =
        ask_on(f, channel, VERB_SIGN_CALL,
               json_pack("{s:s, s:b, s:s, s:s}", "org", "main", "candidate", 0,
                         "method", method, "path", path),
               body, body ? strlen(body) : 0, -1, reply);
    if (rc == OK) {
        json_object_set_new(reply->head, "method", json_string(method));
        json_object_set_new(reply->head, "body", json_string(body));
    }
    return rc;
}

/* The record of a signed call, as the daemon writes it; caller frees. */
static inline char *record_of(const struct frame *call)
{
    static atomic_int seq; /* of all threads */
    static const char *const others[] = {"call", "method", "body"};
    json_t *parts = json_copy(call->head);
    json_t *body = json_object_get(call->head, "body");
    json_t *method = json_object_get(call->head, "method");
    json_t *record =
        json_pack("{s:i, s:i, s:s, s:s, s:s, s:{s:s}, s:s}", "v", 2, "seq",
                  atomic_fetch_add(&seq, 1) + 1, "prev", "", "time", "2026-11-21T00:00:00.000Z", "kind",
                  "call", "actor", "owner", "hsmintd", "method",
                  method ? json_string_value(method) : "GET");
    for (size_t i = 0; i < sizeof others / sizeof others[0]; i++)
        json_object_del(parts, others[i]);
    json_object_set_new(record, "signed", parts);
    if (body)
        json_object_set(record, "body", body);
    char *line = json_dumps(record, JSON_COMPACT);
    assert_non_null(line);
    json_decref(record);
    return line;
}

static inline enum code execute_line(struct fixture *f, int channel,
                                     const struct frame *call, const char *line,
                                     struct frame *reply)
{
    return ask_on(f, channel, VERB_EXECUTE,
                  json_pack("{s:s}", "call", member(call, "call")), line,
                  strlen(line), -1, reply);
}

static inline enum code execute_on(struct fixture *f, int channel,
                                   const struct frame *call,
                                   struct frame *reply)
{
    FREE char *line = record_of(call);
    return execute_line(f, channel, call, line, reply);
}

/* Sign and execute. */
static inline enum code call_on(struct fixture *f, int channel,
                                const char *method, const char *path,
                                const char *body, struct frame *reply)
{
    FRAME call = FRAME_INIT;
    enum code rc = sign_on(f, channel, method, path, body, &call);
    return rc ? rc : execute_on(f, channel, &call, reply);
}

#endif
