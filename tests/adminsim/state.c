#include "config.h"

#include "tests/adminsim/state.h"

#include "tests/adminsim/world.h"

#include <fcntl.h>
#include <jansson.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

static const char *state_path;
static bool owner_is_service;
static uint64_t saved_generation;

static json_t *object_state(const struct object *o)
{
    return json_pack("{ss, ss, sI, sI, sI}", "id", o->id, "name", o->name,
                     "created_ms", (json_int_t)o->created_ms, "visible_ms",
                     (json_int_t)o->visible_ms, "deleted_ms",
                     (json_int_t)o->deleted_ms);
}

static json_t *key_state(const struct object *o)
{
    const struct key *k = (const struct key *)o;
    json_t *j = object_state(o);
    json_t *more = json_pack(
        "{ss, ss*, sb, sI, sI, sI}", "value", k->value, "account",
        k->account ? k->account->o.id : NULL, "service_owner", k->service_owner,
        "expires_s", (json_int_t)k->expires_s, "refused_ms",
        (json_int_t)k->refused_ms, "last_used_s", (json_int_t)k->last_used_s);
    json_object_update(j, more);
    json_decref(more);
    return j;
}

static json_t *account_state(const struct object *o)
{
    json_t *j = object_state(o);
    json_object_set_new(j, "role",
                        json_string(((const struct account *)o)->role));
    return j;
}

static json_t *each(const struct list *l, json_t *(*fn)(const struct object *))
{
    json_t *all = json_array();
    for (size_t i = 0; i < l->n; i++)
        json_array_append_new(all, fn(l->items[i]));
    return all;
}

static json_t *project_state(const struct object *o)
{
    const struct project *p = (const struct project *)o;
    json_t *j = object_state(o);
    json_t *more = json_pack(
        "{sI, sb, so, so}", "archived_s", (json_int_t)p->archived_s,
        "is_default", p->is_default, "accounts",
        each(&p->accounts, account_state), "keys", each(&p->keys, key_state));
    json_object_update(j, more);
    json_decref(more);
    return j;
}

bool state_save(void)
{
    if (!state_path)
        return true;
    world_lock();
    saved_generation = world.generation;
    json_t *j = json_pack("{ss, so, so}", "first_key", world.first_key->o.id,
                          "projects", each(&world.projects, project_state),
                          "admin_keys", each(&world.admin_keys, key_state));
    world_unlock();
    char *beside = text_format("%s.new", state_path);
    int fd = open(beside, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    bool ok = fd >= 0 && json_dumpfd(j, fd, JSON_COMPACT) == 0;
    if (fd >= 0)
        ok = close(fd) == 0 && ok;
    ok = ok && rename(beside, state_path) == 0;
    if (!ok)
        perror(beside);
    free(beside);
    json_decref(j);
    return ok;
}

/* ---- reading ---- */

static const char *text(json_t *j, const char *name)
{
    return json_string_value(json_object_get(j, name));
}

static int64_t number(json_t *j, const char *name)
{
    return json_integer_value(json_object_get(j, name));
}

static void load_times(struct object *o, json_t *j)
{
    o->created_ms = number(j, "created_ms");
    o->visible_ms = number(j, "visible_ms");
    o->deleted_ms = number(j, "deleted_ms");
}

static bool named(json_t *j)
{
    return text(j, "id") && text(j, "name");
}

static bool load_key(struct project *p, json_t *j)
{
    const char *account = text(j, "account");
    struct object *a = account ? world_find(KIND_ACCOUNT, account) : NULL;
    if (!named(j) || !text(j, "value") || (account && !a))
        return false;
    struct key *k =
        world_add_key(p, (struct account *)a, text(j, "id"), text(j, "name"),
                      text(j, "value"), number(j, "expires_s"));
    k->service_owner = json_is_true(json_object_get(j, "service_owner"));
    k->refused_ms = number(j, "refused_ms");
    k->last_used_s = number(j, "last_used_s");
    load_times(&k->o, j);
    return true;
}

static bool load_account(struct project *p, json_t *j)
{
    if (!named(j) || !text(j, "role"))
        return false;
    struct account *a =
        world_add_account(p, text(j, "id"), text(j, "name"), text(j, "role"));
    if (number(j, "deleted_ms"))
        world_delete_account(a); /* for the counters */
    load_times(&a->o, j);
    return true;
}

static bool load_project(json_t *j)
{
    size_t i;
    json_t *item;
    if (!named(j))
        return false;
    struct project *p = world_add_project(text(j, "id"), text(j, "name"));
    p->archived_s = number(j, "archived_s");
    p->is_default = json_is_true(json_object_get(j, "is_default"));
    load_times(&p->o, j);
    json_array_foreach(json_object_get(j, "accounts"), i,
                       item) if (!load_account(p, item)) return false;
    json_array_foreach(json_object_get(j, "keys"), i,
                       item) if (!load_key(p, item)) return false;
    return true;
}

static bool load(json_t *j)
{
    size_t i;
    json_t *item;
    json_array_foreach(json_object_get(j, "projects"), i,
                       item) if (!load_project(item)) return false;
    json_array_foreach(json_object_get(j, "admin_keys"), i,
                       item) if (!load_key(NULL, item)) return false;
    const char *first = text(j, "first_key");
    world.first_key =
        first ? (struct key *)world_find(KIND_ADMIN_KEY, first) : NULL;
    return world.first_key != NULL;
}

static void *keep_saving(void *unused)
{
    (void)unused;
    for (;;) {
        nanosleep(&(struct timespec){.tv_nsec = 200000000}, NULL);
        world_lock();
        bool dirty = world.generation != saved_generation;
        world_unlock();
        if (dirty && !state_save())
            exit(1);
    }
    return NULL;
}

bool state_open(const char *path, bool service_owner)
{
    state_path = path;
    owner_is_service = service_owner;
    if (!path || access(path, F_OK) != 0) {
        world_init(service_owner, NULL, NULL);
    } else {
        json_error_t e;
        json_t *j = json_load_file(path, 0, &e);
        bool ok = j && load(j);
        json_decref(j);
        if (!ok) {
            fprintf(stderr,
                    "hsmint-adminsim: %s: not a state of this program "
                    "(%s)\n",
                    path, j ? "fields are missing" : e.text);
            return false;
        }
    }
    pthread_t t;
    return !path ||
           (state_save() && pthread_create(&t, NULL, keep_saving, NULL) == 0);
}

void state_fresh(void)
{
    char *value = must(strdup(world.first_key->value));
    char *id = must(strdup(world.first_key->o.id));
    world_clear();
    world_init(owner_is_service, id, value);
    free(value);
    free(id);
}
