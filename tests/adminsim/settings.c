#include "config.h"

#include "tests/adminsim/settings.h"

#include <stddef.h>
#include <string.h>

struct settings settings = {.rate_window_ms = 60000,
                            .max_name = 256,
                            .retry_after = true,
                            .account_key_delete = true,
                            .self_delete = true};
static struct settings start;

static const char *const expiries[] = {"honour", "ignore", "refuse"};

enum type { NUMBER, OFFSET, BOOLEAN, EXPIRY };
#define AT(f) #f, offsetof(struct settings, f)
static const struct {
    const char *name;
    size_t offset;
    enum type type;
} table[] = {
    {AT(latency_ms), NUMBER},
    {AT(latency_jitter_ms), NUMBER},
    {AT(visibility_ms), NUMBER},
    {AT(revoke_ms), NUMBER},
    {AT(rate_limit), NUMBER},
    {AT(rate_window_ms), NUMBER},
    {AT(clock_offset_s), OFFSET},
    {AT(max_expiry_s), NUMBER},
    {AT(max_name), NUMBER},
    {AT(expiry), EXPIRY},
    {AT(retry_after), BOOLEAN},
    {AT(rate_headers), BOOLEAN},
    {AT(visibility_delete), BOOLEAN},
    {AT(account_key_delete), BOOLEAN},
    {AT(self_delete), BOOLEAN},
    {AT(null_cursors), BOOLEAN},
    {AT(list_needs_any), BOOLEAN},
    {AT(check_organization), BOOLEAN},
};
#define N (sizeof table / sizeof table[0])

void settings_start(void)
{
    start = settings;
}

void settings_reset(void)
{
    settings = start;
}

static const char *apply_expiry(int64_t *out, json_t *value)
{
    const char *text = json_string_value(value);
    for (int i = 0; text && i < 3; i++)
        if (!strcmp(text, expiries[i])) {
            *out = i;
            return NULL;
        }
    return "must be honour, ignore or refuse";
}

static const char *apply(size_t i, json_t *value)
{
    char *at = (char *)&settings + table[i].offset;
    if (table[i].type == BOOLEAN) {
        if (!json_is_boolean(value))
            return "must be true or false";
        *(bool *)at = json_is_true(value);
        return NULL;
    }
    if (table[i].type == EXPIRY)
        return apply_expiry((int64_t *)(void *)at, value);
    if (!json_is_integer(value) ||
        (table[i].type == NUMBER && json_integer_value(value) < 0))
        return "must be a whole number";
    *(int64_t *)(void *)at = json_integer_value(value);
    return NULL;
}

const char *settings_apply(json_t *changes, const char **field)
{
    const char *name;
    json_t *value;
    json_object_foreach(changes, name, value)
    {
        size_t i = 0;
        while (i < N && strcmp(table[i].name, name) != 0)
            i++;
        *field = name;
        const char *wrong = i < N ? apply(i, value) : "is no setting";
        if (wrong)
            return wrong;
    }
    return NULL;
}

json_t *settings_json(void)
{
    json_t *all = json_object();
    for (size_t i = 0; i < N; i++) {
        const char *at = (const char *)&settings + table[i].offset;
        json_t *v =
            table[i].type == BOOLEAN ? json_boolean(*(const bool *)at)
            : table[i].type == EXPIRY
                ? json_string(expiries[*(const int64_t *)(const void *)at])
                : json_integer(*(const int64_t *)(const void *)at);
        json_object_set_new(all, table[i].name, v);
    }
    return all;
}
