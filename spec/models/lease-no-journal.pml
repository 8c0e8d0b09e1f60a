/* lease-no-journal.pml - the bug that the journal prevents: the lease's row is
 * written when the service has answered. spin finds the orphan: a crash or a
 * lost answer leaves an account that nothing leads to.
 *
 *   spin -run -a -f -ltl no_unknown_account lease-no-journal.pml
 *
 * Reconcile alone does not save it. With WITH_RECONCILE spin finds that it
 * deletes a key that is being handed out: without an intent in the store, an
 * account whose mint is under way looks like a stranger's.
 */
#define NO_JOURNAL
#ifndef WITH_RECONCILE
#define NO_RECONCILE
#endif
#include "lease.pml"
