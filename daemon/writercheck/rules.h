#pragma once
/* What `quiesced writer-check` found out about a writer: one verdict per rule. */
#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

enum rule {
#define RULE(symbol, name, needs_hold, demand) RULE_##symbol,
#include "writercheck/rules.def"
#undef RULE
    RULE_COUNT
};

struct verdict {
    unsigned looks; /* how often the rule was seen to hold, or not */
    bool failed;
    char seen[512]; /* of the first failure */
};

struct check {
    const char *const *argv;      /* the writer */
    const char *const *probe;     /* exit status 0: the application is free to write; NULL: nobody can look */
    json_t *configuration;        /* for identify */
    const char *staging;          /* for snapshot phases, or NULL */
    int64_t limit_ms;             /* what one answer, or one exit, may take */
    json_t *metadata;             /* of its first identify */
    json_t *components, *volumes; /* as requests name them */
    bool holds;                   /* has a component with "hold" "writes" */
    bool over;                    /* no use to go on */
    struct verdict verdicts[RULE_COUNT];
};

/* Notes a look at rule; the text, what was seen, counts when it does not hold. Returns holds. */
bool judge(struct check *check, enum rule rule, bool holds, const char *fmt, ...) __attribute__((format(printf, 4, 5)));
/* "ok", "FAIL", "not judged" (something else failed first) or "n/a" (the writer says that it holds no writes). */
const char *verdict_word(const struct check *check, enum rule rule);
/* Every rule is "ok" or "n/a". */
bool check_passed(const struct check *check);
/* One line per rule, or one JSON document. */
void check_print(const struct check *check, bool json);
