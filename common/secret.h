/* secret - the one type that holds secret bytes.
 *
 * Each secret has its own pages: locked, between two guard pages, left out of
 * core dumps, wiped in a forked child, wiped when freed. No libcrypto here:
 * the module links this file into strangers' processes.
 *
 * Owner: whoever got it from secret_new() or a `take`; free with secret_free().
 */
#ifndef HSMINT_SECRET_H
#define HSMINT_SECRET_H

#include "common/error.h"

#include <stdbool.h>

#define SECRET_MAX 65536 /* bytes; no key or PIN is longer */

struct secret;

/* `capacity` zeroed bytes, length 0. ERR_NOMEM says to raise RLIMIT_MEMLOCK
 * when the pages cannot be locked: an unlocked secret is never handed out. */
MUST_CHECK enum code secret_new(struct secret **out, size_t capacity,
                                struct error *e);
/* A copy of `len` bytes; the source is the caller's to wipe. */
MUST_CHECK enum code secret_dup(struct secret **out, const void *data,
                                size_t len, struct error *e);
void secret_free(struct secret *s); /* takes NULL; wipes */
void secret_freep(struct secret **s);
#define SECRET CLEANUP(secret_freep) struct secret *

uint8_t *secret_bytes(struct secret *s);
const uint8_t *secret_data(const struct secret *s);
size_t secret_len(const struct secret *s);
size_t secret_capacity(const struct secret *s);
void secret_set_len(struct secret *s, size_t len); /* <= capacity */
/* One ending LF or CR LF goes away (a file or terminal put it there). */
void secret_chomp(struct secret *s);
/* Constant time in the contents; lengths may leak. */
bool secret_equal(const struct secret *a, const struct secret *b);

/* Secrets cross a process border only as the read end of a pipe.
 * secret_to_pipe: *fd is CLOEXEC, holds all bytes, its write end is closed.
 * secret_from_fd: reads to the end, at most `max` bytes, by `deadline_ms` from
 * now; closes nothing. ERR_INVALID for an empty or too long one, or when
 * `pipe_only` and fd is no pipe (a stranger's file could block for ever). */
MUST_CHECK enum code secret_to_pipe(const struct secret *s, int *fd,
                                    struct error *e);
MUST_CHECK enum code secret_from_fd(struct secret **out, int fd, size_t max,
                                    int deadline_ms, bool pipe_only,
                                    struct error *e);

void wipe(void *p, size_t len); /* never optimised away */
/* Vector registers keep copies that memcpy made (zmm0-31): clear them on each
 * thread that touched a secret, after its wipe. */
void secret_clear_registers(void);

#endif
