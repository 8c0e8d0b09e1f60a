/* One policy: what is taken, what is refused and where, and what it matches. */
#include "config.h"

#include "common/file.h"
#include "common/locate.h"
#include "common/text.h"
#include "module/core/glob.h"
#include "module/core/policy.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* ---- globs ---- */

static bool naive(const char *p, const char *t, bool path)
{
    if (!*p)
        return !*t;
    if (*p == '*')
        return naive(p + 1, t, path) ||
               (*t && !(path && *t == '/') && naive(p, t + 1, path));
    if (!*t)
        return false;
    if (*p == '?')
        return !(path && *t == '/') && naive(p + 1, t + 1, path);
    return *p == *t && naive(p + 1, t + 1, path);
}

static void random_text(char *s, const char *letters, unsigned max)
{
    unsigned n = (unsigned)random() % (max + 1);

    for (unsigned i = 0; i < n; i++)
        s[i] = letters[(unsigned)random() % strlen(letters)];
    s[n] = '\0';
}

static void test_globs_as_a_naive_one(void **state)
{
    char p[12], t[16];
    int matched = 0;

    (void)state;
    srandom(42);
    for (int i = 0; i < 200000; i++) {
        bool expected;

        random_text(p, "ab/*?", 8);
        random_text(t, "ab/", 10);
        expected = naive(p, t, false);
        if (glob_match(p, t) != expected ||
            glob_match_path(p, t) != naive(p, t, true))
            fail_msg("\"%s\" on \"%s\"", p, t);
        matched += expected;
    }
    assert_true(matched > 1000);
}

/* What covers another matches all that the other does. */
static void test_covering(void **state)
{
    char wide[8], narrow[8], t[10];
    int covered = 0;

    (void)state;
    srandom(43);
    for (int i = 0; i < 300000; i++) {
        random_text(wide, "ab*?", 5);
        random_text(narrow, "ab*?", 5);
        random_text(t, "ab", 7);
        if (!glob_covers(wide, narrow))
            continue;
        covered++;
        if (glob_match(narrow, t) && !glob_match(wide, t))
            fail_msg("\"%s\" does not cover \"%s\": \"%s\"", wide, narrow, t);
    }
    assert_true(covered > 1000);
    assert_true(glob_covers("pay-*", "pay-eu-*"));
    assert_false(glob_covers("pay-eu-*", "pay-*"));
    assert_false(glob_covers("?", "*"));
}

/* A pattern of many stars and a long text that nearly matches. */
static void test_globs_do_not_blow_up(void **state)
{
    char pattern[POLICY_GLOB_LEN_MAX + 1], text[4096];

    (void)state;
    for (size_t i = 0; i + 2 < sizeof(pattern); i += 2)
        memcpy(pattern + i, "*a", 3);
    strcpy(pattern + sizeof(pattern) - 3, "b");
    memset(text, 'a', sizeof(text) - 1);
    text[sizeof(text) - 1] = '\0';
    for (int i = 0; i < 100; i++)
        assert_false(glob_match(pattern, text));
    assert_true(glob_match("caf?", "café")); /* a character, not a byte */
    assert_false(glob_match_path("/usr/bin/*", "/usr/bin/x/y"));
}

/* ---- hours ---- */

/* 2026-11-20 is a Friday. */
#define FRIDAY_MS (INT64_C(1795132800) * 1000)
#define MINUTE INT64_C(60000)

static bool open_at(const char *text, int day, int hour, int minute)
{
    struct hours h;

    assert_int_equal(OK, hours_parse(&h, text, NULL));
    return hours_open(&h, FRIDAY_MS + MINUTE * (day * 1440 + hour * 60) +
                              MINUTE * minute);
}

static void test_hours(void **state)
{
    static const char *const wrong[] = {
        "", "daily", "mon-fri", "mon 7:00-19:00", "mon 07:00-24:01",
        "mon 24:00-01:00", "mon 07:00-07:00", "mon 07:60-08:00",
        "mon  07:00-08:00", "mon 07:00-08:00 ", "MON 07:00-08:00",
        "mon,tue 07:00-08:00", "daily 07:00 08:00", "dailyx07:00-08:00",
        "mon- 07:00-08:00", "foo 07:00-08:00"};
    struct hours h;

    (void)state;
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++)
        assert_int_equal(ERR_INVALID, hours_parse(&h, wrong[i], NULL));
    assert_true(open_at("mon-fri 07:00-19:00", 0, 7, 0));
    assert_true(open_at("mon-fri 07:00-19:00", 0, 18, 59));
    assert_false(open_at("mon-fri 07:00-19:00", 0, 19, 0));
    assert_false(open_at("mon-fri 07:00-19:00", 0, 6, 59));
    assert_false(open_at("mon-fri 07:00-19:00", 1, 12, 0));
    /* Begun on Friday, it runs into Saturday, and on Saturday begins none. */
    assert_true(open_at("fri 22:00-06:00", 0, 23, 0));
    assert_true(open_at("fri 22:00-06:00", 1, 5, 59));
    assert_false(open_at("fri 22:00-06:00", 1, 6, 0));
    assert_false(open_at("fri 22:00-06:00", 1, 23, 0));
    assert_false(open_at("fri 22:00-06:00", 0, 5, 0));
    assert_true(open_at("sat-mon 00:00-24:00", 3, 23, 59));
    assert_false(open_at("sat-mon 00:00-24:00", 4, 0, 0));
    assert_true(open_at("daily 00:00-24:00", 5, 0, 0));
    assert_false(hours_open(&h, -1));
}

/* Each minute of a week is in exactly one of a window and its complement. */
static void test_hours_have_complements(void **state)
{
    struct hours day, night;

    (void)state;
    assert_int_equal(OK, hours_parse(&day, "daily 06:30-22:15", NULL));
    assert_int_equal(OK, hours_parse(&night, "daily 22:15-06:30", NULL));
    for (int64_t m = 0; m < 7 * 1440; m++) {
        int64_t at = FRIDAY_MS + m * MINUTE;

        assert_true(hours_open(&day, at) != hours_open(&night, at));
    }
}

/* ---- what is refused ---- */

#define S "\"subjects\":[\"user:alice\"]"
#define C "\"capabilities\":[\"mint\"]"
#define R "\"roles\":[\"*\"]"
#define OK_ALLOW S "," C "," R

struct row {
    const char *json;
    const char *says; /* NULL: it is taken */
};

static const struct row rows[] = {
    {"{" OK_ALLOW "}", NULL},
    {"{" S ",\"capabilities\":[\"administrator\"]}", NULL},
    {"{" S ",\"capabilities\":[\"caller\",\"audit\"]," R "}", NULL},
    {"{\"effect\":\"deny\"," OK_ALLOW "}", NULL},
    {"{" OK_ALLOW ",\"limits\":{\"max_ttl\":\"1h\",\"live_leases\":20,"
     "\"mints_per_minute\":60,\"hours\":[\"mon-fri 07:00-19:00\"]}}",
     NULL},
    {"{" OK_ALLOW ",\"limits\":{}}", NULL},
    {"{" C "," R ",\"subjects\":[\"group:wheel\",\"exe:/usr/bin/p*\"]}", NULL},
    {"{" C "," R ",\"subjects\":[\"unit:pay*\",\"unit:a.service\"]}", NULL},
    {"{" C "," R ",\"subjects\":[\"user:*\",\"group:0\",\"login:b-?\"]}", NULL},
    {"[]", "object"},
    {"{}", "subjects: is missing"},
    {"{" OK_ALLOW ",\"role\":[\"x\"]}", "role: there is no such member"},
    {"{" OK_ALLOW ",\"limits\":{\"ttl\":1}}", "limits.ttl: there is no"},
    {"{" OK_ALLOW ",\"limits\":null}", "limits: is null"},
    {"{" OK_ALLOW ",\"limits\":[]}", "limits: has to be an object"},
    {"{" OK_ALLOW ",\"effect\":\"permit\"}", "effect: has to be"},
    {"{" OK_ALLOW ",\"effect\":1}", "effect: has to be"},
    {"{" OK_ALLOW ",\"description\":7}", "description: has to be a text"},
    {"{" OK_ALLOW ",\"description\":\"a\\u0007\"}", "description: control"},
    {"{" C "," R ",\"subjects\":\"user:a\"}", "subjects: has to be a list"},
    {"{" C "," R ",\"subjects\":[]}", "subjects: is empty"},
    {"{" C "," R ",\"subjects\":[7]}", "subjects[0]: has to be a text"},
    {"{" C "," R ",\"subjects\":[\"alice\"]}", "subjects[0]: \"alice\": write"},
    {"{" C "," R ",\"subjects\":[\"users:a\"]}", "subjects[0]"},
    {"{" C "," R ",\"subjects\":[\"user:\"]}", "names nobody"},
    {"{" C "," R ",\"subjects\":[\"user:a\",\"user:a\"]}",
     "subjects[1]: comes twice"},
    {"{" C "," R ",\"subjects\":[\"exe:/bin/x\"]}", "subjects: exe: only"},
    {"{" C "," R ",\"subjects\":[\"user:a\",\"exe:x\"]}", "absolute path"},
    {"{\"effect\":\"deny\"," C "," R
     ",\"subjects\":[\"user:a\",\"exe:/bin/x\"]}",
     "subjects[1]: exe: can be borrowed"},
    {"{" C "," R ",\"subjects\":[\"user:0\"]}", "matches nobody"},
    {"{" C "," R ",\"subjects\":[\"user:root\"]}", "matches nobody"},
    {"{" C "," R ",\"subjects\":[\"user:65534\"]}", "matches nobody"},
    {"{" C "," R ",\"subjects\":[\"group:65534\"]}", "matches nobody"},
    {"{" C "," R ",\"subjects\":[\"user:0100\"]}", "leading zeros"},
    {"{" C "," R ",\"subjects\":[\"user:4294967295\"]}", "no user id"},
    {"{" C "," R ",\"subjects\":[\"user:99999999999999999999\"]}", "no user id"},
    {"{" C "," R ",\"subjects\":[\"unit:pay\"]}", "matches no unit"},
    {"{" C "," R ",\"subjects\":[\"unit:.service\"]}", "matches no unit"},
    {"{" C "," R ",\"subjects\":[\"unit:/system.slice/p.service\"]}",
     "matches no unit"},
    {"{" C "," R ",\"subjects\":[\"login:a/b\"]}", "no name of a login"},
    {"{" S "," R "}", "capabilities: is missing"},
    {"{" S "," R ",\"capabilities\":[\"mnt\"]}", "neither a capability"},
    {"{" S "," R ",\"capabilities\":[\"mint\",\"mint\"]}", "comes twice"},
    {"{" S "," C "}", "roles: is missing"},
    {"{" S "," R ",\"capabilities\":[\"audit\"]}", "roles: none of its"},
    {"{" S "," C ",\"roles\":[\"a/b\"]}", "roles[0]: \"a/b\""},
    {"{" S "," C ",\"roles\":[\"\"]}", "roles[0]"},
    {"{" OK_ALLOW ",\"orgs\":[]}", "orgs: is empty"},
    {"{\"effect\":\"deny\"," OK_ALLOW ",\"limits\":{\"live_leases\":1}}",
     "limits: a deny has none"},
    {"{" OK_ALLOW ",\"limits\":{\"live_leases\":0}}", "limits.live_leases"},
    {"{" OK_ALLOW ",\"limits\":{\"live_leases\":\"7\"}}", "limits.live_leases"},
    {"{" OK_ALLOW ",\"limits\":{\"live_leases\":1.5}}", "limits.live_leases"},
    {"{" OK_ALLOW ",\"limits\":{\"mints_per_minute\":-1}}",
     "limits.mints_per_minute"},
    {"{" OK_ALLOW ",\"limits\":{\"max_ttl\":0}}", "limits.max_ttl"},
    {"{" OK_ALLOW ",\"limits\":{\"max_ttl\":\"366d\"}}", "limits.max_ttl"},
    {"{" OK_ALLOW ",\"limits\":{\"max_ttl\":true}}", "limits.max_ttl"},
    {"{" OK_ALLOW ",\"limits\":{\"hours\":\"daily 00:00-24:00\"}}",
     "limits.hours: has to be a list"},
    {"{" OK_ALLOW
     ",\"limits\":{\"hours\":[\"daily 00:00-24:00\",\"now\"]}}",
     "limits.hours[1]: \"now\""},
    {"{" S "," R ",\"capabilities\":[\"read\"],\"limits\":{\"live_leases\":1}}",
     "does not give mint"},
    {"{" S "," R ",\"capabilities\":[\"read\"],\"limits\":{\"max_ttl\":1}}",
     "does not give mint or renew"},
};

static enum code parse(struct policy *p, const char *json,
                       char where[POLICY_WHERE_MAX], struct error *e)
{
    JSON fields = json_loads(json, 0, NULL);

    if (!fields)
        fail_msg("test: %s", json);
    return policy_parse(p, "test", fields, where, e);
}

static void test_syntax(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        POLICY p = {.deny = false};
        struct error e = {0};
        char where[POLICY_WHERE_MAX];
        enum code code = parse(&p, rows[i].json, where, &e);

        if (code != (rows[i].says ? ERR_INVALID : OK))
            fail_msg("%s: %d: %s", rows[i].json, code, e.text);
        if (!rows[i].says)
            continue;
        if (!strstr(e.text, rows[i].says))
            fail_msg("%s: says %s, not %s", rows[i].json, e.text,
                     rows[i].says);
        if (strncmp(e.text, where, strlen(where)) != 0)
            fail_msg("%s: %s is not where %s", rows[i].json, where, e.text);
    }
}

static void test_bounds(void **state)
{
    POLICY p = {.deny = false};
    char long_name[65] = "";
    JSON fields = json_loads("{" OK_ALLOW "}", 0, NULL);
    json_t *list = json_array();

    (void)state;
    memset(long_name, 'x', 64);
    assert_int_equal(ERR_INVALID,
                     policy_parse(&p, long_name, fields, NULL, NULL));
    assert_int_equal(ERR_INVALID, policy_parse(&p, "a/b", fields, NULL, NULL));
    assert_int_equal(ERR_INVALID, policy_parse(&p, "", fields, NULL, NULL));
    for (int i = 0; i < POLICY_SUBJECTS_MAX; i++)
        json_array_append_new(list, json_sprintf("user:u%d", i));
    json_object_set_new(fields, "subjects", list);
    assert_int_equal(OK, policy_parse(&p, "x", fields, NULL, NULL));
    policy_clear(&p);
    json_array_append_new(list, json_string("user:more"));
    assert_int_equal(ERR_INVALID, policy_parse(&p, "x", fields, NULL, NULL));
}

/* ---- where it is ---- */

static void test_locate(void **state)
{
    static const char text[] =
        "{\n  \"a\" : [1, {\"x\":2}, \"]\\\"\"],\n"
        "  \"limits\": { \"hours\":\n    [\"one\",\n     \"two\"] }\n}";
    static const struct {
        const char *path;
        int line, column;
    } there[] = {
        {"a", 2, 3},      {"a[1]", 2, 13},  {"a[1].x", 2, 14},
        {"limits", 3, 3}, {"limits.hours[1]", 5, 6},
    };
    int line, column;

    (void)state;
    for (size_t i = 0; i < sizeof(there) / sizeof(there[0]); i++) {
        if (!locate(text, strlen(text), there[i].path, &line, &column) ||
            line != there[i].line || column != there[i].column)
            fail_msg("%s: %d:%d", there[i].path, line, column);
    }
    assert_false(locate(text, strlen(text), "b", &line, &column));
    assert_false(locate(text, strlen(text), "a[7]", &line, &column));
    assert_false(locate(text, strlen(text), "a.x", &line, &column));
    assert_false(locate(text, strlen(text), "", &line, &column));
}

/* ---- whom and what it matches ---- */

static struct who_name groups[] = {
    {true, 2000, (char *)(uintptr_t) "pay"},
    {true, 77, NULL},
};
static const struct who alice = {
    .vouched = true,
    .user = {true, 1000, (char *)(uintptr_t) "alice"},
    .groups = groups,
    .groups_n = 2,
    .unit = "pay.service",
    .exe = "/usr/bin/pay",
    .owner = "user:1000"};

/* Capability mint in role pay-a of default: does `subjects` match `w`? */
static bool matches(const char *subjects, bool deny, const struct who *w)
{
    POLICY p = {.deny = false};
    char json[512];
    struct error e = {0};
    struct policy_question q = {
        .who = w, .cap = CAP_MINT, .org = "default", .role = "pay-a"};

    snprintf(json, sizeof(json), "{%s\"subjects\":[%s]," C "," R "}",
             deny ? "\"effect\":\"deny\"," : "", subjects);
    if (parse(&p, json, NULL, &e))
        fail_msg("%s: %s", json, e.text);
    return policy_match(&p, &q) == PART_NONE;
}

static void test_subjects(void **state)
{
    struct who w = alice;

    (void)state;
    assert_true(matches("\"user:alice\"", false, &w));
    assert_true(matches("\"user:1000\"", false, &w));
    assert_true(matches("\"user:a*\"", false, &w));
    assert_true(matches("\"user:*\"", false, &w));
    assert_false(matches("\"user:bob\",\"user:1001\"", false, &w));
    assert_true(matches("\"group:pay\"", false, &w));
    assert_true(matches("\"group:77\"", false, &w));
    assert_false(matches("\"group:1000\"", false, &w));
    assert_true(matches("\"unit:pay*\"", false, &w));
    assert_false(matches("\"login:*\"", false, &w));
    assert_true(matches("\"user:1000\",\"exe:/usr/bin/*\"", false, &w));
    assert_false(matches("\"user:1000\",\"exe:/usr/*\"", false, &w));
    assert_true(
        matches("\"user:1000\",\"exe:/no\",\"exe:/usr/bin/pay\"", false, &w));
    /* What cannot be seen does not match. */
    w.exe = "";
    assert_false(matches("\"user:1000\",\"exe:/*\"", false, &w));
    w.unit = "";
    assert_false(matches("\"unit:*\"", false, &w));
    w = alice;
    w.vouched = false;
    assert_false(matches("\"user:1000\",\"user:*\",\"group:pay\"", false, &w));
    assert_true(matches("\"unit:pay.service\"", false, &w));
}

/* Somebody may be called "1000", or have no name at all. */
static void test_names_like_numbers(void **state)
{
    struct who w = alice;

    (void)state;
    w.user = (struct who_name){true, 5, (char *)(uintptr_t) "1000"};
    assert_false(matches("\"user:1000\"", false, &w));
    assert_false(matches("\"user:1*\"", false, &w));
    assert_true(matches("\"user:5\"", false, &w));
    assert_true(matches("\"user:*\"", false, &w));
    w.user.name = NULL;
    assert_false(matches("\"user:alice\"", false, &w));
    assert_true(matches("\"user:5\"", false, &w));
    assert_true(matches("\"user:*\"", true, &w));
    assert_true(matches("\"user:**\"", true, &w));
    /* Where names cannot be told, an allow by name gives nothing, and a deny
     * by name takes from everybody. */
    w.names_failed = true;
    assert_false(matches("\"user:mallory\"", false, &w));
    assert_true(matches("\"user:mallory\"", true, &w));
    assert_false(matches("\"user:6\"", true, &w));
}

static void test_logins_grant_alone(void **state)
{
    struct who w = alice;

    (void)state;
    snprintf(w.login, sizeof(w.login), "batch");
    assert_false(matches("\"user:alice\",\"group:pay\",\"unit:*\"", false, &w));
    assert_true(matches("\"login:batch\"", false, &w));
    assert_true(matches("\"user:alice\"", true, &w));
    assert_true(matches("\"unit:pay.service\"", true, &w));
    w.vouched = false;
    assert_true(matches("\"login:b*\"", false, &w));
    /* Who hides behind a namespace or a process that ended is denied as well. */
    assert_true(matches("\"user:alice\"", true, &w));
    assert_true(matches("\"user:1000\"", true, &w));
    assert_true(matches("\"group:77\"", true, &w));
    assert_false(matches("\"user:1001\",\"group:78\"", true, &w));
}

static enum policy_part part(const char *json, const struct policy_question *q)
{
    POLICY p = {.deny = false};
    struct error e = {0};

    if (parse(&p, json, NULL, &e))
        fail_msg("%s: %s", json, e.text);
    return policy_match(&p, q);
}

static void test_parts(void **state)
{
    static const char allow[] =
        "{" S ",\"capabilities\":[\"caller\",\"status\"],\"orgs\":[\"eu\"],"
        "\"roles\":[\"pay-*\"]}";
    static const char deny[] =
        "{\"effect\":\"deny\"," S ",\"capabilities\":[\"caller\",\"status\"],"
        "\"orgs\":[\"eu\"],\"roles\":[\"pay-*\"]}";
    struct policy_question q = {
        .who = &alice, .cap = CAP_MINT, .org = "eu", .role = "pay-a"};

    (void)state;
    assert_int_equal(PART_NONE, part(allow, &q));
    q.role = "ops";
    assert_int_equal(PART_ROLE, part(allow, &q));
    q.org = "us";
    assert_int_equal(PART_ORG, part(allow, &q));
    q.cap = CAP_AUDIT;
    assert_int_equal(PART_CAPABILITY, part(allow, &q));
    /* The whole daemon: an allow for one organisation is not enough, a deny in
     * one is. */
    q = (struct policy_question){.who = &alice, .cap = CAP_STATUS};
    assert_int_equal(PART_ORG, part(allow, &q));
    assert_int_equal(PART_NONE, part(deny, &q));
    /* For some role: an allow for one is enough, a deny in one is not. */
    q.cap = CAP_LIST_OWN;
    assert_int_equal(PART_NONE, part(allow, &q));
    assert_int_equal(PART_ORG, part(deny, &q));
    q.org = "eu";
    assert_int_equal(PART_ROLE, part(deny, &q));
}

static void test_policy_covers(void **state)
{
    static const struct {
        const char *deny;
        bool covers;
    } cases[] = {
        {S "," C "," R, true},
        {"\"subjects\":[\"user:*\"]," C ",\"roles\":[\"p*\"]", true},
        {S "," C ",\"roles\":[\"pay-a\"]", false},
        {S ",\"capabilities\":[\"renew\"]," R, false},
        {"\"subjects\":[\"user:bob\"]," C "," R, false},
        {"\"subjects\":[\"group:alice\"]," C "," R, false},
        {S "," C "," R ",\"orgs\":[\"eu\"]", false},
    };
    POLICY allow = {.deny = false};

    (void)state;
    assert_int_equal(OK, parse(&allow, "{" S "," C ",\"roles\":[\"pay-*\"]}",
                               NULL, NULL));
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        POLICY deny = {.deny = false};
        char json[256];

        snprintf(json, sizeof(json), "{\"effect\":\"deny\",%s}",
                 cases[i].deny);
        assert_int_equal(OK, parse(&deny, json, NULL, NULL));
        if (policy_covers(&deny, &allow) != cases[i].covers)
            fail_msg("%s", json);
    }
}

static void test_json_is_as_given(void **state)
{
    POLICY p = {.deny = false};
    JSON out = NULL;
    struct error e = {0};

    (void)state;
    assert_int_equal(OK, parse(&p, "{" S ",\"capabilities\":[\"auditor\"]}",
                               NULL, &e));
    p.version = 3;
    assert_int_equal(OK, policy_json(&p, &out, &e));
    assert_string_equal("auditor",
                        json_string_value(json_array_get(
                            json_object_get(out, "capabilities"), 0)));
    assert_string_equal("allow",
                        json_string_value(json_object_get(out, "effect")));
    assert_int_equal(3, json_integer_value(json_object_get(out, "version")));
    assert_true(p.capabilities ==
                (CAPABILITY_BIT(CAP_AUDIT) | CAPABILITY_BIT(CAP_STATUS)));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_globs_as_a_naive_one),
        cmocka_unit_test(test_covering),
        cmocka_unit_test(test_globs_do_not_blow_up),
        cmocka_unit_test(test_hours),
        cmocka_unit_test(test_hours_have_complements),
        cmocka_unit_test(test_syntax),
        cmocka_unit_test(test_bounds),
        cmocka_unit_test(test_locate),
        cmocka_unit_test(test_subjects),
        cmocka_unit_test(test_names_like_numbers),
        cmocka_unit_test(test_logins_grant_alone),
        cmocka_unit_test(test_parts),
        cmocka_unit_test(test_policy_covers),
        cmocka_unit_test(test_json_is_as_given),
    };

    return cmocka_run_group_tests_name("policy", tests, NULL, NULL);
}
