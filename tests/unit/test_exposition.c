/* What goes out is Prometheus' text, whatever names and texts came in. */
#include "config.h"

#include "tools/exposition.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static enum code write_json(const char *json, char **text)
{
    JSON families = json_loads(json, JSON_ALLOW_NUL, NULL);
    size_t len;
    struct error e = {.code = OK};
    FILE *out = open_memstream(text, &len);
    assert_non_null(out);
    assert_non_null(families);
    enum code rc = exposition_write(out, families, &e);
    assert_int_equal(fclose(out), 0);
    assert_true(rc == OK || *e.text);
    return rc;
}

static void becomes(const char *json, const char *want)
{
    char *text = NULL;
    assert_int_equal(write_json(json, &text), OK);
    assert_string_equal(text, want);
    free(text);
}

static void refused(const char *json)
{
    char *text = NULL;
    enum code rc = write_json(json, &text);
    if (rc == OK)
        fail_msg("taken: %s", json);
    free(text);
}

static void families(void **state)
{
    (void)state;
    becomes("[]", "");
    becomes("[{\"name\":\"a_total\",\"type\":\"counter\",\"help\":\"what\","
            "\"samples\":[{\"suffix\":\"\",\"labels\":{},\"value\":3}]}]",
            "# HELP a_total what\n# TYPE a_total counter\na_total 3\n");
    becomes("[{\"name\":\"a\",\"type\":\"gauge\",\"samples\":["
            "{\"labels\":{\"x\":\"1\",\"y\":\"2\"},\"value\":0.1},"
            "{\"value\":1795269735.508}]}]",
            "# HELP a \n# TYPE a gauge\na{x=\"1\",y=\"2\"} 0.1\n"
            "a 1795269735.508\n");
    becomes("[{\"name\":\"h\",\"type\":\"histogram\",\"help\":\"\",\"samples\":"
            "[{\"suffix\":\"_bucket\",\"labels\":{\"le\":\"+Inf\"},"
            "\"value\":2},{\"suffix\":\"_sum\",\"value\":1.5},"
            "{\"suffix\":\"_count\",\"value\":2}]}]",
            "# HELP h \n# TYPE h histogram\nh_bucket{le=\"+Inf\"} 2\n"
            "h_sum 1.5\nh_count 2\n");
}

/* Roles have harmless names; should one get by, it stays a label's text. */
static void hostile_texts(void **state)
{
    (void)state;
    becomes("[{\"name\":\"a\",\"type\":\"gauge\",\"help\":\"one\\ntwo\\\\\\\"\","
            "\"samples\":[{\"labels\":{\"role\":\"x\\\"} 1\\nhsmint_up 1\\n\\\\"
            "\\u00e4\"},\"value\":0}]}]",
            "# HELP a one\\ntwo\\\\\"\n# TYPE a gauge\n"
            "a{role=\"x\\\"} 1\\nhsmint_up 1\\n\\\\\xc3\xa4\"} 0\n");
}

static void numbers(void **state)
{
    (void)state;
    becomes("[{\"name\":\"a\",\"type\":\"gauge\",\"samples\":["
            "{\"value\":0.1},{\"value\":9007199254740993},{\"value\":-1},"
            "{\"value\":1e300},{\"value\":0.30000000000000004}]}]",
            "# HELP a \n# TYPE a gauge\na 0.1\na 9007199254740992\na -1\n"
            "a 1e+300\na 0.30000000000000004\n");
}

#define FAMILY(name, type, sample)                                             \
    "[{\"name\":\"" name "\",\"type\":\"" type "\",\"samples\":[" sample "]}]"

static void nonsense(void **state)
{
    (void)state;
    refused("{}");
    refused("[1]");
    refused("[{}]");
    refused(FAMILY("", "gauge", ""));
    refused(FAMILY("1a", "gauge", ""));
    refused(FAMILY("a b", "gauge", ""));
    refused(FAMILY("a\\nb", "gauge", ""));
    refused(FAMILY("a", "summary", ""));
    refused(FAMILY("a", "gauge", "1"));
    refused(FAMILY("a", "gauge", "{}"));
    refused(FAMILY("a", "gauge", "{\"value\":\"1\"}"));
    refused(FAMILY("a", "gauge", "{\"value\":1,\"suffix\":\"_sum\"}"));
    refused(FAMILY("a", "histogram", "{\"value\":1,\"suffix\":\"\"}"));
    refused(FAMILY("a", "histogram", "{\"value\":1,\"suffix\":\"} 1\"}"));
    refused(FAMILY("a", "gauge", "{\"value\":1,\"labels\":{\"a b\":\"\"}}"));
    refused(FAMILY("a", "gauge", "{\"value\":1,\"labels\":{\"\":\"\"}}"));
    refused(FAMILY("a", "gauge", "{\"value\":1,\"labels\":{\"__x\":\"\"}}"));
    refused(FAMILY("a", "gauge", "{\"value\":1,\"labels\":{\"a\":1}}"));
    refused(FAMILY("a", "gauge", "{\"value\":1,\"labels\":{\"a\":\"\\u0000\"}}"));
    refused("[{\"name\":\"a\",\"type\":\"gauge\",\"samples\":[]},"
            "{\"name\":\"a\",\"type\":\"gauge\",\"samples\":[]}]");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(families),
        cmocka_unit_test(hostile_texts),
        cmocka_unit_test(numbers),
        cmocka_unit_test(nonsense),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
