/* hsmint audit head, key, prune, accept-rollback, whose: calls of the daemon. */
#include "config.h"

#include "tools/hsmint_audit.h"

#include "common/file.h"

#include <stdlib.h>
#include <string.h>

enum code audit_head(struct cli *c, bool sign, json_t **reply, struct error *e)
{
    JSON p = cli_parameters(c, CLI_PLAIN, e);
    if (p && sign && json_object_set_new(p, "sign", json_true()) != 0)
        return error_set(e, ERR_NOMEM, "no memory for a call");
    return cli_call(c, "LogHead", json_incref(p), NULL, reply, NULL, e);
}

static void warn_of_rollback(const json_t *head)
{
    if (json_is_true(json_object_get(head, "rolled_back")))
        (void)fprintf(stderr,
                      "hsmint: warning: the store was rolled back, restored or "
                      "copied; `hsmint explain log-rolled-back`\n");
}

/* The note as it is: good for --since, and for who keeps it elsewhere. */
enum code command_audit_head(struct cli *c, struct error *e)
{
    JSON reply = NULL;
    const char *note = "";
    const struct json_field fields[] = {
        {"checkpoint", FIELD_STRING, true, &note, NULL}};
    enum code rc = audit_head(c, c->args->sign, &reply, e);
    if (rc == OK)
        rc = json_decode(reply, JSON_FIELDS(fields), true, "LogHead", e);
    if (rc)
        return rc;
    warn_of_rollback(reply);
    if (c->args->json)
        output_json(reply);
    else if (!*note)
        return error_set(e, ERR_NOT_FOUND,
                         "nothing was signed yet; --sign asks for it");
    else
        printf("%s", note);
    return OK;
}

enum code command_audit_key(struct cli *c, struct error *e)
{
    JSON reply = NULL;
    json_t *keys = NULL, *one;
    size_t i;
    const struct json_field fields[] = {
        {"keys", FIELD_ARRAY, true, &keys, NULL}};
    enum code rc = audit_head(c, false, &reply, e);
    if (rc == OK)
        rc = json_decode(reply, JSON_FIELDS(fields), true, "LogHead", e);
    if (rc)
        return rc;
    if (c->args->json) {
        output_json(keys);
        return OK;
    }
    json_array_foreach(keys, i, one)
    {
        const char *text = json_string_value(one);
        printf("%s\n", text ? text : "");
    }
    return json_array_size(keys)
               ? OK
               : error_set(e, ERR_NOT_FOUND,
                           "the log has no key yet: `hsmint init` makes it");
}

/* ---- what was exported may go ---- */

/* `more` (NULL: none) is the text of the member `name`. */
static enum code with_size(struct cli *c, const char *method, uint64_t size,
                           const char *name, const char *more, json_t **reply,
                           struct error *e)
{
    JSON p = cli_parameters(c, CLI_CHANGE, e);
    if (p && (json_object_set_new(p, "size", json_integer((json_int_t)size)) ||
              (more && json_object_set_new(p, name, json_string(more)))))
        return error_set(e, ERR_NOMEM, "no memory for a call");
    return cli_call(c, method, json_incref(p), NULL, reply, NULL, e);
}

enum code audit_mark_exported(struct cli *c, uint64_t size,
                              const char *failure, struct error *e)
{
    return with_size(c, "MarkExported", size, "reason", failure, NULL, e);
}

/* A number of records, or a checkpoint's file; *note, its text, is the caller's
 * to free. */
static enum code read_before(const char *text, uint64_t *size, char **note,
                             struct error *e)
{
    struct note n;
    struct checkpoint c;
    size_t len;
    if (*text && strspn(text, "0123456789") == strlen(text)) {
        *size = strtoull(text, NULL, 10);
        return OK;
    }
    enum code rc = file_read(text, NOTE_MAX, FILE_ANY, note, &len, e);
    if (rc == OK)
        rc = note_parse(&n, *note, len, e);
    if (rc == OK)
        rc = checkpoint_parse(&c, n.text, n.text_len, e);
    if (rc)
        return error_prefix(e, "--before %s", text);
    *size = c.size;
    return OK;
}

enum code command_audit_prune(struct cli *c, struct error *e)
{
    JSON reply = NULL;
    uint64_t size;
    json_int_t pruned = 0;
    const struct json_field fields[] = {
        {"pruned", FIELD_INT, true, &pruned, NULL}};
    if (!c->args->before)
        return error_set(e, ERR_USAGE,
                         "give --before SIZE|CHECKPOINT: so many records were "
                         "exported, and may go");
    FREE char *note = NULL;
    enum code rc = read_before(c->args->before, &size, &note, e);
    if (rc == OK)
        rc = with_size(c, "PruneLog", size, "checkpoint", note, &reply, e);
    if (rc == OK)
        rc = json_decode(reply, JSON_FIELDS(fields), true, "PruneLog", e);
    if (rc)
        return rc;
    if (c->args->json)
        output_json(reply);
    else
        printf("%lld records went%s\n", (long long)pruned,
               pruned ? ""
                      : ": what goes is whole tiles of 256 records");
    return OK;
}

enum code command_audit_accept(struct cli *c, struct error *e)
{
    if (!c->args->reason)
        return error_set(e, ERR_USAGE,
                         "give --reason TEXT: it goes into the log");
    JSON p = cli_parameters(c, CLI_CHANGE, e);
    if (!p || cli_put(p, "reason", c->args->reason, e))
        return e->code;
    return cli_call(c, "AcceptRollback", json_incref(p), NULL, NULL, NULL, e);
}

/* ---- a key that leaked ---- */

static enum code print_whose(struct cli *c, json_t *reply, struct error *e)
{
    const char *line = "";
    json_t *lease = NULL;
    const struct json_field fields[] = {
        {"record", FIELD_STRING, true, &line, NULL},
        {"lease", FIELD_OBJECT, false, &lease, NULL},
    };
    RECORD r = {.json = NULL};
    enum code rc = json_decode(reply, JSON_FIELDS(fields), true, "Whose", e);
    if (rc == OK)
        rc = record_parse(&r, line, strlen(line), e);
    if (rc)
        return rc;
    JSON told = json_pack("{ss ss ss ss sO sI sO?}", "lease_id", r.lease,
                          "role", r.role, "owner", r.owner, "minted", r.time,
                          "actor", r.actor, "seq", (json_int_t)r.seq, "lease",
                          lease);
    if (!told)
        return error_set(e, ERR_NOMEM, "an answer");
    if (c->args->json)
        output_json(told);
    else
        output_fields(told);
    return OK;
}

enum code command_audit_whose(struct cli *c, struct error *e)
{
    SECRET key = NULL;
    JSON reply = NULL;
    bool known = false;
    json_int_t untold = 0;
    const char *since = "";
    const struct json_field fields[] = {
        {"found", FIELD_BOOL, true, &known, NULL},
        {"untold_until", FIELD_INT, false, &untold, NULL},
        {"since", FIELD_STRING, false, &since, NULL},
    };
    enum code rc = read_secret(&key, "-", "minted key", e);
    if (rc)
        return rc;
    rc = cli_call(c, "Whose", cli_parameters(c, CLI_PLAIN, e), key, &reply,
                  NULL, e);
    secret_clear_registers();
    if (rc == OK)
        rc = json_decode(reply, JSON_FIELDS(fields), true, "Whose", e);
    if (rc)
        return rc;
    if (!known && untold > 0)
        return error_set(e, ERR_NOT_FOUND,
                         "no key that was minted after record %lld is this "
                         "one. Of older ones it cannot be told: the HMAC key "
                         "was lost with the HSM (%s)",
                         (long long)untold, since);
    return known ? print_whose(c, reply, e)
                 : error_set(e, ERR_NOT_FOUND,
                             "no key that was minted here is this one");
}
