/* setup - an organisation's configuration and its admin key, which is proven
 * against the service before it takes the place of the old one. */
#include "config.h"

#include "common/clock.h"
#include "common/file.h"
#include "common/log.h"
#include "common/text.h"
#include "module/core/gate.h"
#include "module/core/internal.h"
#include "module/core/logbook.h"
#include "module/core/orgconfig.h"
#include "module/core/rotate.h"
#include "module/core/rotate_step.h"
#include "module/core/rotation.h"
#include "module/core/schedule.h"
#include "module/core/setup.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void setup_clear(struct setup *s)
{
    store_org_clear(&s->org);
    config_clear(&s->config);
    free(s->was_endpoint);
    free(s->was_organization);
    free(s->was_key_id);
    free(s->blob);
    json_decref(s->candidates);
    json_decref(s->owners);
    json_decref(s->warnings);
}

void setup_warn(struct setup *s, const char *fmt, ...)
{
    va_list ap;

    va_start(ap, fmt);
    json_array_append_new(s->warnings, json_vsprintf(fmt, ap));
    va_end(ap);
}

/* ---- rows ---- */

struct write {
    struct core *core;
    const struct rotation *retire; /* the key before; NULL: it stays */
    int64_t org;
    const char *org_name;
    const char *was; /* the configuration */
    const char *config;
    const char *key_id; /* with blob */
    const uint8_t *blob;
    size_t blob_len;
    const struct caller *by;
};

static enum code record(struct store_tx *tx, const struct write *w,
                        const char *action, struct error *e)
{
    struct logbook_entry r = {
        .kind = RECORD_CONFIG,
        .by = w->by,
        .org = w->org_name,
        .more = logbook_change(w->org_name, action, w->was, w->config)};
    enum code code = logbook_add(w->core, tx, &r, e);

    if (code || !w->blob)
        return code;
    r.kind = RECORD_SEAL;
    r.more = logbook_seal(w->key_id, w->blob, w->blob_len);
    return logbook_add(w->core, tx, &r, e);
}

static enum code write_rows(struct store_tx *tx, void *ctx, struct error *e)
{
    const struct write *w = ctx;
    enum code code = store_org_set_config(tx, w->org, w->config, e);

    if (!code && w->blob)
        code = store_org_set_blob(tx, w->org, w->blob, w->blob_len, e);
    if (!code && w->blob)
        code = rotation_supersede(tx, w->org_name, e);
    if (!code && w->retire)
        code = rotation_save(tx, w->retire, e);
    return code ? code : record(tx, w, "set", e);
}

/* Whether the key before is to go, and as what. */
static bool retires_old(struct setup *s, struct rotation *old)
{
    const char *what = s->asked->old;
    bool same = strcmp(s->was_endpoint, s->config.api_endpoint) == 0 &&
                strcmp(s->was_organization, s->config.organization_id) == 0;
    int64_t now = steady_ms(s->core);
    const char *cause = s->was_compromised ? ROTATE_COMPROMISED : "by hand";
    bool goes = same && (what ? strcmp(what, "retire") == 0
                              : !s->was_by_hand || s->was_compromised);

    if (!s->blob || !s->org.admin_blob || !*s->was_key_id ||
        strcmp(s->was_key_id, s->config.admin_api_key_id) == 0)
        return false;
    if (!goes) {
        setup_warn(s, "admin key %s, which was in use before, stays at the service%s",
             s->was_key_id,
             s->was_compromised ? ", and others may know it: delete it there"
             : s->was_by_hand   ? ""
                                : ", and nobody has it: delete it there");
        return false;
    }
    *old = (struct rotation){.state = ROTATION_RETIRE,
                             .begun_ms = now,
                             .due_ms =
                                 now + rotate_overlap_ms(s->core, cause),
                             .old_sealed = s->org.admin_blob,
                             .old_sealed_len = s->org.admin_blob_len};
    snprintf(old->org, sizeof(old->org), "%s", s->org.name);
    snprintf(old->cause, sizeof(old->cause), "%s", cause);
    snprintf(old->new_id, sizeof(old->new_id), "%s",
             s->config.admin_api_key_id);
    snprintf(old->old_id, sizeof(old->old_id), "%s", s->was_key_id);
    return true;
}

static enum code put(struct setup *s, struct error *e)
{
    struct rotation old; /* borrows its blob */
    struct write w = {.core = s->core,
                      .org = s->org.id,
                      .org_name = s->org.name,
                      .was = s->org.config,
                      .key_id = s->config.admin_api_key_id,
                      .blob = s->blob,
                      .blob_len = s->blob_len,
                      .by = s->by};
    FREE char *text = NULL;
    enum code code = config_text(&s->config, &text, e);

    w.retire = retires_old(s, &old) ? &old : NULL;
    w.config = text;
    return code ? code
                : store_commit(s->core->store, STORE_NORMAL, write_rows, &w, e);
}
/* ---- what was asked ---- */

static enum code load(struct setup *s, const char *org, struct error *e)
{
    enum code code = core_org(s->core, org, &s->org, e);

    if (!code)
        code = config_parse(&s->config, s->org.config, e);
    if (code)
        return code;
    s->was_endpoint = strdup(s->config.api_endpoint);
    s->was_organization = strdup(s->config.organization_id);
    s->was_key_id = strdup(s->config.admin_api_key_id);
    s->was_by_hand = s->config.by_hand;
    s->was_compromised =
        strcmp(s->config.rotation_wanted, ROTATE_COMPROMISED) == 0;
    s->was_outgrown = schedule_outgrown(&s->config, clock_wall_ms());
    s->candidates = json_array();
    s->owners = json_object();
    s->warnings = json_array();
    if (!s->was_endpoint || !s->was_organization || !s->was_key_id ||
        !s->candidates || !s->owners || !s->warnings)
        return error_set(e, ERR_NOMEM, "no memory for a configuration");
    return OK;
}

/* Endpoint, organisation and id are bound into the sealed key. */
static enum code needs_key(const struct setup *s, struct error *e)
{
    const struct {
        const char *name, *was, *is;
    } bound[] = {
        {"api_endpoint", s->was_endpoint, s->config.api_endpoint},
        {"organization_id", s->was_organization, s->config.organization_id},
        {"admin_api_key_id", s->was_key_id, s->config.admin_api_key_id},
    };

    for (size_t i = 0; s->org.admin_blob && i < 3; i++) {
        if (strcmp(bound[i].was, bound[i].is) != 0)
            return error_set(e, ERR_INVALID,
                             "%s is bound into the sealed admin key: give "
                             "admin_api_key along with it",
                             bound[i].name);
    }
    return OK;
}

static enum code set_with_key(struct setup *s, struct error *e)
{
    struct config *c = &s->config;
    enum code code;

    c->last_rotated_ms = c->wanted_ms = clock_wall_ms();
    c->by_hand = true;
    snprintf(c->rotation_wanted, sizeof(c->rotation_wanted), "%s",
             s->asked->keep_first ? "" : "first");
    code = setup_key_prove(s, e);
    if (!code)
        code = put(s, e);
    return code ? code : setup_key_use(s, e);
}

/* A person has seen the key: another one takes its place, now if that can be,
 * else by itself as soon as it can. */
static void replace_first(struct setup *s)
{
    CLEANUP(store_org_clear) struct store_org org = {0};
    struct error e = {0};
    enum code code = rotate_held(s->core, s->by, s->org.name, "first", &e);

    if (code) {
        setup_warn(s, "the key that was given is in use; hsmint goes on trying to "
                "replace it by one that nobody has seen: %s", e.text);
        return;
    }
    code = core_org(s->core, s->org.name, &org, &e);
    config_clear(&s->config);
    if (!code)
        code = config_parse(&s->config, org.config, &e);
    if (code)
        setup_warn(s, "%s", e.text);
    else
        setup_warn(s, "admin key %s took the place of the one that was given, which "
                "is deleted at the service", s->config.admin_api_key_id);
}

/* The schedule was lengthened beyond the key's end: it rotates first. */
static void note_outgrown(struct setup *s)
{
    struct config *c = &s->config;
    int64_t now = clock_wall_ms();

    if (!s->org.admin_blob || *c->rotation_wanted || s->was_outgrown ||
        !schedule_outgrown(c, now))
        return;
    snprintf(c->rotation_wanted, sizeof(c->rotation_wanted), "expiry");
    c->wanted_ms = now;
}

/* It was made for a schedule that is no more, or a person gave it so. */
static void warn_of_end(struct setup *s)
{
    const struct config *c = &s->config;
    char when[CLOCK_TEXT_MAX];

    if (!c->key_expires_ms || *c->rotation_wanted || schedule_is_on(c))
        return;
    setup_warn(s,
               "the admin key ends at %s, and nothing rotates it before: "
               "`hsmint config rotate` makes one without end",
               clock_text(c->key_expires_ms, when));
}

static enum code set(struct setup *s, struct error *e)
{
    bool has_key = s->asked->key_fd >= 0;
    const char *old = s->asked->old;
    enum code code;

    if (old && strcmp(old, "retire") != 0 && strcmp(old, "keep") != 0)
        return error_set(e, ERR_INVALID, "old: \"retire\" or \"keep\"");
    code = config_apply(&s->config, s->asked->fields,
                        s->core->settings->allow_http_loopback, e);

    if (code)
        return code;
    if (has_key) {
        code = set_with_key(s, e);
    } else if (!(code = needs_key(s, e))) {
        note_outgrown(s);
        code = put(s, e);
    }
    if (code)
        return code;
    if (has_key && !s->asked->keep_first)
        replace_first(s);
    if (!has_key && !s->org.admin_blob)
        setup_warn(s, "%s has no admin key yet: give admin_api_key", s->org.name);
    else
        warn_of_end(s);
    if (!has_key)
        rotate_poke(s->core);
    return OK;
}

enum code core_config_set(struct core *c, const struct caller *by,
                          const struct config_request *r, json_t **out,
                          struct error *e)
{
    SETUP s = {.core = c, .by = by, .asked = r};
    INFLIGHT hold = {0};
    enum code code = core_hold_config(c, r->org, &hold, e);

    if (!code)
        code = load(&s, r->org, e);
    if (!code)
        code = set(&s, e);
    if (code)
        return code;
    code = config_json(&s.config, s.org.name,
                       r->key_fd >= 0 || s.org.admin_blob, out, e);
    if (!code && json_object_set(*out, "warnings", s.warnings) != 0)
        code = error_set(e, ERR_NOMEM, "no memory for a configuration");
    return code;
}

enum code core_config_json(const struct store_org *org, json_t **out,
                           struct error *e)
{
    CONFIG config = {0};
    enum code code = config_parse(&config, org->config, e);

    return code ? code
                : config_json(&config, org->name, org->admin_blob != NULL, out,
                              e);
}

struct shown {
    const char *org;
    json_t *out;
};

/* "rotation": what is being made; "retiring": [what is to go]. */
static enum code show_rotation(const struct rotation *r, void *ctx,
                               struct error *e)
{
    struct shown *s = ctx;
    json_t *list = json_object_get(s->out, "retiring");
    int failed = strcmp(r->document, s->org) == 0
                     ? json_object_set_new(s->out, "rotation", rotation_json(r))
                     : json_array_append_new(list, rotation_json(r));

    return failed ? error_set(e, ERR_NOMEM, "no memory for a configuration")
                  : OK;
}

static enum code add_rotations(struct core *c, const char *org, json_t *out,
                               struct error *e)
{
    struct shown s = {org, out};

    if (json_object_set_new(out, "retiring", json_array()) != 0)
        return error_set(e, ERR_NOMEM, "no memory for a configuration");
    return rotation_each(c->store, org, show_rotation, &s, e);
}

enum code core_config_get(struct core *c, const struct caller *by,
                          const char *name, json_t **out, struct error *e)
{
    CLEANUP(store_org_clear) struct store_org org = {0};
    enum code code = core_org(c, name, &org, e);

    (void)by;
    if (!code)
        code = core_config_json(&org, out, e);
    return code ? code : add_rotations(c, org.name, *out, e);
}
