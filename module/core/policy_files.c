/* Policies as files of policies.d. */
#include "config.h"

#include "common/file.h"
#include "common/locate.h"
#include "common/text.h"
#include "module/core/policies.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define ENDING ".json"

void policy_files_clear(struct policy_files *f)
{
    for (size_t i = 0; i < f->n; i++) {
        free(f->list[i].path);
        free(f->list[i].text);
    }
    free(f->list);
    *f = (struct policy_files){.n = 0};
}

/* Whoever may write the folder may put a file there, or take one away. */
static enum code open_dir(const char *path, bool must_exist, DIR **out,
                          struct error *e)
{
    FD fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    struct stat st;

    *out = NULL;
    if (fd < 0 && errno == ENOENT && !must_exist)
        return OK;
    if (fd < 0 || fstat(fd, &st) != 0)
        return error_errno(e, errno, "%s", path);
    if ((st.st_uid != 0 && st.st_uid != geteuid()) ||
        st.st_mode & (S_IWGRP | S_IWOTH))
        return error_set(e, ERR_DENIED,
                         "%s: others than root may write it (uid %u, mode "
                         "%04o): chown root and chmod go-w",
                         path, (unsigned)st.st_uid, st.st_mode & 07777u);
    *out = fdopendir(fd);
    if (!*out)
        return error_errno(e, errno, "%s", path);
    fd = -1;
    return OK;
}

static bool is_wanted(const char *name)
{
    size_t len = strlen(name), ending = sizeof(ENDING) - 1;

    return name[0] != '.' && len > ending &&
           strcmp(name + len - ending, ENDING) == 0;
}

static enum code add_file(struct policy_files *f, const char *dir,
                          const char *file, struct error *e)
{
    struct policy_file *more =
        reallocarray(f->list, f->n + 1, sizeof(*f->list));
    struct policy_file *one;
    size_t len = strlen(file) - (sizeof(ENDING) - 1);
    size_t n = 0;

    if (!more)
        return error_set(e, ERR_NOMEM, "no memory for policies");
    f->list = more;
    one = &more[f->n];
    *one = (struct policy_file){.path = NULL};
    if (asprintf(&one->path, "%s/%s", dir, file) < 0) {
        one->path = NULL;
        return error_set(e, ERR_NOMEM, "no memory for policies");
    }
    f->n++;
    if (f->n > POLICIES_MAX)
        return error_set(e, ERR_CONFIG, "%s: more than %d policies", dir,
                         POLICIES_MAX);
    if (len < sizeof(one->name))
        memcpy(one->name, file, len);
    if (len >= sizeof(one->name) || text_check_name("policy", one->name, NULL))
        return error_set(e, ERR_CONFIG,
                         "%s: is no name of a policy: 1 to 63 letters, digits, "
                         ". _ and -, then " ENDING,
                         one->path);
    return file_read(one->path, POLICY_BODY_MAX, FILE_TRUSTED, &one->text, &n,
                     e);
}

static int by_name(const void *a, const void *b)
{
    const struct policy_file *x = a, *y = b;

    return strcmp(x->name, y->name);
}

static enum code read_dir(struct policy_files *f, const char *path, DIR *dir,
                          struct error *e)
{
    enum code code = OK;

    while (!code) {
        struct dirent *n;

        errno = 0;
        n = readdir(dir);
        if (!n && errno)
            code = error_errno(e, errno, "%s", path);
        if (!n)
            break;
        if (is_wanted(n->d_name))
            code = add_file(f, path, n->d_name, e);
    }
    if (!code && f->n)
        qsort(f->list, f->n, sizeof(*f->list), by_name);
    return code;
}

enum code policy_files_read(struct policy_files *f, const char *path,
                            bool must_exist, struct error *e)
{
    DIR *dir = NULL;
    enum code code = open_dir(path, must_exist, &dir, e);

    *f = (struct policy_files){.n = 0};
    if (code || !dir)
        return code;
    code = read_dir(f, path, dir, e);
    closedir(dir);
    if (code)
        policy_files_clear(f);
    return code;
}

enum code policy_file_parse(const struct policy_file *f, struct policy *p,
                            struct error *e)
{
    size_t len = strlen(f->text);
    JSON fields = NULL;
    char where[POLICY_WHERE_MAX];
    struct error why = {0};
    int line, column;
    enum code code = json_parse(f->text, len, f->path, &fields, &why);

    if (code == ERR_NOMEM)
        return error_set(e, code, "%s", why.text);
    if (code)
        return error_set(e, ERR_CONFIG, "%s", why.text);
    code = policy_parse(p, f->name, fields, where, &why);
    if (code == ERR_INVALID && *where &&
        locate(f->text, len, where, &line, &column))
        return error_set(e, ERR_CONFIG, "%s:%d:%d: %s", f->path, line, column,
                         why.text);
    if (code)
        return error_set(e, code == ERR_INVALID ? ERR_CONFIG : code, "%s: %s",
                         f->path, why.text);
    p->path = strdup(f->path);
    if (p->path)
        return OK;
    policy_clear(p);
    return error_set(e, ERR_NOMEM, "no memory for policies");
}
