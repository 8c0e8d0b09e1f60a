/* The verb restore-keys: an instance whose HSM is gone gets keys on this one. */
#include "config.h"

#include "hsm/keeper.h"

#include "hsm/anchor.h"
#include "hsm/escrow.h"
#include "hsm/marker.h"

#include <stdlib.h>
#include <string.h>

#define KEY_MS 5000
#define NAMES_MAX 1024

/* ---- a given HMAC key ---- */

struct given {
    const char *check; /* of its escrow; NULL: none was kept */
    json_t *names;     /* of accounts that bear its marker; or NULL */
    const char *instance;
    struct secret *key; /* NULL: none was given */
};

static enum code is_another(struct error *e)
{
    return error_set(e, ERR_INVALID,
                     "hmac_key: this is another key than the one that this "
                     "instance had. Is it of this instance, and of its last "
                     "`hsmint hsm recovery`? Without hmac_key a new one is "
                     "made, and `--dry-run` says what that costs");
}

static enum code check_by_names(const struct given *g, struct error *e)
{
    size_t n = json_array_size(g->names);
    bool fits = false;
    enum code rc = OK;
    for (size_t i = 0; !rc && !fits && i < n && i < NAMES_MAX; i++) {
        const char *name = json_string_value(json_array_get(g->names, i));
        rc = marker_fits(g->key, name ? name : "", &fits, e);
    }
    if (rc || fits)
        return rc;
    if (n > 0)
        return is_another(e);
    return error_set(e, ERR_INVALID,
                     "hmac_key: there is nothing to check it by, neither an "
                     "escrow nor an account: so nothing was hashed with it. "
                     "Go on without it");
}

static enum code check_given(const struct given *g, struct error *e)
{
    char hex[65];
    if (!g->check)
        return check_by_names(g, e);
    enum code rc = escrow_check(g->key, g->instance, hex, e);
    return rc                            ? rc
           : strcmp(hex, g->check) == 0 ? OK
                                        : is_another(e);
}

static enum code read_given(struct given *g, int fd, struct error *e)
{
    SECRET hex = NULL;
    if (fd < 0)
        return OK;
    enum code rc = secret_from_fd(&hex, fd, ESCROW_HEX + 2, KEY_MS, true, e);
    if (rc)
        return error_prefix(e, "hmac_key");
    secret_chomp(hex);
    rc = escrow_open(hex, &g->key, e);
    return rc ? rc : check_given(g, e);
}

/* ---- a token that others use ---- */

static enum code refuse_pins(const uint8_t *data, size_t len, void *ctx,
                             struct error *e)
{
    const char *mine = ctx;
    JSON pins = NULL;
    const char *theirs = NULL;
    if (json_parse((const char *)data, len, "pins on the HSM", &pins, NULL) ==
        OK)
        theirs = json_string_value(json_object_get(pins, "instance"));
    return error_set(e, ERR_HSM_KEYS,
                     theirs && strcmp(theirs, mine) == 0
                         ? "HSM: this token was this instance's: it is one "
                           "that was given up, or this state is older than "
                           "it. Use another token"
                         : "HSM: this token is another instance's "
                           "(hsmint-pins): use another one");
}

static enum code refuse_anchor(const uint8_t *data, size_t len, void *ctx,
                               struct error *e)
{
    (void)data;
    (void)len;
    (void)ctx;
    return error_set(e, ERR_HSM_KEYS,
                     "HSM: this token has the anchor of a log (" ANCHOR_LABEL
                     "): use another one, or delete it if nobody needs it");
}

static enum code refuse_used(struct hsm *h, const json_t *pins, struct error *e)
{
    const char *instance =
        json_string_value(json_object_get(pins, "instance"));
    static const char label[] = "hsmint-pins";
    enum code rc = hsm_data_get(h, label, refuse_pins,
                                (void *)(uintptr_t)(instance ? instance : ""),
                                e);
    return rc ? rc : hsm_data_get(h, ANCHOR_LABEL, refuse_anchor, NULL, e);
}

/* ---- the verb ---- */

static enum code plan(struct hsm *h, const json_t *pins, const json_t *before,
                      struct frame *out, struct error *e)
{
    JSON keys = NULL;
    /* First: whose keys they are says more than whose data. */
    enum code rc = hsm_restore_plan(h, pins, before, &keys, e);
    if (!rc)
        rc = refuse_used(h, pins, e);
    if (rc)
        return rc;
    out->head = json_pack("{sO}", "keys", keys);
    return out->head ? OK : error_set(e, ERR_NOMEM, "no memory for a reply");
}

enum code restore_keys(struct channel *c, struct frame *in, struct frame *out,
                       struct error *e)
{
    const char *step = NULL;
    json_t *pins = NULL, *keys = NULL;
    struct given g = {.check = NULL};
    const struct json_field fields[] = {
        {"step", FIELD_STRING, true, &step, NULL},
        {"pins", FIELD_OBJECT, true, &pins, NULL},
        {"keys", FIELD_ARRAY, false, &keys, NULL},
        {"check", FIELD_STRING, false, &g.check, NULL},
        {"names", FIELD_ARRAY, false, &g.names, NULL},
    };
    struct hsm *h = c->keeper->hsm;
    enum code rc =
        json_decode(in->head, JSON_FIELDS(fields), false, "restore-keys", e);
    if (rc)
        return rc;
    if (strcmp(step, "plan") == 0 && in->fd < 0)
        return plan(h, pins, keys, out, e);
    if (strcmp(step, "make") != 0 || !keys)
        return error_set(e, ERR_INVALID,
                         "restore-keys: \"plan\", or \"make\" with its keys");
    g.instance = json_string_value(json_object_get(pins, "instance"));
    g.instance = g.instance ? g.instance : "";
    if (!(rc = read_given(&g, in->fd, e)) && !(rc = refuse_used(h, pins, e)))
        rc = hsm_restore_make(h, pins, keys, g.key, &out->head, e);
    secret_free(g.key);
    secret_clear_registers();
    return rc;
}
