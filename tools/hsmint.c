#include "config.h"

#include "tools/hsmint.h"

#include <string.h>
#include <sys/prctl.h>

/* Known before the arguments are: their own errors are told that way, too. */
static bool wants_json(int argc, char **argv)
{
    for (int i = 1; i < argc && strcmp(argv[i], "--") != 0; i++)
        if (strcmp(argv[i], "--json") == 0)
            return true;
    return false;
}

static enum code run(int argc, char **argv, int *status, struct error *e)
{
    struct args args;
    struct cli c = {.args = &args};
    enum code code = args_parse(&args, &c.command, argc - 1, argv + 1, e);
    if (code)
        return code;
    if (args.help)
        args_help(stdout, &args, c.command);
    else if (args.version)
        code = command_version(&c, e);
    else
        code = c.command->main(&c, e);
    client_free(c.client);
    *status = c.status;
    return code;
}

int main(int argc, char **argv)
{
    struct error e = {.code = OK};
    int status = 0;
#ifndef __SANITIZE_ADDRESS__ /* which traces itself to find leaks */
    /* A key may pass through: no core holds it, no debugger of ours sees it. */
    (void)prctl(PR_SET_DUMPABLE, 0, 0, 0, 0);
#endif
    enum code code = run(argc, argv, &status, &e);
    struct error lost = {.code = OK};
    enum code flushed = output_flush(code ? &lost : &e);
    if (code == OK)
        code = flushed;
    if (code == OK)
        return status;
    output_error(&e, error_exit_code(code), wants_json(argc, argv));
    return error_exit_code(code);
}
