/* core_stuck(): what keeps the watchdog from being fed, and what does not. */
#include "config.h"

#include "common/log.h"
#include "tests/unit/core_fixture.h"

#include <pthread.h>

static bool stuck(struct core_fixture *f, const char *because)
{
    struct error why = {.code = OK};
    bool is = core_stuck(f->core, &why);

    if (is && !strstr(why.text, because))
        fail_msg("stuck: %s", why.text);
    return is;
}

/* Within some real seconds. */
static bool becomes(struct core_fixture *f, bool wanted, const char *because)
{
    for (int i = 0; i < 500; i++) {
        if (stuck(f, because) == wanted)
            return true;
        nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
    }
    return false;
}

static void test_nothing_to_do_is_progress(void **state)
{
    struct core_fixture *f = *state;

    assert_false(stuck(f, ""));
    move_on(f, 100000); /* a machine that slept: the sweeper wakes up */
    assert_true(becomes(f, false, "sweeper"));
}

static void test_sweeper_that_hangs(void **state)
{
    struct core_fixture *f = *state;

    pthread_mutex_lock(&f->core->sweep.lock);
    nanosleep(&(struct timespec){.tv_sec = 1, .tv_nsec = 200000000}, NULL);
    moved_ms += 10000;
    assert_false(stuck(f, "")); /* a call may take so long */
    moved_ms += 1000000;
    assert_true(stuck(f, "sweeper"));
    pthread_mutex_unlock(&f->core->sweep.lock);
    assert_true(becomes(f, false, "sweeper"));
}

static enum code wait_for_lock(struct store_tx *tx, void *ctx, struct error *e)
{
    pthread_mutex_t *lock = ctx;

    (void)tx, (void)e;
    pthread_mutex_lock(lock);
    pthread_mutex_unlock(lock);
    return OK;
}

struct slow {
    struct store *store;
    pthread_mutex_t lock;
};

static void *commit(void *arg)
{
    struct slow *s = arg;
    struct error why;

    if (store_commit(s->store, STORE_NORMAL, wait_for_lock, &s->lock, &why))
        fail_msg("%s", why.text);
    return NULL;
}

static void test_transaction_that_hangs(void **state)
{
    struct core_fixture *f = *state;
    struct slow slow = {f->store, PTHREAD_MUTEX_INITIALIZER};
    pthread_t first, second;

    pthread_mutex_lock(&slow.lock);
    assert_int_equal(pthread_create(&first, NULL, commit, &slow), 0);
    while (store_waiting_ms(f->store) == 0)
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    assert_int_equal(pthread_create(&second, NULL, commit, &slow), 0);
    assert_false(stuck(f, ""));
    moved_ms += 61000;
    assert_true(stuck(f, "transaction"));
    pthread_mutex_unlock(&slow.lock);
    pthread_join(first, NULL);
    pthread_join(second, NULL);
    assert_true(becomes(f, false, ""));
    assert_int_equal(store_waiting_ms(f->store), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_nothing_to_do_is_progress,
                                        core_set_up, core_tear_down),
        cmocka_unit_test_setup_teardown(test_sweeper_that_hangs, core_set_up,
                                        core_tear_down),
        cmocka_unit_test_setup_teardown(test_transaction_that_hangs,
                                        core_set_up, core_tear_down),
    };

    log_open("test", LOG_SINK_NONE, LOG_LEVEL_ERROR);
    return cmocka_run_group_tests_name("stuck", tests, NULL, NULL);
}
