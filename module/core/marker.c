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

/* ---- checked ---- */

enum { CHECK_BATCH = 256, NAME_MAX_BYTES = 512 };

/* What could not be ours is not asked about: the keeper's frames have bounds,
 * and what a service calls its accounts has none. */
bool marker_may_be(const char *name)
{
    size_t len = strlen(name);

    return len > TEMPLATE_MARKER_LEN + 1 && len <= NAME_MAX_BYTES &&
           name[len - TEMPLATE_MARKER_LEN - 1] == '-' &&
           is_marker(name + len - TEMPLATE_MARKER_LEN);
}

/* `list` and `places` hold the same names. */
static enum code ask(struct core *c, json_t *list, const size_t *places,
                     bool *ours, struct error *e)
{
    FRAME request = FRAME_INIT;
    FRAME reply = FRAME_INIT;
    size_t n = json_array_size(list);
    json_t *answers;
    enum code code;

    if (n == 0)
        return OK;
    request.verb = VERB_HMAC;
    request.head =
        json_pack("{ss sO}", "purpose", "check-marker", "names", list);
    if (!request.head)
        return error_set(e, ERR_NOMEM, "no memory to check names");
    code = unlock_call(c, &request, (int)c->settings->hsm_deadline_ms, &reply,
                       NULL, e);
    if (code)
        return error_prefix(e, "cannot tell which accounts are ours");
    answers = json_object_get(reply.head, "ours");
    if (json_array_size(answers) != n)
        return error_set(e, ERR_KEEPER, "the keeper checked %zu of %zu names",
                         json_array_size(answers), n);
    for (size_t i = 0; i < n; i++)
        ours[places[i]] = json_is_true(json_array_get(answers, i));
    json_array_clear(list);
    return OK;
}

enum code marker_check(struct core *c, const char *const *names, size_t n,
                       bool *ours, struct error *e)
{
    JSON list = json_array();
    size_t places[CHECK_BATCH];
    enum code code = OK;

    for (size_t i = 0; !code && i < n; i++) {
        ours[i] = false;
        if (!marker_may_be(names[i]))
            continue;
        places[json_array_size(list)] = i;
        if (json_array_append_new(list, json_string(names[i])) != 0)
            return error_set(e, ERR_NOMEM, "no memory to check names");
        if (json_array_size(list) == CHECK_BATCH)
            code = ask(c, list, places, ours, e);
    }
    return code ? code : ask(c, list, places, ours, e);
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

void markers_forget(struct core *c)
{
    pthread_mutex_lock(&c->markers.lock);
    c->markers.n = 0;
    pthread_mutex_unlock(&c->markers.lock);
}
