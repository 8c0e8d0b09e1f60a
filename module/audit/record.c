/* record - see record.h. */
#include "config.h"

#include "module/audit/record.h"

#include "common/base64.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

static const char *const names[RECORD_KINDS] = {
    [RECORD_START] = "start",
    [RECORD_STOP] = "stop",
    [RECORD_KEYS] = "keys",
    [RECORD_INIT] = "init",
    [RECORD_CALL] = "call",
    [RECORD_OUTCOME] = "outcome",
    [RECORD_MINT] = "mint",
    [RECORD_RELEASE] = "release",
    [RECORD_RENEW] = "renew",
    [RECORD_REVOKE] = "revoke",
    [RECORD_DEAD] = "dead",
    [RECORD_LOGIN] = "login",
    [RECORD_LOGIN_FAILED] = "login-failed",
    [RECORD_REFUSAL] = "refusal",
    [RECORD_CONFIG] = "config",
    [RECORD_ROLE] = "role",
    [RECORD_POLICY] = "policy",
    [RECORD_LOGIN_CHANGE] = "login-change",
    [RECORD_SEAL] = "seal",
    [RECORD_ROTATE] = "rotate",
    [RECORD_HSM_LOST] = "hsm-lost",
    [RECORD_HSM_FOUND] = "hsm-found",
    [RECORD_CHECKPOINT_FAILED] = "checkpoint-failed",
    [RECORD_FORCED_STOP] = "forced-stop",
    [RECORD_FORCED_END] = "forced-end",
    [RECORD_EXPORT] = "export",
    [RECORD_VERIFY_FAILED] = "verify-failed",
    [RECORD_PRUNE] = "prune",
    [RECORD_ROLLBACK] = "rollback",
    [RECORD_ROLLBACK_ACCEPTED] = "rollback-accepted",
    [RECORD_LOGOUT_ALL] = "logout-all",
    [RECORD_PROOF] = "proof",
    [RECORD_RECONCILE] = "reconcile",
    [RECORD_BREAK_GLASS] = "break-glass",
    [RECORD_CLOCK] = "clock",
    [RECORD_BACKUP] = "backup",
    [RECORD_RESTORE] = "restore",
    [RECORD_ADOPT] = "adopt",
    [RECORD_KEY_STATE] = "key-state",
    [RECORD_ROTATE_KEY] = "rotate-key",
    [RECORD_CEREMONY] = "ceremony",
    [RECORD_ESCROW] = "escrow",
};

const char *record_kind_name(enum record_kind k)
{
    return names[k];
}

char *record_text(const struct record *r, const char *member,
                  char text[RECORD_TEXT_MAX])
{
    const json_t *value = json_object_get(r->json, member);
    bool list = json_is_array(value);
    size_t len = 0, n = list ? json_array_size(value) : 1;
    text[0] = '\0';
    for (size_t i = 0; i < n; i++) {
        const char *one =
            json_string_value(list ? json_array_get(value, i) : value);
        size_t room = one ? strlen(one) : 0;
        if (!room || len + room + 3 > RECORD_TEXT_MAX)
            continue; /* whole texts: a cut one need not be UTF-8 */
        len += (size_t)sprintf(text + len, "%s%s", len ? ", " : "", one);
    }
    return text;
}

void record_clear(struct record *r)
{
    json_decref(r->json);
    r->json = NULL;
}

bool record_find_kind(const char *name, enum record_kind *kind)
{
    for (int i = 0; i < RECORD_KINDS; i++)
        if (strcmp(names[i], name) == 0) {
            *kind = (enum record_kind)i;
            return true;
        }
    return false;
}

/* ---- parsing ---- */

static enum code parse_signed(struct record *r, struct error *e)
{
    struct record_signed *s = &r->signature;
    const struct json_field fields[] = {
        {"target_uri", FIELD_STRING, true, &s->target_uri, NULL},
        {"content_digest", FIELD_STRING, true, &s->content_digest, NULL},
        {"signature_input", FIELD_STRING, true, &s->signature_input, NULL},
        {"signature", FIELD_STRING, true, &s->signature, NULL},
        {"keyid", FIELD_STRING, true, &s->keyid, NULL},
        {"nonce", FIELD_STRING, true, &s->nonce, NULL},
        {"created", FIELD_INT, true, &s->created, NULL},
    };
    json_t *object = NULL;
    const struct json_field call[] = {
        {"call", FIELD_STRING, true, &r->call, NULL},
        {"method", FIELD_STRING, true, &r->method, NULL},
        {"body", FIELD_STRING, false, &r->body, NULL},
        {"signed", FIELD_OBJECT, true, &object, NULL},
    };
    enum code rc = json_decode(r->json, JSON_FIELDS(call), true, "call", e);
    return rc ? rc : json_decode(object, JSON_FIELDS(fields), true, "signed", e);
}

static enum code parse_own(struct record *r, struct error *e)
{
    const struct json_field outcome[] = {
        {"call", FIELD_STRING, true, &r->call, NULL},
    };
    switch (r->kind) {
    case RECORD_CALL:
        return parse_signed(r, e);
    case RECORD_OUTCOME:
        return json_decode(r->json, JSON_FIELDS(outcome), true, "outcome", e);
    default:
        return OK;
    }
}

static enum code parse_common(struct record *r, struct error *e)
{
    json_int_t version = 0;
    const char *prev = "", *kind = "";
    size_t len;
    const struct json_field fields[] = {
        {"v", FIELD_INT, true, &version, NULL},
        {"seq", FIELD_INT, true, &r->seq, NULL},
        {"prev", FIELD_STRING, true, &prev, NULL},
        {"time", FIELD_STRING, true, &r->time, NULL},
        {"kind", FIELD_STRING, true, &kind, NULL},
        {"actor", FIELD_OBJECT, true, &r->actor, NULL},
        {"org", FIELD_STRING, false, &r->org, NULL},
        {"role", FIELD_STRING, false, &r->role, NULL},
        {"lease", FIELD_STRING, false, &r->lease, NULL},
    };
    const struct json_field whose[] = {
        {"owner", FIELD_STRING, true, &r->owner, NULL},
    };
    int64_t ms;
    enum code rc = json_decode(r->json, JSON_FIELDS(fields), true, "record", e);
    if (rc == OK)
        rc = json_decode(r->actor, JSON_FIELDS(whose), true, "actor", e);
    if (rc)
        return rc;
    if (version != RECORD_VERSION)
        return error_set(e, ERR_INVALID,
                         "v: %lld, where this program knows %d",
                         (long long)version, RECORD_VERSION);
    if (r->seq < 1 || r->seq > RECORD_SEQ_MAX)
        return error_set(e, ERR_INVALID, "seq: %lld is no record's",
                         (long long)r->seq);
    if (!record_find_kind(kind, &r->kind))
        return error_set(e, ERR_INVALID, "kind: \"%.40s\" is unknown", kind);
    if (!base64_decode(prev, strlen(prev), r->prev.bytes, MERKLE_HASH, &len) ||
        len != MERKLE_HASH)
        return error_set(e, ERR_INVALID, "prev: no hash");
    if (!record_time_ms(r->time, &ms))
        return error_set(e, ERR_INVALID, "time: \"%.40s\" is none", r->time);
    return OK;
}

enum code record_parse(struct record *r, const char *line, size_t len,
                       struct error *e)
{
    *r = (struct record){.time = "",
                         .owner = "",
                         .org = "",
                         .role = "",
                         .lease = "",
                         .call = "",
                         .method = "",
                         .body = ""};
    if (memchr(line, '\n', len)) /* JSON has no use for one */
        return error_set(e, ERR_INVALID, "record: more than one line");
    enum code rc = json_parse(line, len, "record", &r->json, e);
    if (rc == OK && !json_is_object(r->json))
        rc = error_set(e, ERR_INVALID, "record: no object");
    if (rc == OK)
        rc = parse_common(r, e);
    if (rc == OK)
        rc = parse_own(r, e);
    if (rc == OK && strlen(r->call) > RECORD_CALL_MAX)
        rc = error_set(e, ERR_INVALID, "call: more than %d characters",
                       RECORD_CALL_MAX);
    return rc;
}

/* Letter by letter; a 0 of the form stands for any digit. */
static bool has_form(const char *text, const char *form)
{
    for (; *text && *form; text++, form++)
        if (*form == '0' ? *text < '0' || *text > '9' : *text != *form)
            return false;
    return *text == *form;
}

bool record_time_ms(const char *text, int64_t *ms)
{
    struct tm tm = {.tm_isdst = 0};
    int milli = 0, n = 0;
    if (!has_form(text, "0000-00-00T00:00:00.000Z") ||
        sscanf(text, "%4d-%2d-%2dT%2d:%2d:%2d.%3dZ%n", &tm.tm_year, &tm.tm_mon,
               &tm.tm_mday, &tm.tm_hour, &tm.tm_min, &tm.tm_sec, &milli,
               &n) != 7 ||
        n != 24)
        return false;
    tm.tm_year -= 1900;
    tm.tm_mon -= 1;
    struct tm same = tm;
    time_t s = timegm(&same);
    if (same.tm_mon != tm.tm_mon || same.tm_mday != tm.tm_mday ||
        same.tm_hour != tm.tm_hour || same.tm_min != tm.tm_min)
        return false;
    *ms = (int64_t)s * 1000 + milli;
    return true;
}
