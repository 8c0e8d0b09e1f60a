/* escrow - see escrow.h; and the verb escrow. */
#include "config.h"

#include "hsm/escrow.h"

#include "common/file.h"
#include "common/text.h"
#include "hsm/keeper.h"
#include "hsm/soft.h"

#include <openssl/bio.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <stdlib.h>
#include <string.h>

#define PEM_MAX 16384
#define CIPHER_MAX 2048 /* of RSA with 16384 bits */

enum code escrow_check(const struct secret *key, const char *instance,
                       char hex[65], struct error *e)
{
    char text[48];
    uint8_t mac[32];
    int n = snprintf(text, sizeof text, "check %.32s", instance);
    enum code rc = hsm_mac(key, text, (size_t)n, mac, e);
    if (!rc)
        text_hex(hex, mac, sizeof mac);
    return rc;
}

static int digit(uint8_t c)
{
    return c >= '0' && c <= '9'   ? c - '0'
           : c >= 'a' && c <= 'f' ? c - 'a' + 10
           : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                  : -1;
}

/* From pages to pages: no buffer on the way has it. */
enum code escrow_open(const struct secret *hex, struct secret **key,
                      struct error *e)
{
    const uint8_t *from = secret_data(hex);
    SECRET s = NULL;
    bool good = secret_len(hex) == ESCROW_HEX;
    enum code rc = secret_new(&s, ESCROW_HEX / 2, e);
    if (rc)
        return rc;
    for (size_t i = 0; good && i < ESCROW_HEX / 2; i++) {
        int high = digit(from[2 * i]), low = digit(from[2 * i + 1]);
        good = high >= 0 && low >= 0;
        if (good)
            secret_bytes(s)[i] = (uint8_t)(high << 4 | low);
    }
    if (!good)
        return error_set(e, ERR_INVALID,
                         "hmac_key: not the %d hex digits that the recovery "
                         "key opens (`hsmint hsm recovery`)",
                         ESCROW_HEX);
    secret_set_len(s, ESCROW_HEX / 2);
    *key = s;
    s = NULL;
    return OK;
}

/* ---- the recovery key ---- */

static void bio_freep(BIO **b)
{
    BIO_free(*b);
}

static void der_freep(unsigned char **p)
{
    OPENSSL_free(*p);
}

enum code escrow_read_key(const char *path, EVP_PKEY **out,
                          char fingerprint[65], struct error *e)
{
    FREE char *text = NULL;
    size_t len = 0;
    struct error why = {.code = OK};
    EVP_PKEY *key CLEANUP(evp_pkey_freep) = NULL;
    unsigned char *der CLEANUP(der_freep) = NULL;
    uint8_t digest[32];
    char no_passphrase[] = ""; /* else the terminal is asked for one */
    /* Who writes it is given the HMAC key. */
    enum code rc = file_read(path, PEM_MAX, FILE_TRUSTED, &text, &len, &why);
    if (rc)
        return error_set(e, rc == ERR_NOMEM ? rc : ERR_CONFIG,
                         "[hsm] recovery_key: %s", why.text);
    BIO *bio CLEANUP(bio_freep) = BIO_new_mem_buf(text, (int)len);
    key = bio ? PEM_read_bio_PUBKEY(bio, NULL, NULL, no_passphrase) : NULL;
    int n = key ? i2d_PUBKEY(key, &der) : -1;
    if (n <= 0 || soft_public(der, (size_t)n, SOFT_RSA, out, &why))
        return error_set(e, ERR_CONFIG,
                         "[hsm] recovery_key: %s is no public RSA key of 3072 "
                         "bits or more in PEM (`openssl pkey -pubout`)",
                         path);
    soft_sha256(der, (size_t)n, digest);
    text_hex(fingerprint, digest, sizeof digest);
    return OK;
}

/* ---- the verb ---- */

static enum code encrypt(EVP_PKEY *to, const struct secret *key,
                         struct frame *out, struct error *e)
{
    SECRET hex = NULL;
    enum code rc = secret_new(&hex, ESCROW_HEX + 1, e);
    if (rc)
        return rc;
    text_hex((char *)secret_bytes(hex), secret_data(key), secret_len(key));
    secret_set_len(hex, ESCROW_HEX);
    out->body_len = CIPHER_MAX;
    out->body = EVP_PKEY_get_size(to) <= CIPHER_MAX ? malloc(CIPHER_MAX) : NULL;
    if (!out->body)
        return error_set(e, ERR_CONFIG, "[hsm] recovery_key: too long");
    return soft_oaep_encrypt(to, false, hex, out->body, &out->body_len, e);
}

/* {} where no recovery key is set. */
enum code escrow_give(struct channel *c, struct frame *in, struct frame *out,
                      struct error *e)
{
    struct hsm *h = c->keeper->hsm;
    const char *path = c->keeper->settings->recovery_key;
    EVP_PKEY *to CLEANUP(evp_pkey_freep) = NULL;
    char fingerprint[65], check[65];
    SECRET key = NULL;
    JSON state = NULL;
    enum code rc = json_decode(in->head, NULL, 0, false, "escrow", e);
    if (rc || !path)
        return rc;
    if ((rc = escrow_read_key(path, &to, fingerprint, e)) ||
        (rc = hsm_describe(h, &state, e)) || (rc = hsm_hmac_key(h, &key, e)))
        return rc;
    const char *instance =
        json_string_value(json_object_get(state, "instance"));
    rc = escrow_check(key, instance ? instance : "", check, e);
    if (!rc)
        rc = encrypt(to, key, out, e);
    if (rc)
        return rc;
    out->head = json_pack("{ss ss}", "recovery_key", fingerprint, "check",
                          check);
    return out->head ? OK : error_set(e, ERR_NOMEM, "no memory for a reply");
}
