/* keeper_process - how a keeper comes to be, and how it ends: a child of ours
 * (spawn), or a process of another user behind [daemon] keeper_socket
 * (connect). Both are a keeper_start_fn whose context is the keeper_options.
 */
#ifndef HSMINT_CORE_KEEPER_PROCESS_H
#define HSMINT_CORE_KEEPER_PROCESS_H

#include "module/core/keeper.h"

enum code keeper_spawn(void *options, const int *sockets, int n,
                       struct keeper_process *out, struct error *e);
enum code keeper_connect(void *options, const int *sockets, int n,
                         struct keeper_process *out, struct error *e);

/* True: it ended by itself. */
bool keeper_process_ended(const struct keeper_process *p);
/* Ends it. *left (-1: none): the pidfd of a child that SIGKILL has not ended
 * yet, for keeper_process_reap(); p is empty then. */
void keeper_process_end(struct keeper_process *p, int *left);
/* False: not yet. True: gone, and the pidfd closed. */
bool keeper_process_reap(int pidfd);

#endif
