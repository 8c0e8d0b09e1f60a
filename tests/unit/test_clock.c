/* Clock, and the log that prints its times. */
#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "common/clock.h"
#include "common/file.h"
#include "common/log.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

static int64_t fixed(void *ctx)
{
    return *(int64_t *)ctx;
}

static void clocks_can_be_replaced(void **state)
{
    (void)state;
    int64_t t = 42;
    const struct clock_source source = {fixed, fixed, fixed, &t};
    clock_replace(&source);
    assert_int_equal(clock_wall_ms(), 42);
    assert_int_equal(clock_monotonic_ms(), 42);
    assert_int_equal(clock_boot_ms(), 42);
    clock_replace(NULL);
    assert_in_range(clock_wall_ms() / 1000, time(NULL) - 2, time(NULL) + 2);
    assert_true(clock_boot_ms() >= clock_monotonic_ms() - 1);
}

static void times_are_rfc_3339(void **state)
{
    (void)state;
    char b[CLOCK_TEXT_MAX];
    assert_string_equal(clock_text(0, b), "1970-01-01T00:00:00.000Z");
    assert_string_equal(clock_text(1795253175123, b),
                        "2026-11-21T09:26:15.123Z");
    assert_string_equal(clock_text(-1, b), "1969-12-31T23:59:59.999Z");
    assert_string_equal(clock_text(253402300799999, b),
                        "9999-12-31T23:59:59.999Z");
    assert_string_equal(clock_text(253402300800000, b), "(out of range)");
    assert_string_equal(clock_text(INT64_MAX, b), "(out of range)");
    assert_string_equal(clock_text(INT64_MIN, b), "(out of range)");
}

/* What `body` writes to stderr. */
static char *captured(void (*body)(void))
{
    static char text[16384];
    FD memory = memfd_create("stderr", MFD_CLOEXEC);
    int before = dup(STDERR_FILENO);
    dup2(memory, STDERR_FILENO);
    body();
    dup2(before, STDERR_FILENO);
    close(before);
    ssize_t n = pread(memory, text, sizeof text - 1, 0);
    text[n > 0 ? n : 0] = '\0';
    return text;
}

static void all_levels(void)
{
    log_error("one %d", 1);
    log_warning("two");
    log_info("three");
    log_debug("four");
}

static void warnings_only(void)
{
    log_open("prog", LOG_SINK_STDERR, LOG_LEVEL_WARNING);
    all_levels();
    log_close();
}

static void debug_too(void)
{
    log_open("prog", LOG_SINK_STDERR, LOG_LEVEL_DEBUG);
    all_levels();
    log_close();
}

static void nowhere(void)
{
    log_open("prog", LOG_SINK_NONE, LOG_LEVEL_DEBUG);
    all_levels();
    log_close();
}

static void levels_are_kept(void **state)
{
    (void)state;
    char *text = captured(warnings_only);
    assert_non_null(strstr(text, "] error: one 1\n"));
    assert_non_null(strstr(text, "] warning: two\n"));
    assert_null(strstr(text, "three"));
    text = captured(debug_too);
    assert_non_null(strstr(text, "] info: three\n"));
    assert_non_null(strstr(text, "] debug: four\n"));
    assert_string_equal(captured(nowhere), "");
    assert_string_equal(captured(all_levels), ""); /* not open: the module */
}

static void forge(void)
{
    struct error e = {.code = ERR_SERVICE_RATE};
    snprintf(e.service_request_id, sizeof e.service_request_id, "req_9");
    log_open("prog", LOG_SINK_STDERR, LOG_LEVEL_DEBUG);
    log_info("role %s",
             "x\n2026-01-01 prog[1] error: forged\x1b[2J\xe2\x80\xae");
    log_failure(&e, "mint %s", "r");
    snprintf(e.text, sizeof e.text, "slow down");
    e.service_request_id[0] = '\0';
    log_failure(&e, "mint");
    char *longest = calloc(1, 20000);
    memset(longest, 'y', 19999);
    log_info("%s", longest);
    log_failure(&e, "%s", longest);
    free(longest);
    log_close();
}

static void lines_cannot_be_forged(void **state)
{
    (void)state;
    char *text = captured(forge);
    unsigned lines = 0;
    for (char *p = text; (p = strchr(p, '\n')); p++)
        lines++;
    assert_int_equal(lines, 5);
    assert_non_null(strstr(text, "role x\\x0a2026"));
    assert_non_null(strstr(text, "forged\\x1b[2J\\xe2\\x80\\xae\n"));
    assert_non_null(strstr(text, "mint r: the service asks to slow down "
                                 "(x-request-id req_9)\n"));
    assert_non_null(strstr(text, "error: mint: slow down\n"));
}

/* Neither sink may fail or block where there is no journal and no syslog. */
static void other_sinks_take_lines(void **state)
{
    (void)state;
    log_open("hsmint-test", LOG_SINK_JOURNAL, LOG_LEVEL_DEBUG);
    log_debug("a line of the unit tests");
    log_open("hsmint-test", LOG_SINK_SYSLOG, LOG_LEVEL_DEBUG);
    log_debug("a line of the unit tests");
    log_close();
    log_close();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(clocks_can_be_replaced),
        cmocka_unit_test(times_are_rfc_3339),
        cmocka_unit_test(levels_are_kept),
        cmocka_unit_test(lines_cannot_be_forged),
        cmocka_unit_test(other_sinks_take_lines),
    };
    return cmocka_run_group_tests_name("clock", tests, NULL, NULL);
}
