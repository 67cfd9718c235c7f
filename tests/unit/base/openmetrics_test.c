#include "base/openmetrics.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <cmocka.h>

#include "base/cleanup.h"
#include "base/str.h"

static void rows_are_bounded(void **state)
{
    struct histograms histograms = {.bounds = &histogram_freeze_bounds, .most = 3};
    char name[16];

    (void)state;
    for (int i = 0; i < 100; i++) {
        str_format(name, sizeof(name), "row-%d", i);
        histograms_add(&histograms, name, "succeeded", 0.5);
        histograms_add(&histograms, name, "succeeded", 100);
    }
    assert_int_equal(histograms.n, 4); /* the three and what stands for the rest */
    assert_string_equal(histograms.rows[3].labels[0], "other");
    assert_string_equal(histograms.rows[3].labels[1], "other");
    assert_int_equal(histograms.rows[3].histogram.counts[8], 97);  /* le 0.5: a bound belongs to its bucket */
    assert_int_equal(histograms.rows[3].histogram.counts[14], 97); /* beyond 60 s */
    histograms_clear(&histograms);
    assert_int_equal(histograms.n, 0);
}

static void long_labels_are_one_row(void **state)
{
    struct histograms histograms = {.bounds = &histogram_freeze_bounds, .most = 3};
    char name[HISTOGRAM_LABEL_SIZE * 2];

    (void)state;
    memset(name, 'x', sizeof(name) - 1);
    name[sizeof(name) - 1] = '\0';
    histograms_add(&histograms, name, NULL, 1);
    histograms_add(&histograms, name, NULL, 1);
    assert_int_equal(histograms.n, 1);
    histograms_clear(&histograms);
}

static char *written(bool prometheus)
{
    struct openmetrics *text = openmetrics_new(prometheus);
    struct histogram histogram = {.sum = 0};
    static const struct histogram_bounds bounds = {2, {0.5, 1}};
    size_t size;

    histogram_add(&histogram, &bounds, 0.25);
    histogram_add(&histogram, &bounds, 7);
    openmetrics_family(text, OPENMETRICS_COUNTER, "x_things", "Things, \"so\" called.");
    openmetrics_one(text, "name", "a\"b\\c\nd", 3);
    openmetrics_family(text, OPENMETRICS_HISTOGRAM, "x_took_seconds", "Time.");
    openmetrics_histogram(text, NULL, 0, &bounds, &histogram);
    openmetrics_family(text, OPENMETRICS_INFO, "x_build", "Program.");
    openmetrics_one(text, "version", "1", 1);
    char *body = openmetrics_end(text, &size);
    assert_int_equal(size, strlen(body));
    return body;
}

static void both_formats(void **state)
{
    AUTO_FREE char *new = written(false), *old = written(true);

    (void)state;
    assert_string_equal(new, "# TYPE x_things counter\n# HELP x_things Things, \\\"so\\\" called.\n"
                             "x_things_total{name=\"a\\\"b\\\\c\\nd\"} 3\n"
                             "# TYPE x_took_seconds histogram\n# UNIT x_took_seconds seconds\n# HELP x_took_seconds Time.\n"
                             "x_took_seconds_bucket{le=\"0.5\"} 1\nx_took_seconds_bucket{le=\"1.0\"} 1\n"
                             "x_took_seconds_bucket{le=\"+Inf\"} 2\nx_took_seconds_count 2\nx_took_seconds_sum 7.25\n"
                             "# TYPE x_build info\n# HELP x_build Program.\nx_build_info{version=\"1\"} 1\n# EOF\n");
    assert_string_equal(old, "# TYPE x_things_total counter\n# HELP x_things_total Things, \"so\" called.\n"
                             "x_things_total{name=\"a\\\"b\\\\c\\nd\"} 3\n"
                             "# TYPE x_took_seconds histogram\n# HELP x_took_seconds Time.\n"
                             "x_took_seconds_bucket{le=\"0.5\"} 1\nx_took_seconds_bucket{le=\"1.0\"} 1\n"
                             "x_took_seconds_bucket{le=\"+Inf\"} 2\nx_took_seconds_count 2\nx_took_seconds_sum 7.25\n"
                             "# TYPE x_build_info gauge\n# HELP x_build_info Program.\nx_build_info{version=\"1\"} 1\n");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_are_bounded),
        cmocka_unit_test(long_labels_are_one_row),
        cmocka_unit_test(both_formats),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
