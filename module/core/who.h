/* who - a caller as policies see it: its identity with names looked up, or one
 * that `hsmint policy test` made up. */
#ifndef HSMINT_CORE_WHO_H
#define HSMINT_CORE_WHO_H

#include "common/error.h"
#include "common/json.h"
#include "module/core/identity.h"
#include "module/core/names.h"

/* Of users and groups that have no number here. */
#define WHO_OVERFLOW_ID 65534

struct who_name { /* a user or a group */
    bool has_id;
    uint32_t id;
    char *name; /* NULL: it has none, or nobody asked */
};

struct who {
    bool vouched; /* user: and group: may grant; they deny all the same */
    bool names_failed; /* a denial by name then matches */
    struct who_name user;
    struct who_name *groups;
    size_t groups_n;
    const char *unit, *exe; /* borrowed; "" if there is none */
    char login[IDENTITY_LOGIN_MAX];
    char owner[IDENTITY_OWNER_MAX];
    json_t *made_up; /* owns the texts of one that was */
};
void who_clear(struct who *w);
#define WHO CLEANUP(who_clear) struct who

/* `id` is borrowed. names NULL: no policy names anybody by name. */
MUST_CHECK enum code who_from_identity(struct who *w, const struct identity *id,
                                       const char *owner, struct name_cache *names,
                                       struct error *e);
/* {"user", "groups", "unit", "exe", "login"}, all optional; users and groups
 * by name or number. */
MUST_CHECK enum code who_from_json(struct who *w, json_t *fields,
                                   struct name_cache *names, struct error *e);

#endif
