/* Signed notes, checkpoints and keys of logs: what is taken is what would be
 * written again. */
#include "config.h"

#include "common/file.h"
#include "common/note.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void checkpoint(const struct note *n)
{
    struct checkpoint c;
    FREE char *again = NULL;
    if (checkpoint_parse(&c, n->text, n->text_len, NULL))
        return;
    if (checkpoint_format(&c, &again, NULL) ||
        strlen(again) > n->text_len ||
        memcmp(again, n->text, strlen(again)) != 0)
        abort();
}

static void note(const char *bytes, size_t len)
{
    struct note n;
    FREE char *text = NULL;
    FREE char *again = NULL;
    if (note_parse(&n, bytes, len, NULL))
        return;
    checkpoint(&n);
    for (size_t i = 0; i < n.n; i++)
        if (n.signatures[i].len == 0)
            return; /* longer than is kept */
    text = strndup(n.text, n.text_len);
    if (!text || note_format(text, n.signatures, n.n, &again, NULL) ||
        strlen(again) != len || memcmp(again, bytes, len) != 0)
        abort();
}

static void key(const char *bytes, size_t len)
{
    struct note_key k;
    FREE char *text = strndup(bytes, len);
    FREE char *again = NULL;
    if (!text || note_key_parse(&k, text, NULL))
        return;
    if (note_key_format(&k, &again, NULL))
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    const char *bytes = (const char *)data;
    note(bytes, len);
    key(bytes, len);
    return 0;
}
