/* keeper - what the files of the keeper program share.
 *
 * One `struct keeper` a process, made before the threads and never freed; each
 * of its parts guards itself. One `struct channel` a thread. No lock is held
 * across the HSM or the network.
 */
#ifndef HSMINT_KEEPER_H
#define HSMINT_KEEPER_H

#include "common/frame.h"
#include "common/settings.h"
#include "hsm/hsm.h"

struct calls;
struct orgkeys;
struct ledger;
struct http;

struct keeper {
    const struct settings *settings;
    struct hsm *hsm;
    struct calls *calls;     /* signed, not yet executed: call.h */
    struct orgkeys *orgkeys; /* the sealed admin keys: orgkey.h */
    struct ledger *ledger;   /* what it knows of the log: ledger.h */
    char *state_dir;         /* where the ledger's file is */
};

struct channel {
    struct keeper *keeper;
    int sock;          /* lives as long as the process */
    struct http *http; /* owned; made at the first call */
};

/* `state_dir`: the daemon's, of a keeper that is its child; NULL: it has a
 * user of its own. [hsm] keeper_state_dir comes before both. */
MUST_CHECK enum code keeper_init(struct keeper *k, const struct settings *s,
                                 const char *state_dir, struct error *e);

/* Serve requests on c->sock until it ends, then end it on this side, too. */
void permit_serve(struct channel *c);

/* One verb: reads in->head, body and fd (all stay the frame's), fills out. */
typedef enum code (*verb_fn)(struct channel *c, struct frame *in,
                             struct frame *out, struct error *e);
/* access.c: what a pipe holds, left in it, so that it can be read again; waits
 * `ms` for the end of its writers. */
MUST_CHECK enum code access_read_pipe(int fd, int ms, struct secret **out,
                                      struct error *e);
/* Puts `attributes` into a reply: what the HSM says of the keys of its pins. A
 * reply is as good without. */
void access_tell_attributes(struct keeper *k, json_t *head);
enum code access_describe(struct channel *c, struct frame *in,
                          struct frame *out, struct error *e);
enum code access_login(struct channel *c, struct frame *in, struct frame *out,
                       struct error *e);
enum code access_logout(struct channel *c, struct frame *in, struct frame *out,
                        struct error *e);
enum code access_provision(struct channel *c, struct frame *in,
                           struct frame *out, struct error *e);
enum code orgkey_seal(struct channel *c, struct frame *in, struct frame *out,
                      struct error *e);
enum code orgkey_bind(struct channel *c, struct frame *in, struct frame *out,
                      struct error *e);
enum code orgkey_use(struct channel *c, struct frame *in, struct frame *out,
                     struct error *e);
enum code orgkey_drop(struct channel *c, struct frame *in, struct frame *out,
                      struct error *e);
enum code execute_sign(struct channel *c, struct frame *in, struct frame *out,
                       struct error *e);
enum code execute_call(struct channel *c, struct frame *in, struct frame *out,
                       struct error *e);
enum code value_seal(struct channel *c, struct frame *in, struct frame *out,
                     struct error *e);
enum code value_unwrap(struct channel *c, struct frame *in, struct frame *out,
                       struct error *e);
enum code value_probe(struct channel *c, struct frame *in, struct frame *out,
                      struct error *e);
enum code random_bytes(struct channel *c, struct frame *in, struct frame *out,
                       struct error *e);
enum code secretid_make(struct channel *c, struct frame *in, struct frame *out,
                        struct error *e);
enum code reach_service(struct channel *c, struct frame *in, struct frame *out,
                        struct error *e);
enum code secretid_check(struct channel *c, struct frame *in, struct frame *out,
                         struct error *e);
enum code log_state(struct channel *c, struct frame *in, struct frame *out,
                    struct error *e);
enum code log_begin(struct channel *c, struct frame *in, struct frame *out,
                    struct error *e);
enum code log_resume(struct channel *c, struct frame *in, struct frame *out,
                     struct error *e);
enum code log_sign(struct channel *c, struct frame *in, struct frame *out,
                   struct error *e);
enum code rekey_rotate(struct channel *c, struct frame *in, struct frame *out,
                       struct error *e);
enum code rekey_destroy(struct channel *c, struct frame *in, struct frame *out,
                        struct error *e);
enum code ceremony_state(struct channel *c, struct frame *in,
                         struct frame *out, struct error *e);
enum code rekey_reseal(struct channel *c, struct frame *in, struct frame *out,
                       struct error *e);
enum code restore_keys(struct channel *c, struct frame *in, struct frame *out,
                       struct error *e);
enum code escrow_give(struct channel *c, struct frame *in, struct frame *out,
                      struct error *e);
enum code marker_hmac(struct channel *c, struct frame *in, struct frame *out,
                      struct error *e);

#endif
