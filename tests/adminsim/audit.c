/* The audit log of the organisation: creates, updates and deletes. */
#include "config.h"

#include "tests/adminsim/api.h"
#include "tests/adminsim/object.h"

#include <stdlib.h>
#include <string.h>

static bool in_time(const struct request *q, int64_t t)
{
    static const struct {
        const char *name;
        int sign, edge;
    } bounds[] = {{"effective_at[gte]", 1, 0},
                  {"effective_at[gt]", 1, 1},
                  {"effective_at[lte]", -1, 0},
                  {"effective_at[lt]", -1, 1}};
    for (size_t i = 0; i < sizeof bounds / sizeof bounds[0]; i++) {
        const char *v = query_value(q, bounds[i].name);
        if (v && (t - strtoll(v, NULL, 10)) * bounds[i].sign < bounds[i].edge)
            return false;
    }
    return true;
}

static json_t *show_event(const struct object *o, const struct request *q)
{
    const struct event *v = (const struct event *)o;
    const char *only = query_value(q, "tenant_only");
    bool tenant = !strncmp(o->name, "tenant.", 7);
    if (tenant != (only && !strcmp(only, "true")))
        return NULL;
    if (!in_time(q, o->created_ms / 1000) ||
        !query_admits(q, "event_types", o->name) ||
        !query_admits(q, "actor_ids", v->actor) ||
        !query_admits(q, "resource_ids", v->target) ||
        !query_admits(q, "project_ids", v->project ? v->project->o.id : ""))
        return NULL;
    return event_json(v);
}

static void event_list(struct request *q, struct reply *r)
{
    reply_list(q, r, &world.events, show_event, true);
}

const struct route audit_routes[] = {
    {"GET", "organization/audit_logs", true, event_list}, {0}};
