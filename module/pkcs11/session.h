/* session - PKCS#11 sessions and the login of this application.
 *
 * A session's handle is its number towards the daemon, and never used twice in
 * a process. The leases that are bound to it end with it: close, logout and
 * finalize tell the daemon (EndSession); an exit or SIGKILL tells it too, by
 * the end of our connections.
 */
#ifndef HSMINT_SESSION_H
#define HSMINT_SESSION_H

#include "module/pkcs11/module.h"
#include "module/pkcs11/slot.h"

#define SESSION_MAX 4096 /* of one application */

struct session {
    CK_SESSION_HANDLE handle;
    CK_SLOT_ID slot;
    bool rw;
    bool binds;     /* leases were bound to it */
    bool searching; /* C_FindObjectsInit … C_FindObjectsFinal */
    unsigned long search; /* the number of this search, or of the last */
    CK_OBJECT_HANDLE *found;
    size_t n_found, next_found;
    CK_OBJECT_HANDLE error_object; /* 0 until an error was kept */
};

struct session_table *session_table_new(void);
void session_table_free(struct session_table *t);

CK_RV session_open(struct call *c, CK_SLOT_ID slot, CK_FLAGS flags,
                   CK_SESSION_HANDLE *out);
CK_RV session_close(struct call *c);
CK_RV session_close_all(struct call *c, CK_SLOT_ID slot);
CK_RV session_info(struct call *c, CK_SESSION_INFO *info);
/* name: of C_LoginUser; none with length 0. */
CK_RV session_login(struct call *c, CK_USER_TYPE user, const CK_BYTE *pin,
                    CK_ULONG pin_len, const CK_UTF8CHAR *name,
                    CK_ULONG name_len);
CK_RV session_logout(struct call *c);
CK_RV session_cancel(struct call *c, CK_FLAGS flags);
/* What a daemon that was away was not told; after each call that it answers. */
void session_tell_unended(struct call *c);
/* C_Finalize: end what is bound; no session is left. */
void session_end_all(struct call *c);

/* Under the lock. NULL if there is none. */
struct session *session_find(struct session_table *t, CK_SESSION_HANDLE h);
void session_count(struct session_table *t, CK_SLOT_ID slot, CK_ULONG *all,
                   CK_ULONG *rw);
void session_drop_search(struct session *s);
void session_keep_error(struct module *m, struct session *s,
                        const struct error *e, CK_RV rv);

/* Preconditions, with the text of their refusal. */
CK_RV session_need_login(struct call *c);
/* A token object is to be made, changed or destroyed. */
CK_RV session_need_rw(struct call *c);
/* As which user, in the call's slot. */
enum login session_login_state(struct call *c);

#endif
