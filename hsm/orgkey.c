/* orgkey - see orgkey.h; and the verbs seal-key, bind-key, use-key, drop-key.
 */
#include "config.h"

#include "hsm/orgkey.h"

#include "common/file.h"
#include "common/log.h"
#include "common/text.h"
#include "hsm/endpoint.h"
#include "hsm/http.h"
#include "hsm/keeper.h"

#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define KEY_MS 5000
#define KEY_MAX 4096
#define LABEL_MAX (SEAL_TEXT_MAX + 32)

struct entry { /* one organisation */
    struct entry *next;
    struct orgkey *current, *candidate;
    char org[];
};

struct orgkeys {
    pthread_mutex_t lock;
    struct entry *first;
};

/* ---- counted blobs ---- */

void orgkey_unref(struct orgkey *k)
{
    if (k && atomic_fetch_sub(&k->references, 1) == 1)
        free(k);
}

void orgkey_unrefp(struct orgkey **k)
{
    orgkey_unref(*k);
}

static enum code orgkey_new(struct orgkey **out, const struct seal_subject *s,
                            const uint8_t *blob, size_t len, struct error *e)
{
    struct orgkey *k = malloc(sizeof(*k) + len);
    if (!k)
        return error_set(e, ERR_NOMEM, "no memory for an admin key");
    atomic_init(&k->references, 1);
    atomic_init(&k->dropped, false);
    k->subject = *s;
    k->len = len;
    memcpy(k->blob, blob, len);
    *out = k;
    return OK;
}

/* ---- the table ---- */

enum code orgkeys_new(struct orgkeys **out, struct error *e)
{
    struct orgkeys *t = calloc(1, sizeof(*t));
    if (!t)
        return error_set(e, ERR_NOMEM, "no memory for the admin keys");
    pthread_mutex_init(&t->lock, NULL);
    *out = t;
    return OK;
}

/* With the lock held. */
static struct entry *find(struct orgkeys *t, const char *org)
{
    struct entry *n = t->first;
    while (n && strcmp(n->org, org) != 0)
        n = n->next;
    return n;
}

static struct entry *find_or_add(struct orgkeys *t, const char *org)
{
    struct entry *n = find(t, org);
    size_t len = strlen(org) + 1;
    if (n || !(n = calloc(1, sizeof(*n) + len)))
        return n;
    memcpy(n->org, org, len);
    n->next = t->first;
    t->first = n;
    return n;
}

enum code orgkeys_get(struct orgkeys *t, const char *org, bool candidate,
                      struct orgkey **out, struct error *e)
{
    pthread_mutex_lock(&t->lock);
    struct entry *n = find(t, org);
    struct orgkey *k = n ? (candidate ? n->candidate : n->current) : NULL;
    if (k)
        atomic_fetch_add(&k->references, 1);
    pthread_mutex_unlock(&t->lock);
    *out = k;
    if (k)
        return OK;
    return error_set(
        e, ERR_NO_ADMIN_KEY,
        candidate ? "organisation %s has no new admin key to be checked"
                  : "organisation %s has no usable admin key: set one with "
                    "`hsmint config set admin_api_key=-`",
        org);
}

enum which { CURRENT, CANDIDATE };

/* `k` is taken, NULL to have none. */
static enum code put(struct orgkeys *t, const char *org, enum which which,
                     struct orgkey *k, struct error *e)
{
    struct orgkey *old = k;
    pthread_mutex_lock(&t->lock);
    struct entry *n = find_or_add(t, org);
    if (n) {
        struct orgkey **place = which == CURRENT ? &n->current : &n->candidate;
        old = *place;
        *place = k;
    }
    pthread_mutex_unlock(&t->lock);
    orgkey_unref(old);
    return n ? OK : error_set(e, ERR_NOMEM, "no memory for an admin key");
}

/* ---- what the HSM has ---- */

struct search { /* for the highest verified version of one organisation */
    struct hsm *hsm;
    const char *org;
    struct orgkey *best;
    size_t copies;    /* on the HSM */
    bool best_there;  /* the best is one of them */
    struct error why; /* of the last one that was refused */
};

/* The higher version; of one version, what the seal key in use sealed, and else
 * the one that was there first. */
static bool is_better(struct search *s, const struct seal_subject *subject,
                      const uint8_t *blob, size_t len)
{
    const struct orgkey *best = s->best;
    if (!best || subject->version != best->subject.version)
        return !best || subject->version > best->subject.version;
    return hsm_is_current(s->hsm, blob, len) &&
           !hsm_is_current(s->hsm, best->blob, best->len);
}

static enum code consider(struct search *s, const uint8_t *blob, size_t len,
                          bool there, struct error *e)
{
    struct seal_subject subject;
    enum code rc = hsm_verify(s->hsm, blob, len, &subject, &s->why);
    if (rc == ERR_SEAL)
        return OK; /* s->why tells it, where no other is found */
    if (rc) {
        if (e)
            *e = s->why;
        return rc;
    }
    if (subject.kind != SEAL_ADMIN_KEY || strcmp(subject.org, s->org) != 0) {
        error_set(&s->why, ERR_SEAL,
                  "this blob is no admin key of organisation %s, but belongs "
                  "to \"%s\"",
                  s->org, subject.org);
        return OK;
    }
    if (!subject.key_id[0]) {
        error_set(&s->why, ERR_SEAL,
                  "this admin key of organisation %s was never checked "
                  "against the service",
                  s->org);
        return OK;
    }
    if (!is_better(s, &subject, blob, len))
        return OK;
    orgkey_unref(s->best);
    s->best = NULL;
    s->best_there = there;
    return orgkey_new(&s->best, &subject, blob, len, e);
}

static enum code consider_data(const uint8_t *data, size_t len, void *ctx,
                               struct error *e)
{
    struct search *s = ctx;
    s->copies++;
    return consider(s, data, len, true, e);
}

static void label_of(const char *org, char label[LABEL_MAX])
{
    snprintf(label, LABEL_MAX, "hsmint-admin-key-%s", org);
}

static enum code search_hsm(struct search *s, struct error *e)
{
    char label[LABEL_MAX];
    label_of(s->org, label);
    enum code rc = hsm_data_get(s->hsm, label, consider_data, s, e);
    if (rc == ERR_NOT_FOUND) {
        error_clear(e);
        rc = OK;
    }
    if (s->why.code)
        log_warning("organisation %s: a blob was passed over: %s", s->org,
                    s->why.text);
    return rc;
}

enum code orgkey_next_version(struct orgkeys *t, struct hsm *h, const char *org,
                              uint32_t *version, struct error *e)
{
    struct search s = {.hsm = h, .org = org};
    ORGKEY current = NULL;
    enum code rc = search_hsm(&s, e);
    uint32_t highest = s.best ? s.best->subject.version : 0;
    orgkey_unref(s.best);
    if (rc)
        return rc;
    if (orgkeys_get(t, org, false, &current, NULL) == OK &&
        current->subject.version > highest)
        highest = current->subject.version;
    if (highest == UINT32_MAX)
        return error_set(e, ERR_LIMIT, "organisation %s: no version is left",
                         org);
    *version = highest + 1;
    return OK;
}

/* ---- seal-key ---- */

enum code orgkey_seal(struct channel *c, struct frame *in, struct frame *out,
                      struct error *e)
{
    const char *org = NULL, *endpoint = NULL, *organization = "";
    const struct json_field fields[] = {
        {"org", FIELD_STRING, true, &org, NULL},
        {"endpoint", FIELD_STRING, true, &endpoint, NULL},
        {"organization_id", FIELD_STRING, false, &organization, NULL},
    };
    struct keeper *k = c->keeper;
    struct seal_subject s = {.kind = SEAL_ADMIN_KEY};
    enum code rc =
        json_decode(in->head, JSON_FIELDS(fields), false, "seal-key", e);
    if (rc || (rc = text_check_name("organisation", org, e)) ||
        (rc = endpoint_check(k->settings, "api_endpoint", endpoint, s.endpoint,
                             e)) ||
        (rc = endpoint_listed(k->settings, "api_endpoint", s.endpoint, e)))
        return rc;
    if (*organization &&
        (rc = text_check_service_id("organization_id", organization, e)))
        return rc;
    snprintf(s.org, sizeof(s.org), "%s", org);
    snprintf(s.organization_id, sizeof(s.organization_id), "%s", organization);
    if (in->fd < 0)
        return error_set(e, ERR_INVALID, "seal-key brought no descriptor");
    SECRET key = NULL;
    rc = secret_from_fd(&key, in->fd, KEY_MAX, KEY_MS, true, e);
    if (rc)
        return error_prefix(e, "the admin key");
    secret_chomp(key);
    if (!http_bearer_valid(key))
        return error_set(e, ERR_INVALID,
                         "this is no admin key: it must be a line of visible "
                         "characters like sk-admin-…");
    if ((rc = orgkey_next_version(k->orgkeys, k->hsm, org, &s.version, e)) ||
        (rc = hsm_seal(k->hsm, &s, key, &out->body, &out->body_len, e)))
        return rc;
    struct orgkey *candidate = NULL;
    rc = orgkey_new(&candidate, &s, out->body, out->body_len, e);
    return rc ? rc : put(k->orgkeys, org, CANDIDATE, candidate, e);
}

/* ---- bind-key ---- */

/* The length of the mask at `p`: '.', '*' or "…". */
static size_t mask_length(const char *p)
{
    if (*p == '.' || *p == '*')
        return 1;
    return strncmp(p, "\xe2\x80\xa6", 3) == 0 ? 3 : 0;
}

bool orgkey_redacted_matches(const char *redacted, const uint8_t *key,
                             size_t len)
{
    const char *mask = NULL, *tail = NULL;
    for (const char *p = redacted; *p;) {
        size_t n = mask_length(p);
        if (n > 0 && !mask)
            mask = p;
        p += n ? n : 1;
        if (n > 0)
            tail = p;
    }
    if (!mask)
        return false;
    size_t head_len = (size_t)(mask - redacted), tail_len = strlen(tail);
    if (head_len > REDACTED_HEAD || tail_len < REDACTED_TAIL_MIN ||
        tail_len > REDACTED_TAIL || head_len + tail_len >= len)
        return false;
    return memcmp(redacted, key, head_len) == 0 &&
           memcmp(tail, key + len - tail_len, tail_len) == 0;
}

struct choice {
    const char *want; /* NULL: whichever matches */
    const char *id;   /* what was found, borrowed */
    size_t matches;
};

static enum code choose(struct choice *ch, json_t *candidates,
                        const struct secret *key, struct error *e)
{
    size_t i;
    json_t *item;
    json_array_foreach(candidates, i, item)
    {
        const char *id = NULL, *redacted = NULL;
        const struct json_field fields[] = {
            {"id", FIELD_STRING, true, &id, NULL},
            {"redacted", FIELD_STRING, true, &redacted, NULL},
        };
        enum code rc =
            json_decode(item, JSON_FIELDS(fields), false, "a candidate", e);
        if (rc || (rc = text_check_service_id("key id", id, e)))
            return rc;
        if (ch->want && strcmp(ch->want, id) != 0)
            continue;
        if (!orgkey_redacted_matches(redacted, secret_data(key),
                                     secret_len(key)))
            continue;
        ch->id = id;
        ch->matches++;
    }
    return OK;
}

static enum code check_choice(const struct choice *ch, const char *org,
                              size_t listed, struct error *e)
{
    if (ch->matches == 1)
        return OK;
    if (ch->matches > 1)
        return error_set(e, ERR_INVALID,
                         "%zu admin keys of organisation %s look like the one "
                         "given: say which with admin_api_key_id=",
                         ch->matches, org);
    if (ch->want)
        return error_set(e, ERR_INVALID,
                         "admin_api_key_id %s of organisation %s is another "
                         "key than the one given",
                         ch->want, org);
    return error_set(e, ERR_INVALID,
                     "none of the %zu admin keys that the service lists for "
                     "organisation %s looks like the one given",
                     listed, org);
}

enum code orgkey_bind(struct channel *c, struct frame *in, struct frame *out,
                      struct error *e)
{
    const char *org = NULL;
    json_t *candidates = NULL;
    struct choice ch = {.want = NULL};
    const struct json_field fields[] = {
        {"org", FIELD_STRING, true, &org, NULL},
        {"candidates", FIELD_ARRAY, true, &candidates, NULL},
        {"want", FIELD_STRING, false, &ch.want, NULL},
    };
    struct keeper *k = c->keeper;
    struct seal_subject s;
    SECRET key = NULL;
    enum code rc =
        json_decode(in->head, JSON_FIELDS(fields), false, "bind-key", e);
    if (rc || (rc = text_check_name("organisation", org, e)) ||
        (rc = hsm_verify(k->hsm, in->body, in->body_len, &s, e)))
        return rc;
    if (s.kind != SEAL_ADMIN_KEY || strcmp(s.org, org) != 0 || s.key_id[0])
        return error_set(e, ERR_SEAL,
                         "this blob is no candidate of organisation %s", org);
    if ((rc = endpoint_listed(k->settings, "api_endpoint", s.endpoint, e)) ||
        (rc = hsm_unseal(k->hsm, in->body, in->body_len, &s, &key, e)) ||
        (rc = choose(&ch, candidates, key, e)) ||
        (rc = check_choice(&ch, org, json_array_size(candidates), e)))
        return rc;
    snprintf(s.key_id, sizeof(s.key_id), "%s", ch.id);
    if ((rc = orgkey_next_version(k->orgkeys, k->hsm, org, &s.version, e)) ||
        (rc = hsm_seal(k->hsm, &s, key, &out->body, &out->body_len, e)))
        return rc;
    out->head = json_pack("{s:s}", "key_id", ch.id);
    if (!out->head)
        return error_set(e, ERR_NOMEM, "no memory for a reply");
    return put(k->orgkeys, org, CANDIDATE, NULL, e);
}

/* ---- use-key, drop-key ---- */

static enum code publish(const struct search *s, struct error *e)
{
    char label[LABEL_MAX];
    if (s->best_there && s->copies == 1)
        return OK; /* spare the HSM's flash */
    label_of(s->org, label);
    return hsm_data_put(s->hsm, label, s->best->blob, s->best->len, e);
}

static enum code use(struct keeper *k, struct search *s, bool to_hsm,
                     struct frame *out, struct error *e)
{
    struct orgkey *best = s->best;
    enum code rc =
        endpoint_listed(k->settings, "the sealed admin key's endpoint",
                        best->subject.endpoint, e);
    if (rc || (to_hsm && (rc = publish(s, e))))
        return rc;
    out->head = json_pack(
        "{s:s, s:I, s:s, s:s}", "key_id", best->subject.key_id, "version",
        (json_int_t)best->subject.version, "endpoint", best->subject.endpoint,
        "organization_id", best->subject.organization_id);
    out->body = malloc(best->len);
    if (!out->head || !out->body)
        return error_set(e, ERR_NOMEM, "no memory for a reply");
    memcpy(out->body, best->blob, best->len);
    out->body_len = best->len;
    s->best = NULL;
    return put(k->orgkeys, s->org, CURRENT, best, e);
}

/* For calls that say `candidate`: whether this key works, or still does. */
static enum code try(struct keeper *k, struct search *s, struct error *e)
{
    enum code rc =
        endpoint_listed(k->settings, "the sealed admin key's endpoint",
                        s->best->subject.endpoint, e);
    if (rc)
        return rc;
    struct orgkey *best = s->best;
    s->best = NULL;
    return put(k->orgkeys, s->org, CANDIDATE, best, e);
}

enum code orgkey_use(struct channel *c, struct frame *in, struct frame *out,
                     struct error *e)
{
    const char *org = NULL;
    bool to_hsm = false, to_try = false;
    const struct json_field fields[] = {
        {"org", FIELD_STRING, true, &org, NULL},
        {"publish", FIELD_BOOL, false, &to_hsm, NULL},
        {"try", FIELD_BOOL, false, &to_try, NULL},
    };
    struct keeper *k = c->keeper;
    enum code rc =
        json_decode(in->head, JSON_FIELDS(fields), false, "use-key", e);
    if (rc || (rc = text_check_name("organisation", org, e)))
        return rc;
    struct search s = {.hsm = k->hsm, .org = org};
    if (!to_try)
        rc = search_hsm(&s, e);
    if (rc == OK && in->body_len > 0)
        rc = consider(&s, in->body, in->body_len, false, e);
    if (rc == OK && s.best && to_try)
        rc = try(k, &s, e);
    else if (rc == OK && s.best)
        rc = use(k, &s, to_hsm, out, e);
    else if (rc == OK && s.why.code)
        rc = error_set(e, s.why.code, "%s", s.why.text);
    else if (rc == OK)
        rc = error_set(e, ERR_NO_ADMIN_KEY,
                       "organisation %s has no usable admin key: set one with "
                       "`hsmint config set admin_api_key=-`",
                       org);
    orgkey_unref(s.best);
    return rc;
}

static void drop(struct orgkeys *t, const char *org)
{
    pthread_mutex_lock(&t->lock);
    struct entry *n = find(t, org);
    struct orgkey *gone[2] = {n ? n->current : NULL, n ? n->candidate : NULL};
    if (n)
        n->current = n->candidate = NULL;
    pthread_mutex_unlock(&t->lock);
    for (size_t i = 0; i < 2; i++) {
        if (gone[i])
            atomic_store(&gone[i]->dropped, true);
        orgkey_unref(gone[i]);
    }
}

enum code orgkey_drop(struct channel *c, struct frame *in, struct frame *out,
                      struct error *e)
{
    const char *org = NULL;
    char label[LABEL_MAX];
    const struct json_field fields[] = {
        {"org", FIELD_STRING, true, &org, NULL},
    };
    (void)out;
    enum code rc =
        json_decode(in->head, JSON_FIELDS(fields), false, "drop-key", e);
    if (rc || (rc = text_check_name("organisation", org, e)))
        return rc;
    drop(c->keeper->orgkeys, org);
    label_of(org, label);
    rc = hsm_data_delete(c->keeper->hsm, label, e);
    if (rc == ERR_NOT_FOUND) {
        error_clear(e);
        return OK;
    }
    return rc;
}
