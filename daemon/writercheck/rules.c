#include "writercheck/rules.h"

#include <stdarg.h>
#include <stdio.h>

#include "base/cleanup.h"
#include "base/jsonspec.h"
#include "base/str.h"

static const struct rule_row {
    const char *name;
    bool needs_hold;
    const char *demand;
} rows[RULE_COUNT] = {
#define RULE(symbol, name, needs_hold, demand) {name, needs_hold, demand},
#include "writercheck/rules.def"
#undef RULE
};

bool judge(struct check *check, enum rule rule, bool holds, const char *fmt, ...)
{
    struct verdict *verdict = &check->verdicts[rule];
    verdict->looks++;
    if (holds || verdict->failed)
        return holds;
    verdict->failed = true;
    va_list args;
    va_start(args, fmt);
    vsnprintf(verdict->seen, sizeof(verdict->seen), fmt, args);
    va_end(args);
    return false;
}

const char *verdict_word(const struct check *check, enum rule rule)
{
    const struct verdict *verdict = &check->verdicts[rule];
    if (verdict->failed)
        return "FAIL";
    if (verdict->looks > 0)
        return "ok";
    return rows[rule].needs_hold && check->metadata && !check->holds ? "n/a" : "not judged";
}

bool check_passed(const struct check *check)
{
    for (int i = 0; i < RULE_COUNT; i++)
        if (!str_eq(verdict_word(check, i), "ok") && !str_eq(verdict_word(check, i), "n/a"))
            return false;
    return true;
}

static char *what_was_seen(const struct check *check, enum rule rule)
{
    const struct verdict *verdict = &check->verdicts[rule];
    if (verdict->failed)
        return str_new("%s", verdict->seen);
    if (verdict->looks > 0)
        return str_new("%s (seen %u times)", rows[rule].demand, verdict->looks);
    return str_new("%s", rows[rule].demand);
}

static void print_json(const struct check *check)
{
    AUTO_JSON json_t *document = json_object();
    json_t *command = json_array();
    json_t *rules = json_array();
    for (size_t i = 0; check->argv[i]; i++)
        json_add(command, json_text(check->argv[i]));
    for (int i = 0; i < RULE_COUNT; i++) {
        AUTO_FREE char *seen = what_was_seen(check, i);
        json_t *row = json_object();
        json_put(row, "rule", json_string(rows[i].name));
        json_put(row, "demand", json_string(rows[i].demand));
        json_put(row, "verdict", json_string(verdict_word(check, i)));
        json_put(row, "seen", json_text(seen));
        json_add(rules, row);
    }
    json_put(document, "command", command);
    json_put(document, "passed", json_boolean(check_passed(check)));
    json_put(document, "rules", rules);
    json_dumpf(document, stdout, JSON_INDENT(2));
    putchar('\n');
}

void check_print(const struct check *check, bool json)
{
    if (json) {
        print_json(check);
        return;
    }
    for (int i = 0; i < RULE_COUNT; i++) {
        AUTO_FREE char *seen = what_was_seen(check, i);
        printf("%-10s  %-22s  %s\n", verdict_word(check, i), rows[i].name, seen);
    }
    puts(check_passed(check) ? "passed" : "FAILED");
}
