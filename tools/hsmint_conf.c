/* The settings file that `hsmint init` writes for a user who has none. */
#include "config.h"

#include "tools/hsmint.h"

#include "common/file.h"
#include "common/hosts.h"
#include "common/text.h"

#include <ctype.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define LINE_BYTES 199 /* what the daemon reads of a line */

enum code conf_path(char **path, struct error *e)
{
    const char *set = secure_getenv("HSMINT_CONFIG");
    const char *base = secure_getenv("XDG_CONFIG_HOME");
    int rc;
    if (set && set[0] == '/') {
        rc = asprintf(path, "%s", set);
    } else if (base && base[0] == '/') {
        rc = asprintf(path, "%s/hsmint/hsmint.conf", base);
    } else {
        const struct passwd *user = getpwuid(geteuid());
        if (!user || user->pw_dir[0] != '/')
            return error_set(e, ERR_CONFIG,
                             "uid %u has no home directory: "
                             "set HSMINT_CONFIG",
                             (unsigned)geteuid());
        rc = asprintf(path, "%s/.config/hsmint/hsmint.conf", user->pw_dir);
    }
    if (rc >= 0)
        return OK;
    *path = NULL;
    return error_set(e, ERR_NOMEM, "no memory");
}

/* The reader takes what follows " ;" for a comment, and trims. */
static enum code check_value(const char *name, const char *value,
                             struct error *e)
{
    size_t len = strlen(value);
    bool odd = len == 0 || isspace((unsigned char)value[0]) ||
               isspace((unsigned char)value[len - 1]) ||
               !text_utf8_valid(value, len);
    for (size_t i = 0; i < len && !odd; i++)
        odd = (unsigned char)value[i] < 0x20 || value[i] == 0x7f ||
              (value[i] == ';' && i > 0 && value[i - 1] == ' ');
    if (odd)
        return error_set(e, ERR_USAGE,
                         "%s \"%s\": cannot be written into a settings file",
                         name, value);
    if (strlen(name) + 3 + len > LINE_BYTES)
        return error_set(e, ERR_USAGE, "%s: longer than %d bytes", name,
                         LINE_BYTES - 3 - (int)strlen(name));
    return OK;
}

static enum code put(FILE *f, const char *name, const char *value, bool is_path,
                     struct error *e)
{
    if (!value)
        return OK;
    if (is_path && value[0] != '/')
        return error_set(e, ERR_USAGE, "%s %s: write an absolute path", name,
                         value);
    enum code code = check_value(name, value, e);
    if (code == OK)
        (void)fprintf(f, "%s = %s\n", name, value);
    return code;
}

static enum code put_env(FILE *f, const char *pair, struct error *e)
{
    char name[ARGS_NAME_MAX];
    const char *equals = strchr(pair, '=');
    size_t len = equals ? (size_t)(equals - pair) : 0;
    if (len == 0 || len >= sizeof(name) ||
        strspn(pair, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
                     "_0123456789") != len)
        return error_set(e, ERR_USAGE, "--hsm-env %.64s: write NAME=VALUE",
                         pair);
    memcpy(name, pair, len);
    name[len] = '\0';
    return put(f, name, equals + 1, false, e);
}

static enum code put_hosts(FILE *f, const char *hosts, struct error *e)
{
    if (hosts && !hosts_valid(hosts))
        return error_set(e, ERR_USAGE,
                         "--hosts \"%s\": write host names with blanks "
                         "between them; *.NAME stands for all below NAME",
                         hosts);
    return put(f, "hosts", hosts ? hosts : HOSTS_DEFAULT, false, e);
}

static enum code put_all(FILE *f, const struct args *a, struct error *e)
{
    enum code code;
    (void)fprintf(f, "# Written by hsmint init; see hsmint.conf(5).\n"
                     "[daemon]\nmode = user\n");
    if ((code = put(f, "socket", a->socket, true, e)))
        return code;
    (void)fprintf(f, "\n[hsm]\n");
    if ((code = put(f, "module", a->hsm_module, true, e)) ||
        (code = put(f, "uri", a->hsm_uri, false, e)) ||
        (code = put(f, "pin_source", a->pin_source, true, e)))
        return code;
    if (a->softhsm_conf || a->hsm_env.n > 0)
        (void)fprintf(f, "\n[hsm.env]\n");
    if ((code = put(f, "SOFTHSM2_CONF", a->softhsm_conf, true, e)))
        return code;
    for (int i = 0; i < a->hsm_env.n && code == OK; i++)
        code = put_env(f, a->hsm_env.items[i], e);
    (void)fprintf(f, "\n[service]\n");
    return code ? code : put_hosts(f, a->hosts, e);
}

enum code conf_text(const struct args *a, char **text, struct error *e)
{
    size_t len = 0;
    *text = NULL;
    if (!a->hsm_module || !a->hsm_uri)
        return error_set(e, ERR_USAGE,
                         "which HSM? give --hsm-module (the vendor's PKCS#11 "
                         "library) and --hsm-uri (pkcs11:token=…)");
    FILE *f = open_memstream(text, &len);
    if (!f)
        return error_set(e, ERR_NOMEM, "no memory");
    enum code code = put_all(f, a, e);
    if (fclose(f) != 0 && code == OK)
        code = error_set(e, ERR_NOMEM, "no memory");
    if (code) {
        free(*text);
        *text = NULL;
    }
    return code;
}
