/* logread - see logread.h. */
#include "config.h"

#include "module/core/logread.h"

static enum code not_yet(struct error *e)
{
    return error_set(e, ERR_NOT_FOUND, "the log has no tree yet");
}

enum code core_log_records(struct core *c, const struct logread_query *q,
                           json_t **out, struct error *e)
{
    (void)c, (void)q, (void)out;
    return not_yet(e);
}

enum code core_log_head(struct core *c, bool sign, json_t **out,
                        struct error *e)
{
    (void)c, (void)sign, (void)out;
    return not_yet(e);
}

enum code core_log_proof(struct core *c, int64_t seq, int64_t size,
                         json_t **out, struct error *e)
{
    (void)c, (void)seq, (void)size, (void)out;
    return not_yet(e);
}

enum code core_log_consistency(struct core *c, int64_t from, int64_t to,
                               json_t **out, struct error *e)
{
    (void)c, (void)from, (void)to, (void)out;
    return not_yet(e);
}

enum code core_log_exported(struct core *c, const struct caller *by,
                            int64_t size, struct error *e)
{
    (void)c, (void)by, (void)size;
    return not_yet(e);
}

enum code core_log_prune(struct core *c, const struct caller *by, int64_t size,
                         int64_t *pruned, struct error *e)
{
    (void)c, (void)by, (void)size, (void)pruned;
    return not_yet(e);
}

enum code core_whose(struct core *c, int fd, json_t **out, struct error *e)
{
    (void)c, (void)fd, (void)out;
    return not_yet(e);
}
