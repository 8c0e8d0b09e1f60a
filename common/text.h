/* text - durations, names, ids, escapes. */
#ifndef HSMINT_TEXT_H
#define HSMINT_TEXT_H

#include "common/error.h"

#include <stdbool.h>

/* "90s", "15m", "1h", "7d", "1h30m", or whole seconds. Positive, below 10
 * years. */
MUST_CHECK enum code text_duration(const char *s, int64_t *seconds,
                                   struct error *e);
#define TEXT_DURATION_MAX 32
char *text_duration_format(int64_t seconds, char buf[TEXT_DURATION_MAX]);

bool text_utf8_valid(const char *s, size_t len);
/* Copy with control characters, DEL, C1, bidi marks and invalid UTF-8 written
 * as \xNN; always NUL-terminated, cut to fit at a character's edge. Returns
 * the length that was written. */
size_t text_escape(char *dst, size_t cap, const char *src, size_t len);
/* The same, and a backslash as \x5c: what was there can be had back, by putting
 * the byte in each \xNN's place. Not twice. */
size_t text_quote(char *dst, size_t cap, const char *src, size_t len);
/* Role, organisation and label names: 1-63 of [A-Za-z0-9._-], beginning with
 * a letter or digit. `what` names it in the error. "admin-key" is refused. */
MUST_CHECK enum code text_check_name(const char *what, const char *s,
                                     struct error *e);
/* An id of the service: 1-128 of [A-Za-z0-9._-]; goes into a path. */
MUST_CHECK enum code text_check_service_id(const char *what, const char *s,
                                           struct error *e);

#define TEXT_ID_LEN 26
/* Time-ordered id (ULID: 48 bits of wall_ms, 80 random bits, Crockford base32,
 * lower case). Monotonic within the process. */
MUST_CHECK enum code text_id(char id[TEXT_ID_LEN + 1], struct error *e);
bool text_is_id(const char *s);
/* getrandom(2), whole. */
MUST_CHECK enum code text_random(void *buf, size_t len, struct error *e);
/* `len` of [a-z0-9], without bias, and a NUL: len + 1 bytes. */
MUST_CHECK enum code text_random_suffix(char *buf, size_t len, struct error *e);
void text_hex(char *dst, const uint8_t *src, size_t len); /* 2*len + 1 bytes */
MUST_CHECK enum code text_unhex(uint8_t *dst, size_t cap, size_t *len,
                                const char *hex, struct error *e);

#endif
