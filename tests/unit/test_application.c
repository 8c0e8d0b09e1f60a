/* Applications: tokens, ends, and the grace after a restart; with the real
 * store and real processes, and a double of core that counts what was ended.
 */
#include "config.h"

#include "common/file.h"
#include "common/text.h"
#include "tools/application.h"

#include <errno.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define OWNER "user:1000"

static struct {
    int calls;
    char application[WIRE_TOKEN_HEX + 1];
    int64_t session;
} ended;

void core_end_session(struct core *c, const char *application, int64_t session)
{
    (void)c;
    ended.calls++;
    snprintf(ended.application, sizeof ended.application, "%s", application);
    ended.session = session;
}

/* core's side of it is test_logins. */
static struct {
    enum code rc;
    struct core_login login;
    char hash[WIRE_TOKEN_HEX + 1];
    int calls;
} resume;

enum code core_login_resume(struct core *c, const struct caller *by,
                            struct core_login *out, struct error *e)
{
    (void)c;
    resume.calls++;
    assert_non_null(by->id);
    snprintf(resume.hash, sizeof resume.hash, "%s", by->application);
    if (resume.rc)
        return error_set(e, resume.rc, "as told");
    *out = resume.login;
    return OK;
}

struct fixture {
    char dir[64];
    int epoll;
    struct store *store;
    struct applications *table;
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof *f);
    struct error e = {.code = OK};
    strcpy(f->dir, "/tmp/hsmint-application-XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    f->epoll = epoll_create1(EPOLL_CLOEXEC);
    struct store_options o = {.dir = f->dir};
    assert_int_equal(store_open(&f->store, &o, &e), OK);
    assert_int_equal(applications_new(&f->table, NULL, f->store, f->epoll, &e),
                     OK);
    memset(&ended, 0, sizeof ended);
    memset(&resume, 0, sizeof resume);
    resume.rc = ERR_NOT_FOUND;
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;
    char command[128];
    applications_free(f->table);
    store_close(f->store);
    close(f->epoll);
    snprintf(command, sizeof command, "rm -r '%s'", f->dir);
    assert_int_equal(system(command), 0);
    free(f);
    return 0;
}

static enum code attach(struct fixture *f, uid_t uid, const char *token,
                        char *made, struct application **out)
{
    struct wire_peer peer = {.uid = uid, .pid = getpid(), .pidfd = -1};
    struct error e = {.code = OK};
    const struct identity id = {.uid = uid};
    return application_attach(f->table, &peer, &id, "test\n", token, made, out,
                              &e);
}

static void joins_by_token(void **state)
{
    struct fixture *f = *state;
    char token[WIRE_TOKEN_HEX + 1], other[WIRE_TOKEN_HEX + 1];
    struct application *a, *b, *c;
    assert_int_equal(attach(f, 1000, NULL, token, &a), OK);
    assert_int_equal(strlen(token), WIRE_TOKEN_HEX);
    assert_string_not_equal(a->hash, token);
    assert_string_equal(a->program, "test\\x0a");
    assert_int_equal(attach(f, 1000, NULL, other, &b), OK);
    assert_ptr_not_equal(a, b);
    assert_string_not_equal(token, other);
    assert_int_equal(attach(f, 1000, token, NULL, &c), OK);
    assert_ptr_equal(a, c);
    assert_int_equal(applications_count(f->table), 2);
    application_detach(f->table, b);
    application_detach(f->table, a);
    application_detach(f->table, c);
}

static void token_is_bound_to_uid(void **state)
{
    struct fixture *f = *state;
    char token[WIRE_TOKEN_HEX + 1];
    struct application *a, *b;
    assert_int_equal(attach(f, 1000, NULL, token, &a), OK);
    assert_int_equal(attach(f, 1001, token, NULL, &b), ERR_NOT_FOUND);
    application_detach(f->table, a);
}

static void bad_tokens_are_refused(void **state)
{
    struct fixture *f = *state;
    struct application *a;
    char unknown[WIRE_TOKEN_HEX + 1];
    memset(unknown, 'a', WIRE_TOKEN_HEX);
    unknown[WIRE_TOKEN_HEX] = '\0';
    assert_int_equal(attach(f, 1000, unknown, NULL, &a), ERR_NOT_FOUND);
    assert_int_equal(attach(f, 1000, "", NULL, &a), ERR_INVALID);
    assert_int_equal(attach(f, 1000, "abcd", NULL, &a), ERR_INVALID);
    unknown[3] = 'x';
    assert_int_equal(attach(f, 1000, unknown, NULL, &a), ERR_INVALID);
}

static void last_connection_ends_it(void **state)
{
    struct fixture *f = *state;
    char token[WIRE_TOKEN_HEX + 1], hash[WIRE_TOKEN_HEX + 1];
    struct application *a, *b;
    assert_int_equal(attach(f, 1000, NULL, token, &a), OK);
    assert_int_equal(attach(f, 1000, token, NULL, &b), OK);
    strcpy(hash, a->hash);
    assert_false(application_bound(f->table, a));
    application_bind(f->table, a, true);
    application_bind(f->table, b, true);
    application_bind(f->table, b, false);
    assert_true(application_bound(f->table, a));
    application_detach(f->table, a);
    assert_int_equal(ended.calls, 0);
    application_detach(f->table, b);
    assert_int_equal(ended.calls, 1);
    assert_string_equal(ended.application, hash);
    assert_int_equal(ended.session, 0);
    assert_int_equal(attach(f, 1000, token, NULL, &a), ERR_NOT_FOUND);
}

static void one_without_leases_ends_quietly(void **state)
{
    struct fixture *f = *state;
    char token[WIRE_TOKEN_HEX + 1];
    struct application *a;
    assert_int_equal(attach(f, 1000, NULL, token, &a), OK);
    application_detach(f->table, a);
    assert_int_equal(ended.calls, 0);
    assert_int_equal(attach(f, 1000, token, NULL, &a), ERR_NOT_FOUND);
}

static void there_are_limits(void **state)
{
    struct fixture *f = *state;
    char token[WIRE_TOKEN_HEX + 1], other[WIRE_TOKEN_HEX + 1];
    struct application *a, *b, *c, *d;
    applications_limit(f->table, 2, 1);
    assert_int_equal(attach(f, 1000, NULL, token, &a), OK);
    assert_int_equal(attach(f, 1000, NULL, other, &b), ERR_LIMIT);
    assert_int_equal(attach(f, 1000, token, NULL, &b), OK); /* no new one */
    assert_int_equal(attach(f, 1001, NULL, other, &c), OK);
    assert_int_equal(attach(f, 1002, NULL, other, &d), ERR_LIMIT);
    application_detach(f->table, c);
    assert_int_equal(attach(f, 1002, NULL, other, &d), OK);
    application_detach(f->table, a);
    application_detach(f->table, b);
    application_detach(f->table, d);
}

static void retired_table_ends_nothing(void **state)
{
    struct fixture *f = *state;
    char token[WIRE_TOKEN_HEX + 1];
    struct application *a;
    assert_int_equal(attach(f, 1000, NULL, token, &a), OK);
    application_bind(f->table, a, true);
    applications_retire(f->table);
    application_detach(f->table, a);
    assert_int_equal(ended.calls, 0);
}

static void process_end_ends_it(void **state)
{
    struct fixture *f = *state;
    char token[WIRE_TOKEN_HEX + 1];
    struct application *a, *late;
    struct error e = {.code = OK};
    pid_t pid = fork();
    if (pid == 0)
        for (;;)
            pause();
    struct wire_peer peer = {
        .uid = 1000,
        .pid = pid,
        .pidfd = (int)syscall(SYS_pidfd_open, pid, 0),
    };
    const struct identity id = {.uid = 1000};
    if (peer.pidfd < 0 && errno == ENOSYS) { /* valgrind */
        kill(pid, SIGKILL);
        waitpid(pid, NULL, 0);
        skip();
    }
    assert_int_equal(application_attach(f->table, &peer, &id, "child", NULL,
                                        token, &a, &e),
                     OK);
    application_bind(f->table, a, true);
    assert_int_equal(peer.pidfd, -1);
    struct epoll_event ev;
    assert_int_equal(epoll_wait(f->epoll, &ev, 1, 0), 0);
    kill(pid, SIGKILL);
    assert_int_equal(epoll_wait(f->epoll, &ev, 1, 5000), 1);
    assert_int_equal(ev.data.u64, a->number);
    assert_false(application_dead(f->table, a));
    applications_exited(f->table, ev.data.u64);
    assert_true(application_dead(f->table, a));
    assert_int_equal(ended.calls, 1);
    /* Its connection lives on, in a forked child: nobody joins any more. */
    assert_int_equal(attach(f, 1000, token, NULL, &late), ERR_NOT_FOUND);
    assert_int_equal(epoll_wait(f->epoll, &ev, 1, 0), 0);
    application_detach(f->table, a);
    assert_int_equal(ended.calls, 1);
    waitpid(pid, NULL, 0);
}

/* ---- the grace ---- */

struct left { /* a bound lease of an application from before the restart */
    const char *owner, *hash;
    enum lease_state state;
    bool bound;
};

static enum code insert(struct store_tx *tx, void *ctx, struct error *e)
{
    const struct left *left = ctx;
    char role[] = "r", owner[80], none[] = "", hash[80];
    int64_t org = 0;
    snprintf(hash, sizeof hash, "%s", left->hash);
    snprintf(owner, sizeof owner, "%s", left->owner);
    enum code rc = store_org_add(tx, "default", 1, &org, NULL);
    if (rc && rc != ERR_EXISTS)
        return rc;
    struct store_lease l = {
        .org = 1,
        .role = role,
        .owner = owner,
        .program = none,
        .application = hash,
        .state = left->state,
        .bound = left->bound,
        .issued_ms = 1,
        .expires_ms = 2,
        .max_expires_ms = 3,
        .project = none,
        .account_name = hash,
        .account_id = none,
        .key_id = none,
        .api_base = none,
        .label = none,
        .last_error = none,
        .request_id = none,
        .reason = none,
    };
    rc = text_id(l.id, e);
    l.request_id = l.id;
    l.account_name = l.id;
    return rc ? rc : store_lease_insert(tx, &l, e);
}

static void leave_lease_of(struct fixture *f, const char *owner,
                           const char *hash, enum lease_state lease_state,
                           bool bound)
{
    struct left left = {owner, hash, lease_state, bound};
    struct error e = {.code = OK};
    if (store_commit(f->store, STORE_NORMAL, insert, &left, &e))
        fail_msg("%s", e.text);
}

static void leave_lease(struct fixture *f, const char *hash,
                        enum lease_state lease_state, bool bound)
{
    leave_lease_of(f, OWNER, hash, lease_state, bound);
}

/* A token as an earlier daemon gave it, and its hash. */
static void earlier(struct fixture *f, char *token, char *hash)
{
    struct application *a;
    assert_int_equal(attach(f, 1000, NULL, token, &a), OK);
    strcpy(hash, a->hash);
    application_detach(f->table, a);
    memset(&ended, 0, sizeof ended);
}

static void returns_within_the_grace(void **state)
{
    struct fixture *f = *state;
    char token[WIRE_TOKEN_HEX + 1], hash[WIRE_TOKEN_HEX + 1];
    struct application *a, *b;
    earlier(f, token, hash);
    assert_int_equal(attach(f, 1000, token, NULL, &a), ERR_NOT_FOUND);
    leave_lease(f, hash, LEASE_ACTIVE, true);
    assert_int_equal(attach(f, 1000, token, NULL, &a), OK);
    assert_string_equal(a->hash, hash);
    assert_int_equal(attach(f, 1000, token, NULL, &b), OK);
    assert_ptr_equal(a, b);
    applications_end_grace(f->table);
    assert_int_equal(ended.calls, 0);
    application_detach(f->table, a);
    application_detach(f->table, b);
    assert_int_equal(ended.calls, 1);
}

static void only_living_bound_leases_count(void **state)
{
    struct fixture *f = *state;
    char token[WIRE_TOKEN_HEX + 1], hash[WIRE_TOKEN_HEX + 1];
    struct application *a;
    earlier(f, token, hash);
    leave_lease(f, hash, LEASE_REVOKING, true);
    leave_lease(f, "", LEASE_ACTIVE, false);
    assert_int_equal(attach(f, 1000, token, NULL, &a), ERR_NOT_FOUND);
    applications_end_grace(f->table);
    assert_int_equal(ended.calls, 0);
}

static void who_stays_away_is_ended(void **state)
{
    struct fixture *f = *state;
    char token[WIRE_TOKEN_HEX + 1], hash[WIRE_TOKEN_HEX + 1];
    struct application *a;
    earlier(f, token, hash);
    leave_lease(f, hash, LEASE_ACTIVE, true);
    leave_lease(f, hash, LEASE_ACTIVE, true);
    applications_end_grace(f->table);
    assert_int_equal(ended.calls, 1);
    assert_string_equal(ended.application, hash);
    assert_int_equal(ended.session, 0);
    /* Too late, although the double left the lease alive. */
    assert_int_equal(attach(f, 1000, token, NULL, &a), ERR_NOT_FOUND);
}

/* Its grace may end while it waits for calls under way, when all that were
 * attached are cut off already. */
static void a_leaving_daemon_ends_nobody(void **state)
{
    struct fixture *f = *state;
    char token[WIRE_TOKEN_HEX + 1];
    struct application *a;
    assert_int_equal(attach(f, 1000, NULL, token, &a), OK);
    application_bind(f->table, a, true);
    leave_lease(f, a->hash, LEASE_ACTIVE, true);
    applications_retire(f->table);
    application_detach(f->table, a);
    applications_end_grace(f->table);
    assert_int_equal(ended.calls, 0);
}

static enum code attach_as(struct fixture *f, const struct identity *id,
                           const char *token, char *made,
                           struct application **out)
{
    struct wire_peer peer = {.uid = id->uid, .pid = getpid(), .pidfd = -1};
    return application_attach(f->table, &peer, id, "test", token, made, out,
                              NULL);
}

/* Of one uid, but in a container, or of another unit. */
static void token_is_bound_to_the_whole_identity(void **state)
{
    struct fixture *f = *state;
    char token[WIRE_TOKEN_HEX + 1], pay[] = "pay.service", pal[] = "x.service";
    struct identity id = {.uid = 1000, .unit = pay};
    struct application *a, *b;
    assert_int_equal(attach_as(f, &id, NULL, token, &a), OK);
    id.unit = pal;
    assert_int_equal(attach_as(f, &id, token, NULL, &b), ERR_NOT_FOUND);
    id.unit = pay;
    id.borrowed = true;
    assert_int_equal(attach_as(f, &id, token, NULL, &b), ERR_NOT_FOUND);
    id.borrowed = false;
    assert_int_equal(attach_as(f, &id, token, NULL, &b), OK);
    assert_ptr_equal(a, b);
    application_detach(f->table, a);
    application_detach(f->table, b);
}

static void login_is_the_applications(void **state)
{
    struct fixture *f = *state;
    char token[WIRE_TOKEN_HEX + 1];
    struct application *a, *b;
    struct core_login batch = {"batch", "accessor", 0}, got;
    assert_int_equal(attach(f, 1000, NULL, token, &a), OK);
    application_login(f->table, a, &got);
    assert_string_equal(got.name, "");
    application_set_login(f->table, a, &batch);
    assert_int_equal(attach(f, 1000, token, NULL, &b), OK);
    application_login(f->table, b, &got);
    assert_string_equal(got.name, "batch");
    assert_string_equal(got.accessor, "accessor");
    /* Nobody else gets at it by the token. */
    struct application *c = NULL;
    assert_int_equal(attach(f, 1001, token, NULL, &c), ERR_NOT_FOUND);
    assert_null(c);
    struct core_login none = {"", "", 2}, late = {"late", "accessor", 1};
    application_set_login(f->table, b, &none);
    application_login(f->table, a, &got);
    assert_string_equal(got.name, "");
    /* Two connections at once: what is on disk last is what it has. */
    application_set_login(f->table, b, &late);
    application_login(f->table, a, &got);
    assert_string_equal(got.name, "");
    application_detach(f->table, a);
    application_detach(f->table, b);
    assert_int_equal(ended.calls, 0);
}

static void a_login_ends_with_its_application(void **state)
{
    struct fixture *f = *state;
    char token[WIRE_TOKEN_HEX + 1], hash[WIRE_TOKEN_HEX + 1];
    struct application *a;
    struct core_login batch = {"batch", "accessor", 1};
    assert_int_equal(attach(f, 1000, NULL, token, &a), OK);
    strcpy(hash, a->hash);
    application_set_login(f->table, a, &batch);
    application_detach(f->table, a);
    assert_int_equal(ended.calls, 1);
    assert_string_equal(ended.application, hash);
    /* Its process ended while the login was on its way to the disk. */
    assert_int_equal(attach(f, 1000, NULL, token, &a), OK);
    applications_exited(f->table, a->number);
    assert_int_equal(ended.calls, 1);
    application_set_login(f->table, a, &batch);
    assert_int_equal(ended.calls, 2);
    application_detach(f->table, a);
}

/* A container's root, whose leases are its unit's whatever uid it takes. */
static void a_unit_returns_within_the_grace(void **state)
{
    struct fixture *f = *state;
    char token[WIRE_TOKEN_HEX + 1], hash[WIRE_TOKEN_HEX + 1];
    char unit[] = "web.service";
    struct identity id = {.uid = 1000, .borrowed = true, .unit = unit};
    struct application *a = NULL;
    earlier(f, token, hash);
    leave_lease_of(f, "unit:web.service", hash, LEASE_ACTIVE, true);
    assert_int_equal(attach(f, 1000, token, NULL, &a), ERR_NOT_FOUND);
    assert_int_equal(attach_as(f, &id, token, NULL, &a), OK);
    application_detach(f->table, a);
}

static enum code put_held(struct store_tx *tx, void *ctx, struct error *e)
{
    return store_document_put(tx, HELD_KIND, ctx, "{}", 1, e);
}

/* Two connections of it at once, without any lease. */
static void a_login_outlives_the_daemon(void **state)
{
    struct fixture *f = *state;
    char token[WIRE_TOKEN_HEX + 1], hash[WIRE_TOKEN_HEX + 1];
    struct application *a, *b;
    struct core_login got;
    struct error e = {.code = OK};
    earlier(f, token, hash);
    assert_int_equal(store_commit(f->store, STORE_NORMAL, put_held, hash, &e),
                     OK);
    resume.rc = OK;
    resume.login = (struct core_login){"batch", "accessor", 0};
    assert_int_equal(attach(f, 1000, token, NULL, &a), OK);
    assert_string_equal(resume.hash, hash);
    application_login(f->table, a, &got);
    assert_string_equal(got.name, "batch");
    assert_string_equal(got.accessor, "accessor");
    assert_int_equal(attach(f, 1000, token, NULL, &b), OK);
    assert_ptr_equal(a, b);
    assert_int_equal(attach(f, 1001, token, NULL, &b), ERR_NOT_FOUND);
    applications_end_grace(f->table);
    assert_int_equal(ended.calls, 0);
    application_detach(f->table, a);
    assert_int_equal(ended.calls, 0);
    application_detach(f->table, a);
    assert_int_equal(ended.calls, 1);
    /* The grace is over: nobody asks for it any more. */
    resume.calls = 0;
    assert_int_equal(attach(f, 1000, token, NULL, &a), ERR_NOT_FOUND);
    assert_int_equal(resume.calls, 0);
}

static void a_login_that_is_not_fetched_ends(void **state)
{
    struct fixture *f = *state;
    char token[WIRE_TOKEN_HEX + 1], hash[WIRE_TOKEN_HEX + 1];
    struct error e = {.code = OK};
    earlier(f, token, hash);
    assert_int_equal(store_commit(f->store, STORE_NORMAL, put_held, hash, &e),
                     OK);
    leave_lease_of(f, "login:batch", hash, LEASE_ACTIVE, true);
    applications_end_grace(f->table);
    assert_int_equal(ended.calls, 1); /* once for both */
    assert_string_equal(ended.application, hash);
}

/* The leases of a login do not say whose it was: what is held does. */
static void leases_of_a_login_let_nobody_in(void **state)
{
    struct fixture *f = *state;
    char token[WIRE_TOKEN_HEX + 1], hash[WIRE_TOKEN_HEX + 1];
    struct application *a = NULL;
    earlier(f, token, hash);
    leave_lease_of(f, "login:batch", hash, LEASE_ACTIVE, true);
    assert_int_equal(attach(f, 1000, token, NULL, &a), ERR_NOT_FOUND);
    resume.rc = ERR_DENIED;
    leave_lease(f, hash, LEASE_ACTIVE, true);
    assert_int_equal(attach(f, 1000, token, NULL, &a), ERR_NOT_FOUND);
    assert_null(a);
    /* What cannot be recorded is no login, and no answer either. */
    resume.rc = ERR_DISK_FULL;
    assert_int_equal(attach(f, 1000, token, NULL, &a), ERR_DISK_FULL);
    assert_null(a);
}

static void what_another_uid_left_is_not_taken(void **state)
{
    struct fixture *f = *state;
    char token[WIRE_TOKEN_HEX + 1], hash[WIRE_TOKEN_HEX + 1];
    struct application *a = NULL;
    earlier(f, token, hash);
    leave_lease_of(f, "user:1001", hash, LEASE_ACTIVE, true);
    leave_lease_of(f, "login:batch", hash, LEASE_ACTIVE, true);
    assert_int_equal(attach(f, 1000, token, NULL, &a), ERR_NOT_FOUND);
    assert_null(a);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, setup, teardown)
    const struct CMUnitTest tests[] = {
        T(joins_by_token),
        T(token_is_bound_to_uid),
        T(bad_tokens_are_refused),
        T(last_connection_ends_it),
        T(one_without_leases_ends_quietly),
        T(there_are_limits),
        T(retired_table_ends_nothing),
        T(process_end_ends_it),
        T(returns_within_the_grace),
        T(only_living_bound_leases_count),
        T(who_stays_away_is_ended),
        T(a_leaving_daemon_ends_nobody),
        T(token_is_bound_to_the_whole_identity),
        T(login_is_the_applications),
        T(a_unit_returns_within_the_grace),
        T(a_login_ends_with_its_application),
        T(a_login_outlives_the_daemon),
        T(a_login_that_is_not_fetched_ends),
        T(leases_of_a_login_let_nobody_in),
        T(what_another_uid_left_is_not_taken),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
