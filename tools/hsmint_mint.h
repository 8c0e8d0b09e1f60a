/* hsmint_mint - a key, its lease and what the daemon says about it. */
#ifndef HSMINT_TOOLS_HSMINT_MINT_H
#define HSMINT_TOOLS_HSMINT_MINT_H

#include "tools/hsmint.h"

struct minted {
    json_t *reply; /* owns the two below */
    const json_t *lease;
    const json_t *warnings; /* may be NULL */
    struct secret *key;
};
/* role NULL: the default one. flag: "reuse", "bound" or NULL. */
MUST_CHECK enum code mint_call(struct cli *c, const char *role,
                               const char *flag, struct minted *m,
                               struct error *e);
void minted_clear(struct minted *m);

#endif
