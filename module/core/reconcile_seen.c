/* Ids that a run has seen: struct seen of reconcile_run.h. */
#include "config.h"

#include "module/core/reconcile_run.h"

#include <stdlib.h>

enum { FIRST_ROOM = 1024 };

/* FNV-1a. What a service could gain by a collision is that one lease is not
 * found vanished. */
static uint64_t hash(const char *id)
{
    uint64_t h = UINT64_C(14695981039346656037);

    for (; *id; id++)
        h = (h ^ (unsigned char)*id) * UINT64_C(1099511628211);
    return h ? h : 1;
}

static void put(uint64_t *slots, size_t room, uint64_t h)
{
    size_t i = h & (room - 1);

    while (slots[i] && slots[i] != h)
        i = (i + 1) & (room - 1);
    slots[i] = h;
}

static enum code grow(struct seen *s, struct error *e)
{
    size_t room = s->room ? 2 * s->room : FIRST_ROOM;
    uint64_t *slots = calloc(room, sizeof(*slots));

    if (!slots)
        return error_set(e, ERR_NOMEM, "no memory for a list of accounts");
    for (size_t i = 0; i < s->room; i++) {
        if (s->slots[i])
            put(slots, room, s->slots[i]);
    }
    free(s->slots);
    s->slots = slots;
    s->room = room;
    return OK;
}

enum code seen_add(struct seen *s, const char *id, struct error *e)
{
    if (seen_has(s, id))
        return OK;
    if (2 * s->n >= s->room) {
        enum code code = grow(s, e);

        if (code)
            return code;
    }
    put(s->slots, s->room, hash(id));
    s->n++;
    return OK;
}

bool seen_has(const struct seen *s, const char *id)
{
    uint64_t h = hash(id);

    for (size_t i = h & (s->room - 1); s->room && s->slots[i];
         i = (i + 1) & (s->room - 1)) {
        if (s->slots[i] == h)
            return true;
    }
    return false;
}

void seen_clear(struct seen *s)
{
    free(s->slots);
    *s = (struct seen){0};
}
