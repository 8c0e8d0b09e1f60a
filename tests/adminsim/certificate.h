/* certificate - a certificate authority of one certificate, made on the spot.
 */
#ifndef ADMINSIM_CERTIFICATE_H
#define ADMINSIM_CERTIFICATE_H

#include <stdbool.h>

/* Use or make dir/ca.pem, dir/server.pem, dir/server.key (for 127.0.0.1, ::1
 * and localhost). The authority's key is not kept. *cert and *key: PEM texts
 * of the caller's. */
bool certificate_get(const char *dir, char **cert, char **key);

#endif
