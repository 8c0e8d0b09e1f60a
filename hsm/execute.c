/* execute - the verbs sign-call and execute: no signature, no key. */
#include "config.h"

#include "hsm/keeper.h"

#include "common/base64.h"
#include "common/clock.h"
#include "common/file.h"
#include "common/log.h"
#include "common/sigbase.h"
#include "common/text.h"
#include "hsm/call.h"
#include "hsm/callrecord.h"
#include "hsm/endpoint.h"
#include "hsm/http.h"
#include "hsm/ledger.h"
#include "hsm/marker.h"
#include "hsm/reply.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define ADMIN_KEYS "/organization/admin_api_keys"

/* ---- sign-call ---- */

/* By the key that it names: where another took its place meanwhile, which it
 * does for good, it is signed once more. */
static enum code sign_by_name(struct keeper *k, struct call *c,
                              const struct sigbase_call *s, char **params,
                              uint8_t raw[64], struct error *e)
{
    char now[sizeof c->keyid];
    uint8_t digest[32];
    enum code rc = hsm_keyid(k->hsm, HSM_CALL, now, e);
    while (rc == OK && strcmp(now, c->keyid) != 0) {
        memcpy(c->keyid, now, sizeof now);
        free(*params);
        *params = NULL;
        if ((rc = sigbase_call(s, params, digest, e)) == OK &&
            (rc = hsm_sign(k->hsm, HSM_CALL, digest, raw, e)) == OK)
            rc = hsm_keyid(k->hsm, HSM_CALL, now, e);
    }
    return rc;
}

/* Header values, for the reply and for an egress gateway. */
static enum code sign(struct keeper *k, struct call *c, json_t **head,
                      struct error *e)
{
    char digest_text[SIGBASE_DIGEST_MAX];
    uint8_t raw[64];
    FREE char *params = NULL;
    struct sigbase_call s = {.method = c->method,
                             .target_uri = c->url,
                             .content_digest = digest_text,
                             .nonce = c->id,
                             .keyid = c->keyid,
                             .created_s = c->created_s};
    enum code rc =
        sigbase_content_digest(c->body, c->body_len, digest_text, e);
    if (rc || (rc = sign_by_name(k, c, &s, &params, raw, e)))
        return rc;
    FREE char *base64 = base64_encode(raw, sizeof(raw));
    if (!base64 ||
        asprintf(&c->signature_input, "Signature-Input: sig1=%s", params) < 0 ||
        asprintf(&c->signature, "Signature: sig1=:%s:", base64) < 0 ||
        asprintf(&c->content_digest, "Content-Digest: %s", digest_text) < 0)
        return error_set(e, ERR_NOMEM, "no memory for a signature");
    *head = json_pack("{s:s, s:s, s:s, s:s, s:s, s:I, s:s, s:s}", "call", c->id,
                      "target_uri", c->url, "content_digest", digest_text,
                      "signature_input", strchr(c->signature_input, ' ') + 1,
                      "signature", strchr(c->signature, ' ') + 1, "created",
                      (json_int_t)s.created_s, "nonce", c->id, "keyid",
                      c->keyid);
    return *head ? OK : error_set(e, ERR_NOMEM, "no memory for a signature");
}

static enum code prepare(struct call *c, const char *path, struct frame *in,
                         struct error *e)
{
    if (asprintf(&c->url, "%s%s", c->key->subject.endpoint, path) < 0) {
        c->url = NULL;
        return error_set(e, ERR_NOMEM, "no memory for a call");
    }
    c->body = in->body; /* taken */
    c->body_len = in->body_len;
    in->body = NULL;
    in->body_len = 0;
    return OK;
}

enum code execute_sign(struct channel *ch, struct frame *in, struct frame *out,
                       struct error *e)
{
    const char *org = NULL, *method = NULL, *path = NULL;
    bool candidate = false;
    const struct json_field fields[] = {
        {"org", FIELD_STRING, true, &org, NULL},
        {"method", FIELD_STRING, true, &method, NULL},
        {"path", FIELD_STRING, true, &path, NULL},
        {"candidate", FIELD_BOOL, false, &candidate, NULL},
    };
    struct keeper *k = ch->keeper;
    CLEANUP(call_freep) struct call *c = calloc(1, sizeof(*c));
    if (!c)
        return error_set(e, ERR_NOMEM, "no memory for a call");
    c->era = ledger_era(k->ledger);
    c->created_s = clock_wall_ms() / 1000;
    enum code rc =
        json_decode(in->head, JSON_FIELDS(fields), false, "sign-call", e);
    if (rc ||
        (rc =
             call_check(method, path, in->body, in->body_len, &c->method, e)) ||
        (rc = orgkeys_get(k->orgkeys, org, candidate, &c->key, e)) ||
        (rc = prepare(c, path, in, e)) ||
        (rc = calls_reserve(k->calls, c->id, e)))
        return rc;
    if ((rc = sign(k, c, &out->head, e))) {
        calls_release(k->calls, c->id);
        return rc;
    }
    c->signed_at_ms = clock_boot_ms();
    calls_put(k->calls, c);
    c = NULL;
    return OK;
}

/* ---- execute ---- */

static bool makes_admin_key(const struct call *c)
{
    size_t url = strlen(c->url), end = strlen(ADMIN_KEYS);
    return strcmp(c->method, "POST") == 0 && url >= end &&
           strcmp(c->url + url - end, ADMIN_KEYS) == 0;
}

/* Sealed, bound to its id, in place of "value". */
static enum code seal_new_key(struct keeper *k, const struct call *c,
                              json_t *rest, const struct secret *value,
                              const char *id, struct error *e)
{
    struct seal_subject s = c->key->subject;
    FREE uint8_t *blob = NULL;
    size_t len;
    enum code rc = text_check_service_id("key id", id, e);
    if (rc)
        return rc;
    snprintf(s.key_id, sizeof(s.key_id), "%s", id);
    if ((rc = orgkey_next_version(k->orgkeys, k->hsm, s.org, &s.version, e)) ||
        (rc = hsm_seal(k->hsm, &s, value, &blob, &len, e)))
        return rc;
    FREE char *text = base64_encode(blob, len);
    if (!text || json_object_set_new(rest, "sealed", json_string(text)))
        return error_set(e, ERR_NOMEM, "no memory for a reply");
    return OK;
}

static void take_body(struct http_reply *r, char *text)
{
    if (r->body)
        wipe(r->body, r->body_len);
    free(r->body);
    r->body = (uint8_t *)text;
    r->body_len = text ? strlen(text) : 0;
}

/* The new key must not leave the keeper, whatever the reply looks like. */
static enum code hide_admin_key(struct keeper *k, const struct call *c,
                                struct http_reply *r, struct error *e)
{
    JSON rest = NULL;
    SECRET value = NULL;
    FREE char *id = NULL;
    bool good = r->status >= 200 && r->status < 300;
    enum code rc = reply_take_admin_key((const char *)r->body, r->body_len,
                                        &rest, &value, &id, e);
    if (rc && !good) { /* an error page of whatever kind */
        take_body(r, NULL);
        error_clear(e);
        return OK;
    }
    if (rc == OK && good && (!value || !id))
        rc = error_set(e, ERR_SERVICE_REPLY, "the reply lacks id or value");
    if (rc == OK && value && id)
        rc = seal_new_key(k, c, rest, value, id, e);
    take_body(r, rc == OK ? json_text(rest, JSON_COMPACT) : NULL);
    if (rc == OK && !r->body)
        rc = error_set(e, ERR_NOMEM, "no memory for a reply");
    if (rc == OK && value) /* whatever else it was called */
        http_hide_key(value, r->body, r->body_len);
    if (rc)
        return error_set(e, ERR_SERVICE_UNKNOWN,
                         "admin key %s may have been made and was lost: %s",
                         id ? id : "of unknown id", e ? e->text : "");
    return OK;
}

static enum code open_key(struct keeper *k, const struct orgkey *key,
                          struct secret **plain, struct error *e)
{
    struct seal_subject s;
    if (atomic_load(&key->dropped))
        return error_set(e, ERR_NO_ADMIN_KEY,
                         "the admin key of organisation %s was deleted",
                         key->subject.org);
    enum code rc = endpoint_listed(k->settings, "the admin key's endpoint",
                                   key->subject.endpoint, e);
    if (rc || (rc = hsm_unseal(k->hsm, key->blob, key->len, &s, plain, e)))
        return rc;
    if (s.kind != SEAL_ADMIN_KEY || s.version != key->subject.version ||
        strcmp(s.org, key->subject.org) != 0 ||
        strcmp(s.endpoint, key->subject.endpoint) != 0)
        return error_set(e, ERR_SEAL,
                         "the admin key of organisation %s is bound to "
                         "something else",
                         key->subject.org);
    return OK;
}

static enum code send_call(struct channel *ch, const struct call *c,
                           struct http_reply *r, struct error *e)
{
    struct keeper *k = ch->keeper;
    SECRET key = NULL;
    const char *headers[] = {c->content_digest, c->signature_input,
                             c->signature, NULL};
    struct http_request q = {.method = c->method,
                             .url = c->url,
                             .body = c->body,
                             .body_len = c->body_len,
                             .organization_id = c->key->subject.organization_id,
                             .headers =
                                 k->settings->send_signature ? headers : NULL};
    enum code rc;
    if (!ch->http && (rc = http_new(&ch->http, k->settings, e)))
        return rc;
    if ((rc = open_key(k, c->key, &key, e)))
        return rc;
    q.bearer = key;
    return http_send(ch->http, &q, r, e);
}

/* The log holds it, or is going to: spec/KEEPER.md, "The ledger". */
static enum code put_down(struct keeper *k, const struct call *c,
                          const struct frame *in, struct error *e)
{
    struct merkle_hash leaf;
    enum code rc = callrecord_check(in->body, in->body_len, c, &leaf, e);
    return rc ? rc : ledger_remember(k->ledger, c->era, &leaf, e);
}

/* By which a leaked key is found in the log. A reply is not lost for want of
 * it: the key is there already. */
static void put_value_hmac(struct keeper *k, const struct call *c,
                           const struct http_reply *r, json_t *head)
{
    SECRET value = NULL;
    char hex[65];
    struct error why = {.code = OK};
    if (strcmp(c->method, "POST") != 0 || r->status < 200 || r->status > 299 ||
        makes_admin_key(c))
        return;
    enum code rc =
        reply_minted_key((const char *)r->body, r->body_len, &value, &why);
    if (rc || !value)
        return;
    rc = marker_hash_value(k->hsm, secret_data(value), secret_len(value), hex,
                           &why);
    if (rc || json_object_set_new(head, "value_hmac", json_string(hex)))
        log_warning("the minted key's hash could not be made: %s", why.text);
}

/* The same: it only tells the sweeper how fast it may go. */
static void put_rate(json_t *head, const struct http_rate *rate)
{
    if (rate->limit > 0 && rate->remaining >= 0)
        (void)json_object_set_new(
            head, "rate",
            json_pack("{s:I, s:I, s:I}", "limit", (json_int_t)rate->limit,
                      "remaining", (json_int_t)rate->remaining, "reset_ms",
                      (json_int_t)rate->reset_ms));
}

enum code execute_call(struct channel *ch, struct frame *in, struct frame *out,
                       struct error *e)
{
    const char *id = NULL;
    const struct json_field fields[] = {
        {"call", FIELD_STRING, true, &id, NULL},
    };
    struct keeper *k = ch->keeper;
    CLEANUP(call_freep) struct call *c = NULL;
    HTTP_REPLY r = {.status = 0};
    struct error local = {.code = OK};
    if (!e)
        e = &local;
    enum code rc =
        json_decode(in->head, JSON_FIELDS(fields), false, "execute", e);
    if (rc || (rc = calls_take(k->calls, id, &c, e)) ||
        (rc = put_down(k, c, in, e)) || (rc = send_call(ch, c, &r, e)))
        return rc;
    if (makes_admin_key(c) && (rc = hide_admin_key(k, c, &r, e)))
        return rc;
    out->head = json_pack("{s:I, s:s, s:I, s:I}", "status",
                          (json_int_t)r.status, "request_id", r.request_id,
                          "retry_after_ms", (json_int_t)r.retry_after_ms,
                          "duration_us", (json_int_t)r.duration_us);
    if (!out->head) /* the daemon has to search for what was made */
        return error_set(e, ERR_SERVICE_UNKNOWN, "no memory for a reply");
    put_rate(out->head, &r.rate);
    put_value_hmac(k, c, &r, out->head);
    out->body = r.body;
    out->body_len = r.body_len;
    r.body = NULL;
    return OK;
}
