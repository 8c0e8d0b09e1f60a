/* store_fixture - a store in a directory of its own, and rows to put in. */
#ifndef HSMINT_TESTS_STORE_FIXTURE_H
#define HSMINT_TESTS_STORE_FIXTURE_H

#include "common/file.h"
#include "common/text.h"
#include "module/store/store.h"

#include <dirent.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

struct fixture {
    char dir[256];
    struct store *s;
    int64_t org;
};

/* Each call must succeed; its text says why it did not. */
#define SUCCEEDS(call)                                                         \
    do {                                                                       \
        struct error e_ = {.code = OK};                                        \
        struct error *e = &e_;                                                 \
        if ((call) != OK)                                                      \
            fail_msg("%s: %s", #call, e_.text);                                \
    } while (0)
#define FAILS(expected, call)                                                  \
    do {                                                                       \
        struct error e_ = {.code = OK};                                        \
        struct error *e = &e_;                                                 \
        assert_int_equal(expected, (call));                                    \
        assert_int_equal(expected, e_.code);                                   \
        assert_true(e_.text[0]);                                               \
    } while (0)

static inline void make_dir(char *dir, size_t cap)
{
    const char *tmp = getenv("TMPDIR");
    snprintf(dir, cap, "%s/hsmint-store-XXXXXX", tmp ? tmp : "/tmp");
    assert_non_null(mkdtemp(dir));
}

static inline void remove_dir(const char *dir)
{
    DIR *d = opendir(dir);
    for (struct dirent *n; d && (n = readdir(d));)
        (void)unlinkat(dirfd(d), n->d_name, 0);
    if (d)
        closedir(d);
    (void)rmdir(dir);
}

static inline void open_store(struct fixture *f, uint64_t reserve)
{
    struct store_options o = {.dir = f->dir, .disk_reserve = reserve};
    SUCCEEDS(store_open(&f->s, &o, e));
}

static inline void close_store(struct fixture *f)
{
    store_close(f->s);
    f->s = NULL;
}

static inline enum code add_default(struct store_tx *tx, void *ctx,
                                    struct error *e)
{
    return store_org_add(tx, "default", 1000, ctx, e);
}

static inline int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    assert_non_null(f);
    make_dir(f->dir, sizeof(f->dir));
    open_store(f, 0);
    SUCCEEDS(store_commit(f->s, STORE_NORMAL, add_default, &f->org, e));
    *state = f;
    return 0;
}

static inline int tear_down(void **state)
{
    struct fixture *f = *state;
    store_close(f->s);
    remove_dir(f->dir);
    free(f);
    return 0;
}

/* Strings are literals: not to be cleared. */
static inline struct store_lease some_lease(int64_t org)
{
    struct store_lease l = {
        .org = org,
        .role = (char *)(uintptr_t) "my-app",
        .owner = (char *)(uintptr_t) "user:1000",
        .program = (char *)(uintptr_t) "test",
        .account_name = (char *)(uintptr_t) "vault-my-app-x",
        .request_id = (char *)(uintptr_t) "req",
        .state = LEASE_PENDING,
        .issued_ms = 1000,
        .expires_ms = 5000,
        .next_try_ms = 2000,
    };
    SUCCEEDS(text_id(l.id, e));
    return l;
}

static inline enum code insert_lease(struct store_tx *tx, void *ctx,
                                     struct error *e)
{
    return store_lease_insert(tx, ctx, e);
}

static inline void insert(struct fixture *f, struct store_lease *l)
{
    SUCCEEDS(store_commit(f->s, STORE_NORMAL, insert_lease, l, e));
}

#endif
