/* rotate_step - one step of a rotation: what its state asks for is done, and
 * the state after it is in the store when it returns. spec: rotation.h.
 *
 * Whoever takes a step holds the organisation's "config" in core's inflight
 * table: one rotation, and no change of the configuration beside it.
 */
#ifndef HSMINT_CORE_ROTATE_STEP_H
#define HSMINT_CORE_ROTATE_STEP_H

#include "module/core/core.h"
#include "module/core/orgconfig.h"
#include "module/core/rotation.h"

#define ROTATE_COMPROMISED "compromised" /* a cause: without overlap */
#define ROTATE_LOOK_MS 500 /* between two looks at what comes soon */

struct rotate_step { /* one rotation, and what it is about */
    struct core *core;
    const struct caller *by; /* NULL: the daemon itself */
    struct store_org org;
    struct config config;
    struct rotation r;
    bool new_config; /* s->config is written with the next step */
};
/* Calls in flight end on the old key for so long, but not on one that others
 * may have. */
int64_t rotate_overlap_ms(const struct core *c, const char *cause);
void rotate_step_clear(struct rotate_step *s);
#define ROTATE_STEP CLEANUP(rotate_step_clear) struct rotate_step

/* Organisation and configuration; s->core is set. */
MUST_CHECK enum code rotate_step_load(struct rotate_step *s, const char *org,
                                      struct error *e);
/* The keeper works with this sealed key. An HSM that stores no copy now keeps
 * nobody from it: its copy is written again before an old key goes. */
MUST_CHECK enum code rotate_step_use(struct rotate_step *s, const uint8_t *blob,
                                     size_t len, struct error *e);
/* A rotation begins: s->r is filled, with a unique name. ERR_NO_ADMIN_KEY,
 * ERR_EXISTS. */
MUST_CHECK enum code rotate_step_begin(struct rotate_step *s, const char *cause,
                                       struct error *e);
/* ROTATION_MAKE for the first time: the service makes the key of s->r's name.
 * After an error the document may be there: then it goes on by itself. */
MUST_CHECK enum code rotate_step_make(struct rotate_step *s, struct error *e);
/* One is wanted for this cause until another key is in use, however often it
 * fails. */
MUST_CHECK enum code rotate_step_want(struct rotate_step *s, const char *cause,
                                      struct error *e);
/* What is under way has this cause from now on, and is due. */
MUST_CHECK enum code rotate_step_hurry(struct rotate_step *s, const char *cause,
                                       struct error *e);
/* What s->r.state asks for. OK: it was tried, and the document says what came
 * of it. */
MUST_CHECK enum code rotate_step_take(struct rotate_step *s, struct error *e);

#endif
