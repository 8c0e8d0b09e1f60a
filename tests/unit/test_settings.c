#include "config.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "common/file.h"
#include "common/settings.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define SETTINGS CLEANUP(settings_clear) struct settings

static void defaults(void **state)
{
    (void)state;
    SETTINGS s;
    assert_int_equal(settings_parse(&s, "", "x.conf", NULL), OK);
    assert_int_equal(s.mode, MODE_USER);
    assert_non_null(strstr(s.state_dir, "/.local/state/hsmint"));
    assert_string_equal(s.log, "journal");
    assert_string_equal(s.log_level, "info");
    assert_int_equal(s.idle_exit_s, 300);
    assert_int_equal(s.max_connections, 16384);
    assert_int_equal(s.limits.connections, 2048);
    assert_int_equal(s.limits.applications, 1024);
    assert_int_equal(s.limits.rate, 2000);
    assert_int_equal(s.limits.burst, 4000);
    assert_int_equal(s.limits.workers, 256);
    assert_int_equal(s.limits.message_ms, 10000);
    assert_int_equal(s.limits.reply_ms, 10000);
    assert_int_equal(s.limits.memory, 8 << 20);
    assert_int_equal(s.limits.memory_total, 64 << 20);
    assert_int_equal(s.disk_reserve, 16 << 20);
    assert_int_equal(s.keeper_threads, 8);
    assert_null(s.hsm_module);
    assert_null(s.hsm_uri);
    assert_int_equal(s.hsm_sessions, 8);
    assert_int_equal(s.hsm_deadline_ms, 10000);
    assert_false(s.hsm_allow_sha1);
    assert_null(s.pin_source);
    assert_null(s.hsm_env[0]);
    assert_null(s.keeper_socket);
    assert_string_equal(s.user, "hsmint");
    assert_string_equal(s.seccomp, "yes");
    assert_null(s.hsm_syscalls);
    assert_string_equal(s.hosts, "api.openai.com *.api.openai.com");
    assert_null(s.proxy);
    assert_null(s.ca_file);
    assert_false(s.allow_http_loopback || s.http2 || s.send_signature);
    assert_int_equal(s.connect_ms, 10000);
    assert_int_equal(s.call_ms, 30000);
    assert_int_equal(s.reply_max, 1 << 20);
    assert_null(s.audit.origin);
    assert_int_equal(s.audit.records, 256);
    assert_int_equal(s.audit.seconds, 10);
    assert_true(s.audit.log);
    assert_int_equal(s.audit.anchor_s, 900);
}

static void system_mode_has_its_own_places(void **state)
{
    (void)state;
    SETTINGS s;
    assert_int_equal(
        settings_parse(&s, "[daemon]\nmode = system\n", "x.conf", NULL), OK);
    assert_int_equal(s.mode, MODE_SYSTEM);
    assert_string_equal(s.state_dir, "/var/lib/hsmint");
    assert_string_equal(s.socket, "/run/hsmint/socket");
}

static void every_key_is_taken(void **state)
{
    static const char text[] =
        "# a comment\n"
        "[daemon]\r\n"
        "mode = user\r\n"
        "state_dir = /s\nsocket = /r/socket\nlog = stderr\n"
        "log_level = debug\nidle_exit = 0\nmax_connections=7\n"
        "disk_reserve = 2G\nkeeper_threads = 3\n"
        "keeper_socket = /run/k/socket\nuser = 993\nseccomp = log\n"
        "[limits]\nconnections = 9\napplications = 8\n"
        "requests_per_second = 0\nburst = 5\nworkers = 6\n"
        "message_time = 4s\nreply_time = 3s\nmemory = 2M\n"
        "memory_total = 1G\n"
        "\n"
        "[hsm]\n"
        "module = /m.so\nuri = pkcs11:token=t ; which\nsessions = 4\n"
        "deadline = 2m\nallow_sha1 = yes\npin_source = credential:pin\n"
        "syscalls = shmget shmat\n"
        "[hsm.env]\nA = 1\nB_2 = x=y\n"
        "[service]\nhosts = a.example *.b.example [::1]\n"
        "proxy = http://p:1\nno_proxy = a,b\nca_file = /ca.pem\n"
        "allow_http_loopback = true\nhttp2 = on\nsend_signature = 1\n"
        "connect_timeout = 5s\ncall_timeout = 1m\nreply_max = 64K\n"
        "[audit]\norigin = log.example/a\ncheckpoint_records = 9\n"
        "checkpoint_seconds = 2s\ncheckpoint_log = no\nanchor_seconds = 1h";
    (void)state;
    SETTINGS s;
    struct error e = {0};
    if (settings_parse(&s, text, "x.conf", &e) != OK)
        fail_msg("%s", e.text);
    assert_string_equal(s.state_dir, "/s");
    assert_string_equal(s.socket, "/r/socket");
    assert_string_equal(s.log, "stderr");
    assert_string_equal(s.log_level, "debug");
    assert_int_equal(s.idle_exit_s, 0);
    assert_int_equal(s.max_connections, 7);
    assert_int_equal(s.disk_reserve, 2147483648u);
    assert_int_equal(s.keeper_threads, 3);
    assert_int_equal(s.limits.connections, 9);
    assert_int_equal(s.limits.applications, 8);
    assert_int_equal(s.limits.rate, 0);
    assert_int_equal(s.limits.burst, 5);
    assert_int_equal(s.limits.workers, 6);
    assert_int_equal(s.limits.message_ms, 4000);
    assert_int_equal(s.limits.reply_ms, 3000);
    assert_int_equal(s.limits.memory, 2 << 20);
    assert_int_equal(s.limits.memory_total, 1 << 30);
    assert_string_equal(s.hsm_module, "/m.so");
    assert_string_equal(s.hsm_uri, "pkcs11:token=t");
    assert_int_equal(s.hsm_sessions, 4);
    assert_int_equal(s.hsm_deadline_ms, 120000);
    assert_true(s.hsm_allow_sha1);
    assert_string_equal(s.pin_source, "credential:pin");
    assert_string_equal(s.hsm_env[0], "A=1");
    assert_string_equal(s.hsm_env[1], "B_2=x=y");
    assert_null(s.hsm_env[2]);
    assert_string_equal(s.keeper_socket, "/run/k/socket");
    assert_string_equal(s.user, "993");
    assert_string_equal(s.seccomp, "log");
    assert_string_equal(s.hsm_syscalls, "shmget shmat");
    assert_string_equal(s.hosts, "a.example *.b.example [::1]");
    assert_string_equal(s.proxy, "http://p:1");
    assert_string_equal(s.no_proxy, "a,b");
    assert_string_equal(s.ca_file, "/ca.pem");
    assert_true(s.allow_http_loopback && s.http2 && s.send_signature);
    assert_int_equal(s.connect_ms, 5000);
    assert_int_equal(s.call_ms, 60000);
    assert_int_equal(s.reply_max, 65536);
    assert_string_equal(s.audit.origin, "log.example/a");
    assert_int_equal(s.audit.records, 9);
    assert_int_equal(s.audit.seconds, 2);
    assert_false(s.audit.log);
    assert_int_equal(s.audit.anchor_s, 3600);
}

static void refusals_name_the_line(void **state)
{
    static const struct {
        const char *text, *where, *why;
    } cases[] = {
        {"[nope]\n", "x.conf:1:", "unknown section [nope]"},
        {"[daemon\nmode = user\n", "x.conf:1:", "unknown section"},
        {"[daemon]\ncolour = red\n", "x.conf:2:", "no key colour"},
        {"[hsm]\nmode = user\n", "x.conf:2:", "no key mode"},
        {"mode = user\n", "x.conf:1:", "before the first section"},
        {"[hsm]\nsessions = 1\nsessions = 2\n", "x.conf:3:", "twice"},
        {"[hsm]\nuri =\n", "x.conf:2:", "no value"},
        {"[hsm]\nuri\n", "x.conf:2:", "neither"},
        {"[hsm]\nmodule = libx.so\n", "x.conf:2:", "absolute path"},
        {"[hsm]\nuri = token=x\n", "x.conf:2:", "pkcs11:"},
        {"[hsm]\nuri = pkcs11:token=x?pin-value=12\n",
         "x.conf:2:", "pin_source"},
        /* Even of what is no URI, no PIN is told. */
        {"[hsm]\nuri = token=x?pin-value=12\n", "x.conf:2:", "pin_source"},
        {"[hsm]\npin_source = pin\n", "x.conf:2:", "credential:NAME"},
        {"[hsm]\npin_source = credential:\n", "x.conf:2:", "credential:NAME"},
        {"[hsm]\npin_source = credential:a/b\n",
         "x.conf:2:", "credential:NAME"},
        {"[limits]\nworkers = 0\n", "x.conf:2:", "4 to 1024"},
        {"[limits]\nburst = 0\n", "x.conf:2:", "1 to"},
        {"[limits]\nmemory = 1\n", "x.conf:2:", "bytes"},
        {"[limits]\nmessage_time = 0\n", "x.conf:2:", "milliseconds"},
        {"[limits]\nrequests_per_second = -1\n", "x.conf:2:", "number"},
        {"[limits]\nsize = 1\n", "x.conf:2:", "no key size"},
        {"[hsm]\nsessions = 0\n", "x.conf:2:", "1 to 64"},
        {"[hsm]\nsessions = 65\n", "x.conf:2:", "1 to 64"},
        {"[hsm]\nsessions = 4x\n", "x.conf:2:", "write a number"},
        {"[hsm]\nsessions = -4\n", "x.conf:2:", "write a number"},
        {"[hsm]\nsessions = 2K\n", "x.conf:2:", "write a number"},
        {"[hsm]\ndeadline = soon\n", "x.conf:2:", "duration"},
        {"[hsm]\ndeadline = 0\n", "x.conf:2:", "milliseconds"},
        {"[hsm]\nallow_sha1 = maybe\n", "x.conf:2:", "yes or no"},
        {"[daemon]\nmode = both\n", "x.conf:2:", "|user|system|"},
        {"[daemon]\nmode = user|system\n", "x.conf:2:", "|user|system|"},
        {"[daemon]\nlog = file\n", "x.conf:2:", "choose one"},
        {"[daemon]\ndisk_reserve = 1T\n", "x.conf:2:", "K, M or G"},
        {"[daemon]\ndisk_reserve = 16MB\n", "x.conf:2:", "K, M or G"},
        {"[daemon]\ndisk_reserve = 99999999999G\n", "x.conf:2:", "K, M or G"},
        {"[daemon]\nkeeper_socket = k\n", "x.conf:2:", "absolute path"},
        {"[daemon]\nseccomp = maybe\n", "x.conf:2:", "choose one"},
        {"[hsm]\nsyscalls = a,b\n", "x.conf:2:", "blanks"},
        {"[service]\nhosts = *\n", "x.conf:2:", "host names"},
        {"[service]\nhosts = a.*.b\n", "x.conf:2:", "host names"},
        {"[service]\nhosts = a*.b\n", "x.conf:2:", "host names"},
        {"[service]\nhosts = *..b\n", "x.conf:2:", "host names"},
        {"[service]\nhosts = https://a\n", "x.conf:2:", "host names"},
        {"[service]\nhosts = a,b\n", "x.conf:2:", "host names"},
        {"[service]\nhosts = a.example:443\n", "x.conf:2:", "without ports"},
        {"[service]\nhosts = [::1]:443\n", "x.conf:2:", "without ports"},
        {"[service]\nhosts = ::1\n", "x.conf:2:", "host names"},
        {"[service]\nhosts = *.[::1]\n", "x.conf:2:", "host names"},
        {"[service]\nhosts = []\n", "x.conf:2:", "host names"},
        {"[service]\nreply_max = 1G\n", "x.conf:2:", "bytes"},
        {"[audit]\norigin = a b\n", "x.conf:2:", "letters"},
        {"[audit]\norigin = a+b\n", "x.conf:2:", "letters"},
        {"[audit]\norigin = a/\n", "x.conf:2:", "letters"},
        {"[audit]\norigin = /a\n", "x.conf:2:", "letters"},
        {"[audit]\norigin = a/12\n", "x.conf:2:", "number"},
        {"[audit]\ncheckpoint_records = 1024\n", "x.conf:2:", "1 to 512"},
        {"[audit]\ncheckpoint_seconds = 60s\n", "x.conf:2:", "1 to 30"},
        {"[hsm.env]\nLD_PRELOAD = /x\n", "x.conf:2:", "not for the vendor"},
        {"[hsm.env]\nhttps_proxy = x\n", "x.conf:2:", "not for the vendor"},
        {"[hsm.env]\nOPENSSL_CONF = x\n", "x.conf:2:", "not for the vendor"},
        {"[hsm.env]\nSSLKEYLOGFILE = x\n", "x.conf:2:", "not for the vendor"},
        {"[hsm.env]\nA-B = x\n", "x.conf:2:", "no name of a variable"},
        {"[hsm.env]\n1A = x\n", "x.conf:2:", "no name of a variable"},
        {"[hsm.env]\nA = x\nA = y\n", "x.conf:3:", "twice"},
        {"[hsm]\nuri = pkcs11:a\n  b\n", "x.conf:3:", "one line"},
        {"[hsm]\nuri = pkcs11:\xff\n", "x.conf:2:", "UTF-8"},
    };
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        SETTINGS s;
        struct error e = {0};
        if (settings_parse(&s, cases[i].text, "x.conf", &e) != ERR_CONFIG)
            fail_msg("taken: %s", cases[i].text);
        if (!strstr(e.text, cases[i].where) || !strstr(e.text, cases[i].why))
            fail_msg("%s: \"%s\" lacks \"%s\" or \"%s\"", cases[i].text, e.text,
                     cases[i].where, cases[i].why);
        assert_null(s.state_dir);
    }
}

/* A PIN typed into the wrong place must not come back in a message. */
static void pins_are_not_repeated(void **state)
{
    (void)state;
    SETTINGS s;
    struct error e;
    assert_int_equal(
        settings_parse(&s, "[hsm]\nuri = pkcs11:a?pin-value=8642\n", "x", &e),
        ERR_CONFIG);
    assert_null(strstr(e.text, "8642"));
    settings_clear(&s);
    assert_int_equal(settings_parse(&s, "[hsm]\npin = 8642\n", "x", &e),
                     ERR_CONFIG);
    assert_null(strstr(e.text, "8642"));
    settings_clear(&s);
    assert_int_equal(settings_parse(&s, "[hsm]\npin_source = 8642\n", "x", &e),
                     ERR_CONFIG);
    assert_null(strstr(e.text, "8642"));
}

static void long_lines_are_refused_not_cut(void **state)
{
    (void)state;
    char text[400];
    struct error e;
    SETTINGS s;
    snprintf(text, sizeof text, "[hsm]\nuri = pkcs11:token=%0300d\n", 1);
    assert_int_equal(settings_parse(&s, text, "x.conf", &e), ERR_CONFIG);
    assert_non_null(strstr(e.text, "x.conf:2: the line is longer"));
    settings_clear(&s);
    for (int n = 180; n < 200; n++) {
        snprintf(text, sizeof text, "[hsm]\nuri = pkcs11:%0*d\n", n - 13, 7);
        if (settings_parse(&s, text, "x.conf", &e) == OK)
            assert_int_equal(strlen(s.hsm_uri), n - 13 + 7);
        else
            assert_non_null(strstr(e.text, "longer"));
        settings_clear(&s);
    }
}

static void variables_are_bounded(void **state)
{
    (void)state;
    char text[2048] = "[hsm.env]\n";
    struct error e;
    SETTINGS s;
    for (int i = 0; i < 33; i++)
        snprintf(text + strlen(text), sizeof text - strlen(text), "V%d = x\n",
                 i);
    assert_int_equal(settings_parse(&s, text, "x.conf", &e), ERR_CONFIG);
    assert_non_null(strstr(e.text, "more than 32"));
}

static void write_file(const char *path, const char *text, size_t len,
                       mode_t mode)
{
    struct error e;
    if (file_write_atomic(path, text, len, mode, &e) != OK)
        fail_msg("%s", e.text);
}

static void files_must_be_trusted(void **state)
{
    (void)state;
    char dir[] = "/tmp/hsmint-settings-XXXXXX", path[64];
    struct error e;
    SETTINGS s;
    assert_non_null(mkdtemp(dir));
    snprintf(path, sizeof path, "%s/hsmint.conf", dir);
    assert_int_equal(settings_read(&s, path, false, &e), OK);
    assert_int_equal(s.keeper_threads, 8);
    settings_clear(&s);
    assert_int_equal(settings_read(&s, path, true, &e), ERR_CONFIG);
    assert_int_equal(e.code, ERR_CONFIG);
    write_file(path, "[hsm]\nsessions = 3\n", 19, 0644);
    assert_int_equal(settings_read(&s, path, true, &e), OK);
    assert_int_equal(s.hsm_sessions, 3);
    settings_clear(&s);
    assert_int_equal(chmod(path, 0664), 0);
    assert_int_equal(settings_read(&s, path, true, &e), ERR_CONFIG);
    assert_non_null(strstr(e.text, "chmod"));
    write_file(path, "[hsm]\n\0essions = 3\n", 19, 0644);
    assert_int_equal(settings_read(&s, path, true, &e), ERR_CONFIG);
    assert_non_null(strstr(e.text, "NUL"));
    unlink(path);
    rmdir(dir);
}

static void places(void **state)
{
    (void)state;
    FREE char *path = NULL;
    assert_int_equal(settings_default_path(MODE_SYSTEM, &path, NULL), OK);
    assert_non_null(strstr(path, "/hsmint/hsmint.conf"));
    free_p(&path);
    setenv("XDG_CONFIG_HOME", "/xdg", 1);
    assert_int_equal(settings_default_path(MODE_USER, &path, NULL), OK);
    assert_string_equal(path, "/xdg/hsmint/hsmint.conf");
    free_p(&path);
    setenv("XDG_CONFIG_HOME", "relative", 1);
    assert_int_equal(settings_default_path(MODE_USER, &path, NULL), OK);
    assert_non_null(strstr(path, "/.config/hsmint/hsmint.conf"));
    unsetenv("XDG_CONFIG_HOME");
    setenv("XDG_RUNTIME_DIR", "/run/me", 1);
    SETTINGS s;
    assert_int_equal(settings_parse(&s, "", "x", NULL), OK);
    assert_string_equal(s.socket, "/run/me/hsmint/socket");
    unsetenv("XDG_RUNTIME_DIR");
}

/* ---- settings_take() ---- */

struct heard {
    char text[512];
};

static void hear(void *ctx, const char *name, bool taken)
{
    struct heard *h = ctx;
    size_t at = strlen(h->text);
    snprintf(h->text + at, sizeof h->text - at, "%s%s;", name,
             taken ? "" : " later");
}

static void changes_are_taken_or_told(void **state)
{
    (void)state;
    SETTINGS s, t;
    struct heard h = {""};
    assert_int_equal(settings_parse(&s, "[hsm.env]\nA = 1\n", "x", NULL), OK);
    settings_take(&s, &s, hear, &h);
    assert_string_equal(h.text, "");
    assert_int_equal(
        settings_parse(&t,
                       "[daemon]\nmode = system\nstate_dir = /s\nsocket = /r\n"
                       "log = syslog\nlog_level = debug\nmax_connections = 7\n"
                       "idle_exit = 7s\ndisk_reserve = 1M\n[hsm]\nmodule = /m\n"
                       "allow_sha1 = yes\ndeadline = 3s\n[hsm.env]\nA = 2\n",
                       "x", NULL),
        OK);
    settings_take(&s, &t, hear, &h);
    assert_string_equal(h.text,
                        "[daemon] mode later;[daemon] state_dir later;"
                        "[daemon] socket later;[daemon] log;"
                        "[daemon] log_level;[daemon] idle_exit;"
                        "[daemon] max_connections;[daemon] disk_reserve later;"
                        "[hsm] module later;[hsm] deadline later;"
                        "[hsm] allow_sha1 later;[hsm.env] later;");
    assert_string_equal(s.log, "syslog");
    assert_string_equal(s.log_level, "debug");
    assert_int_equal(s.max_connections, 7);
    assert_int_equal(s.idle_exit_s, 7);
    assert_int_equal(s.mode, MODE_USER);
    assert_null(s.hsm_module);
    assert_string_equal(s.hsm_env[0], "A=1");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(defaults),
        cmocka_unit_test(system_mode_has_its_own_places),
        cmocka_unit_test(every_key_is_taken),
        cmocka_unit_test(refusals_name_the_line),
        cmocka_unit_test(pins_are_not_repeated),
        cmocka_unit_test(long_lines_are_refused_not_cut),
        cmocka_unit_test(variables_are_bounded),
        cmocka_unit_test(files_must_be_trusted),
        cmocka_unit_test(places),
        cmocka_unit_test(changes_are_taken_or_told),
    };
    return cmocka_run_group_tests_name("settings", tests, NULL, NULL);
}
