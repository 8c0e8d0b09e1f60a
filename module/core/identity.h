/* identity - who a caller is, as its socket shows. spec/POLICY.md, "Identity".
 *
 * Collected once a connection by tools/peer.c; the login is the application's
 * and may change between calls. Owned by whoever collected it; core borrows.
 */
#ifndef HSMINT_CORE_IDENTITY_H
#define HSMINT_CORE_IDENTITY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define IDENTITY_LOGIN_MAX 64
#define IDENTITY_OWNER_MAX 80
#define IDENTITY_UNSET (-1)

struct identity {
    uid_t uid;
    gid_t *gids; /* the primary one first */
    size_t gids_n;
    pid_t pid;
    char *unit; /* "pay.service"; "" if it is in none of the system's */
    char *exe;  /* "" where it cannot be seen */
    /* Nothing vouches for uid and gids: root of a container, or /proc hides
     * the process. user: and group: then do not match. */
    bool borrowed;
    int64_t login_uid, audit_session; /* IDENTITY_UNSET */
    char login[IDENTITY_LOGIN_MAX];   /* "" without a named login */
};

/* "user:1000" or "login:NAME". */
void identity_owner(const struct identity *id, char owner[IDENTITY_OWNER_MAX]);
/* For records and refusals: "user:1000 (alice), unit pay.service, process 12"
 */
void identity_text(const struct identity *id, char *text, size_t cap);
void identity_clear(struct identity *id);

#endif
