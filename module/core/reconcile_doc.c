/* reconcile_doc - see reconcile_doc.h. */
#include "config.h"

#include "module/core/reconcile_doc.h"

#include "common/clock.h"
#include "common/file.h"
#include "module/core/internal.h"
#include "module/core/logbook.h"

#include <string.h>

#define KIND "reconcile"

struct document {
    struct core *core;
    const char *name;
    char *body; /* NULL: to be deleted */
    const struct logbook_entry *entry;
};

static enum code put_document(struct store_tx *tx, void *ctx, struct error *e)
{
    const struct document *d = ctx;
    enum code code;

    if (d->body)
        code = store_document_put(tx, KIND, d->name, d->body, clock_wall_ms(),
                                  e);
    else if ((code = store_document_delete(tx, KIND, d->name, e)) ==
             ERR_NOT_FOUND)
        code = OK;
    return code || !d->entry ? code : logbook_add(d->core, tx, d->entry, e);
}

enum code reconcile_doc_keep(struct core *c, const char *name, json_t *body,
                             const struct logbook_entry *entry,
                             struct error *e)
{
    FREE char *text = json_text(body, JSON_COMPACT);
    struct document d = {c, name, text, entry};

    if (body && !text) /* without one it is deleted */
        return error_set(e, ERR_NOMEM, "no memory for a reconciliation");
    return store_commit(c->store, STORE_RESERVE, put_document, &d, e);
}

enum code reconcile_doc_load(struct core *c, const char *name, char **body,
                             struct error *e)
{
    CLEANUP(store_document_clear) struct store_document d = {.name = NULL};
    enum code code = store_document_get(c->store, KIND, name, &d, e);

    if (code == ERR_NOT_FOUND) {
        error_clear(e);
        return OK;
    }
    if (!code) {
        *body = d.body;
        d.body = NULL;
    }
    return code;
}

/* ---- progress ---- */

void reconcile_progress_clear(struct reconcile_progress *p)
{
    json_decref(p->done);
    json_decref(p->report);
    *p = (struct reconcile_progress){.done = NULL};
}

json_t *reconcile_progress_json(const struct reconcile_progress *p)
{
    return json_pack("{ss sI sb sO sO}", "job", p->job, "at_ms",
                     (json_int_t)p->at_ms, "complete", (int)p->complete,
                     "done", p->done, "report", p->report);
}

enum code reconcile_progress_parse(struct reconcile_progress *p,
                                   const char *text, struct error *e)
{
    static const char what[] = "progress of reconcile";
    const char *job = "";
    json_int_t at = 0;
    bool complete = false;
    json_t *done = NULL, *report = NULL;
    const struct json_field fields[] = {
        {"job", FIELD_STRING, true, &job, NULL},
        {"at_ms", FIELD_INT, true, &at, NULL},
        {"complete", FIELD_BOOL, true, &complete, NULL},
        {"done", FIELD_OBJECT, true, &done, NULL},
        {"report", FIELD_OBJECT, true, &report, NULL},
    };
    JSON body = NULL;
    enum code code = json_parse(text, strlen(text), what, &body, e);

    if (!code)
        code = json_decode(body, JSON_FIELDS(fields), false, what, e);
    if (!code && (!text_is_id(job) || at < 0 ||
                  !json_is_array(json_object_get(report, "findings")) ||
                  !json_is_array(json_object_get(report, "errors"))))
        code = error_set(e, ERR_SCHEMA, "%s: a member is no such thing", what);
    if (code)
        return code;
    strcpy(p->job, job);
    p->at_ms = at;
    p->complete = complete;
    p->done = json_incref(done);
    p->report = json_incref(report);
    return OK;
}
