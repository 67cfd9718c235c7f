#include "cli/watch.h"

#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/jsonspec.h"
#include "base/str.h"
#include "cli/answer.h"
#include "cli/client.h"
#include "cli/hint.h"

/* LATE_SECONDS: what a long-poll's answer may take beyond its wait. */
enum { LOST_MS = 120000, AGAIN_MS = 1000, WAIT_SECONDS = 30, LATE_SECONDS = 15, BAR = 24 };

static volatile int interrupted, insisted; /* how often; the second time */

static void on_interrupt(int signal)
{
    (void)signal;
    interrupted++;
    insisted = interrupted > 1;
}

struct catching {
    struct sigaction interrupt, term; /* as they were */
};

static void catch_begin(struct catching *before)
{
    const struct sigaction catch = {.sa_handler = on_interrupt};
    interrupted = insisted = 0;
    sigaction(SIGINT, &catch, &before->interrupt);
    sigaction(SIGTERM, &catch, &before->term);
}

static void catch_end(const struct catching *before)
{
    sigaction(SIGINT, &before->interrupt, NULL);
    sigaction(SIGTERM, &before->term, NULL);
}

/* --- progress --- */

struct progress {
    bool shown;
    int64_t at_ms, bytes; /* of the sample before */
    double rate;          /* bytes per second, smoothed */
};

static void measure(struct progress *progress, int64_t bytes)
{
    int64_t now = clock_mono_ms();
    if (progress->at_ms && now > progress->at_ms && bytes >= progress->bytes) {
        double rate = (double)(bytes - progress->bytes) * 1000 / (double)(now - progress->at_ms);
        progress->rate = progress->rate > 0 ? 0.7 * progress->rate + 0.3 * rate : rate;
    }
    progress->at_ms = now;
    progress->bytes = bytes;
}

static void show(struct progress *progress, const json_t *job)
{
    char done[AMOUNT_SIZE], total[AMOUNT_SIZE], rate[AMOUNT_SIZE], bar[BAR + 1] = "";
    const json_t *now = json_object_get(job, "progress");
    int64_t bytes = json_int(now, "bytes_done", 0), all = json_int(now, "bytes_total", -1);
    measure(progress, bytes);
    fprintf(stderr, "\r\033[K%s %s", json_str(job, "operation", ""), json_str(now, "phase", json_str(job, "state", "")));
    if (all > 0) {
        int filled = (int)(BAR * (bytes < all ? bytes : all) / all);
        memset(bar, '#', (size_t)filled);
        fprintf(stderr, " [%-*s] %3d%%", BAR, bar, (int)(100 * (bytes < all ? bytes : all) / all));
    }
    if (bytes > 0)
        fprintf(stderr, " %s of %s, %lld files", amount_text(bytes, done), amount_text(all, total), (long long)json_int(now, "files_done", 0));
    if (progress->rate >= 1)
        fprintf(stderr, ", %s/s", amount_text((int64_t)progress->rate, rate));
    if (progress->rate >= 1 && all > bytes)
        fprintf(stderr, ", %lld s left", (long long)((double)(all - bytes) / progress->rate) + 1);
    fflush(stderr);
    progress->shown = true;
}

static void end_progress(const struct progress *progress)
{
    if (progress->shown)
        fputs("\r\033[K", stderr);
}

/* --- waiting --- */

static bool ended(const json_t *job)
{
    const char *state = json_str(job, "state", "");
    return str_eq(state, "succeeded") || str_eq(state, "failed") || str_eq(state, "cancelled");
}

/* false: the daemon was not reached, and has to be asked again. */
static bool cancel(struct ctl *ctl, const char *path)
{
    struct err err;
    struct reply reply;
    client_patience(ctl->client, LATE_SECONDS);
    int called = client_call(ctl->client, "DELETE", path, NULL, &insisted, &reply, &err);
    client_patience(ctl->client, 0);
    if (called != 0)
        return false;
    if (reply.status == 202)
        fprintf(stderr, "quiescectl: the daemon cancels it; waiting until that is done (Ctrl-C again leaves it alone)\n");
    else
        answer_check(&reply);
    reply_clear(&reply);
    return true;
}

/* One look. 0 with the job, 1: not reached just now, with err, else an exit code. */
static int look(struct ctl *ctl, const char *path, int seconds, json_t **ret_job, struct err *err)
{
    struct reply reply;
    AUTO_FREE char *query = str_new("%s?wait=%d", path, seconds);
    const volatile int *stop = interrupted ? &insisted : &interrupted;
    client_patience(ctl->client, seconds + LATE_SECONDS);
    int called = client_call(ctl->client, "GET", query, NULL, stop, &reply, err);
    client_patience(ctl->client, 0);
    if (called != 0)
        return 1;
    if (reply.status == 503 || reply.status == 429) {
        err_set(err, VSS_E_UNEXPECTED, NULL, "%d: %s", reply.status, json_str(reply.body, "detail", "not just now"));
        reply_clear(&reply);
        return 1;
    }
    int code = answer_check(&reply);
    *ret_job = code == CTL_OK ? json_incref(reply.body) : NULL;
    reply_clear(&reply);
    return code;
}

static void rest(void)
{
    const struct timespec pause = {AGAIN_MS / 1000, AGAIN_MS % 1000 * 1000000};
    nanosleep(&pause, NULL);
}

struct waiting {
    const char *path;
    struct progress progress;
    int64_t lost_ms; /* since when the daemon has not answered; 0: it does */
    bool reached;    /* it was there when it was last asked */
    bool asked;      /* to cancel the job */
};

/* Said once each: whoever watches must not take silence for work. Returns false when it has been away for too long. */
static bool lost(const struct ctl *ctl, struct waiting *waiting, const struct err *why)
{
    int64_t now = clock_mono_ms();
    if (!waiting->lost_ms) {
        waiting->lost_ms = now;
        end_progress(&waiting->progress);
        if (!ctl->quiet)
            fprintf(stderr, "quiescectl: the daemon does not answer (%s); it is asked again for %d s\n", why->text, LOST_MS / 1000);
    }
    return now - waiting->lost_ms <= LOST_MS;
}

static void found(const struct ctl *ctl, struct waiting *waiting)
{
    if (waiting->lost_ms && !ctl->quiet)
        fputs("quiescectl: the daemon answers again\n", stderr);
    waiting->lost_ms = 0;
}

/* As look until it has ended. */
static int wait_on(struct ctl *ctl, struct waiting *waiting, json_t **ret_job)
{
    bool terminal = !ctl->quiet && isatty(STDERR_FILENO);
    for (;;) {
        AUTO_JSON json_t *job = NULL;
        struct err why;
        bool stoppable = interrupted == 0;
        int code = look(ctl, waiting->path, terminal || interrupted ? 1 : WAIT_SECONDS, &job, &why);
        bool broken_off = code == 1 && (insisted || (stoppable && interrupted)); /* by ourselves */
        if (!broken_off)
            waiting->reached = code != 1;
        if (insisted)
            return CTL_UNREACHED;
        if (interrupted && !waiting->asked) {
            end_progress(&waiting->progress);
            waiting->asked = waiting->reached = cancel(ctl, waiting->path);
        }
        if (code > 1)
            return code;
        if (code == 1) {
            if (!broken_off && !lost(ctl, waiting, &why))
                return CTL_UNREACHED;
            if (!broken_off || !waiting->asked)
                rest();
            continue;
        }
        found(ctl, waiting);
        if (ended(job)) {
            *ret_job = TAKE_PTR(job);
            return CTL_OK;
        }
        if (terminal)
            show(&waiting->progress, job);
    }
}

static int exit_of(const json_t *job)
{
    const char *state = json_str(job, "state", "");
    return str_eq(state, "succeeded") ? CTL_OK : str_eq(state, "cancelled") ? CTL_CANCELLED : CTL_FAILED;
}

static int watch(struct ctl *ctl, const char *id, json_t **ret_job)
{
    AUTO_JSON json_t *job = NULL;
    AUTO_FREE char *escaped = client_escape(id), *path = str_new("/jobs/%s", escaped);
    struct waiting waiting = {.path = path};
    int code = wait_on(ctl, &waiting, &job);
    end_progress(&waiting.progress);
    if (!job) {
        if (code == CTL_UNREACHED || insisted)
            fprintf(stderr, waiting.reached ? "quiescectl: how job %s ends is not known here; it goes on by itself: quiescectl job watch %s\n"
                                    : "quiescectl: the daemon is not reached: whether job %s goes on, and how it ends, is not known; once it is reached again: quiescectl job watch %s\n",
                    id, id);
        return code;
    }
    if (ret_job)
        *ret_job = json_incref(job);
    return exit_of(job);
}

int watch_job(struct ctl *ctl, const char *id, json_t **ret_job)
{
    struct catching before;
    catch_begin(&before);
    int code = watch(ctl, id, ret_job);
    catch_end(&before);
    return code;
}

bool watch_was_interrupted(void)
{
    return interrupted > 0;
}

/* --- telling --- */

static void tell_writers(const json_t *writers)
{
    size_t i;
    const json_t *writer;
    json_array_foreach(writers, i, writer)
        if (!str_eq(json_str(writer, "failure", "S_OK"), "S_OK"))
            printf("  writer %s: %s %s\n", json_str(writer, "name", json_str(writer, "writer", "?")), json_str(writer, "failure", ""),
                   json_str(writer, "application_message", json_str(writer, "message", "")));
}

/* An empty one succeeds as well, and need not be what was meant: it is said in words, too. */
static void tell_files(const char *operation, const json_t *result)
{
    char words[AMOUNT_SIZE];
    long long files = (long long)json_int(result, "files", 0);
    if (!json_is_integer(json_object_get(result, "files")))
        return;
    printf("  %lld %s, %s\n", files, files == 1 ? "file" : "files", amount_text(json_int(result, "bytes", -1), words));
    if (files == 0)
        printf("  warning: %s\n", str_starts(operation, "Restore") ? "no file was restored" : "the backup holds no file");
}

/* What a snapshot, and so a backup, is worth; and what it cost the applications. */
static void tell_freeze(const json_t *result)
{
    const json_t *freeze = json_object_get(result, "freeze"), *consistency = json_object_get(result, "consistency");
    if (json_is_object(consistency))
        printf("  consistency grade %s%s\n", json_str(consistency, "grade", "?"), json_bool(consistency, "one_instant", true) ? "" : ", not all of one instant");
    if (json_is_object(freeze))
        printf("  frozen for %.0f ms\n", json_number_value(json_object_get(freeze, "window_ms")));
}

static void tell_result(const char *operation, const json_t *result)
{
    size_t i;
    const json_t *warning;
    if (json_object_get(result, "backup_id") && json_str(result, "backup_id", NULL))
        printf("  backup %s\n", json_str(result, "backup_id", ""));
    tell_files(operation, result);
    tell_freeze(result);
    if (json_object_get(result, "found"))
        printf("  %lld found, %lld added to the catalog; of the catalog's, %lld are gone from the repository\n", (long long)json_int(result, "found", 0),
               (long long)json_int(result, "added", 0), (long long)json_int(result, "gone", 0));
    if (json_object_get(result, "verified"))
        printf("  verified against the manifest: %s\n", json_bool(result, "verified", false) ? "yes" : "no");
    json_array_foreach(json_object_get(result, "warnings"), i, warning)
        printf("  warning: %s\n", json_is_string(warning) ? json_string_value(warning) : json_str(warning, "detail", ""));
    json_array_foreach(json_object_get(result, "damaged"), i, warning)
        printf("  damaged: %s: %s\n", json_str(warning, "path", json_str(warning, "backup_id", "?")), json_str(warning, "reason", ""));
    tell_writers(json_object_get(result, "writers"));
}

/* That a backup's own snapshots go with it is no news; what is undone of one that did not succeed is. */
static void tell_cleanup(const json_t *cleanup, bool succeeded)
{
    static const char *const words[][2] = {{"thawed", "thawed again"}, {"removed", "removed (temporary snapshots, or data of this job)"}, {"failed", "COULD NOT BE UNDONE"}};
    for (size_t i = 0; i < ELEMENTS(words); i++) {
        size_t n = json_array_size(json_object_get(cleanup, words[i][0]));
        if (n > 0 && !(succeeded && str_eq(words[i][0], "removed")))
            printf("  %zu %s\n", n, words[i][1]);
    }
}

int watch_told(struct ctl *ctl, const json_t *job)
{
    const json_t *error = json_object_get(job, "error"), *cleanup = json_object_get(json_object_get(job, "result"), "cleanup");
    if (ctl->json) {
        answer_print(job);
        return exit_of(job);
    }
    printf("%s %s%s%s\n", json_str(job, "operation", "job"), json_str(job, "state", ""), json_is_object(error) ? ": " : "",
           json_is_object(error) ? json_str(error, "detail", "") : "");
    AUTO_FREE char *hint = hint_as_commands(json_str(error, "hint", ""));
    if (json_is_object(error))
        printf("  %s%s%s\n", json_str(job, "hresult", ""), *hint ? "; hint: " : "", hint);
    tell_writers(json_object_get(error, "writers"));
    tell_result(json_str(job, "operation", ""), json_object_get(job, "result"));
    tell_cleanup(cleanup, exit_of(job) == CTL_OK);
    return exit_of(job);
}

/* An interrupt while the call is under way counts for its job: who cancels before the answer is there means that very job. */
static int call_and_watch(struct ctl *ctl, const char *method, const char *path, const json_t *body)
{
    struct err err;
    struct reply reply;
    AUTO_JSON json_t *job = NULL;
    if (client_call(ctl->client, method, path, body, &insisted, &reply, &err) != 0) {
        if (insisted)
            err_set(&err, VSS_E_UNEXPECTED, "quiescectl job list shows it if it was.", "whether the daemon has begun is not known here");
        return ctl_unreached(&err);
    }
    AUTO_JSON json_t *started = json_incref(reply.body);
    int code = answer_check(&reply), status = reply.status;
    reply_clear(&reply);
    if (code != CTL_OK)
        return code;
    const char *id = json_str(started, "id", NULL);
    if (status == 202 && id && (ctl->wait || interrupted)) {
        code = watch(ctl, id, &job);
        return job ? watch_told(ctl, job) : code;
    }
    if (ctl->json || (started && status != 202))
        answer_print(started);
    else if (id)
        puts(id);
    return CTL_OK;
}

int watch_call(struct ctl *ctl, const char *method, const char *path, const json_t *body)
{
    struct catching before;
    catch_begin(&before);
    int code = call_and_watch(ctl, method, path, body);
    catch_end(&before);
    return code;
}
