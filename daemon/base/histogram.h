#pragma once
/* Histograms, counted in memory: an observation is a few comparisons and never allocates once its row is there. */
#include <stddef.h>
#include <stdint.h>

enum { HISTOGRAM_BOUNDS_MAX = 16, HISTOGRAM_LABELS_MAX = 2, HISTOGRAM_LABEL_SIZE = 72 /* names are at most 64 */ };

/* Upper bounds of the buckets, ascending; what is beyond the last one is counted without a bound. */
struct histogram_bounds {
    size_t n;
    double le[HISTOGRAM_BOUNDS_MAX];
};

struct histogram {
    uint64_t counts[HISTOGRAM_BOUNDS_MAX + 1]; /* of each bucket alone */
    double sum;
};
void histogram_add(struct histogram *histogram, const struct histogram_bounds *bounds, double value);

/* Histograms by label values. Label values may come from callers' data, so their number is bounded: what comes after
 * `most` rows is counted under "other". */
struct histogram_row {
    char labels[HISTOGRAM_LABELS_MAX][HISTOGRAM_LABEL_SIZE];
    struct histogram histogram;
};
struct histograms {
    const struct histogram_bounds *bounds;
    size_t most;
    struct histogram_row *rows;
    size_t n;
};
/* b may be NULL for histograms with one label. Longer values are cut. */
void histograms_add(struct histograms *histograms, const char *a, const char *b, double value);
void histograms_clear(struct histograms *histograms);

/* 1 ms to 60 s: what a freeze may take (limits.freeze_seconds is 60 by default). */
extern const struct histogram_bounds histogram_freeze_bounds;
/* 10 ms to 4 h: jobs. */
extern const struct histogram_bounds histogram_job_bounds;
/* 100 us to 10 s: turns of a loop, commits. */
extern const struct histogram_bounds histogram_latency_bounds;
