/* recovery - see recovery.h. */
#include "config.h"

#include "module/core/recovery.h"

#include "common/base64.h"
#include "common/clock.h"
#include "common/file.h"
#include "common/log.h"
#include "module/core/internal.h"
#include "module/core/logbook.h"

#include <string.h>

#define META_RECOVERY "hsm.recovery" /* {recovery_key, check, sealed, made_ms} */
#define META_BEFORE "hsm.recovery.before"

struct kept {
    json_t *json; /* borrowed below */
    const char *recovery_key, *check, *sealed;
    json_int_t made_ms;
};

static void kept_clear(struct kept *k)
{
    json_decref(k->json);
}
#define KEPT CLEANUP(kept_clear) struct kept

/* ERR_NOT_FOUND: none is. */
static enum code read_kept(struct core *c, struct kept *k, struct error *e)
{
    FREE void *text = NULL;
    size_t len = 0;
    const struct json_field fields[] = {
        {"recovery_key", FIELD_STRING, true, &k->recovery_key, NULL},
        {"check", FIELD_STRING, true, &k->check, NULL},
        {"sealed", FIELD_STRING, true, &k->sealed, NULL},
        {"made_ms", FIELD_INT, true, &k->made_ms, NULL},
    };
    enum code code = store_meta_get(c->store, META_RECOVERY, &text, &len, e);

    if (code || len == 0)
        return code ? code : error_set(e, ERR_NOT_FOUND, "nothing is kept");
    code = json_parse(text, len, META_RECOVERY, &k->json, e);
    return code ? code
                : json_decode(k->json, JSON_FIELDS(fields), true, META_RECOVERY,
                              e);
}

enum code recovery_check(struct core *c, char check[RECOVERY_CHECK + 1],
                         struct error *e)
{
    KEPT k = {.check = ""};
    enum code code = read_kept(c, &k, e);

    *check = '\0';
    if (code == ERR_NOT_FOUND) {
        error_clear(e);
        return OK;
    }
    if (!code && strlen(k.check) <= RECOVERY_CHECK)
        snprintf(check, RECOVERY_CHECK + 1, "%s", k.check);
    return code;
}

enum code recovery_lost(struct store_tx *tx, struct error *e)
{
    FREE void *text = NULL;
    size_t len = 0;
    enum code code = store_tx_meta_get(tx, META_RECOVERY, &text, &len, e);

    if (code == ERR_NOT_FOUND || (!code && len == 0)) {
        error_clear(e);
        return OK;
    }
    if (!code)
        code = store_meta_put(tx, META_BEFORE, text, len, e);
    return code ? code : store_meta_put(tx, META_RECOVERY, "", 0, e);
}

/* ---- keeping ---- */

struct change {
    struct core *core;
    const char *text, *key;
};

static enum code write_change(struct store_tx *tx, void *ctx, struct error *e)
{
    const struct change *x = ctx;
    const struct logbook_entry r = {
        .kind = RECORD_ESCROW,
        .more = json_pack("{ss}", "recovery_key", x->key)};
    enum code code =
        store_meta_put(tx, META_RECOVERY, x->text, strlen(x->text), e);

    if (code)
        json_decref(r.more);
    return code ? code : logbook_add(x->core, tx, &r, e);
}

static enum code keep(struct core *c, const struct frame *reply,
                      struct error *e)
{
    KEPT now = {.check = ""};
    const char *key = "", *check = "";
    const struct json_field fields[] = {
        {"recovery_key", FIELD_STRING, true, &key, NULL},
        {"check", FIELD_STRING, true, &check, NULL},
    };
    enum code code = json_decode(reply->head, JSON_FIELDS(fields), true,
                                 "the keeper's escrow", e);

    if (code || reply->body_len == 0)
        return code ? code
                    : error_set(e, ERR_KEEPER, "the keeper gave no escrow");
    if (read_kept(c, &now, NULL) == OK && strcmp(now.recovery_key, key) == 0 &&
        strcmp(now.check, check) == 0)
        return OK;
    FREE char *sealed = base64_encode(reply->body, reply->body_len);
    JSON j = json_pack("{ss ss ss sI}", "recovery_key", key, "check", check,
                       "sealed", sealed, "made_ms",
                       (json_int_t)clock_wall_ms());
    FREE char *text = json_text(j, JSON_COMPACT);
    struct change x = {c, text, key};

    if (!text)
        return error_set(e, ERR_NOMEM, "no memory for the HMAC key's escrow");
    code = store_commit(c->store, STORE_NORMAL, write_change, &x, e);
    if (!code)
        log_info("the HMAC key is kept for recovery key %.16s", key);
    return code;
}

void recovery_keep(struct core *c, uint64_t generation)
{
    FRAME request = FRAME_INIT;
    FRAME reply = FRAME_INIT;
    struct error why = {0};
    enum code code;

    if (!c->settings->recovery_key)
        return;
    request.verb = VERB_ESCROW;
    code = keeper_call(c->keeper, generation, &request,
                       (int)c->settings->hsm_deadline_ms, &reply, NULL, &why);
    if (!code)
        code = keep(c, &reply, &why);
    if (code)
        warnings_raise(&c->warnings, ALARM_RECOVERY_KEY, "hsm", "%s", why.text);
    else
        warnings_drop(&c->warnings, ALARM_RECOVERY_KEY, "hsm");
}

/* ---- asked ---- */

enum code core_recovery(struct core *c, json_t **out, struct error *e)
{
    KEPT k = {.check = ""};
    char at[CLOCK_TEXT_MAX];
    enum code code = read_kept(c, &k, e);

    if (code == ERR_NOT_FOUND)
        return error_set(e, code,
                         "no HMAC key is kept: write [hsm] recovery_key = FILE "
                         "(a public RSA key in PEM) into hsmint.conf and "
                         "restart hsmintd");
    if (code)
        return code;
    *out = json_pack("{ss ss ss}", "recovery_key", k.recovery_key, "sealed",
                     k.sealed, "made", clock_text(k.made_ms, at));
    return *out ? OK : error_set(e, ERR_NOMEM, "no memory for a reply");
}
