/* Names of users and groups: what the host says of them, and what it means that it
 * cannot say. */
#include "config.h"

#include "module/core/names.h"

#include "common/file.h"

#include <errno.h>
#include <grp.h>
#include <pwd.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* ---- in the place of the C library's ---- */

static int host_says; /* errno of a name service that fails, 0: nobody there */
static int asked;

int getpwuid_r(uid_t uid, struct passwd *row, char *buffer, size_t len,
               struct passwd **out)
{
    (void)uid, (void)row, (void)buffer, (void)len;
    asked++;
    *out = NULL;
    return host_says;
}

int getgrnam_r(const char *name, struct group *row, char *buffer, size_t len,
               struct group **out)
{
    (void)name;
    asked++;
    *out = NULL;
    if (len < 10000)
        return ERANGE; /* a group with many members */
    if (host_says)
        return host_says;
    *row = (struct group){.gr_name = strcpy(buffer, "wheel"), .gr_gid = 42};
    *out = row;
    return 0;
}

/* ---- tests ---- */

static void nobody_is_an_answer(void **state)
{
    static const int none[] = {0, ENOENT, ESRCH};

    (void)state;
    for (size_t i = 0; i < sizeof none / sizeof none[0]; i++) {
        struct name_cache n = NAMES_INIT;
        FREE char *name = NULL;

        host_says = none[i];
        asked = 0;
        assert_int_equal(OK, names_of(&n, NAMES_USER, 7, &name, NULL));
        assert_null(name);
        assert_int_equal(OK, names_of(&n, NAMES_USER, 7, &name, NULL));
        assert_int_equal(1, asked); /* kept */
        names_clear(&n);
    }
}

/* A policy that denies by name has to be told, or it would let somebody in. */
static void failing_is_none(void **state)
{
    static const int failing[] = {EPERM, EBADF, EIO, EACCES, ECONNREFUSED,
                                  EAGAIN};

    (void)state;
    for (size_t i = 0; i < sizeof failing / sizeof failing[0]; i++) {
        struct name_cache n = NAMES_INIT;
        struct error e = {0};
        FREE char *name = NULL;
        uint32_t id = 0;
        bool found = true;

        host_says = failing[i];
        asked = 0;
        assert_int_not_equal(OK, names_of(&n, NAMES_USER, 7, &name, &e));
        assert_non_null(strstr(e.text, "user 7 cannot be looked up"));
        assert_int_not_equal(OK, names_of(&n, NAMES_USER, 7, &name, &e));
        assert_int_equal(2, asked); /* not kept */
        assert_int_not_equal(
            OK, names_number(NAMES_GROUP, "wheel", &id, &found, &e));
        assert_non_null(strstr(e.text, "group wheel cannot be looked up"));
        assert_false(found);
        names_clear(&n);
    }
}

static void long_answers_fit(void **state)
{
    uint32_t id = 0;
    bool found = false;

    (void)state;
    host_says = 0;
    assert_int_equal(OK, names_number(NAMES_GROUP, "wheel", &id, &found, NULL));
    assert_true(found);
    assert_int_equal(42, id);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nobody_is_an_answer),
        cmocka_unit_test(failing_is_none),
        cmocka_unit_test(long_answers_fit),
    };

    return cmocka_run_group_tests_name("names", tests, NULL, NULL);
}
