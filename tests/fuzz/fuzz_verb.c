/* The heads of all verbs, before a keeper without an HSM: a byte with the
 * verb, a line with the head, then the body. */
#include "config.h"

#include "hsm/keeper.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static const verb_fn verbs[] = {access_describe,  access_login, access_logout,
                                access_provision, orgkey_seal,  orgkey_bind,
                                orgkey_use,       orgkey_drop,  execute_sign,
                                execute_call,     value_seal,   value_unwrap,
                                value_probe,      marker_hmac,  random_bytes,
                                secretid_make,    secretid_check,
                                log_state,        log_begin,
                                log_resume,       log_sign};

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    static char hosts[] = "api.openai.com";
    static const struct settings none = {.hosts = hosts,
                                         .hsm_sessions = 1,
                                         .hsm_deadline_ms = 1000,
                                         .connect_ms = 1,
                                         .call_ms = 1,
                                         .reply_max = 1};
    static struct keeper keeper;
    struct channel c = {.keeper = &keeper, .sock = -1};
    FRAME in = FRAME_INIT;
    FRAME out = FRAME_INIT;
    struct error e;
    if (!keeper.hsm && keeper_init(&keeper, &none, "/nowhere", &e))
        abort();
    if (len < 1)
        return 0;
    const char *head = (const char *)data + 1;
    const char *end = memchr(head, '\n', len - 1);
    size_t head_len = end ? (size_t)(end - head) : len - 1;
    if (json_parse(head, head_len, "head", &in.head, &e) ||
        !json_is_object(in.head))
        return 0;
    in.body_len = end ? len - 2 - head_len : 0;
    in.body = in.body_len ? malloc(in.body_len) : NULL;
    if (in.body)
        memcpy(in.body, end + 1, in.body_len);
    size_t count = sizeof(verbs) / sizeof(verbs[0]);
    if (verbs[data[0] % count](&c, &in, &out, &e) != OK && !e.text[0])
        abort(); /* no refusal without a word */
    return 0;
}
