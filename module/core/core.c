/* core - see core.h. */
#include "config.h"

#include "module/core/internal.h"

#include "common/clock.h"
#include "common/file.h"
#include "common/log.h"
#include "common/text.h"
#include "module/core/life.h"
#include "module/core/logbook.h"
#include "module/core/recovery.h"

#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define PROVISION_FACTOR 6 /* making keys on a slow HSM */

/* ---- organisations ---- */

enum code core_org_note(struct core *c, int64_t id, const char *name,
                        struct error *e)
{
    struct core_org_name *more;

    pthread_mutex_lock(&c->orgs_lock);
    more = reallocarray(c->orgs, c->n_orgs + 1, sizeof(*more));
    if (more) {
        c->orgs = more;
        more[c->n_orgs].id = id;
        snprintf(more[c->n_orgs].name, sizeof(more->name), "%s", name);
        c->n_orgs++;
    }
    pthread_mutex_unlock(&c->orgs_lock);
    return more ? OK : error_set(e, ERR_NOMEM, "no memory for organisations");
}

void core_org_name(struct core *c, int64_t id, char name[64])
{
    *name = '\0';
    pthread_mutex_lock(&c->orgs_lock);
    for (size_t i = 0; i < c->n_orgs; i++) {
        if (c->orgs[i].id == id)
            snprintf(name, 64, "%s", c->orgs[i].name);
    }
    pthread_mutex_unlock(&c->orgs_lock);
}

int64_t core_org_id(struct core *c, const char *name)
{
    int64_t id = 0;

    pthread_mutex_lock(&c->orgs_lock);
    for (size_t i = 0; i < c->n_orgs; i++)
        if (strcmp(c->orgs[i].name, name) == 0)
            id = c->orgs[i].id;
    pthread_mutex_unlock(&c->orgs_lock);
    return id;
}

static enum code note_org(const struct store_org *o, void *ctx, struct error *e)
{
    return core_org_note(ctx, o->id, o->name, e);
}

enum code core_org(struct core *c, const char *name, struct store_org *org,
                   struct error *e)
{
    const char *wanted = name && *name ? name : CORE_DEFAULT_ORG;
    enum code code = store_org_get(c->store, wanted, org, e);

    if (code == ERR_NOT_FOUND)
        return error_set(e, ERR_NOT_FOUND,
                         "there is no organisation \"%.64s\"; `hsmint init` "
                         "makes one",
                         wanted);
    return code;
}

enum code core_hold_config(struct core *c, const char *org,
                           struct inflight_hold *h, struct error *e)
{
    return inflight_enter(&c->inflight, "config",
                          org && *org ? org : CORE_DEFAULT_ORG, NULL, NULL, h,
                          e);
}

/* ---- open, close ---- */

static enum code start(struct core *c, struct error *e)
{
    struct error why = {0};
    uint64_t generation;
    enum code code = store_org_each(c->store, note_org, c, e);

    if (!code)
        code = steady_open(c, e);
    if (!code)
        code = expiry_open(c, e);
    if (!code)
        code = restored_open(c, e);
    if (code)
        return code;
    if (keystates_begin(c, &why) != OK)
        log_failure(&why, "the states of the HSM's keys");
    /* A missing HSM or PIN is told by each call, and by status. */
    if (unlock_ready(c, &generation, &why) != OK)
        log_failure(&why, "not ready yet");
    code = notary_start(c, e);
    if (!code)
        code = health_start(c, e);
    if (!code)
        code = watch_start(c, e);
    if (!code)
        code = rotate_start(c, e);
    if (!code)
        code = reconcile_start(c, e);
    if (!code)
        code = revoke_all_resume(c, e);
    return code ? code : sweep_start(c, e);
}

/* In user mode there is one identity. */
static int service_places(const struct settings *s)
{
    if (s->mode == MODE_USER)
        return 0;
    return s->keeper_threads > 1 ? s->keeper_threads - 1 : 1;
}

enum code core_open_with(struct core **out, const struct core_options *o,
                         keeper_start_fn keeper_start, void *start_ctx,
                         struct error *e)
{
    struct keeper_options k = {.settings = o->settings,
                               .config_path = o->config_path,
                               .keeper_path = o->keeper_path,
                               .start = keeper_start,
                               .start_ctx = start_ctx};
    struct core *c = malloc(sizeof(*c));
    enum code code;

    if (!c)
        return error_set(e, ERR_NOMEM, "no memory for the core");
    *c = (struct core){.store = o->store,
                       .settings = o->settings,
                       .uid = geteuid(),
                       .unlock = UNLOCK_INIT,
                       .markers = MARKERS_INIT,
                       .inflight = INFLIGHT_INIT,
                       .halt = HALT_INIT,
                       .revoke_all = REVOKE_ALL_INIT,
                       .warnings = WARNINGS_INIT,
                       .ended = ENDED_INIT,
                       .policies = POLICIES_INIT,
                       .refusals = REFUSALS_INIT,
                       .steady = STEADY_INIT,
                       .releases = RELEASES_INIT,
                       .expiry = EXPIRY_INIT,
                       .sweep = SWEEP_INIT,
                       .crew = CREW_INIT,
                       .watch = WATCH_INIT,
                       .health = HEALTH_INIT,
                       .rotate = ROTATE_INIT,
                       .keyrotate = KEYROTATE_INIT,
                       .sealing = SEALING_INIT,
                       .notary = NOTARY_INIT,
                       .keystates = KEYSTATES_INIT,
                       .reconcile = RECONCILE_INIT,
                       .restored = RESTORED_INIT,
                       .entrances = ENTRANCES_INIT,
                       .orgs_lock = PTHREAD_MUTEX_INITIALIZER};
    k.metrics = &c->metrics;
    shares_init(&c->shares, service_places(o->settings));
    code = text_id(c->run, e);
    if (!code)
        code = metrics_init(&c->metrics, e);
    if (!code)
        code = keeper_new(&c->keeper, &k, e);
    if (!code)
        code = life_start(c, e);
    if (!code)
        code = policies_open(c, e);
    if (!code)
        code = start(c, e);
    if (code) {
        core_close(c);
        return code;
    }
    *out = c;
    return OK;
}

enum code core_open(struct core **out, const struct core_options *o,
                    struct error *e)
{
    return core_open_with(out, o, NULL, NULL, e);
}

void core_close(struct core *c)
{
    if (!c)
        return;
    revoke_all_stop(c);
    sweep_stop(c);
    rotate_stop(c);
    reconcile_stop(c);
    health_stop(c);
    core_refused_rest(c);
    life_stop(c);
    notary_stop(c); /* all of before is signed */
    watch_stop(c);
    keeper_free(c->keeper);
    unlock_clear(c);
    keystates_clear(c);
    policies_clear(&c->policies);
    ended_clear(&c->ended);
    shares_clear(&c->shares);
    expiry_clear(c);
    warnings_clear(&c->warnings);
    metrics_clear(&c->metrics);
    free(c->orgs);
    free(c);
}

/* ---- login ---- */

/* By the HSM's PIN: of whoever gave it. */
static enum code record_login(struct core *c, const struct caller *by,
                              const char *way, struct error *e)
{
    const struct logbook_entry r = {
        .kind = RECORD_LOGIN,
        .by = by,
        .more = json_pack("{ss}", "entrance", way)};
    enum code code = logbook_commit(c, STORE_RESERVE, &r, e);

    return code ? error_prefix(e, "hsmint is unlocked, which could not be "
                                  "recorded")
                : OK;
}

enum code core_login(struct core *c, const struct caller *by, int pin_fd,
                     bool force, struct error *e)
{
    const char *way = pin_fd >= 0 ? "pin" : "configured pin";
    enum code code =
        force ? core_permit(c, by, CAP_ADMINISTER, NULL, NULL, e) : OK;
    struct error why = {0};

    if (code)
        return code;
    code = unlock_login(c, pin_fd, force, &why);
    if (!code)
        return record_login(c, by, way, e);
    if (code == ERR_PIN_WRONG || code == ERR_PIN_HELD || code == ERR_PIN_LOCKED)
        entrance_failed(c, by, way, NULL, why.text, 0);
    if (e)
        *e = why;
    return code;
}

/* Locking does not fail for want of a record. */
enum code core_lock(struct core *c, const struct caller *by, struct error *e)
{
    const struct logbook_entry r = {
        .kind = RECORD_LOGOUT_ALL,
        .by = by,
        .more = json_pack("{ss}", "reason", "locked by hand")};
    struct error why = {0};
    enum code code = unlock_lock(c, e);

    if (logbook_commit(c, STORE_RESERVE, &r, &why) != OK)
        log_failure(&why, "that hsmint was locked is not recorded");
    return code;
}

bool core_locked(struct core *c)
{
    return unlock_is_locked(c);
}

bool core_wants_pin(struct core *c)
{
    return unlock_is_locked(c) && !unlock_has_source(c);
}

static enum code note_proof(const struct store_lane *l, void *ctx,
                            struct error *e)
{
    bool *waits = ctx;

    (void)e;
    *waits = *waits || l->kind == LANE_PROOF;
    return OK;
}

bool core_busy(struct core *c)
{
    struct store_counts n = {0};
    bool proves = false;
    struct error e = {0};

    if (store_lease_counts(c->store, 0, NULL, &n, &e) != OK) {
        log_failure(&e, "leases cannot be counted");
        return true;
    }
    if (store_lane_each(c->store, note_proof, &proves, &e) != OK)
        log_failure(&e, "proofs cannot be looked for");
    return proves || n.pending + n.active + n.revoking > 0;
}

/* ---- init ---- */

struct init_rows {
    struct core *core;
    const char *org;
    const struct caller *by;
    char *pins; /* NULL: stored already */
    const char *instance;
    bool recover;
    int64_t id;
};

static enum code insert_rows(struct store_tx *tx, void *ctx, struct error *e)
{
    struct init_rows *r = ctx;
    enum code code = store_org_add(tx, r->org, clock_wall_ms(), &r->id, e);

    if (!code && r->pins)
        code = store_meta_put(tx, META_INSTANCE, r->instance,
                              strlen(r->instance), e);
    const struct logbook_entry record = {
        .kind = RECORD_INIT,
        .by = r->by,
        .org = r->org,
        .more = json_pack("{ss}", "instance", r->instance)};

    if (!code)
        code = logbook_add(r->core, tx, &record, e);
    if (!code && r->pins)
        code = pins_put(r->core, tx, r->by, r->pins,
                        r->recover ? PINS_RECOVERED : "init", e);
    return code;
}

static enum code ask_keys(struct core *c, const struct frame *request,
                          uint64_t *generation, struct frame *reply,
                          struct error *e)
{
    enum code code = keeper_ensure(c->keeper, generation, e);

    return code ? code
                : keeper_call(c->keeper, *generation, request,
                              (int)c->settings->hsm_deadline_ms *
                                  PROVISION_FACTOR,
                              reply, NULL, e);
}

/* A keeper that was started since the daemon was has no PIN yet; without keys
 * to check, logging in is all that can be done. */
static bool logged_in_again(struct core *c)
{
    struct error why = {0};
    uint64_t ready;
    enum code code = unlock_ready(c, &ready, &why);

    return code == OK || code == ERR_HSM_KEYS;
}

/* Keys are made once; later organisations share them. */
static enum code provision(struct core *c, bool recover, uint64_t *generation,
                           bool *is_first, json_t **answer, struct error *e)
{
    FRAME request = FRAME_INIT;
    FRAME reply = FRAME_INIT;
    JSON pins = NULL;
    enum code code = pins_get(c, &pins, e);

    *is_first = code == ERR_NOT_FOUND;
    if (code && !*is_first)
        return code;
    if (!*is_first && recover)
        return error_set(e, ERR_EXISTS, "this state has its keys: nothing is "
                                        "to be recovered");
    request.verb = VERB_PROVISION;
    request.head = json_pack("{sb sb sO?}", "create", *is_first, "recover",
                             recover, "pins", pins);
    if (!request.head)
        return error_set(e, ERR_NOMEM, "no memory to make the HSM's keys");
    code = ask_keys(c, &request, generation, &reply, e);
    if (code == ERR_LOCKED && logged_in_again(c)) {
        frame_clear(&reply);
        code = ask_keys(c, &request, generation, &reply, e);
    }
    if (code)
        return code;
    keystates_heard(c, reply.head);
    *answer = json_incref(reply.head);
    return OK;
}

static enum code init_json(const char *org, json_t *answer, json_t **out,
                           struct error *e)
{
    JSON hsm = json_copy(answer);

    if (!out)
        return OK;
    json_object_del(hsm, "pins");
    json_object_del(hsm, "attributes");
    *out = json_pack("{ss sO sO}", "org", org, "instance",
                     json_object_get(answer, "instance"), "hsm", hsm);
    return *out ? OK : error_set(e, ERR_NOMEM, "no memory for the HSM's state");
}

static enum code init(struct core *c, const struct caller *by, const char *org,
                      bool recover, json_t **out, struct error *e)
{
    JSON answer = NULL;
    FREE char *pins = NULL;
    struct init_rows rows = {
        .core = c, .org = org, .by = by, .recover = recover};
    uint64_t generation = 0;
    bool is_first;
    enum code code =
        provision(c, recover, &generation, &is_first, &answer, e);

    if (code)
        return code;
    rows.instance = json_string_value(json_object_get(answer, "instance"));
    pins = json_text(json_object_get(answer, "pins"), JSON_COMPACT);
    if (!rows.instance || !pins)
        return error_set(e, ERR_KEEPER, "the keeper named no keys");
    rows.pins = is_first ? pins : NULL;
    /* First: what the keys of before made is not this state's to delete. */
    if (recover &&
        (code = restored_mark(c, "the state was lost, and begun anew", e)))
        return code;
    code = store_commit(c->store, STORE_NORMAL, insert_rows, &rows, e);
    if (!code)
        code = core_org_note(c, rows.id, org, e);
    if (code)
        return code;
    unlock_note_ready(c, generation);
    recovery_keep(c, generation);
    return init_json(org, answer, out, e);
}

static enum code init_org(struct core *c, const struct caller *by,
                          const char *name, bool recover, json_t **out,
                          struct error *e)
{
    const char *org = name && *name ? name : CORE_DEFAULT_ORG;
    CLEANUP(store_org_clear) struct store_org there = {0};
    INFLIGHT hold = {0};
    enum code code = text_check_name("organisation", org, e);

    if (!code)
        code = inflight_enter(&c->inflight, "init", NULL, NULL, NULL, &hold, e);
    if (code)
        return code;
    if (store_org_get(c->store, org, &there, NULL) == OK)
        return error_set(e, ERR_EXISTS,
                         "organisation %s is set up already; --org NAME sets "
                         "up another one",
                         org);
    return init(c, by, org, recover, out, e);
}

enum code core_init(struct core *c, const struct caller *by, const char *name,
                    json_t **out, struct error *e)
{
    return init_org(c, by, name, false, out, e);
}

enum code core_recover(struct core *c, const struct caller *by,
                       const char *name, json_t **out, struct error *e)
{
    return init_org(c, by, name, true, out, e);
}

/* ---- state ---- */

static json_t *keeper_json(struct core *c)
{
    struct keeper_state k;

    keeper_describe(c->keeper, &k);
    return json_pack("{sb si sI}", "running", k.running, "pid", (int)k.pid,
                     "restarts", (json_int_t)k.restarts);
}

struct orgs {
    struct core *core;
    json_t *list;
};

static enum code append_org(const struct store_org *o, void *ctx,
                            struct error *e)
{
    struct orgs *orgs = ctx;
    json_t *one = NULL;
    enum code code = core_config_json(o, &one, e);

    if (!code &&
        (json_object_set_new(one, "service", health_json(orgs->core, o->name)) !=
             0 ||
         json_array_append_new(orgs->list, one) != 0))
        code = error_set(e, ERR_NOMEM, "no memory for organisations");
    return code;
}

static json_t *instance_json(struct core *c)
{
    FREE void *text = NULL;
    size_t len;

    if (store_meta_get(c->store, META_INSTANCE, &text, &len, NULL) != OK)
        return json_string("");
    return json_stringn(text, len);
}

void core_alarm(struct core *c, enum alarm alarm, const char *object,
                const char *text)
{
    if (text)
        warnings_raise(&c->warnings, alarm, object, "%s", text);
    else
        warnings_drop(&c->warnings, alarm, object);
}

/* The HSM is asked first: the look that answers raises the alarms, too. A store
 * that is broken is one of them, and no reason to say nothing. */
enum code core_status(struct core *c, json_t **out, struct error *e)
{
    JSON list = json_array();
    struct orgs orgs = {.core = c, .list = list};
    struct store_counts n = {0};
    json_t *hsm = hsm_status(c);
    struct error why = {0};
    enum code code = store_lease_counts(c->store, 0, NULL, &n, &why);

    if (!code)
        code = store_org_each(c->store, append_org, &orgs, &why);
    if (code)
        log_failure(&why, "status");
    *out = json_pack("{ss so sb s{sI sI sI} so so sO so}", "mode",
                     c->settings->mode == MODE_SYSTEM ? "system" : "user",
                     "instance", instance_json(c), "locked", core_locked(c),
                     "leases", "pending", (json_int_t)n.pending, "active",
                     (json_int_t)n.active, "revoking", (json_int_t)n.revoking,
                     "hsm", hsm, "keeper", keeper_json(c), "orgs", list,
                     "alarms", warnings_json(&c->warnings));
    return *out ? OK : error_set(e, ERR_NOMEM, "no memory for the state");
}

/* ---- slots ---- */

struct slots {
    json_t *list;
    char instance[65]; /* SHA-256, hex */
};

#define LABEL_LEN 32 /* CK_TOKEN_INFO */
#define SERIAL_LEN 16

static enum code append_slot(const struct store_org *o, void *ctx,
                             struct error *e)
{
    struct slots *s = ctx;
    char label[LABEL_LEN + 1], serial[SERIAL_LEN + 1];
    bool is_default = strcmp(o->name, CORE_DEFAULT_ORG) == 0;

    snprintf(label, sizeof(label), "hsmint%s%.24s", is_default ? "" : "-",
             is_default ? "" : o->name);
    snprintf(serial, sizeof(serial), "%.12s%04x", s->instance,
             (unsigned)(o->id & 0xffff));
    if (json_array_append_new(
            s->list, json_pack("{sI ss ss ss}", "id", (json_int_t)o->id, "org",
                               o->name, "label", label, "serial", serial)) != 0)
        return error_set(e, ERR_NOMEM, "no memory for slots");
    return OK;
}

/* Serials come from instance and organisation alone, so they do not move. */
json_t *core_pin(struct core *c)
{
    return unlock_pin(c);
}

enum code core_slots(struct core *c, json_t **out, struct error *e)
{
    JSON list = json_array();
    JSON instance = instance_json(c);
    struct slots s = {.list = list};
    uint8_t digest[32];
    enum code code;

    if (!list || !instance ||
        EVP_Digest(json_string_value(instance), json_string_length(instance),
                   digest, NULL, EVP_sha256(), NULL) != 1)
        return error_set(e, ERR_NOMEM, "no memory for slots");
    text_hex(s.instance, digest, sizeof(digest));
    code = store_org_each(c->store, append_slot, &s, e);
    if (!code)
        *out = json_incref(list);
    return code;
}
