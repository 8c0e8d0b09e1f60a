#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "common/buffer.h"
#include "common/file.h"
#include "common/json.h"

#include <stdlib.h>
#include <string.h>

struct all {
    const char *s;
    json_int_t n;
    bool flag;
    json_t *object, *array, *any;
    bool has_n;
};

static enum code decode(const char *text, bool allow_unknown, struct all *a,
                        json_t **keep, struct error *e)
{
    const struct json_field fields[] = {
        {"s", FIELD_STRING, true, &a->s, NULL},
        {"n", FIELD_INT, false, &a->n, &a->has_n},
        {"flag", FIELD_BOOL, false, &a->flag, NULL},
        {"object", FIELD_OBJECT, false, &a->object, NULL},
        {"array", FIELD_ARRAY, false, &a->array, NULL},
        {"any", FIELD_ANY, false, &a->any, NULL},
    };
    enum code rc = json_parse(text, strlen(text), "thing", keep, e);
    if (rc)
        return rc;
    return json_decode(*keep, JSON_FIELDS(fields), allow_unknown, "thing", e);
}

static void fields_are_taken(void **state)
{
    (void)state;
    JSON keep = NULL;
    struct all a = {.n = 5};
    assert_int_equal(decode("{\"s\":\"x\",\"n\":-3,\"flag\":true,\"object\":{},"
                            "\"array\":[1],\"any\":1.5}",
                            false, &a, &keep, NULL),
                     OK);
    assert_string_equal(a.s, "x");
    assert_int_equal(a.n, -3);
    assert_true(a.has_n && a.flag);
    assert_true(json_is_object(a.object) && json_is_array(a.array));
    assert_true(json_is_real(a.any));
}

static void absent_and_null_leave_the_default(void **state)
{
    (void)state;
    JSON keep = NULL;
    struct all a = {.n = 5, .has_n = true};
    assert_int_equal(
        decode("{\"s\":\"x\",\"n\":null,\"any\":null}", false, &a, &keep, NULL),
        OK);
    assert_int_equal(a.n, 5);
    assert_false(a.has_n);
    assert_null(a.any);
}

static void refuse(const char *text, const char *why)
{
    JSON keep = NULL;
    struct all a = {0};
    struct error e;
    assert_int_equal(decode(text, false, &a, &keep, &e), ERR_INVALID);
    if (!strstr(e.text, why))
        fail_msg("%s: \"%s\" does not say \"%s\"", text, e.text, why);
}

static void refusals_say_why(void **state)
{
    (void)state;
    refuse("{}", "\"s\" is missing");
    refuse("{\"s\":null}", "\"s\" is missing");
    refuse("{\"s\":\"x\",\"t\":1}", "unknown field \"t\"");
    refuse("{\"s\":1}", "\"s\" must be a string");
    refuse("{\"s\":\"x\",\"n\":1.0}", "\"n\" must be a whole number");
    refuse("{\"s\":\"x\",\"n\":\"1\"}", "\"n\" must be a whole number");
    refuse("{\"s\":\"x\",\"flag\":1}", "\"flag\" must be true or false");
    refuse("{\"s\":\"x\",\"object\":[]}", "\"object\" must be an object");
    refuse("{\"s\":\"x\",\"array\":{}}", "\"array\" must be an array");
    refuse("[]", "not a JSON object");
    refuse("{\"s\":\"x\",\"s\":\"y\"}", "comes twice");
    refuse("{\"s\":\"a\\u0000b\"}", "NUL");
    refuse("{\"s\":\"x\"} x", "after its end");
    refuse("{\"s\":", "ends too early");
    refuse("{\"s\":\"\xff\"}", "UTF-8");
    refuse("{\"s\":\"x\",\"n\":99999999999999999999}", "too large");
    refuse("nonsense", "not JSON");
    refuse("", "ends too early");
}

static void nul_inside_a_string_is_refused(void **state)
{
    (void)state;
    JSON o = json_object();
    const char *s = NULL;
    const struct json_field fields[] = {{"s", FIELD_STRING, true, &s, NULL}};
    json_object_set_new(o, "s", json_stringn("a\0b", 3));
    assert_int_equal(json_decode(o, JSON_FIELDS(fields), false, "x", NULL),
                     ERR_INVALID);
    assert_null(s);
}

static void unknown_fields_may_be_allowed(void **state)
{
    (void)state;
    JSON keep = NULL;
    struct all a = {0};
    assert_int_equal(decode("{\"s\":\"x\",\"t\":1}", true, &a, &keep, NULL),
                     OK);
}

/* A reply that is cut in the middle of a key must not put it into a text. */
static void texts_do_not_quote_the_input(void **state)
{
    (void)state;
    static const char text[] = "{\"value\":\"sk-svcacct-SECRET\" oops}";
    struct error e;
    json_t *j;
    assert_int_equal(json_parse(text, sizeof text - 1, "reply", &j, &e),
                     ERR_INVALID);
    assert_null(j);
    assert_null(strstr(e.text, "SECRET"));
    assert_non_null(strstr(e.text, ":1:"));
}

static void depth_is_bounded(void **state)
{
    (void)state;
    size_t n = 200000;
    char *text = malloc(n);
    memset(text, '[', n);
    struct error e;
    json_t *j;
    assert_int_equal(json_parse(text, n, "deep", &j, &e), ERR_INVALID);
    assert_non_null(strstr(e.text, "too deep"));
    free(text);
}

static void depth_of_small_stacks(void **state)
{
    (void)state;
    char text[2 * JSON_DEPTH_MAX + 3] = "", quoted[256] = "[\"\\\"";
    json_t *j;
    memset(text, '[', JSON_DEPTH_MAX);
    memset(text + JSON_DEPTH_MAX, ']', JSON_DEPTH_MAX);
    assert_int_equal(json_parse(text, 2 * JSON_DEPTH_MAX, "x", &j, NULL), OK);
    json_decref(j);
    memset(text, '[', JSON_DEPTH_MAX + 1);
    memset(text + JSON_DEPTH_MAX + 1, ']', JSON_DEPTH_MAX + 1);
    assert_int_equal(json_parse(text, 2 * JSON_DEPTH_MAX + 2, "x", &j, NULL),
                     ERR_INVALID);
    /* Brackets in strings are none. */
    memset(quoted + 4, '[', 100);
    strcpy(quoted + 104, "\\\\\"]");
    assert_int_equal(json_parse(quoted, strlen(quoted), "x", &j, NULL), OK);
    json_decref(j);
}

static void any_value_can_be_parsed(void **state)
{
    (void)state;
    JSON j = NULL;
    assert_int_equal(json_parse("12", 2, "x", &j, NULL), OK);
    assert_int_equal(json_integer_value(j), 12);
}

static void buffers_grow_to_their_bound(void **state)
{
    (void)state;
    BUFFER b = BUFFER_INIT(3000);
    char block[1000];
    struct error e;
    memset(block, 'a', sizeof block);
    for (int i = 0; i < 3; i++)
        assert_int_equal(buffer_append(&b, block, sizeof block, NULL), OK);
    assert_int_equal(b.len, 3000);
    assert_int_equal(buffer_append(&b, "", 0, NULL), OK);
    assert_int_equal(buffer_append(&b, "x", 1, &e), ERR_PROTOCOL);
    assert_int_equal(b.len, 3000);
    b.data[2999] = 'z';
    buffer_consume(&b, 2999);
    assert_int_equal(b.len, 1);
    assert_int_equal(b.data[0], 'z');
    buffer_consume(&b, 10);
    assert_int_equal(b.len, 0);
    assert_int_equal(buffer_reserve(&b, SIZE_MAX, NULL), ERR_PROTOCOL);
}

static void json_goes_into_buffers(void **state)
{
    (void)state;
    BUFFER b = BUFFER_INIT(64);
    JSON j = json_pack("{s:i}", "a", 1);
    assert_int_equal(buffer_append_json(&b, j, JSON_COMPACT, NULL), OK);
    assert_int_equal(b.len, 7);
    assert_memory_equal(b.data, "{\"a\":1}", 7);
    JSON large = json_pack("{s:s}", "a",
                           "01234567890123456789012345678901234567890123456789"
                           "0123456789");
    assert_int_equal(buffer_append_json(&b, large, JSON_COMPACT, NULL), ERR_PROTOCOL);
    assert_int_equal(buffer_append_json(&b, NULL, JSON_COMPACT, NULL), ERR_INTERNAL);
}

/* Jansson forgets a failure at a member's name. */
static void no_piece_is_left_out(void **state)
{
    (void)state;
    JSON j = json_pack("{s:i, s:{s:s, s:[s, n]}}", "first", 1, "second", "a",
                       "b", "c", "d");
    FREE char *text = json_text(j, JSON_COMPACT);
    assert_string_equal(text,
                        "{\"first\":1,\"second\":{\"a\":\"b\",\"c\":[\"d\",null]}}");
    for (size_t max = 0; max < strlen(text); max++) {
        BUFFER b = BUFFER_INIT(max);
        assert_int_equal(buffer_append_json(&b, j, JSON_COMPACT, NULL),
                         ERR_PROTOCOL);
    }
}

static void texts_as_asked(void **state)
{
    (void)state;
    JSON j = json_pack("{s:i, s:i}", "b", 1, "a", 2);
    FREE char *sorted = json_text(j, JSON_COMPACT | JSON_SORT_KEYS);
    FREE char *lines = json_text(j, JSON_INDENT(2));
    assert_string_equal(sorted, "{\"a\":2,\"b\":1}");
    assert_string_equal(lines, "{\n  \"b\": 1,\n  \"a\": 2\n}");
    assert_null(json_text(NULL, JSON_COMPACT));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fields_are_taken),
        cmocka_unit_test(absent_and_null_leave_the_default),
        cmocka_unit_test(refusals_say_why),
        cmocka_unit_test(nul_inside_a_string_is_refused),
        cmocka_unit_test(unknown_fields_may_be_allowed),
        cmocka_unit_test(texts_do_not_quote_the_input),
        cmocka_unit_test(depth_is_bounded),
        cmocka_unit_test(depth_of_small_stacks),
        cmocka_unit_test(any_value_can_be_parsed),
        cmocka_unit_test(buffers_grow_to_their_bound),
        cmocka_unit_test(json_goes_into_buffers),
        cmocka_unit_test(no_piece_is_left_out),
        cmocka_unit_test(texts_as_asked),
    };
    return cmocka_run_group_tests_name("json", tests, NULL, NULL);
}
