/* hosts - [service] hosts: which hosts an endpoint may name.
 *
 * Names with blanks between them. A name matches itself, "*.NAME" all below
 * NAME and not NAME itself; letters of either case are the same, and no port: all of
 * a host's are meant. IPv6 as in a URL, in brackets.
 */
#ifndef HSMINT_HOSTS_H
#define HSMINT_HOSTS_H

#include <stdbool.h>

#define HOSTS_DEFAULT "api.openai.com *.api.openai.com"

bool hosts_valid(const char *list); /* at least one, no other wildcard */
bool hosts_match(const char *list, const char *host);

#endif
