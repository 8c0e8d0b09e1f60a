#include "config.h"

#include "module/core/identity.h"

#include "common/text.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* A long name is cut, and told apart by a hash (FNV-1a): only the system's
 * administrator names units. */
static void unit_owner(const char *unit, char owner[IDENTITY_OWNER_MAX])
{
    uint64_t hash = UINT64_C(0xcbf29ce484222325);
    for (const char *c = unit; *c; c++)
        hash = (hash ^ (unsigned char)*c) * UINT64_C(0x100000001b3);
    if (snprintf(owner, IDENTITY_OWNER_MAX, "unit:%s", unit) >=
        IDENTITY_OWNER_MAX)
        snprintf(owner + IDENTITY_OWNER_MAX - 18, 18, "~%016llx",
                 (unsigned long long)hash);
}

/* A uid that nothing vouches for would let a container's root have the leases
 * of whomever it likes. */
void identity_owner(const struct identity *id, char owner[IDENTITY_OWNER_MAX])
{
    if (id->login[0])
        snprintf(owner, IDENTITY_OWNER_MAX, "login:%s", id->login);
    else if (id->borrowed && id->unit && id->unit[0])
        unit_owner(id->unit, owner);
    else
        snprintf(owner, IDENTITY_OWNER_MAX, "user:%lu", (unsigned long)id->uid);
}

/* As much of it as fits. */
static void add(char *text, size_t cap, const char *fmt, ...) PRINTF(3, 4);
static void add(char *text, size_t cap, const char *fmt, ...)
{
    size_t used = strlen(text);
    va_list args;
    va_start(args, fmt);
    vsnprintf(text + used, cap - used, fmt, args);
    va_end(args);
}

void identity_text(const struct identity *id, char *text, size_t cap)
{
    char owner[IDENTITY_OWNER_MAX], shown[256];
    identity_owner(id, owner);
    text[0] = '\0';
    add(text, cap, "%s", owner);
    if (id->login[0])
        add(text, cap, ", user:%lu", (unsigned long)id->uid);
    if (id->borrowed)
        add(text, cap, " (not vouched for)");
    if (id->unit && id->unit[0])
        add(text, cap, ", unit %s", id->unit);
    if (id->exe && id->exe[0]) {
        text_escape(shown, sizeof shown, id->exe, strlen(id->exe));
        add(text, cap, ", %s", shown);
    }
    if (id->pid > 0)
        add(text, cap, ", process %d", (int)id->pid);
}

void identity_clear(struct identity *id)
{
    free(id->gids);
    free(id->unit);
    free(id->exe);
    *id = (struct identity){.login_uid = IDENTITY_UNSET,
                            .audit_session = IDENTITY_UNSET};
}
