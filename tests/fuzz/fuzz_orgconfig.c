/* A configuration as an administrator types it: what is taken survives the
 * store, and its endpoint is https to a plain host. */
#include "config.h"

#include "module/core/orgconfig.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void promise(bool kept)
{
    if (!kept)
        abort();
}

static void round_trip(const struct config *c)
{
    CONFIG again = {0};
    char *text = NULL, *text2 = NULL;
    struct error e = {0};

    promise(config_text(c, &text, &e) == OK);
    promise(config_parse(&again, text, &e) == OK);
    promise(config_text(&again, &text2, &e) == OK);
    promise(strcmp(text, text2) == 0);
    promise(strncmp(c->api_endpoint, "https://", 8) == 0);
    promise(!strpbrk(c->api_endpoint, "@?#\\ \r\n%"));
    free(text);
    free(text2);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    JSON fields = NULL;
    CONFIG c = {0};
    struct error e = {0};

    if (json_parse((const char *)data, size, "config", &fields, &e) != OK)
        return 0;
    promise(config_init(&c, &e) == OK);
    if (config_apply(&c, fields, false, &e) == OK)
        round_trip(&c);
    else
        promise(*e.text);
    return 0;
}
