/* Named logins: what a secret id is good for, how long, and what wrong ones
 * cost; over a real store, with time that can be moved on. */
#include "config.h"

#include "module/core/held.h"
#include "module/core/logins.h"
#include "module/core/throttle.h"
#include "tests/unit/core_fixture.h"

#define ID "01m7yszjambgrr8qt1jnxc9ft"
#define SECRET_TEXT 128

static const struct identity peer_id = {.uid = 2000, .pid = 7};
static const struct identity other_id = {.uid = 2001, .pid = 8};
static const struct caller peer = {
    .owner = "user:2000", .uid = 2000, .id = &peer_id, .program = "test"};
static const struct caller other = {
    .owner = "user:2001", .uid = 2001, .id = &other_id, .program = "test"};

typedef enum code (*make_fn)(struct core *c, const struct caller *by,
                             const char *name, json_t *fields,
                             const char *request_id, json_t **out,
                             int *secret_fd, struct error *e);

static enum code make_with(struct core_fixture *f, make_fn fn, const char *json,
                           const char *request_id, char text[SECRET_TEXT],
                           json_t **login, struct error *e)
{
    FD fd = -1;
    SECRET s = NULL;
    JSON fields = json_loads(json, 0, NULL);
    JSON out = NULL;
    enum code rc = fn(f->core, &administrator, "batch", fields, request_id,
                      &out, &fd, e);
    if (rc)
        return rc;
    assert_int_equal(secret_from_fd(&s, fd, SECRET_TEXT - 1, 1000, true, NULL),
                     OK);
    memcpy(text, secret_data(s), secret_len(s));
    text[secret_len(s)] = '\0';
    if (login)
        *login = json_incref(out);
    return OK;
}

static void make(struct core_fixture *f, make_fn fn, const char *json,
                 char text[SECRET_TEXT])
{
    char request_id[TEXT_ID_LEN + 1];
    SUCCEEDS(text_id(request_id, e));
    SUCCEEDS(make_with(f, fn, json, request_id, text, NULL, e));
}

static enum code show(struct core_fixture *f, const struct caller *by,
                      const char *text, struct core_login *l, struct error *e)
{
    struct core_login ignored;
    FD fd = pipe_of(text);
    return core_login_prove(f->core, by, NULL, NULL, fd, true, l ? l : &ignored,
                            e);
}

static json_int_t of_secret(struct core_fixture *f, size_t i, const char *name)
{
    JSON l = NULL;
    SUCCEEDS(core_login_get(f->core, "batch", &l, e));
    json_t *s = json_array_get(json_object_get(l, "secrets"), i);
    assert_non_null(s);
    assert_null(json_object_get(s, "hmac"));
    return json_integer_value(json_object_get(s, name));
}

static size_t secrets(struct core_fixture *f)
{
    JSON l = NULL;
    SUCCEEDS(core_login_get(f->core, "batch", &l, e));
    return json_array_size(json_object_get(l, "secrets"));
}

/* ---- records ---- */

struct count {
    const char *wanted;
    int n;
    char last[2048];
};

static enum code count_line(int64_t sequence, const char *line, void *ctx,
                            struct error *e)
{
    struct count *c = ctx;
    (void)sequence, (void)e;
    if (strstr(line, c->wanted)) {
        c->n++;
        snprintf(c->last, sizeof c->last, "%s", line);
    }
    return OK;
}

static struct count lines(struct core_fixture *f, const char *wanted)
{
    struct count c = {.wanted = wanted};
    SUCCEEDS(store_record_each(f->store, 1, 100000, count_line, &c, e));
    return c;
}

static struct count having(struct core_fixture *f, const char *member,
                           const char *value)
{
    char wanted[64];
    snprintf(wanted, sizeof wanted, "\"%s\":\"%s\"", member, value);
    return lines(f, wanted);
}

static struct count logins(struct core_fixture *f)
{
    return lines(f, "\"entrance\":\"secret-id\",\"again\":");
}

static struct count records(struct core_fixture *f, const char *kind)
{
    return having(f, "kind", kind);
}

/* ---- use ---- */

static void a_secret_id_is_a_login(void **state)
{
    struct core_fixture *f = *state;
    char text[SECRET_TEXT];
    struct core_login l;
    make(f, core_login_create, "{}", text);
    assert_memory_equal(text, "batch.", 6);
    SUCCEEDS(show(f, &peer, text, &l, e));
    assert_string_equal(l.name, "batch");
    SUCCEEDS(core_login_alive(f->core, &l, e));
    assert_int_equal(of_secret(f, 0, "uses_left"), -1);
    assert_true(of_secret(f, 0, "last_used_ms") > 0);
    assert_int_equal(having(f, "action", "create").n, 1);
    struct count used = logins(f);
    assert_int_equal(used.n, 1);
    assert_non_null(strstr(used.last, "user:2000"));
    assert_non_null(strstr(used.last, l.accessor));
    assert_null(strstr(used.last, text + 6));
    FAILS(ERR_INVALID, core_login_prove(f->core, &peer, "kubernetes", NULL, -1,
                                        true, &l, e));
}

static void uses_are_counted_on_disk(void **state)
{
    struct core_fixture *f = *state;
    char text[SECRET_TEXT];
    struct core_login l;
    make(f, core_login_create, "{\"uses\":2}", text);
    assert_int_equal(of_secret(f, 0, "uses_left"), 2);
    SUCCEEDS(show(f, &peer, text, &l, e));
    close_core(f);
    open_core(f);
    assert_int_equal(of_secret(f, 0, "uses_left"), 1);
    SUCCEEDS(show(f, &peer, text, NULL, e));
    FAILS(ERR_PIN_WRONG, show(f, &peer, text, NULL, e));
    SUCCEEDS(core_login_alive(f->core, &l, e)); /* who is in stays in */
}

struct racer {
    pthread_t thread;
    struct core_fixture *f;
    const char *text;
    enum code rc;
};

static void *race(void *arg)
{
    struct racer *r = arg;
    r->rc = show(r->f, &peer, r->text, NULL, NULL);
    return NULL;
}

static void the_last_use_is_one(void **state)
{
    struct core_fixture *f = *state;
    char text[SECRET_TEXT];
    struct racer racers[8];
    int won = 0;
    make(f, core_login_create, "{\"uses\":1}", text);
    for (size_t i = 0; i < 8; i++) {
        racers[i] = (struct racer){.f = f, .text = text};
        pthread_create(&racers[i].thread, NULL, race, &racers[i]);
    }
    for (size_t i = 0; i < 8; i++) {
        pthread_join(racers[i].thread, NULL);
        won += racers[i].rc == OK;
        assert_true(racers[i].rc == OK || racers[i].rc == ERR_PIN_WRONG ||
                    racers[i].rc == ERR_PIN_HELD);
    }
    assert_int_equal(won, 1);
    assert_int_equal(of_secret(f, 0, "uses_left"), 0);
}

static void a_lifetime_ends_sessions(void **state)
{
    struct core_fixture *f = *state;
    char text[SECRET_TEXT];
    struct core_login l;
    make(f, core_login_create, "{\"ttl\":60}", text);
    SUCCEEDS(show(f, &peer, text, &l, e));
    move_on(f, 59);
    SUCCEEDS(core_login_alive(f->core, &l, e));
    move_on(f, 2);
    FAILS(ERR_NOT_LOGGED_IN, core_login_alive(f->core, &l, e));
    FAILS(ERR_PIN_WRONG, show(f, &peer, text, NULL, e));
}

static void uids_bind(void **state)
{
    struct core_fixture *f = *state;
    char text[SECRET_TEXT];
    struct identity container = peer_id;
    struct caller borrower = peer;
    container.borrowed = true;
    borrower.id = &container;
    make(f, core_login_create, "{\"uids\":[3,2000]}", text);
    SUCCEEDS(show(f, &peer, text, NULL, e));
    FAILS(ERR_DENIED, show(f, &other, text, NULL, e));
    FAILS(ERR_DENIED, show(f, &borrower, text, NULL, e));
    assert_int_equal(records(f, "login-failed").n, 2);
}

/* ---- rotation ---- */

static void a_rotation_overlaps(void **state)
{
    struct core_fixture *f = *state;
    char one[SECRET_TEXT], two[SECRET_TEXT], three[SECRET_TEXT];
    struct core_login before, after;
    make(f, core_login_create, "{\"uses\":5,\"ttl\":86400}", one);
    SUCCEEDS(show(f, &peer, one, &before, e));
    make(f, core_login_rotate, "{\"overlap\":60}", two);
    assert_string_not_equal(one, two);
    assert_int_equal(secrets(f), 2);
    assert_int_equal(of_secret(f, 1, "uses_left"), 5); /* as it was given */
    SUCCEEDS(show(f, &peer, one, NULL, e));
    SUCCEEDS(show(f, &peer, two, &after, e));
    assert_string_not_equal(before.accessor, after.accessor);
    SUCCEEDS(core_login_alive(f->core, &before, e));
    move_on(f, 61);
    FAILS(ERR_PIN_WRONG, show(f, &other, one, NULL, e));
    FAILS(ERR_NOT_LOGGED_IN, core_login_alive(f->core, &before, e));
    SUCCEEDS(core_login_alive(f->core, &after, e));
    /* Never more than two, and without an overlap the one before ends now. */
    make(f, core_login_rotate, "{\"overlap\":60}", three);
    assert_int_equal(secrets(f), 2);
    SUCCEEDS(show(f, &peer, two, NULL, e));
    make(f, core_login_rotate, "{\"uses\":0,\"ttl\":0}", one);
    assert_int_equal(secrets(f), 1);
    assert_int_equal(of_secret(f, 0, "uses_left"), -1);
    assert_int_equal(of_secret(f, 0, "expires_ms"), 0);
    FAILS(ERR_NOT_LOGGED_IN, core_login_alive(f->core, &after, e));
    FAILS(ERR_PIN_WRONG, show(f, &peer, two, NULL, e));
}

/* The answer was lost on its way: the same request again. */
static void a_retry_gives_another_secret(void **state)
{
    struct core_fixture *f = *state;
    char one[SECRET_TEXT], two[SECRET_TEXT], three[SECRET_TEXT];
    SUCCEEDS(make_with(f, core_login_create, "{}", ID "a", one, NULL, e));
    SUCCEEDS(make_with(f, core_login_create, "{}", ID "a", two, NULL, e));
    assert_int_equal(secrets(f), 1);
    FAILS(ERR_PIN_WRONG, show(f, &other, one, NULL, e));
    SUCCEEDS(show(f, &peer, two, NULL, e));
    FAILS(ERR_EXISTS,
          make_with(f, core_login_create, "{}", ID "b", three, NULL, e));
    const char *overlap = "{\"overlap\":600}";
    SUCCEEDS(make_with(f, core_login_rotate, overlap, ID "c", one, NULL, e));
    SUCCEEDS(make_with(f, core_login_rotate, overlap, ID "c", three, NULL, e));
    assert_int_equal(secrets(f), 2);
    SUCCEEDS(show(f, &peer, two, NULL, e));
    SUCCEEDS(show(f, &peer, three, NULL, e));
    move_on(f, 1);
    FAILS(ERR_PIN_WRONG, show(f, &other, one, NULL, e));
}

/* ---- deletion ---- */

static void a_deletion_ends_sessions(void **state)
{
    struct core_fixture *f = *state;
    char text[SECRET_TEXT], again[SECRET_TEXT];
    struct core_login l;
    JSON list = NULL;
    make(f, core_login_create, "{}", text);
    SUCCEEDS(show(f, &peer, text, &l, e));
    SUCCEEDS(core_login_delete(f->core, &administrator, "batch", e));
    FAILS(ERR_NOT_LOGGED_IN, core_login_alive(f->core, &l, e));
    FAILS(ERR_PIN_WRONG, show(f, &peer, text, NULL, e));
    FAILS(ERR_NOT_FOUND,
          core_login_delete(f->core, &administrator, "batch", e));
    SUCCEEDS(core_login_list(f->core, &list, e));
    assert_int_equal(json_array_size(list), 0);
    /* Another of the same name is another. */
    make(f, core_login_create, "{}", again);
    FAILS(ERR_NOT_LOGGED_IN, core_login_alive(f->core, &l, e));
    FAILS(ERR_PIN_WRONG, show(f, &other, text, NULL, e));
    assert_int_equal(having(f, "action", "delete").n, 1);
}

/* ---- what applications hold ---- */

#define HASH_A "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"
#define HASH_B "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"

static struct caller as_application(const struct caller *by, const char *hash)
{
    struct caller a = *by;
    a.application = hash;
    return a;
}

static void restart(struct core_fixture *f)
{
    close_core(f);
    open_core(f);
}

static void a_held_login_comes_back(void **state)
{
    struct core_fixture *f = *state;
    char text[SECRET_TEXT], unit[] = "pay.service";
    struct core_login l, back;
    struct caller a = as_application(&peer, HASH_A);
    struct caller stranger = as_application(&other, HASH_A);
    struct caller unknown = as_application(&peer, HASH_B);
    make(f, core_login_create, "{\"uses\":1}", text);
    SUCCEEDS(show(f, &a, text, &l, e));
    restart(f);
    FAILS(ERR_NOT_FOUND, core_login_resume(f->core, &unknown, &back, e));
    FAILS(ERR_DENIED, core_login_resume(f->core, &stranger, &back, e));
    struct identity id = peer_id;
    struct caller changed = a;
    changed.id = &id;
    id.borrowed = true;
    FAILS(ERR_DENIED, core_login_resume(f->core, &changed, &back, e));
    id = peer_id;
    id.unit = unit;
    FAILS(ERR_DENIED, core_login_resume(f->core, &changed, &back, e));
    assert_int_equal(having(f, "entrance", "resumed").n, 0);
    for (int connection = 0; connection < 2; connection++) {
        SUCCEEDS(core_login_resume(f->core, &a, &back, e));
        assert_string_equal(back.name, "batch");
        assert_string_equal(back.accessor, l.accessor);
        SUCCEEDS(core_login_alive(f->core, &back, e));
    }
    struct count resumed = having(f, "entrance", "resumed");
    assert_int_equal(resumed.n, 1);
    assert_non_null(strstr(resumed.last, l.accessor));
    assert_int_equal(logins(f).n, 1);
    restart(f); /* and again */
    SUCCEEDS(core_login_resume(f->core, &a, &back, e));
    assert_int_equal(having(f, "entrance", "resumed").n, 2);
    assert_int_equal(of_secret(f, 0, "uses_left"), 0);
}

/* The daemon died between the commit and the answer. */
static void a_lost_answer_costs_no_second_use(void **state)
{
    struct core_fixture *f = *state;
    char text[SECRET_TEXT];
    struct core_login none;
    struct caller a = as_application(&peer, HASH_A);
    struct caller b = as_application(&peer, HASH_B);
    make(f, core_login_create, "{\"uses\":2}", text);
    SUCCEEDS(show(f, &a, text, NULL, e));
    restart(f);
    SUCCEEDS(show(f, &a, text, NULL, e));
    assert_int_equal(of_secret(f, 0, "uses_left"), 1);
    assert_non_null(strstr(logins(f).last, "\"again\":true"));
    SUCCEEDS(show(f, &b, text, NULL, e));
    assert_int_equal(of_secret(f, 0, "uses_left"), 0);
    SUCCEEDS(show(f, &a, text, NULL, e));
    /* Logged out it is a login like any other. */
    core_login_drop(f->core, &a, &none);
    FAILS(ERR_PIN_WRONG, show(f, &a, text, NULL, e));
}

static void what_is_not_held_does_not_come_back(void **state)
{
    struct core_fixture *f = *state;
    char text[SECRET_TEXT];
    struct core_login l, none, back;
    struct held h;
    struct caller a = as_application(&peer, HASH_A);
    struct caller b = as_application(&peer, HASH_B);
    make(f, core_login_create, "{}", text);
    SUCCEEDS(show(f, &a, text, &l, e));
    core_login_drop(f->core, &a, &none);
    assert_string_equal(none.name, "");
    assert_true(none.turn > l.turn);
    FAILS(ERR_NOT_FOUND, core_login_resume(f->core, &a, &back, e));
    /* As administrator: held when that was allowed, not before. */
    FD fd = pipe_of(text);
    SUCCEEDS(
        core_login_prove(f->core, &a, NULL, NULL, fd, false, &l, e));
    FAILS(ERR_NOT_FOUND, core_login_resume(f->core, &a, &back, e));
    SUCCEEDS(core_login_hold(f->core, &a, &l, e));
    SUCCEEDS(core_login_resume(f->core, &a, &back, e));
    /* The end of an application, which the sweeper writes down. */
    SUCCEEDS(show(f, &b, text, NULL, e));
    core_end_session(f->core, HASH_B, 7);
    SUCCEEDS(core_login_resume(f->core, &b, &back, e));
    core_end_session(f->core, HASH_B, 0);
    FAILS(ERR_NOT_FOUND, core_login_resume(f->core, &b, &back, e));
    (void)sweep_pass(f->core);
    FAILS(ERR_NOT_FOUND, held_find(f->core, HASH_B, &h, e));
    SUCCEEDS(held_find(f->core, HASH_A, &h, e));
    assert_null(strstr(h.run, text));
}

static void a_held_login_is_not_more_than_the_login(void **state)
{
    struct core_fixture *f = *state;
    char text[SECRET_TEXT], next[SECRET_TEXT];
    struct core_login back;
    struct caller a = as_application(&peer, HASH_A);
    make(f, core_login_create, "{\"ttl\":60,\"uids\":[2000]}", text);
    SUCCEEDS(show(f, &a, text, NULL, e));
    restart(f);
    /* Bound to another uid meanwhile; the secret itself is good still. */
    make(f, core_login_rotate, "{\"overlap\":50,\"uids\":[2001]}", next);
    SUCCEEDS(core_login_resume(f->core, &a, &back, e));
    assert_string_equal(back.name, "batch");
    FAILS(ERR_NOT_LOGGED_IN, core_login_alive(f->core, &back, e));
    move_on(f, 51); /* over */
    SUCCEEDS(core_login_resume(f->core, &a, &back, e));
    FAILS(ERR_NOT_LOGGED_IN, core_login_alive(f->core, &back, e));
    make(f, core_login_rotate, "{\"uids\":[]}", next); /* rotated out */
    SUCCEEDS(core_login_resume(f->core, &a, &back, e));
    FAILS(ERR_NOT_LOGGED_IN, core_login_alive(f->core, &back, e));
    SUCCEEDS(core_login_delete(f->core, &administrator, "batch", e));
    make(f, core_login_create, "{}", next); /* another of that name */
    SUCCEEDS(core_login_resume(f->core, &a, &back, e));
    FAILS(ERR_NOT_LOGGED_IN, core_login_alive(f->core, &back, e));
    assert_int_equal(having(f, "entrance", "resumed").n, 0);
}

/* ---- wrong ones ---- */

static void unknown_says_the_same_as_wrong(void **state)
{
    struct core_fixture *f = *state;
    char text[SECRET_TEXT];
    struct error wrong, unknown;
    make(f, core_login_create, "{}", text);
    assert_int_equal(show(f, &peer, "batch.wrong", NULL, &wrong),
                     ERR_PIN_WRONG);
    assert_int_equal(show(f, &other, "nobody.wrong", NULL, &unknown),
                     ERR_PIN_WRONG);
    assert_string_equal(wrong.text, unknown.text);
    struct count failed = records(f, "login-failed");
    assert_int_equal(failed.n, 2);
    assert_non_null(strstr(failed.last, "nobody"));
    assert_null(strstr(failed.last, "wrong\""));
}

static void wrong_ones_cost_their_peer_time(void **state)
{
    static const int64_t waits[] = {100,  200,  400,  800, 1600,
                                    3200, 5000, 5000, 5000, 300000};
    struct core_fixture *f = *state;
    char text[SECRET_TEXT];
    make(f, core_login_create, "{}", text);
    for (size_t i = 0; i < 10; i++) {
        struct error held = {.code = OK};
        assert_int_equal(show(f, &peer, "batch.wrong", NULL, &held),
                         ERR_PIN_WRONG);
        assert_int_equal(show(f, &peer, text, NULL, &held), ERR_PIN_HELD);
        assert_in_range(held.retry_after_ms, waits[i] - 99, waits[i]);
        SUCCEEDS(show(f, &other, text, NULL, e)); /* nobody else waits */
        if (i < 9)
            moved_ms += waits[i];
    }
    assert_int_equal(records(f, "login-failed").n, 10);
    moved_ms += THROTTLE_LOCK_MS - 1000;
    FAILS(ERR_PIN_HELD, show(f, &peer, text, NULL, e));
    assert_int_equal(records(f, "login-failed").n, 10);
    moved_ms += 1001;
    SUCCEEDS(show(f, &peer, text, NULL, e));
    FAILS(ERR_PIN_WRONG, show(f, &peer, "batch.wrong", NULL, e));
    moved_ms += 100;
    SUCCEEDS(show(f, &peer, text, NULL, e)); /* and all is forgotten */
    SUCCEEDS(show(f, &peer, text, NULL, e));
}

/* Where nothing vouches for the uid, its place counts, too. */
static void containers_do_not_hold_each_other_up(void **state)
{
    struct core_fixture *f = *state;
    char text[SECRET_TEXT];
    struct identity ids[] = {{.uid = 0, .borrowed = true, .place = 10},
                             {.uid = 0, .borrowed = true, .place = 20},
                             {.uid = 0}};
    make(f, core_login_create, "{}", text);
    struct caller by = peer;
    by.id = &ids[0];
    FAILS(ERR_PIN_WRONG, show(f, &by, "batch.wrong", NULL, e));
    FAILS(ERR_PIN_HELD, show(f, &by, text, NULL, e));
    for (size_t i = 1; i < 3; i++) {
        by.id = &ids[i];
        SUCCEEDS(show(f, &by, text, NULL, e));
    }
}

static void what_is_no_pipe_costs_nobody(void **state)
{
    struct core_fixture *f = *state;
    char text[SECRET_TEXT];
    struct core_login l;
    int ends[2];
    make(f, core_login_create, "{}", text);
    FD file = open("/dev/zero", O_RDONLY | O_CLOEXEC);
    assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
    assert_int_equal(write(ends[1], text, 3), 3);
    FAILS(ERR_INVALID,
          core_login_prove(f->core, &peer, NULL, NULL, file, true, &l, e));
    FAILS(ERR_INVALID,
          core_login_prove(f->core, &peer, NULL, NULL, ends[0], true, &l,
                           e));
    FAILS(ERR_INVALID,
          core_login_prove(f->core, &peer, NULL, NULL, -1, true, &l, e));
    close(ends[0]);
    close(ends[1]);
    char *huge = malloc(1000001);
    memset(huge, 'a', 1000000);
    huge[1000000] = '\0';
    FD fd = pipe_of(text);
    FAILS(ERR_INVALID,
          core_login_prove(f->core, &peer, NULL, huge, fd, true, &l, e));
    free(huge);
    SUCCEEDS(show(f, &peer, text, NULL, e));
    assert_int_equal(records(f, "login-failed").n, 0);
}

static void a_locked_daemon_costs_nobody(void **state)
{
    struct core_fixture *f = *state;
    char text[SECRET_TEXT];
    make(f, core_login_create, "{}", text);
    SUCCEEDS(core_lock(f->core, &administrator, e));
    for (int i = 0; i < 12; i++)
        FAILS(ERR_LOCKED, show(f, &peer, text, NULL, e));
    SUCCEEDS(core_login(f->core, &administrator, -1, false, e));
    SUCCEEDS(show(f, &peer, text, NULL, e));
}

/* ---- the table of peers ---- */

static void the_table_is_bounded(void **state)
{
    (void)state;
    struct throttle *t = calloc(1, sizeof *t);
    pthread_mutex_init(&t->lock, NULL);
    struct identity bad = {.uid = 1};
    for (int i = 0; i < THROTTLE_TRIES; i++) {
        t->peers[0].not_before_ms = 0;
        SUCCEEDS(throttle_enter(t, &bad, e));
        throttle_leave(t, &bad, THROTTLE_WRONG);
    }
    for (uid_t uid = 100; uid < 100 + 3 * THROTTLE_PEERS; uid++) {
        struct identity id = {.uid = uid};
        SUCCEEDS(throttle_enter(t, &id, e));
        assert_int_equal(throttle_leave(t, &id, THROTTLE_WRONG), 1);
    }
    /* Many who failed once do not make it forget who failed often. */
    FAILS(ERR_PIN_HELD, throttle_enter(t, &bad, e));
    free(t);
}

static void at_once_is_bounded(void **state)
{
    (void)state;
    struct throttle *t = calloc(1, sizeof *t);
    pthread_mutex_init(&t->lock, NULL);
    struct identity id = {.uid = 1};
    for (int i = 0; i < THROTTLE_AT_ONCE; i++)
        SUCCEEDS(throttle_enter(t, &id, e));
    FAILS(ERR_PIN_HELD, throttle_enter(t, &id, e));
    assert_int_equal(throttle_leave(t, &id, THROTTLE_NEITHER), 0);
    SUCCEEDS(throttle_enter(t, &id, e));
    for (int i = 0; i < THROTTLE_AT_ONCE; i++)
        throttle_leave(t, &id, THROTTLE_WRONG);
    FAILS(ERR_PIN_HELD, throttle_enter(t, &id, e)); /* no sixteen more */
    free(t);
}

/* ---- fields ---- */

static void fields_are_checked(void **state)
{
    struct core_fixture *f = *state;
    static const char *const bad[] = {
        "{\"uses\":-1}",      "{\"ttl\":-1}",         "{\"ttl\":\"1h\"}",
        "{\"uids\":[-1]}",    "{\"uids\":[\"root\"]}", "{\"uids\":5}",
        "{\"overlap\":60}",   "{\"use\":1}",          "{\"uids\":[4294967295]}",
        "{\"ttl\":999999999999}", "{\"uses\":9999999999}", "[]",
    };
    char text[SECRET_TEXT];
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        FAILS(ERR_INVALID, make_with(f, core_login_create, bad[i], ID "a", text,
                                     NULL, e));
    FAILS(ERR_NOT_FOUND,
          make_with(f, core_login_rotate, "{}", ID "a", text, NULL, e));
    JSON fields = json_object();
    JSON out = NULL;
    int fd = -1;
    FAILS(ERR_INVALID,
          core_login_create(f->core, &administrator, "a b", fields, ID "a",
                            &out, &fd, e));
    assert_int_equal(fd, -1);
    assert_int_equal(having(f, "action", "create").n, 0);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, core_set_up, core_tear_down)
    const struct CMUnitTest tests[] = {
        T(a_secret_id_is_a_login),
        T(uses_are_counted_on_disk),
        T(the_last_use_is_one),
        T(a_lifetime_ends_sessions),
        T(uids_bind),
        T(a_rotation_overlaps),
        T(a_retry_gives_another_secret),
        T(a_deletion_ends_sessions),
        T(a_held_login_comes_back),
        T(a_lost_answer_costs_no_second_use),
        T(what_is_not_held_does_not_come_back),
        T(a_held_login_is_not_more_than_the_login),
        T(unknown_says_the_same_as_wrong),
        T(wrong_ones_cost_their_peer_time),
        T(containers_do_not_hold_each_other_up),
        T(what_is_no_pipe_costs_nobody),
        T(a_locked_daemon_costs_nobody),
        cmocka_unit_test(the_table_is_bounded),
        cmocka_unit_test(at_once_is_bounded),
        T(fields_are_checked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
