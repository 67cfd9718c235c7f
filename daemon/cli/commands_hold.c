/* quiescectl hold: the front doors' commands. freeze, thaw, freezefail: a hold that lasts across calls. create, delete: a snapshot.
 * check: either. */
#include <getopt.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/cleanup.h"
#include "base/jsonspec.h"
#include "base/str.h"
#include "cli/answer.h"
#include "cli/hold.h"
#include "cli/hold_snapshot.h"
#include "cli/options.h"

enum { LOOK_MS = 20 }; /* how soon after the last Freeze the caller hears of it */

/* --- arguments --- */

struct words {
    const char *name, *outside_id;
    bool guest;
    json_t *paths, *excludes; /* lists of text, or NULL */
};

static void append(json_t **list, const char *text)
{
    if (!*list)
        *list = json_array();
    json_add(*list, argument_path(text));
}

static void words_clear(struct words *words)
{
    json_decref(words->paths);
    json_decref(words->excludes);
}

/* letters: of the options that this command takes. argv[0] stands for its name. CTL_OK with how many words follow in *ret_rest. */
static int words_read(struct words *ret, const char *letters, int argc, char **argv, int *ret_rest)
{
    static const struct option options[] = {{"name", required_argument, NULL, 'n'}, {"guest", no_argument, NULL, 'g'},  {"path", required_argument, NULL, 'p'},
                                            {"exclude", required_argument, NULL, 'x'}, {"outside-id", required_argument, NULL, 'o'}, {0}};
    int option;
    optind = opterr = 0;
    *ret = (struct words){.name = "default"};
    while ((option = getopt_long(argc, argv, ":", options, NULL)) != -1) {
        if (option == '?' || option == ':')
            return option_refused(option, argv);
        if (!strchr(letters, option))
            return option_refused('?', argv);
        if (option == 'n')
            ret->name = optarg;
        else if (option == 'o')
            ret->outside_id = optarg;
        else if (option == 'g')
            ret->guest = true;
        else
            append(option == 'p' ? &ret->paths : &ret->excludes, optarg);
    }
    if (!*ret->name || strlen(ret->name) > 100)
        return ctl_usage("hold %s: --name takes 1 to 100 letters", argv[0]);
    *ret_rest = argc - optind;
    return CTL_OK;
}

/* For commands without further words. */
static int words_only(struct words *ret, const char *letters, int argc, char **argv)
{
    int rest = 0, code = words_read(ret, letters, argc + 1, argv - 1, &rest);
    return code == CTL_OK && rest > 0 ? ctl_usage("unexpected argument %s: hold %s takes options only", argv[argc - 1], argv[-1]) : code;
}

/* --- which hold --- */

/* The newest of that name which memory or, when it is over, the store knows: *ret {"session_id","state","frozen","since","deadline"} or
 * NULL; a new reference. */
static int find(struct ctl *ctl, const char *name, json_t **ret)
{
    AUTO_FREE char *label = hold_label(name), *escaped = client_escape(label);
    AUTO_FREE char *held = str_new("/holds?label=%s", escaped), *past = str_new("/sessions?label=%s&limit=1", escaped);
    AUTO_JSON json_t *answer = NULL;
    *ret = NULL;
    int code = hold_call(ctl, "GET", held, NULL, &answer);
    if (code != CTL_OK)
        return code;
    const json_t *item = json_array_get(json_object_get(answer, "items"), 0);
    if (item) {
        *ret = json_incref((json_t *)item);
        return CTL_OK;
    }
    json_decref(TAKE_PTR(answer));
    code = hold_call(ctl, "GET", past, NULL, &answer);
    item = json_array_get(json_object_get(answer, "items"), 0);
    if (item)
        *ret = json_pack("{s:s, s:s, s:b, s:s?}", "session_id", json_str(item, "id", ""), "state", json_str(item, "state", ""), "frozen", 0, "reason",
                         json_str(item, "reason", NULL));
    return code;
}

static int none(const char *name)
{
    fprintf(stderr, "quiescectl: nothing is held under the name %s\n", name);
    return CTL_NOT_THERE;
}

/* --- freeze --- */

static void rest(void)
{
    const struct timespec pause = {0, LOOK_MS * 1000000L};
    nanosleep(&pause, NULL);
}

/* DoSnapshotSet runs: until it holds. *ret: the session's `hold`, a new reference. */
static int await_hold(struct ctl *ctl, const char *session, const char *job, json_t **ret)
{
    AUTO_FREE char *path = str_new("/sessions/%s", session), *job_path = str_new("/jobs/%s", job);
    for (;;) {
        AUTO_JSON json_t *now = NULL;
        int code = hold_call(ctl, "GET", path, NULL, &now);
        if (code != CTL_OK)
            return code;
        if (hold_interrupted())
            return CTL_CANCELLED;
        if (json_is_object(json_object_get(now, "hold"))) {
            *ret = json_incref(json_object_get(now, "hold"));
            return CTL_OK;
        }
        if (!json_is_string(json_object_get(now, "pending_job"))) {
            AUTO_JSON json_t *ended = NULL;
            code = hold_call(ctl, "GET", job_path, NULL, &ended);
            if (ended)
                hold_tell_job(ended);
            return code == CTL_OK ? CTL_FAILED : code;
        }
        rest();
    }
}

static int hold_now(struct ctl *ctl, const char *session, json_t **ret)
{
    AUTO_FREE char *path = str_new("/sessions/%s/snapshot", session);
    AUTO_JSON json_t *started = NULL;
    int code = hold_call(ctl, "POST", path, NULL, &started);
    return code == CTL_OK ? await_hold(ctl, session, json_str(started, "id", ""), ret) : code;
}

/* What an earlier one of that name has left is in the way; one that lasts is not ours to end. */
static int make_room(struct ctl *ctl, const char *name)
{
    AUTO_JSON json_t *old = NULL;
    int code = find(ctl, name, &old);
    if (code != CTL_OK || !old)
        return code;
    if (json_bool(old, "frozen", false)) {
        fprintf(stderr, "quiescectl: %s is frozen already, since %s, by session %s\n", name, json_str(old, "since", ""), json_str(old, "session_id", ""));
        return CTL_BAD_STATE;
    }
    return hold_release(ctl, json_str(old, "session_id", ""));
}

static int freeze_set(struct ctl *ctl, const struct words *words)
{
    AUTO_FREE char *label = hold_label(words->name), *session = NULL;
    AUTO_JSON json_t *hold = NULL;
    const struct hold_set set = {.label = label, .context = "backup", .provider = words->guest ? "guest" : "external", .paths = words->paths, .excludes = words->excludes};
    int code = make_room(ctl, words->name);
    if (code == CTL_OK)
        code = hold_prepare(ctl, &set, &session);
    if (code != CTL_OK)
        return code;
    code = hold_now(ctl, session, &hold);
    if (code != CTL_OK) {
        hold_release(ctl, session);
        return code;
    }
    json_put(hold, "session_id", json_string(session));
    if (ctl->json)
        answer_print(hold);
    else
        printf("%s: frozen since %s, thawed at %s at the latest\n", words->name, json_str(hold, "since", ""), json_str(hold, "deadline", ""));
    return CTL_OK;
}

static int freeze(struct ctl *ctl, int argc, char **argv)
{
    CLEANUP(words_clear) struct words words = {0};
    int code = words_only(&words, "ngpx", argc, argv);
    if (code != CTL_OK)
        return code;
    hold_signals_begin();
    code = freeze_set(ctl, &words);
    hold_signals_end();
    return code;
}

/* --- thaw --- */

/* It is over, and was before anybody asked: how. */
static int lost(struct ctl *ctl, const char *name, const json_t *hold)
{
    const char *session = json_str(hold, "session_id", ""), *reason = json_str(hold, "reason", NULL);
    AUTO_FREE char *jobs = str_new("/jobs?session=%s&operation=DoSnapshotSet&limit=1", session);
    AUTO_JSON json_t *list = NULL;
    int status = hold_ask(ctl, "GET", jobs, NULL, &list);
    const json_t *job = status == 200 ? json_array_get(json_object_get(list, "items"), 0) : NULL;
    fprintf(stderr, "quiescectl: %s did not stay frozen%s%s: a snapshot that was taken outside since then is not consistent\n", name, reason ? ", " : "", reason ? reason : "");
    if (job)
        hold_tell_job(job);
    hold_release(ctl, session);
    return CTL_FAILED;
}

/* BackupComplete for those who were held; whatever comes of it, the snapshot is good. */
static void complete(struct ctl *ctl, const char *session)
{
    AUTO_FREE char *path = str_new("/sessions/%s/complete", session);
    if (hold_job(ctl, path, NULL) != CTL_OK)
        fprintf(stderr, "quiescectl: the freeze lasted; only BackupComplete failed\n");
    hold_release(ctl, session);
}

static int thaw_held(struct ctl *ctl, const struct words *words, const json_t *hold)
{
    const char *session = json_str(hold, "session_id", "");
    AUTO_FREE char *path = str_new("/sessions/%s/snapshot-set/release", session);
    AUTO_JSON json_t *body = json_object();
    AUTO_JSON json_t *job = NULL;
    if (words->outside_id)
        json_put(body, "outside_id", json_text(words->outside_id));
    int status = hold_ask(ctl, "POST", path, body, &job);
    if (status < 0)
        return CTL_UNREACHED;
    if (status == 409 || status == 404) /* it has just ended by itself */
        return lost(ctl, words->name, hold);
    if (status != 200 || !str_eq(json_str(job, "state", ""), "succeeded")) {
        if (status == 200)
            hold_tell_job(job);
        else
            fprintf(stderr, "quiescectl: %s\n", json_str(job, "detail", "the daemon refuses"));
        hold_release(ctl, session);
        return status == 200 ? CTL_FAILED : CTL_DAEMON;
    }
    complete(ctl, session);
    if (ctl->json)
        answer_print(job);
    else
        printf("%s: thawed; it stayed frozen for %.0f ms\n", words->name,
               json_number_value(json_object_get(json_object_get(json_object_get(job, "result"), "freeze"), "window_ms")));
    return CTL_OK;
}

static int thaw_named(struct ctl *ctl, const struct words *words)
{
    AUTO_JSON json_t *hold = NULL;
    int code = find(ctl, words->name, &hold);
    if (code != CTL_OK)
        return code;
    if (!hold)
        return none(words->name);
    return json_bool(hold, "frozen", false) ? thaw_held(ctl, words, hold) : lost(ctl, words->name, hold);
}

static int drop_named(struct ctl *ctl, const struct words *words)
{
    AUTO_JSON json_t *hold = NULL;
    int code = find(ctl, words->name, &hold);
    if (code == CTL_OK && hold) /* nothing is held: that is what was asked for */
        code = hold_release(ctl, json_str(hold, "session_id", ""));
    if (code == CTL_OK && ctl->json)
        answer_print(NULL);
    return code;
}

/* An interrupt does not keep it from letting go: that is what it is there for. */
static int let_go(struct ctl *ctl, const char *letters, int argc, char **argv)
{
    CLEANUP(words_clear) struct words words = {0};
    int code = words_only(&words, letters, argc, argv);
    if (code != CTL_OK)
        return code;
    hold_signals_begin();
    code = str_eq(argv[-1], "thaw") ? thaw_named(ctl, &words) : drop_named(ctl, &words);
    hold_signals_end();
    return code;
}

static int thaw(struct ctl *ctl, int argc, char **argv)
{
    return let_go(ctl, "no", argc, argv);
}

static int freezefail(struct ctl *ctl, int argc, char **argv)
{
    return let_go(ctl, "n", argc, argv);
}

/* --- check --- */

static int check_hold(struct ctl *ctl, const char *name)
{
    AUTO_JSON json_t *hold = NULL;
    int code = find(ctl, name, &hold);
    if (code != CTL_OK)
        return code;
    bool frozen = json_bool(hold, "frozen", false);
    if (ctl->json)
        answer_print(hold ? hold : json_null());
    else if (frozen)
        printf("%s: frozen since %s, thawed at %s at the latest\n", name, json_str(hold, "since", ""), json_str(hold, "deadline", ""));
    if (!hold)
        return none(name);
    if (!frozen)
        fprintf(stderr, "quiescectl: %s is not frozen any more (its session is %s)\n", name, json_str(hold, "state", ""));
    return frozen ? CTL_OK : CTL_FAILED;
}

static int check(struct ctl *ctl, int argc, char **argv)
{
    CLEANUP(words_clear) struct words words = {0};
    int n = 0, code = words_read(&words, "n", argc + 1, argv - 1, &n);
    if (code != CTL_OK)
        return code;
    if (n > 1)
        return ctl_usage("unexpected argument %s: hold check takes [--name NAME], or one PATH", argv[argc - 1]);
    return n == 1 ? hold_check_path(ctl, argument_trim(argv[argc - 1])) : check_hold(ctl, words.name);
}

static const struct command rows[] = {
    {"hold", "freeze", "[--name NAME] [--guest] [--path PATH]… [--exclude PATH]…", "freeze, and stay frozen for a snapshot that is taken outside", freeze},
    {"hold", "thaw", "[--name NAME] [--outside-id ID]", "end it; fails when it did not stay frozen", thaw},
    {"hold", "freezefail", "[--name NAME]", "give it up: the outside snapshot was not taken", freezefail},
    {"hold", "check", "[--name NAME] | PATH", "is it frozen? or: could PATH's snapshot be taken?", check},
    {"hold", "create", "PATH [--at DIR] [--label LABEL] [--at-least GRADE] [--exclude PATH]…", "an application-consistent snapshot; prints where it is", hold_create},
    {"hold", "delete", "PLACE|SNAPSHOT", "remove what create has made", hold_delete},
};
const struct command_table commands_hold = {rows, ELEMENTS(rows)};
