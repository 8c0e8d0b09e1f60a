/* module - one application's use of us, from C_Initialize to C_Finalize.
 *
 * struct module lives between the two, and as long as a call that was inside
 * when C_Finalize came: each C_* call holds a reference (struct call). One lock
 * guards everything in it; it is never held across a call to the daemon, so
 * whoever comes back from one looks up again what it works on.
 *
 * A forked child owns nothing of its parent's: until it calls C_Initialize
 * itself, every function answers CKR_CRYPTOKI_NOT_INITIALIZED. Nothing is
 * hooked into the process: no constructor, atexit, atfork or signal handler.
 */
#ifndef HSMINT_MODULE_H
#define HSMINT_MODULE_H

#include "common/client.h"
#include "common/file.h"
#include "common/json.h"
#include "common/text.h"
#include "module/pkcs11/cryptoki.h"

struct module;
struct object_table;
struct session_table;
struct slot_table;

/* One C_* call. Owner: entry.c's stack. */
struct call {
    struct module *in;
    CK_SESSION_HANDLE session; /* CK_INVALID_HANDLE: none */
    CK_SLOT_ID slot;           /* of the session */
    struct error e;            /* why it fails, for hsmint:last-error */
};

CK_RV module_initialize(CK_C_INITIALIZE_ARGS *args);
CK_RV module_finalize(void);

/* Take a reference; with a session handle, find the session. CKR_OK, or what
 * the C_* function answers. call_end gives the reference back, and keeps the
 * text of a failure in the session. */
CK_RV call_begin(struct call *c);
CK_RV call_begin_session(struct call *c, CK_SESSION_HANDLE session);
CK_RV call_end(struct call *c, CK_RV rv);

/* Say why, and return rv. */
CK_RV call_fail(struct call *c, CK_RV rv, const char *fmt, ...) PRINTF(3, 4);
/* c->e was filled by a function below: its CK_RV. */
CK_RV call_error(struct call *c);
/* The same where the caller gave no handle that could be the wrong one. */
CK_RV call_error_no_object(struct call *c);

void module_lock(struct module *m);
void module_unlock(struct module *m);
/* Under the lock, which is given up meanwhile: until C_Finalize, or so long. */
void module_wait(struct module *m, int ms);
/* C_Finalize was here while the call was away. Under the lock. */
bool module_closed(const struct module *m);

/* The parts; to be used under the lock. */
struct slot_table *module_slots(struct module *m);
struct session_table *module_sessions(struct module *m);
struct object_table *module_objects(struct module *m);

const char *module_socket(const struct module *m); /* NULL: the default */
/* From C_OpenSession on the daemon may be started. */
enum code module_connect(struct call *c);
/* As client_call(); the text of a failure goes to c->e. Not under the lock. */
MUST_CHECK enum code module_ask(struct call *c, const char *method,
                                json_t *parameters, const struct secret *in,
                                json_t **reply, struct secret **out);
/* Say that something is over. Starts no daemon for it. */
MUST_CHECK enum code module_tell(struct call *c, const char *method,
                                 json_t *parameters);
/* {"org": slot's, "request_id": new} for a method that wants them; NULL with
 * c->e filled. */
json_t *module_parameters(struct call *c, bool org, bool request_id);

/* "hsmint" and the version, for the daemon's lists. */
const char *module_program(void);

#endif
