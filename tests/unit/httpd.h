/* httpd - a small HTTP/1.1 server on 127.0.0.1 for tests of the keeper, over
 * TLS with a certificate of its own, that misbehaves as told.
 *
 *     struct httpd s;
 *     httpd_start(&s, true);            https://127.0.0.1:<s.port>, s.ca_file
 *     httpd_next(&s, (struct httpd_step){.act = HTTPD_DROP});
 *     httpd_stop(&s);
 */
#ifndef HSMINT_TESTS_HTTPD_H
#define HSMINT_TESTS_HTTPD_H

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <openssl/pem.h>
#include <openssl/ssl.h>
#include <openssl/x509v3.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum httpd_act {
    HTTPD_REPLY,    /* status, headers, body; the default is 200 {} */
    HTTPD_DROP,     /* read the request, end the connection without a word */
    HTTPD_CLOSE,    /* reply, then end the connection while it is idle */
    HTTPD_TRUNCATE, /* promise more than is sent */
    HTTPD_OVERSIZE, /* two million bytes */
    HTTPD_HANG      /* read the request, answer only at httpd_release() */
};
struct httpd_step {
    enum httpd_act act;
    int status;
    const char *headers; /* lines that end in CR LF, or NULL */
    const char *body;
};

#define HTTPD_STEPS 64
#define HTTPD_REQUEST 65536
struct httpd {
    int listener, port;
    SSL_CTX *tls;
    char ca_file[256];
    pthread_t thread;
    pthread_mutex_t lock;
    struct httpd_step steps[HTTPD_STEPS];
    size_t first, last;
    atomic_int requests, connections, running;
    atomic_bool released, stopped;
    char request[HTTPD_REQUEST]; /* the latest, whole */
};

struct httpd_connection {
    struct httpd *s;
    int fd;
    SSL *ssl;
};

static inline int httpd_read(struct httpd_connection *c, char *p, int n)
{
    return c->ssl ? SSL_read(c->ssl, p, n) : (int)read(c->fd, p, (size_t)n);
}

static inline void httpd_write(struct httpd_connection *c, const char *p,
                               size_t n)
{
    while (n > 0) {
        int done = c->ssl ? SSL_write(c->ssl, p, (int)n)
                          : (int)send(c->fd, p, n, MSG_NOSIGNAL);
        if (done <= 0)
            return;
        p += done;
        n -= (size_t)done;
    }
}

/* A whole request into `text`; false at the end of the connection. */
static inline bool httpd_request(struct httpd_connection *c, char *text)
{
    size_t len = 0, want = 0;
    while (len < HTTPD_REQUEST - 1) {
        int n = httpd_read(c, text + len, (int)(HTTPD_REQUEST - 1 - len));
        if (n <= 0)
            return false;
        len += (size_t)n;
        text[len] = '\0';
        const char *end = strstr(text, "\r\n\r\n");
        const char *length = strcasestr(text, "\r\ncontent-length:");
        if (!end)
            continue;
        want = (size_t)(end + 4 - text);
        if (length && length < end)
            want += strtoul(length + 17, NULL, 10);
        if (len >= want)
            return true;
    }
    return false;
}

static inline struct httpd_step httpd_take(struct httpd *s, const char *request)
{
    struct httpd_step step = {.act = HTTPD_REPLY};
    pthread_mutex_lock(&s->lock);
    snprintf(s->request, sizeof s->request, "%s", request);
    if (s->first < s->last)
        step = s->steps[s->first++ % HTTPD_STEPS];
    pthread_mutex_unlock(&s->lock);
    atomic_fetch_add(&s->requests, 1);
    return step;
}

static inline void httpd_reply(struct httpd_connection *c,
                               const struct httpd_step *step, size_t claim)
{
    char head[4096];
    const char *body = step->body ? step->body : "{}";
    int n = snprintf(head, sizeof head,
                     "HTTP/1.1 %d X\r\nContent-Type: application/json\r\n"
                     "%sContent-Length: %zu\r\n\r\n",
                     step->status ? step->status : 200,
                     step->headers ? step->headers : "",
                     claim ? claim : strlen(body));
    httpd_write(c, head, (size_t)n);
    httpd_write(c, body, strlen(body));
}

static inline void httpd_oversize(struct httpd_connection *c)
{
    static const char head[] = "HTTP/1.1 200 X\r\nContent-Length: 2000000\r\n"
                               "\r\n";
    char block[10000];
    memset(block, ' ', sizeof block);
    httpd_write(c, head, sizeof head - 1);
    for (int i = 0; i < 200; i++)
        httpd_write(c, block, sizeof block);
}

/* True: the connection goes on. */
static inline bool httpd_act(struct httpd_connection *c,
                             const struct httpd_step *step)
{
    switch (step->act) {
    case HTTPD_REPLY:
        httpd_reply(c, step, 0);
        return true;
    case HTTPD_CLOSE:
        httpd_reply(c, step, 0);
        return false;
    case HTTPD_TRUNCATE:
        httpd_reply(c, step, 100000);
        return false;
    case HTTPD_OVERSIZE:
        httpd_oversize(c);
        return false;
    case HTTPD_HANG:
        while (!atomic_load(&c->s->released) && !atomic_load(&c->s->stopped))
            usleep(1000);
        httpd_reply(c, step, 0);
        return true;
    case HTTPD_DROP:
        break;
    }
    return false;
}

static inline void *httpd_connection(void *ctx)
{
    struct httpd_connection *c = ctx;
    char *text = malloc(HTTPD_REQUEST);
    bool on = text;
    if (c->s->tls) {
        c->ssl = SSL_new(c->s->tls);
        SSL_set_fd(c->ssl, c->fd);
        on = on && SSL_accept(c->ssl) == 1;
    }
    while (on && httpd_request(c, text)) {
        struct httpd_step step = httpd_take(c->s, text);
        on = httpd_act(c, &step);
    }
    if (c->ssl)
        SSL_shutdown(c->ssl);
    SSL_free(c->ssl);
    close(c->fd);
    atomic_fetch_sub(&c->s->running, 1);
    free(text);
    free(c);
    return NULL;
}

static inline void *httpd_accept(void *ctx)
{
    struct httpd *s = ctx;
    while (!atomic_load(&s->stopped)) {
        struct pollfd p = {.fd = s->listener, .events = POLLIN};
        if (poll(&p, 1, 20) <= 0)
            continue;
        int fd = accept(s->listener, NULL, NULL);
        struct httpd_connection *c = calloc(1, sizeof *c);
        pthread_t thread;
        struct timeval idle = {.tv_sec = 120};
        if (fd < 0 || !c)
            abort();
        setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &idle, sizeof idle);
        setsockopt(fd, IPPROTO_TCP, TCP_NODELAY, &(int){1}, sizeof(int));
        *c = (struct httpd_connection){.s = s, .fd = fd};
        atomic_fetch_add(&s->connections, 1);
        atomic_fetch_add(&s->running, 1);
        if (pthread_create(&thread, NULL, httpd_connection, c))
            abort();
        pthread_detach(thread);
    }
    return NULL;
}

static inline SSL_CTX *httpd_tls(const char *ca_file)
{
    EVP_PKEY *key = EVP_EC_gen("P-256");
    X509 *x = X509_new();
    X509_NAME *name = X509_get_subject_name(x);
    X509V3_CTX v3;
    FILE *f = fopen(ca_file, "w");
    if (!key || !f)
        abort();
    X509_set_version(x, 2);
    ASN1_INTEGER_set(X509_get_serialNumber(x), 1);
    X509_gmtime_adj(X509_getm_notBefore(x), -3600);
    X509_gmtime_adj(X509_getm_notAfter(x), 3600);
    X509_NAME_add_entry_by_txt(name, "CN", MBSTRING_ASC,
                               (const unsigned char *)"test", -1, -1, 0);
    X509_set_issuer_name(x, name);
    X509_set_pubkey(x, key);
    X509V3_set_ctx(&v3, x, x, NULL, NULL, 0);
    X509_EXTENSION *san = X509V3_EXT_conf_nid(NULL, &v3, NID_subject_alt_name,
                                              "IP:127.0.0.1,DNS:localhost");
    X509_EXTENSION *ca =
        X509V3_EXT_conf_nid(NULL, &v3, NID_basic_constraints, "CA:TRUE");
    X509_add_ext(x, san, -1);
    X509_add_ext(x, ca, -1);
    X509_EXTENSION_free(san);
    X509_EXTENSION_free(ca);
    X509_sign(x, key, EVP_sha256());
    PEM_write_X509(f, x);
    fclose(f);
    SSL_CTX *ctx = SSL_CTX_new(TLS_server_method());
    if (SSL_CTX_use_certificate(ctx, x) != 1 ||
        SSL_CTX_use_PrivateKey(ctx, key) != 1)
        abort();
    X509_free(x);
    EVP_PKEY_free(key);
    return ctx;
}

static inline void httpd_start(struct httpd *s, bool tls)
{
    struct sockaddr_in a = {.sin_family = AF_INET,
                            .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t len = sizeof a;
    const char *tmp = getenv("TMPDIR");
    memset(s, 0, sizeof *s);
    signal(SIGPIPE, SIG_IGN);
    pthread_mutex_init(&s->lock, NULL);
    snprintf(s->ca_file, sizeof s->ca_file, "%s/hsmint-ca-XXXXXX",
             tmp && *tmp ? tmp : "/tmp");
    int fd = mkstemp(s->ca_file);
    s->listener = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (fd < 0 || s->listener < 0 ||
        bind(s->listener, (struct sockaddr *)&a, sizeof a) ||
        listen(s->listener, 64) ||
        getsockname(s->listener, (struct sockaddr *)&a, &len))
        abort();
    close(fd);
    s->port = ntohs(a.sin_port);
    s->tls = tls ? httpd_tls(s->ca_file) : NULL;
    if (pthread_create(&s->thread, NULL, httpd_accept, s))
        abort();
}

static inline void httpd_next(struct httpd *s, struct httpd_step step)
{
    pthread_mutex_lock(&s->lock);
    s->steps[s->last++ % HTTPD_STEPS] = step;
    pthread_mutex_unlock(&s->lock);
}

/* Does the latest request hold `text`? */
static inline bool httpd_saw(struct httpd *s, const char *text)
{
    pthread_mutex_lock(&s->lock);
    bool found = strstr(s->request, text);
    pthread_mutex_unlock(&s->lock);
    return found;
}

static inline void httpd_release(struct httpd *s)
{
    atomic_store(&s->released, true);
}

/* The clients have closed their connections by now. */
static inline void httpd_stop(struct httpd *s)
{
    atomic_store(&s->stopped, true);
    pthread_join(s->thread, NULL);
    for (int i = 0; i < 60000 && atomic_load(&s->running) > 0; i++)
        usleep(1000);
    close(s->listener);
    unlink(s->ca_file);
    SSL_CTX_free(s->tls);
}

#endif
