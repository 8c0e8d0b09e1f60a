/* slot - one slot an organisation; its id is the organisation's and does not
 * move.
 *
 * The list is asked from the daemon over a connection of its own, which starts
 * nothing and gives up after SLOT_WAIT_MS: programs that only look at their
 * slots must not be slowed. Without an answer the last list stands; without
 * one ever, there is the default organisation's slot. The token is present at
 * all times: taking it away would close the sessions of programs that only
 * have to wait for the daemon.
 */
#ifndef HSMINT_SLOT_H
#define HSMINT_SLOT_H

#include "module/pkcs11/module.h"

#define SLOT_WAIT_MS 100
#define SLOT_FRESH_MS 500 /* no new question within */
#define SLOT_DEFAULT_ID 1
#define SLOT_DEFAULT_ORG "default"
#define SLOT_PIN_MAX 255
#define SLOT_EVENT_MS 10000 /* so long C_WaitForSlotEvent waits at most */

#define SLOT_AS_MAX 63 /* bytes of a login's name */

enum login { LOGIN_NONE, LOGIN_USER, LOGIN_SO };

struct slot_table *slot_table_new(void);
void slot_table_free(struct slot_table *t);

/* What the C_* functions of the same names do. */
CK_RV slot_list(struct call *c, CK_SLOT_ID *list, CK_ULONG *count);
CK_RV slot_info(struct call *c, CK_SLOT_ID id, CK_SLOT_INFO *info);
CK_RV slot_token_info(struct call *c, CK_SLOT_ID id, CK_TOKEN_INFO *info);
/* C_WaitForSlotEvent: an organisation was made since. */
CK_RV slot_wait(struct call *c, CK_FLAGS flags, CK_SLOT_ID *id);
CK_RV slot_mechanisms(struct call *c, CK_SLOT_ID id, CK_MECHANISM_TYPE *list,
                      CK_ULONG *count);
CK_RV slot_mechanism_info(struct call *c, CK_SLOT_ID id, CK_MECHANISM_TYPE type,
                          CK_MECHANISM_INFO *info);

/* Ours, for all that ask for a version. */
CK_VERSION slot_version(void);

/* A session opens, and the daemon never answered in SLOT_WAIT_MS: ask by the
 * application's own connection. */
void slot_learn(struct call *c);
/* CKR_OK, or CKR_SLOT_ID_INVALID also after asking the daemon again. */
CK_RV slot_check(struct call *c, CK_SLOT_ID id);

/* Under the lock. The organisation's name, borrowed; NULL if unknown. */
const char *slot_org(struct slot_table *t, CK_SLOT_ID id);
enum login slot_login(struct slot_table *t, CK_SLOT_ID id);
void slot_set_login(struct slot_table *t, CK_SLOT_ID id, enum login login);
/* The daemon let us in: by a named login, or as what our socket shows (""). It
 * knows one identity of an application: logins of other slots by another end.
 * True: it is another identity than the last. */
bool slot_log_in(struct slot_table *t, CK_SLOT_ID id, enum login login,
                 const char *as);
bool slot_any_login(struct slot_table *t);
/* The daemon has forgotten us: C_Login may be called again. */
void slot_forget_logins(struct slot_table *t);

#endif
