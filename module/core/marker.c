/* marker - see marker.h. */
#include "config.h"

#include "module/core/internal.h"

#include <string.h>

static bool is_marker(const char *s)
{
    return s && strlen(s) == TEMPLATE_MARKER_LEN &&
           strspn(s, "abcdefghijklmnopqrstuvwxyz234567") == TEMPLATE_MARKER_LEN;
}

static enum code fetch(struct core *c, json_t **markers, struct error *e)
{
    FRAME request = FRAME_INIT;
    FRAME reply = FRAME_INIT;
    enum code code;

    request.verb = VERB_HMAC;
    request.head =
        json_pack("{ss si}", "purpose", "marker", "count", MARKER_BATCH);
    if (!request.head)
        return error_set(e, ERR_NOMEM, "no memory to ask for markers");
    code = unlock_call(c, &request, (int)c->settings->hsm_deadline_ms, &reply,
                       NULL, e);
    if (code)
        return error_prefix(e, "cannot make a unique name");
    *markers = json_incref(json_object_get(reply.head, "markers"));
    if (json_array_size(*markers) == 0)
        return error_set(e, ERR_KEEPER, "the keeper gave no markers");
    return OK;
}

static enum code refill(struct core *c, struct error *e)
{
    JSON list = NULL;
    enum code code = fetch(c, &list, e);
    json_t *one;
    size_t i;

    if (code)
        return code;
    pthread_mutex_lock(&c->markers.lock);
    json_array_foreach(list, i, one)
    {
        const char *s = json_string_value(one);

        if (is_marker(s) && c->markers.n < MARKER_BATCH)
            memcpy(c->markers.text[c->markers.n++], s, TEMPLATE_MARKER_LEN + 1);
        else if (!is_marker(s))
            code = error_set(e, ERR_KEEPER, "the keeper gave a bad marker");
    }
    pthread_mutex_unlock(&c->markers.lock);
    return code;
}

enum code marker_take(struct core *c, char marker[TEMPLATE_MARKER_LEN + 1],
                      struct error *e)
{
    for (;;) {
        enum code code;
        bool got;

        pthread_mutex_lock(&c->markers.lock);
        got = c->markers.n > 0;
        if (got)
            memcpy(marker, c->markers.text[--c->markers.n],
                   TEMPLATE_MARKER_LEN + 1);
        pthread_mutex_unlock(&c->markers.lock);
        if (got)
            return OK;
        code = refill(c, e);
        if (code)
            return code;
    }
}
