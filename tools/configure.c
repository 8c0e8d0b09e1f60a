/* configure - see configure.h. */
#include "config.h"

#include "tools/configure.h"

#include "common/file.h"
#include "common/log.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static enum code replace(char **setting, const char *with, struct error *e)
{
    if (!with)
        return OK;
    char *copy = strdup(with);
    if (!copy)
        return error_set(e, ERR_NOMEM, "settings");
    free(*setting);
    *setting = copy;
    return OK;
}

/* The daemon goes to /, and the keeper is told, too. */
static enum code replace_path(char **setting, const char *with,
                              struct error *e)
{
    if (!with || with[0] == '/')
        return replace(setting, with, e);
    FREE char *here = getcwd(NULL, 0);
    FREE char *path = NULL;
    if (!here || asprintf(&path, "%s/%s", here, with) < 0) {
        path = NULL;
        return error_set(e, ERR_IO, "%s: the current directory is not known",
                         with);
    }
    return replace(setting, path, e);
}

/* Option and file have to agree: the mode is never a matter of falling back. */
static enum code check_mode(const struct settings *s,
                            const struct configure_options *o, const char *path,
                            struct error *e)
{
    if (o->system && s->mode != MODE_SYSTEM)
        return error_set(e, ERR_CONFIG,
                         "--system, but %s does not say mode = system", path);
    if (o->user && s->mode != MODE_USER)
        return error_set(e, ERR_CONFIG, "--user, but %s says mode = system",
                         path);
    return OK;
}

/* Without one there is nothing that it could do. */
static enum code check_hsm(const struct settings *s, const char *path,
                           struct error *e)
{
    if (s->hsm_module && *s->hsm_module)
        return OK;
    return error_set(e, ERR_CONFIG,
                     "%s names no HSM: `hsmint init --hsm-module PATH "
                     "--hsm-uri URI` writes one, see hsmint.conf(5)",
                     path);
}

enum code configure_read(struct settings *s, char **path,
                         const struct configure_options *o, struct error *e)
{
    enum code rc =
        o->config ? replace(path, o->config, e)
                  : settings_default_path(o->system ? MODE_SYSTEM : MODE_USER,
                                          path, e);
    if (rc == OK)
        rc = settings_read(s, *path, o->config != NULL, e);
    if (rc == OK)
        rc = check_mode(s, o, *path, e);
    if (rc == OK)
        rc = check_hsm(s, *path, e);
    if (rc == OK)
        rc = replace_path(&s->state_dir, o->state, e);
    if (rc == OK)
        rc = replace(&s->socket, o->socket, e);
    if (rc == OK)
        rc = replace(&s->log, o->foreground ? "stderr" : NULL, e);
    return rc;
}

bool configure_log(const struct settings *s)
{
    static const struct {
        const char *name;
        enum log_sink sink;
    } sinks[] = {{"stderr", LOG_SINK_STDERR},
                 {"syslog", LOG_SINK_SYSLOG},
                 {"journal", LOG_SINK_JOURNAL},
                 {"none", LOG_SINK_NONE}};
    static const char *const levels[] = {"error", "warning", "info", "debug"};
    enum log_sink sink = LOG_SINK_STDERR;
    int level = LOG_LEVEL_INFO;
    for (size_t i = 0; i < sizeof sinks / sizeof sinks[0]; i++)
        if (!strcmp(s->log, sinks[i].name))
            sink = sinks[i].sink;
    for (int i = 0; i < 4; i++)
        if (!strcmp(s->log_level, levels[i]))
            level = i;
    log_open("hsmintd", sink, (enum log_level)level);
    return sink == LOG_SINK_STDERR;
}

struct changes {
    int taken, left;
};

static void tell_change(void *ctx, const char *name, bool taken)
{
    struct changes *c = ctx;
    if (taken) {
        c->taken++;
        log_info("reload: %s is taken as it is now", name);
        return;
    }
    c->left++;
    log_warning("reload: %s has changed, which needs a restart", name);
}

enum code configure_again(struct settings *s, const struct configure_options *o,
                          struct error *e)
{
    CLEANUP(settings_clear) struct settings fresh = {.mode = MODE_USER};
    FREE char *path = NULL;
    struct changes c = {0, 0};
    enum code rc = configure_read(&fresh, &path, o, e);
    if (rc)
        return rc;
    settings_take(s, &fresh, tell_change, &c);
    if (c.taken)
        configure_log(s);
    if (c.taken + c.left == 0)
        log_info("reload: %s says what it said", path);
    return OK;
}
