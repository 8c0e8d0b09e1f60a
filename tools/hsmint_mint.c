#include "config.h"

#include "tools/hsmint.h"

#include "tools/hsmint_mint.h"

enum code mint_call(struct cli *c, const char *role, const char *flag,
                    struct minted *m, struct error *e)
{
    int64_t ttl;
    enum code code = args_duration("ttl", c->args->ttl, &ttl, e);
    if (code)
        return code;
    JSON p = cli_parameters(c, CLI_ORG | CLI_CHANGE, e);
    if (!p)
        return e->code;
    code = cli_put(p, "role", role, e);
    if (code)
        return code;
    if ((ttl && json_object_set_new(p, "ttl", json_integer(ttl)) != 0) ||
        (flag && json_object_set_new(p, flag, json_true()) != 0))
        return error_set(e, ERR_NOMEM, "no memory for a call");
    code = cli_call(c, "Mint", json_incref(p), NULL, &m->reply, &m->key, e);
    if (code)
        return code;
    m->lease = json_object_get(m->reply, "lease");
    m->warnings = json_object_get(m->reply, "warnings");
    if (!m->lease || !m->key)
        return error_set(e, ERR_PROTOCOL,
                         "the daemon's answer has no %s: its lease ends by "
                         "itself",
                         m->lease ? "key" : "lease");
    return OK;
}

void minted_clear(struct minted *m)
{
    json_freep(&m->reply);
    secret_freep(&m->key);
}

static const char *role_of(const struct args *a)
{
    return a->words_n > 0 ? a->words[0] : NULL;
}

/* A key that could not be shown is nobody's: it must not live on. */
static enum code give_up(struct cli *c, const struct minted *m, struct error *e)
{
    const char *id = json_string_value(json_object_get(m->lease, "lease_id"));
    struct error why = {.code = OK};
    json_t *p = cli_parameters(c, CLI_CHANGE, &why);
    enum code code = p ? cli_put(p, "lease_id", id, &why) : why.code;
    if (code)
        json_decref(p);
    else
        code = cli_call(c, "Revoke", p, NULL, NULL, NULL, &why);
    return error_prefix(e, "lease %s %s", id ? id : "?",
                        code ? "lives on, and its key was not shown"
                             : "is revoked, as its key was not shown");
}

enum code command_mint(struct cli *c, struct error *e)
{
    CLEANUP(minted_clear) struct minted m = {.key = NULL};
    enum code code = mint_call(c, role_of(c->args), NULL, &m, e);
    if (code)
        return code;
    code = output_minted(m.lease, m.warnings, m.key, c->args->json, e);
    return code ? give_up(c, &m, e) : OK;
}

enum code command_key(struct cli *c, struct error *e)
{
    CLEANUP(minted_clear) struct minted m = {.key = NULL};
    enum code code = mint_call(c, role_of(c->args), "reuse", &m, e);
    if (code)
        return code;
    if (c->args->json)
        return output_minted(m.lease, m.warnings, m.key, true, e);
    output_warnings(m.warnings);
    return output_secret(m.key, e);
}
