/* Whatever a daemon says of its metrics: an error, or lines of which each is a
 * comment or a name, labels and a number. */
#include "config.h"

#include "tools/exposition.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void promise(bool kept)
{
    if (!kept)
        abort();
}

static const char *skip_name(const char *p)
{
    const char *begin = p;
    while (strchr("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ_:"
                  "0123456789",
                  *p) &&
           *p)
        p++;
    promise(p > begin && !strchr("0123456789", *begin));
    return p;
}

static const char *skip_text(const char *p)
{
    promise(*p++ == '"');
    for (; *p != '"'; p++) {
        promise(*p && *p != '\n');
        if (*p == '\\')
            promise(*++p && strchr("\\n\"", *p));
    }
    return p + 1;
}

static void check_sample(const char *p)
{
    char *end;
    p = skip_name(p);
    if (*p == '{') {
        do {
            p = skip_name(p + 1);
            promise(*p == '=');
            p = skip_text(p + 1);
        } while (*p == ',');
        promise(*p++ == '}');
    }
    promise(*p == ' ');
    (void)strtod(p + 1, &end);
    promise(end > p + 1 && !*end);
}

static void check_text(char *text)
{
    char *line, *rest = text;
    size_t len = strlen(text);
    promise(len == 0 || text[len - 1] == '\n');
    while ((line = strsep(&rest, "\n")) && *line)
        if (strncmp(line, "# HELP ", 7) && strncmp(line, "# TYPE ", 7))
            check_sample(line);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    JSON families = NULL;
    struct error e = {.code = OK};
    char *text = NULL;
    size_t len;
    if (json_parse((const char *)data, size, "metrics", &families, &e) != OK)
        return 0;
    FILE *out = open_memstream(&text, &len);
    promise(out != NULL);
    enum code rc = exposition_write(out, families, &e);
    promise(fclose(out) == 0);
    promise(rc == OK || *e.text);
    if (rc == OK) {
        promise(strlen(text) == len);
        check_text(text);
    }
    free(text);
    return 0;
}
