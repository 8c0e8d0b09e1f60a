/* search - pending leases whose reply was lost: their accounts, by name. */
#ifndef HSMINT_CORE_SEARCH_H
#define HSMINT_CORE_SEARCH_H

#include "common/error.h"
#include "module/store/store.h"

struct core;

#define SEARCH_MAX 64 /* that one list is looked through for */

/* All of one organisation and project, without an account id; the project is
 * listed once. What is found gets its id (in the struct; the caller deletes
 * it). What is not is closed if it was looked for long enough, else its row
 * says when to look again. */
MUST_CHECK enum code search_accounts(struct core *c,
                                     struct store_lease **leases, int n,
                                     struct error *e);
/* When to look again at what was attempted at issued_ms; -1: it was looked for
 * long enough, as a call under way cannot arrive any more. */
int64_t search_next_look_ms(const struct core *c, int64_t issued_ms,
                            int64_t now_ms);
/* The same for a lease: where the service has answered its creation (500), no
 * call of it is under way, and a new account shows itself soon. */
int64_t search_next_of(const struct core *c, const struct store_lease *l,
                       int64_t now_ms);

#endif
