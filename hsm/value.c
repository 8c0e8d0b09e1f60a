/* value - minted keys that a role keeps: seal-value, unwrap-value; and probe,
 * which asks whether one is dead. */
#include "config.h"

#include "hsm/keeper.h"

#include "common/file.h"
#include "common/text.h"
#include "hsm/endpoint.h"
#include "hsm/http.h"
#include "hsm/orgkey.h"
#include "hsm/reply.h"

#include <stdio.h>
#include <string.h>

struct owner { /* what a value is bound to */
    const char *org, *lease, *api_base;
};

static enum code decode_owner(struct frame *in, const char *verb, bool base,
                              struct owner *o, struct error *e)
{
    const struct json_field fields[] = {
        {"org", FIELD_STRING, true, &o->org, NULL},
        {"lease", FIELD_STRING, true, &o->lease, NULL},
        {"api_base", FIELD_STRING, true, &o->api_base, NULL},
    };
    enum code rc = json_decode(in->head, fields, base ? 3 : 2, false, verb, e);
    if (rc || (rc = text_check_name("organisation", o->org, e)))
        return rc;
    if (!text_is_id(o->lease))
        return error_set(e, ERR_INVALID, "%s: \"%s\" is no lease id", verb,
                         o->lease);
    if (in->body_len == 0)
        return error_set(e, ERR_INVALID, "%s brought no value", verb);
    return OK;
}

enum code value_seal(struct channel *c, struct frame *in, struct frame *out,
                     struct error *e)
{
    struct owner o = {.org = NULL};
    struct seal_subject s = {.kind = SEAL_VALUE, .version = 1};
    SECRET value = NULL;
    enum code rc = decode_owner(in, "seal-value", false, &o, e);
    if (rc || (rc = secret_dup(&value, in->body, in->body_len, e)))
        return rc;
    snprintf(s.org, sizeof(s.org), "%s", o.org);
    snprintf(s.key_id, sizeof(s.key_id), "%s", o.lease);
    return hsm_seal(c->keeper->hsm, &s, value, &out->body, &out->body_len, e);
}

static enum code open_value(struct keeper *k, const struct frame *in,
                            const struct owner *o, struct secret **value,
                            struct error *e)
{
    struct seal_subject s;
    enum code rc = hsm_verify(k->hsm, in->body, in->body_len, &s, e);
    if (rc)
        return rc;
    if (s.kind != SEAL_VALUE || strcmp(s.org, o->org) != 0 ||
        strcmp(s.key_id, o->lease) != 0)
        return error_set(e, ERR_SEAL, "this blob is not the key of lease %s",
                         o->lease);
    return hsm_unseal(k->hsm, in->body, in->body_len, &s, value, e);
}

enum code value_unwrap(struct channel *c, struct frame *in, struct frame *out,
                       struct error *e)
{
    struct owner o = {.org = NULL};
    SECRET value = NULL;
    enum code rc = decode_owner(in, "unwrap-value", false, &o, e);
    if (rc || (rc = open_value(c->keeper, in, &o, &value, e)))
        return rc;
    return secret_to_pipe(value, &out->fd, e);
}

/* To the organisation's service only: for a daemon that was taken over this
 * would be the way to send anything anywhere. */
static enum code check_base(struct keeper *k, const struct owner *o,
                            char base[ENDPOINT_MAX], struct error *e)
{
    ORGKEY key = NULL;
    enum code rc =
        endpoint_check(k->settings, "api_base", o->api_base, base, e);
    if (rc || (rc = orgkeys_get(k->orgkeys, o->org, false, &key, e)))
        return rc;
    if (!endpoint_serves(base, key->subject.endpoint))
        return error_set(e, ERR_INVALID,
                         "api_base %s is neither on the host of organisation "
                         "%s's api_endpoint nor below it: no key is tried "
                         "there",
                         base, o->org);
    return endpoint_listed(k->settings, "api_base", base, e);
}

enum code value_probe(struct channel *c, struct frame *in, struct frame *out,
                      struct error *e)
{
    struct owner o = {.org = NULL};
    char base[ENDPOINT_MAX], url[ENDPOINT_MAX + 16], code[REPLY_CODE_MAX];
    SECRET value = NULL;
    HTTP_REPLY r = {.status = 0};
    struct http_request q = {.method = "GET", .url = url};
    enum code rc = decode_owner(in, "probe", true, &o, e);
    if (rc || (rc = check_base(c->keeper, &o, base, e)))
        return rc;
    snprintf(url, sizeof(url), "%s/models", base);
    if (!c->http && (rc = http_new(&c->http, c->keeper->settings, e)))
        return rc;
    if ((rc = open_value(c->keeper, in, &o, &value, e)))
        return rc;
    q.bearer = value;
    if ((rc = http_send(c->http, &q, &r, e)))
        return rc;
    reply_error_code(code, (const char *)r.body, r.body_len);
    out->head = json_pack("{s:b, s:I, s:s}", "alive", r.status == 200, "status",
                          (json_int_t)r.status, "code", code);
    return out->head ? OK : error_set(e, ERR_NOMEM, "no memory for a reply");
}
