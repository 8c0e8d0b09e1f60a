/* The keeper as a process: what it gets, its end, and the rate of starts. */
#include "config.h"

#include "common/file.h"
#include "common/log.h"
#include "module/core/keeper.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

struct fixture {
    struct settings settings;
    struct keeper *keeper;
    char dir[64], program[80], out[80];
    struct frame request, reply;
    struct error e;
};

static void use_program(struct fixture *f, const char *text)
{
    struct keeper_options o = {.settings = &f->settings,
                               .config_path = "/the config",
                               .keeper_path = f->program};
    FILE *p = fopen(f->program, "w");

    assert_non_null(p);
    fprintf(p, "#!/bin/sh\n%s", text);
    fclose(p);
    assert_int_equal(0, chmod(f->program, 0700));
    assert_int_equal(OK, keeper_new(&f->keeper, &o, &f->e));
}

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    const char *tmp = getenv("TMPDIR");

    assert_non_null(f);
    snprintf(f->dir, sizeof(f->dir), "%s/hsmint-spawn-XXXXXX",
             tmp && strlen(tmp) < 40 ? tmp : "/tmp");
    assert_non_null(mkdtemp(f->dir));
    snprintf(f->program, sizeof(f->program), "%s/keeper", f->dir);
    snprintf(f->out, sizeof(f->out), "%s/out", f->dir);
    assert_int_equal(OK, settings_parse(&f->settings,
                                        "[daemon]\nkeeper_threads = 2\n"
                                        "[hsm.env]\nVENDOR = a b\n",
                                        "test", &f->e));
    f->request = (struct frame){.verb = VERB_DESCRIBE, .fd = -1};
    f->reply = (struct frame)FRAME_INIT;
    free(f->settings.state_dir);
    f->settings.state_dir = strdup("/the state");
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;

    keeper_free(f->keeper);
    frame_clear(&f->reply);
    settings_clear(&f->settings);
    unlink(f->program);
    unlink(f->out);
    rmdir(f->dir);
    free(f);
    return 0;
}

static enum code call(struct fixture *f, bool *handed)
{
    return keeper_call(f->keeper, 0, &f->request, 300, &f->reply, handed,
                       &f->e);
}

static void test_what_it_gets(void **state)
{
    struct fixture *f = *state;
    char program[512], *text = NULL;
    struct keeper_state k;
    size_t len;

    setenv("HSMINT_TEST_SECRET", "x", 1);
    snprintf(program, sizeof(program),
             "{ echo \"$@\"; tr '\\0' '\\n' </proc/$$/environ; "
             "ls -m /proc/$$/fd; } >%s\nexec sleep 60\n",
             f->out);
    use_program(f, program);
    assert_int_equal(ERR_KEEPER, call(f, NULL)); /* the deadline */
    keeper_describe(f->keeper, &k);
    assert_false(k.running);
    assert_int_equal(OK, file_read(f->out, 4096, FILE_ANY, &text, &len, &f->e));
    assert_non_null(strstr(text, "--config /the config --channels 2 "
                                 "--state /the state\n"));
    assert_non_null(strstr(text, "VENDOR=a b\n"));
    assert_null(strstr(text, "HSMINT_TEST_SECRET"));
    /* Without a pipe, which the shell would have open for a moment. */
    assert_non_null(strstr(text, "3, 4"));
    assert_null(strstr(text, ", 5"));
    free(text);
}

static void test_hung_one_is_killed_and_reaped(void **state)
{
    struct fixture *f = *state;
    struct keeper_state k;
    uint64_t generation;
    bool handed = false;

    use_program(f, "exec sleep 60\n");
    assert_int_equal(OK, keeper_ensure(f->keeper, &generation, &f->e));
    keeper_describe(f->keeper, &k);
    assert_int_equal(ERR_KEEPER, call(f, &handed));
    assert_true(handed);
    assert_int_equal(-1, kill(k.pid, 0)); /* not even a zombie */
    /* Its generation is over. */
    assert_int_equal(ERR_KEEPER, keeper_call(f->keeper, generation, &f->request,
                                             300, &f->reply, &handed, &f->e));
    assert_false(handed);
}

/* Debian 12's valgrind knows no pidfd_open(). */
static void needs_pidfd(void)
{
    int fd = pidfd_open(getpid(), 0);
    if (fd < 0)
        skip();
    close(fd);
}

static void test_one_that_dies_is_noticed(void **state)
{
    needs_pidfd();
    struct fixture *f = *state;
    struct keeper_state k;
    uint64_t generation;

    use_program(f, "exec sleep 60\n");
    assert_int_equal(OK, keeper_ensure(f->keeper, &generation, &f->e));
    keeper_describe(f->keeper, &k);
    kill(k.pid, SIGKILL);
    for (int i = 0; i < 6000 && k.running; i++) {
        nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
        keeper_check(f->keeper);
        keeper_describe(f->keeper, &k);
    }
    assert_false(k.running);
    assert_int_equal(OK, keeper_ensure(f->keeper, &generation, &f->e));
    assert_int_equal(2, generation);
}

static void test_starts_are_bounded(void **state)
{
    struct fixture *f = *state;
    struct keeper_state k;
    bool held = false;

    use_program(f, "exit 1\n");
    for (int i = 0; i < 100 && !held; i++) {
        assert_int_equal(ERR_KEEPER, call(f, NULL));
        held = strstr(f->e.text, "soon after its start") != NULL;
    }
    assert_true(held);
    keeper_describe(f->keeper, &k);
    assert_true(k.restarts < 10);
}

static void test_no_program(void **state)
{
    needs_pidfd();
    struct fixture *f = *state;
    struct keeper_state k;

    use_program(f, "");
    unlink(f->program);
    assert_int_equal(ERR_KEEPER, call(f, NULL));
    assert_non_null(strstr(f->e.text, f->program));
    /* Tried again at the bounded rate; meanwhile the reason is told. */
    bool held = false;
    for (int i = 0; i < 100 && !held; i++) {
        assert_int_equal(ERR_KEEPER, call(f, NULL));
        assert_non_null(strstr(f->e.text, f->program));
        held = strstr(f->e.text, "tried again in") != NULL;
    }
    assert_true(held);
    keeper_describe(f->keeper, &k);
    assert_int_equal(0, k.generation);
}

int main(void)
{
#define TEST(fn) cmocka_unit_test_setup_teardown(fn, set_up, tear_down)
    const struct CMUnitTest tests[] = {
        TEST(test_what_it_gets),
        TEST(test_hung_one_is_killed_and_reaped),
        TEST(test_one_that_dies_is_noticed),
        TEST(test_starts_are_bounded),
        TEST(test_no_program),
    };

    log_open("test", LOG_SINK_NONE, LOG_LEVEL_ERROR);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
