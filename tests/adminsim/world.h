/* world - the one organisation that the double serves.
 *
 * Objects are never freed: a deleted one stays as a tombstone, so that a
 * cursor, a second DELETE and a dead bearer still find it. All of it is
 * guarded by world_lock(); times are milliseconds of world_now_ms(), which the
 * setting clock_offset_s can move.
 */
#ifndef ADMINSIM_WORLD_H
#define ADMINSIM_WORLD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum kind { KIND_PROJECT, KIND_ACCOUNT, KIND_KEY, KIND_ADMIN_KEY, KIND_EVENT };

/* First member of each object. */
struct object {
    enum kind kind;
    char *id;
    char *name;
    size_t index; /* in the list that holds it */
    int64_t created_ms;
    int64_t visible_ms; /* reads answer 404 before */
    int64_t deleted_ms; /* 0: not deleted */
};

struct list {
    struct object **items;
    size_t n, cap;
};

struct project {
    struct object o;
    int64_t archived_s; /* 0: active */
    bool is_default;
    struct list accounts, keys;
};

struct account {
    struct object o;
    char *role;
    struct project *project;
    struct key **keys; /* in order of creation */
    size_t n_keys;
};

struct key {
    struct object o;
    char *value;
    struct project *project; /* NULL for admin keys */
    struct account *account; /* NULL for a user's key */
    bool service_owner;      /* an admin key owned by a service account */
    int64_t expires_s;       /* 0: never */
    int64_t refused_ms;      /* 0: not deleted; no bearer from then on */
    int64_t last_used_s;     /* 0: never */
};

struct event {
    struct object o; /* name: the event's type */
    char *target;    /* id of what it happened to */
    char *actor;     /* id of the key that did it */
    struct project *project;
};

struct world {
    struct list projects, admin_keys, events;
    struct key *first_key; /* the one that was there at the start */
    size_t accounts_alive, accounts_peak, accounts_created, accounts_deleted;
    size_t admin_keys_created, admin_keys_deleted;
    uint64_t generation; /* goes up with each change, for state.c */
};
extern struct world world;

void world_lock(void);
void world_unlock(void);
int64_t world_now_ms(void);
int64_t world_now_s(void);

/* The initial organisation: proj_abc, proj_old (archived), proj_default and
 * one admin key, whose id and value (NULL: random) outlive a reset. */
void world_init(bool service_owner, const char *admin_id,
                const char *admin_value);
void world_clear(void);

struct object *world_find(enum kind kind, const char *id);
struct key *world_key_by_value(const char *value);

/* id NULL: a new one. Strings are copied. */
struct project *world_add_project(const char *id, const char *name);
struct account *world_add_account(struct project *p, const char *id,
                                  const char *name, const char *role);
/* p NULL: an admin key. a NULL: a user's. value NULL: a new one. */
struct key *world_add_key(struct project *p, struct account *a, const char *id,
                          const char *name, const char *value,
                          int64_t expires_s);
void world_add_event(const char *type, const char *target, const char *actor,
                     struct project *p);
void world_delete_key(struct key *k);
void world_delete_account(struct account *a); /* and its keys */

bool object_exists(const struct object *o);
bool object_visible(const struct object *o, int64_t now_ms);
/* Accepted as a bearer now. */
bool key_accepted(const struct key *k, int64_t now_ms);
bool key_expired(const struct key *k, int64_t now_ms);

void random_text(char *dst, size_t len); /* len of [A-Za-z0-9_-], and NUL */
char *text_format(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void *must(void *p); /* out of memory ends the program */

#endif
