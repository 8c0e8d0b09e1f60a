/* The daemon and its lock. */
#include "config.h"

#include "tools/hsmint.h"

enum code command_login(struct cli *c, struct error *e)
{
    return cli_login(c, false, e);
}

enum code command_hsm_unlock(struct cli *c, struct error *e)
{
    return cli_login(c, true, e);
}

enum code command_lock(struct cli *c, struct error *e)
{
    return cli_call(c, "Lock", cli_parameters(c, CLI_PLAIN, e), NULL, NULL,
                    NULL, e);
}

/* It may be gone before its answer is read. */
enum code command_stop(struct cli *c, struct error *e)
{
    enum code code = cli_connect(c, e);
    if (code == OK)
        code = client_connect(c->client, e);
    if (code)
        return code;
    json_t *p = cli_parameters(c, CLI_PLAIN, e);
    if (p && json_object_set_new(p, "force", json_boolean(c->args->force)))
        json_freep(&p);
    code = cli_call(c, "Stop", p, NULL, NULL, NULL, e);
    return code == ERR_DAEMON_DOWN ? OK : code;
}
