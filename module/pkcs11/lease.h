/* lease - the secret key objects: leases as the daemon tells them. */
#ifndef HSMINT_LEASE_H
#define HSMINT_LEASE_H

#include "module/pkcs11/object.h"

#define LEASE_LABEL_MAX 255
#define LEASE_ID_MAX 64 /* bytes of CKA_ID */

/* Under the lock. A lease of the protocol (borrowed) into the table; NULL with
 * *e filled when it is none, or no memory. */
struct object *lease_put(struct call *c, json_t *lease, struct error *e);
/* {"lease_id": …} with a request id where `changes`. */
json_t *lease_parameters(struct call *c, const char *lease_id, bool changes);

#endif
