/* kept - see kept.h. */
#include "config.h"

#include "module/audit/kept.h"

#include "common/file.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct kept {
    char *folder;
    uint64_t *sizes;
    size_t n, cap, at;
};

void kept_free(struct kept *k)
{
    if (!k)
        return;
    free(k->folder);
    free(k->sizes);
    free(k);
}

static void kept_freep(struct kept **k)
{
    kept_free(*k);
}

static void dir_closep(DIR **d)
{
    if (*d)
        (void)closedir(*d);
}

static int compare(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x > y) - (x < y);
}

/* Names that are no size are not ours. */
static bool is_size(const char *name, uint64_t *size)
{
    size_t n = strlen(name);
    if (n == 0 || n > 18 || strspn(name, "0123456789") != n || name[0] == '0')
        return false;
    *size = strtoull(name, NULL, 10);
    return true;
}

static enum code add(struct kept *k, uint64_t size, struct error *e)
{
    if (k->n == k->cap) {
        size_t cap = k->cap ? 2 * k->cap : 64;
        uint64_t *more = realloc(k->sizes, cap * sizeof *more);
        if (!more)
            return error_set(e, ERR_NOMEM, "checkpoints of %s", k->folder);
        k->sizes = more;
        k->cap = cap;
    }
    k->sizes[k->n++] = size;
    return OK;
}

static enum code list(struct kept *k, struct error *e)
{
    CLEANUP(dir_closep) DIR *d = opendir(k->folder);
    const struct dirent *entry;
    uint64_t size;
    enum code rc = OK;
    if (!d)
        return errno == ENOENT ? OK
                               : error_errno(e, errno, "cannot read %s",
                                             k->folder);
    while (rc == OK && (entry = readdir(d)))
        if (is_size(entry->d_name, &size))
            rc = add(k, size, e);
    if (k->n)
        qsort(k->sizes, k->n, sizeof *k->sizes, compare);
    return rc;
}

enum code kept_open(struct kept **out, const char *dir, struct error *e)
{
    CLEANUP(kept_freep) struct kept *k = calloc(1, sizeof *k);
    if (k && asprintf(&k->folder, "%s/checkpoints", dir) < 0)
        k->folder = NULL;
    if (!k || !k->folder)
        return error_set(e, ERR_NOMEM, "checkpoints of %s", dir);
    enum code rc = list(k, e);
    if (rc)
        return rc;
    *out = k;
    k = NULL;
    return OK;
}

uint64_t kept_next(const struct kept *k)
{
    return k->at < k->n ? k->sizes[k->at] : UINT64_MAX;
}

void kept_rewind(struct kept *k)
{
    k->at = 0;
}

static enum code compare_root(const struct merkle *tree,
                              const struct checkpoint *c, struct error *e)
{
    struct merkle_hash root;
    enum code rc = merkle_root(tree, &root, e);
    if (rc)
        return rc;
    return c->size == tree->size && merkle_equal(&root, &c->root)
               ? OK
               : error_set(e, ERR_SEAL, "the log was another one then");
}

enum code kept_check(struct kept *k, const struct merkle *tree,
                     struct keyring *keys, struct error *e)
{
    unsigned long long size = kept_next(k);
    FREE char *path = NULL;
    FREE char *bytes = NULL;
    struct note n;
    struct checkpoint c;
    size_t len;
    k->at++;
    if (asprintf(&path, "%s/%llu", k->folder, size) < 0) {
        path = NULL;
        return error_set(e, ERR_NOMEM, "path of a checkpoint");
    }
    enum code rc = file_read(path, NOTE_MAX, FILE_ANY, &bytes, &len, e);
    if (rc == OK)
        rc = note_parse(&n, bytes, len, e);
    if (rc == OK)
        rc = checkpoint_parse(&c, n.text, n.text_len, e);
    if (rc == OK && keys)
        rc = keyring_check_note(keys, &n, c.origin, e);
    if (rc == OK && tree)
        rc = compare_root(tree, &c, e);
    if (rc == OK && keys)
        keyring_introduce(keys, &n, c.origin);
    return rc ? error_prefix(e, "checkpoints/%llu", size) : OK;
}
