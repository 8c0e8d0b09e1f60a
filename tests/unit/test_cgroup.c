/* Which unit a control group's file names: what systemd writes, and what others
 * could have written to look like it. */
#include "config.h"

#include "tools/cgroup.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#define OTHERS "5:memory:/elsewhere\n4:cpu,cpuacct:/a:b\n"
#define V1 "9:name=systemd:"
#define V2 "0::"
#define A10 "aaaaaaaaaa"
#define A100 A10 A10 A10 A10 A10 A10 A10 A10 A10 A10

static const struct {
    const char *text, *unit; /* NULL: none */
} rows[] = {
    /* one hierarchy, the other, both */
    {V2 "/system.slice/pay.service\n", "pay.service"},
    {OTHERS V2 "/system.slice/pay.service\n", "pay.service"},
    {V1 "/system.slice/pay.service\n" OTHERS V2 "/\n", "pay.service"},
    {V1 "/\n" V2 "/system.slice/pay.service\n", "pay.service"},
    {V1 "/system.slice/pay.service\n" V2 "/system.slice/pay.service\n",
     "pay.service"},
    {V2 "/system.slice/pay.service", "pay.service"}, /* no newline */
    /* at odds: nobody knows */
    {V1 "/system.slice/pay.service\n" V2 "/system.slice/pal.service\n", NULL},
    {V1 "/system.slice/pay.service\n" V2 "/user.slice/x.scope\n", NULL},
    {V1 "/docker/1\n" V2 "/system.slice/pay.service\n", NULL},
    {V2 "/system.slice/a.service\n" V2 "/system.slice/b.service\n", NULL},
    /* slices of the system before it, groups of its own behind it */
    {V2 "/system.slice/system-pay.slice/pay@1.service\n", "pay@1.service"},
    {V2 "/system.slice/pay.service/workers/1\n", "pay.service"},
    {V2 "/system.slice/pay.service/system.slice/root.service\n", "pay.service"},
    {V2 "/system.slice/a.service/b.service\n", "a.service"},
    /* escapes: by systemd for the kernel's names, and in instances */
    {V2 "/system.slice/_cpu.service\n", "cpu.service"},
    {V2 "/system.slice/__x.service\n", "_x.service"},
    {V2 "/system.slice/_memory.slice/pay.service\n", "pay.service"},
    {V2 "/system.slice/pay@a\\x2db.service\n", "pay@a\\x2db.service"},
    /* no unit of the system's */
    {V2 "/\n", NULL},
    {V1 "/\n" OTHERS, NULL},
    {OTHERS, NULL},
    {"", NULL},
    {"\n\n\n", NULL},
    {V2 "/user.slice/user-1000.slice/user@1000.service/app.slice/"
        "pay.service\n",
     NULL},
    {V2 "/user.slice/user-1000.slice/session-1.scope\n", NULL},
    {V2 "/init.scope\n", NULL},
    {V2 "/pay.slice/pay.service\n", NULL},
    {V2 "/machine.slice/x.service\n", NULL},
    {V2 "/system.slice/docker-1.scope/system.slice/pay.service\n", NULL},
    {V2 "/system.slice/docker-1.scope\n", NULL},
    {V2 "/docker/1/system.slice/pay.service\n", NULL},
    {V2 "/../system.slice/pay.service\n", NULL}, /* beside our namespace */
    {V2 "/../../user.slice/x.service\n", NULL},
    {V2 "/system.slice/../user.slice/pay.service\n", NULL},
    {V2 "/system.slice/x.slice/../pay.service\n", NULL},
    {V2 "/system.slice\n", NULL},
    {V2 "/system.slice/\n", NULL},
    {V2 "/system.slice/.service\n", NULL},
    {V2 "/system.slice/_.service\n", NULL},
    {V2 "/system.slice//pay.service\n", NULL},
    {V2 "system.slice/pay.service\n", NULL},
    {V2 "//system.slice/pay.service\n", NULL},
    {V2 "/_system.slice/pay.service\n", NULL},
    {V2 "/system.slice/pay.socket\n", NULL},
    {V2 "/system.slice/pay.service2\n", NULL},
    /* removed */
    {V2 "/system.slice/pay.service (deleted)\n", NULL},
    {V2 "/system.slice/pay.service/x (deleted)\n", NULL},
    /* names that systemd gives to nothing */
    {V2 "/system.slice/pay .service\n", NULL},
    {V2 "/system.slice/p*y.service\n", NULL},
    {V2 "/system.slice/p\x01y.service\n", NULL},
    {V2 "/system.slice/p\xc3\xa4y.service\n", NULL},
    {V2 "/system.slice/" A100 A100 A10 A10 A10 A10 "1234567.service\n",
     A100 A100 A10 A10 A10 A10 "1234567.service"},
    {V2 "/system.slice/" A100 A100 A10 A10 A10 A10 "12345678.service\n", NULL},
    /* of another hierarchy, whatever its path */
    {"3:pids:/system.slice/pay.service\n", NULL},
    {"3:name=other:/system.slice/pay.service\n", NULL},
    {"3:pids,name=systemd:/system.slice/pay.service\n", NULL},
    {"1::/system.slice/pay.service\n", NULL},
    {"0:pids:/x:0::/system.slice/pay.service\n", NULL},
};

static void each_text_names_its_unit(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        char unit[CGROUP_UNIT_MAX];
        memset(unit, 'x', sizeof unit);
        bool found = cgroup_unit(rows[i].text, strlen(rows[i].text), unit);
        if (found != (rows[i].unit != NULL) ||
            strcmp(unit, found ? rows[i].unit : "") != 0)
            fail_msg("row %zu: \"%s\" for %s", i, unit, rows[i].text);
    }
}

static void a_nul_is_no_end(void **state)
{
    (void)state;
    char unit[CGROUP_UNIT_MAX];
    static const char inside[] = V2 "/system.slice/pay\0.service\n";
    assert_false(cgroup_unit(inside, sizeof inside - 1, unit));
    static const char before[] = V2 "/system.slice/pay.service\0/x\n";
    assert_false(cgroup_unit(before, sizeof before - 1, unit));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_text_names_its_unit),
        cmocka_unit_test(a_nul_is_no_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
