/* reach - does an organisation's service answer at all? Asked without any key,
 * so that it needs no signature and no record, as often as one likes. */
#include "config.h"

#include "hsm/keeper.h"

#include "common/text.h"
#include "hsm/endpoint.h"
#include "hsm/http.h"
#include "hsm/orgkey.h"

#include <stdio.h>

#define TOO_MANY 429

static enum code prepare(struct channel *c, struct frame *in, char *url,
                         size_t cap, struct error *e)
{
    const char *org = NULL;
    const struct json_field fields[] = {
        {"org", FIELD_STRING, true, &org, NULL},
    };
    ORGKEY key = NULL;
    enum code rc = json_decode(in->head, JSON_FIELDS(fields), false, "reach", e);
    if (rc || (rc = text_check_name("organisation", org, e)) ||
        (rc = orgkeys_get(c->keeper->orgkeys, org, false, &key, e)) ||
        (rc = endpoint_listed(c->keeper->settings, "the admin key's endpoint",
                              key->subject.endpoint, e)))
        return rc;
    snprintf(url, cap, "%s/organization/projects?limit=1",
             key->subject.endpoint);
    return c->http ? OK : http_new(&c->http, c->keeper->settings, e);
}

/* That it wants a key (401) is an answer. */
enum code reach_service(struct channel *c, struct frame *in, struct frame *out,
                        struct error *e)
{
    char url[ENDPOINT_MAX + 64];
    const struct http_request q = {.method = "GET", .url = url};
    HTTP_REPLY r = {.status = 0};
    struct error why = {.code = OK};
    enum code rc = prepare(c, in, url, sizeof(url), e);
    if (rc)
        return rc;
    bool answers = http_send(c->http, &q, &r, &why) == OK && r.status < 500 &&
                   r.status != TOO_MANY;
    out->head = json_pack("{s:b}", "answers", answers);
    return out->head ? OK : error_set(e, ERR_NOMEM, "no memory for a reply");
}
