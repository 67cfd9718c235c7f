#include "base/openmetrics.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/str.h"

struct openmetrics {
    bool prometheus;
    char *text;
    size_t size;
    FILE *out; /* memory: nothing of it can block */
    enum openmetrics_type type;
    char name[96];
};

struct openmetrics *openmetrics_new(bool prometheus)
{
    struct openmetrics *text = mem_new(sizeof(*text));

    text->prometheus = prometheus;
    text->out = open_memstream(&text->text, &text->size);
    if (!text->out)
        abort();
    return text;
}

void openmetrics_free(struct openmetrics *text)
{
    if (!text)
        return;
    fclose(text->out);
    free(text->text);
    free(text);
}

static void escaped(FILE *out, const char *value, bool quotes)
{
    for (; *value; value++) {
        if (*value == '\\')
            fputs("\\\\", out);
        else if (*value == '\n')
            fputs("\\n", out);
        else if (*value == '"' && quotes)
            fputs("\\\"", out);
        else
            fputc(*value, out);
    }
}

static const char *unit_of(const char *name)
{
    static const char *const units[] = {"seconds", "bytes"};
    const char *last = strrchr(name, '_');

    for (size_t i = 0; last && i < sizeof(units) / sizeof(units[0]); i++)
        if (str_eq(last + 1, units[i]))
            return units[i];
    return NULL;
}

void openmetrics_family(struct openmetrics *text, enum openmetrics_type type, const char *name, const char *help)
{
    static const struct {
        const char *type, *older, *suffix;
    } rows[] = {
        [OPENMETRICS_GAUGE] = {"gauge", "gauge", ""},
        [OPENMETRICS_COUNTER] = {"counter", "counter", "_total"},
        [OPENMETRICS_HISTOGRAM] = {"histogram", "histogram", ""},
        [OPENMETRICS_INFO] = {"info", "gauge", "_info"},
    };
    const char *suffix = rows[type].suffix, *told = text->prometheus ? suffix : "", *unit = unit_of(name);

    text->type = type;
    str_format(text->name, sizeof(text->name), "%s%s", name, suffix);
    fprintf(text->out, "# TYPE %s%s %s\n", name, told, text->prometheus ? rows[type].older : rows[type].type);
    if (unit && !text->prometheus)
        fprintf(text->out, "# UNIT %s %s\n", name, unit);
    fprintf(text->out, "# HELP %s%s ", name, told);
    escaped(text->out, help, !text->prometheus);
    fputc('\n', text->out);
}

static void label_set(FILE *out, const struct openmetrics_label *labels, size_t n, const char *le)
{
    if (n == 0 && !le)
        return;
    fputc('{', out);
    for (size_t i = 0; i < n; i++) {
        fprintf(out, "%s%s=\"", i ? "," : "", labels[i].name);
        escaped(out, labels[i].value, true);
        fputc('"', out);
    }
    if (le)
        fprintf(out, "%sle=\"%s\"", n ? "," : "", le);
    fputc('}', out);
}

static bool whole(double value)
{
    return value > -1e15 && value < 1e15 && value == (double)(int64_t)value;
}

/* 16 digits tell microseconds of today's time apart. */
static void number(FILE *out, double value)
{
    if (whole(value))
        fprintf(out, " %.0f\n", value);
    else
        fprintf(out, " %.16g\n", value);
}

void openmetrics_value(struct openmetrics *text, const struct openmetrics_label *labels, size_t n, double value)
{
    fputs(text->name, text->out);
    label_set(text->out, labels, n, NULL);
    number(text->out, value);
}

void openmetrics_plain(struct openmetrics *text, double value)
{
    openmetrics_value(text, NULL, 0, value);
}

void openmetrics_one(struct openmetrics *text, const char *label, const char *of, double value)
{
    openmetrics_value(text, &(struct openmetrics_label){label, of}, 1, value);
}

void openmetrics_histogram(struct openmetrics *text, const struct openmetrics_label *labels, size_t n,
                           const struct histogram_bounds *bounds, const struct histogram *histogram)
{
    uint64_t below = 0;

    for (size_t i = 0; i <= bounds->n; i++) {
        char le[32] = "+Inf";
        if (i < bounds->n) /* OpenMetrics writes bounds as floats: 1.0 */
            str_format(le, sizeof(le), whole(bounds->le[i]) ? "%.1f" : "%g", bounds->le[i]);
        below += histogram->counts[i];
        fprintf(text->out, "%s_bucket", text->name);
        label_set(text->out, labels, n, le);
        fprintf(text->out, " %" PRIu64 "\n", below);
    }
    fprintf(text->out, "%s_count", text->name);
    label_set(text->out, labels, n, NULL);
    fprintf(text->out, " %" PRIu64 "\n%s_sum", below, text->name);
    label_set(text->out, labels, n, NULL);
    number(text->out, histogram->sum);
}

void openmetrics_histograms(struct openmetrics *text, const char *a, const char *b, const struct histograms *histograms)
{
    for (size_t i = 0; i < histograms->n; i++) {
        const struct histogram_row *row = &histograms->rows[i];
        const struct openmetrics_label labels[] = {{a, row->labels[0]}, {b, row->labels[1]}};
        openmetrics_histogram(text, labels, b ? 2 : 1, histograms->bounds, &row->histogram);
    }
}

char *openmetrics_end(struct openmetrics *text, size_t *ret_size)
{
    if (!text->prometheus)
        fputs("# EOF\n", text->out);
    if (fclose(text->out) != 0)
        abort(); /* out of memory */
    char *whole = text->text;
    *ret_size = text->size;
    free(text);
    return whole;
}
