/* hsmrestore - see hsmrestore.h. */
#include "config.h"

#include "module/core/hsmrestore.h"

#include "common/clock.h"
#include "common/file.h"
#include "common/log.h"
#include "module/core/internal.h"
#include "module/core/keyrotation.h"
#include "module/core/keystep.h"
#include "module/core/logbook.h"
#include "module/core/lost.h"
#include "module/core/pins.h"
#include "module/core/recovery.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { MAKE_FACTOR = 6 /* making keys on a slow HSM */ };
#define KIND "hsm-restore"
#define DOCUMENT "keys"
#define META_LOG "hsm.restore.log" /* "1" until the log has begun there */
#define NAMES_MAX 256 /* of accounts, to check an HMAC key by */

struct restore {
    struct core *core;
    const struct caller *by;
    const struct hsm_restore_request *asked;
    json_t *pins;   /* those in the store */
    json_t *before; /* the document; NULL: there is none */
    json_t *plan;
    json_t *report;
    char *new_pins;
    struct lost lost;
};

static void restore_clear(struct restore *r)
{
    json_decref(r->pins);
    json_decref(r->before);
    json_decref(r->plan);
    json_decref(r->report);
    free(r->new_pins);
    lost_clear(&r->lost);
}

static const char *text_of(const json_t *object, const char *member)
{
    const char *text = json_string_value(json_object_get(object, member));

    return text ? text : "";
}

/* ---- the document ---- */

static enum code load(struct core *c, json_t **out, struct error *e)
{
    CLEANUP(store_document_clear) struct store_document d = {.name = NULL};
    enum code code = store_document_get(c->store, KIND, DOCUMENT, &d, e);

    if (code != ERR_NOT_FOUND)
        return code ? code
                    : json_parse(d.body, strlen(d.body), "restore of the HSM",
                                 out, e);
    error_clear(e);
    return OK;
}

static enum code put(struct store_tx *tx, const json_t *body, struct error *e)
{
    FREE char *text = json_text(body, JSON_COMPACT);

    return text ? store_document_put(tx, KIND, DOCUMENT, text, clock_wall_ms(),
                                     e)
                : error_set(e, ERR_NOMEM, "no memory for a restore");
}

/* It was begun for these very pins. */
static bool is_begun(const struct restore *r)
{
    return strcmp(text_of(r->before, "state"), "make") == 0 &&
           json_equal(json_object_get(r->before, "pins"), r->pins);
}

static bool is_done(const struct restore *r)
{
    return strcmp(text_of(r->before, "state"), "done") == 0;
}

/* ---- the keeper, before it is ready ---- */

/* Without keys to check, logging in is all that can be done. */
static bool log_in(struct core *c)
{
    struct error why = {0};
    uint64_t ready;
    enum code code;

    usleep(UNLOCK_RETRY_MS * 1000); /* an attempt just failed, perhaps */
    code = unlock_ready(c, &ready, &why);
    return code == OK || code == ERR_HSM_KEYS;
}

/* Takes `head`; `fd` stays the caller's. */
static enum code ask_once(struct core *c, json_t *head, int fd,
                          struct frame *reply, struct error *e)
{
    FRAME request = FRAME_INIT;
    uint64_t generation;
    enum code code;

    request.verb = VERB_RESTORE_KEYS;
    request.head = head;
    if (fd >= 0)
        request.fd = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    if (!head || (fd >= 0 && request.fd < 0))
        return error_set(e, ERR_NOMEM, "no memory to ask the keeper");
    code = keeper_ensure(c->keeper, &generation, e);
    return code ? code
                : keeper_call(c->keeper, generation, &request,
                              (int)c->settings->hsm_deadline_ms * MAKE_FACTOR,
                              reply, NULL, e);
}

static enum code ask_plan(struct restore *r, struct error *e)
{
    json_t *before =
        is_begun(r) ? json_object_get(r->before, "plan") : NULL;
    FRAME reply = FRAME_INIT;
    enum code code = ERR_LOCKED;

    for (int tries = 0; tries < 3 && code == ERR_LOCKED; tries++) {
        if (tries > 0 && !log_in(r->core))
            break;
        frame_clear(&reply);
        reply = (struct frame)FRAME_INIT;
        code = ask_once(r->core,
                        json_pack("{ss sO sO*}", "step", "plan", "pins",
                                  r->pins, "keys", before),
                        -1, &reply, e);
    }
    if (!code)
        r->plan = json_incref(json_object_get(reply.head, "keys"));
    if (!code && json_array_size(r->plan) == 0)
        code = error_set(e, ERR_KEEPER, "the keeper planned no keys");
    return code;
}

/* ---- what a given HMAC key is checked by ---- */

static enum code take_name(const struct store_lease *l, void *ctx,
                           struct error *e)
{
    if (!l->account_name || !*l->account_name)
        return OK;
    return json_array_append_new(ctx, json_string(l->account_name))
               ? error_set(e, ERR_NOMEM, "no memory for names")
               : OK;
}

static enum code known_names(struct core *c, json_t **names, struct error *e)
{
    const struct store_lease_query q = {.limit = NAMES_MAX};
    JSON list = json_array();
    enum code code =
        list ? store_lease_each(c->store, &q, take_name, list, e)
             : error_set(e, ERR_NOMEM, "no memory for names");

    if (!code)
        *names = json_incref(list);
    return code;
}

static enum code ask_make(struct restore *r, struct frame *reply,
                          struct error *e)
{
    char check[RECOVERY_CHECK + 1] = "";
    JSON names = NULL;
    enum code code = OK;
    json_t *head = NULL;

    if (r->asked->hmac_fd >= 0) {
        code = recovery_check(r->core, check, e);
        if (!code && !*check)
            code = known_names(r->core, &names, e);
    }
    if (code)
        return code;
    head = json_pack("{ss sO sO ss* sO*}", "step", "make", "pins", r->pins,
                     "keys", r->plan, "check", *check ? check : NULL, "names",
                     names);
    return ask_once(r->core, head, r->asked->hmac_fd, reply, e);
}

/* ---- what is told ---- */

/* ["hsmint-call-2"] */
static json_t *labels(const json_t *plan)
{
    JSON list = json_array();

    for (size_t i = 0; i < json_array_size(plan); i++) {
        json_t *key = json_array_get(plan, i);

        if (json_array_append_new(
                list, json_sprintf("hsmint-%s-%lld", text_of(key, "use"),
                                   (long long)json_integer_value(
                                       json_object_get(key, "version")))))
            return NULL;
    }
    return json_incref(list);
}

static enum code make_report(struct restore *r, const char *state,
                             struct error *e)
{
    bool given = r->asked->hmac_fd >= 0;
    json_t *reason = logbook_text(r->asked->reason ? r->asked->reason : "",
                                  LOGBOOK_TEXT_MAX);

    json_decref(r->report);
    r->report = json_pack(
        "{ss so ss so so}", "state", state, "reason", reason, "hmac_key",
        given ? "given" : "new", "keys", labels(r->plan), "lost",
        lost_json(&r->lost));
    return r->report ? OK : error_set(e, ERR_NOMEM, "no memory for a report");
}

static bool has_key(struct core *c, const char *org)
{
    CLEANUP(store_org_clear) struct store_org o = {0};

    return store_org_get(c->store, org, &o, NULL) == OK && o.admin_blob;
}

/* [org]: whose admin key is gone, and that have no other yet. */
static json_t *waiting(struct core *c, const json_t *report)
{
    const json_t *orgs = json_object_get(json_object_get(report, "lost"),
                                         "organisations");
    JSON list = json_array();

    for (size_t i = 0; i < json_array_size(orgs); i++) {
        const char *org = text_of(json_array_get(orgs, i), "org");

        if (!has_key(c, org) &&
            json_array_append_new(list, json_string(org)))
            return NULL;
    }
    return json_incref(list);
}

static enum code answer(struct core *c, const json_t *report, json_t **out,
                        struct error *e)
{
    JSON copy = json_copy((json_t *)(uintptr_t)report);

    if (!copy || json_object_set_new(copy, "waiting", waiting(c, report)))
        return error_set(e, ERR_NOMEM, "no memory for a report");
    *out = json_incref(copy);
    return OK;
}

/* ---- rows ---- */

static enum code record(struct store_tx *tx, const struct restore *r,
                        const char *state, struct error *e)
{
    const struct logbook_entry entry = {
        .kind = RECORD_RESTORE,
        .by = r->by,
        .more = json_pack("{ss ss so so ss sO*}", "what", "hsm", "state", state,
                          "reason",
                          logbook_text(r->asked->reason, LOGBOOK_TEXT_MAX),
                          "new", labels(r->plan), "hmac_key",
                          text_of(r->report, "hmac_key"), "lost",
                          json_object_get(r->report, "lost"))};

    return logbook_add(r->core, tx, &entry, e);
}

static enum code write_begin(struct store_tx *tx, void *ctx, struct error *e)
{
    const struct restore *r = ctx;
    JSON body = json_pack("{ss sO sO sI}", "state", "make", "plan", r->plan,
                          "pins", r->pins, "begun_ms",
                          (json_int_t)clock_wall_ms());
    enum code code = body ? put(tx, body, e)
                          : error_set(e, ERR_NOMEM, "no memory for a restore");

    return code ? code : record(tx, r, "make", e);
}

/* All at once: no state has both, what the new keys seal and what the old ones
 * did. A rotation of the keys that are gone is over. */
static enum code write_done(struct store_tx *tx, void *ctx, struct error *e)
{
    struct restore *r = ctx;
    const struct keyrotation over = {.state = KEYROTATION_DONE};
    JSON body = json_pack("{ss sO sI}", "state", "done", "report", r->report,
                          "done_ms", (json_int_t)clock_wall_ms());
    enum code code = body ? record(tx, r, "done", e)
                          : error_set(e, ERR_NOMEM, "no memory for a restore");

    if (!code)
        code = lost_write(tx, &r->lost, e);
    if (!code)
        code = keyrotation_save(tx, &over, e);
    if (!code && r->asked->hmac_fd < 0)
        code = recovery_lost(tx, e);
    if (!code)
        code = pins_put(r->core, tx, r->by, r->new_pins, PINS_LOST, e);
    if (!code)
        code = store_meta_put(tx, META_LOG, "1", 1, e);
    return code ? code : put(tx, body, e);
}

static enum code write_over(struct store_tx *tx, void *ctx, struct error *e)
{
    const struct restore *r = ctx;
    enum code code = store_document_delete(tx, KIND, DOCUMENT, e);

    return code ? code : record(tx, r, "let go", e);
}

/* ---- the steps ---- */

/* The keys are there: nothing is to be restored. One that was done tells so
 * again; one that was begun is over, for the old HSM came back. */
static enum code not_lost(struct restore *r, const struct error *why,
                          json_t **out, struct error *e)
{
    struct error none = {0};

    if (is_done(r))
        return answer(r->core, json_object_get(r->before, "report"), out, e);
    if (is_begun(r) && !r->asked->dry_run) {
        r->plan = json_incref(json_object_get(r->before, "plan"));
        if (store_commit(r->core->store, STORE_NORMAL, write_over, r, &none) !=
            OK)
            log_failure(&none, "the restore that was begun is not forgotten");
    }
    if (e)
        *e = *why;
    return why->code;
}

static enum code begin(struct restore *r, struct error *e)
{
    if (is_begun(r))
        return OK;
    return store_commit(r->core->store, STORE_RESERVE, write_begin, r, e);
}

static enum code make(struct restore *r, struct error *e)
{
    FRAME reply = FRAME_INIT;
    json_t *pins;
    enum code code = ask_make(r, &reply, e);

    if (code)
        return code;
    pins = json_object_get(reply.head, "pins");
    r->new_pins = json_is_object(pins) ? json_text(pins, JSON_COMPACT) : NULL;
    if (!r->new_pins)
        return error_set(e, ERR_KEEPER, "the keeper told no pins");
    code = store_commit(r->core->store, STORE_RESERVE, write_done, r, e);
    return code ? error_prefix(e, "nothing has changed yet: mend it and give "
                                  "the same command again")
                : OK;
}

/* Another keeper: that one may know keys of before. */
static enum code take(struct restore *r, struct error *e)
{
    struct core *c = r->core;
    enum code code;

    notary_note(c);
    markers_forget(c);
    code = unlock_afresh(c, e);
    if (!code)
        code = notary_sign(c, true, e);
    if (code)
        return error_prefix(e, "the keys are made and stored, and hsmint goes "
                               "on by itself when it can");
    log_warning("this instance goes on with keys on another HSM");
    return OK;
}

static enum code run(struct restore *r, json_t **out, struct error *e)
{
    struct error why = {0};
    enum code code = load(r->core, &r->before, e);

    if (!code)
        code = pins_get(r->core, &r->pins, e);
    if (code == ERR_NOT_FOUND)
        return error_set(e, code, "this state has no keys: nothing is to be "
                                  "restored; run `hsmint init`");
    if (code)
        return code;
    code = ask_plan(r, &why);
    if (code == ERR_EXISTS)
        return not_lost(r, &why, out, e);
    if (code) {
        if (e)
            *e = why;
        return code;
    }
    code = lost_look(&r->lost, !r->asked->dry_run, e);
    if (!code)
        code = make_report(r, r->asked->dry_run ? "dry-run" : "done", e);
    if (!code && !r->asked->dry_run) {
        code = begin(r, e);
        if (!code)
            code = make(r, e);
        lost_leave(&r->lost); /* others go on */
        if (!code)
            code = take(r, e);
    }
    return code ? code : answer(r->core, r->report, out, e);
}

enum code core_restore_hsm(struct core *c, const struct caller *by,
                           const struct hsm_restore_request *q, json_t **out,
                           struct error *e)
{
    CLEANUP(restore_clear) struct restore r = {
        .core = c,
        .by = by,
        .asked = q,
        .lost = {.core = c, .by = by, .keeps_hmac = q->hmac_fd >= 0}};
    INFLIGHT hold = {0};
    enum code code = OK;

    if (!q->dry_run && !*q->reason)
        code = error_set(e, ERR_INVALID, "reason: says nothing");
    if (!code)
        code = inflight_enter(&c->inflight, KEYSTEP_HOLD, NULL, NULL, NULL, &hold, e);
    return code ? code : run(&r, out, e);
}

/* ---- what others ask ---- */

bool hsmrestore_waits(struct core *c, const char *org, char *text, size_t size)
{
    JSON document = NULL;
    const json_t *orgs;
    bool is = false;

    if (load(c, &document, NULL) != OK || !document)
        return false;
    orgs = json_object_get(json_object_get(json_object_get(document, "report"),
                                           "lost"),
                           "organisations");
    for (size_t i = 0; !is && i < json_array_size(orgs); i++)
        is = strcmp(text_of(json_array_get(orgs, i), "org"), org) == 0;
    if (is)
        snprintf(text, size,
                 "its admin key was lost with the HSM: make another one at the "
                 "service, and `hsmint config set --org %s admin_api_key=-`",
                 org);
    return is;
}

enum code hsmrestore_is_new(struct core *c, bool *is, struct error *e)
{
    FREE void *text = NULL;
    size_t len = 0;
    enum code code = store_meta_get(c->store, META_LOG, &text, &len, e);

    *is = !code && len > 0;
    if (code != ERR_NOT_FOUND)
        return code;
    error_clear(e);
    return OK;
}

static enum code forget_log(struct store_tx *tx, void *ctx, struct error *e)
{
    (void)ctx;
    return store_meta_put(tx, META_LOG, "", 0, e);
}

enum code hsmrestore_begun(struct core *c, struct error *e)
{
    return store_commit(c->store, STORE_RESERVE, forget_log, NULL, e);
}
