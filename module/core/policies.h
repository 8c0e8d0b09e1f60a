/* policies - the set of them: documents of the store and files of policies.d,
 * of one name the file. spec/POLICY.md.
 *
 * A set never changes: it is counted, and a new one takes its place, so that a
 * decision holds the lock only to count itself in. Whoever changes policies
 * holds the in-flight key "policies" from reading to replacing.
 */
#ifndef HSMINT_CORE_POLICIES_H
#define HSMINT_CORE_POLICIES_H

#include "common/error.h"
#include "module/core/names.h"
#include "module/core/policy.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>

struct core;

#define POLICIES_KIND "policy" /* of documents */
enum { POLICIES_MAX = 1024 }; /* in the store, and in files */

struct policy_set {
    atomic_int refs;
    struct policy *list; /* by name */
    size_t n;
    bool needs_names; /* some policy names users or groups by name */
    bool closed;      /* they could not be read: nothing is allowed */
};

struct policy_file {
    char name[POLICY_NAME_MAX];
    char *path, *text;
};
struct policy_files {
    struct policy_file *list;
    size_t n;
};

struct policies {
    pthread_mutex_t lock; /* guards which set it is */
    struct policy_set *set;
    struct name_cache names;
    /* Of the in-flight key's holder: what was read last. */
    struct policy_files files;
    bool files_wrong;
};
#define POLICIES_INIT                                                          \
    {                                                                          \
        .lock = PTHREAD_MUTEX_INITIALIZER, .names = NAMES_INIT                 \
    }
void policies_clear(struct policies *p);

/* The set of now; given back by policy_set_give(). Never NULL after
 * policies_open(). */
struct policy_set *policies_take(struct policies *p);
void policy_set_give(struct policy_set **set);
#define POLICY_SET CLEANUP(policy_set_give) struct policy_set
/* NULL if there is none. */
const struct policy *policy_set_find(const struct policy_set *set,
                                     const char *name);

/* At start. Wrong files or documents are no failure: then nothing is allowed,
 * and the alarm policy-files says why. */
MUST_CHECK enum code policies_open(struct core *c, struct error *e);
/* Files and documents anew; if one is wrong, the old set stays. */
MUST_CHECK enum code policies_reload(struct core *c, struct error *e);
/* After a document changed: the files as they were read last. */
MUST_CHECK enum code policies_rebuild(struct core *c, struct error *e);

/* Mistakes that are none of one policy alone: roles and groups that do not
 * exist, an allow that a deny takes away, subjects that both administer and
 * audit. Appends texts; of one policy only, or of all (NULL). */
MUST_CHECK enum code policies_warnings(struct core *c,
                                       const struct policy_set *set,
                                       const char *name, json_t *list,
                                       struct error *e);

/* ---- policy_files.c ---- */
void policy_files_clear(struct policy_files *f);
/* *.json of `dir`, by name. A folder that is not there has none, unless it
 * `must_exist`. Folder and files are FILE_TRUSTED. */
MUST_CHECK enum code policy_files_read(struct policy_files *f, const char *dir,
                                       bool must_exist, struct error *e);
/* ERR_CONFIG with FILE:LINE:COLUMN, or FILE and member. */
MUST_CHECK enum code policy_file_parse(const struct policy_file *f,
                                       struct policy *p, struct error *e);

#endif
