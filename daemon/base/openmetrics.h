#pragma once
/* Writes figures as OpenMetrics 1.0, or as the older Prometheus text format 0.0.4, which names counters and infos differently
 * and has no end. Families are written one after the other: openmetrics_family, then its samples. */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/histogram.h"

enum openmetrics_type { OPENMETRICS_GAUGE, OPENMETRICS_COUNTER, OPENMETRICS_HISTOGRAM, OPENMETRICS_INFO };

struct openmetrics;
struct openmetrics_label {
    const char *name; /* of the program: not escaped */
    const char *value;
};

struct openmetrics *openmetrics_new(bool prometheus /* 0.0.4 */);
void openmetrics_free(struct openmetrics *text); /* NULL is fine */
/* name without the suffix that its type gives it (_total, _info, _bucket). The unit is told by the name: _seconds or _bytes. */
void openmetrics_family(struct openmetrics *text, enum openmetrics_type type, const char *name, const char *help);
/* A sample of the family in hand. */
void openmetrics_value(struct openmetrics *text, const struct openmetrics_label *labels, size_t n, double value);
void openmetrics_plain(struct openmetrics *text, double value);                                       /* without labels */
void openmetrics_one(struct openmetrics *text, const char *label, const char *of, double value);      /* with one */
void openmetrics_histogram(struct openmetrics *text, const struct openmetrics_label *labels, size_t n,
                           const struct histogram_bounds *bounds, const struct histogram *histogram);
/* Each row; a and b name its labels (b may be NULL). */
void openmetrics_histograms(struct openmetrics *text, const char *a, const char *b, const struct histograms *histograms);
/* Ends the text and gives it to the caller, who frees it. */
char *openmetrics_end(struct openmetrics *text, size_t *ret_size);
