/* settings - how the double behaves until told otherwise; one table of names
 * for the control endpoint and the command line. Changed under world_lock(). */
#ifndef ADMINSIM_SETTINGS_H
#define ADMINSIM_SETTINGS_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

enum expiry { EXPIRY_HONOUR, EXPIRY_IGNORE, EXPIRY_REFUSE };

struct settings {
    int64_t latency_ms;
    int64_t latency_jitter_ms;
    int64_t visibility_ms; /* a new object reads 404 for so long */
    int64_t revoke_ms;     /* a deleted key still works for so long */
    int64_t rate_limit;    /* requests a window; 0: no limit */
    int64_t rate_window_ms;
    int64_t clock_offset_s;
    int64_t max_expiry_s;   /* a policy: expiry mandatory and capped; 0: none */
    int64_t max_name;       /* characters of a name */
    int64_t expiry;         /* enum expiry */
    bool retry_after;       /* 429 carries Retry-After */
    bool rate_headers;      /* replies carry x-ratelimit-…-requests */
    bool visibility_delete; /* DELETE of a not yet visible object is 404 too */
    bool account_key_delete; /* false: deleting one key of an account is 400 */
    bool self_delete;        /* an admin key may delete itself */
    bool null_cursors;       /* lists say first_id and last_id null */
    bool list_needs_any; /* key lists without owner_project_access are empty */
    bool check_organization;
};
extern struct settings settings;

/* From now on POST /_control/reset goes back to the present values. */
void settings_start(void);
void settings_reset(void);
/* NULL, or what is wrong (static text or the field's name in *field). */
const char *settings_apply(json_t *changes, const char **field);
json_t *settings_json(void);

#endif
