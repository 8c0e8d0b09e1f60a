/* What the HSM's keys sealed for leases: counted, and let go when they are lost.
 * Every row is read: it is asked once in an instance's life. */
#include "config.h"

#include "module/store/state.h"

#define COUNT_SQL                                                              \
    "SELECT total(sealed IS NOT NULL), total(probe IS NOT NULL),"              \
    " (SELECT count(*) FROM minted) FROM lease"                                \
    " WHERE sealed IS NOT NULL OR probe IS NOT NULL"
#define DROP_SQL                                                               \
    "UPDATE lease SET sealed = NULL, probe = NULL"                             \
    " WHERE sealed IS NOT NULL OR probe IS NOT NULL"

static enum code count(struct conn *c, struct store_seals *out, struct error *e)
{
    QUERY q = {.st = NULL};
    bool row = false;
    enum code code = query_open(&q, c, "count sealed values", COUNT_SQL, e);
    if (code == OK)
        code = query_step(&q, &row, e);
    if (code)
        return code;
    *out = (struct store_seals){.values = query_get_int(&q, 0),
                                .probes = query_get_int(&q, 1),
                                .minted = query_get_int(&q, 2)};
    return OK;
}

enum code store_seals_count(struct store *s, struct store_seals *out,
                            struct error *e)
{
    READER r = {.c = NULL};
    enum code code = reader_take(&r, s, e);
    return code ? code : count(r.c, out, e);
}

enum code store_seals_drop(struct store_tx *tx, struct store_seals *out,
                           struct error *e)
{
    QUERY q = {.st = NULL};
    enum code code = count(tx->c, out, e);
    if (code == OK)
        code = query_open(&q, tx->c, "let sealed values go", DROP_SQL, e);
    return code ? code : query_run(&q, e);
}
