/* States of the HSM's keys: the table, their documents. */
#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "module/core/keystate.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define COUNT(a) (sizeof(a) / sizeof((a)[0]))

/* The table of spec/SEAL.md, "States", row by row. */
static void derived(void **state)
{
    static const struct {
        enum keyplace place;
        const char *is, *compromised;
    } rows[] = {
        {KEYPLACE_PLANNED, "pre-activation", "pre-activation"},
        {KEYPLACE_IN_USE, "active", "active"},
        {KEYPLACE_SIGNS, "active", "compromised"},
        {KEYPLACE_OPENS, "deactivated", "compromised"},
        {KEYPLACE_KEPT, "deactivated", "compromised"},
        {KEYPLACE_DESTROYED, "destroyed", "destroyed-compromised"},
        {KEYPLACE_NONE, "destroyed", "destroyed-compromised"},
    };

    (void)state;
    assert_int_equal(KEYPLACES, COUNT(rows));
    for (size_t i = 0; i < COUNT(rows); i++) {
        assert_string_equal(rows[i].is,
                            keystate_name(keystate_of(rows[i].place, false)));
        assert_string_equal(rows[i].compromised,
                            keystate_name(keystate_of(rows[i].place, true)));
    }
}

static void named(void **state)
{
    enum keystate s;
    enum keyplace p;

    (void)state;
    for (int i = 0; i < KEYSTATES; i++) {
        assert_true(keystate_find(keystate_name((enum keystate)i), &s));
        assert_int_equal(i, s);
    }
    assert_false(keystate_find("suspended", &s));
    assert_true(keyplace_of_role("signs", &p));
    assert_int_equal(KEYPLACE_SIGNS, p);
    assert_true(keyplace_of_role("destroyed", &p));
    assert_int_equal(KEYPLACE_DESTROYED, p);
    assert_false(keyplace_of_role("in use", &p));
    assert_string_equal("signs calls",
                        keyplace_purpose("call", KEYPLACE_IN_USE));
    assert_string_equal("opens", keyplace_purpose("seal", KEYPLACE_OPENS));
    assert_string_equal("verifies", keyplace_purpose("log", KEYPLACE_DESTROYED));
    assert_string_equal("none", keyplace_purpose("seal", KEYPLACE_DESTROYED));
    assert_string_equal("none", keyplace_purpose("hmac", KEYPLACE_IN_USE));
}

static struct keystate_doc made(void)
{
    struct keystate_doc d = {.label = "hsmint-call-2",
                             .use = "call",
                             .id = "00112233445566778899aabbccddee02",
                             .version = 2,
                             .declared_ms = 1700000000000};

    memset(d.fingerprint, 'a', 64);
    for (int i = 0; i < 3; i++) {
        struct keystate_date at = {.state = (enum keystate)i,
                                   .at_ms = 1700000000000 + i,
                                   .exact = i != 1};

        snprintf(at.reason, sizeof at.reason, "reason %d", i);
        keystate_add(&d, &at);
    }
    return d;
}

static void documents(void **state)
{
    struct keystate_doc d = made(), back;
    struct error e = {0};
    char *text = keystate_format(&d);

    (void)state;
    assert_non_null(text);
    assert_int_equal(OK, keystate_parse(&back, d.label, text, &e));
    assert_memory_equal(&d, &back, sizeof d);
    assert_int_equal(1700000000001,
                     keystate_first(&back, KEYSTATE_ACTIVE)->at_ms);
    assert_null(keystate_first(&back, KEYSTATE_DESTROYED));
    assert_int_equal(KEYSTATE_DEACTIVATED, keystate_now(&back)->state);
    free(text);
}

static void refused(const char *body, const char *part)
{
    struct keystate_doc d;
    struct error e = {0};

    if (keystate_parse(&d, "hsmint-call-1", body, &e) == OK)
        fail_msg("taken: %s", body);
    if (!strstr(e.text, part))
        fail_msg("%s: \"%s\" lacks \"%s\"", body, e.text, part);
}

static void refusals(void **state)
{
    (void)state;
    refused("", "key");
    refused("[]", "object");
    refused("{\"use\":\"call\",\"version\":1}", "dates");
    refused("{\"use\":\"call\",\"version\":1,\"dates\":[]}", "0 dates");
    refused("{\"use\":\"call\",\"version\":1,\"dates\":[{\"state\":"
            "\"suspended\",\"at_ms\":1}]}",
            "\"suspended\" is unknown");
    refused("{\"use\":\"a use that has too many letters\",\"version\":1,"
            "\"dates\":[{\"state\":\"active\",\"at_ms\":1}]}",
            "too long");
    refused("{\"use\":\"call\",\"version\":1,\"more\":1,\"dates\":[{\"state\":"
            "\"active\",\"at_ms\":1}]}",
            "more");
}

/* The first date, when it was made, is never lost. */
static void many_dates(void **state)
{
    struct keystate_doc d = {.label = "hsmint-log-1", .use = "log"};

    (void)state;
    for (int i = 0; i < 100; i++) {
        struct keystate_date at = {.state = KEYSTATE_ACTIVE, .at_ms = i};

        keystate_add(&d, &at);
        assert_int_equal(0, d.dates[0].at_ms);
        assert_int_equal(i, keystate_now(&d)->at_ms);
    }
    assert_int_equal(KEYSTATE_DATES_MAX, d.n);
    assert_int_equal(98, d.dates[d.n - 2].at_ms);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(derived),   cmocka_unit_test(named),
        cmocka_unit_test(documents), cmocka_unit_test(refusals),
        cmocka_unit_test(many_dates),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
