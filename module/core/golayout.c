/* golayout - see golayout.h. */
#include "config.h"

#include "module/core/golayout.h"

#include <stdio.h>
#include <string.h>
#include <time.h>

/* The longer of two elements that begin alike comes first. `format` is
 * strftime's; where it cannot say it, `number` does. */
struct element {
    const char *go;
    const char *format;
    const char *number;
    enum { NONE, HOUR_12, DAY, MONTH, MINUTE, SECOND, YEAR_DAY } field;
};

static const struct element elements[] = {
    {"January", "%B", NULL, NONE},    {"Jan", "%b", NULL, NONE},
    {"Monday", "%A", NULL, NONE},     {"Mon", "%a", NULL, NONE},
    {"MST", "UTC", NULL, NONE},       {"2006", "%Y", NULL, NONE},
    {"Z07:00", "Z", NULL, NONE},      {"Z0700", "Z", NULL, NONE},
    {"-07:00", "+00:00", NULL, NONE}, {"-0700", "+0000", NULL, NONE},
    {"-07", "+00", NULL, NONE},       {"002", NULL, "%03d", YEAR_DAY},
    {"01", "%m", NULL, NONE},         {"02", "%d", NULL, NONE},
    {"03", "%I", NULL, NONE},         {"04", "%M", NULL, NONE},
    {"05", "%S", NULL, NONE},         {"06", "%y", NULL, NONE},
    {"15", "%H", NULL, NONE},         {"PM", "%p", NULL, NONE},
    {"pm", "%P", NULL, NONE},         {"_2", "%e", NULL, NONE},
    {"1", NULL, "%d", MONTH},         {"2", NULL, "%d", DAY},
    {"3", NULL, "%d", HOUR_12},       {"4", NULL, "%d", MINUTE},
    {"5", NULL, "%d", SECOND},
};

static int field_value(const struct tm *tm, int field)
{
    switch (field) {
    case HOUR_12:
        return tm->tm_hour % 12 ? tm->tm_hour % 12 : 12;
    case DAY:
        return tm->tm_mday;
    case MONTH:
        return tm->tm_mon + 1;
    case MINUTE:
        return tm->tm_min;
    case SECOND:
        return tm->tm_sec;
    default:
        return tm->tm_yday + 1;
    }
}

static const struct element *element_at(const char *p)
{
    for (size_t i = 0; i < sizeof(elements) / sizeof(elements[0]); i++) {
        if (strncmp(p, elements[i].go, strlen(elements[i].go)) == 0)
            return &elements[i];
    }
    return NULL;
}

/* ".000": as many digits of the second's fraction. Returns what it took. */
static size_t fraction(const char *p, int64_t wall_ms, char text[16])
{
    size_t digits = p[0] == '.' || p[0] == ',' ? strspn(p + 1, "0") : 0;

    if (digits == 0 || digits > 9 ||
        (p[1 + digits] >= '0' && p[1 + digits] <= '9'))
        return 0;
    snprintf(text, 16, "%c%03d000000", p[0], (int)(wall_ms % 1000));
    text[1 + digits] = '\0';
    return 1 + digits;
}

static size_t write_element(const struct element *el, const struct tm *tm,
                            char *text, size_t cap)
{
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    if (el->format)
        strftime(text, cap, el->format, tm);
    else
        snprintf(text, cap, el->number, field_value(tm, (int)el->field));
#pragma GCC diagnostic pop
    return strlen(el->go);
}

size_t golayout_format(char *dst, size_t cap, const char *layout,
                       int64_t wall_ms)
{
    time_t seconds = (time_t)(wall_ms / 1000);
    struct tm tm;
    size_t n = 0;

    gmtime_r(&seconds, &tm);
    while (*layout) {
        char text[32] = {*layout, '\0'};
        const struct element *el = element_at(layout);
        size_t took = fraction(layout, wall_ms, text);

        if (took == 0)
            took = el ? write_element(el, &tm, text, sizeof(text)) : 1;
        for (const char *t = text; *t; t++, n++) {
            if (n + 1 < cap)
                dst[n] = *t;
        }
        layout += took;
    }
    if (cap > 0)
        dst[n < cap ? n : cap - 1] = '\0';
    return n;
}
