/* search - see search.h. */
#include "config.h"

#include "module/audit/search.h"

#include <string.h>

static bool is(const char *wanted, const char *there)
{
    return !wanted || (there && strcmp(wanted, there) == 0);
}

static bool has(const char *wanted, const struct record *r, const char *member)
{
    const char *text = json_string_value(json_object_get(r->json, member));
    return text && strcmp(wanted, text) == 0;
}

bool search_matches(const struct search *s, const struct record *r)
{
    int64_t ms = 0;
    (void)record_time_ms(r->time, &ms);
    return is(s->org, r->org) && is(s->lease, r->lease) &&
           is(s->role, r->role) && is(s->owner, r->owner) &&
           is(s->kind, record_kind_name(r->kind)) &&
           (!s->from_ms || ms >= s->from_ms) &&
           (!s->until_ms || ms < s->until_ms) &&
           (!s->request || has(s->request, r, "service_request_id") ||
            strcmp(s->request, r->call) == 0);
}
