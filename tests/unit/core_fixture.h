/* core_fixture - a core over a real store and a fake keeper, initialised, with
 * an admin key and the role "my-app". Time can be moved on. */
#ifndef HSMINT_TESTS_CORE_FIXTURE_H
#define HSMINT_TESTS_CORE_FIXTURE_H

#include "common/clock.h"
#include "common/secret.h"
#include "module/core/internal.h"
#include "module/core/lease.h"
#include "tests/unit/fake_keeper.h"
#include "tests/unit/store_fixture.h"

#include <stdatomic.h>
#include <time.h>

struct core_fixture {
    char dir[256];
    struct settings settings;
    struct store *store;
    struct core *core;
    struct fake fake;
};

static const struct caller administrator = {.owner = "user:1000",
                                            .uid = 1000,
                                            .program = "test",
                                            .application = "app-1"};
/* Of the daemon's uid, too, but another owner. */
static const struct caller neighbour = {
    .owner = "login:other", .uid = 1000, .application = "app-2"};
static const struct caller somebody = {
    .owner = "user:2000", .uid = 2000, .application = "app-3"};

/* ---- time ---- */

static atomic_llong moved_ms;

static int64_t real_ms(clockid_t id)
{
    struct timespec t;
    clock_gettime(id, &t);
    return (int64_t)t.tv_sec * 1000 + t.tv_nsec / 1000000;
}

static inline int64_t moved_wall(void *ctx)
{
    (void)ctx;
    return real_ms(CLOCK_REALTIME) + moved_ms;
}

static inline int64_t moved_monotonic(void *ctx)
{
    (void)ctx;
    return real_ms(CLOCK_MONOTONIC) + moved_ms;
}

static const struct clock_source moved = {moved_wall, moved_monotonic,
                                          moved_monotonic, NULL};

static inline void move_on(struct core_fixture *f, int64_t seconds)
{
    moved_ms += seconds * 1000;
    sweep_wake(f->core);
}

/* ---- the core ---- */

static inline void open_core(struct core_fixture *f)
{
    struct store_options o = {.dir = f->dir};
    struct core_options c = {.settings = &f->settings};

    SUCCEEDS(store_open(&f->store, &o, e));
    c.store = f->store;
    SUCCEEDS(core_open_with(&f->core, &c, fake_start, &f->fake, e));
    f->core->uid = administrator.uid;
}

static inline void close_core(struct core_fixture *f)
{
    core_close(f->core);
    store_close(f->store);
    f->core = NULL;
    f->store = NULL;
}

static inline int pipe_of(const char *text)
{
    SECRET s = NULL;
    int fd = -1;

    SUCCEEDS(secret_dup(&s, text, strlen(text), e));
    SUCCEEDS(secret_to_pipe(s, &fd, e));
    return fd;
}

static inline enum code config_set(struct core_fixture *f, const char *json,
                                   bool with_key, json_t **out, struct error *e)
{
    FD key = with_key ? pipe_of("sk-admin-test") : -1;
    JSON fields = json_loads(json, 0, NULL);
    JSON ignored = NULL;
    const struct config_request r = {
        .fields = fields, .key_fd = key, .keep_first = true};

    return core_config_set(f->core, &administrator, &r, out ? out : &ignored,
                           e);
}

static inline enum code role_set(struct core_fixture *f, const char *name,
                                 const char *json, struct error *e)
{
    JSON fields = json_loads(json, 0, NULL);

    return core_role_set(f->core, &administrator, NULL, name, fields, NULL, e);
}

static inline int core_set_up(void **state)
{
    struct core_fixture *f = calloc(1, sizeof(*f));
    JSON out = NULL;

    assert_non_null(f);
    moved_ms = 0;
    clock_replace(&moved);
    make_dir(f->dir, sizeof(f->dir));
    fake_init(&f->fake);
    /* Of what hangs; under valgrind the double is slow when it does not. */
    const char *text = "[hsm]\nmodule = /nowhere.so\n"
                       "uri = pkcs11:token=x\npin_source = /nowhere\n";
    char settings[160];
    snprintf(settings, sizeof(settings), "%sdeadline = %ds\n", text,
             getenv("TEST_STRIDE") ? 30 : 2);
    SUCCEEDS(settings_parse(&f->settings, settings, "test", e));
    open_core(f);
    SUCCEEDS(core_init(f->core, &administrator, NULL, &out, e));
    SUCCEEDS(config_set(f, "{}", true, NULL, e));
    SUCCEEDS(role_set(f, "my-app", "{\"project_id\":\"proj_abc\"}", e));
    *state = f;
    return 0;
}

static inline int core_tear_down(void **state)
{
    struct core_fixture *f = *state;

    close_core(f);
    fake_clear(&f->fake);
    settings_clear(&f->settings);
    remove_dir(f->dir);
    clock_replace(NULL);
    free(f);
    return 0;
}

/* ---- leases ---- */

struct minted {
    struct store_lease lease;
    struct secret *key;
    json_t *warnings;
    struct error error;
};

static inline void minted_clear(struct minted *m)
{
    store_lease_clear(&m->lease);
    secret_free(m->key);
    json_decref(m->warnings);
    *m = (struct minted){.key = NULL};
}
#define MINTED CLEANUP(minted_clear) struct minted

static inline enum code mint_as(struct core_fixture *f, const struct caller *by,
                                const struct mint_request *asked,
                                struct minted *m)
{
    struct mint_request a = *asked;

    if (!a.role)
        a.role = "my-app";
    return core_mint(f->core, by, &a, &m->lease, &m->key, &m->warnings,
                     &m->error);
}

static inline enum code mint(struct core_fixture *f, struct minted *m)
{
    return mint_as(f, &administrator, &(struct mint_request){.ttl_s = 0}, m);
}

static inline enum lease_state state_of(struct core_fixture *f, const char *id)
{
    LEASE l = {0};

    SUCCEEDS(store_lease_get(f->store, id, &l, e));
    return l.state;
}

static inline int64_t live(struct core_fixture *f)
{
    struct store_counts n;

    SUCCEEDS(store_lease_counts(f->store, 0, NULL, &n, e));
    return n.pending + n.active + n.revoking;
}

static inline bool settled(struct core_fixture *f)
{
    return live(f) == 0 && fake_alive(&f->fake) == 0;
}

/* Until `check` is true, at most a minute. */
#define EVENTUALLY(check)                                                      \
    do {                                                                       \
        int i_ = 0;                                                            \
        while (!(check) && i_++ < 6000)                                        \
            nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);          \
        assert_true(check);                                                    \
    } while (0)

#endif
