#include "config.h"

#include "hsm/pin.h"

#include "common/clock.h"
#include "common/file.h"
#include "common/text.h"
#include "hsm/token.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum code pin_init(struct pin_rules *p, struct error *e)
{
    *p = (struct pin_rules){0};
    (void)pthread_mutex_init(&p->lock, NULL);
    return text_random(p->salt, sizeof p->salt, e);
}

void pin_clear(struct pin_rules *p)
{
    (void)pthread_mutex_destroy(&p->lock);
    wipe(p, sizeof *p);
}

enum code pin_hash(const struct pin_rules *p, const struct secret *pin,
                   uint8_t hash[PIN_HASH], struct error *e)
{
    size_t len = secret_len(pin);
    if (len == 0 || len > PIN_MAX)
        return error_set(e, ERR_PIN_WRONG,
                         "the PIN is empty or longer than %d bytes; the HSM "
                         "was not asked",
                         PIN_MAX);
    if (EVP_PBE_scrypt((const char *)secret_data(pin), len, p->salt,
                       sizeof p->salt, 16384, 8, 1, 64 * 1024 * 1024, hash,
                       PIN_HASH) != 1)
        return error_set(e, ERR_NOMEM, "PIN: no memory to hash it");
    return OK;
}

/* Wait until checks are allowed again. */
static enum code wait_turn(struct pin_rules *p, struct error *e)
{
    (void)pthread_mutex_lock(&p->lock);
    int64_t left = p->not_before_ms - clock_monotonic_ms();
    if (left > 0 && p->waiters >= PIN_WAITERS) {
        (void)pthread_mutex_unlock(&p->lock);
        enum code rc =
            error_set(e, ERR_PIN_HELD,
                      "PIN not checked: after wrong ones only a few are "
                      "looked at; try again in %lld ms",
                      (long long)left);
        if (e)
            e->retry_after_ms = (uint32_t)left;
        return rc;
    }
    p->waiters++;
    while (left > 0) {
        (void)pthread_mutex_unlock(&p->lock);
        struct timespec t = {left / 1000, left % 1000 * 1000000};
        (void)nanosleep(&t, NULL);
        (void)pthread_mutex_lock(&p->lock);
        left = p->not_before_ms - clock_monotonic_ms();
    }
    p->waiters--;
    (void)pthread_mutex_unlock(&p->lock);
    return OK;
}

enum code pin_verify(struct pin_rules *p, const struct secret *pin,
                     struct error *e)
{
    uint8_t hash[PIN_HASH];
    enum code rc = wait_turn(p, e);
    if (!rc)
        rc = pin_hash(p, pin, hash, e);
    if (rc)
        return rc;
    (void)pthread_mutex_lock(&p->lock);
    bool right = p->known && CRYPTO_memcmp(hash, p->verifier, PIN_HASH) == 0;
    if (right) {
        p->delay_ms = 0;
        p->not_before_ms = 0;
    } else {
        p->delay_ms = p->delay_ms ? p->delay_ms * 2 : PIN_DELAY_MIN_MS;
        if (p->delay_ms > PIN_DELAY_MAX_MS)
            p->delay_ms = PIN_DELAY_MAX_MS;
        p->not_before_ms = clock_monotonic_ms() + p->delay_ms;
    }
    (void)pthread_mutex_unlock(&p->lock);
    wipe(hash, sizeof hash);
    return right ? OK
                 : error_set(e, ERR_PIN_WRONG,
                             "wrong PIN (checked here; the HSM did not see "
                             "it)");
}

static bool was_refused(struct pin_rules *p, const uint8_t hash[PIN_HASH])
{
    (void)pthread_mutex_lock(&p->lock);
    bool found = false;
    for (unsigned i = 0; i < p->refusals && i < PIN_REFUSED; i++)
        found |= CRYPTO_memcmp(p->refused[i], hash, PIN_HASH) == 0;
    (void)pthread_mutex_unlock(&p->lock);
    return found;
}

static bool tried_enough(struct pin_rules *p)
{
    (void)pthread_mutex_lock(&p->lock);
    bool enough = p->refusals >= PIN_TRIES;
    (void)pthread_mutex_unlock(&p->lock);
    return enough;
}

enum code pin_may_try(struct pin_rules *p, const uint8_t hash[PIN_HASH],
                      CK_FLAGS flags, bool force, struct error *e)
{
    bool few = (flags & (CKF_USER_PIN_COUNT_LOW | CKF_USER_PIN_FINAL_TRY)) != 0;
    if (flags & CKF_USER_PIN_LOCKED)
        return error_set(e, ERR_PIN_LOCKED,
                         "the HSM has locked its user PIN: unlock it with the "
                         "HSM's own tool and its SO PIN");
    /* Forced, it may be tried once more where the HSM no longer counts a
     * wrong one: somebody may have given it that PIN since. */
    if (was_refused(p, hash) && !(force && !few))
        return error_set(e, ERR_PIN_WRONG,
                         "the HSM has refused this PIN before; it was not "
                         "asked again: give another one");
    if (tried_enough(p) && !few && !force)
        return error_set(e, ERR_PIN_HELD,
                         "PIN not tried: the HSM has refused %d in a row; "
                         "`hsmint hsm unlock` tries all the same",
                         PIN_TRIES);
    if (few && !force)
        return error_set(e, ERR_PIN_HELD,
                         "PIN not tried: the HSM reports %s; `hsmint hsm "
                         "unlock` tries all the same",
                         flags & CKF_USER_PIN_FINAL_TRY
                             ? "that one try is left"
                             : "wrong tries, few may be left");
    return OK;
}

void pin_accepted(struct pin_rules *p, const uint8_t hash[PIN_HASH])
{
    (void)pthread_mutex_lock(&p->lock);
    memcpy(p->verifier, hash, PIN_HASH);
    p->known = true;
    p->refusals = 0;
    p->delay_ms = 0;
    p->not_before_ms = 0;
    (void)pthread_mutex_unlock(&p->lock);
}

void pin_refused(struct pin_rules *p, const uint8_t hash[PIN_HASH])
{
    (void)pthread_mutex_lock(&p->lock);
    memcpy(p->refused[p->refusals++ % PIN_REFUSED], hash, PIN_HASH);
    (void)pthread_mutex_unlock(&p->lock);
}

void pin_forget(struct pin_rules *p)
{
    (void)pthread_mutex_lock(&p->lock);
    wipe(p->verifier, sizeof p->verifier);
    p->known = false;
    (void)pthread_mutex_unlock(&p->lock);
}

/* systemd puts credentials into $CREDENTIALS_DIRECTORY; a keeper without that
 * variable ([hsm.env]) takes their full path. */
static enum code credential_path(const char *name, char **out, struct error *e)
{
    const char *dir = getenv("CREDENTIALS_DIRECTORY");
    if (name[0] == '/') {
        *out = strdup(name);
        return *out ? OK : error_set(e, ERR_NOMEM, "pin_source");
    }
    if (!dir || strchr(name, '/') || name[0] == '.')
        return error_set(e, ERR_CONFIG,
                         "pin_source credential:%s: no directory of "
                         "credentials is known here; give the full path",
                         name);
    if (asprintf(out, "%s/%s", dir, name) < 0) {
        *out = NULL;
        return error_set(e, ERR_NOMEM, "pin_source");
    }
    return OK;
}

enum code pin_is_configured(const struct settings *s, bool *is, struct error *e)
{
    FREE char *from_uri = NULL;
    enum code rc = token_pin_source(s, &from_uri, e);
    *is = s->pin_source || from_uri;
    return rc;
}

static enum code source_path(const struct settings *s, char **path,
                             struct error *e)
{
    FREE char *from_uri = NULL;
    enum code rc = token_pin_source(s, &from_uri, e);
    if (rc)
        return rc;
    const char *source = s->pin_source ? s->pin_source : from_uri;
    if (!source)
        return error_set(e, ERR_PIN_HELD,
                         "no PIN was given and none is configured ([hsm] "
                         "pin_source)");
    if (strncmp(source, "credential:", 11) == 0)
        return credential_path(source + 11, path, e);
    if (strncmp(source, "file:", 5) == 0)
        source += 5;
    if (strncmp(source, "//", 2) == 0) /* file:///path */
        source += 2;
    if (source[0] != '/')
        return error_set(e, ERR_CONFIG,
                         "pin_source: an absolute path, file:PATH or "
                         "credential:NAME is needed");
    *path = strdup(source);
    return *path ? OK : error_set(e, ERR_NOMEM, "pin_source");
}

enum code pin_read_source(const struct settings *s, struct secret **out,
                          struct error *e)
{
    FREE char *path = NULL;
    enum code rc = source_path(s, &path, e);
    if (rc)
        return rc;
    rc = file_read_secret(path, PIN_MAX + 2, FILE_PRIVATE, out, e);
    if (rc) {
        (void)error_prefix(e, "PIN from %s", path);
        return rc;
    }
    secret_chomp(*out);
    return OK;
}
