/* openai - the Admin API: requests to send, replies strictly decoded. No
 * network. Facts: the service's public API description of 2026.
 *
 * Paths are relative to the endpoint ("/organization/…"), every id in them is
 * checked and percent-encoded. Replies: unknown fields are ignored, a missing
 * id or value that the operation is for is ERR_SERVICE_REPLY.
 */
#ifndef HSMINT_OPENAI_H
#define HSMINT_OPENAI_H

#include "common/error.h"
#include "common/secret.h"

#include <stdbool.h>

struct openai_request {
    const char *method; /* "GET", "POST", "DELETE"; static */
    char *path;         /* with query; owned */
    char *body;         /* JSON or NULL; owned */
};
void openai_request_clear(struct openai_request *r);

/* 0 means "not sent" for every expires_s. */
MUST_CHECK enum code openai_project_get(struct openai_request *r,
                                        const char *project, struct error *e);
MUST_CHECK enum code openai_project_list(struct openai_request *r,
                                         const char *after, bool archived,
                                         struct error *e);
MUST_CHECK enum code openai_project_create(struct openai_request *r,
                                           const char *name, struct error *e);
MUST_CHECK enum code openai_project_update(struct openai_request *r,
                                           const char *project,
                                           const char *name, struct error *e);
MUST_CHECK enum code openai_project_archive(struct openai_request *r,
                                            const char *project,
                                            struct error *e);
MUST_CHECK enum code openai_account_create(struct openai_request *r,
                                           const char *project,
                                           const char *name, int64_t expires_s,
                                           struct error *e);
MUST_CHECK enum code openai_account_get(struct openai_request *r,
                                        const char *project,
                                        const char *account, struct error *e);
MUST_CHECK enum code openai_account_list(struct openai_request *r,
                                         const char *project, const char *after,
                                         struct error *e);
MUST_CHECK enum code openai_account_update(struct openai_request *r,
                                           const char *project,
                                           const char *account,
                                           const char *name, const char *role,
                                           struct error *e);
MUST_CHECK enum code openai_account_delete(struct openai_request *r,
                                           const char *project,
                                           const char *account,
                                           struct error *e);
MUST_CHECK enum code
openai_account_key_create(struct openai_request *r, const char *project,
                          const char *account, const char *name,
                          int64_t expires_s, struct error *e);
MUST_CHECK enum code openai_project_key_list(struct openai_request *r,
                                             const char *project,
                                             const char *after,
                                             struct error *e);
MUST_CHECK enum code openai_project_key_get(struct openai_request *r,
                                            const char *project,
                                            const char *key, struct error *e);
MUST_CHECK enum code
openai_project_key_update(struct openai_request *r, const char *project,
                          const char *key, int64_t expires_s, struct error *e);
MUST_CHECK enum code openai_project_key_delete(struct openai_request *r,
                                               const char *project,
                                               const char *key,
                                               struct error *e);
MUST_CHECK enum code openai_admin_key_list(struct openai_request *r,
                                           const char *after, struct error *e);
MUST_CHECK enum code openai_admin_key_get(struct openai_request *r,
                                          const char *key, struct error *e);
MUST_CHECK enum code openai_admin_key_create(struct openai_request *r,
                                             const char *name,
                                             int64_t expires_s,
                                             struct error *e);
MUST_CHECK enum code openai_admin_key_delete(struct openai_request *r,
                                             const char *key, struct error *e);

/* What came back; from the keeper. */
struct openai_reply {
    long status;      /* HTTP */
    const char *body; /* not NUL-terminated */
    size_t body_len;
    const char *request_id;  /* x-request-id or "" */
    uint32_t retry_after_ms; /* from header or message; 0 if not told */
};
/* OK for 200, of a DELETE only where the reply says "deleted": true; else the
 * error that status and body say, with request id and
 * retry-after. A DELETE's 404 is OK (already gone); another 404 is
 * ERR_NOT_FOUND (any with code project_not_found is ERR_PROJECT; with
 * project_archived any 4xx is). Reads the message
 * of every known error shape, the bare string among them. Never a secret in
 * the text: anything like "sk-…" in a message is masked. */
MUST_CHECK enum code openai_check(const struct openai_request *r,
                                  const struct openai_reply *reply,
                                  struct error *e);
/* Of a DELETE that passed: the service itself says so, and not something on the
 * way, whose 404 says nothing of the object. */
bool openai_says_gone(const struct openai_reply *reply);

struct openai_key {
    char *id;
    char *name;
    struct secret *value;
    int64_t created_at, expires_at;
    char *redacted;
    char *account_id; /* the service account that owns it; NULL: another */
};
struct openai_account {
    char *id;
    char *name;
    char *role;
    int64_t created_at;
    bool has_key;
    struct openai_key key;
};
struct openai_project {
    char *id;
    char *name;
    bool archived;
};
struct openai_admin_key {
    char *id;
    char *name;
    char *redacted;
    int64_t created_at, expires_at, last_used_at;
    char *owner_type;
    char *owner_name;
    char *owner_role;
};
void openai_key_clear(struct openai_key *k);
void openai_account_clear(struct openai_account *a);
void openai_project_clear(struct openai_project *p);
void openai_admin_key_clear(struct openai_admin_key *k);

/* Decoders take a reply that openai_check() passed. The value goes into a
 * secret; the JSON text's other copies are wiped by the process's free().
 * decode_created_account: id, api_key.id and api_key.value must be there; on
 * ERR_SERVICE_REPLY *a holds the id where one was readable, to delete it. */
MUST_CHECK enum code openai_decode_created_account(const struct openai_reply *r,
                                                   struct openai_account *a,
                                                   struct error *e);
MUST_CHECK enum code openai_decode_account(const struct openai_reply *r,
                                           struct openai_account *a,
                                           struct error *e);
MUST_CHECK enum code openai_decode_account_key(const struct openai_reply *r,
                                               struct openai_key *k,
                                               struct error *e);
MUST_CHECK enum code openai_decode_project(const struct openai_reply *r,
                                           struct openai_project *p,
                                           struct error *e);
MUST_CHECK enum code openai_decode_project_key(const struct openai_reply *r,
                                               struct openai_key *k,
                                               struct error *e);
MUST_CHECK enum code openai_decode_admin_key(const struct openai_reply *r,
                                             struct openai_admin_key *k,
                                             struct error *e);

/* Lists: calls fn for each item; *after is the cursor of the next page (owned
 * by the caller), NULL when this was the last. */
typedef enum code (*openai_account_fn)(const struct openai_account *a,
                                       void *ctx, struct error *e);
MUST_CHECK enum code openai_decode_account_list(const struct openai_reply *r,
                                                openai_account_fn fn, void *ctx,
                                                char **after, struct error *e);
typedef enum code (*openai_admin_key_fn)(const struct openai_admin_key *k,
                                         void *ctx, struct error *e);
MUST_CHECK enum code openai_decode_admin_key_list(const struct openai_reply *r,
                                                  openai_admin_key_fn fn,
                                                  void *ctx, char **after,
                                                  struct error *e);
typedef enum code (*openai_project_fn)(const struct openai_project *p,
                                       void *ctx, struct error *e);
MUST_CHECK enum code openai_decode_project_list(const struct openai_reply *r,
                                                openai_project_fn fn, void *ctx,
                                                char **after, struct error *e);
typedef enum code (*openai_key_fn)(const struct openai_key *k, void *ctx,
                                   struct error *e);
MUST_CHECK enum code openai_decode_key_list(const struct openai_reply *r,
                                            openai_key_fn fn, void *ctx,
                                            char **after, struct error *e);

struct openai_event { /* of the organisation's audit log */
    char *id;
    char *type;   /* "service_account.created" */
    char *target; /* id of what it is about; NULL: not told */
    char *project;
    int64_t effective_at;
    char *actor_key; /* the API key that did it; NULL: none */
    char *actor;     /* for people; escaped */
};
void openai_event_clear(struct openai_event *v);
/* Newest first. tenant: those of the organisation itself, admin keys among
 * them. */
MUST_CHECK enum code openai_event_list(struct openai_request *r,
                                       int64_t since_s, bool tenant,
                                       const char *after, struct error *e);
typedef enum code (*openai_event_fn)(const struct openai_event *v, void *ctx,
                                     struct error *e);
MUST_CHECK enum code openai_decode_event_list(const struct openai_reply *r,
                                              openai_event_fn fn, void *ctx,
                                              char **after, struct error *e);

#endif
