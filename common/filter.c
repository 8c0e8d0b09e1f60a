/* filter - see filter.h. */
#include "config.h"

#include "common/filter.h"

#include "common/log.h"

#include <errno.h>
#include <link.h>
#include <seccomp.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#define NAME_MAX_BYTES 64

static void filter_freep(scmp_filter_ctx *f)
{
    if (*f)
        seccomp_release(*f);
}

static int is_valgrind(struct dl_phdr_info *info, size_t size, void *found)
{
    (void)size;
    if (info->dlpi_name && strstr(info->dlpi_name, "/vgpreload_"))
        *(bool *)found = true;
    return 0;
}

/* Why there is no filter, NULL to have one. */
static const char *reason_against(const struct settings *s)
{
    bool valgrind = false;
    if (strcmp(s->seccomp, "no") == 0)
        return "the settings say seccomp = no";
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__) ||          \
    defined(HSMINT_SANITIZED)
    return "a sanitizer's library makes calls of its own";
#endif
    dl_iterate_phdr(is_valgrind, &valgrind);
    return valgrind ? "valgrind makes calls of its own" : NULL;
}

static enum code failed(int r, const char *call, struct error *e)
{
    return error_set(e, ERR_CONFIG,
                     "seccomp: %s%s%s: %s; [daemon] seccomp = no goes without "
                     "a filter",
                     call ? "the rule for " : "the filter cannot be installed",
                     call ? call : "", call ? " cannot be made" : "",
                     strerror(-r));
}

static struct scmp_arg_cmp comparison(const struct syscall_rule *rule)
{
    struct scmp_arg_cmp c = {.arg = rule->argument,
                             .op = SCMP_CMP_EQ,
                             .datum_a = rule->value};
    if (rule->check == CHECK_BITS)
        c = (struct scmp_arg_cmp){rule->argument, SCMP_CMP_MASKED_EQ,
                                  rule->mask, rule->value};
    else if (rule->check == CHECK_SELF)
        c.datum_a = (scmp_datum_t)getpid();
    return c;
}

/* A name that this libseccomp, or this architecture, does not know stands for a
 * call that cannot be made here, and stays refused. */
static enum code add(scmp_filter_ctx f, uint32_t action,
                     const struct syscall_rule *rule, struct error *e)
{
    int number = seccomp_syscall_resolve_name(rule->name);
    struct scmp_arg_cmp c = comparison(rule);
    bool plain = rule->check == CHECK_NONE || rule->check == CHECK_ABSENT;
    if (number == __NR_SCMP_ERROR)
        return OK;
    int r = seccomp_rule_add_array(f, action, number, plain ? 0 : 1, &c);
    return r ? failed(r, rule->name, e) : OK;
}

/* The rows with that check, or all but them. */
static enum code add_table(scmp_filter_ctx f, enum filter_role role,
                           bool absent, struct error *e)
{
    uint32_t action = absent ? SCMP_ACT_ERRNO(ENOSYS) : SCMP_ACT_ALLOW;
    for (const struct syscall_rule *r = syscall_rules; r->name; r++) {
        bool wanted = (r->roles & role) &&
                      (!absent || r->check == CHECK_ABSENT);
        enum code rc = wanted ? add(f, action, r, e) : OK;
        if (rc)
            return rc;
    }
    return OK;
}

/* What a vendor's library needs beyond the table: the administrator's word. */
static enum code add_further(scmp_filter_ctx f, const char *names,
                             struct error *e)
{
    char name[NAME_MAX_BYTES];
    for (const char *p = names + strspn(names, " "); *p;) {
        size_t len = strcspn(p, " ");
        if (len >= sizeof name)
            return error_set(e, ERR_CONFIG, "[hsm] syscalls: %.32s… is too long",
                             p);
        memcpy(name, p, len);
        name[len] = '\0';
        if (seccomp_syscall_resolve_name(name) == __NR_SCMP_ERROR)
            return error_set(e, ERR_CONFIG,
                             "[hsm] syscalls: there is no system call %s",
                             name);
        const struct syscall_rule rule = {.name = name, .check = CHECK_NONE};
        enum code rc = add(f, SCMP_ACT_ALLOW, &rule, e);
        if (rc)
            return rc;
        p += len + strspn(p + len, " ");
    }
    return OK;
}

/* Calls of a foreign architecture (int 0x80, x32) are never a mistake. */
static int set_attributes(scmp_filter_ctx f, bool logged)
{
    const struct {
        enum scmp_filter_attr name;
        uint32_t value;
    } attributes[] = {{SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS},
                      {SCMP_FLTATR_CTL_NNP, 1},
                      {SCMP_FLTATR_CTL_TSYNC, 1},
                      {SCMP_FLTATR_CTL_LOG, logged},
                      {SCMP_FLTATR_CTL_OPTIMIZE, 2}};
    for (size_t i = 0; i < sizeof attributes / sizeof attributes[0]; i++) {
        int r = seccomp_attr_set(f, attributes[i].name, attributes[i].value);
        if (r)
            return r;
    }
    return 0;
}

/* What the C library asks for again and again to find it absent: a filter of
 * its own, for the kernel logs all refusals of a filter or none. */
static enum code load_absent(enum filter_role role, struct error *e)
{
    scmp_filter_ctx f CLEANUP(filter_freep) = seccomp_init(SCMP_ACT_ALLOW);
    if (!f)
        return error_set(e, ERR_NOMEM, "no memory for the seccomp filter");
    int r = set_attributes(f, false);
    enum code rc = r ? failed(r, NULL, e) : add_table(f, role, true, e);
    if (rc)
        return rc;
    r = seccomp_load(f);
    return r ? failed(r, NULL, e) : OK;
}

static enum code fill_and_load(scmp_filter_ctx f, enum filter_role role,
                               const struct settings *s, struct error *e)
{
    int r = set_attributes(f, true);
    if (r)
        return failed(r, NULL, e);
    enum code rc = add_table(f, role, false, e);
    if (!rc && s->hsm_syscalls && role != FILTER_DAEMON)
        rc = add_further(f, s->hsm_syscalls, e);
    if (rc)
        return rc;
    r = seccomp_load(f);
    return r ? failed(r, NULL, e) : OK;
}

enum code filter_install(enum filter_role role, const struct settings *s,
                         struct error *e)
{
    const char *against = reason_against(s);
    bool logs = strcmp(s->seccomp, "log") == 0;
    if (against) {
        log_warning("no seccomp filter: %s", against);
        return OK;
    }
    scmp_filter_ctx f CLEANUP(filter_freep) =
        seccomp_init(logs ? SCMP_ACT_LOG : SCMP_ACT_ERRNO(EPERM));
    if (!f)
        return error_set(e, ERR_NOMEM, "no memory for the seccomp filter");
    enum code rc = load_absent(role, e);
    if (!rc)
        rc = fill_and_load(f, role, s, e);
    if (!rc && logs)
        log_warning("seccomp = log: calls that would be refused are made, and "
                    "logged by the kernel");
    return rc;
}
