/* exposition - the daemon's families as Prometheus' text format 0.0.4.
 *
 * What the daemon says is checked: a name that is none, a value that is no
 * number or an unknown type is an error, so that what goes out can be parsed
 * by anybody. Texts of labels and help are escaped. */
#ifndef HSMINT_EXPOSITION_H
#define HSMINT_EXPOSITION_H

#include "common/error.h"
#include "common/json.h"

#include <stdio.h>

#define EXPOSITION_TYPE "text/plain; version=0.0.4; charset=utf-8"

/* `families`: an array as Metrics() answers it. ERR_PROTOCOL. */
MUST_CHECK enum code exposition_write(FILE *out, json_t *families,
                                      struct error *e);
/* One sample with at most one label; `label` NULL: none. */
void exposition_one(FILE *out, const char *name, const char *type,
                    const char *help, const char *label, const char *text,
                    double value);

#endif
