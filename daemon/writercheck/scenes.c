/* The conversations. Each judges its own rules; the general ones are judged by talk.c in all of them. Everything that
 * is not under test in a scene goes by the documented order, so that a fault shows in one place. */
#include "writercheck/scenes.h"

#include <signal.h>
#include <string.h>
#include <time.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/jsonspec.h"
#include "base/str.h"
#include "model/selection.h"
#include "worker/writer_metadata.h"
#include "writercheck/talk.h"

enum {
    LEASE_MS = 1000, /* the window of the hold that nobody thaws */
    OVERSIZE = 1024 * 1024 + 4096,
    PAUSE_NS = 20 * 1000 * 1000,
};

/* A look at the application, where somebody can look and there is something to see. */
static void judge_free(struct talk *talk, enum rule rule, const char *when)
{
    const struct check *check = talk->check;
    if (check->holds && check->probe && !check->over && !talk->killed)
        judge(talk->check, rule, application_is_free(check), "%s: the application is still held", when);
}

static void judge_held(struct talk *talk, enum rule rule, const char *when)
{
    const struct check *check = talk->check;
    if (check->holds && check->probe && !check->over)
        judge(talk->check, rule, !application_is_free(check), "%s: the application is free to write", when);
}

static void judge_said(struct talk *talk, enum rule rule, const char *event, enum said said)
{
    if (said != SAID_NOTHING)
        judge(talk->check, rule, said == SAID_OK, "%s was refused: %s %s", event, json_str(talk->answer, "failure", ""),
              json_str(talk->answer, "message", ""));
}

static void ask_for(struct talk *talk, enum rule rule, const char *event, json_t *extra)
{
    judge_said(talk, rule, event, talk_ask(talk, event, extra));
}

/* Rules about variations of a backup say something only when the plain one works. */
static bool failed(const struct talk *talk, enum rule rule)
{
    return talk->check->verdicts[rule].failed;
}

/* ---- identify ---- */

static void keep_volumes(struct check *check, const json_t *component)
{
    size_t i;
    const json_t *set;
    json_array_foreach(json_object_get(component, "file_sets"), i, set)
        json_add(check->volumes,
                 json_pack("{s:s, s:s, s:b}", "volume", json_str(set, "path", "/"), "provider", "btrfs", "atomic", 1));
}

/* It comes with a selectable component above it, which is selected. */
static bool is_implicit(const json_t *writer, const json_t *component)
{
    size_t i;
    const json_t *other;
    json_array_foreach (json_object_get(writer, "components"), i, other)
        if (other != component && json_bool(other, "selectable", false) && selection_covers(other, component))
            return true;
    return false;
}

/* Selects what a requester that wants everything has to name (vss-model 4.7). */
static void learn(struct check *check)
{
    AUTO_JSON json_t *api = writer_metadata_to_api(check->metadata, "checked", "", "");
    check->components = json_array();
    check->volumes = json_array();
    size_t i;
    const json_t *component;
    json_array_foreach(json_object_get(check->metadata, "components"), i, component) check->holds =
        check->holds || str_eq(json_str(component, "hold", "writes"), "writes");
    json_array_foreach(json_object_get(api, "components"), i, component)
    {
        keep_volumes(check, component);
        if (!is_implicit(api, component))
            json_add(check->components, json_pack("{s:s, s:s}", "logical_path", json_str(component, "logical_path", ""),
                                                  "name", json_str(component, "name", "")));
    }
}

static void judge_metadata(struct check *check)
{
    struct err err = {0};
    bool good = writer_metadata_check(check->metadata, &err) == 0;
    if (good && json_array_size(json_object_get(check->metadata, "components")) == 0)
        good = err_set(&err, VSS_E_WRITERERROR_NONRETRYABLE, NULL, "no component") == 0;
    judge(check, RULE_METADATA, good, "%s", err.text);
}

static void first_identify(struct check *check)
{
    struct talk talk;
    if (!talk_open(&talk, check))
        return;
    talk.death_rule = RULE_STARTS;
    enum said said = talk_ask(&talk, "identify", NULL);
    json_t *metadata = json_object_get(talk.answer, "metadata");
    if (said != SAID_NOTHING && judge(check, RULE_STARTS, said == SAID_OK && json_is_object(metadata), "identify: %s",
                                      json_str(talk.answer, "message", "there is no metadata"))) {
        check->metadata = json_deep_copy(metadata);
        judge_metadata(check);
        learn(check);
        judge_free(&talk, RULE_IDENTIFY_HOLDS_NOTHING, "after identify");
        if (check->holds && !check->probe)
            judge(check, RULE_HOLD, false, "%s", "nobody looked: name a program with --probe that tries to write");
    } else {
        check->over = true;
    }
    talk_close(&talk);
}

static void scene_identify(struct talk *talk)
{
    for (int i = 0; i < 2; i++)
        if (talk_ask(talk, "identify", NULL) == SAID_OK) {
            bool same = json_equal(json_object_get(talk->answer, "metadata"), talk->check->metadata);
            judge(talk->check, RULE_IDENTIFY_STABLE, same, "%s",
                  i ? "another answer to the second identify of one process" : "another answer in the next process");
        }
}

/* ---- the documented order ---- */

static void scene_backup(struct talk *talk)
{
    for (int i = 0; i < PHASE_COUNT; i++) {
        enum said said = talk_ask(talk, phase_name(i), NULL);
        judge_said(talk, RULE_BACKUP, phase_name(i), said);
        if (said != SAID_OK)
            return;
        if (i == PHASE_FREEZE)
            judge_held(talk, RULE_HOLD, "after freeze");
        if (i == PHASE_THAW)
            judge_free(talk, RULE_THAW_RELEASES, "after thaw");
    }
}

static void scene_non_component_mode(struct talk *talk)
{
    talk->component_mode = false;
    if (!failed(talk, RULE_HOLD) && talk_reach(talk, PHASE_FREEZE + 1))
        judge_held(talk, RULE_NON_COMPONENT_MODE, "after freeze without component mode");
}

static void scene_types(struct talk *talk)
{
    static const char *const types[] = {"incremental", "differential", "log", "copy", "other"};
    if (failed(talk, RULE_BACKUP) || talk_ask(talk, "identify", NULL) != SAID_OK)
        return;
    for (size_t i = 0; i < ELEMENTS(types); i++) {
        talk->backup_type = types[i];
        enum said said = talk_ask(talk, "prepare_backup", NULL);
        judge(talk->check, RULE_BACKUP_TYPES, said != SAID_FAILED, "prepare_backup of type %s was refused: %s",
              types[i], json_str(talk->answer, "message", ""));
    }
}

static void scene_restore(struct talk *talk)
{
    if (talk_ask(talk, "identify", NULL) != SAID_OK)
        return;
    ask_for(talk, RULE_RESTORE, "pre_restore", NULL);
    ask_for(talk, RULE_RESTORE, "post_restore", NULL);
}

static void scene_no_snapshot(struct talk *talk)
{
    if (talk_reach(talk, PHASE_FREEZE + 1) && talk_ask(talk, "thaw", json_pack("{s:b}", "snapshot_taken", 0)))
        judge_free(talk, RULE_THAW_WITHOUT_SNAPSHOT, "after a thaw without a snapshot");
}

static void scene_unknown(struct talk *talk)
{
    if (talk_ask(talk, "identify", NULL) != SAID_OK)
        return;
    ask_for(talk, RULE_UNKNOWN_EVENT, "event_of_the_future", NULL);
    if (failed(talk, RULE_BACKUP))
        return;
    talk->unknown_members = true;
    ask_for(talk, RULE_UNKNOWN_MEMBERS, "identify", NULL);
    for (int i = PHASE_PREPARE_BACKUP; i < PHASE_COUNT; i++)
        ask_for(talk, RULE_UNKNOWN_MEMBERS, phase_name(i), NULL);
}

/* ---- undoing ---- */

static void undo_at(struct talk *talk, int n_phases)
{
    if (!talk_reach(talk, n_phases))
        return;
    ask_for(talk, RULE_UNDO_NEVER_REFUSED, "abort", NULL);
    ask_for(talk, RULE_UNDO_NEVER_REFUSED, "abort", NULL);
    if (n_phases == PHASE_FREEZE + 1)
        judge_free(talk, RULE_ABORT_RELEASES, "after abort");
    ask_for(talk, RULE_UNDO_NEVER_REFUSED, "backup_shutdown", NULL);
    ask_for(talk, RULE_UNDO_NEVER_REFUSED, "backup_shutdown", NULL);
}

static void scene_shutdown(struct talk *talk)
{
    if (!talk_reach(talk, PHASE_FREEZE + 1))
        return;
    ask_for(talk, RULE_UNDO_NEVER_REFUSED, "backup_shutdown", NULL);
    judge_free(talk, RULE_SHUTDOWN_RELEASES, "after backup_shutdown");
}

static void scene_lease(struct talk *talk)
{
    if (!talk->check->holds || !talk_reach(talk, PHASE_FREEZE) ||
        talk_ask(talk, "freeze", json_pack("{s:i}", "deadline_ms", LEASE_MS)) != SAID_OK)
        return;
    int64_t window_end = clock_mono_ms() + LEASE_MS, patience = window_end + talk->check->limit_ms;
    while (clock_mono_ms() < window_end ||
           (talk->check->probe && clock_mono_ms() < patience && !application_is_free(talk->check)))
        nanosleep(&(struct timespec){.tv_nsec = PAUSE_NS}, NULL);
    judge_free(talk, RULE_HOLD_LEASE, "long after the deadline_ms of a freeze whose thaw did not come");
    if (talk->check->verdicts[RULE_HOLD_LEASE].failed) /* then it did last */
        return;
    enum said said = talk_ask(talk, "thaw", NULL);
    if (said != SAID_NOTHING)
        judge(talk->check, RULE_LOST_HOLD_ADMITTED, said == SAID_FAILED, "%s",
              "thaw was answered with ok, but the hold had ended before it");
}

static void undone_at(struct check *check, int n_phases)
{
    struct talk talk;
    if (check->over || !talk_open(&talk, check))
        return;
    undo_at(&talk, n_phases);
    talk_close(&talk);
}

/* A conversation that ends otherwise than by a request: what is seen after the process is gone. */
static void ended_at(struct check *check, int n_phases)
{
    struct talk talk;
    char when[64];
    str_format(when, sizeof(when), "after end of file %s%s", n_phases ? "behind " : "at once",
               n_phases ? phase_name(n_phases - 1) : "");
    if (check->over || !talk_open(&talk, check))
        return;
    bool reached = talk_reach(&talk, n_phases);
    talk_close(&talk);
    if (reached)
        judge_free(&talk, RULE_END_OF_FILE_RELEASES, when);
}

static void scene_sigterm(struct talk *talk)
{
    if (!talk_reach(talk, PHASE_FREEZE + 1))
        return;
    int status;
    kill(talk->pid, SIGTERM);
    if (judge(talk->check, RULE_SIGTERM_ENDS, talk_await_exit(talk, &status), "%s",
              "it was still there when the time was up, and was killed"))
        judge_free(talk, RULE_SIGTERM_RELEASES, "after SIGTERM");
}

static void scene_kill(struct talk *talk)
{
    if (!talk_reach(talk, PHASE_FREEZE + 1))
        return;
    int status;
    kill(talk->pid, SIGKILL);
    talk_await_exit(talk, &status);
    struct talk next;
    if (!talk_open(&next, talk->check))
        return;
    if (talk_reach(&next, 1) && !failed(&next, RULE_IDENTIFY_HOLDS_NOTHING))
        judge_free(&next, RULE_KILL_HEALS, "killed while holding, then started again and identified");
    talk_ask(&next, "abort", NULL);
    talk_close(&next);
}

/* ---- abuse ---- */

static void scene_short(struct talk *talk)
{
    if (!talk_reach(talk, PHASE_FREEZE))
        return;
    talk->death_rule = RULE_SHORT_DEADLINE; /* answered with ok or not: both are fine */
    if (talk_ask(talk, "freeze", json_pack("{s:i}", "deadline_ms", 1)) != SAID_NOTHING &&
        talk_ask(talk, "abort", NULL) != SAID_NOTHING && !failed(talk, RULE_ABORT_RELEASES))
        judge_free(talk, RULE_SHORT_DEADLINE, "after a freeze with 1 ms, and abort");
}

static void scene_before_identify(struct talk *talk)
{
    talk->death_rule = RULE_BEFORE_IDENTIFY;
    talk_ask(talk, "prepare_backup", NULL);
    talk_ask(talk, "thaw", NULL);
    ask_for(talk, RULE_BEFORE_IDENTIFY, "identify", NULL);
}

static void abuse(struct check *check, enum rule rule, const char *bytes, size_t length)
{
    struct talk talk;
    if (check->over || !talk_open(&talk, check))
        return;
    if (talk_reach(&talk, PHASE_FREEZE + 1))
        judge(check, rule, talk_abuse(&talk, bytes, length),
              "it crashed, or went silent, at %zu bytes that are no request: %.40s", length, bytes);
    talk_close(&talk);
    judge_free(&talk, rule, "after an abuse and its end");
}

static void all_abuse(struct check *check)
{
    static const char lines[] = "nonsense\n{\n[1]\n\"text\"\n{}\n{\"id\":\"x\",\"event\":7}\n\xff\xfe\n\n";
    abuse(check, RULE_GARBAGE, lines, strlen(lines));
    AUTO_FREE char *oversize = mem_new(OVERSIZE + 1);
    memset(oversize, 'x', OVERSIZE);
    oversize[OVERSIZE - 1] = '\n';
    abuse(check, RULE_OVERSIZE_LINE, oversize, OVERSIZE);
}

static void play(struct check *check, void (*scene)(struct talk *talk))
{
    struct talk talk;
    if (check->over || !talk_open(&talk, check))
        return;
    scene(&talk);
    talk_close(&talk);
}

void scenes_play(struct check *check)
{
    static void (*const order[])(struct talk *) = {
        scene_identify,    scene_backup,  scene_non_component_mode, scene_types, scene_restore,
        scene_no_snapshot, scene_unknown, scene_shutdown,
    };
    static void (*const after_undoing[])(struct talk *) = {scene_lease, scene_sigterm, scene_short,
                                                           scene_before_identify};
    first_identify(check);
    for (size_t i = 0; i < ELEMENTS(order); i++)
        play(check, order[i]);
    for (int n = 0; n <= PHASE_COUNT; n++) {
        undone_at(check, n);
        ended_at(check, n);
    }
    for (size_t i = 0; i < ELEMENTS(after_undoing); i++)
        play(check, after_undoing[i]);
    all_abuse(check);
    if (check->holds)
        play(check, scene_kill); /* last: what it leaves may be there for good */
}
