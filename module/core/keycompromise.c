/* keycompromise - a key of the HSM's that somebody knows is declared, and another
 * takes its place: core_compromised_hsm() of core.h.
 */
#include "config.h"

#include "module/core/internal.h"
#include "module/core/keyrotate.h"
#include "module/core/keystep.h"
#include "module/core/logbook.h"

#include <stdio.h>
#include <string.h>

static enum code declare(struct store_tx *tx, void *ctx, struct error *e)
{
    const struct keystep *s = ctx;
    json_t *declared = json_array();
    enum code code = keystates_declare(tx, s->r.which, declared, e);
    const struct logbook_entry r = {
        .kind = RECORD_ROTATE_KEY,
        .by = s->by,
        .more = json_pack("{ss ss ss so}", "key", s->r.which, "state",
                          "compromised", "cause", KEYROTATION_COMPROMISED,
                          "old", declared)};
    enum code logged = logbook_add(s->core, tx, &r, code ? NULL : e);

    return code ? code : logged;
}

/* One that is under way ends first, but for its beginning: the key that it makes
 * takes the place of the declared one. Whoever calls holds KEYSTEP_HOLD. */
static enum code run_compromised(struct keystep *s, const char *which,
                                 struct error *e)
{
    enum code code = keyrotation_load(s->core->store, &s->r, e);

    if (code == ERR_NOT_FOUND)
        return keyrotate_begin(s, which, KEYROTATION_COMPROMISED, e);
    if (code)
        return code;
    if (s->r.state == KEYROTATION_MAKE && strcmp(s->r.which, which) == 0) {
        strcpy(s->r.cause, KEYROTATION_COMPROMISED);
        code = keystep_commit(s, e);
        return code ? code : keyrotate_finish(s, e);
    }
    code = keyrotate_finish(s, e);
    keyrotation_clear(&s->r);
    return code ? code : keyrotate_begin(s, which, KEYROTATION_COMPROMISED, e);
}

/* Declared first, whatever comes: keyschedule.h tries on. */
enum code core_compromised_hsm(struct core *c, const struct caller *by,
                               const char *which, json_t **out,
                               struct error *e)
{
    KEYSTEP s = {.core = c, .by = by};
    INFLIGHT hold = {0};
    enum code code = keystep_hold(c, which, &hold, e);

    if (code)
        return code;
    snprintf(s.r.which, sizeof s.r.which, "%s", which);
    code = store_commit(c->store, STORE_RESERVE, declare, &s, e);
    if (code)
        return code;
    notary_note(c);
    code = run_compromised(&s, which, e);
    inflight_leave(&hold);
    rotate_poke(c);
    return code ? error_prefix(e, "it is declared compromised, and replaced as "
                                  "soon as the HSM makes another")
                : keystep_answer(&s, out, e);
}
