/* hosts - see hosts.h. */
#include "config.h"

#include "common/hosts.h"

#include <string.h>
#include <strings.h>

static const char letters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
                              "abcdefghijklmnopqrstuvwxyz0123456789.-";
static const char ipv6[] = "ABCDEFabcdef0123456789.:";

struct word {
    const char *text;
    size_t len;
};

/* The next word at *list, which is moved behind it; len 0 at the end. */
static struct word next_word(const char **list)
{
    const char *p = *list + strspn(*list, " ");
    struct word w = {p, strcspn(p, " ")};
    *list = p + w.len;
    return w;
}

static bool is_ipv6(struct word w)
{
    return w.len > 2 && w.text[0] == '[' && w.text[w.len - 1] == ']' &&
           strspn(w.text + 1, ipv6) == w.len - 2;
}

/* A port would match nothing: a host is compared without it. "*.com" would be nearly everything, but that is the administrator's choice;
 * a bare "*" or a part of a label is a mistake. */
static bool word_valid(struct word w)
{
    if (is_ipv6(w))
        return true;
    if (w.len > 2 && strncmp(w.text, "*.", 2) == 0)
        w = (struct word){w.text + 2, w.len - 2};
    return strspn(w.text, letters) >= w.len && w.text[0] != '.' &&
           w.text[w.len - 1] != '.';
}

bool hosts_valid(const char *list)
{
    size_t n = 0;
    for (struct word w; (w = next_word(&list)).len; n++)
        if (!word_valid(w))
            return false;
    return n > 0;
}

static bool word_matches(struct word w, const char *host, size_t len)
{
    if (w.text[0] != '*')
        return w.len == len && strncasecmp(w.text, host, len) == 0;
    size_t tail = w.len - 1; /* with its dot, so that a label ends there */
    return len > tail &&
           strncasecmp(w.text + 1, host + len - tail, tail) == 0;
}

bool hosts_match(const char *list, const char *host)
{
    size_t len = strlen(host);
    for (struct word w; (w = next_word(&list)).len;)
        if (word_matches(w, host, len))
            return true;
    return false;
}
