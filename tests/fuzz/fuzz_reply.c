/* What the service sent: a line with a header's value, then the body. */
#include "config.h"

#include "common/file.h"
#include "hsm/reply.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    const char *text = (const char *)data;
    const char *end = len ? memchr(data, '\n', len) : NULL;
    size_t head = end ? (size_t)(end - text) : len;
    const char *body = end ? end + 1 : text + len;
    size_t body_len = len - (size_t)(body - text);
    char id[ERROR_REQUEST_ID_MAX], code[REPLY_CODE_MAX];
    JSON rest = NULL;
    SECRET value = NULL;
    FREE char *key_id = NULL;
    if (reply_rate_count(text, head) < -1 ||
        reply_rate_reset(text, head) > REPLY_WAIT_MAX_MS ||
        reply_retry_after(text, head, 1795253175000) > REPLY_WAIT_MAX_MS ||
        reply_message_wait(body, body_len) > REPLY_WAIT_MAX_MS)
        abort();
    reply_request_id(id, text, head);
    reply_error_code(code, body, body_len);
    if (strlen(id) > head || strpbrk(id, "\r\n \t") || strpbrk(code, "\r\n"))
        abort();
    if (reply_take_admin_key(body, body_len, &rest, &value, &key_id, NULL) ==
            OK &&
        (!rest || json_object_get(rest, "value")))
        abort();
    return 0;
}
