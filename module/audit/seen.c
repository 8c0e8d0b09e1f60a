/* seen - see seen.h. */
#include "config.h"

#include "module/audit/seen.h"

#include <openssl/evp.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define FIRST_PLACES 1024

struct seen {
    uint64_t *places; /* 0: empty */
    size_t places_n;  /* a power of two */
    size_t n;
};

enum code seen_new(struct seen **out, struct error *e)
{
    struct seen *s = calloc(1, sizeof *s);
    if (s)
        s->places = calloc(FIRST_PLACES, sizeof *s->places);
    if (!s || !s->places) {
        free(s);
        return error_set(e, ERR_NOMEM, "the calls' nonces");
    }
    s->places_n = FIRST_PLACES;
    *out = s;
    return OK;
}

void seen_free(struct seen *s)
{
    if (s)
        free(s->places);
    free(s);
}

/* Where it is, or the empty place where it would be. */
static uint64_t *find(const struct seen *s, uint64_t hash)
{
    size_t at = (size_t)hash;
    while (s->places[at & (s->places_n - 1)] &&
           s->places[at & (s->places_n - 1)] != hash)
        at++;
    return &s->places[at & (s->places_n - 1)];
}

static enum code grow(struct seen *s, struct error *e)
{
    struct seen more = {.places_n = s->places_n * 2, .n = s->n};
    more.places = calloc(more.places_n, sizeof *more.places);
    if (!more.places)
        return error_set(e, ERR_NOMEM, "the calls' nonces");
    for (size_t i = 0; i < s->places_n; i++)
        if (s->places[i])
            *find(&more, s->places[i]) = s->places[i];
    free(s->places);
    *s = more;
    return OK;
}

/* Who writes a log chooses its nonces: a hash that cannot be aimed at. */
static enum code hash_of(const char *nonce, uint64_t *hash, struct error *e)
{
    uint8_t digest[32];
    if (EVP_Digest(nonce, strlen(nonce), digest, NULL, EVP_sha256(), NULL) != 1)
        return error_set(e, ERR_NOMEM, "SHA-256 of a nonce");
    memcpy(hash, digest, sizeof *hash);
    if (*hash == 0)
        *hash = 1;
    return OK;
}

enum code seen_add(struct seen *s, const char *nonce, bool *known,
                   struct error *e)
{
    uint64_t hash = 0;
    enum code rc = hash_of(nonce, &hash, e);
    if (rc == OK && 2 * (s->n + 1) > s->places_n)
        rc = grow(s, e);
    if (rc)
        return rc;
    uint64_t *place = find(s, hash);
    *known = *place != 0;
    s->n += !*known;
    *place = hash;
    return OK;
}
