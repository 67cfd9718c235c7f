#include "cli/hold_snapshot.h"

#include <getopt.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/jsonspec.h"
#include "base/str.h"
#include "cli/answer.h"
#include "cli/hold.h"
#include "cli/options.h"

enum { BUSY = 409, AGAIN_MS = 100, AGAIN_FOR_MS = 10000 };

/* --- create --- */

struct wish {
    const char *path, *at, *label, *at_least;
    json_t *excludes;
};

static const char *const grades[] = {"none", "crash", "filesystem", "application", NULL}; /* docs/consistency.md */

static int grade_rank(const char *name)
{
    for (int i = 0; grades[i]; i++)
        if (str_eq(grades[i], name))
            return i;
    return -1;
}

/* argv[0] stands for the command's name. */
static int wish_read(struct wish *ret, int argc, char **argv)
{
    static const struct option options[] = {{"at", required_argument, NULL, 'a'}, {"label", required_argument, NULL, 'l'},
                                            {"at-least", required_argument, NULL, 'g'}, {"exclude", required_argument, NULL, 'x'}, {0}};
    int option;
    optind = opterr = 0;
    *ret = (struct wish){.label = "hold-snapshot", .excludes = json_array()};
    while ((option = getopt_long(argc, argv, ":", options, NULL)) != -1) {
        if (option == '?' || option == ':')
            return option_refused(option, argv);
        if (option == 'x')
            json_add(ret->excludes, argument_path(optarg));
        else
            *(option == 'a' ? &ret->at : option == 'l' ? &ret->label : &ret->at_least) = option == 'a' ? argument_trim(optarg) : optarg;
    }
    if (argc - optind != 1)
        return argc > optind ? ctl_usage("unexpected argument %s: hold create takes one PATH", argv[optind + 1])
                             : ctl_usage("PATH is missing: hold create takes one");
    if (ret->at_least && grade_rank(ret->at_least) < 0)
        return ctl_usage("--at-least %s: one of none, crash, filesystem, application", ret->at_least);
    ret->path = argument_trim(argv[optind]);
    return CTL_OK;
}

/* What path is in the snapshot, which shows the whole volume at `shown`. malloc'ed. */
static char *place_of(const char *path, const char *volume, const char *shown)
{
    size_t length = strlen(volume);
    const char *rest = str_eq(volume, "/") ? path : strncmp(path, volume, length) == 0 ? path + length : "";
    return str_new("%s%s", shown, str_eq(rest, "/") ? "" : rest);
}

static int expose(struct ctl *ctl, const char *snapshot, const char *at)
{
    AUTO_FREE char *path = str_new("/snapshots/%s/exposure", snapshot);
    AUTO_JSON json_t *body = json_pack("{s:s}", "path", at);
    return hold_call(ctl, "POST", path, body, NULL);
}

static int drop(struct ctl *ctl, const char *snapshot)
{
    AUTO_FREE char *escaped = client_escape(snapshot), *path = str_new("/snapshots/%s?force=true", escaped);
    return hold_call(ctl, "DELETE", path, NULL, NULL);
}

/* The exposure whose answer was not waited for may have it in hand still: it is asked again, for as long as anything that is released. */
static int drop_given_up(struct ctl *ctl, const char *snapshot)
{
    static const struct timespec pause = {0, AGAIN_MS * 1000000L};
    AUTO_FREE char *path = str_new("/snapshots/%s?force=true", snapshot);
    int status = BUSY;
    for (int64_t end = clock_mono_ms() + AGAIN_FOR_MS; status == BUSY && clock_mono_ms() < end; nanosleep(&pause, NULL)) {
        AUTO_JSON json_t *answer = NULL;
        status = hold_ask(ctl, "DELETE", path, NULL, &answer);
    }
    return status < 0 ? CTL_UNREACHED : status < 300 ? CTL_OK : drop(ctl, snapshot);
}

static int good_enough(const struct wish *wish, const json_t *result)
{
    const char *grade = json_str(json_object_get(result, "consistency"), "grade", "none");
    if (!wish->at_least || grade_rank(grade) >= grade_rank(wish->at_least))
        return CTL_OK;
    fprintf(stderr, "quiescectl: the snapshot of %s would be of grade %s, and %s was asked for\n", wish->path, grade, wish->at_least);
    return CTL_FAILED;
}

static void tell(struct ctl *ctl, const struct wish *wish, const json_t *result)
{
    const json_t *snapshot = json_array_get(json_object_get(result, "snapshots"), 0), *consistency = json_object_get(result, "consistency");
    AUTO_FREE char *place = place_of(wish->path, json_str(snapshot, "volume", "/"), wish->at ? wish->at : json_str(snapshot, "path", ""));
    if (ctl->json) {
        AUTO_JSON json_t *told = json_pack("{s:s, s:s, s:s, s:s, s:O?}", "snapshot_id", json_str(snapshot, "id", ""), "place", place, "volume",
                                           json_str(snapshot, "volume", ""), "provider", json_str(snapshot, "provider", ""), "consistency", consistency);
        answer_print(told);
        return;
    }
    puts(place);
    fflush(stdout); /* from here on whoever reads it removes the snapshot, however we end */
    if (!ctl->quiet)
        fprintf(stderr, "quiescectl: snapshot %s of %s (%s), grade %s\n", json_str(snapshot, "id", ""), json_str(snapshot, "volume", ""),
                json_str(snapshot, "provider", ""), json_str(consistency, "grade", "none"));
}

/* DoSnapshotSet, BackupComplete, and its place. Nothing is left of it unless it is all there. */
static int take(struct ctl *ctl, const struct wish *wish, const char *session)
{
    AUTO_FREE char *snapshot_path = str_new("/sessions/%s/snapshot", session), *complete = str_new("/sessions/%s/complete", session);
    AUTO_JSON json_t *job = NULL;
    int code = hold_job(ctl, snapshot_path, &job);
    if (code != CTL_OK)
        return code;
    const json_t *result = json_object_get(job, "result");
    const char *snapshot = json_str(json_array_get(json_object_get(result, "snapshots"), 0), "id", "");
    code = good_enough(wish, result);
    if (code == CTL_OK)
        code = hold_job(ctl, complete, NULL);
    if (code == CTL_OK && wish->at)
        code = expose(ctl, snapshot, wish->at);
    if (code == CTL_OK && hold_interrupted())
        code = CTL_CANCELLED;
    if (code == CTL_OK)
        tell(ctl, wish, result);
    else if (code == CTL_UNREACHED)
        drop_given_up(ctl, snapshot);
    else
        drop(ctl, snapshot);
    return code;
}

int hold_create(struct ctl *ctl, int argc, char **argv)
{
    struct wish wish;
    AUTO_FREE char *session = NULL;
    int code = wish_read(&wish, argc + 1, argv - 1);
    AUTO_JSON json_t *excludes = wish.excludes;
    AUTO_JSON json_t *paths = json_array();
    if (code != CTL_OK)
        return code;
    json_add(paths, json_text(wish.path));
    const struct hold_set set = {.label = wish.label, .context = "app_rollback", .paths = paths, .excludes = excludes};
    hold_signals_begin();
    code = hold_prepare(ctl, &set, &session);
    if (code == CTL_OK) {
        code = take(ctl, &wish, session);
        hold_release(ctl, session);
    }
    hold_signals_end();
    return code;
}

/* --- delete --- */

/* Does the place, or what create printed for a path beneath, belong to this snapshot? */
static bool is_at(const json_t *snapshot, const char *place)
{
    static const char *const members[] = {"exposed_path", "path"};
    for (size_t i = 0; i < ELEMENTS(members); i++) {
        const char *at = json_str(snapshot, members[i], "");
        size_t length = strlen(at);
        if (length > 1 && strncmp(place, at, length) == 0 && (place[length] == '\0' || place[length] == '/'))
            return true;
    }
    return false;
}

/* CTL_OK with the id (malloc'ed), or NULL when no snapshot is there. */
static int snapshot_at(struct ctl *ctl, const char *place, char **ret)
{
    AUTO_FREE char *cursor = str_dup("");
    do {
        AUTO_JSON json_t *page = NULL;
        AUTO_FREE char *escaped = client_escape(cursor);
        AUTO_FREE char *path = str_new("/snapshots?limit=500%s%s", *cursor ? "&cursor=" : "", escaped);
        size_t i;
        const json_t *snapshot;
        int code = hold_call(ctl, "GET", path, NULL, &page);
        if (code != CTL_OK)
            return code;
        json_array_foreach(json_object_get(page, "items"), i, snapshot)
            if (is_at(snapshot, place)) {
                *ret = str_dup(json_str(snapshot, "id", ""));
                return CTL_OK;
            }
        free(cursor);
        cursor = str_dup(json_str(page, "next_cursor", ""));
    } while (*cursor);
    return CTL_OK;
}

int hold_delete(struct ctl *ctl, int argc, char **argv)
{
    AUTO_FREE char *id = NULL;
    if (argc != 1)
        return ctl_usage("hold delete takes one PLACE, as create has printed it, or the id of a SNAPSHOT");
    argument_trim(argv[0]);
    int code = argv[0][0] == '/' ? snapshot_at(ctl, argv[0], &id) : CTL_OK;
    if (code != CTL_OK)
        return code;
    if (argv[0][0] == '/' && !id) {
        fprintf(stderr, "quiescectl: no snapshot is at %s\n", argv[0]);
        return CTL_NOT_THERE;
    }
    code = drop(ctl, id ? id : argv[0]);
    if (code == CTL_OK && ctl->json)
        answer_print(NULL);
    return code;
}

/* --- check --- */

int hold_check_path(struct ctl *ctl, const char *path)
{
    AUTO_FREE char *escaped = client_escape(path), *query = str_new("/volumes/resolve?path=%s", escaped);
    AUTO_JSON json_t *root = NULL;
    int code = hold_call(ctl, "GET", query, NULL, &root);
    if (code != CTL_OK)
        return code;
    const char *provider = json_str(root, "provider", NULL);
    bool readable = provider && !str_eq(provider, "external");
    if (ctl->json)
        answer_print(root);
    else if (readable)
        printf("%s\n", json_str(root, "root_path", ""));
    if (!readable)
        fprintf(stderr, "quiescectl: %s: no snapshot of it could be read here: %s\n", path, provider ? "only its file system could be frozen" : json_str(root, "reason", "no provider fits"));
    return readable ? CTL_OK : CTL_FAILED;
}
