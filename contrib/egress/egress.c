/* egress - see egress.h. */
#include "config.h"

#include "contrib/egress/egress.h"

#include "common/base64.h"
#include "common/file.h"
#include "common/sigbase.h"

#include <ctype.h>
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <openssl/ec.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#define AHEAD_S 5 /* that the keeper's clock may be before ours */
#define NONCE_LEN 32
#define SIGNATURE_LEN 64

static enum code deny(struct error *e, const char *why)
{
    return error_set(e, ERR_DENIED, "%s", why);
}

/* ---- keys ---- */

void egress_clear(struct egress *g)
{
    for (size_t i = 0; i < g->keys_n; i++) {
        free(g->keys[i].keyid);
        EVP_PKEY_free(g->keys[i].key);
    }
    g->keys_n = 0;
}

static void bio_freep(BIO **b)
{
    BIO_free(*b);
}

static EVP_PKEY *read_key(const char *text)
{
    uint8_t der[512];
    const uint8_t *at = der;
    size_t len = strcspn(text, "\n"), n;
    CLEANUP(bio_freep) BIO *pem = BIO_new_mem_buf(text, -1);
    if (strstr(text, "-----BEGIN"))
        return pem ? PEM_read_bio_PUBKEY(pem, NULL, NULL, NULL) : NULL;
    return base64_decode(text, len, der, sizeof der, &n)
               ? d2i_PUBKEY(NULL, &at, (long)n)
               : NULL;
}

enum code egress_add_key(struct egress *g, const char *keyid, const char *text,
                         struct error *e)
{
    char group[32] = "";
    if (g->keys_n == EGRESS_KEYS)
        return error_set(e, ERR_LIMIT, "more than %d keys", EGRESS_KEYS);
    struct egress_key k = {strdup(keyid), read_key(text)};
    bool good =
        k.keyid && k.key &&
        EVP_PKEY_get_group_name(k.key, group, sizeof group, NULL) == 1 &&
        strcmp(group, "prime256v1") == 0;
    if (good) {
        g->keys[g->keys_n++] = k;
        return OK;
    }
    free(k.keyid);
    EVP_PKEY_free(k.key);
    return error_set(e, ERR_INVALID, "key %s is no public key of EC P-256",
                     keyid);
}

/* ---- the request ---- */

struct head {
    char method[16];
    char target[EGRESS_TEXT_MAX];
    /* Each once, or it is refused. */
    char host[256], digest[SIGBASE_DIGEST_MAX], input[1024], signature[256],
        length[24];
};

static const struct field {
    const char *name;
    size_t offset, cap;
    bool needed;
} fields[] = {
    {"host", offsetof(struct head, host), 256, true},
    {"content-digest", offsetof(struct head, digest), SIGBASE_DIGEST_MAX, true},
    {"signature-input", offsetof(struct head, input), 1024, true},
    {"signature", offsetof(struct head, signature), 256, true},
    {"content-length", offsetof(struct head, length), 24, false},
};
#define FIELDS (sizeof fields / sizeof fields[0])

static bool visible(const char *s, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if ((unsigned char)s[i] <= ' ' || (unsigned char)s[i] > '~')
            return false;
    return n > 0;
}

static bool take(char *to, size_t cap, const char *from, size_t n)
{
    if (n >= cap)
        return false;
    memcpy(to, from, n);
    to[n] = '\0';
    return true;
}

static enum code parse_first(struct head *h, const char *line, size_t len,
                             struct error *e)
{
    static const char version[] = " HTTP/1.1";
    const char *space = memchr(line, ' ', len);
    size_t tail = sizeof version - 1;
    if (!space || len < tail || memcmp(line + len - tail, version, tail) != 0)
        return deny(e, "no request line of HTTP/1.1");
    const char *target = space + 1, *end = line + len - tail;
    size_t method = (size_t)(space - line);
    if (target >= end || !visible(target, (size_t)(end - target)) ||
        !visible(line, method) ||
        !take(h->method, sizeof h->method, line, method) ||
        !take(h->target, sizeof h->target, target, (size_t)(end - target)))
        return deny(e, "no request line of HTTP/1.1");
    return OK;
}

static enum code parse_field(struct head *h, const char *line, size_t len,
                             struct error *e)
{
    const char *colon = memchr(line, ':', len);
    size_t n = colon ? (size_t)(colon - line) : 0;
    if (!colon || !visible(line, n))
        return deny(e, "a header that is none");
    const char *value = colon + 1, *end = line + len;
    while (value < end && (*value == ' ' || *value == '\t'))
        value++;
    while (end > value && (end[-1] == ' ' || end[-1] == '\t'))
        end--;
    if (n == 17 && strncasecmp(line, "transfer-encoding", n) == 0)
        return deny(e, "a body of no known length");
    for (size_t i = 0; i < FIELDS; i++) {
        const struct field *f = &fields[i];
        char *to = (char *)h + f->offset;
        if (strlen(f->name) != n || strncasecmp(line, f->name, n) != 0)
            continue;
        if (*to)
            return error_set(e, ERR_DENIED, "%s is there twice", f->name);
        if (end == value || !take(to, f->cap, value, (size_t)(end - value)))
            return error_set(e, ERR_DENIED, "%s is empty or too long", f->name);
    }
    return OK;
}

/* *body: what is behind the head. */
static enum code parse_head(struct head *h, const char *bytes, size_t len,
                            const char **body, struct error *e)
{
    const char *at = bytes, *stop = bytes + len, *end;
    *h = (struct head){.method = ""};
    if (memchr(bytes, '\0', len))
        stop = memchr(bytes, '\0', len); /* none of the head has one */
    for (int line = 0; (end = memmem(at, (size_t)(stop - at), "\r\n", 2));
         line++) {
        size_t n = (size_t)(end - at);
        if (n == 0 && line > 0) {
            *body = end + 2;
            return OK;
        }
        if (memchr(at, '\n', n) || memchr(at, '\r', n))
            return deny(e, "a line that does not end in CR LF");
        enum code rc =
            line == 0 ? parse_first(h, at, n, e) : parse_field(h, at, n, e);
        if (rc)
            return rc;
        at = end + 2;
    }
    return deny(e, "the request is cut");
}

static enum code check_present(const struct head *h, struct error *e)
{
    for (size_t i = 0; i < FIELDS; i++)
        if (fields[i].needed && !*((const char *)h + fields[i].offset))
            return error_set(e, ERR_DENIED, "no %s", fields[i].name);
    return OK;
}

/* The whole body, nothing behind it, and its digest. */
static enum code check_body(const struct head *h, const char *body, size_t len,
                            struct error *e)
{
    char digest[SIGBASE_DIGEST_MAX], said[24];
    snprintf(said, sizeof said, "%zu", len);
    if (strcmp(*h->length ? h->length : "0", said) != 0)
        return deny(e, "the body is not of Content-Length's length");
    enum code rc = sigbase_content_digest(body, len, digest, e);
    if (rc)
        return rc;
    return strcmp(digest, h->digest) == 0
               ? OK
               : deny(e, "Content-Digest is not the body's");
}

/* https to a host that is listed: the signature is of what is asked for. */
static enum code make_uri(const struct egress *g, const struct head *h,
                          struct egress_request *r, struct error *e)
{
    size_t i = 0;
    while (i < g->hosts_n && strcmp(g->hosts[i], h->host) != 0)
        i++;
    if (i == g->hosts_n)
        return error_set(e, ERR_DENIED, "host %s is not allowed", h->host);
    int n = h->target[0] == '/'
                ? snprintf(r->uri, sizeof r->uri, "https://%s%s", h->host,
                           h->target)
                : snprintf(r->uri, sizeof r->uri, "%s", h->target);
    size_t host = strlen(h->host);
    if (n < 0 || (size_t)n >= sizeof r->uri ||
        strncmp(r->uri, "https://", 8) != 0 ||
        strncmp(r->uri + 8, h->host, host) != 0 || r->uri[8 + host] != '/')
        return deny(e, "the target is not of the host, or too long");
    snprintf(r->method, sizeof r->method, "%s", h->method);
    return OK;
}

/* ---- the signature ---- */

/* NAME="…" of the parameters; true where it fits. */
static bool parameter(const char *params, const char *name, char *out,
                      size_t cap)
{
    char start[32];
    snprintf(start, sizeof start, ";%s=\"", name);
    const char *at = strstr(params, start);
    if (!at)
        return false;
    at += strlen(start);
    return take(out, cap, at, strcspn(at, "\""));
}

static enum code parse_input(const struct head *h, struct egress_request *r,
                             struct error *e)
{
    const char *created = strstr(h->input, ";created=");
    char *end = NULL;
    errno = 0;
    r->created_s = created ? strtoll(created + 9, &end, 10) : 0;
    if (!created || errno || r->created_s <= 0 ||
        !parameter(h->input, "nonce", r->nonce, sizeof r->nonce) ||
        !parameter(h->input, "keyid", r->keyid, sizeof r->keyid))
        return deny(e, "Signature-Input lacks created, nonce or keyid");
    if (strlen(r->nonce) != NONCE_LEN ||
        strspn(r->nonce, "0123456789abcdef") != NONCE_LEN)
        return deny(e, "the nonce is none of hsmint");
    return OK;
}

static enum code raw_signature(const struct head *h,
                               uint8_t raw[SIGNATURE_LEN], struct error *e)
{
    size_t n = strlen(h->signature), len;
    if (n < 8 || strncmp(h->signature, "sig1=:", 6) != 0 ||
        h->signature[n - 1] != ':' ||
        !base64_decode(h->signature + 6, n - 7, raw, SIGNATURE_LEN, &len) ||
        len != SIGNATURE_LEN)
        return deny(e, "Signature is no signature");
    return OK;
}

static void sig_freep(ECDSA_SIG **s)
{
    ECDSA_SIG_free(*s);
}

static void ctx_freep(EVP_PKEY_CTX **c)
{
    EVP_PKEY_CTX_free(*c);
}

static bool is_signed(EVP_PKEY *key, const uint8_t digest[32],
                      const uint8_t raw[SIGNATURE_LEN])
{
    CLEANUP(sig_freep) ECDSA_SIG *sig = ECDSA_SIG_new();
    CLEANUP(ctx_freep) EVP_PKEY_CTX *ctx = EVP_PKEY_CTX_new(key, NULL);
    BIGNUM *r = BN_bin2bn(raw, 32, NULL);
    BIGNUM *s = BN_bin2bn(raw + 32, 32, NULL);
    uint8_t der[80], *p = der;
    if (!sig || !r || !s || ECDSA_SIG_set0(sig, r, s) != 1) {
        BN_free(r);
        BN_free(s);
        return false;
    }
    int n = i2d_ECDSA_SIG(sig, NULL);
    return n > 0 && n <= (int)sizeof der && i2d_ECDSA_SIG(sig, &p) == n &&
           ctx && EVP_PKEY_verify_init(ctx) == 1 &&
           EVP_PKEY_verify(ctx, der, (size_t)n, digest, 32) == 1;
}

/* What is said of the signature is written anew, and has to be the same text:
 * so there is one way only to say it. */
static enum code check_signature(const struct egress *g, const struct head *h,
                                 const struct egress_request *r,
                                 struct error *e)
{
    const struct sigbase_call call = {r->method, r->uri,   h->digest,
                                      r->nonce,  r->keyid, r->created_s};
    uint8_t digest[32], raw[SIGNATURE_LEN];
    FREE char *params = NULL;
    size_t i = 0;
    enum code rc = sigbase_call(&call, &params, digest, e);
    if (rc)
        return rc;
    if (strncmp(h->input, "sig1=", 5) != 0 || strcmp(h->input + 5, params) != 0)
        return deny(e, "Signature-Input is not that of a call of hsmint");
    while (i < g->keys_n && strcmp(g->keys[i].keyid, r->keyid) != 0)
        i++;
    if (i == g->keys_n)
        return error_set(e, ERR_DENIED, "key %s is not known", r->keyid);
    if ((rc = raw_signature(h, raw, e)))
        return rc;
    return is_signed(g->keys[i].key, digest, raw)
               ? OK
               : deny(e, "the signature does not fit the request");
}

static enum code check_time(const struct egress *g,
                            const struct egress_request *r, int64_t now_s,
                            struct error *e)
{
    int64_t age = now_s - r->created_s;
    if (age > g->window_s || age < -AHEAD_S)
        return error_set(e, ERR_DENIED,
                         "the signature is %" PRId64 " s old: not within "
                         "%" PRId64 " s",
                         age, g->window_s);
    return OK;
}

/* ---- nonces ---- */

/* Those that could not be used any more anyway. */
static void forget_old(int dir, int64_t before_s)
{
    int copy = openat(dir, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *list = copy < 0 ? NULL : fdopendir(copy);
    struct dirent *d;
    struct stat st;
    if (!list && copy >= 0)
        close(copy);
    while (list && (d = readdir(list)))
        if (strlen(d->d_name) == NONCE_LEN &&
            fstatat(dir, d->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
            st.st_mtime < before_s)
            (void)unlinkat(dir, d->d_name, 0);
    if (list)
        closedir(list);
}

/* A file each: of several checkers that are asked at once, one makes it. */
static enum code use_nonce(const struct egress *g, const char *nonce,
                           int64_t now_s, struct error *e)
{
    FD dir = open(g->seen, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (dir < 0)
        return error_errno(e, errno, "%s", g->seen);
    FD made = openat(dir, nonce, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (made < 0 && errno == EEXIST)
        return deny(e, "the nonce was used before");
    if (made < 0)
        return error_errno(e, errno, "%s/%s", g->seen, nonce);
    if (nonce[NONCE_LEN - 1] == '0') /* now and then */
        forget_old(dir, now_s - 2 * (g->window_s + AHEAD_S));
    return OK;
}

enum code egress_check(const struct egress *g, const char *bytes, size_t len,
                       int64_t now_s, struct egress_request *r,
                       struct error *e)
{
    struct head h;
    const char *body = NULL;
    *r = (struct egress_request){.method = ""};
    if (len > EGRESS_REQUEST_MAX)
        return deny(e, "the request is too long");
    enum code rc = parse_head(&h, bytes, len, &body, e);
    if (rc || (rc = check_present(&h, e)) ||
        (rc = check_body(&h, body, len - (size_t)(body - bytes), e)) ||
        (rc = make_uri(g, &h, r, e)) || (rc = parse_input(&h, r, e)) ||
        (rc = check_signature(g, &h, r, e)) ||
        (rc = check_time(g, r, now_s, e)))
        return rc;
    return use_nonce(g, r->nonce, now_s, e);
}
