/* Names of service accounts: what the pipeline syntax gives, and refuses. */
#include "config.h"

#include "module/core/golayout.h"
#include "module/core/template.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const struct template_input in = {
    .role = "my_app", .project = "Straße 7", .wall_ms = 1790809199123};

/* '#' stands for any of [a-z0-9]. */
static bool is_like(const char *pattern, const char *s)
{
    for (; *pattern && *s; pattern++, s++) {
        bool any = *pattern == '#' &&
                   ((*s >= 'a' && *s <= 'z') || (*s >= '0' && *s <= '9'));
        if (!any && *pattern != *s)
            return false;
    }
    return *pattern == *s;
}

static void test_gives(void **state)
{
    static const struct {
        const char *text, *like;
    } rows[] = {
        {"plain", "plain"},
        {TEMPLATE_DEFAULT, "vault-my_app-########"},
        {"{{.RoleName}}", "my_app"},
        {"{{ .RoleName }}", "my_app"},
        {"a {{- .RoleName -}} b", "amy_appb"},
        {"a b/c{{.RoleName}}", "a-b-cmy_app"},
        {"{{.ProjectName}}", "Stra-e-7"},
        {"{{.RoleName | truncate 2}}", "my"},
        {"{{truncate 2 .RoleName}}", "my"},
        {"{{truncate 99 .RoleName}}", "my_app"},
        {"{{.RoleName | replace \"_\" \"-\"}}", "my-app"},
        {"{{.RoleName | replace `_` `` | uppercase}}", "MYAPP"},
        {"{{replace \"p\" \"pp\" .RoleName}}", "my_apppp"},
        {"{{\"ABC\" | lowercase}}", "abc"},
        {"{{random 8}}", "########"},
        {"{{random 3}}{{.RandomSuffix}}", "###########"},
        {"{{.RandomSuffix | truncate 3}}", "###"},
        {"{{\"abc\" | sha256 | truncate 16}}", "ba7816bf8f01cfea"},
        {"{{\"hello\" | base64}}", "aGVsbG8-"},
        {"{{unix_time}}", "1790809199"},
        {"{{timestamp \"2006-01-02\"}}", "2026-09-30"},
        {"{{timestamp \"20060102T150405\"}}", "20260930T225959"},
        {"{{timestamp `Jan _2 3.04PM`}}", "Sep-30-10.59PM"},
        {"{{uuid}}", "########-####-4###-####-############"},
        {"{{(uppercase (truncate 2 .RoleName))}}", "MY"},
        {"{{\"a\\\"b\\\\c\"}}", "a-b-c"},
        {"}} {", "----"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        char out[TEMPLATE_ROOM + 1];
        struct error e = {0};

        if (template_render(rows[i].text, &in, out, &e) != OK)
            fail_msg("%s: %s", rows[i].text, e.text);
        if (!is_like(rows[i].like, out))
            fail_msg("%s gave %s, not %s", rows[i].text, out, rows[i].like);
    }
}

static void test_refuses(void **state)
{
    static const struct {
        const char *text, *says;
    } rows[] = {
        {"", "characters"},
        {"{{.Role}}", "unknown variable .Role"},
        {"{{.RoleNames}}", "unknown variable"},
        {"{{.RoleName.x}}", "unknown variable"},
        {"{{.DisplayName}}", "unknown variable"},
        {"{{printf \"%s\" .RoleName}}", "unknown function \"printf\""},
        {"{{if .RoleName}}x{{end}}", "unknown function \"if\""},
        {"{{random}}", "takes 1 arguments, not 0"},
        {"{{random 0}}", "1 to 64"},
        {"{{random 65}}", "1 to 64"},
        {"{{random 99999999999999999999}}", "1 to 64"},
        {"{{random \"8\"}}", "is to be a number"},
        {"{{random 8 8}}", "takes 1 arguments, not 2"},
        {"{{random 1 2 3 4}}", "takes 1 arguments"},
        {"{{8 | random}}{{8 | random 8}}", "takes 1 arguments, not 2"},
        {"{{truncate 0 .RoleName}}", "1 or more"},
        {"{{truncate .RoleName 2}}", "is to be a number"},
        {"{{uppercase 8}}", "is to be a text"},
        {"{{replace \"\" \"x\" .RoleName}}", "a text to look for"},
        {"{{unix_time 1}}", "takes 0 arguments"},
        {"{{.RoleName | .ProjectName}}", "behind | comes a function"},
        {"{{.RoleName | }}", "behind | comes a function"},
        {"{{.RoleName", "}} is missing"},
        {"{{", "unexpected text"},
        {"{{}}", "unexpected text"},
        {"{{\"abc}}", "not closed"},
        {"{{`abc}}", "not closed"},
        {"{{\"a\\n\"}}", "only"},
        {"{{(.RoleName}}", ") is missing"},
        {"{{((((((((((.RoleName))))))))))}}", "nested too deep"},
        {"{{.RoleName .RoleName}}", "}} is missing"},
        {"\xff", "UTF-8"},
        {"{{random 46}}", "46 characters"},
        {"{{\"abc\" | sha256}}", "64 characters"},
        {"{{\"\"}}", "empty"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct error e = {0};

        if (template_check(rows[i].text, &in, &e) != ERR_INVALID)
            fail_msg("%s is taken", rows[i].text);
        if (!strstr(e.text, rows[i].says))
            fail_msg("%s: \"%s\" does not say \"%s\"", rows[i].text, e.text,
                     rows[i].says);
    }
}

static void test_names_are_shortened_first(void **state)
{
    struct template_input big = {.wall_ms = in.wall_ms};
    char role[64], out[TEMPLATE_ROOM + 1];
    struct error e = {0};

    (void)state;
    memset(role, 'r', 63);
    role[63] = '\0';
    big.role = big.project = role;
    assert_int_equal(
        OK, template_render("x-{{.RoleName}}-{{random 12}}", &big, out, &e));
    assert_int_equal(TEMPLATE_ROOM, strlen(out));
    assert_true(is_like("-############", strrchr(out, '-')));
    assert_int_equal(
        OK, template_render("{{.ProjectName}}-{{.RoleName}}-{{.RandomSuffix}}",
                            &big, out, &e));
    assert_true(strlen(out) <= TEMPLATE_ROOM && strlen(out) > 40);
    assert_true(is_like("-########", strrchr(out, '-')));
    /* The longest text of all is refused, not cut. */
    char *text = malloc(TEMPLATE_TEXT_MAX + 2);
    memset(text, 'a', TEMPLATE_TEXT_MAX + 1);
    text[TEMPLATE_TEXT_MAX + 1] = '\0';
    assert_int_equal(ERR_INVALID, template_render(text, &big, out, &e));
    text[TEMPLATE_TEXT_MAX] = '\0';
    assert_int_equal(ERR_INVALID, template_render(text, &big, out, &e));
    free(text);
}

/* A month's name makes it too long: known when the role is written. */
static void test_longest_day(void **state)
{
    struct template_input may = {
        .role = "r", .project = "p", .wall_ms = 1778000000000};
    const char *text = "{{timestamp \"Monday January\"}}"
                       "-aaaaaaaaaaaaaaaaaaaaaaaaaa";
    char out[TEMPLATE_ROOM + 1];
    struct error e = {0};

    (void)state;
    assert_int_equal(OK, template_render(text, &may, out, &e));
    assert_int_equal(ERR_INVALID, template_check(text, &may, &e));
}

static void test_layouts(void **state)
{
    static const struct {
        const char *layout, *gives;
    } rows[] = {
        {"2006-01-02T15:04:05Z07:00", "2026-09-30T22:59:59Z"},
        {"Mon Jan _2 15:04:05 2006", "Wed Sep 30 22:59:59 2026"},
        {"Monday, 02-Jan-06 15:04:05 MST", "Wednesday, 30-Sep-26 22:59:59 UTC"},
        {"02 Jan 06 15:04 -0700", "30 Sep 26 22:59 +0000"},
        {"3:04PM pm", "10:59PM pm"},
        {"1/2/06 3:4:5", "9/30/26 10:59:59"},
        {"15:04:05.000", "22:59:59.123"},
        {"002", "273"},
        {"", ""},
        {"text", "text"},
    };
    char out[64];

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        golayout_format(out, sizeof(out), rows[i].layout, in.wall_ms);
        assert_string_equal(rows[i].gives, out);
    }
    assert_int_equal(10, golayout_format(out, 5, "2006-01-02", in.wall_ms));
    assert_string_equal("2026", out);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gives),
        cmocka_unit_test(test_refuses),
        cmocka_unit_test(test_names_are_shortened_first),
        cmocka_unit_test(test_longest_day),
        cmocka_unit_test(test_layouts),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
