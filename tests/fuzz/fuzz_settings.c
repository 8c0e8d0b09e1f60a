#include "config.h"

#include "common/settings.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct settings s;
    struct error e;
    char *text = malloc(len + 1);
    if (!text)
        return 0;
    memcpy(text, data, len);
    text[len] = '\0';
    if (settings_parse(&s, text, "fuzz.conf", &e) == OK &&
        (!s.state_dir || !s.hsm_env || s.keeper_threads < 1))
        abort();
    settings_clear(&s);
    free(text);
    return 0;
}
