/* identity - who a caller is, as its socket shows. spec/POLICY.md, "Identity".
 *
 * Collected once a connection by tools/peer.c, as it was at connect; the login
 * is the application's and may change between calls. Owned by whoever
 * collected it; core borrows.
 */
#ifndef HSMINT_CORE_IDENTITY_H
#define HSMINT_CORE_IDENTITY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define IDENTITY_LOGIN_MAX 64
#define IDENTITY_OWNER_MAX 80
#define IDENTITY_TEXT_MAX 512
#define IDENTITY_UNSET (-1)

struct identity {
    uid_t uid;
    gid_t *gids; /* the primary one first; without the overflow gid */
    size_t gids_n;
    pid_t pid;  /* 0: of a pid namespace that we do not see */
    char *unit; /* "pay.service"; "" if it is in none of the system's */
    char *exe;  /* "" where it cannot be seen, or was deleted */
    /* Nothing vouches for uid and gids: another pid or user namespace than
     * ours, the overflow uid, a process that ended before it was looked at, or
     * /proc hides it. user: and group: then grant nothing. */
    bool borrowed;
    int64_t login_uid, audit_session; /* IDENTITY_UNSET */
    uint64_t place;                 /* hash of its control group: which of many
                                       borrowed ones; 0 if not known */
    char login[IDENTITY_LOGIN_MAX]; /* "" without a named login */
};

/* "user:1000" or "login:NAME"; "unit:NAME" where nothing vouches for the uid. */
void identity_owner(const struct identity *id, char owner[IDENTITY_OWNER_MAX]);
/* For records and refusals: "user:1000, unit pay.service, process 12". No name
 * is looked up: it may change, and who answers may be slow. */
void identity_text(const struct identity *id, char *text, size_t cap);
/* Frees what it owns; takes one that is zeroed. */
void identity_clear(struct identity *id);

#endif
