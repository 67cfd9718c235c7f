#include <arpa/inet.h>
#include <netinet/in.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#include "base/cleanup.h"
#include "base/clock.h"
#include "base/jsonspec.h"
#include "base/str.h"
#include "courier/courier.h"
#include "model/webhook_rules.h"

#define USER_AGENT "quiesced-webhook/1.0"

struct transfer {
    CURL *easy;
    json_t *message;
    struct curl_slist *headers;
    char error[CURL_ERROR_SIZE];
    char refused[COURIER_ERROR_SIZE]; /* why no address of the host was taken, or "" */
    size_t received;
    int64_t begun_ms;
};

/* --- what happens while it runs --- */

static void address_text(const struct sockaddr *address, char *ret, size_t size)
{
    char text[INET6_ADDRSTRLEN] = "an address of an unknown family";
    if (address->sa_family == AF_INET)
        inet_ntop(AF_INET, &((const struct sockaddr_in *)(const void *)address)->sin_addr, text, sizeof text);
    else if (address->sa_family == AF_INET6)
        inet_ntop(AF_INET6, &((const struct sockaddr_in6 *)(const void *)address)->sin6_addr, text, sizeof text);
    str_copy(ret, size, text);
}

/* Here the address is the one that is about to be connected to: no second look-up of the name can change it. */
static curl_socket_t open_socket(void *arg, curlsocktype purpose, struct curl_sockaddr *address)
{
    struct transfer *transfer = arg;
    char text[INET6_ADDRSTRLEN];
    if (purpose != CURLSOCKTYPE_IPCXN)
        return CURL_SOCKET_BAD;
    if (!webhook_address_allowed(&address->addr, json_object_get(transfer->message, "allow_private"))) {
        address_text(&address->addr, text, sizeof text);
        str_format(transfer->refused, sizeof transfer->refused,
                   "%s is not on the public internet, and webhooks.allow_private does not allow it", text);
        return CURL_SOCKET_BAD;
    }
    return socket(address->family, address->socktype | SOCK_CLOEXEC | SOCK_NONBLOCK, address->protocol);
}

/* Counted and thrown away. 0 ends the transfer. */
static size_t take_body(char *data, size_t size, size_t n, void *arg)
{
    struct transfer *transfer = arg;
    (void)data;
    transfer->received += size * n;
    return transfer->received > COURIER_ANSWER_MAX ? 0 : size * n;
}

/* --- making one --- */

static void set_request(struct transfer *transfer)
{
    const json_t *message = transfer->message, *body = json_object_get(message, "body");
    CURL *easy = transfer->easy;
    size_t i;
    const json_t *header;
    transfer->headers = curl_slist_append(NULL, "Expect:"); /* no waiting for 100 Continue */
    json_array_foreach(json_object_get(message, "headers"), i, header)
        transfer->headers = curl_slist_append(transfer->headers, json_string_value(header));
    curl_easy_setopt(easy, CURLOPT_URL, json_str(message, "url", ""));
    curl_easy_setopt(easy, CURLOPT_POST, 1L);
    curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)json_string_length(body));
    curl_easy_setopt(easy, CURLOPT_POSTFIELDS, json_string_value(body)); /* the message is ours until the end */
    curl_easy_setopt(easy, CURLOPT_HTTPHEADER, transfer->headers);
    curl_easy_setopt(easy, CURLOPT_USERAGENT, USER_AGENT);
}

static void set_bounds(struct transfer *transfer)
{
    const json_t *message = transfer->message;
    CURL *easy = transfer->easy;
    curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, json_bool(message, "allow_http", false) ? "http,https" : "https");
    curl_easy_setopt(easy, CURLOPT_FOLLOWLOCATION, 0L);
    curl_easy_setopt(easy, CURLOPT_PROXY, ""); /* none from the environment either */
    curl_easy_setopt(easy, CURLOPT_NOPROXY, "*");
    curl_easy_setopt(easy, CURLOPT_NETRC, (long)CURL_NETRC_IGNORED);
    curl_easy_setopt(easy, CURLOPT_HTTP_VERSION, (long)CURL_HTTP_VERSION_1_1);
    curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, (long)json_int(message, "timeout_ms", 15000));
    curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, (long)COURIER_CONNECT_MS);
    curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(easy, CURLOPT_QUICK_EXIT, 1L); /* a resolver that hangs is not waited for */
    curl_easy_setopt(easy, CURLOPT_FORBID_REUSE, 1L); /* each delivery has its address checked */
    curl_easy_setopt(easy, CURLOPT_FRESH_CONNECT, 1L);
    curl_easy_setopt(easy, CURLOPT_OPENSOCKETFUNCTION, open_socket);
    curl_easy_setopt(easy, CURLOPT_OPENSOCKETDATA, transfer);
    curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, take_body);
    curl_easy_setopt(easy, CURLOPT_WRITEDATA, transfer);
}

static void set_trust(struct transfer *transfer)
{
    const char *ca = json_str(transfer->message, "ca", NULL);
    CURL *easy = transfer->easy;
    curl_easy_setopt(easy, CURLOPT_SSL_VERIFYPEER, 1L);
    curl_easy_setopt(easy, CURLOPT_SSL_VERIFYHOST, 2L);
    curl_easy_setopt(easy, CURLOPT_SSLVERSION, (long)CURL_SSLVERSION_TLSv1_2);
    if (!ca)
        return; /* the system's authorities */
    struct curl_blob blob = {.data = (void *)(uintptr_t)ca, .len = strlen(ca), .flags = CURL_BLOB_NOCOPY};
    curl_easy_setopt(easy, CURLOPT_CAINFO, NULL);
    curl_easy_setopt(easy, CURLOPT_CAPATH, NULL);
    curl_easy_setopt(easy, CURLOPT_CAINFO_BLOB, &blob);
}

struct transfer *transfer_new(const json_t *message)
{
    struct transfer *transfer = mem_new(sizeof *transfer);
    transfer->message = json_incref((json_t *)(uintptr_t)message);
    transfer->begun_ms = clock_mono_ms();
    transfer->easy = curl_easy_init();
    if (!transfer->easy)
        abort(); /* out of memory */
    curl_easy_setopt(transfer->easy, CURLOPT_PRIVATE, transfer);
    curl_easy_setopt(transfer->easy, CURLOPT_ERRORBUFFER, transfer->error);
    set_request(transfer);
    set_bounds(transfer);
    set_trust(transfer);
    return transfer;
}

CURL *transfer_easy(const struct transfer *transfer)
{
    return transfer->easy;
}

/* The status decides as soon as it is there: what comes behind it, or does not, says nothing more. */
json_t *transfer_answer(const struct transfer *transfer, CURLcode result)
{
    long status = 0;
    curl_off_t retry_after = 0;
    curl_easy_getinfo(transfer->easy, CURLINFO_RESPONSE_CODE, &status);
    curl_easy_getinfo(transfer->easy, CURLINFO_RETRY_AFTER, &retry_after);
    if (status < 200 || status > 599)
        status = 0;
    const char *why = *transfer->refused ? transfer->refused : *transfer->error ? transfer->error : curl_easy_strerror(result);
    json_t *error = status ? json_null() : result == CURLE_OK ? json_string("no answer of HTTP") : json_text(why);
    return json_pack("{s:s, s:s, s:i, s:o, s:I, s:I}", "type", "delivered", "id", json_str(transfer->message, "id", ""), "status",
                     (int)status, "error", error, "retry_after", (json_int_t)retry_after, "duration_ms",
                     (json_int_t)(clock_mono_ms() - transfer->begun_ms));
}

void transfer_free(struct transfer *transfer)
{
    curl_easy_cleanup(transfer->easy);
    curl_slist_free_all(transfer->headers);
    json_decref(transfer->message);
    free(transfer);
}
