#include "config.h"

#include "tests/adminsim/fault.h"

#include <pthread.h>
#include <string.h>
#include <time.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static json_t *queue; /* of specs; "times" counts down */
static pthread_cond_t released = PTHREAD_COND_INITIALIZER;
static int held;
static unsigned releases;

static const struct {
    const char *name;
    bool before; /* unless "when" says otherwise */
} kinds[FAULT_KINDS] = {
    [FAULT_STATUS] = {"status", true},
    [FAULT_DROP] = {"drop", false},
    [FAULT_TRUNCATE] = {"truncate", false},
    [FAULT_OVERSIZE] = {"oversize", false},
    [FAULT_NOT_JSON] = {"not_json", false},
    [FAULT_DEEP] = {"deep", false},
    [FAULT_OMIT] = {"omit", false},
    [FAULT_SET] = {"set", false},
    [FAULT_REDIRECT] = {"redirect", true},
    [FAULT_HANG] = {"hang", true},
    [FAULT_IGNORE_EXPIRY] = {"ignore_expiry", false},
    [FAULT_REFUSE_EXPIRY] = {"refuse_expiry", false},
    [FAULT_RESET] = {"reset", false},
    [FAULT_TWICE] = {"twice", false},
    [FAULT_HOLD] = {"hold", true},
};

bool glob(const char *pattern, const char *s)
{
    for (; *pattern && *pattern != '*'; pattern++, s++)
        if (*pattern != *s)
            return false;
    if (!*pattern)
        return !*s;
    while (!glob(pattern + 1, s))
        if (!*s++)
            return false;
    return true;
}

static int kind_of(json_t *spec)
{
    const char *name = json_string_value(json_object_get(spec, "kind"));
    for (int i = 0; name && i < FAULT_KINDS; i++)
        if (!strcmp(name, kinds[i].name))
            return i;
    return -1;
}

static const char *check(json_t *spec)
{
    static const char known[] = " kind method path times when ms status body "
                                "headers bytes depth fields location reply ";
    const char *name;
    json_t *value;
    if (kind_of(spec) < 0)
        return "unknown kind";
    json_object_foreach(spec, name, value)
    {
        char padded[32];
        if (snprintf(padded, sizeof padded, " %s ", name) >=
                (int)sizeof padded ||
            !strstr(known, padded))
            return "unknown field";
    }
    json_t *when = json_object_get(spec, "when");
    const char *w = json_string_value(when);
    if (when && (!w || (strcmp(w, "before") != 0 && strcmp(w, "after") != 0)))
        return "when must be before or after";
    json_t *times = json_object_get(spec, "times");
    if (times && !json_is_integer(times))
        return "times must be a whole number";
    return NULL;
}

const char *fault_add(json_t *spec)
{
    const char *wrong = json_is_object(spec) ? check(spec) : "not an object";
    if (wrong)
        return wrong;
    pthread_mutex_lock(&lock);
    if (!queue)
        queue = json_array();
    json_array_append_new(queue, json_deep_copy(spec));
    pthread_mutex_unlock(&lock);
    return NULL;
}

static bool matches(json_t *spec, const char *method, const char *path)
{
    const char *m = json_string_value(json_object_get(spec, "method"));
    const char *p = json_string_value(json_object_get(spec, "path"));
    return (!m || glob(m, method)) && (!p || glob(p, path));
}

/* times below zero: for ever. */
static void use_up(size_t i, json_t *spec)
{
    json_t *times = json_object_get(spec, "times");
    json_int_t left = times ? json_integer_value(times) : 1;
    if (left < 0)
        return;
    if (left > 1)
        json_object_set_new(spec, "times", json_integer(left - 1));
    else
        json_array_remove(queue, i);
}

static void fill(struct fault *out, json_t *spec)
{
    const char *when = json_string_value(json_object_get(spec, "when"));
    out->kind = (enum fault_kind)kind_of(spec);
    out->before = when ? !strcmp(when, "before") : kinds[out->kind].before;
    out->spec = json_deep_copy(spec);
}

bool fault_take(const char *method, const char *path, struct fault *out)
{
    bool found = false;
    pthread_mutex_lock(&lock);
    for (size_t i = 0; !found && i < json_array_size(queue); i++) {
        json_t *spec = json_array_get(queue, i);
        if (!matches(spec, method, path))
            continue;
        fill(out, spec);
        use_up(i, spec);
        found = true;
    }
    pthread_mutex_unlock(&lock);
    return found;
}

void fault_clear(struct fault *f)
{
    json_decref(f->spec);
    f->spec = NULL;
}

void fault_forget_all(void)
{
    pthread_mutex_lock(&lock);
    json_array_clear(queue);
    pthread_mutex_unlock(&lock);
}

json_t *fault_pending(void)
{
    pthread_mutex_lock(&lock);
    json_t *copy = queue ? json_deep_copy(queue) : json_array();
    pthread_mutex_unlock(&lock);
    return copy;
}

long long fault_number(const struct fault *f, const char *name,
                       long long otherwise)
{
    json_t *n = json_object_get(f->spec, name);
    return json_is_integer(n) ? json_integer_value(n) : otherwise;
}

void fault_hold(long long ms)
{
    struct timespec until;
    int r = 0;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_sec += ms / 1000 + 1;
    pthread_mutex_lock(&lock);
    unsigned before = releases;
    held++;
    while (releases == before && r == 0)
        r = pthread_cond_timedwait(&released, &lock, &until);
    held--;
    pthread_mutex_unlock(&lock);
}

void fault_release(void)
{
    pthread_mutex_lock(&lock);
    releases++;
    pthread_cond_broadcast(&released);
    pthread_mutex_unlock(&lock);
}

int fault_held(void)
{
    pthread_mutex_lock(&lock);
    int n = held;
    pthread_mutex_unlock(&lock);
    return n;
}
