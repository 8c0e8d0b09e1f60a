/* attestation - see attestation.h. */
#include "config.h"

#include "module/audit/attestation.h"

#include "common/text.h"

#include <openssl/pem.h>
#include <openssl/x509.h>
#include <string.h>

#define CERTIFICATES_MAX 32

static void put_name(char out[ATTESTATION_NAME_MAX], X509_NAME *name)
{
    char *text = NULL;
    BIO *bio = BIO_new(BIO_s_mem());
    if (bio && X509_NAME_print_ex(bio, name, 0,
                                  XN_FLAG_RFC2253 & ~ASN1_STRFLGS_ESC_MSB) >= 0) {
        long n = BIO_get_mem_data(bio, &text);
        (void)text_escape(out, ATTESTATION_NAME_MAX, text, (size_t)n);
    }
    BIO_free(bio);
}

static bool has_key(X509 *cert, const uint8_t *spki, size_t len)
{
    unsigned char *der = NULL;
    int n = i2d_X509_PUBKEY(X509_get_X509_PUBKEY(cert), &der);
    bool same = len > 0 && n > 0 && (size_t)n == len &&
                memcmp(der, spki, len) == 0;
    OPENSSL_free(der);
    return same;
}

static void take(struct attestation *a, X509 *cert, const uint8_t *spki,
                 size_t spki_len)
{
    bool about = has_key(cert, spki, spki_len);
    if (a->certificates++ == 0 || (about && !a->is_about)) {
        put_name(a->subject, X509_get_subject_name(cert));
        put_name(a->issuer, X509_get_issuer_name(cert));
    }
    a->is_about = a->is_about || about;
}

void attestation_look(struct attestation *a, const uint8_t *bytes, size_t len,
                      const uint8_t *spki, size_t spki_len)
{
    const unsigned char *at = bytes;
    char no_passphrase[] = ""; /* else the terminal is asked for one */
    *a = (struct attestation){.certificates = 0};
    X509 *cert = d2i_X509(NULL, &at, (long)len);
    if (cert) {
        take(a, cert, spki, spki_len);
        X509_free(cert);
        return;
    }
    BIO *bio = BIO_new_mem_buf(bytes, (int)len);
    while (bio && a->certificates < CERTIFICATES_MAX &&
           (cert = PEM_read_bio_X509(bio, NULL, NULL, no_passphrase))) {
        take(a, cert, spki, spki_len);
        X509_free(cert);
    }
    BIO_free(bio);
}
