/* borg's messages while it saves: its progress never falls and never passes ours, whatever it says. */
#include "movers/borg/backup.c"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static struct mover_progress last;

static void watch(void *arg, const struct mover_progress *progress)
{
    (void)arg;
    if (progress->bytes_done < last.bytes_done || progress->files_done < last.files_done ||
        progress->bytes_done > progress->bytes_total || progress->files_done > progress->files_total)
        abort();
    last = *progress;
}

static void one_line(struct backup *backup, const char *line, size_t n)
{
    struct err err;
    AUTO_JSON json_t *message = json_loadb(line, n, 0, NULL);
    if (json_is_object(message))
        on_message(backup, message);
    backup->length = 0;
    take_answer(backup, line, n);
    take_result(backup, &err);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct mover_host host = {.progress = watch, .cancel_fd = -1};
    static struct backup backup;
    static char answer[ANSWER_MAX];
    backup = (struct backup){.host = &host, .answer = answer, .progress = {.bytes_total = 1000, .files_total = 10}};
    last = backup.progress;
    for (size_t at = 0; at < size;) {
        const uint8_t *end = memchr(data + at, '\n', size - at);
        size_t n = end ? (size_t)(end - data) - at : size - at;
        one_line(&backup, (const char *)data + at, n);
        at += n + 1;
    }
    json_decref(backup.stats);
    free(backup.data_id);
    free(backup.repository_id);
    return 0;
}
