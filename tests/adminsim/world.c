#include "config.h"

#include "tests/adminsim/world.h"

#include "tests/adminsim/settings.h"

#include <pthread.h>
#include <search.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <time.h>

#define KEY_LENGTH 164 /* what the service hands out today */

struct world world;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static void *by_id;    /* tsearch trees: of struct object, */
static void *by_value; /* of struct key */

void world_lock(void)
{
    pthread_mutex_lock(&lock);
}

void world_unlock(void)
{
    pthread_mutex_unlock(&lock);
}

int64_t world_now_ms(void)
{
    struct timespec t;
    clock_gettime(CLOCK_REALTIME, &t);
    return (t.tv_sec + settings.clock_offset_s) * 1000 + t.tv_nsec / 1000000;
}

int64_t world_now_s(void)
{
    return world_now_ms() / 1000;
}

void *must(void *p)
{
    if (!p) {
        perror("hsmint-adminsim");
        abort();
    }
    return p;
}

char *text_format(const char *fmt, ...)
{
    va_list ap;
    char *s = NULL;
    va_start(ap, fmt);
    if (vasprintf(&s, fmt, ap) < 0)
        s = NULL;
    va_end(ap);
    return must(s);
}

void random_text(char *dst, size_t len)
{
    static const char set[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuv"
                              "wxyz0123456789_-";
    unsigned char raw[256];
    if (len > sizeof raw || getrandom(raw, len, 0) != (ssize_t)len)
        abort();
    for (size_t i = 0; i < len; i++)
        dst[i] = set[raw[i] & 63];
    dst[len] = '\0';
}

static char *random_id(const char *prefix)
{
    static const char set[] = "0123456789abcdefghijklmnopqrstuv";
    unsigned char raw[20];
    char text[sizeof raw + 1] = {0};
    if (getrandom(raw, sizeof raw, 0) != sizeof raw)
        abort();
    for (size_t i = 0; i < sizeof raw; i++)
        text[i] = set[raw[i] & 31];
    return text_format("%s%s", prefix, text);
}

static char *random_value(const char *prefix)
{
    char tail[KEY_LENGTH + 1];
    random_text(tail, KEY_LENGTH - strlen(prefix));
    return text_format("%s%s", prefix, tail);
}

static int compare_id(const void *a, const void *b)
{
    const struct object *x = a, *y = b;
    int by_kind = (int)x->kind - (int)y->kind;
    return by_kind ? by_kind : strcmp(x->id, y->id);
}

static int compare_value(const void *a, const void *b)
{
    const struct key *x = a, *y = b;
    return strcmp(x->value, y->value);
}

struct object *world_find(enum kind kind, const char *id)
{
    char *copy = must(strdup(id));
    struct object probe = {.kind = kind, .id = copy};
    void *hit = tfind(&probe, &by_id, compare_id);
    free(copy);
    return hit ? *(struct object **)hit : NULL;
}

struct key *world_key_by_value(const char *value)
{
    char *copy = must(strdup(value));
    struct key probe = {.value = copy};
    void *hit = tfind(&probe, &by_value, compare_value);
    free(copy);
    return hit ? *(struct key **)hit : NULL;
}

static void add(struct list *l, struct object *o)
{
    if (l->n == l->cap) {
        l->cap = l->cap ? l->cap * 2 : 16;
        l->items = must(realloc(l->items, l->cap * sizeof *l->items));
    }
    o->index = l->n;
    l->items[l->n++] = o;
    must(tsearch(o, &by_id, compare_id));
    world.generation++;
}

static void fill(struct object *o, enum kind kind, const char *id,
                 const char *prefix, const char *name)
{
    o->kind = kind;
    o->id = id ? must(strdup(id)) : random_id(prefix);
    o->name = must(strdup(name));
    o->created_ms = world_now_ms();
    o->visible_ms = o->created_ms + settings.visibility_ms;
}

struct project *world_add_project(const char *id, const char *name)
{
    struct project *p = must(calloc(1, sizeof *p));
    fill(&p->o, KIND_PROJECT, id, "proj_", name);
    p->o.visible_ms = 0;
    add(&world.projects, &p->o);
    return p;
}

struct account *world_add_account(struct project *p, const char *id,
                                  const char *name, const char *role)
{
    struct account *a = must(calloc(1, sizeof *a));
    fill(&a->o, KIND_ACCOUNT, id, "svc_acct_", name);
    a->role = must(strdup(role));
    a->project = p;
    add(&p->accounts, &a->o);
    world.accounts_created++;
    world.accounts_alive++;
    if (world.accounts_alive > world.accounts_peak)
        world.accounts_peak = world.accounts_alive;
    return a;
}

struct key *world_add_key(struct project *p, struct account *a, const char *id,
                          const char *name, const char *value,
                          int64_t expires_s)
{
    struct key *k = must(calloc(1, sizeof *k));
    const char *prefix = !p ? "sk-admin-" : a ? "sk-svcacct-" : "sk-proj-";
    fill(&k->o, p ? KIND_KEY : KIND_ADMIN_KEY, id, "key_", name);
    k->value = value ? must(strdup(value)) : random_value(prefix);
    k->project = p;
    k->account = a;
    k->expires_s = expires_s;
    add(p ? &p->keys : &world.admin_keys, &k->o);
    must(tsearch(k, &by_value, compare_value));
    if (a) {
        a->keys = must(realloc(a->keys, (a->n_keys + 1) * sizeof *a->keys));
        a->keys[a->n_keys++] = k;
    }
    if (!p)
        world.admin_keys_created++;
    return k;
}

void world_add_event(const char *type, const char *target, const char *actor,
                     struct project *p)
{
    struct event *v = must(calloc(1, sizeof *v));
    fill(&v->o, KIND_EVENT, NULL, "audit_log-", type);
    v->o.visible_ms = 0;
    v->target = must(strdup(target));
    v->actor = must(strdup(actor));
    v->project = p;
    add(&world.events, &v->o);
}

void world_delete_key(struct key *k)
{
    if (k->o.deleted_ms)
        return;
    k->o.deleted_ms = world_now_ms();
    k->refused_ms = k->o.deleted_ms + settings.revoke_ms;
    world.generation++;
    if (!k->project)
        world.admin_keys_deleted++;
}

void world_delete_account(struct account *a)
{
    if (a->o.deleted_ms)
        return;
    a->o.deleted_ms = world_now_ms();
    world.accounts_alive--;
    world.accounts_deleted++;
    world.generation++;
    for (size_t i = 0; i < a->n_keys; i++)
        world_delete_key(a->keys[i]);
}

bool object_exists(const struct object *o)
{
    return o && !o->deleted_ms;
}

bool object_visible(const struct object *o, int64_t now_ms)
{
    return object_exists(o) && now_ms >= o->visible_ms;
}

bool key_expired(const struct key *k, int64_t now_ms)
{
    return k->expires_s && now_ms >= k->expires_s * 1000;
}

bool key_accepted(const struct key *k, int64_t now_ms)
{
    if (k->refused_ms && now_ms >= k->refused_ms)
        return false;
    return !key_expired(k, now_ms);
}

void world_init(bool service_owner, const char *admin_id,
                const char *admin_value)
{
    world_add_project("proj_abc", "abc");
    struct project *old = world_add_project("proj_old", "old");
    old->archived_s = world_now_s();
    world_add_project("proj_default", "Default project")->is_default = true;
    world.first_key =
        world_add_key(NULL, NULL, admin_id, "initial", admin_value, 0);
    world.first_key->o.visible_ms = 0;
    world.first_key->service_owner = service_owner;
}

static void keep(void *unused)
{
    (void)unused;
}

static void free_list(struct list *l)
{
    for (size_t i = 0; i < l->n; i++) {
        struct object *o = l->items[i];
        if (o->kind == KIND_PROJECT) {
            free_list(&((struct project *)o)->accounts);
            free_list(&((struct project *)o)->keys);
        } else if (o->kind == KIND_ACCOUNT) {
            free(((struct account *)o)->role);
            free(((struct account *)o)->keys);
        } else if (o->kind == KIND_EVENT) {
            free(((struct event *)o)->target);
            free(((struct event *)o)->actor);
        } else {
            free(((struct key *)o)->value);
        }
        free(o->id);
        free(o->name);
        free(o);
    }
    free(l->items);
}

void world_clear(void)
{
    tdestroy(by_id, keep);
    tdestroy(by_value, keep);
    by_id = by_value = NULL;
    free_list(&world.projects);
    free_list(&world.admin_keys);
    free_list(&world.events);
    uint64_t generation = world.generation + 1;
    world = (struct world){.generation = generation};
}
