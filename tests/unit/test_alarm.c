/* The table of alarms, and those that are up. */
#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "common/alarm.h"
#include "common/clock.h"
#include "common/file.h"
#include "module/core/warnings.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ---- the table ---- */

static void table_is_whole(void **state)
{
    (void)state;
    for (int i = 0; i < ALARM_COUNT; i++) {
        const struct alarm_text *a = &alarm_table[i];
        enum alarm found = ALARM_COUNT;

        assert_non_null(a->id);
        assert_int_equal(strlen(a->id),
                         strspn(a->id, "abcdefghijklmnopqrstuvwxyz-"));
        assert_true(alarm_find(a->id, &found));
        assert_int_equal(found, i); /* no id is there twice */
        assert_true(strlen(a->meaning) > 10 && strlen(a->meaning) < 80);
        assert_true(strlen(a->remedy) > 5 && strlen(a->leases) > 10);
        assert_int_not_equal('.', a->remedy[strlen(a->remedy) - 1]);
    }
    assert_false(alarm_find("no-such-alarm", &(enum alarm){0}));
    assert_string_equal("critical", alarm_severity_name(ALARM_CRITICAL));
    assert_string_equal("warning", alarm_severity_name(ALARM_WARNING));
}

/* ---- the page ---- */

static void has_line(const char *section, const char *id, const char *fmt, ...)
{
    char line[512];
    const char *end = strstr(section + 1, "\n## ");
    const char *at;
    va_list ap;

    va_start(ap, fmt);
    vsnprintf(line, sizeof(line), fmt, ap);
    va_end(ap);
    at = strstr(section, line);
    if (!at || (end && at > end))
        fail_msg("spec/RUNBOOK.md, %s: it lacks the line%s", id, line);
}

static void runbook_says_the_same(void **state)
{
    (void)state;
    const char *top = getenv("top_srcdir");
    char path[512], heading[64];
    FREE char *page = NULL;
    struct error e = {.code = OK};
    int headings = 0;
    size_t len;

    snprintf(path, sizeof(path), "%s/spec/RUNBOOK.md", top ? top : "..");
    if (file_read(path, 1 << 20, FILE_ANY, &page, &len, &e) != OK)
        fail_msg("%s", e.text);
    for (int i = 0; i < ALARM_COUNT; i++) {
        const struct alarm_text *a = &alarm_table[i];
        const char *severity = alarm_severity_name(a->severity);
        const char *section;

        snprintf(heading, sizeof(heading), "\n## %s\n", a->id);
        section = strstr(page, heading);
        if (!section)
            fail_msg("spec/RUNBOOK.md has no section %s", a->id);
        has_line(page, a->id, "\n| [%s](#%s) | %s | %s |\n", a->id, a->id,
                 severity, a->meaning);
        has_line(section, a->id, "\n**%s**: %s.\n", severity, a->meaning);
        has_line(section, a->id, "\n**What to do:** %s.\n", a->remedy);
        has_line(section, a->id, "\n**Leases:** %s.\n", a->leases);
        has_line(section, a->id, "\nIt is over ");
    }
    for (const char *p = page; (p = strstr(p, "\n## ")); p++)
        headings++;
    assert_int_equal(headings, ALARM_COUNT);
}

/* ---- those that are up ---- */

static int64_t now_ms;

static int64_t test_ms(void *ctx)
{
    (void)ctx;
    return now_ms;
}

static const struct clock_source test_clock = {test_ms, test_ms, test_ms, NULL};

static const char *text_at(const json_t *list, size_t i, const char *name)
{
    return json_string_value(json_object_get(json_array_get(list, i), name));
}

static void raised_and_dropped(void **state)
{
    (void)state;
    struct warnings w = WARNINGS_INIT;
    int counts[ALARM_COUNT];

    clock_replace(&test_clock);
    now_ms = 1000;
    warnings_raise(&w, ALARM_SERVICE_RATE, "one", "%s", "slower");
    now_ms = 2000;
    warnings_raise(&w, ALARM_DISK, "/state", "full");
    warnings_raise(&w, ALARM_SERVICE_RATE, "one", "slower still");
    warnings_raise(&w, ALARM_SERVICE_RATE, "two", "slower");
    assert_true(warnings_has(&w, ALARM_SERVICE_RATE, "one"));
    assert_false(warnings_has(&w, ALARM_SERVICE_RATE, "three"));
    warnings_count(&w, counts);
    assert_int_equal(2, counts[ALARM_SERVICE_RATE]);
    assert_int_equal(1, counts[ALARM_DISK]);

    JSON list = warnings_json(&w);
    assert_int_equal(3, json_array_size(list));
    assert_string_equal("disk", text_at(list, 0, "id")); /* critical first */
    assert_string_equal("critical", text_at(list, 0, "severity"));
    assert_string_equal("one", text_at(list, 1, "object"));
    assert_string_equal("slower still", text_at(list, 1, "text"));
    assert_string_equal(alarm_table[ALARM_SERVICE_RATE].remedy,
                        text_at(list, 1, "remedy"));
    assert_int_equal(1000, json_integer_value(json_object_get(
                               json_array_get(list, 1), "since_ms")));

    warnings_drop(&w, ALARM_DISK, "/elsewhere");
    assert_true(warnings_has(&w, ALARM_DISK, "/state"));
    warnings_drop(&w, ALARM_DISK, "/state");
    assert_false(warnings_has(&w, ALARM_DISK, "/state"));
    warnings_drop_all(&w, ALARM_SERVICE_RATE);
    warnings_count(&w, counts);
    assert_int_equal(0, counts[ALARM_SERVICE_RATE]);
    warnings_clear(&w);
    clock_replace(NULL);
}

/* Texts may come from the service: none breaks the list. */
static void any_text_is_told(void **state)
{
    (void)state;
    struct warnings w = WARNINGS_INIT;
    char object[600], text[3000];

    memset(object, 'o', sizeof(object) - 1);
    object[sizeof(object) - 1] = '\0';
    for (size_t i = 0; i + 3 < sizeof(text); i += 2)
        memcpy(text + i, "\xc3\xa4", 3);
    warnings_raise(&w, ALARM_POLICY_FILES, object, "x%s", text);
    warnings_raise(&w, ALARM_POLICY_FILES, object, "bad \xff\x1b[0m");
    JSON list = warnings_json(&w);
    assert_int_equal(1, json_array_size(list));
    assert_string_equal("bad \\xff\\x1b[0m", text_at(list, 0, "text"));
    warnings_raise(&w, ALARM_POLICY_FILES, object, "x%s", text);
    JSON again = warnings_json(&w);
    assert_int_equal(1, json_array_size(again));
    warnings_drop(&w, ALARM_POLICY_FILES, object);
    assert_null(w.first);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(table_is_whole),
        cmocka_unit_test(runbook_says_the_same),
        cmocka_unit_test(raised_and_dropped),
        cmocka_unit_test(any_text_is_told),
    };
    return cmocka_run_group_tests_name("alarm", tests, NULL, NULL);
}
