#include "cli/events.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/jsonspec.h"
#include "base/str.h"
#include "cli/answer.h"
#include "cli/ctl.h"

/* --- the lines of a stream --- */

enum { LINE_MAX_SIZE = 16 * 1024 * 1024 }; /* an event is far below: what is longer comes from no daemon of ours */

struct reader {
    event_fn fn;
    void *arg;
    char *line;
    size_t size;
    bool over;
};

/* Ours has one line of data per event: nothing else of the format is needed. */
static void take_line(struct reader *reader)
{
    static const char data[] = "data:";
    if (!str_starts(reader->line, data))
        return;
    AUTO_JSON json_t *event = json_loads(reader->line + sizeof(data) - 1, 0, NULL);
    if (event && !reader->fn(reader->arg, event))
        reader->over = true;
}

/* Who follows has been told that the daemon does not answer. */
static bool away;

static bool take(void *arg, const char *data, size_t size)
{
    struct reader *reader = arg;
    if (away)
        fputs("quiescectl: the daemon answers again\n", stderr);
    away = false;
    for (size_t i = 0; i < size && !reader->over; i++) {
        if (reader->size >= LINE_MAX_SIZE)
            return false;
        reader->line = mem_resize(reader->line, reader->size + 2);
        if (data[i] != '\n') {
            reader->line[reader->size++] = data[i];
            continue;
        }
        reader->line[reader->size] = '\0';
        take_line(reader);
        reader->size = 0;
    }
    return !reader->over;
}

int events_read(struct client *client, const char *path, const volatile int *stop, event_fn fn, void *arg, struct err *err)
{
    struct reader reader = {.fn = fn, .arg = arg};
    const struct client_sink sink = {take, &reader, stop};
    struct reply reply;
    int result = client_stream(client, path, &sink, &reply, err);
    free(reader.line);
    if (result == 0 && reply.status != 200)
        result = answer_check(&reply);
    else if (reader.over || (stop && *stop))
        result = 0;
    reply_clear(&reply);
    return result;
}

/* --- quiescectl events --- */

enum { AGAIN_MOST = 30 }; /* once a second */

static volatile int stopped;

static void on_stop(int signal)
{
    (void)signal;
    stopped = 1;
}

struct printing {
    bool json, follow, quiet;
    bool of_job, ended; /* a job's stream ends with the job */
    json_int_t last;  /* id of the last durable event */
    int left;         /* events to show; -1 = all */
    json_int_t begin; /* of the stream, when what was asked for is not kept any more; -1 = not so */
};

static bool job_ended(const json_t *event)
{
    const char *state = json_str(json_object_get(event, "data"), "state", "");
    return str_eq(state, "succeeded") || str_eq(state, "failed") || str_eq(state, "cancelled");
}

static bool print_event(void *arg, const json_t *event)
{
    struct printing *printing = arg;
    if (!printing->follow && str_eq(json_str(event, "type", ""), "reset") && json_int(json_object_get(event, "data"), "oldest", 0) > 0) {
        printing->begin = json_int(json_object_get(event, "data"), "oldest", 0) - 1;
        return false;
    }
    AUTO_FREE char *text = json_dumps(printing->json ? event : json_object_get(event, "data"), JSON_COMPACT | JSON_ENCODE_ANY);
    printing->last = json_int(event, "id", printing->last);
    printing->ended = printing->of_job && job_ended(event);
    if (printing->json)
        printf("%s\n", text);
    else
        printf("%s  %-18s %s%s%s\n", json_str(event, "time", ""), json_str(event, "type", ""), json_str(event, "job_id", json_str(event, "session_id", "")),
               text ? "  " : "", text ? text : "");
    return fflush(stdout) == 0 && (printing->left < 0 || --printing->left > 0);
}

/* Goes on over a restart of the daemon, from the last event on. `path` with a query that is open to more. Returns an exit code. */
static int read_on(struct ctl *ctl, const char *path, struct printing *printing)
{
    struct err err = {0};
    for (int failures = 0; !stopped;) {
        AUTO_FREE char *after = printing->last >= 0 ? str_new("&after=%lld", (long long)printing->last) : str_dup("");
        AUTO_FREE char *whole = str_new("%s%s", path, after);
        json_int_t before = printing->last;
        int result = events_read(ctl->client, whole, &stopped, print_event, printing, &err);
        if (!printing->follow && printing->begin > printing->last) { /* the oldest that is kept, then */
            printing->last = printing->begin;
            continue;
        }
        bool refused = result > 0 && result != CTL_DAEMON; /* asking again changes nothing */
        if (!printing->follow || refused || stopped || printing->left == 0 || printing->ended)
            return result >= 0 ? result : ctl_unreached(&err);
        failures = printing->last != before ? 0 : failures + 1;
        if (result != 0 && failures > AGAIN_MOST)
            return result > 0 ? result : ctl_unreached(&err);
        if (result < 0 && !printing->quiet && !away) {
            fprintf(stderr, "quiescectl: the daemon does not answer (%s); it is asked again for %d s\n", err.text, AGAIN_MOST);
            away = true;
        }
        sleep(1);
    }
    return CTL_OK;
}

static void catch_stop(void)
{
    const struct sigaction catch = {.sa_handler = on_stop};
    sigaction(SIGINT, &catch, NULL);
    sigaction(SIGTERM, &catch, NULL);
}

static bool is_follow(const char *argument)
{
    return str_eq(argument, "-f") || str_eq(argument, "--follow");
}

static struct printing printing_of(const struct ctl *ctl)
{
    return (struct printing){.json = ctl->json, .quiet = ctl->quiet, .last = -1, .begin = -1, .left = ctl->limited ? ctl->limit : -1};
}

static int events(struct ctl *ctl, int argc, char **argv)
{
    struct printing printing = printing_of(ctl);
    AUTO_FREE char *filter = str_dup("");
    for (int i = 0; i < argc; i++) {
        int64_t after;
        if (is_follow(argv[i]))
            printing.follow = true;
        else if (str_starts(argv[i], "after=") && str_to_int(argv[i] + 6, 0, INT64_MAX, &after))
            printing.last = after;
        else if (str_starts(argv[i], "session=") || str_starts(argv[i], "types=")) {
            const char *value = strchr(argv[i], '=') + 1;
            AUTO_FREE char *escaped = client_escape(value), *before = filter;
            filter = str_new("%s&%.*s%s", before, (int)(value - argv[i]), argv[i], escaped);
        } else
            return ctl_usage("unexpected argument %s: events takes -f, after=ID, session=SESSION, types=TYPE…", argv[i]);
    }
    if (!printing.follow && printing.last < 0)
        printing.last = 0; /* what there was */
    catch_stop();
    AUTO_FREE char *path = str_new("/events?follow=%s%s", printing.follow ? "true" : "false", filter);
    return read_on(ctl, path, &printing);
}

/* Of one job, from its beginning. */
static int job_log(struct ctl *ctl, int argc, char **argv)
{
    struct printing printing = printing_of(ctl);
    const char *id = NULL;
    for (int i = 0; i < argc; i++) {
        if (is_follow(argv[i]))
            printing.follow = true;
        else if (!id)
            id = argv[i];
        else
            return ctl_usage("unexpected argument %s: job log takes one id, and -f", argv[i]);
    }
    if (!id)
        return ctl_usage("JOB is missing: job log takes one");
    printing.last = 0;
    printing.of_job = true;
    catch_stop();
    AUTO_FREE char *escaped = client_escape(id), *path = str_new("/jobs/%s/events?follow=%s", escaped, printing.follow ? "true" : "false");
    return read_on(ctl, path, &printing);
}

static const struct command rows[] = {
    {"events", NULL, "[-f] [after=ID] [session=SESSION] [types=TYPE…]", "what happened; -f goes on as it happens", events},
    {"job", "log", "[-f] JOB", "what happened to one job; -f goes on until it has ended", job_log},
};
const struct command_table commands_events = {rows, ELEMENTS(rows)};
