/* expiry - see expiry.h. */
#include "config.h"

#include "module/core/expiry.h"

#include "common/clock.h"
#include "common/log.h"
#include "module/core/internal.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define KIND "expiry" /* of documents, by organisation */

static const char *const names[EXPIRIES] = {
    [EXPIRY_HONOURED] = "honoured",
    [EXPIRY_IGNORED] = "ignored",
    [EXPIRY_REFUSED] = "refused",
};

static void tell(struct core *c, const char *org, enum expiry what)
{
    struct warnings *w = &c->warnings;

    if (what == EXPIRY_REFUSED)
        warnings_raise(w, ALARM_EXPIRY_REFUSED, org,
                       "the service refuses expires_in_seconds: it does not "
                       "expire keys by itself");
    else
        warnings_drop(w, ALARM_EXPIRY_REFUSED, org);
    if (what == EXPIRY_IGNORED)
        warnings_raise(w, ALARM_EXPIRY_IGNORED, org,
                       "the service ignores expires_in_seconds");
    else
        warnings_drop(w, ALARM_EXPIRY_IGNORED, org);
}

/* With the lock held. NULL: no memory. */
static struct expiry_org *entry(struct expiry_memory *m, const char *org)
{
    struct expiry_org *more;

    for (size_t i = 0; i < m->n; i++)
        if (strcmp(m->orgs[i].name, org) == 0)
            return &m->orgs[i];
    more = reallocarray(m->orgs, m->n + 1, sizeof(*more));
    if (!more)
        return NULL;
    m->orgs = more;
    more[m->n] = (struct expiry_org){.known = EXPIRY_HONOURED};
    snprintf(more[m->n].name, sizeof(more->name), "%s", org);
    return &more[m->n++];
}

/* ---- the store ---- */

static enum code read_one(const struct store_document *d, void *ctx,
                          struct error *e)
{
    struct core *c = ctx;
    JSON j = json_loads(d->body, 0, NULL);
    const char *said = json_string_value(json_object_get(j, "expiry"));
    struct expiry_org *o = entry(&c->expiry, d->name);

    if (!o)
        return error_set(e, ERR_NOMEM, "no memory for organisations");
    for (int i = 0; said && i < EXPIRIES; i++)
        if (strcmp(said, names[i]) == 0)
            o->known = (enum expiry)i;
    tell(c, d->name, o->known);
    return OK;
}

enum code expiry_open(struct core *c, struct error *e)
{
    return store_document_each(c->store, KIND, read_one, c, e);
}

void expiry_clear(struct core *c)
{
    free(c->expiry.orgs);
    c->expiry.orgs = NULL;
    c->expiry.n = 0;
}

struct news {
    const char *org;
    enum expiry what;
};

static enum code write_one(struct store_tx *tx, void *ctx, struct error *e)
{
    const struct news *n = ctx;
    char body[64];

    snprintf(body, sizeof(body), "{\"expiry\":\"%s\"}", names[n->what]);
    return store_document_put(tx, KIND, n->org, body, clock_wall_ms(), e);
}

/* ---- what is known ---- */

bool expiry_is_asked(struct core *c, const char *org)
{
    struct expiry_memory *m = &c->expiry;
    int64_t now = clock_monotonic_ms();
    struct expiry_org *o;
    bool asked;

    pthread_mutex_lock(&m->lock);
    o = entry(m, org);
    asked = !o || o->known != EXPIRY_REFUSED;
    if (!asked && o->asked_ms == 0)
        o->asked_ms = now; /* a start is no reason to ask */
    if (!asked && now - o->asked_ms >= EXPIRY_AGAIN_MS) {
        o->asked_ms = now; /* one mint asks for all */
        asked = true;
    }
    pthread_mutex_unlock(&m->lock);
    return asked;
}

void expiry_note(struct core *c, const char *org, enum expiry what)
{
    struct expiry_memory *m = &c->expiry;
    struct news n = {org, what};
    struct error e = {0};
    struct expiry_org *o;
    bool is_new;

    pthread_mutex_lock(&m->lock);
    o = entry(m, org);
    is_new = o && o->known != what;
    if (is_new) {
        o->known = what;
        o->asked_ms = clock_monotonic_ms();
    }
    pthread_mutex_unlock(&m->lock);
    tell(c, org, what);
    if (is_new && store_commit(c->store, STORE_NORMAL, write_one, &n, &e) != OK)
        log_failure(&e, "%s: that expiry is %s cannot be remembered", org,
                    names[what]);
}
