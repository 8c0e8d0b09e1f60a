/* logbook - see logbook.h. */
#include "config.h"

#include "module/core/logbook.h"

#include "common/base64.h"
#include "common/clock.h"
#include "common/file.h"
#include "module/core/internal.h"

#include <openssl/evp.h>
#include <stdlib.h>
#include <string.h>
#include <sys/timex.h>

#define DOCUMENT_MAX 16384 /* bytes; longer ones are in it by their digest */
enum { SEAL_MECHANISM_AT = 5, SEAL_VERSION_AT = 6 }; /* spec/SEAL.md */

/* These have no members of their own, or may have none. */
static const bool bare[RECORD_KINDS] = {
    [RECORD_STOP] = true,
    [RECORD_RELEASE] = true,
    [RECORD_DEAD] = true,
};

/* ---- texts ---- */

static json_t *shown(size_t (*escape)(char *, size_t, const char *, size_t),
                     const char *text, size_t most)
{
    char out[LOGBOOK_TEXT_MAX + 1];
    if (most > LOGBOOK_TEXT_MAX)
        most = LOGBOOK_TEXT_MAX;
    escape(out, most + 1, text, strlen(text));
    return json_string(out);
}

json_t *logbook_text(const char *text, size_t most)
{
    return shown(text_quote, text, most);
}

json_t *logbook_error_text(const char *text, size_t most)
{
    return shown(text_escape, text, most);
}

static json_t *digest(const void *data, size_t len)
{
    uint8_t hash[32];
    if (EVP_Digest(data, len, hash, NULL, EVP_sha256(), NULL) != 1)
        return NULL;
    FREE char *text = base64_encode(hash, sizeof hash);
    return text ? json_string(text) : NULL;
}

json_t *logbook_digest(const char *document)
{
    return document ? digest(document, strlen(document)) : json_null();
}

json_t *logbook_change(const char *name, const char *action, const char *was,
                       const char *is)
{
    bool shown = is && strlen(is) <= DOCUMENT_MAX;
    return json_pack("{ss ss so so ss*}", "name", name, "action", action, "old",
                     logbook_digest(was), "new", logbook_digest(is), "document",
                     shown ? is : NULL);
}

/* ---- members ---- */

/* What is not known is left out. */
static bool put_shown(json_t *to, const char *name, const char *text,
                      json_t *(*show)(const char *, size_t))
{
    return !text || !*text ||
           json_object_set_new(to, name, show(text, LOGBOOK_TEXT_MAX)) == 0;
}

/* Names that were checked, of units and logins; and what was quoted when it
 * came. */
static bool put_text(json_t *to, const char *name, const char *text)
{
    return put_shown(to, name, text, logbook_error_text);
}

static bool put_number(json_t *to, const char *name, int64_t n, int64_t unknown)
{
    return n == unknown ||
           json_object_set_new(to, name, json_integer((json_int_t)n)) == 0;
}

int64_t logbook_seal_version(const uint8_t *blob, size_t len)
{
    if (len < SEAL_VERSION_AT + 4)
        return -1;
    const uint8_t *v = blob + SEAL_VERSION_AT;
    return (int64_t)v[0] << 24 | v[1] << 16 | v[2] << 8 | v[3];
}

json_t *logbook_seal(const char *key_id, const uint8_t *blob, size_t len)
{
    JSON j = json_pack("{ss so}", "key_id", key_id, "blob", digest(blob, len));
    int64_t version = logbook_seal_version(blob, len);
    if (!j || version < 0)
        return json_incref(j);
    if (!put_number(j, "version", version, -1) ||
        !put_number(j, "mechanism", blob[SEAL_MECHANISM_AT], -1))
        return NULL;
    return json_incref(j);
}

static bool put_identity(json_t *actor, const struct identity *id)
{
    return put_number(actor, "login_uid", id->login_uid, IDENTITY_UNSET) &&
           put_number(actor, "audit_session", id->audit_session,
                      IDENTITY_UNSET) &&
           (!id->borrowed ||
            json_object_set_new(actor, "borrowed", json_true()) == 0) &&
           put_shown(actor, "exe", id->exe, logbook_text) &&
           put_text(actor, "unit", id->unit) &&
           put_text(actor, "login", id->login);
}

static json_t *actor_new(const struct caller *by)
{
    if (!by)
        return json_pack("{ss}", "owner", "hsmintd");
    JSON actor = json_pack("{sssI}", "owner", by->owner, "uid",
                           (json_int_t)by->uid);
    if (!actor || !put_number(actor, "pid", by->pid, 0) ||
        (by->id && !put_identity(actor, by->id)) ||
        !put_text(actor, "program", by->program) ||
        !put_text(actor, "application", by->application))
        return NULL;
    return json_incref(actor);
}

/* False as well where it cannot be found out. */
static bool is_clock_synchronised(void)
{
    struct timex t = {.modes = 0};
    int state = adjtimex(&t);
    return state >= 0 && state != TIME_ERROR && !(t.status & STA_UNSYNC);
}

static json_t *begin(const struct logbook_entry *r,
                     const struct store_head *head)
{
    char now[CLOCK_TEXT_MAX];
    FREE char *prev = base64_encode(head->last.bytes, MERKLE_HASH);
    json_t *actor = actor_new(r->by); /* stolen even on failure */
    JSON record = json_pack(
        "{si sI ss ss sb ss so}", "v", RECORD_VERSION, "seq",
        (json_int_t)head->size + 1, "prev", prev, "time",
        clock_text(clock_wall_ms(), now), "sync", is_clock_synchronised(),
        "kind", record_kind_name(r->kind), "actor", actor);
    if (!record || !put_text(record, "org", r->org) ||
        !put_text(record, "role", r->role) ||
        !put_text(record, "lease", r->lease))
        return NULL;
    return json_incref(record);
}

/* ---- adding ---- */

/* Not json_object_update_missing(): it leaves out what there is no memory for,
 * and says nothing. */
static bool put_all(json_t *record, json_t *more)
{
    const char *name;
    json_t *value;

    json_object_foreach(more, name, value) {
        if (!json_object_get(record, name) &&
            json_object_set(record, name, value) != 0)
            return false;
    }
    return true;
}

static enum code add(struct store_tx *tx, const struct logbook_entry *r,
                     json_t *more, char **line, struct error *e)
{
    struct store_head head;
    int64_t sequence;
    enum code code = store_record_head(tx, &head, e);
    if (code)
        return code;
    JSON record = begin(r, &head);
    if (!record || (!more && !bare[r->kind]) ||
        (more && !put_all(record, more)) ||
        !(*line = json_text(record, JSON_COMPACT)))
        return error_set(e, ERR_NOMEM, "no memory for an audit record (%s)",
                         record_kind_name(r->kind));
    return store_record_add(tx, *line, &sequence, e);
}

enum code logbook_add_line(struct core *c, struct store_tx *tx,
                           const struct logbook_entry *r, char **line,
                           struct error *e)
{
    JSON more = r->more;
    *line = NULL;
    enum code code = add(tx, r, more, line, e);
    if (!code)
        notary_note(c);
    if (code) {
        free(*line);
        *line = NULL;
    }
    return code;
}

enum code logbook_add(struct core *c, struct store_tx *tx,
                      const struct logbook_entry *r, struct error *e)
{
    FREE char *line = NULL;
    return logbook_add_line(c, tx, r, &line, e);
}

struct one {
    struct core *c;
    const struct logbook_entry *r;
};

/* May be run twice, and each takes a reference. */
static enum code commit_one(struct store_tx *tx, void *ctx, struct error *e)
{
    const struct one *o = ctx;
    struct logbook_entry r = *o->r;
    r.more = json_incref(o->r->more);
    return logbook_add(o->c, tx, &r, e);
}

enum code logbook_commit(struct core *c, enum store_urgency urgency,
                         const struct logbook_entry *r, struct error *e)
{
    struct one o = {c, r};
    JSON more = r->more;
    return store_commit(c->store, urgency, commit_one, &o, e);
}
