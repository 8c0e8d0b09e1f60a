/* pins - see pins.h. */
#include "config.h"

#include "module/core/pins.h"

#include "common/file.h"
#include "module/core/internal.h"
#include "module/core/keys_record.h"
#include "module/core/keystates.h"

#include <string.h>

enum code pins_put(struct core *c, struct store_tx *tx, const struct caller *by,
                   const char *text, const char *reason, struct error *e)
{
    enum code code = store_meta_put(tx, META_PINS, text, strlen(text), e);

    if (!code)
        code = keys_record_put(c, tx, text, e);
    return code ? code : keystates_note(c, tx, by, text, reason, e);
}

enum code pins_get(struct core *c, json_t **pins, struct error *e)
{
    FREE void *text = NULL;
    size_t len;
    enum code code = store_meta_get(c->store, META_PINS, &text, &len, e);

    return code ? code : json_parse(text, len, "pinned HSM keys", pins, e);
}
