/* refusals - see refusals.h. */
#include "config.h"

#include "module/core/refusals.h"

#include <stdio.h>
#include <string.h>

/* The owner's place, or the one that was still for longest, whose count goes
 * to all. */
static struct refusals_owner *place(struct refusals *r, const char *owner)
{
    struct refusals_owner *oldest = &r->owners[0];

    for (size_t i = 0; i < REFUSALS_OWNERS; i++) {
        struct refusals_owner *o = &r->owners[i];

        if (strcmp(o->owner, owner) == 0)
            return o;
        if (!*o->owner) {
            oldest = o;
            break;
        }
        if (o->second < oldest->second)
            oldest = o;
    }
    r->all.left_out += oldest->left_out;
    *oldest = (struct refusals_owner){.second = -1, .hour = -1};
    snprintf(oldest->owner, sizeof(oldest->owner), "%s", owner);
    return oldest;
}

static bool has_room(struct refusals_owner *o, int64_t second, int most)
{
    if (o->second != second) {
        o->second = second;
        o->written = 0;
    }
    return o->written < most;
}

static bool has_hour(struct refusals_owner *o, int64_t hour, int most)
{
    if (o->hour != hour) {
        o->hour = hour;
        o->in_hour = 0;
    }
    return o->in_hour < most;
}

bool refusals_take(struct refusals *r, const char *owner, int64_t now_ms,
                   int64_t *left_out, int64_t *left_out_others)
{
    struct refusals_owner *o;
    bool take;

    pthread_mutex_lock(&r->lock);
    o = place(r, owner);
    take = has_room(o, now_ms / 1000, REFUSALS_OF_ONE) &&
           has_hour(o, now_ms / 3600000, REFUSALS_HOURLY) &&
           has_room(&r->all, now_ms / 1000, REFUSALS_OF_ALL) &&
           has_hour(&r->all, now_ms / 3600000, REFUSALS_HOURLY_ALL);
    *left_out = *left_out_others = 0;
    if (take) {
        o->written++;
        o->in_hour++;
        r->all.written++;
        r->all.in_hour++;
        *left_out = o->left_out;
        *left_out_others = r->all.left_out;
        o->left_out = r->all.left_out = 0;
    } else {
        o->left_out++;
    }
    pthread_mutex_unlock(&r->lock);
    return take;
}

void refusals_give_back(struct refusals *r, const char *owner, int64_t n,
                        int64_t others)
{
    pthread_mutex_lock(&r->lock);
    place(r, owner)->left_out += n;
    r->all.left_out += others;
    pthread_mutex_unlock(&r->lock);
}

int64_t refusals_rest(struct refusals *r)
{
    int64_t n;

    pthread_mutex_lock(&r->lock);
    n = r->all.left_out;
    r->all.left_out = 0;
    for (size_t i = 0; i < REFUSALS_OWNERS; i++) {
        n += r->owners[i].left_out;
        r->owners[i].left_out = 0;
    }
    pthread_mutex_unlock(&r->lock);
    return n;
}
