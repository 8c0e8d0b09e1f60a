/* A name template: whatever comes, a name is short and plain, or refused. */
#include "config.h"

#include "module/core/template.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void promise(bool kept)
{
    if (!kept)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const struct template_input in = {.role = "payments_api-production.eu-1",
                                      .project = "Payments \xc3\xbc",
                                      .wall_ms = 1790809199123};
    char *text = strndup((const char *)data, size);
    char out[TEMPLATE_ROOM + 1];
    struct error e = {0};

    promise(text != NULL);
    if (template_check(text, &in, &e) == OK) {
        promise(template_render(text, &in, out, &e) == OK);
        size_t len = strlen(out);
        promise(len > 0 && len <= TEMPLATE_ROOM);
        promise(strspn(out, "abcdefghijklmnopqrstuvwxyz"
                            "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") == len);
    } else {
        promise(*e.text);
    }
    free(text);
    return 0;
}
