#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/jsonspec.h"
#include "base/str.h"
#include "crypto/atomic_file.h"
#include "serve/serve_private.h"

/* sd_notify(3): one datagram; a leading @ stands for the abstract name space. */
void notify_state(const char *state)
{
    const char *path = getenv("NOTIFY_SOCKET");
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    if (!path || (path[0] != '/' && path[0] != '@') || !str_copy(address.sun_path, sizeof(address.sun_path), path))
        return;
    if (path[0] == '@')
        address.sun_path[0] = '\0';
    AUTO_FD int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0);
    if (fd >= 0)
        sendto(fd, state, strlen(state), MSG_NOSIGNAL, (struct sockaddr *)&address,
               (socklen_t)(offsetof(struct sockaddr_un, sun_path) + strlen(path)));
}

void notify_reloading(void)
{
    char state[64];

    str_format(state, sizeof(state), "RELOADING=1\nMONOTONIC_USEC=%lld", (long long)clock_mono_us());
    notify_state(state);
}

int64_t notify_watchdog_ms(void)
{
    const char *text = getenv("WATCHDOG_USEC"), *pid = getenv("WATCHDOG_PID");
    int64_t us, whose;

    if (!text || !str_to_int(text, 1, INT64_MAX / 2, &us) || (pid && (!str_to_int(pid, 1, INT32_MAX, &whose) || whose != getpid())))
        return 0;
    return us / 1000;
}

int notify_ready_file(const char *path, const struct ready *ready, struct err *err)
{
    AUTO_JSON json_t *doc =
        json_pack("{s:s, s:s, s:s, s:s, s:s, s:s?, s:i}", "url", ready->url, "ca", ready->ca, "cert", ready->certificate,
                  "key", ready->key, "token_file", ready->token_file, "socket", ready->socket, "pid", (int)getpid());
    AUTO_FREE char *text = doc ? json_dumps(doc, JSON_COMPACT) : NULL;

    if (!text)
        return err_set(err, VSS_E_UNEXPECTED, "Use paths in UTF-8.", "ready file %s: cannot be written", path);
    AUTO_FREE char *line = str_new("%s\n", text);
    return atomic_file_write(path, 0600, line, strlen(line), err);
}

/* A word for a shell: pasted as it stands. */
static char *quoted(const char *text)
{
    static const char safe[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789/._-+:@%";
    char *word = mem_new(4 * strlen(text) + 3);
    char *to = word;

    if (*text && text[strspn(text, safe)] == '\0')
        return strcpy(word, text);
    *to++ = '\'';
    for (; *text; text++)
        to = *text == '\'' ? stpcpy(to, "'\\''") : (*to = *text, to + 1);
    *to = '\'';
    return word;
}

void notify_print(const struct listeners *listeners, const struct ready *ready, bool first_start)
{
    AUTO_FREE char *ca = quoted(ready->ca);
    AUTO_FREE char *certificate = quoted(ready->certificate);
    AUTO_FREE char *key = quoted(ready->key);
    const char *glob = strchr(ready->url, '[') ? "-g " : ""; /* curl would take [::1] for a range */

    printf("quiesced serves");
    for (size_t i = 0; i < listeners->n; i++) {
        char url[96];
        listeners_url(listeners, i, url);
        printf("%s %s", i ? "," : "", url);
    }
    printf("\n");
    if (first_start)
        printf("First start: made a private CA, the admin client certificate and the admin token (%s). Try:\n"
               "curl %s--cacert %s --cert %s --key %s %s/sessions\n",
               ready->token_file, glob, ca, certificate, key, ready->url);
    fflush(stdout);
}
