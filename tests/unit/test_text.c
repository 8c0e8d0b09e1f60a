#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "common/clock.h"
#include "common/text.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void durations(void **state)
{
    static const struct {
        const char *text;
        int64_t seconds;
    } good[] = {
        {"90s", 90},     {"15m", 900},        {"1h", 3600}, {"7d", 604800},
        {"1h30m", 5400}, {"3600", 3600},      {"1", 1},     {"1d2h3m4s", 93784},
        {"0h1s", 1},     {"3649d", 315273600}};
    static const char *const bad[] = {"",
                                      "0",
                                      "0s",
                                      "-1",
                                      "-1h",
                                      "1x",
                                      "h",
                                      "1.5h",
                                      " 1h",
                                      "1h ",
                                      "1 h",
                                      "30m1h",
                                      "1h1h",
                                      "1h30",
                                      "3650d",
                                      "315360000",
                                      "99999999999999999999",
                                      "99999999999999999999d",
                                      "1H",
                                      "+5",
                                      "0x10",
                                      "9223372036854775807s",
                                      "1h\n"};
    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        int64_t s = 0;
        assert_int_equal(text_duration(good[i].text, &s, NULL), OK);
        assert_int_equal(s, good[i].seconds);
    }
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct error e;
        int64_t s;
        if (text_duration(bad[i], &s, &e) != ERR_INVALID)
            fail_msg("\"%s\" was taken", bad[i]);
        assert_non_null(strstr(e.text, "duration"));
    }
    int64_t s;
    assert_int_equal(text_duration(NULL, &s, NULL), ERR_INVALID);
}

static void durations_are_written(void **state)
{
    (void)state;
    char b[TEXT_DURATION_MAX];
    assert_string_equal(text_duration_format(0, b), "0s");
    assert_string_equal(text_duration_format(59, b), "59s");
    assert_string_equal(text_duration_format(5400, b), "1h30m");
    assert_string_equal(text_duration_format(604800, b), "7d");
    assert_string_equal(text_duration_format(-61, b), "-1m1s");
    assert_true(strlen(text_duration_format(INT64_MIN, b)) < sizeof b);
}

static void utf8(void **state)
{
    static const char *const good[] = {"",
                                       "a",
                                       "\xc3\xa9",
                                       "\xe2\x82\xac",
                                       "\xf0\x9f\x94\x91",
                                       "\xef\xbf\xbf",
                                       "\xf4\x8f\xbf\xbf"};
    static const char *const bad[] = {"\x80",
                                      "\xc3",
                                      "\xc0\x80",
                                      "\xe0\x80\x80",
                                      "\xed\xa0\x80",
                                      "\xf4\x90\x80\x80",
                                      "\xf8\x88\x80\x80\x80",
                                      "\xff",
                                      "a\xc3("};
    (void)state;
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++)
        assert_true(text_utf8_valid(good[i], strlen(good[i])));
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_false(text_utf8_valid(bad[i], strlen(bad[i])));
}

static void escape(const char *in, size_t len, const char *wanted)
{
    char out[256];
    size_t n = text_escape(out, sizeof out, in, len);
    assert_string_equal(out, wanted);
    assert_int_equal(n, strlen(wanted));
}

static void escapes(void **state)
{
    (void)state;
    escape("plain \xc3\xa9 \\", 10, "plain \xc3\xa9 \\");
    escape("a\0b\r\n\t", 6, "a\\x00b\\x0d\\x0a\\x09");
    escape("\x1b[2J\x7f", 5, "\\x1b[2J\\x7f");
    escape("\xc2\x9b", 2, "\\xc2\\x9b");          /* C1: CSI */
    escape("\xe2\x80\xae", 3, "\\xe2\\x80\\xae"); /* right-to-left */
    escape("\xe2\x81\xa9", 3, "\\xe2\\x81\\xa9"); /* isolate's end */
    escape("\xd8\x9c", 2, "\\xd8\\x9c");          /* Arabic letter mark */
    escape("\xe2\x80\xa8", 3, "\\xe2\\x80\\xa8"); /* line separator */
    escape("\xe2\x80\xaf", 3, "\xe2\x80\xaf");    /* a mere space */
    escape("\xff\xc3(", 3, "\\xff\\xc3(");
}

/* Every text is had back, and no two are quoted alike. */
static void quotes_are_turned_back(void **state)
{
    static const char *const texts[] = {"plain", "\\", "\\x0a", "\n", "\\\n",
                                        "a\\x5cb", "\xff\\x"};
    (void)state;
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        char quoted[64], back[64] = "";
        size_t n = text_quote(quoted, sizeof quoted, texts[i], strlen(texts[i]));
        size_t at = 0;
        for (size_t k = 0; k < n; at++) {
            unsigned byte = (unsigned char)quoted[k];
            if (byte == '\\')
                assert_int_equal(1, sscanf(quoted + k, "\\x%2x", &byte));
            k += quoted[k] == '\\' ? 4 : 1;
            back[at] = (char)byte;
        }
        back[at] = '\0';
        assert_string_equal(back, texts[i]);
    }
    char quoted[8];
    assert_int_equal(4, text_quote(quoted, sizeof quoted, "\\\\", 2));
    assert_string_equal(quoted, "\\x5c");
}

static void escapes_are_cut_whole(void **state)
{
    (void)state;
    char out[8];
    assert_int_equal(text_escape(out, 8, "abcdef\xc3\xa9", 8), 6);
    assert_string_equal(out, "abcdef");
    assert_int_equal(text_escape(out, 8, "abcd\n", 5), 4);
    assert_int_equal(text_escape(out, 1, "abc", 3), 0);
    assert_string_equal(out, "");
    assert_int_equal(text_escape(NULL, 0, "abc", 3), 0);
}

static void names(void **state)
{
    (void)state;
    char longest[65];
    struct error e;
    memset(longest, 'a', 64);
    longest[64] = '\0';
    assert_int_equal(text_check_name("role", "my-app.v1_x", NULL), OK);
    assert_int_equal(text_check_name("role", "0", NULL), OK);
    assert_int_equal(text_check_name("role", longest + 1, NULL), OK);
    assert_int_equal(text_check_name("role", longest, NULL), ERR_INVALID);
    assert_int_equal(text_check_name("role", "admin-key", &e), ERR_INVALID);
    assert_non_null(strstr(e.text, "admin-key"));
    static const char *const bad[] = {"",    "-a",     ".a",   "_a",
                                      "a b", "a/b",    "a\n",  "\xc3\xa9",
                                      "a*",  "a\r\nb", "a\"b", NULL};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_int_equal(text_check_name("role", bad[i], &e), ERR_INVALID);
    assert_memory_equal(e.text, "role ", 5);
}

static void service_ids(void **state)
{
    (void)state;
    char longest[130];
    memset(longest, 'a', 129);
    longest[129] = '\0';
    assert_int_equal(text_check_service_id("project", "proj_Ab-1.x", NULL), OK);
    assert_int_equal(text_check_service_id("project", "_x", NULL), OK);
    assert_int_equal(text_check_service_id("p", longest + 1, NULL), OK);
    static const char *const bad[] = {"",    "a/b", "..",  ".",  "a%2f",
                                      "a?b", "a#",  "a b", "\n", NULL};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_int_equal(text_check_service_id("p", bad[i], NULL), ERR_INVALID);
    assert_int_equal(text_check_service_id("p", longest, NULL), ERR_INVALID);
}

static int64_t fixed_wall(void *ctx)
{
    return *(int64_t *)ctx;
}

static void ids_grow(void **state)
{
    (void)state;
    int64_t now = 1700000000000;
    const struct clock_source fixed = {fixed_wall, fixed_wall, fixed_wall,
                                       &now};
    char last[TEXT_ID_LEN + 1] = "", id[TEXT_ID_LEN + 1];
    clock_replace(&fixed);
    for (int i = 0; i < 2000; i++) {
        if (i == 1000)
            now -= 5000; /* the clock was set back */
        assert_int_equal(text_id(id, NULL), OK);
        assert_true(text_is_id(id));
        assert_true(strcmp(id, last) > 0);
        memcpy(last, id, sizeof id);
    }
    clock_replace(NULL);
    assert_memory_equal(id, "01hf7yat00", 8); /* ULID of that time */
}

static void only_ids_are_ids(void **state)
{
    (void)state;
    assert_true(text_is_id("01hf7yat00zzzzzzzzzzzzzzzz"));
    assert_false(text_is_id("01HF7YAT00ZZZZZZZZZZZZZZZZ"));
    assert_false(text_is_id("81hf7yat00zzzzzzzzzzzzzzzz"));
    assert_false(text_is_id("01hf7yat00zzzzzzzzzzzzzzz"));
    assert_false(text_is_id("01hf7yat00zzzzzzzzzzzzzzzzz"));
    assert_false(text_is_id("01hf7yat00zzzzzzzzzzzzzzzu"));
    assert_false(text_is_id(""));
    assert_false(text_is_id(NULL));
}

#define MANY 5000
static void *make_ids(void *arg)
{
    char(*ids)[TEXT_ID_LEN + 1] = arg;
    for (int i = 0; i < MANY; i++)
        if (text_id(ids[i], NULL) != OK)
            ids[i][0] = '\0';
    return NULL;
}

static int compare(const void *a, const void *b)
{
    return strcmp(a, b);
}

static void ids_of_threads_differ(void **state)
{
    (void)state;
    static char ids[4][MANY][TEXT_ID_LEN + 1];
    pthread_t threads[4];
    for (int i = 0; i < 4; i++)
        pthread_create(&threads[i], NULL, make_ids, ids[i]);
    for (int i = 0; i < 4; i++)
        pthread_join(threads[i], NULL);
    qsort(ids, (size_t)4 * MANY, sizeof ids[0][0], compare);
    char(*all)[TEXT_ID_LEN + 1] = ids[0];
    for (int i = 1; i < 4 * MANY; i++)
        assert_string_not_equal(all[i - 1], all[i]);
}

static void suffixes(void **state)
{
    (void)state;
    char seen[256] = {0}, s[101];
    for (int i = 0; i < 100; i++) {
        s[100] = 'x';
        assert_int_equal(text_random_suffix(s, 100, NULL), OK);
        assert_int_equal(strlen(s), 100);
        for (int k = 0; k < 100; k++)
            seen[(uint8_t)s[k]] = 1;
    }
    for (int c = 0; c < 256; c++)
        assert_int_equal(seen[c],
                         (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9'));
}

static void hex(void **state)
{
    (void)state;
    uint8_t b[4];
    size_t n = 9;
    char text[9];
    assert_int_equal(text_unhex(b, 4, &n, "00fFA07e", NULL), OK);
    assert_int_equal(n, 4);
    text_hex(text, b, n);
    assert_string_equal(text, "00ffa07e");
    assert_int_equal(text_unhex(b, 4, &n, "", NULL), OK);
    assert_int_equal(n, 0);
    assert_int_equal(text_unhex(b, 4, &n, "abc", NULL), ERR_INVALID);
    assert_int_equal(text_unhex(b, 4, &n, "zz", NULL), ERR_INVALID);
    assert_int_equal(text_unhex(b, 4, &n, "a\n", NULL), ERR_INVALID);
    assert_int_equal(text_unhex(b, 4, &n, "0011223344", NULL), ERR_INVALID);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(durations),
        cmocka_unit_test(durations_are_written),
        cmocka_unit_test(utf8),
        cmocka_unit_test(escapes),
        cmocka_unit_test(quotes_are_turned_back),
        cmocka_unit_test(escapes_are_cut_whole),
        cmocka_unit_test(names),
        cmocka_unit_test(service_ids),
        cmocka_unit_test(ids_grow),
        cmocka_unit_test(only_ids_are_ids),
        cmocka_unit_test(ids_of_threads_differ),
        cmocka_unit_test(suffixes),
        cmocka_unit_test(hex),
    };
    return cmocka_run_group_tests_name("text", tests, NULL, NULL);
}
