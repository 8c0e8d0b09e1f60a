/* keyabandon - a rotation of the HSM's keys that cannot go on is let go:
 * core_abandon_hsm() of core.h; keyrotation.h says where it ends.
 */
#include "config.h"

#include "common/log.h"
#include "module/core/internal.h"
#include "module/core/keyrotate.h"
#include "module/core/keystep.h"

#include <string.h>

static void clear_made(struct keystep *s)
{
    FRAME reply = FRAME_INIT;
    struct error why = {0};

    if (keystep_ask_planned(s, "clear", &reply, &why))
        log_failure(&why, "what was made for the HSM's %s key may be left on "
                          "it",
                    s->r.which);
}

/* "hsmint-seal-2" of the plan, in `label`. */
static void planned_seal(const json_t *plan, char label[SEALED_LABEL_MAX])
{
    label[0] = '\0';
    for (size_t i = 0; i < json_array_size(plan); i++) {
        json_t *key = json_array_get(plan, i);
        const char *use = json_string_value(json_object_get(key, "use"));

        if (use && strcmp(use, "seal") == 0)
            snprintf(label, SEALED_LABEL_MAX, "hsmint-seal-%d",
                     (int)json_integer_value(json_object_get(key, "version")));
    }
}

/* The HSM itself has looked at the new key. Where it does not answer, the keeper
 * may be working with that one for all that is known. */
static bool is_no_key(enum code code)
{
    return code == ERR_HSM_KEYS || code == ERR_HSM_FAILED;
}

static enum code cannot_be_taken(struct keystep *s, struct error *why,
                                 struct error *e)
{
    if (unlock_take_pins(s->core, why) == OK)
        return error_set(e, ERR_EXISTS,
                         "the keeper works with the new %s key: the rotation "
                         "is not stuck, and goes on by itself",
                         s->r.which);
    if (!is_no_key(why->code))
        return error_set(e, why->code,
                         "whether the new %s key works cannot be told now, and "
                         "it may be in use: %s",
                         s->r.which, why->text);
    unlock_pause(s->core); /* a keeper may have the new pins for all that */
    return sealing_drain(&s->core->sealing, SEALING_DRAIN_MS, e);
}

/* Only what nobody can work with: else the pins of before would make unreadable
 * what was sealed since. */
static enum code put_back(struct keystep *s, struct error *e)
{
    char label[SEALED_LABEL_MAX];
    struct error why = {0};
    int64_t n = 0;
    enum code code;

    if (!s->r.before)
        return error_set(e, ERR_INVALID, "the pins of before are not known");
    code = cannot_be_taken(s, &why, e);
    planned_seal(s->r.plan, label);
    if (!code && *label)
        code = reseal_count(s->core, label, &n, e);
    if (!code && n > 0)
        code = error_set(e, ERR_INVALID,
                         "%lld keys are sealed by %s already: bring it back "
                         "from the HSM's backup (%s)",
                         (long long)n, label, why.text);
    if (code)
        return code;
    s->pins = json_text(s->r.before, JSON_COMPACT);
    return s->pins ? OK : error_set(e, ERR_NOMEM, "no memory for pins");
}

static json_t *abandoned(struct keystep *s, enum keyrotation_state was)
{
    static const char *const says[KEYROTATION_DONE] = {
        [KEYROTATION_MAKE] = "nothing has changed: the key of before is in use",
        [KEYROTATION_TAKE] = "the key of before is in use again",
        [KEYROTATION_SIGN] =
            "the log goes on with the new key alone: who knows only the old "
            "one has to be given it (`hsmint audit key`)",
        [KEYROTATION_RESEAL] =
            "the new key is in use; what could not be sealed anew is opened by "
            "the old one, which has to stay on the HSM",
        [KEYROTATION_PROVE] =
            "the new key is in use; the old one has to stay on the HSM",
    };

    return json_pack("{ss ss ss ss}", "key", s->r.which, "state", "abandoned",
                     "was", keyrotation_state_name(was), "text", says[was]);
}

static enum code store_let_go(struct keystep *s, enum keyrotation_state was,
                              struct error *e)
{
    const struct reseal_walk *w = &s->core->keyrotate.walk;
    enum code code = was == KEYROTATION_TAKE ? put_back(s, e) : OK;

    if (code)
        return code;
    s->note = json_pack("{ss ss sI}", "state", "abandoned", "was",
                        keyrotation_state_name(was), "left",
                        (json_int_t)w->left);
    return keystep_advance(s, KEYROTATION_ABANDONED, e);
}

/* A keeper at work takes no pins of before: another one is started. What goes by
 * the planned ids is of no use then. */
static enum code let_take_go(struct keystep *s, struct error *e)
{
    struct error why = {0};
    enum code code = store_let_go(s, KEYROTATION_TAKE, e);

    unlock_go_on(s->core);
    if (code)
        return code;
    if (unlock_take_pins(s->core, &why))
        log_failure(&why, "the key of before is not in use yet");
    clear_made(s);
    return OK;
}

static enum code let_go(struct keystep *s, json_t **out, struct error *e)
{
    enum keyrotation_state was = s->r.state;
    enum code code;

    if (was == KEYROTATION_MAKE)
        clear_made(s);
    code = was == KEYROTATION_TAKE ? let_take_go(s, e)
                                   : store_let_go(s, was, e);
    if (code)
        return code;
    keyrotate_show(s->core, NULL);
    *out = abandoned(s, was);
    return *out ? OK : error_set(e, ERR_NOMEM, "no memory for a reply");
}

enum code core_abandon_hsm(struct core *c, const struct caller *by,
                           const char *which, json_t **out, struct error *e)
{
    KEYSTEP s = {.core = c, .by = by};
    INFLIGHT hold = {0};
    struct error none = {0};
    enum code code = keystep_hold(c, which, &hold, e);

    if (code)
        return code;
    code = keyrotation_load(c->store, &s.r, &none);
    if (code == ERR_NOT_FOUND || (!code && strcmp(s.r.which, which) != 0))
        return error_set(e, ERR_NOT_FOUND,
                         "no rotation of the HSM's %s key is under way", which);
    if (code && e)
        *e = none;
    if (!code)
        code = let_go(&s, out, e);
    inflight_leave(&hold);
    rotate_poke(c);
    return code;
}
