/* pin - when a PIN goes to the HSM, and when it does not.
 *
 * The first PIN goes to the HSM. One that the HSM refused is remembered by a
 * salted hash and never tried again; none is tried while the HSM says that few
 * tries are left, nor after PIN_TRIES that it refused, unless an administrator
 * forces it. While logged in, a PIN is
 * checked against a verifier of our own, the wrong ones ever more slowly.
 * Nobody logs in as SO here.
 *
 * Thread-safe. Hashing (scrypt, 16 MiB, some 40 ms) and waiting happen outside
 * the lock.
 */
#ifndef HSMINT_PIN_H
#define HSMINT_PIN_H

#include "common/error.h"
#include "common/secret.h"
#include "common/settings.h"

#include <p11-kit/pkcs11.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdint.h>

#define PIN_MAX 256
#define PIN_HASH 32
#define PIN_REFUSED 16 /* remembered; the oldest is forgotten */
#define PIN_TRIES                                                              \
    3                 /* that the HSM refuses in a row, then none is tried:    \
                         not every HSM says how many are left */
#define PIN_WAITERS 2 /* threads that a flood of wrong PINs can hold */
#define PIN_DELAY_MIN_MS 100
#define PIN_DELAY_MAX_MS 5000

struct pin_rules {
    pthread_mutex_t lock; /* guards all below */
    uint8_t salt[16];     /* never changes */
    bool known;           /* verifier is that of the PIN that is logged in */
    uint8_t verifier[PIN_HASH];
    uint8_t refused[PIN_REFUSED][PIN_HASH];
    unsigned refusals;
    int64_t not_before_ms; /* monotonic: the next check */
    int64_t delay_ms;
    int waiters;
};

MUST_CHECK enum code pin_init(struct pin_rules *p, struct error *e);
void pin_clear(struct pin_rules *p);

/* Salted hash of a PIN; refuses an empty or too long one. */
MUST_CHECK enum code pin_hash(const struct pin_rules *p,
                              const struct secret *pin, uint8_t hash[PIN_HASH],
                              struct error *e);
/* Against the verifier; waits its turn after wrong ones. ERR_PIN_WRONG;
 * ERR_PIN_HELD (with retry_after_ms) when too many wait already. */
MUST_CHECK enum code pin_verify(struct pin_rules *p, const struct secret *pin,
                                struct error *e);
/* May it go to the HSM, whose CK_TOKEN_INFO flags are these? */
MUST_CHECK enum code pin_may_try(struct pin_rules *p,
                                 const uint8_t hash[PIN_HASH], CK_FLAGS flags,
                                 bool force, struct error *e);
void pin_accepted(struct pin_rules *p, const uint8_t hash[PIN_HASH]);
void pin_refused(struct pin_rules *p, const uint8_t hash[PIN_HASH]);
void pin_forget(struct pin_rules *p); /* the verifier; at logout */

MUST_CHECK enum code pin_is_configured(const struct settings *s, bool *is,
                                       struct error *e);
/* The configured source: [hsm] pin_source, else the URI's pin-source. */
MUST_CHECK enum code pin_read_source(const struct settings *s,
                                     struct secret **out, struct error *e);

#endif
