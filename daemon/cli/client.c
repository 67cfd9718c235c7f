#include "cli/client.h"

#include <curl/curl.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/jsonspec.h"
#include "base/str.h"

/* SILENT_SECONDS: a long-poll is answered after 60, a stream has a heartbeat more often. */
enum { CONNECT_SECONDS = 15, SILENT_SECONDS = 150, TOKEN_MAX = 4096, ANSWER_MAX = 64 * 1024 * 1024 };

struct client {
    const json_t *target;
    CURL *curl;
    char *url, *authorization;
    bool for_people;    /* replies are shown as text */
    const char *header; /* one more, of every call; borrowed */
    char words[CURL_ERROR_SIZE];
};

struct transfer {
    const volatile int *stop;
    client_take_fn take;
    void *arg;
    CURL *curl;
    char *text;
    size_t size;
};

static void slist_cleanup(struct curl_slist **list)
{
    curl_slist_free_all(*list);
}

/* --- life --- */

static int read_token(struct client *client, const char *path, struct err *err)
{
    char token[TOKEN_MAX];
    FILE *file = fopen(path, "re");
    if (!file)
        return err_errno(err, E_INVALIDARG, errno, "Name the file that holds the token.", "cannot read %s", path);
    size_t size = fread(token, 1, sizeof(token) - 1, file);
    fclose(file);
    token[size] = '\0';
    token[strcspn(token, "\r\n")] = '\0';
    if (!*token)
        return err_set(err, E_INVALIDARG, "It should hold a token's secret alone.", "%s is empty", path);
    client->authorization = str_new("Authorization: Bearer %s", token);
    explicit_bzero(token, sizeof(token));
    return 0;
}

static void set_up(struct client *client, const json_t *target)
{
    static const struct {
        const char *name;
        CURLoption option;
    } files[] = {
        {"ca", CURLOPT_CAINFO},
        {"cert", CURLOPT_SSLCERT},
        {"key", CURLOPT_SSLKEY},
        {"socket", CURLOPT_UNIX_SOCKET_PATH},
    };
    for (size_t i = 0; i < ELEMENTS(files); i++) {
        const char *value = json_str(target, files[i].name, NULL);
        if (value)
            curl_easy_setopt(client->curl, files[i].option, value);
    }
    curl_easy_setopt(client->curl, CURLOPT_ERRORBUFFER, client->words);
    curl_easy_setopt(client->curl, CURLOPT_CONNECTTIMEOUT, (long)CONNECT_SECONDS);
    curl_easy_setopt(client->curl, CURLOPT_LOW_SPEED_LIMIT, 1L);
    curl_easy_setopt(client->curl, CURLOPT_LOW_SPEED_TIME, (long)SILENT_SECONDS);
    curl_easy_setopt(client->curl, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(client->curl, CURLOPT_PROXY, ""); /* the daemon is spoken to directly, whatever the environment says */
    curl_easy_setopt(client->curl, CURLOPT_PROTOCOLS_STR, json_str(target, "socket", NULL) ? "http" : "https");
    curl_easy_setopt(client->curl, CURLOPT_USERAGENT, "quiescectl");
}

struct client *client_new(const json_t *target, struct err *err)
{
    const char *token = json_str(target, "token_file", NULL);
    struct client *client = mem_new(sizeof(*client));
    client->target = target;
    client->curl = curl_easy_init();
    client->url = str_dup(json_str(target, "socket", NULL) ? "http://localhost" : json_str(target, "url", ""));
    size_t length = strlen(client->url);
    if (length && client->url[length - 1] == '/')
        client->url[length - 1] = '\0';
    if (!client->curl)
        err_set(err, E_OUTOFMEMORY, NULL, "libcurl does not start");
    else if (!token || read_token(client, token, err) == 0) {
        set_up(client, target);
        return client;
    }
    client_free(client);
    return NULL;
}

void client_free(struct client *client)
{
    if (!client)
        return;
    curl_easy_cleanup(client->curl);
    if (client->authorization)
        explicit_bzero(client->authorization, strlen(client->authorization));
    free(client->authorization);
    free(client->url);
    free(client);
}

void client_for_people(struct client *client)
{
    client->for_people = true;
}

void client_patience(struct client *client, int seconds)
{
    curl_easy_setopt(client->curl, CURLOPT_TIMEOUT, (long)seconds);
}

void client_header(struct client *client, const char *header)
{
    client->header = header;
}

/* --- calls --- */

static size_t on_data(char *data, size_t one, size_t size, void *arg)
{
    struct transfer *transfer = arg;
    long status = 0;
    (void)one;
    curl_easy_getinfo(transfer->curl, CURLINFO_RESPONSE_CODE, &status);
    if (transfer->take && status == 200)
        return transfer->take(transfer->arg, data, size) ? size : 0;
    if (transfer->size + size > ANSWER_MAX)
        return 0;
    transfer->text = mem_resize(transfer->text, transfer->size + size + 1);
    memcpy(transfer->text + transfer->size, data, size);
    transfer->size += size;
    transfer->text[transfer->size] = '\0';
    return size;
}

static int on_progress(void *arg, curl_off_t a, curl_off_t b, curl_off_t c, curl_off_t d)
{
    const struct transfer *transfer = arg;
    (void)a, (void)b, (void)c, (void)d;
    return transfer->stop && *transfer->stop;
}

/* Why nobody is met at a socket: libcurl's own words are about a port of localhost. 0: somebody is. */
static int socket_errno(const char *path)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    AUTO_FD int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (!str_copy(address.sun_path, sizeof(address.sun_path), path))
        return ENAMETOOLONG;
    return fd >= 0 && connect(fd, (const struct sockaddr *)&address, sizeof(address)) == 0 ? 0 : errno;
}

#define MAY_NOT \
    "The daemon's user and root may use it, and whom the configuration names in `principals` by user or group. Others call by --url, with a token or a certificate."
static int no_socket(const char *path, const char *why, struct err *err)
{
    static const struct {
        int errnum;
        const char *text, *hint;
    } causes[] = {
        {EACCES, "permission denied", MAY_NOT},
        {EPERM, "permission denied", MAY_NOT},
        {ENOENT, "there is no such socket", "Is the daemon running? --ready FILE, --url or --socket name another one."},
        {ENOTDIR, "there is no such socket", "Is the daemon running? --ready FILE, --url or --socket name another one."},
        {ECONNREFUSED, "nobody listens there any more", "Is the daemon running? `systemctl status quiesced` tells; --ready FILE, --url or --socket name another one."},
        {ENAMETOOLONG, "this path is too long for a socket", "--socket takes at most 107 letters."},
    };
    int errnum = socket_errno(path);
    for (size_t i = 0; i < ELEMENTS(causes); i++)
        if (causes[i].errnum == errnum)
            return err_set(err, VSS_E_UNEXPECTED, causes[i].hint, "%s: %s", path, causes[i].text);
    return err_set(err, VSS_E_UNEXPECTED, "Is the daemon running? --ready FILE, --url or --socket name another one.", "%s: %s", path, errnum ? strerror(errnum) : why);
}

/* Where it was, and what to do: each cause has its own cure. */
static int unreached(const struct client *client, CURLcode code, const char *url, struct err *err)
{
    const char *why = client->words[0] ? client->words : curl_easy_strerror(code), *path = json_str(client->target, "socket", NULL);
    if (path && code == CURLE_COULDNT_CONNECT)
        return no_socket(path, "nobody was met there", err);
    if (path)
        return err_set(err, VSS_E_UNEXPECTED, "Is the daemon running? --ready FILE, --url or --socket name another one.", "%s: %s", path, why);
    if (code == CURLE_PEER_FAILED_VERIFICATION)
        return err_set(err, VSS_E_UNEXPECTED, "Name the CA that has issued its certificate: --ca FILE (the daemon's own is pki/ca.pem in its state directory, and what it serves at /ca.pem).", "%s: %s", url, why);
    if (code == CURLE_UNSUPPORTED_PROTOCOL)
        return err_set(err, VSS_E_UNEXPECTED, "The API is https alone.", "%s: %s", url, why);
    return err_set(err, VSS_E_UNEXPECTED, "Is the daemon running, and is this its address?", "%s: %s", url, why);
}

static int perform(struct client *client, const char *method, const char *path, const char *body, struct transfer *transfer, struct err *err)
{
    AUTO_FREE char *url = str_new("%s%s", client->url, path);
    CLEANUP(slist_cleanup) struct curl_slist *headers = curl_slist_append(NULL, "Content-Type: application/json");
    transfer->curl = client->curl;
    transfer->text = mem_new(1);
    if (client->authorization)
        headers = curl_slist_append(headers, client->authorization);
    if (client->header)
        headers = curl_slist_append(headers, client->header);
    curl_easy_setopt(client->curl, CURLOPT_URL, url);
    curl_easy_setopt(client->curl, CURLOPT_POSTFIELDS, body);
    curl_easy_setopt(client->curl, CURLOPT_POSTFIELDSIZE, body ? (long)strlen(body) : 0L);
    curl_easy_setopt(client->curl, CURLOPT_HTTPGET, 1L);
    if (body)
        curl_easy_setopt(client->curl, CURLOPT_POST, 1L);
    curl_easy_setopt(client->curl, CURLOPT_CUSTOMREQUEST, method);
    curl_easy_setopt(client->curl, CURLOPT_HTTPHEADER, headers);
    curl_easy_setopt(client->curl, CURLOPT_WRITEFUNCTION, on_data);
    curl_easy_setopt(client->curl, CURLOPT_WRITEDATA, transfer);
    curl_easy_setopt(client->curl, CURLOPT_NOPROGRESS, 0L);
    curl_easy_setopt(client->curl, CURLOPT_XFERINFOFUNCTION, on_progress);
    curl_easy_setopt(client->curl, CURLOPT_XFERINFODATA, transfer);
    client->words[0] = '\0';
    CURLcode code = curl_easy_perform(client->curl);
    curl_easy_setopt(client->curl, CURLOPT_HTTPHEADER, NULL);
    if (code == CURLE_OK || (code == CURLE_WRITE_ERROR && transfer->take))
        return 0;
    return unreached(client, code, url, err);
}

/* What writers, names and errors say is other people's: no control character of theirs reaches a terminal. */
static void plain(json_t *value)
{
    const char *key;
    size_t i;
    json_t *inner;
    json_array_foreach(value, i, inner) plain(inner);
    json_object_foreach(value, key, inner) plain(inner);
    if (!json_is_string(value))
        return;
    AUTO_FREE char *text = str_dup(json_string_value(value));
    bool changed = false;
    for (unsigned char *c = (unsigned char *)text; *c; c++) {
        bool two = c[0] == 0xc2 && c[1] >= 0x80 && c[1] < 0xa0; /* U+0080 to U+009F */
        if (!two && *c >= 0x20 && *c != 0x7f)
            continue;
        if (two)
            c[1] = '?';
        *c = '?';
        changed = true;
    }
    if (changed)
        json_string_set(value, text);
}

static void take_reply(struct client *client, struct transfer *transfer, struct reply *ret)
{
    long status = 0;
    curl_easy_getinfo(client->curl, CURLINFO_RESPONSE_CODE, &status);
    *ret = (struct reply){.status = (int)status, .text = transfer->text, .body = json_loadb(transfer->text, transfer->size, 0, NULL)};
    if (client->for_people)
        plain(ret->body);
}

int client_call(struct client *client, const char *method, const char *path, const json_t *body, const volatile int *stop, struct reply *ret,
                struct err *err)
{
    AUTO_FREE char *text = body ? json_dumps(body, JSON_COMPACT) : NULL;
    struct transfer transfer = {.stop = stop};
    if (perform(client, method, path, text, &transfer, err) != 0) {
        free(transfer.text);
        return -1;
    }
    take_reply(client, &transfer, ret);
    ret->sent = body ? json_incref((json_t *)(uintptr_t)body) : NULL;
    return 0;
}

int client_stream(struct client *client, const char *path, const struct client_sink *sink, struct reply *ret, struct err *err)
{
    struct transfer transfer = {.stop = sink->stop, .take = sink->take, .arg = sink->arg};
    *ret = (struct reply){0};
    if (perform(client, "GET", path, NULL, &transfer, err) != 0) {
        free(transfer.text);
        return -1;
    }
    take_reply(client, &transfer, ret);
    return 0;
}

void reply_clear(struct reply *reply)
{
    json_decref(reply->body);
    json_decref(reply->sent);
    free(reply->text);
    *reply = (struct reply){0};
}

char *client_escape(const char *text)
{
    char *escaped = curl_easy_escape(NULL, text, 0);
    char *copy = str_dup(escaped ? escaped : "");
    curl_free(escaped);
    return copy;
}
