/* policies - see policies.h. */
#include "config.h"

#include "module/core/policies.h"

#include "common/file.h"
#include "common/log.h"
#include "common/text.h"
#include "module/core/internal.h"
#include "module/core/logbook.h"

#include <stdlib.h>
#include <string.h>

#define DEFAULT_DIR HSMINT_SYSCONFDIR "/hsmint/policies.d"
#define FILES_A_RECORD 256 /* names and hashes: half of what a record holds */

/* ---- one set ---- */

static void set_free(struct policy_set *set)
{
    for (size_t i = 0; i < set->n; i++)
        policy_clear(&set->list[i]);
    free(set->list);
    free(set);
}

void policy_set_give(struct policy_set **set)
{
    if (*set && atomic_fetch_sub(&(*set)->refs, 1) == 1)
        set_free(*set);
    *set = NULL;
}

static enum code set_new(struct policy_set **out, size_t room, struct error *e)
{
    struct policy_set *set = calloc(1, sizeof(*set));

    *out = set;
    if (set)
        set->list = calloc(room ? room : 1, sizeof(*set->list));
    if (set && set->list) {
        atomic_init(&set->refs, 1);
        return OK;
    }
    free(set);
    *out = NULL;
    return error_set(e, ERR_NOMEM, "no memory for policies");
}

const struct policy *policy_set_find(const struct policy_set *set,
                                     const char *name)
{
    for (size_t i = 0; i < set->n; i++) {
        if (strcmp(set->list[i].name, name) == 0)
            return &set->list[i];
    }
    return NULL;
}

struct policy_set *policies_take(struct policies *p)
{
    struct policy_set *set;

    pthread_mutex_lock(&p->lock);
    set = p->set;
    if (set)
        atomic_fetch_add(&set->refs, 1);
    pthread_mutex_unlock(&p->lock);
    return set;
}

static void replace(struct policies *p, struct policy_set *set)
{
    POLICY_SET *old = NULL;

    pthread_mutex_lock(&p->lock);
    old = p->set;
    p->set = set;
    pthread_mutex_unlock(&p->lock);
}

void policies_clear(struct policies *p)
{
    replace(p, NULL);
    names_clear(&p->names);
    policy_files_clear(&p->files);
}

/* ---- building one ---- */

struct build {
    struct policy_set *set;
    size_t room;
};

static enum code take_document(const struct store_document *d, void *ctx,
                               struct error *e)
{
    struct build *b = ctx;
    struct policy *p = &b->set->list[b->set->n];
    JSON fields = NULL;
    enum code code;

    if (policy_set_find(b->set, d->name)) /* of one name the file wins */
        return OK;
    if (b->set->n == b->room)
        return error_set(e, ERR_LIMIT, "more than %d policies are stored",
                         POLICIES_MAX);
    code = json_parse(d->body, strlen(d->body), "its body", &fields, e);
    if (!code)
        code = policy_parse(p, d->name, fields, NULL, e);
    if (code)
        return error_prefix(e, "stored policy %s", d->name);
    p->version = d->version;
    p->changed_ms = d->changed_ms;
    b->set->n++;
    return OK;
}

static int by_name(const void *a, const void *b)
{
    const struct policy *x = a, *y = b;

    return strcmp(x->name, y->name);
}

static enum code fill(struct core *c, const struct policy_files *files,
                      struct build *b, struct error *e)
{
    struct policy_set *set = b->set;
    enum code code = OK;

    for (size_t i = 0; !code && i < files->n; i++) {
        code = policy_file_parse(&files->list[i], &set->list[i], e);
        set->n += !code;
    }
    if (!code)
        code = store_document_each(c->store, POLICIES_KIND, take_document, b,
                                   e);
    if (code)
        return code;
    qsort(set->list, set->n, sizeof(*set->list), by_name);
    for (size_t i = 0; i < set->n; i++)
        set->needs_names |= policy_needs_names(&set->list[i]);
    return OK;
}

static enum code build(struct core *c, const struct policy_files *files,
                       struct policy_set **out, struct error *e)
{
    struct build b = {.room = files->n + POLICIES_MAX};
    enum code code = set_new(&b.set, b.room, e);

    if (!code)
        code = fill(c, files, &b, e);
    if (code)
        policy_set_give(&b.set);
    *out = b.set;
    return code;
}

/* ---- opening, reloading ---- */

/* The user daemon has one user, who may all: it reads no files. */
static enum code read_files(struct core *c, struct policy_files *files,
                            struct error *e)
{
    const char *dir = c->settings->policies_dir;

    *files = (struct policy_files){.n = 0};
    if (c->settings->mode == MODE_USER)
        return OK;
    return policy_files_read(files, dir ? dir : DEFAULT_DIR, dir != NULL, e);
}

static enum code load(struct core *c, struct policy_files *files,
                      struct policy_set **set, struct error *e)
{
    enum code code = read_files(c, files, e);

    return code ? code : build(c, files, set, e);
}

static void alarm_wrong(struct core *c, const struct error *why)
{
    warnings_raise(&c->warnings, ALARM_POLICY_FILES, "policies", "%s",
                   why->text);
}

static void use(struct core *c, struct policy_files *files,
                struct policy_set *set)
{
    struct policies *p = &c->policies;

    policy_files_clear(&p->files);
    p->files = *files;
    *files = (struct policy_files){.n = 0};
    p->files_wrong = false;
    replace(p, set);
    warnings_drop_all(&c->warnings, ALARM_POLICY_FILES);
}

struct files_record {
    struct core *core;
    const char *action;
    const struct policy_files *files;
};

static enum code record_some(struct store_tx *tx, const struct files_record *r,
                             size_t from, struct error *e)
{
    JSON list = json_object();

    for (size_t i = from; i < r->files->n && i < from + FILES_A_RECORD; i++) {
        const struct policy_file *f = &r->files->list[i];

        if (json_object_set_new(list, f->name, logbook_digest(f->text)))
            return error_set(e, ERR_NOMEM, "no memory for a record");
    }
    const struct logbook_entry entry = {
        .kind = RECORD_POLICY,
        .more = json_pack("{ss sO sI}", "action", r->action, "files", list,
                          "of", (json_int_t)r->files->n)};

    return logbook_add(r->core, tx, &entry, e);
}

/* {"files": {NAME: SHA-256}, "of": N}: as many records as hold all N. */
static enum code record_files(struct store_tx *tx, void *ctx, struct error *e)
{
    const struct files_record *r = ctx;
    enum code code = record_some(tx, r, 0, e);

    for (size_t i = FILES_A_RECORD; !code && i < r->files->n;
         i += FILES_A_RECORD)
        code = record_some(tx, r, i, e);
    return code;
}

/* They may have changed while no daemon was there to see it. */
static void record_start(struct core *c, const struct policy_files *files)
{
    struct files_record r = {c, "start", files};
    struct error e = {0};

    if (c->settings->mode == MODE_SYSTEM &&
        store_commit(c->store, STORE_NORMAL, record_files, &r, &e) != OK)
        log_failure(&e, "the files of policies.d are not recorded");
}

enum code policies_open(struct core *c, struct error *e)
{
    CLEANUP(policy_files_clear) struct policy_files files = {.n = 0};
    struct policy_set *set = NULL;
    struct error why = {0};
    enum code code = load(c, &files, &set, &why);

    if (!code) {
        record_start(c, &files);
        use(c, &files, set);
        return OK;
    }
    code = set_new(&set, 0, e);
    if (code)
        return code;
    set->closed = true;
    c->policies.files_wrong = true;
    replace(&c->policies, set);
    if (c->settings->mode == MODE_SYSTEM)
        alarm_wrong(c, &why);
    else
        log_failure(&why, "policies, which a user daemon does not ask");
    return OK;
}

enum code policies_reload(struct core *c, struct error *e)
{
    CLEANUP(policy_files_clear) struct policy_files files = {.n = 0};
    struct files_record r = {c, "reload", &files};
    POLICY_SET *set = NULL;
    INFLIGHT hold = {0};
    struct error why = {0};
    enum code code =
        inflight_enter(&c->inflight, "policies", NULL, NULL, NULL, &hold, &why);

    names_forget(&c->policies.names);
    if (!code)
        code = load(c, &files, &set, &why);
    if (!code)
        code = store_commit(c->store, STORE_NORMAL, record_files, &r, &why);
    if (!code) {
        use(c, &files, set);
        set = NULL;
        return OK;
    }
    alarm_wrong(c, &why);
    if (e)
        *e = why;
    return code;
}

enum code policies_rebuild(struct core *c, struct error *e)
{
    struct policy_set *set = NULL;
    enum code code;

    if (c->policies.files_wrong)
        return OK; /* closed until a reload mends them */
    code = build(c, &c->policies.files, &set, e);
    if (!code)
        replace(&c->policies, set);
    return code;
}
