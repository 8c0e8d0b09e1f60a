/* hsmint audit verify: a copy of the log, or the proof of one record. */
#include "config.h"

#include "tools/hsmint_audit.h"

#include "common/base64.h"
#include "common/file.h"
#include "common/text.h"
#include "module/audit/proof.h"

#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

/* ---- the proof of one record ---- */

static bool is_proof(const char *path)
{
    char begin[64];
    struct stat st;
    if (stat(path, &st) < 0 || !S_ISREG(st.st_mode))
        return false;
    FD fd = open(path, O_RDONLY | O_CLOEXEC);
    ssize_t n = fd < 0 ? -1 : read(fd, begin, sizeof begin);
    return n > 0 && proof_is(begin, (size_t)n);
}

static enum code print_proof_json(const struct proof *p, const struct record *r,
                                  const struct checkpoint *c,
                                  const struct error *why, struct error *e)
{
    FREE char *root = base64_encode(c->root.bytes, MERKLE_HASH);
    JSON verdict = json_pack(
        "{ss ss sI ss sI ss sO?}", "verdict", why->code ? "faults" : "holds",
        "text", why->text, "seq", (json_int_t)p->index + 1, "origin", c->origin,
        "size", (json_int_t)c->size, "root", root && *c->origin ? root : "",
        "record", why->code ? NULL : r->json);
    if (!verdict)
        return error_set(e, ERR_NOMEM, "a verdict");
    output_json(verdict);
    return OK;
}

static enum code tell_proof(struct cli *c, const struct proof *p,
                            const struct record *r, const struct checkpoint *cp,
                            const struct error *why, struct error *e)
{
    c->status = why->code ? 1 : 0;
    if (c->args->json)
        return print_proof_json(p, r, cp, why, e);
    char text[OUTPUT_TEXT_MAX], origin[OUTPUT_TEXT_MAX];
    (void)text_escape(text, sizeof text, why->text, strlen(why->text));
    (void)text_escape(origin, sizeof origin, cp->origin, strlen(cp->origin));
    if (why->code) {
        printf("%s\nFAULT: this proof of seq %" PRIu64 " does not hold.\n",
               text, p->index + 1);
        return OK;
    }
    output_fields(r->json);
    printf("\nThe proof holds: this is record %" PRIu64 " of log %s, which "
           "signed %" PRIu64 " records.\n",
           p->index + 1, origin, cp->size);
    return OK;
}

static enum code verify_proof(struct cli *c, const char *path, struct error *e)
{
    CLEANUP(keyring_freep) struct keyring *keys = NULL;
    FREE char *bytes = NULL;
    PROOF proof = {.index = 0};
    RECORD record = {.json = NULL};
    struct checkpoint checkpoint = {.size = 0};
    struct error why = {.code = OK};
    size_t len;
    enum code rc = audit_keyring(c->args, &keys, e);
    if (rc == OK && !keyring_was_given(keys))
        rc = error_set(e, ERR_USAGE,
                       "a proof says nothing without the log's key: give "
                       "--key with what `hsmint audit key` tells");
    if (rc == OK)
        rc = file_read(path, PROOF_MAX, FILE_ANY, &bytes, &len, e);
    if (rc)
        return rc;
    rc = proof_parse(&proof, bytes, len, &why);
    if (rc == OK)
        rc = proof_check(&proof, keys, &record, &checkpoint, &why);
    if (rc == ERR_NOMEM) {
        *e = why;
        return rc;
    }
    return tell_proof(c, &proof, &record, &checkpoint, &why, e);
}

/* ---- a copy of the log ---- */

static enum code verify_copy(struct cli *c, const char *path, struct error *e)
{
    AUDIT_VERDICT v = {.args = c->args};
    enum code rc = audit_verify(&v, path, e);
    if (rc)
        return rc;
    c->status = v.result.faults ? 1 : 0;
    if (!c->args->json) {
        audit_verdict_print(&v, path);
        return OK;
    }
    JSON verdict = audit_verdict_json(&v, path);
    if (!verdict)
        return error_set(e, ERR_NOMEM, "a verdict");
    output_json(verdict);
    return OK;
}

enum code command_audit_verify(struct cli *c, struct error *e)
{
    const char *path = c->args->words[0];
    return is_proof(path) ? verify_proof(c, path, e) : verify_copy(c, path, e);
}
