/* The command line without a daemon: arguments, the settings file that init
 * writes, what people and programs read. */
#include "config.h"

#include "tools/hsmint.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#define WORDS_MAX 80

/* Splits at blanks; argv-like, NULL-ended, into static memory. */
static char **split(const char *line, int *n)
{
    static char text[4096];
    static char *words[WORDS_MAX + 1];
    *n = 0;
    snprintf(text, sizeof(text), "%s", line);
    for (char *p = strtok(text, " "); p && *n < WORDS_MAX;
         p = strtok(NULL, " "))
        words[(*n)++] = p;
    words[*n] = NULL;
    return words;
}

static enum code parse(struct args *a, const struct command **c,
                       const char *line, struct error *e)
{
    int n;
    char **words = split(line, &n);
    return args_parse(a, c, n, words, e);
}

static void commands_are_found(void **state)
{
    (void)state;
    static const char *const good[][2] = {
        {"init", "init"},
        {"init --hsm-module /m --hsm-uri pkcs11:token=t", "init"},
        {"role set my-app ttl=1h", "role set"},
        {"--org acme role set my-app ttl=1h", "role set"},
        {"role --org acme set my-app --json ttl=1h", "role set"},
        {"role set my-app ttl=1h --org=acme", "role set"},
        {"mint", "mint"},
        {"mint my-app --ttl 5m --json", "mint"},
        {"key my-app", "key"},
        {"exec --role r -- sh -c --json", "exec"},
        {"exec -- env", "exec"},
        {"lease list --all --history --limit 5", "lease list"},
        {"lease revoke a b c", "lease revoke"},
        {"hsm unlock --pin-file -", "hsm unlock"},
        {"daemon stop --force", "daemon stop"},
        {"version", "version"},
        {"audit verify log --key a+b+c --key d+e+f --since c", "audit verify"},
        {"audit report log --from 7d --to 2026-11-21 --json", "audit report"},
        {"audit show", "audit show"},
        {"audit show 7 --copy log", "audit show"},
        {"audit export --ocsf - --kind mint", "audit export"},
        {"audit accept-rollback --reason tested", "audit accept-rollback"},
        {"doctor --online --json", "doctor"},
        {"explain hsm-down", "explain"},
        {"login", "login"},
        {"login --so", "login"},
        {"login create batch --uses 3 --ttl 1d --uid 1 --uid 2",
         "login create"},
        {"--org acme login rotate batch --overlap 0", "login rotate"},
        {"policy set p -", "policy set"},
        {"policy set p subjects=user:a roles=* capabilities=caller",
         "policy set"},
        {"policy test user:a group:b --role r --capability mint --ttl 1h",
         "policy test"},
        {"whoami --login batch --secret-id-file -", "whoami"},
    };
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        struct args a;
        const struct command *c = NULL;
        struct error e = {.code = OK};
        if (parse(&a, &c, good[i][0], &e) != OK)
            fail_msg("%s: %s", good[i][0], e.text);
        assert_non_null(c);
        assert_string_equal(c->name, good[i][1]);
        if (strstr(good[i][0], "acme"))
            assert_string_equal(a.org, "acme");
    }
}

static void wrong_usage_is_told(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "",
        "nonsense",
        "role",
        "role nonsense",
        "role set",
        "roleset x",
        "mint a b",
        "mint --nonsense",
        "mint -x",
        "mint --ttl",
        "mint --ttl 5m --ttl 6m",
        "mint --json=yes",
        "mint --org=",
        "mint --all",
        "mint r -- env",
        "exec env",
        "exec",
        "exec --",
        "exec r -- env",
        "lease list x",
        "lease show",
        "lease renew a b",
        "status now",
        "status --online",
        "explain",
        "doctor now",
        "config show --ttl 5m",
        "lock --force",
        "init x",
        "--org",
        "version version",
        "login batch",
        "login create",
        "login create a b",
        "login --uses 1",
        "login delete a --uid 1",
        "policy",
        "policy set p",
        "policy test",
        "policy test user:a --login a --login b",
        "whoami root",
        "mint --",
        "init --ttl 5m",
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        struct args a;
        const struct command *c;
        struct error e = {.code = OK};
        if (parse(&a, &c, bad[i], &e) == OK)
            fail_msg("\"%s\" was taken", bad[i]);
        assert_int_equal(e.code, ERR_USAGE);
        assert_int_equal(error_exit_code(e.code), 2);
        assert_true(e.text[0]);
    }
}

static void many_arguments_are_bounded(void **state)
{
    (void)state;
    char line[4096] = "lease revoke", *words[200];
    struct args a;
    const struct command *c;
    for (int i = 0; i < ARGS_WORDS_MAX; i++)
        strcat(line, " x");
    struct error e = {.code = OK};
    assert_int_equal(parse(&a, &c, line, &e), ERR_USAGE);
    for (int i = 0; i < 200; i += 2) {
        words[i] = (char *)(uintptr_t) "--hsm-env";
        words[i + 1] = (char *)(uintptr_t) "A=b";
    }
    assert_int_equal(args_parse(&a, &c, 200, words, &e), ERR_USAGE);
}

static void program_is_what_follows_the_dashes(void **state)
{
    (void)state;
    struct args a;
    const struct command *c;
    struct error e = {.code = OK};
    assert_int_equal(
        parse(&a, &c, "exec --role r --ttl 5m -- prog --json -- x", &e), OK);
    assert_string_equal(a.role, "r");
    assert_string_equal(a.program[0], "prog");
    assert_string_equal(a.program[1], "--json");
    assert_string_equal(a.program[2], "--");
    assert_string_equal(a.program[3], "x");
    assert_null(a.program[4]);
    assert_false(a.json);
}

static char *help_of(const char *line)
{
    char *text = NULL;
    size_t len;
    struct args a;
    const struct command *c;
    struct error e = {.code = OK};
    assert_int_equal(parse(&a, &c, line, &e), OK);
    assert_true(a.help);
    FILE *f = open_memstream(&text, &len);
    assert_non_null(f);
    args_help(f, &a, c);
    fclose(f);
    return text;
}

static void help_is_everywhere(void **state)
{
    (void)state;
    char line[128], *text;
    for (const struct command *c = commands; c->name; c++) {
        snprintf(line, sizeof(line), "%s --help", c->name);
        text = help_of(line);
        assert_non_null(strstr(text, c->name));
        assert_non_null(strstr(text, "--org"));
        free(text);
    }
    text = help_of("--help");
    assert_non_null(strstr(text, "lease revoke"));
    assert_null(strstr(text, "--hsm-module"));
    free(text);
    text = help_of("lease -h");
    assert_non_null(strstr(text, "lease revoke"));
    assert_null(strstr(text, "config set"));
    free(text);
    text = help_of("login --help");
    assert_non_null(strstr(text, "--so"));
    assert_non_null(strstr(text, "login rotate"));
    free(text);
    text = help_of("mint --help too many words");
    assert_non_null(strstr(text, "--ttl"));
    free(text);
}

static void fields_and_times(void **state)
{
    (void)state;
    char name[ARGS_NAME_MAX];
    const char *value;
    struct error e = {.code = OK};
    assert_int_equal(args_field("ttl=1h", name, &value, &e), OK);
    assert_string_equal(name, "ttl");
    assert_string_equal(value, "1h");
    assert_int_equal(args_field("a_b==x=", name, &value, &e), OK);
    assert_string_equal(value, "=x=");
    assert_int_equal(args_field("a=", name, &value, &e), OK);
    assert_string_equal(value, "");
    static const char *const bad[] = {"", "=", "ttl", "Ttl=1", "a b=1", "=x"};
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_int_equal(args_field(bad[i], name, &value, &e), ERR_USAGE);

    int64_t ttl;
    struct args a = {.ttl = "1h30m"};
    assert_int_equal(args_duration("ttl", a.ttl, &ttl, &e), OK);
    assert_int_equal(ttl, 5400);
    a.ttl = "forever";
    assert_int_equal(args_duration("ttl", a.ttl, &ttl, &e), ERR_USAGE);
    a.ttl = NULL;
    assert_int_equal(args_duration("ttl", a.ttl, &ttl, &e), OK);
    assert_int_equal(ttl, 0);
}

/* ---- the settings file ---- */

static void settings_are_written(void **state)
{
    (void)state;
    char *text;
    struct error e = {.code = OK};
    struct args a = {.hsm_module = "/usr/lib/m.so",
                     .hsm_uri = "pkcs11:token=a;serial=b",
                     .pin_source = "/etc/pin",
                     .softhsm_conf = "/s.conf",
                     .hsm_env = {{"A=x=y"}, 1}};
    assert_int_equal(conf_text(&a, &text, &e), OK);
    assert_non_null(strstr(text, "[daemon]\nmode = user\n"));
    assert_non_null(strstr(text, "[hsm]\nmodule = /usr/lib/m.so\n"
                                 "uri = pkcs11:token=a;serial=b\n"
                                 "pin_source = /etc/pin\n"));
    assert_non_null(
        strstr(text, "[hsm.env]\nSOFTHSM2_CONF = /s.conf\nA = x=y\n"));
    assert_non_null(strstr(
        text, "[service]\nhosts = api.openai.com *.api.openai.com\n"));
    free(text);
    a.hosts = "eu.api.openai.com";
    assert_int_equal(conf_text(&a, &text, &e), OK);
    assert_non_null(strstr(text, "\nhosts = eu.api.openai.com\n"));
    free(text);
    a.hosts = "https://api.openai.com";
    assert_int_equal(conf_text(&a, &text, &e), ERR_USAGE);
}

static void odd_settings_are_refused(void **state)
{
    (void)state;
    char *text, longest[256];
    struct error e = {.code = OK};
    memset(longest, 'x', sizeof(longest) - 1);
    longest[0] = '/';
    longest[sizeof(longest) - 1] = '\0';
    const struct args bad[] = {
        {.hsm_uri = "pkcs11:"},
        {.hsm_module = "/m"},
        {.hsm_module = "relative", .hsm_uri = "pkcs11:"},
        {.hsm_module = "/m\n[service]\nproxy = x", .hsm_uri = "pkcs11:"},
        {.hsm_module = "/m ; x", .hsm_uri = "pkcs11:"},
        {.hsm_module = "/m ", .hsm_uri = "pkcs11:"},
        {.hsm_module = longest, .hsm_uri = "pkcs11:"},
        {.hsm_module = "/m\xff", .hsm_uri = "pkcs11:"},
        {.hsm_module = "/m",
         .hsm_uri = "pkcs11:",
         .hsm_env = {{"X"}, 1}},
        {.hsm_module = "/m",
         .hsm_uri = "pkcs11:",
         .hsm_env = {{"A]=1"}, 1}},
    };
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_int_equal(conf_text(&bad[i], &text, &e), ERR_USAGE);
        assert_null(text);
    }
}

static void settings_path_follows_the_environment(void **state)
{
    (void)state;
    char *path;
    struct error e = {.code = OK};
    setenv("XDG_CONFIG_HOME", "/c", 1);
    unsetenv("HSMINT_CONFIG");
    assert_int_equal(conf_path(&path, &e), OK);
    assert_string_equal(path, "/c/hsmint/hsmint.conf");
    free(path);
    setenv("HSMINT_CONFIG", "/x/y.conf", 1);
    assert_int_equal(conf_path(&path, &e), OK);
    assert_string_equal(path, "/x/y.conf");
    free(path);
    unsetenv("HSMINT_CONFIG");
    unsetenv("XDG_CONFIG_HOME");
    assert_int_equal(conf_path(&path, &e), OK);
    assert_non_null(strstr(path, "/.config/hsmint/hsmint.conf"));
    free(path);
}

/* ---- output ---- */

/* What is printed meanwhile goes to a file. */
static int real_stdout = -1;
static char capture_path[64];

static void capture(void)
{
    strcpy(capture_path, "/tmp/hsmint-cli-XXXXXX");
    int fd = mkstemp(capture_path);
    assert_true(fd >= 0);
    fflush(stdout);
    real_stdout = dup(STDOUT_FILENO);
    assert_true(dup2(fd, STDOUT_FILENO) >= 0);
    close(fd);
}

static char *captured(void)
{
    static char text[8192];
    fflush(stdout);
    dup2(real_stdout, STDOUT_FILENO);
    close(real_stdout);
    FILE *f = fopen(capture_path, "r");
    assert_non_null(f);
    size_t n = fread(text, 1, sizeof(text) - 1, f);
    text[n] = '\0';
    fclose(f);
    unlink(capture_path);
    return text;
}

static json_t *object(const char *text)
{
    json_t *j = json_loads(text, JSON_DECODE_ANY, NULL);
    assert_non_null(j);
    return j;
}

static void values_for_people(void **state)
{
    (void)state;
    static const char *const cases[][3] = {
        {"name", "\"x\\u001b[31m\\n\"", "x\\x1b[31m\\x0a"},
        {"expires_ms", "1000", "1970-01-01T00:00:01.000Z"},
        {"expires_ms", "0", "-"},
        {"ttl", "3600", "1h"},
        {"count", "3600", "3600"},
        {"flag", "true", "true"},
        {"flag", "false", "false"},
        {"none", "null", "-"},
        {"empty", "\"\"", "-"},
        {"real", "1.5", "1.5"},
    };
    char text[OUTPUT_TEXT_MAX];
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        JSON value = object(cases[i][1]);
        output_text(cases[i][0], value, text);
        assert_string_equal(text, cases[i][2]);
    }
}

static void tables_are_aligned_and_harmless(void **state)
{
    (void)state;
    static const struct column columns[] = {{"ID", "id"}, {"NAME", "name"}};
    JSON rows = object("[{\"id\": \"1234\", \"name\": \"a\"},"
                       " {\"id\": \"5\", \"name\": \"\\u001b]0;x\\u0007\"}]");
    capture();
    output_table(rows, columns, 2);
    assert_string_equal(captured(),
                        "ID    NAME\n1234  a\n5     \\x1b]0;x\\x07\n");
}

static void nested_objects_are_indented(void **state)
{
    (void)state;
    JSON j = object("{\"a\": 1, \"b\": {\"cc\": \"x\", \"d\": []},"
                    " \"e\": [\"y\", \"z\"], \"f\\u001b\": true}");
    capture();
    output_fields(j);
    assert_string_equal(captured(), "a   1\nb\n  cc  x\n  d   -\n"
                                    "e   y\n    z\nf\\x1b  true\n");
}

/* `change` is a JSON object of members to replace. */
static char *status_with(const char *change)
{
    JSON status =
        object("{\"mode\": \"system\", \"instance\": \"1e\", \"locked\": false,"
               " \"leases\": {\"pending\": 0, \"active\": 2, \"revoking\": 1},"
               " \"hsm\": {\"model\": \"M\", \"label\": \"l\\u001b\","
               " \"serial\": \"s\", \"state\": \"ready\"},"
               " \"keeper\": {\"running\": true, \"pid\": 8, \"restarts\": 0},"
               " \"daemon\": {\"version\": \"1\", \"pid\": 7},"
               " \"orgs\": [{\"org\": \"o\", \"configured\": true,"
               " \"admin_api_key_id\": \"key_1\"}], \"alarms\": []}");
    JSON changes = object(change);
    assert_int_equal(json_object_update(status, changes), 0);
    capture();
    status_print(status);
    return captured();
}

static void status_says_what_to_do(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        {"{}", "hsmint is ready\n"},
        {"{\"locked\": true}", "hsmint is locked: type `hsmint login`\n"},
        {"{\"instance\": \"\", \"hsm\": {\"state\": \"unprovisioned\"}}",
         "hsmint is not set up: type `hsmint init`\n"},
        {"{\"hsm\": {\"state\": \"unprovisioned\"}}",
         "hsmint does not find its keys on the HSM"},
        {"{\"hsm\": {\"state\": \"absent\", \"error\": \"gone\"}}",
         "hsmint cannot reach the HSM: gone\n"},
        {"{\"hsm\": {\"state\": \"locked\"}}",
         "hsmint is ready; it logs in to the HSM at the next call\n"},
        {"{\"hsm\": {\"state\": \"locked\", \"error\": \"wrong PIN\"}}",
         "hsmint is not logged in to the HSM: wrong PIN\n"},
        {"{\"orgs\": []}", "hsmint has no admin key yet"},
        {"{\"alarms\": [{\"object\": \"a\", \"text\": \"b\"}]}",
         "hsmint is ready, with 1 alarm\n"},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        assert_memory_equal(status_with(cases[i][0]), cases[i][1],
                            strlen(cases[i][1]));
}

static void status_for_people(void **state)
{
    (void)state;
    assert_string_equal(
        status_with("{\"mode\": \"user\", \"alarms\": [{\"id\": \"disk\","
                    " \"severity\": \"critical\", \"object\": \"o\","
                    " \"text\": \"bad\", \"remedy\": \"mend it\","
                    " \"since_ms\": 1000}]}"),
        "hsmint is ready, with 1 alarm\n"
        "daemon   1, user mode, process 7; keeper 8\n"
        "HSM      M, token l\\x1b, serial s, ready\n"
        "leases   2 active, 1 being revoked\n\n"
        "disk (critical) since 1970-01-01T00:00:01.000Z\n"
        "  o: bad\n"
        "  what to do: mend it\n\n"
        "ORG  ADMIN_KEY  ORGANIZATION  LAST_ROTATED\n"
        "o    key_1      -             -\n\n"
        "User mode guards against leaks and accidents, not against programs of "
        "this user,\nwho holds PIN and daemon.\n");
}

static const char lease_text[] =
    "{\"lease_id\": \"l1\", \"lease_duration\": 300, \"lease_renewable\": true,"
    " \"api_key_id\": \"k\", \"service_account\": \"sa\", \"org\": \"o\","
    " \"service_account_id\": \"sid\", \"api_base\": \"https://x\"}";

static void minted_key_as_json(void **state)
{
    (void)state;
    SECRET key = NULL;
    struct error e = {.code = OK};
    assert_int_equal(secret_dup(&key, "sk-\"\\\n\x7fz", 8, &e), OK);
    JSON lease = object(lease_text);
    JSON warnings = object("[\"careful\"]");
    capture();
    enum code code = output_minted(lease, warnings, key, true, &e);
    JSON back = object(captured());
    assert_int_equal(code, OK);
    static const char *const names[] = {
        "lease_id",   "lease_duration",  "lease_renewable",    "api_key",
        "api_key_id", "service_account", "service_account_id", "api_base",
        "warnings"};
    assert_int_equal(json_object_size(back), 9);
    for (size_t i = 0; i < 9; i++)
        assert_non_null(json_object_get(back, names[i]));
    assert_string_equal(json_string_value(json_object_get(back, "api_key")),
                        "sk-\"\\\n\x7fz");
    assert_int_equal(
        json_integer_value(json_object_get(back, "lease_duration")), 300);
}

static void minted_key_for_people(void **state)
{
    (void)state;
    SECRET key = NULL;
    struct error e = {.code = OK};
    assert_int_equal(secret_dup(&key, "sk-1", 4, &e), OK);
    JSON lease = object(lease_text);
    capture();
    enum code code = output_minted(lease, NULL, key, false, &e);
    char *text = captured();
    assert_int_equal(code, OK);
    assert_non_null(strstr(text, "lease_duration      5m\n"));
    assert_non_null(strstr(text, "api_key             sk-1\napi_key_id"));
    capture();
    code = output_secret(key, &e);
    assert_string_equal(captured(), "sk-1\n");
    assert_int_equal(code, OK);
}

static void lost_output_is_an_error(void **state)
{
    (void)state;
    SECRET key = NULL;
    struct error e = {.code = OK};
    assert_int_equal(secret_dup(&key, "sk-1", 4, &e), OK);
    int full = open("/dev/full", O_WRONLY);
    assert_true(full >= 0);
    capture();
    assert_true(dup2(full, STDOUT_FILENO) >= 0);
    enum code code = output_secret(key, &e);
    (void)captured();
    close(full);
    assert_int_equal(code, ERR_DISK_FULL);
}

/* ---- secrets ---- */

static void secrets_from_files(void **state)
{
    (void)state;
    char path[] = "/tmp/hsmint-cli-XXXXXX";
    int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, "1234\r\n", 6), 6);
    SECRET s = NULL;
    struct error e = {.code = OK};
    assert_int_equal(read_secret(&s, path, "PIN", &e), OK);
    assert_int_equal(secret_len(s), 4);
    secret_freep(&s);
    assert_int_equal(fchmod(fd, 0644), 0);
    assert_int_equal(read_secret(&s, path, "PIN", &e), ERR_DENIED);
    assert_non_null(strstr(e.text, "PIN"));
    assert_int_equal(fchmod(fd, 0600), 0);
    assert_int_equal(ftruncate(fd, 0), 0);
    assert_int_equal(read_secret(&s, path, "PIN", &e), ERR_INVALID);
    assert_int_equal(pwrite(fd, "\n", 1, 0), 1);
    assert_int_equal(read_secret(&s, path, "PIN", &e), ERR_INVALID);
    assert_null(s);
    close(fd);
    unlink(path);
    assert_int_equal(read_secret(&s, path, "PIN", &e), ERR_NOT_FOUND);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(commands_are_found),
        cmocka_unit_test(wrong_usage_is_told),
        cmocka_unit_test(many_arguments_are_bounded),
        cmocka_unit_test(program_is_what_follows_the_dashes),
        cmocka_unit_test(help_is_everywhere),
        cmocka_unit_test(fields_and_times),
        cmocka_unit_test(settings_are_written),
        cmocka_unit_test(odd_settings_are_refused),
        cmocka_unit_test(settings_path_follows_the_environment),
        cmocka_unit_test(values_for_people),
        cmocka_unit_test(tables_are_aligned_and_harmless),
        cmocka_unit_test(nested_objects_are_indented),
        cmocka_unit_test(status_says_what_to_do),
        cmocka_unit_test(status_for_people),
        cmocka_unit_test(minted_key_as_json),
        cmocka_unit_test(minted_key_for_people),
        cmocka_unit_test(lost_output_is_an_error),
        cmocka_unit_test(secrets_from_files),
    };
    return cmocka_run_group_tests_name("hsmint", tests, NULL, NULL);
}
