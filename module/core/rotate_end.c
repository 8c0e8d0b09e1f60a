/* rotate_end - the end of an admin key: deleted by the one in use, and seen
 * refused. */
#include "config.h"

#include "module/core/rotate_parts.h"

#include "common/file.h"
#include "module/core/internal.h"
#include "module/core/lease.h"

enum { CONFIRM_MS = 60000 /* a deleted key may open for so long */ };

/* A key that was tried in vain may not have shown itself yet: then the 404
 * says nothing. One that was found by its name had. */
static bool is_too_young(const struct rotate_step *s,
                         const struct gate_reply *reply)
{
    return reply->http.status == 404 && s->r.state == ROTATION_DROP &&
           s->r.sealed && steady_ms(s->core) < s->r.begun_ms + ROTATE_PROVE_MS;
}

/* By the key in use: never by the one that is to go. */
static enum code send_delete(struct rotate_step *s, const char *id,
                             struct openai_request *request,
                             struct gate_call *call, struct gate_reply *reply,
                             struct error *e)
{
    enum code code = rotate_use(s, s->org.admin_blob, s->org.admin_blob_len,
                                USE, e);

    *call = (struct gate_call){.org = s->org.name,
                               .purpose = "rotate",
                               .request = request,
                               .urgency = STORE_RESERVE};
    reply->fate = GATE_NOTHING;
    if (!code)
        code = openai_admin_key_delete(request, id, e);
    return code ? code : gate_send(s->core, call, reply, e);
}

static int64_t backoff_ms(const struct rotate_step *s, const struct error *why)
{
    return lease_backoff_ms(s->r.tries, why->retry_after_ms);
}

enum code rotate_delete(struct rotate_step *s, const char *id, struct error *e)
{
    CLEANUP(openai_request_clear) struct openai_request request = {0};
    GATE_REPLY reply = GATE_REPLY_INIT;
    struct gate_call call;
    struct error why = {0};
    enum code code = send_delete(s, id, &request, &call, &reply, &why);

    if (!code && is_too_young(s, &reply))
        code = error_set(&why, ERR_NOT_FOUND,
                         "the new admin key does not show itself yet");
    if (!code)
        return rotate_advance(s, ROTATION_GONE, &call, &reply, 0, e);
    return rotate_later(s, &call, &reply, backoff_ms(s, &why), &why, e);
}

/* The service said that it is gone, or never was there, and takes it still. */
static enum code delete_again(struct rotate_step *s, struct error *e)
{
    CLEANUP(openai_request_clear) struct openai_request request = {0};
    GATE_REPLY reply = GATE_REPLY_INIT;
    struct gate_call call;
    struct error why = {0};

    if (send_delete(s, s->r.old_id, &request, &call, &reply, &why) == OK)
        error_set(&why, ERR_SERVICE_REPLY,
                  "the service deleted admin key %s and still accepts it",
                  s->r.old_id);
    return rotate_later(s, &call, &reply, backoff_ms(s, &why), &why, e);
}

enum code rotate_confirm(struct rotate_step *s, struct error *e)
{
    struct error why = {0};
    enum code code;

    if (!s->r.old_sealed) /* lost with an HSM: that it is gone is all there is */
        return rotate_advance(s, ROTATION_DEAD, NULL, NULL, 0, e);
    code = rotate_try(s, s->r.old_sealed, s->r.old_sealed_len, &why);
    if (code == ERR_SERVICE_AUTH)
        return rotate_advance(s, ROTATION_DEAD, NULL, NULL, 0, e);
    if (!code && steady_ms(s->core) >= s->r.begun_ms + CONFIRM_MS)
        return delete_again(s, e);
    return rotate_later(s, NULL, NULL, backoff_ms(s, &why), &why, e);
}
