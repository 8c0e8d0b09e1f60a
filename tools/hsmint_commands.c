#include "config.h"

#include "tools/hsmint.h"

const struct command commands[] = {
    {"init", "", "Set up an organisation: the HSM's keys, the daemon",
     command_init, "hsm-module hsm-uri pin-source softhsm-conf hsm-env", 0, 0,
     true, false},
    {"config set", "FIELD=VALUE...", "Set the admin key and its organisation",
     command_config_set, "", 1, ARGS_WORDS_MAX, true, false},
    {"config show", "", "Show the configuration, without the key",
     command_config_show, "", 0, 0, true, false},
    {"config delete", "", "Forget the admin key and its configuration",
     command_config_delete, "", 0, 0, true, false},
    {"role set", "ROLE FIELD=VALUE...", "Make or change a role",
     command_role_set, "", 1, ARGS_WORDS_MAX, true, false},
    {"role show", "ROLE", "Show a role", command_role_show, "", 1, 1, true,
     false},
    {"role list", "", "List the roles", command_role_list, "", 0, 0, true,
     false},
    {"role delete", "ROLE", "Delete a role", command_role_delete, "", 1, 1,
     true, false},
    {"mint", "[ROLE]", "Mint a key and show it with its lease", command_mint,
     "ttl", 0, 1, true, false},
    {"key", "[ROLE]", "Print a key alone; the same one until it is old",
     command_key, "ttl", 0, 1, true, false},
    {"exec", "[--role ROLE] -- PROGRAM...",
     "Run a program with a key that dies with it", command_exec, "role ttl", 0,
     0, true, true},
    {"lease list", "", "List leases, newest first", command_lease_list,
     "role all history limit", 0, 0, true, false},
    {"lease show", "LEASE_ID", "Show a lease", command_lease_show, "", 1, 1,
     true, false},
    {"lease renew", "LEASE_ID", "Give a lease more time", command_lease_renew,
     "ttl", 1, 1, true, false},
    {"lease revoke", "LEASE_ID...", "End leases now", command_lease_revoke, "",
     1, ARGS_WORDS_MAX, true, false},
    {"status", "", "Show how daemon, HSM and leases are", command_status, "", 0,
     0, true, false},
    {"login", "", "Unlock the daemon with the HSM's PIN", command_login, "so",
     0, 0, true, false},
    {"unlock", "", "The same as login", command_login, "so", 0, 0, true, false},
    {"lock", "", "Let the daemon forget the PIN", command_lock, "", 0, 0, false,
     false},
    {"hsm show", "", "Show the HSM and its keys", command_hsm_show, "", 0, 0,
     true, false},
    {"hsm unlock", "", "Try a PIN that was held back", command_hsm_unlock, "",
     0, 0, true, false},
    {"daemon stop", "", "Stop the user's daemon", command_stop, "force", 0, 0,
     false, false},
    {"version", "", "Show the version", command_version, "", 0, 0, false,
     false},
    {NULL, NULL, NULL, NULL, NULL, 0, 0, false, false},
};

enum code command_version(struct cli *c, struct error *e)
{
    (void)e;
    if (c->args->json)
        printf("{\n  \"version\": \"%s\"\n}\n", PACKAGE_VERSION);
    else
        printf("hsmint %s\n", PACKAGE_VERSION);
    return OK;
}
