/* The keys of an instance whose HSM is gone, made again on another: hsm_restore_*
 * of hsm.h. spec/SEAL.md, "Another HSM". */
#include "config.h"

#include "common/text.h"
#include "hsm/object.h"
#include "hsm/state.h"

#include <stdlib.h>
#include <string.h>

struct restore {
    struct keyset *lost;
    json_t *keys;       /* the plan */
    bool make;          /* else it is being planned */
    const struct secret *hmac; /* NULL: a new one */
    struct keyset *set; /* what is made */
};

/* ---- what has to be gone ---- */

/* Is an object of this name and id there? */
static enum code look_for(struct session *s, const struct key *k, bool *there,
                          struct error *e)
{
    CK_OBJECT_HANDLE found[OBJECTS_MAX];
    CK_ATTRIBUTE match[] = {ATTR_TEXT(CKA_LABEL, k->label),
                            {CKA_ID, (void *)(uintptr_t)k->id, KEY_ID}};
    size_t n = 0;
    enum code rc = object_find(s, k->label, match, 2, found, &n, e);
    *there = n > 0;
    return rc;
}

static enum code refuse_known(struct session *s, const struct keyset *lost,
                              struct error *e)
{
    bool there = false;
    enum code rc = OK;
    for (int use = 0; !rc && !there && use < HSM_USES; use++)
        if (keyset_has(lost, (enum hsm_use)use))
            rc = look_for(s, &lost->keys[use], &there, e);
    if (!rc && there)
        return error_set(e, ERR_EXISTS,
                         "HSM: keys of this state are on this token: it is not "
                         "lost. Where one of them is missing, restore it from "
                         "the HSM's backup; `hsmint doctor` says what is wrong");
    for (size_t i = 0; !rc && !there && i < lost->old_n; i++)
        rc = look_for(s, &lost->old[i].key, &there, e);
    if (!rc && there)
        return error_set(e, ERR_HSM_KEYS,
                         "HSM: this token has keys that this state had before: "
                         "it is the HSM that was given up, or this state is "
                         "older than it. Use a token without keys of hsmint");
    return rc;
}

static bool is_planned(const struct restore *r, const struct key *k)
{
    struct key planned;
    for (size_t i = 0; i < json_array_size(r->keys); i++)
        if (keys_planned(json_array_get(r->keys, i), &planned, NULL) == OK &&
            strcmp(planned.label, k->label) == 0)
            return true;
    return false;
}

static uint32_t next_version(const struct keyset *lost, enum hsm_use use)
{
    uint32_t version = lost->keys[use].version ? lost->keys[use].version : 1;
    for (size_t i = 0; i < lost->old_n; i++)
        if (lost->old[i].key.use == use && lost->old[i].key.version > version)
            version = lost->old[i].key.version;
    return version + 1;
}

/* Another instance's: two would not know each other's objects apart. What an
 * attempt that was cut off left is keys_clear_left()'s to judge. */
static enum code refuse_others(struct session *s, const struct restore *r,
                               enum hsm_use use, struct error *e)
{
    uint32_t last = next_version(r->lost, use);
    for (uint32_t version = 1; version <= last; version++) {
        struct key k = {.use = use, .version = version};
        size_t n = 0;
        keys_label(use, version, k.label);
        if (is_planned(r, &k))
            continue;
        enum code rc = keys_count(s, k.label, &n, e);
        if (rc)
            return rc;
        if (n > 0)
            return error_set(e, ERR_HSM_KEYS,
                             "HSM: %s is on this token, and is none of this "
                             "state's: it belongs to another instance. Use "
                             "another token, or delete it if nobody needs it "
                             "(pkcs11-tool --delete-object)",
                             k.label);
    }
    return OK;
}

static enum code check_token(struct session *s, const struct restore *r,
                             struct error *e)
{
    enum code rc = refuse_known(s, r->lost, e);
    for (int use = 0; !rc && use < HSM_USES; use++)
        rc = refuse_others(s, r, (enum hsm_use)use, e);
    return rc;
}

/* ---- plan ---- */

static enum code plan_one(const struct keyset *lost, enum hsm_use use,
                          json_t *keys, struct error *e)
{
    char hex[2 * KEY_ID + 1];
    uint8_t id[KEY_ID];
    uint32_t version = next_version(lost, use);
    enum code rc = text_random(id, sizeof id, e);
    if (!rc && version > KEY_VERSION_MAX)
        rc = error_set(e, ERR_LIMIT, "HSM: no version is left for another %s "
                                     "key",
                       keys_use_name(use));
    if (rc)
        return rc;
    id[KEY_ID - 1] = (uint8_t)version;
    text_hex(hex, id, sizeof id);
    return json_array_append_new(
               keys, json_pack("{ss si ss}", "use", keys_use_name(use),
                               "version", (int)version, "id", hex))
               ? error_set(e, ERR_NOMEM, "HSM: a key's plan")
               : OK;
}

static enum code op_plan(struct hsm *h, struct session *s, void *arg,
                         struct error *e)
{
    struct restore *r = arg;
    (void)h;
    enum code rc = check_token(s, r, e);
    if (json_array_size(r->keys) > 0) /* as it was planned before */
        return rc;
    for (int use = 0; !rc && use < HSM_USES; use++)
        rc = plan_one(r->lost, (enum hsm_use)use, r->keys, e);
    return rc;
}

/* ---- make ---- */

static enum code parse_plan(const struct restore *r,
                            struct key planned[HSM_USES], struct error *e)
{
    enum code rc = OK;
    if (json_array_size(r->keys) != HSM_USES)
        return error_set(e, ERR_INVALID, "HSM: a plan has %d keys", HSM_USES);
    for (size_t use = 0; !rc && use < HSM_USES; use++) {
        rc = keys_planned(json_array_get(r->keys, use), &planned[use], e);
        if (!rc && (planned[use].use != (enum hsm_use)use ||
                    planned[use].version !=
                        next_version(r->lost, (enum hsm_use)use)))
            rc = error_set(e, ERR_INVALID,
                           "HSM: %s is not the next key of this instance",
                           planned[use].label);
    }
    return rc;
}

static enum code op_make(struct hsm *h, struct session *s, void *arg,
                         struct error *e)
{
    struct restore *r = arg;
    struct key planned[HSM_USES];
    enum code rc = parse_plan(r, planned, e);
    if (!rc)
        rc = check_token(s, r, e);
    for (int use = 0; !rc && use < HSM_USES; use++)
        rc = keys_clear_left(s, &planned[use], e);
    return rc ? rc
              : keys_make_planned(s, h->mechanisms, h->mechanisms_count,
                                  r->lost->instance, planned, r->hmac, &r->set,
                                  e);
}

/* All that was is gone; their public halves verify what they signed. */
static void bury(struct restore *r)
{
    struct keyset *lost = r->lost, *set = r->set;
    struct old_key all[KEYS_OLD_MAX + HSM_USES];
    size_t n = 0, first;
    for (size_t i = 0; i < lost->old_n; i++)
        all[n++] = (struct old_key){OLD_DESTROYED, lost->old[i].key};
    for (int use = 0; use < HSM_USES; use++)
        if (keyset_has(lost, (enum hsm_use)use))
            all[n++] = (struct old_key){OLD_DESTROYED, lost->keys[use]};
    /* The log's own records have the public keys of those that go. */
    first = n > KEYS_OLD_MAX ? n - KEYS_OLD_MAX : 0;
    for (size_t i = 0; i < first; i++)
        key_clear(&all[i].key);
    memcpy(set->old, all + first, (n - first) * sizeof set->old[0]);
    set->old_n = n - first;
    lost->old_n = 0; /* the keys are the new set's */
    memset(lost->keys, 0, sizeof lost->keys);
}

/* ---- called ---- */

static enum code run(struct hsm *h, struct restore *r, const json_t *pins,
                     struct error *e)
{
    enum code rc = keyset_parse(pins, &r->lost, e);
    return rc ? rc
              : hsm_run_exclusive(h, NEED_LOGIN, r->make ? op_make : op_plan, r,
                                  e);
}

static void restore_clear(struct restore *r)
{
    keyset_free(r->lost);
    keyset_free(r->set);
    json_decref(r->keys);
}

enum code hsm_restore_plan(struct hsm *h, const json_t *pins,
                           const json_t *before, json_t **keys,
                           struct error *e)
{
    CLEANUP(restore_clear) struct restore r = {
        .keys = before ? json_deep_copy(before) : json_array()};
    enum code rc = r.keys ? run(h, &r, pins, e)
                          : error_set(e, ERR_NOMEM, "HSM: a plan of keys");
    if (!rc)
        *keys = json_incref(r.keys);
    return rc;
}

enum code hsm_restore_make(struct hsm *h, const json_t *pins, json_t *plan,
                           const struct secret *hmac, json_t **out,
                           struct error *e)
{
    CLEANUP(restore_clear) struct restore r = {
        .keys = json_incref(plan), .make = true, .hmac = hmac};
    enum code rc = run(h, &r, pins, e);
    if (rc)
        return rc;
    bury(&r);
    return keyset_json(r.set, out, e);
}
