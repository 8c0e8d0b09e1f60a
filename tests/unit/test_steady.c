/* The clock that leases live by: rules alone, and where a boot's id comes from. */
#include "config.h"

#include "module/core/steady.h"

#include "tests/unit/store_fixture.h"

#define YEAR (INT64_C(365) * 86400 * 1000)
static const struct steady_saved nothing = {.wall_ms = 0};

static void leaps_move_nothing(void **state)
{
    struct steady s = {.boot = "one"};
    int64_t wall = 1795253175000, boot = 1000000, before;

    (void)state;
    steady_begin(&s, &nothing, true, wall, boot);
    assert_int_equal(wall, steady_look(&s, wall, boot));
    before = wall;
    for (int i = 0; i < 3; i++) { /* forward, back, right again */
        static const int64_t leap[] = {YEAR, -2 * YEAR, YEAR};

        wall += leap[i] + 1000;
        boot += 1000;
        before += 1000;
        assert_int_equal(before, steady_look(&s, wall, boot));
    }
    assert_int_equal(0, s.jumped_ms);
    /* Suspended: both go on. */
    assert_int_equal(before + YEAR, steady_look(&s, wall + YEAR, boot + YEAR));
}

/* A time service that corrects slowly is followed. */
static void drift_is_followed(void **state)
{
    struct steady s = {.boot = "one"};
    int64_t wall = 1795253175000, boot = 1000000;

    (void)state;
    steady_begin(&s, &nothing, true, wall, boot);
    for (int i = 0; i < 10000; i++) {
        boot += 1000;
        wall += 1000 + (i % 2);
        assert_int_equal(wall, steady_look(&s, wall, boot));
    }
    assert_int_equal(0, s.jumped_ms);
}

static void restarts(void **state)
{
    static const int64_t wall = 1795253175000, boot = 1000000;
    const struct steady_saved last = {
        .boot = "one", .wall_ms = wall, .boot_ms = boot, .steady_ms = wall - 7};
    const struct {
        const char *boot;
        bool live;
        int64_t wall_ms, boot_ms, expected;
        bool doubt;
    } rows[] = {
        /* The same boot: ten seconds later, whatever the wall clock says. */
        {"one", true, wall + 10000, boot + 10000, wall + 10000 - 7, false},
        {"one", true, wall + YEAR, boot + 10000, wall + 10000 - 7, false},
        {"one", true, wall - YEAR, boot + 10000, wall + 10000 - 7, false},
        /* Another: forward is believed, and the difference kept. */
        {"two", true, wall + YEAR, 50, wall + YEAR - 7, false},
        {"two", true, wall - 4000, 50, wall - 4000 - 7, false},
        {"two", true, wall - 6000, 50, wall - 6000, true},
        /* A boot clock that went back is another machine's. */
        {"one", true, wall - 6000, boot - 1, wall - 6000, true},
        {"", true, wall - 6000, boot + 1, wall - 6000, true},
        /* No lease, no doubt. */
        {"two", false, wall - YEAR, 50, wall - YEAR, false},
        {"one", false, wall - YEAR, boot + 1, wall - YEAR, false},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct steady s = {.doubt = false};

        snprintf(s.boot, sizeof(s.boot), "%s", rows[i].boot);
        steady_begin(&s, &last, rows[i].live, rows[i].wall_ms, rows[i].boot_ms);
        assert_int_equal(rows[i].doubt, s.doubt);
        assert_int_equal(rows[i].expected, steady_look(&s, rows[i].wall_ms,
                                                       rows[i].boot_ms));
    }
}

/* ---- which boot it is ---- */

#define BOOT "0123456789abcdef0123456789abcdef"
#define OTHER "fedcba9876543210fedcba9876543210"

static void put(const char *dir, const char *name, const char *text)
{
    char path[PATH_MAX];
    FILE *f;

    snprintf(path, sizeof(path), "%s/%s", dir, name);
    f = fopen(path, "w");
    assert_non_null(f);
    assert_true(fputs(text, f) >= 0);
    assert_int_equal(0, fclose(f));
}

static void the_boot_id(void **state)
{
    const struct fixture *f = *state;
    const struct {
        const char *kernel, *credential, *expected;
    } rows[] = {
        {"01234567-89ab-cdef-0123-456789abcdef\n", OTHER, BOOT},
        {BOOT "\n", NULL, BOOT},
        /* Hidden by ProcSubset=pid: systemd's word for it. */
        {NULL, BOOT, BOOT},
        {NULL, BOOT "\n", BOOT},
        {NULL, NULL, ""},
        /* What is no boot id is none: %b that nobody filled in, too. */
        {"", BOOT, BOOT},
        {NULL, "%b", ""},
        {NULL, "", ""},
        {NULL, BOOT "0", ""},
        {NULL, "0123456789ABCDEF0123456789ABCDEF", ""},
    };

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        char kernel[PATH_MAX], credential[PATH_MAX], boot[STEADY_BOOT_MAX];

        snprintf(kernel, sizeof(kernel), "%s/kernel", f->dir);
        snprintf(credential, sizeof(credential), "%s/boot-id", f->dir);
        unlink(kernel);
        unlink(credential);
        if (rows[i].kernel)
            put(f->dir, "kernel", rows[i].kernel);
        if (rows[i].credential)
            put(f->dir, "boot-id", rows[i].credential);
        steady_boot_id(kernel, f->dir, boot);
        assert_string_equal(rows[i].expected, boot);
        steady_boot_id(kernel, NULL, boot);
        assert_string_equal(rows[i].kernel && *rows[i].kernel ? BOOT : "",
                            boot);
    }
    char boot[STEADY_BOOT_MAX];
    steady_boot_id("/proc/sys/kernel/random/boot_id", NULL, boot);
    assert_int_equal(32, strlen(boot));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(leaps_move_nothing),
        cmocka_unit_test(drift_is_followed),
        cmocka_unit_test(restarts),
        cmocka_unit_test_setup_teardown(the_boot_id, set_up, tear_down),
    };

    return cmocka_run_group_tests_name("steady", tests, NULL, NULL);
}
