#include "base/histogram.h"

#include <stdlib.h>

#include "base/str.h"

const struct histogram_bounds histogram_freeze_bounds = {
    14, {0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 60}};
const struct histogram_bounds histogram_job_bounds = {14, {0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60, 300, 900, 1800, 3600, 14400}};
const struct histogram_bounds histogram_latency_bounds = {
    14, {0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 10}};

void histogram_add(struct histogram *histogram, const struct histogram_bounds *bounds, double value)
{
    size_t i = 0;

    while (i < bounds->n && value > bounds->le[i])
        i++;
    histogram->counts[i]++;
    histogram->sum += value;
}

static struct histogram_row *find(struct histograms *histograms, const char *a, const char *b)
{
    struct histogram_row wanted = {0};

    str_copy(wanted.labels[0], sizeof(wanted.labels[0]), a);
    str_copy(wanted.labels[1], sizeof(wanted.labels[1]), b ? b : "");
    for (size_t i = 0; i < histograms->n; i++)
        if (str_eq(histograms->rows[i].labels[0], wanted.labels[0]) && str_eq(histograms->rows[i].labels[1], wanted.labels[1]))
            return &histograms->rows[i];
    if (histograms->n >= histograms->most && !str_eq(a, "other"))
        return find(histograms, "other", b ? "other" : NULL);
    histograms->rows = mem_resize(histograms->rows, (histograms->n + 1) * sizeof(wanted));
    histograms->rows[histograms->n] = wanted;
    return &histograms->rows[histograms->n++];
}

void histograms_add(struct histograms *histograms, const char *a, const char *b, double value)
{
    histogram_add(&find(histograms, a, b)->histogram, histograms->bounds, value);
}

void histograms_clear(struct histograms *histograms)
{
    free(histograms->rows);
    histograms->rows = NULL;
    histograms->n = 0;
}
