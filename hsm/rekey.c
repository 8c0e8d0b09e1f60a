/* Another generation of the keys, and the end of an old one: hsm_rekey_* of
 * hsm.h. spec/SEAL.md, "Rotation". */
#include "config.h"

#include "common/log.h"
#include "common/text.h"
#include "hsm/envelope.h"
#include "hsm/object.h"
#include "hsm/state.h"
#include "hsm/witness.h"

#include <stdlib.h>
#include <string.h>

static const struct {
    const char *name;
    enum hsm_use uses[2];
    size_t n;
    enum old_role role; /* of the keys of before */
} kinds[] = {
    {"call", {HSM_CALL}, 1, OLD_KEPT},
    {"log", {HSM_LOG, HSM_LOG_ED25519}, 2, OLD_SIGNS},
    {"seal", {HSM_SEAL, HSM_BLOB}, 2, OLD_OPENS},
};
#define KINDS (sizeof kinds / sizeof kinds[0])

static enum code find_kind(const char *name, size_t *kind, struct error *e)
{
    for (*kind = 0; *kind < KINDS; (*kind)++)
        if (strcmp(kinds[*kind].name, name) == 0)
            return OK;
    return error_set(e, ERR_INVALID,
                     "HSM: \"%.32s\" is no key that rotates: it is seal, call "
                     "or log",
                     name);
}

/* ---- plan ---- */

struct plan {
    size_t kind;
    json_t *keys; /* [{use, version, id}] */
};

/* The first version that nothing on the token is called by: what is there
 * belongs to a newer state of this instance, or to nobody. */
static enum code plan_one(struct session *s, const struct key *now,
                          json_t *keys, struct error *e)
{
    char label[BLOB_LABEL_MAX], hex[2 * KEY_ID + 1];
    uint8_t id[KEY_ID];
    uint32_t version = now->version;
    size_t there = 1;
    enum code rc = OK;
    while (!rc && there > 0 && ++version <= KEY_VERSION_MAX) {
        keys_label(now->use, version, label);
        rc = keys_count(s, label, &there, e);
    }
    if (!rc && version > KEY_VERSION_MAX)
        rc = error_set(e, ERR_LIMIT, "HSM: no version is left for another %s "
                                     "key",
                       keys_use_name(now->use));
    if (!rc)
        rc = text_random(id, sizeof id, e);
    if (rc)
        return rc;
    id[KEY_ID - 1] = (uint8_t)version;
    text_hex(hex, id, sizeof id);
    return json_array_append_new(
               keys, json_pack("{ss si ss}", "use", keys_use_name(now->use),
                               "version", (int)version, "id", hex))
               ? error_set(e, ERR_NOMEM, "HSM: a key's plan")
               : OK;
}

static enum code op_plan(struct hsm *h, struct session *s, void *arg,
                         struct error *e)
{
    struct plan *p = arg;
    enum code rc = OK;
    json_array_clear(p->keys); /* of a try that was cut off */
    for (size_t i = 0; !rc && i < kinds[p->kind].n; i++) {
        enum hsm_use use = kinds[p->kind].uses[i];
        if (keyset_has(h->ring.set, use))
            rc = plan_one(s, &h->ring.set->keys[use], p->keys, e);
    }
    return rc;
}

enum code hsm_rekey_plan(struct hsm *h, const char *which, json_t **keys,
                         struct error *e)
{
    JSON list = json_array();
    struct plan p = {.keys = list};
    enum code rc = find_kind(which, &p.kind, e);
    if (!rc && !list)
        rc = error_set(e, ERR_NOMEM, "HSM: a key's plan");
    if (!rc)
        rc = hsm_run(h, NEED_READY, true, op_plan, &p, e);
    if (rc)
        return rc;
    *keys = list;
    list = NULL;
    return OK;
}

/* ---- make ---- */

struct make {
    size_t kind;
    const json_t *plan;
    bool compromised;   /* the keys that are replaced */
    struct keyset *set; /* what is made */
    bool are_files;
};

enum code keys_planned(const json_t *one, struct key *k, struct error *e)
{
    const char *use = "", *id = "";
    json_int_t version = 0;
    size_t len = 0;
    const struct json_field fields[] = {
        {"use", FIELD_STRING, true, &use, NULL},
        {"version", FIELD_INT, true, &version, NULL},
        {"id", FIELD_STRING, true, &id, NULL},
    };
    *k = (struct key){.label = ""};
    enum code rc = json_decode((json_t *)(uintptr_t)one, JSON_FIELDS(fields),
                               false, "a planned key", e);
    if (!rc)
        rc = text_unhex(k->id, KEY_ID, &len, id, e);
    if (!rc && (len != KEY_ID || version < 2 || version > KEY_VERSION_MAX ||
                k->id[KEY_ID - 1] != version || !keys_find_use(use, &k->use)))
        rc = error_set(e, ERR_INVALID, "HSM: a planned key is none");
    if (rc)
        return rc;
    k->version = (uint32_t)version;
    keys_label(k->use, k->version, k->label);
    return OK;
}

/* What an attempt left has the planned id. Anything else by this name is not
 * ours to destroy. */
static enum code clear_left(struct session *s, const struct key *k,
                            size_t *others, struct error *e)
{
    CK_OBJECT_HANDLE found[OBJECTS_MAX];
    CK_ATTRIBUTE match[] = {ATTR_TEXT(CKA_LABEL, k->label)};
    size_t n = 0, ours = 0;
    enum code rc = object_find(s, k->label, match, 1, found, &n, e);
    for (size_t i = 0; !rc && i < n; i++) {
        rc = keys_check_id(s, k, found[i], e);
        if (!rc)
            rc = object_destroy(s, k->label, found[i], e);
        if (!rc)
            ours++;
        else if (rc == ERR_HSM_KEYS)
            rc = OK;
    }
    *others = n - ours;
    if (!rc && ours > 0)
        log_info("HSM: %s was left by a rotation that was cut off: destroyed",
                 k->label);
    return rc;
}

enum code keys_clear_left(struct session *s, const struct key *k,
                          struct error *e)
{
    size_t others = 0;
    enum code rc = clear_left(s, k, &others, e);
    if (rc || others == 0)
        return rc;
    return error_set(e, ERR_HSM_KEYS,
                     "HSM: somebody has put an object that is called %s on the "
                     "token: find out who, and delete it",
                     k->label);
}

static bool belongs(size_t kind, enum hsm_use use)
{
    for (size_t i = 0; i < kinds[kind].n; i++)
        if (kinds[kind].uses[i] == use)
            return true;
    return false;
}

static enum code make_one(struct session *s, struct make *m,
                          struct keyring *ring, const json_t *planned,
                          struct error *e)
{
    struct key next CLEANUP(key_clear) = {.label = ""};
    struct keyset *set = m->set;
    enum code rc = keys_planned(planned, &next, e);
    enum hsm_use use = next.use;
    if (!rc && (!belongs(m->kind, use) ||
                next.version <= set->keys[use].version))
        rc = error_set(e, ERR_INVALID, "HSM: %s is not the next key of %s",
                       next.label, kinds[m->kind].name);
    if (!rc)
        rc = keys_clear_left(s, &next, e);
    if (!rc)
        rc = keys_make_one(s, set->mechanism, &next, &ring->handles[use], e);
    if (rc)
        return rc;
    for (size_t i = 0; i < set->old_n; i++) /* it has handed over before */
        if (set->old[i].role == OLD_SIGNS && set->old[i].key.use == use)
            set->old[i].role = OLD_KEPT;
    enum old_role role = kinds[m->kind].role;
    if (m->compromised && role == OLD_SIGNS)
        role = OLD_KEPT;
    return keyset_replace(set, &next, role, e);
}

/* The HMAC key goes over; who has the old handles is the old ring. */
static enum code seal_anew(struct session *s, struct hsm *h,
                           struct keyring *ring, struct error *e)
{
    const struct keyset *now = h->ring.set;
    struct keyset *next = (struct keyset *)(uintptr_t)ring->set;
    struct seal_key key = keyring_seal_key(ring);
    struct blob b;
    SECRET hmac = NULL;
    SECRET again = NULL;
    enum code rc = seal_self_test(s, &key, e);
    if (!rc)
        rc = envelope_verify(now, now->hmac, now->hmac_len, &b, e);
    if (!rc)
        rc = envelope_open(s, &h->ring, now->hmac, &b, &hmac, e);
    if (!rc)
        rc = keys_make_blobs(s, next, ring, hmac, e);
    if (!rc)
        rc = envelope_verify(next, next->hmac, next->hmac_len, &b, e);
    if (!rc)
        rc = envelope_open(s, ring, next->hmac, &b, &again, e);
    if (!rc && !secret_equal(hmac, again))
        rc = error_set(e, ERR_HSM_FAILED,
                       "HSM: the HMAC key does not open as it was sealed");
    return rc;
}

static enum code make_all(struct hsm *h, struct session *s, struct make *m,
                          struct keyring *ring, struct error *e)
{
    size_t n = json_array_size(m->plan);
    enum code rc = OK;
    for (size_t i = 0; !rc && i < n; i++)
        rc = make_one(s, m, ring, json_array_get(m->plan, i), e);
    for (size_t i = 0; !rc && i < kinds[m->kind].n; i++) {
        enum hsm_use use = kinds[m->kind].uses[i];
        if (keyset_has(h->ring.set, use) &&
            m->set->keys[use].version == h->ring.set->keys[use].version)
            rc = error_set(e, ERR_INVALID, "HSM: no %s key is planned",
                           keys_use_name(use));
    }
    if (!rc && belongs(m->kind, HSM_SEAL))
        rc = seal_anew(s, h, ring, e);
    return rc ? rc : keys_check(s, ring, e);
}

static enum code op_make(struct hsm *h, struct session *s, void *arg,
                         struct error *e)
{
    struct make *m = arg;
    enum code rc = keyset_dup(h->ring.set, &m->set, e);
    if (rc)
        return rc;
    struct keyring ring = h->ring;
    ring.set = m->set;
    rc = make_all(h, s, m, &ring, e);
    m->are_files = keys_are_files(s);
    if (!rc)
        witness_made(h, h->ring.set, m->set);
    return rc;
}

enum code hsm_rekey_make(struct hsm *h, const char *which, const json_t *plan,
                         bool compromised, json_t **out, struct error *e)
{
    struct make m = {.plan = plan, .compromised = compromised};
    enum code rc = find_kind(which, &m.kind, e);
    if (!rc)
        rc = hsm_run_exclusive(h, NEED_READY, op_make, &m, e);
    struct keyset *made CLEANUP(keyset_freep) = m.set;
    if (rc)
        return rc;
    keys_settle(m.are_files);
    return keyset_json(made, out, e);
}

/* ---- clear ---- */

static bool is_pinned(const struct keyset *k, const char *label)
{
    for (int use = 0; use < HSM_USES; use++)
        if (strcmp(k->keys[use].label, label) == 0)
            return true;
    for (size_t i = 0; i < k->old_n; i++)
        if (k->old[i].role != OLD_DESTROYED &&
            strcmp(k->old[i].key.label, label) == 0)
            return true;
    return false;
}

struct clear {
    const json_t *plan;
    bool are_files;
};

static enum code op_clear(struct hsm *h, struct session *s, void *arg,
                          struct error *e)
{
    struct clear *c = arg;
    enum code rc = OK;
    c->are_files = keys_are_files(s);
    for (size_t i = 0; !rc && i < json_array_size(c->plan); i++) {
        struct key k;
        size_t others;
        rc = keys_planned(json_array_get(c->plan, i), &k, e);
        if (!rc && is_pinned(h->ring.set, k.label))
            rc = error_set(e, ERR_INVALID,
                           "HSM: %s is pinned: it does not go with a rotation",
                           k.label);
        if (!rc)
            rc = clear_left(s, &k, &others, e);
    }
    return rc;
}

#define CLEAR_TRIES 2 /* a session may be in the middle of what was cut off */

enum code hsm_rekey_clear(struct hsm *h, const json_t *plan, struct error *e)
{
    struct clear c = {.plan = plan};
    enum code rc = ERR_HSM_FAILED;
    for (int i = 0; i < CLEAR_TRIES && rc == ERR_HSM_FAILED; i++)
        rc = hsm_run_exclusive(h, NEED_READY, op_clear, &c, e);
    if (!rc)
        keys_settle(c.are_files);
    return rc;
}

/* ---- destroy ---- */

struct destroy {
    const char *label;
    struct keyset *set; /* without it */
    bool are_files;
};

static enum code find_old(const struct keyset *k, const char *label, size_t *i,
                          struct error *e)
{
    for (int use = 0; use < HSM_USES; use++)
        if (strcmp(k->keys[use].label, label) == 0)
            return error_set(e, ERR_INVALID,
                             "HSM: key %s is in use: `hsmint hsm rotate` puts "
                             "another in its place",
                             label);
    for (*i = 0; *i < k->old_n; (*i)++)
        if (strcmp(k->old[*i].key.label, label) == 0)
            return OK;
    return error_set(e, ERR_NOT_FOUND,
                     "HSM: no key of before is called \"%.63s\"", label);
}

/* In this process: then nobody has seen yet that a start works without it. */
static bool was_in_use(const struct keyset *k, const struct key *old)
{
    for (k = k->before; k; k = k->before)
        if (strcmp(k->keys[old->use].label, old->label) == 0)
            return true;
    return false;
}

static enum code may_go(const struct hsm *h, const struct keyset *k,
                        const struct old_key *old, struct error *e)
{
    if (old->role == OLD_OPENS && atomic_load(&h->opened_old))
        return error_set(e, ERR_INVALID,
                         "HSM: what a key of before had sealed was opened since "
                         "the last start: restart hsmintd first, so that all is "
                         "seen to work without key %s",
                         old->key.label);
    if (was_in_use(k, &old->key))
        return error_set(e, ERR_INVALID,
                         "HSM: key %s was in use since the last start: restart "
                         "hsmintd first, so that the new one is seen to work",
                         old->key.label);
    return OK;
}

static enum code op_destroy(struct hsm *h, struct session *s, void *arg,
                            struct error *e)
{
    struct destroy *d = arg;
    const struct keyset *now = h->ring.set;
    CK_OBJECT_HANDLE found[OBJECTS_MAX];
    CK_ATTRIBUTE match[] = {ATTR_TEXT(CKA_LABEL, d->label)};
    size_t at = 0, n = 0;
    enum code rc = find_old(now, d->label, &at, e);
    if (!rc)
        rc = may_go(h, now, &now->old[at], e);
    if (!rc)
        rc = object_find(s, d->label, match, 1, found, &n, e);
    for (size_t i = 0; !rc && i < n; i++)
        rc = keys_check_id(s, &now->old[at].key, found[i], e);
    if (!rc)
        rc = keyset_dup(now, &d->set, e);
    for (size_t i = 0; !rc && i < n; i++)
        rc = object_destroy(s, d->label, found[i], e);
    if (rc)
        return rc;
    d->are_files = keys_are_files(s);
    d->set->old[at].role = OLD_DESTROYED;
    return OK;
}

enum code hsm_destroy(struct hsm *h, const char *label, json_t **out,
                      struct error *e)
{
    struct destroy d = {.label = label};
    enum code rc = hsm_run_exclusive(h, NEED_READY, op_destroy, &d, e);
    struct keyset *left CLEANUP(keyset_freep) = d.set;
    if (rc)
        return rc;
    keys_settle(d.are_files);
    return keyset_json(left, out, e);
}
