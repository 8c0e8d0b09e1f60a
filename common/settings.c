#include "config.h"

#include "common/file.h"
#include "common/hosts.h"
#include "common/settings.h"
#include "common/settings_value.h"
#include "common/text.h"

#include <ini.h>
#include <pwd.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define FILE_MAX 65536
#define LINE_BYTES 199 /* inih's own bound: what is longer it would cut */
#define ENV_MAX 32

struct key {
    const char *section;
    const char *name;
    enum value_kind kind;
    size_t offset;
    int64_t fallback; /* of the numbers */
    int64_t min, max;
    const char *words; /* WORD: "|one|two|", NULL for any text */
};

#define AT(field) offsetof(struct settings, field)
#define HOUR 3600
#define DAY 86400

static const struct key keys[] = {
    {"daemon", "mode", WORD, AT(mode), 0, 0, 0, "|user|system|"},
    {"daemon", "state_dir", PATH, AT(state_dir), 0, 0, 0, NULL},
    {"daemon", "socket", PATH, AT(socket), 0, 0, 0, NULL},
    {"daemon", "policies_dir", PATH, AT(policies_dir), 0, 0, 0, NULL},
    {"daemon", "log", WORD, AT(log), 0, 0, 0, "|journal|syslog|stderr|none|"},
    {"daemon", "log_level", WORD, AT(log_level), 0, 0, 0,
     "|error|warning|info|debug|"},
    {"daemon", "idle_exit", SECONDS, AT(idle_exit_s), 300, 0, 365 * DAY, NULL},
    {"daemon", "max_connections", NUMBER, AT(max_connections), 16384, 1,
     1 << 20, NULL},
    {"daemon", "disk_reserve", SIZE, AT(disk_reserve), 16 << 20, 0,
     (int64_t)1 << 40, NULL},
    {"daemon", "keeper_threads", NUMBER, AT(keeper_threads), 8, 1, 64, NULL},
    {"daemon", "keeper_socket", PATH, AT(keeper_socket), 0, 0, 0, NULL},
    {"daemon", "reconcile", SECONDS, AT(reconcile_s), 3600, 0, 30 * DAY, NULL},
    {"daemon", "user", WORD, AT(user), 0, 0, 0, NULL},
    {"daemon", "seccomp", WORD, AT(seccomp), 0, 0, 0, "|yes|log|no|"},
    {"limits", "connections", NUMBER, AT(limits.connections), 2048, 1, 1 << 20,
     NULL},
    {"limits", "applications", NUMBER, AT(limits.applications), 1024, 1,
     1 << 20, NULL},
    {"limits", "requests_per_second", NUMBER, AT(limits.rate), 2000, 0, 1000000,
     NULL},
    {"limits", "burst", NUMBER, AT(limits.burst), 4000, 1, 1000000, NULL},
    {"limits", "workers", NUMBER, AT(limits.workers), 256, 4, 1024, NULL},
    {"limits", "message_time", MS, AT(limits.message_ms), 10000, 1000, 600000,
     NULL},
    {"limits", "reply_time", MS, AT(limits.reply_ms), 10000, 1000, 600000,
     NULL},
    {"limits", "memory", SIZE, AT(limits.memory), 8 << 20, 1 << 20,
     (int64_t)1 << 40, NULL},
    {"limits", "memory_total", SIZE, AT(limits.memory_total), 64 << 20, 1 << 20,
     (int64_t)1 << 40, NULL},
    {"hsm", "module", PATH, AT(hsm_module), 0, 0, 0, NULL},
    {"hsm", "uri", URI, AT(hsm_uri), 0, 0, 0, NULL},
    {"hsm", "sessions", NUMBER, AT(hsm_sessions), 8, 1, 64, NULL},
    {"hsm", "deadline", MS, AT(hsm_deadline_ms), 10000, 1000, 600000, NULL},
    {"hsm", "call_period", PERIOD, AT(call_period_s), 0, HOUR, 3650 * DAY,
     NULL},
    {"hsm", "log_period", PERIOD, AT(log_period_s), 0, HOUR, 3650 * DAY, NULL},
    {"hsm", "seal_period", PERIOD, AT(seal_period_s), 0, HOUR, 3650 * DAY,
     NULL},
    {"hsm", "allow_sha1", BOOLEAN, AT(hsm_allow_sha1), 0, 0, 0, NULL},
    {"hsm", "pin_source", PIN_SOURCE, AT(pin_source), 0, 0, 0, NULL},
    {"hsm", "keeper_state_dir", PATH, AT(keeper_state_dir), 0, 0, 0, NULL},
    {"hsm", "recovery_key", PATH, AT(recovery_key), 0, 0, 0, NULL},
    {"hsm", "syscalls", SYSCALLS, AT(hsm_syscalls), 0, 0, 0, NULL},
    {"service", "hosts", HOSTS, AT(hosts), 0, 0, 0, NULL},
    {"service", "proxy", WORD, AT(proxy), 0, 0, 0, NULL},
    {"service", "no_proxy", WORD, AT(no_proxy), 0, 0, 0, NULL},
    {"service", "ca_file", PATH, AT(ca_file), 0, 0, 0, NULL},
    {"service", "allow_http_loopback", BOOLEAN, AT(allow_http_loopback), 0, 0,
     0, NULL},
    {"service", "http2", BOOLEAN, AT(http2), 0, 0, 0, NULL},
    {"service", "send_signature", BOOLEAN, AT(send_signature), 0, 0, 0, NULL},
    {"service", "connect_timeout", MS, AT(connect_ms), 10000, 1000, 600000,
     NULL},
    {"service", "call_timeout", MS, AT(call_ms), 30000, 1000, 600000, NULL},
    {"service", "revoke_at_once", NUMBER, AT(revoke_at_once), 4, 1, 32, NULL},
    {"service", "reply_max", SIZE, AT(reply_max), 1 << 20, 1024, 4 << 20, NULL},
    {"audit", "origin", ORIGIN, AT(audit.origin), 0, 0, 0, NULL},
    /* Below the keeper's own bounds: 1024 calls, 60 s. */
    {"audit", "checkpoint_records", NUMBER, AT(audit.records), 256, 1, 512,
     NULL},
    {"audit", "checkpoint_seconds", SECONDS, AT(audit.seconds), 10, 1, 30,
     NULL},
    {"audit", "checkpoint_log", BOOLEAN, AT(audit.log), 1, 0, 0, NULL},
    {"audit", "anchor_seconds", SECONDS, AT(audit.anchor_s), 900, 1, 30 * DAY,
     NULL},
};
#define KEYS (sizeof keys / sizeof keys[0])

static const char *const sections[] = {"daemon", "limits",  "hsm",
                                       "hsm.env", "service", "audit"};

struct parser {
    struct settings *s;
    const char *name; /* of the file */
    const char *rest; /* text not yet read */
    int line;
    bool seen[KEYS];
    size_t env;
    enum code rc; /* the first error ends it */
    struct error *e;
};

static enum code fail(struct parser *p, const char *fmt, ...) PRINTF(2, 3);
static enum code fail(struct parser *p, const char *fmt, ...)
{
    char why[512];
    va_list args;
    va_start(args, fmt);
    vsnprintf(why, sizeof why, fmt, args);
    va_end(args);
    p->rc = error_set(p->e, ERR_CONFIG, "%s:%d: %s", p->name, p->line, why);
    return p->rc;
}

static enum code set_text(struct parser *p, const struct key *k,
                          const char *value)
{
    struct error why = {.code = OK};
    if (value_check_text(k->kind, k->name, value, k->words, &why))
        return fail(p, "%s", why.text);
    void *at = (char *)p->s + k->offset;
    if (k->offset == AT(mode)) {
        *(enum settings_mode *)at =
            strcmp(value, "system") == 0 ? MODE_SYSTEM : MODE_USER;
        return OK;
    }
    *(char **)at = strdup(value);
    return *(char **)at ? OK : fail(p, "out of memory");
}

static void store_number(struct settings *s, const struct key *k, int64_t n)
{
    void *at = (char *)s + k->offset;
    if (k->kind == NUMBER)
        *(int *)at = (int)n;
    else if (k->kind == SIZE)
        *(uint64_t *)at = (uint64_t)n;
    else if (k->kind == BOOLEAN)
        *(bool *)at = n != 0;
    else
        *(int64_t *)at = n;
}

static enum code set_number(struct parser *p, const struct key *k,
                            const char *value)
{
    struct error why = {.code = OK};
    int64_t n;
    if (value_number(k->kind, k->name, value, k->min, k->max, &n, &why))
        return fail(p, "%s", why.text);
    store_number(p->s, k, n);
    return OK;
}

/* Names that would change the keeper's own loader, TLS or route. */
static bool is_refused_env(const char *name)
{
    size_t len = strlen(name);
    return strncmp(name, "LD_", 3) == 0 || strncmp(name, "OPENSSL_", 8) == 0 ||
           strcmp(name, "SSLKEYLOGFILE") == 0 ||
           (len >= 6 && strcasecmp(name + len - 6, "_proxy") == 0);
}

static enum code add_env(struct parser *p, const char *name, const char *value)
{
    static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
                                  "abcdefghijklmnopqrstuvwxyz_0123456789";
    size_t len = strlen(name);
    if (len == 0 || strspn(name, letters) != len ||
        (name[0] >= '0' && name[0] <= '9'))
        return fail(p, "[hsm.env] %.64s: is no name of a variable", name);
    if (is_refused_env(name))
        return fail(p, "[hsm.env] %s: is not for the vendor's library", name);
    for (size_t i = 0; i < p->env; i++)
        if (strncmp(p->s->hsm_env[i], name, len) == 0 &&
            p->s->hsm_env[i][len] == '=')
            return fail(p, "[hsm.env] %s: comes twice", name);
    if (p->env == ENV_MAX)
        return fail(p, "[hsm.env]: more than %d variables", ENV_MAX);
    if (asprintf(&p->s->hsm_env[p->env], "%s=%s", name, value) < 0) {
        p->s->hsm_env[p->env] = NULL;
        return fail(p, "out of memory");
    }
    p->env++;
    return OK;
}

static enum code set_key(struct parser *p, const char *section,
                         const char *name, const char *value)
{
    if (!*value)
        return fail(p, "%s: has no value", name);
    if (strcmp(section, "hsm.env") == 0)
        return add_env(p, name, value);
    for (size_t i = 0; i < KEYS; i++) {
        const struct key *k = &keys[i];
        if (strcmp(k->section, section) != 0 || strcmp(k->name, name) != 0)
            continue;
        if (p->seen[i])
            return fail(p, "%s: comes twice", name);
        p->seen[i] = true;
        return k->kind <= PIN_SOURCE ? set_text(p, k, value)
                                     : set_number(p, k, value);
    }
    return fail(p, "[%s] has no key %.64s", section, name);
}

static int handle(void *user, const char *section, const char *name,
                  const char *value)
{
    struct parser *p = user;
    if (p->rc)
        return 0;
    if (!*section)
        return fail(p, "%.64s: stands before the first section", name) == OK;
    return set_key(p, section, name, value ? value : "") == OK;
}

static bool is_section(const char *line, size_t len)
{
    for (size_t i = 0; i < sizeof sections / sizeof sections[0]; i++) {
        size_t n = strlen(sections[i]);
        if (len >= n + 2 && strncmp(line + 1, sections[i], n) == 0 &&
            line[n + 1] == ']')
            return true;
    }
    return false;
}

/* What inih would pass over in silence: a cut line, a continued value, a
 * section that we do not know. */
static enum code check_line(struct parser *p, const char *line, size_t len)
{
    if (len > LINE_BYTES - 1)
        return fail(p, "the line is longer than %d bytes", LINE_BYTES - 1);
    if (!text_utf8_valid(line, len))
        return fail(p, "invalid UTF-8");
    if (len && (line[0] == ' ' || line[0] == '\t') &&
        strspn(line, " \t\r") < len)
        return fail(p, "begins with a blank: values have one line");
    if (len && line[0] == '[' && !is_section(line, len))
        return fail(p, "unknown section %.*s", (int)len, line);
    return OK;
}

/* inih asks for one line at a time. */
static char *next_line(char *to, int room, void *user)
{
    struct parser *p = user;
    if (p->rc || !*p->rest)
        return NULL;
    size_t len = strcspn(p->rest, "\n");
    p->line++;
    if (check_line(p, p->rest, len) || (int)len >= room)
        return NULL;
    memcpy(to, p->rest, len);
    to[len] = '\0';
    p->rest += len + (p->rest[len] == '\n');
    return to;
}

static const char *home(void)
{
    const struct passwd *pw = getpwuid(geteuid());
    return pw && pw->pw_dir[0] == '/' ? pw->pw_dir : NULL;
}

static char *format(const char *fmt, ...) PRINTF(1, 2);
static char *format(const char *fmt, ...)
{
    char *text;
    va_list args;
    va_start(args, fmt);
    int n = vasprintf(&text, fmt, args);
    va_end(args);
    return n < 0 ? NULL : text;
}

static char *default_state_dir(enum settings_mode mode)
{
    if (mode == MODE_SYSTEM)
        return strdup("/var/lib/hsmint");
    const char *dir = home();
    return dir ? format("%s/.local/state/hsmint", dir) : NULL;
}

/* NULL in user mode without a runtime directory: --socket must say it. */
static char *default_socket(enum settings_mode mode)
{
    if (mode == MODE_SYSTEM)
        return strdup("/run/hsmint/socket");
    const char *runtime = secure_getenv("XDG_RUNTIME_DIR");
    if (runtime && runtime[0] == '/')
        return format("%s/hsmint/socket", runtime);
    char dir[64];
    struct stat st;
    snprintf(dir, sizeof dir, "/run/user/%u", (unsigned)geteuid());
    if (lstat(dir, &st) != 0 || !S_ISDIR(st.st_mode) || st.st_uid != geteuid())
        return NULL;
    return format("%s/hsmint/socket", dir);
}

static enum code fill_defaults(struct settings *s, struct error *e)
{
    if (!s->state_dir)
        s->state_dir = default_state_dir(s->mode);
    if (!s->socket)
        s->socket = default_socket(s->mode);
    if (!s->log)
        s->log = strdup("journal");
    if (!s->log_level)
        s->log_level = strdup("info");
    if (!s->user)
        s->user = strdup("hsmint");
    if (!s->seccomp)
        s->seccomp = strdup("yes");
    if (!s->hosts)
        s->hosts = strdup(HOSTS_DEFAULT);
    if (!s->log || !s->log_level || !s->user || !s->seccomp || !s->hosts)
        return error_set(e, ERR_NOMEM, "settings: out of memory");
    if (!s->state_dir)
        return error_set(e, ERR_CONFIG,
                         "uid %u has no home directory: set state_dir",
                         (unsigned)geteuid());
    return OK;
}

enum code settings_parse(struct settings *s, const char *text, const char *name,
                         struct error *e)
{
    struct parser p = {.s = s, .name = name, .rest = text, .e = e};
    *s = (struct settings){.mode = MODE_USER};
    for (size_t i = 0; i < KEYS; i++)
        if (keys[i].kind > PIN_SOURCE)
            store_number(s, &keys[i], keys[i].fallback);
    s->hsm_env = calloc(ENV_MAX + 1, sizeof *s->hsm_env);
    if (!s->hsm_env)
        return error_set(e, ERR_NOMEM, "settings: out of memory");
    int bad = ini_parse_stream(next_line, &p, handle, &p);
    if (bad > 0 && !p.rc) {
        p.line = bad;
        fail(&p, "is neither [section] nor key = value");
    } else if (bad < 0 && !p.rc) {
        p.rc = error_set(e, ERR_NOMEM, "settings: out of memory");
    }
    if (!p.rc)
        p.rc = fill_defaults(s, e);
    if (p.rc)
        settings_clear(s);
    return p.rc;
}

static enum code read_text(const char *path, bool must_exist, char **text,
                           struct error *e)
{
    size_t len = 0;
    enum code rc = file_read(path, FILE_MAX, FILE_TRUSTED, text, &len, e);
    if (rc == ERR_NOT_FOUND && !must_exist) {
        error_clear(e);
        *text = strdup("");
        return *text ? OK : error_set(e, ERR_NOMEM, "settings: out of memory");
    }
    if (rc) {
        if (e)
            e->code = ERR_CONFIG;
        return ERR_CONFIG;
    }
    if (strlen(*text) != len)
        return error_set(e, ERR_CONFIG, "%s: holds a NUL", path);
    return OK;
}

enum code settings_read(struct settings *s, const char *path, bool must_exist,
                        struct error *e)
{
    FREE char *text = NULL;
    *s = (struct settings){.mode = MODE_USER};
    enum code rc = read_text(path, must_exist, &text, e);
    return rc ? rc : settings_parse(s, text, path, e);
}

void settings_clear(struct settings *s)
{
    for (size_t i = 0; i < KEYS; i++)
        if (keys[i].kind <= PIN_SOURCE && keys[i].offset != AT(mode))
            free(*(char **)((char *)s + keys[i].offset));
    for (char **v = s->hsm_env; v && *v; v++)
        free(*v);
    free(s->hsm_env);
    *s = (struct settings){.mode = MODE_USER};
}

enum code settings_default_path(enum settings_mode mode, char **path,
                                struct error *e)
{
    const char *config = secure_getenv("XDG_CONFIG_HOME");
    const char *dir = home();
    if (mode == MODE_SYSTEM)
        *path = strdup(HSMINT_SYSCONFDIR "/hsmint/hsmint.conf");
    else if (config && config[0] == '/')
        *path = format("%s/hsmint/hsmint.conf", config);
    else if (dir)
        *path = format("%s/.config/hsmint/hsmint.conf", dir);
    else
        return error_set(e, ERR_CONFIG, "uid %u has no home directory",
                         (unsigned)geteuid());
    return *path ? OK : error_set(e, ERR_NOMEM, "settings: out of memory");
}

/* ---- what changes while the daemon runs ---- */

/* Read by the daemon's main thread alone. */
static const struct {
    const char *section, *name;
} taken_live[] = {
    {"daemon", "log"},
    {"daemon", "log_level"},
    {"daemon", "idle_exit"},
    {"daemon", "max_connections"},
    {"limits", "connections"},
    {"limits", "applications"},
    {"limits", "memory"},
    {"limits", "memory_total"},
};

static bool is_live(const struct key *k)
{
    for (size_t i = 0; i < sizeof taken_live / sizeof taken_live[0]; i++)
        if (!strcmp(taken_live[i].section, k->section) &&
            !strcmp(taken_live[i].name, k->name))
            return true;
    return false;
}

static size_t size_of(const struct key *k)
{
    if (k->offset == AT(mode))
        return sizeof(enum settings_mode);
    if (k->kind <= PIN_SOURCE)
        return sizeof(char *);
    return k->kind == BOOLEAN  ? sizeof(bool)
           : k->kind == NUMBER ? sizeof(int)
                               : sizeof(int64_t);
}

static bool same(const struct key *k, const void *a, const void *b)
{
    if (k->kind > PIN_SOURCE || k->offset == AT(mode))
        return memcmp(a, b, size_of(k)) == 0;
    const char *x = *(char *const *)a, *y = *(char *const *)b;
    return x == y || (x && y && strcmp(x, y) == 0);
}

static bool same_env(char **a, char **b)
{
    for (; a && b && *a && *b; a++, b++)
        if (strcmp(*a, *b) != 0)
            return false;
    return !(a && *a) && !(b && *b);
}

void settings_take(struct settings *s, struct settings *from,
                   settings_change_fn fn, void *ctx)
{
    char name[64], swap[sizeof(int64_t)];
    for (size_t i = 0; i < KEYS; i++) {
        const struct key *k = &keys[i];
        char *mine = (char *)s + k->offset, *theirs = (char *)from + k->offset;
        if (same(k, mine, theirs))
            continue;
        snprintf(name, sizeof name, "[%s] %s", k->section, k->name);
        if (is_live(k)) {
            memcpy(swap, mine, size_of(k));
            memcpy(mine, theirs, size_of(k));
            memcpy(theirs, swap, size_of(k));
        }
        fn(ctx, name, is_live(k));
    }
    if (!same_env(s->hsm_env, from->hsm_env))
        fn(ctx, "[hsm.env]", false);
}
