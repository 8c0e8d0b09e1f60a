/* Documents of the HSM's keys' states: what is taken is written again as it was. */
#include "config.h"

#include "module/core/keystate.h"

#include <stdint.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void check(const struct keystate_doc *d)
{
    struct keystate_doc again;
    char *text = keystate_format(d);

    if (!text)
        return; /* not UTF-8, or no memory */
    if (d->n == 0 || d->n > KEYSTATE_DATES_MAX ||
        keystate_parse(&again, d->label, text, NULL) != OK ||
        again.n != d->n || keystate_now(&again)->state != keystate_now(d)->state)
        abort();
    for (int i = 0; i < KEYSTATE_DATES_MAX; i++)
        keystate_add(&again, keystate_now(d));
    if (again.n != KEYSTATE_DATES_MAX || again.dates[0].state != d->dates[0].state)
        abort();
    free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct keystate_doc d;
    struct error e = {.code = OK};
    char *body = malloc(len + 1);

    if (!body)
        return 0;
    memcpy(body, data, len);
    body[len] = '\0';
    if (keystate_parse(&d, "hsmint-call-2", body, &e) == OK)
        check(&d);
    else if (!e.text[0])
        abort();
    free(body);
    return 0;
}
