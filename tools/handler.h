/* handler - what each method does: takes decoded arguments, calls core, shapes
 * the reply. Of the type method_fn, named after their methods. */
#ifndef HSMINT_HANDLER_H
#define HSMINT_HANDLER_H

#include "tools/method.h"

#define HANDLER(name)                                                          \
    MUST_CHECK enum code handle_##name(struct call *c,                         \
                                       const struct arguments *a,              \
                                       json_t **out, struct error *e)

HANDLER(attach);
HANDLER(login);
HANDLER(logout);
HANDLER(create_login);
HANDLER(rotate_login);
HANDLER(get_login);
HANDLER(list_logins);
HANDLER(delete_login);
HANDLER(lock);
HANDLER(stop);
HANDLER(status);
HANDLER(hsm);
HANDLER(check_service);
HANDLER(metrics);
HANDLER(slots);
HANDLER(audit_keys);
HANDLER(random);
HANDLER(end_session);
HANDLER(init);
HANDLER(set_config);
HANDLER(get_config);
HANDLER(rotate_config);
HANDLER(rotate_hsm);
HANDLER(compromised_hsm_key);
HANDLER(destroy_hsm_key);
HANDLER(ceremony);
HANDLER(restore_hsm);
HANDLER(get_recovery);
HANDLER(delete_config);
HANDLER(set_role);
HANDLER(get_role);
HANDLER(list_roles);
HANDLER(delete_role);
HANDLER(mint);
HANDLER(renew);
HANDLER(revoke);
HANDLER(revoke_many);
HANDLER(revoke_all);
HANDLER(revoke_all_status);
HANDLER(get_lease);
HANDLER(list_leases);
HANDLER(read_key);
HANDLER(label_lease);
HANDLER(set_policy);
HANDLER(get_policy);
HANDLER(list_policies);
HANDLER(delete_policy);
HANDLER(test_policy);
HANDLER(who_am_i);
HANDLER(records);
HANDLER(log_head);
HANDLER(log_proof);
HANDLER(log_consistency);
HANDLER(mark_exported);
HANDLER(prune_log);
HANDLER(accept_rollback);
HANDLER(whose);
HANDLER(reconcile);
HANDLER(reconcile_status);
HANDLER(backup);

#undef HANDLER

/* core's view of the caller. */
struct caller handler_caller(const struct call *c);
/* The organisation that is meant. */
const char *handler_org(const struct arguments *a);

#endif
