/* "Am I protected?" by the table that the dashboard is held against, too (tests/protection.json). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <cmocka.h>

#include "cli/protection.c"

static int64_t now_ms;

/* The row as the API lists it, with what the table leaves out. */
static json_t *listed(const json_t *row)
{
    char at[CLOCK_RFC3339_SIZE];
    json_t *one = json_pack("{s:s, s:b, s:b, s:n, s:n}", "label", "nightly", "complete", 1, "sealed", 0, "session_id", "condition");
    double age = json_number_value(json_object_get(row, "age_hours"));
    json_object_update(one, (json_t *)row);
    json_put(one, "created_at", json_string(clock_rfc3339(now_ms - (int64_t)(age * 3600000 + 0.5), at)));
    return one;
}

static json_t *all_listed(const json_t *rows)
{
    json_t *all = json_array();
    size_t i;
    const json_t *row;
    json_array_foreach(rows, i, row) json_add(all, listed(row));
    return all;
}

static void check_label(const char *name, const json_t *expected, const json_t *row)
{
    static const struct {
        const char *expected, *got;
    } members[] = {{"last_good", "backup_id"}, {"late", "late"}, {"unsound", "unsound"}};
    if (!row)
        fail_msg("%s: label %s is not told", name, json_str(expected, "label", "(none)"));
    for (size_t i = 0; i < ELEMENTS(members); i++)
        if (!json_equal(json_object_get(expected, members[i].expected), json_object_get(row, members[i].got))) {
            AUTO_FREE char *text = json_dumps(row, 0);
            fail_msg("%s: %s: %s", name, members[i].expected, text);
        }
    char at[CLOCK_RFC3339_SIZE];
    const json_t *failed = json_object_get(expected, "failed_hours_ago");
    const char *told = json_str(row, "failed_since", NULL);
    if (json_is_number(failed))
        clock_rfc3339(now_ms - (int64_t)(json_number_value(failed) * 3600000 + 0.5), at);
    if (!str_eq(told, json_is_number(failed) ? at : NULL))
        fail_msg("%s: failed_since %s", name, told ? told : "(none)");
}

static void check(const json_t *one)
{
    static const struct {
        const char *verdict, *words;
    } verdicts[] = {{"none", "not protected: there is no backup"}, {"unprotected", "not protected: a label"}, {"attention", "at risk: "}, {"protected", "protected"}};
    const char *name = json_str(one, "name", "?"), *verdict = json_str(one, "verdict", "?"), *said[2];
    AUTO_JSON json_t *backups = all_listed(json_object_get(one, "backups")), *sessions = all_listed(json_object_get(one, "sessions"));
    AUTO_JSON json_t *labels = protection_labels(backups, sessions, now_ms);
    const json_t *expected = json_object_get(one, "labels"), *label;
    size_t i, known = 0;
    json_array_foreach(expected, i, label) check_label(name, label, json_find(labels, "label", json_str(label, "label", "")));
    if (json_array_size(labels) != json_array_size(expected))
        fail_msg("%s: %zu labels are told", name, json_array_size(labels));
    for (i = 0; i < 2; i++)
        said[i] = protection_words(labels, i == 0);
    for (i = 0; i < ELEMENTS(verdicts); i++) {
        if (!str_eq(verdicts[i].verdict, verdict))
            continue;
        known++;
        if (!str_starts(said[0], verdicts[i].words) || !str_starts(said[1], verdicts[i].words))
            fail_msg("%s: %s", name, said[0]);
    }
    assert_int_equal(known, 1);
}

static void every_case_of_the_table(void **state)
{
    (void)state;
    const char *source = getenv("QUIESCED_SOURCE");
    AUTO_FREE char *path = str_new("%s/tests/protection.json", source ? source : ".");
    AUTO_JSON json_t *table = json_load_file(path, JSON_REJECT_DUPLICATES, NULL);
    const json_t *cases = json_object_get(table, "cases"), *one;
    size_t i;
    now_ms = clock_from_rfc3339(json_str(table, "now", NULL));
    assert_true(now_ms > 0 && json_array_size(cases) > 30);
    json_array_foreach(cases, i, one) check(one);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(every_case_of_the_table)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
