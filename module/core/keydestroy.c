/* keydestroy - the end of an old key of the HSM's: core_destroy_hsm() of core.h. */
#include "config.h"

#include "common/clock.h"
#include "module/core/internal.h"
#include "module/core/keystep.h"
#include "module/core/logbook.h"
#include "module/core/reseal.h"

#include <stdint.h>
#include <string.h>
#include <unistd.h>

enum {
    WAIT_MS = 10000, /* for who works on an organisation's configuration */
    BUSY_MS = 200
};

struct ending {
    struct keystep *step;
    const char *label, *state;
};

static enum code save(struct store_tx *tx, void *ctx, struct error *e)
{
    const struct ending *g = ctx;
    const struct keystep *s = g->step;
    const struct logbook_entry r = {
        .kind = RECORD_ROTATE_KEY,
        .by = s->by,
        .more = json_pack("{ss ss s[s]}", "key", g->label, "state", g->state,
                          "old", g->label)};
    enum code code = logbook_add(s->core, tx, &r, e);

    if (!code && s->pins)
        code = pins_put(s->core, tx, s->by, s->pins, "destroyed", e);
    return code;
}

static bool is_old_seal(const char *label, const json_t *pins)
{
    json_t *old = json_object_get(pins, "old");

    for (size_t i = 0; i < json_array_size(old); i++) {
        json_t *one = json_array_get(old, i);
        const char *role = json_string_value(json_object_get(one, "role"));
        const char *name = json_string_value(
            json_object_get(json_object_get(one, "key"), "label"));

        if (role && name && strcmp(role, "opens") == 0 &&
            strcmp(name, label) == 0)
            return true;
    }
    return false;
}

/* Nothing that a key of before sealed may be left: whichever it was, since what
 * signed a blob does not stand in it. */
static enum code look_once_more(struct keystep *s, const char *label,
                                struct error *e)
{
    int64_t until_ms = clock_monotonic_ms() + WAIT_MS;
    struct reseal_walk w = {.begun = false};
    JSON pins = NULL;
    bool over = false;
    enum code code = pins_get(s->core, &pins, e);

    if (code || !is_old_seal(label, pins))
        return code;
    do {
        code = reseal_begin(s->core, &w, false, e);
        if (!code)
            code = reseal_walk(s->core, s->by, &w, INT64_MAX, &over, e);
    } while (!code && w.busy > 0 && clock_monotonic_ms() < until_ms &&
             usleep(BUSY_MS * 1000) == 0);
    if (!code && w.busy > 0)
        return error_set(e, ERR_BUSY,
                         "an organisation's configuration is being changed: try "
                         "again in a moment");
    if (code || w.left == 0)
        return code;
    return error_set(e, ERR_INVALID,
                     "%lld keys are still sealed by an old key, which would be "
                     "lost with %s: %s",
                     (long long)w.left, label, w.what);
}

static enum code destroy(struct keystep *s, const char *label, struct error *e)
{
    FRAME reply = FRAME_INIT;
    struct ending g = {s, label, "destroy"};
    struct core *c = s->core;
    enum code code = store_commit(c->store, STORE_NORMAL, save, &g, e);

    if (!code)
        code = keystep_ask(s, VERB_DESTROY_KEY, json_pack("{ss}", "label", label),
                           &reply, e);
    if (!code)
        code = keystep_take_pins(s, &reply, e);
    g.state = "destroyed";
    if (!code)
        code = store_commit(c->store, STORE_NORMAL, save, &g, e);
    return code ? code : unlock_take_pins(c, e);
}

/* Begun, cut off and asked for again it comes to the same end. */
enum code core_destroy_hsm(struct core *c, const struct caller *by,
                           const char *label, json_t **out, struct error *e)
{
    KEYSTEP s = {.core = c, .by = by};
    INFLIGHT hold = {0};
    enum code code =
        inflight_enter(&c->inflight, KEYSTEP_HOLD, NULL, NULL, NULL, &hold, e);

    if (!code && strlen(label) > 63)
        code = error_set(e, ERR_NOT_FOUND, "no key has so long a name");
    if (!code)
        code = keystep_none_under_way(c, e);
    if (!code)
        code = look_once_more(&s, label, e);
    if (!code)
        code = destroy(&s, label, e);
    if (code)
        return code;
    notary_note(c);
    *out = json_pack("{ss ss}", "key", label, "state", "destroyed");
    return *out ? OK : error_set(e, ERR_NOMEM, "no memory for a reply");
}
