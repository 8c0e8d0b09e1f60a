/* Strict decoding: whatever the input, what a decoder says it took is of the
 * kind that its field asked for. */
#include "config.h"

#include "common/json.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len);

static void decode(json_t *value, bool allow_unknown)
{
    const char *s = NULL;
    json_int_t n = 0;
    bool flag = false, has = false;
    json_t *object = NULL, *array = NULL, *any = NULL;
    const struct json_field fields[] = {
        {"s", FIELD_STRING, true, &s, NULL},
        {"n", FIELD_INT, false, &n, &has},
        {"flag", FIELD_BOOL, false, &flag, NULL},
        {"object", FIELD_OBJECT, false, &object, NULL},
        {"array", FIELD_ARRAY, false, &array, NULL},
        {"any", FIELD_ANY, false, &any, NULL},
    };
    struct error e;
    if (json_decode(value, JSON_FIELDS(fields), allow_unknown, "input", &e)) {
        if (!e.text[0])
            abort();
        return;
    }
    if (!s || (has && !json_is_integer(json_object_get(value, "n"))) ||
        (object && !json_is_object(object)) || (array && !json_is_array(array)))
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t len)
{
    struct error e;
    JSON value = NULL;
    if (json_parse((const char *)data, len, "input", &value, &e) != OK) {
        if (value || !e.text[0])
            abort();
        return 0;
    }
    decode(value, false);
    decode(value, true);
    return 0;
}
