#include "config.h"

#include "tests/adminsim/certificate.h"

#include "tests/adminsim/world.h"

#include <fcntl.h>
#include <openssl/bio.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/rand.h>
#include <openssl/x509v3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define DAYS 3650

static void freep_x509(X509 **x)
{
    X509_free(*x);
}

static void freep_pkey(EVP_PKEY **k)
{
    EVP_PKEY_free(*k);
}

static void freep_bio(BIO **b)
{
    BIO_free(*b);
}

#define OWNED(type, fn) __attribute__((cleanup(fn))) type

static bool extend(X509 *x, X509 *issuer, int nid, const char *value)
{
    X509V3_CTX ctx;
    X509V3_set_ctx(&ctx, issuer, x, NULL, NULL, 0);
    X509_EXTENSION *e = X509V3_EXT_conf_nid(NULL, &ctx, nid, value);
    bool ok = e && X509_add_ext(x, e, -1);
    X509_EXTENSION_free(e);
    return ok;
}

static bool basics(X509 *x, const char *name, EVP_PKEY *key)
{
    unsigned char serial[8];
    if (RAND_bytes(serial, sizeof serial) != 1)
        return false;
    serial[0] &= 0x7f;
    BIGNUM *n = BN_bin2bn(serial, sizeof serial, NULL);
    bool ok = n && BN_to_ASN1_INTEGER(n, X509_get_serialNumber(x));
    BN_free(n);
    return ok && X509_set_version(x, X509_VERSION_3) &&
           X509_gmtime_adj(X509_getm_notBefore(x), -3600) &&
           X509_gmtime_adj(X509_getm_notAfter(x), 86400L * DAYS) &&
           X509_set_pubkey(x, key) &&
           X509_NAME_add_entry_by_txt(X509_get_subject_name(x), "CN",
                                      MBSTRING_UTF8,
                                      (const unsigned char *)name, -1, -1, 0);
}

static bool make_ca(X509 *ca, EVP_PKEY *key)
{
    return basics(ca, "hsmint adminsim test CA", key) &&
           X509_set_issuer_name(ca, X509_get_subject_name(ca)) &&
           extend(ca, ca, NID_basic_constraints, "critical,CA:TRUE") &&
           extend(ca, ca, NID_key_usage, "critical,keyCertSign,cRLSign") &&
           extend(ca, ca, NID_subject_key_identifier, "hash") &&
           X509_sign(ca, key, EVP_sha256()) > 0;
}

static bool make_server(X509 *x, EVP_PKEY *key, X509 *ca, EVP_PKEY *ca_key)
{
    return basics(x, "localhost", key) &&
           X509_set_issuer_name(x, X509_get_subject_name(ca)) &&
           extend(x, ca, NID_basic_constraints, "critical,CA:FALSE") &&
           extend(x, ca, NID_key_usage, "critical,digitalSignature") &&
           extend(x, ca, NID_ext_key_usage, "serverAuth") &&
           extend(x, ca, NID_subject_alt_name,
                  "DNS:localhost,IP:127.0.0.1,IP:::1") &&
           extend(x, ca, NID_subject_key_identifier, "hash") &&
           extend(x, ca, NID_authority_key_identifier, "keyid") &&
           X509_sign(x, ca_key, EVP_sha256()) > 0;
}

static bool write_file(const char *dir, const char *name, mode_t mode, BIO *b)
{
    char *data, *path = text_format("%s/%s", dir, name);
    long len = BIO_get_mem_data(b, &data);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, mode);
    bool ok = fd >= 0 && write(fd, data, (size_t)len) == len;
    if (fd >= 0)
        ok = close(fd) == 0 && ok;
    if (!ok)
        perror(path);
    free(path);
    return ok;
}

static bool write_pem(const char *dir, const char *name, mode_t mode, X509 *x,
                      EVP_PKEY *key)
{
    OWNED(BIO *, freep_bio) b = BIO_new(BIO_s_mem());
    bool ok =
        b && (x ? PEM_write_bio_X509(b, x)
                : PEM_write_bio_PrivateKey(b, key, NULL, NULL, 0, NULL, NULL));
    return ok && write_file(dir, name, mode, b);
}

static bool make(const char *dir)
{
    OWNED(EVP_PKEY *, freep_pkey) ca_key = EVP_EC_gen("P-256");
    OWNED(EVP_PKEY *, freep_pkey) key = EVP_EC_gen("P-256");
    OWNED(X509 *, freep_x509) ca = X509_new();
    OWNED(X509 *, freep_x509) server = X509_new();
    if (!ca_key || !key || !ca || !server || !make_ca(ca, ca_key) ||
        !make_server(server, key, ca, ca_key)) {
        fprintf(stderr, "hsmint-adminsim: cannot make a certificate\n");
        return false;
    }
    return write_pem(dir, "server.key", 0600, NULL, key) &&
           write_pem(dir, "server.pem", 0644, server, NULL) &&
           write_pem(dir, "ca.pem", 0644, ca, NULL);
}

/* NULL if it is not there. */
static char *read_text(const char *dir, const char *name)
{
    char *path = text_format("%s/%s", dir, name);
    char *text = must(calloc(1, 16385));
    FILE *f = fopen(path, "re");
    size_t n = f ? fread(text, 1, 16384, f) : 0;
    if (f)
        fclose(f);
    free(path);
    if (n)
        return text;
    free(text);
    return NULL;
}

static bool read_all(const char *dir, char **cert, char **key)
{
    char *ca = read_text(dir, "ca.pem"); /* the last that make() writes */
    *cert = read_text(dir, "server.pem");
    *key = read_text(dir, "server.key");
    bool ok = ca && *cert && *key;
    free(ca);
    return ok;
}

bool certificate_get(const char *dir, char **cert, char **key)
{
    mkdir(dir, 0700); /* what is wrong with it, the files will say */
    if (read_all(dir, cert, key))
        return true;
    free(*cert);
    free(*key);
    return make(dir) && read_all(dir, cert, key);
}
