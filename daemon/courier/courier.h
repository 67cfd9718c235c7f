#pragma once
/* Carries deliveries of webhooks: an HTTP client and nothing else. Core says what to send, signed already, over the channel on
 * fd 3; each message has one answer. No secret, no store, no other descriptor: what receivers answer is parsed here alone. */
#include <curl/curl.h>
#include <jansson.h>
#include <stddef.h>
#include <stdint.h>

#include "base/loop.h"

enum {
    COURIER_ANSWER_MAX = 16 * 1024, /* bytes of a body; more are not read: the status has said everything */
    COURIER_CONNECT_MS = 10000,
    COURIER_ERROR_SIZE = 256,
};

/* libcurl's sockets and timers on our loop (multi.c). */
struct multi;
typedef void (*multi_done_fn)(void *arg, CURL *easy, CURLcode result);
struct multi *multi_new(struct loop *loop, multi_done_fn done, void *arg);
void multi_add(struct multi *multi, CURL *easy);
void multi_remove(struct multi *multi, CURL *easy);
void multi_free(struct multi *multi);

/* One delivery in hand (transfer.c). */
struct transfer;
struct transfer *transfer_new(const json_t *message); /* "deliver" of docs/architecture.md; it keeps a reference */
CURL *transfer_easy(const struct transfer *transfer); /* borrowed; its CURLOPT_PRIVATE is the transfer */
json_t *transfer_answer(const struct transfer *transfer, CURLcode result); /* "delivered"; new reference */
void transfer_free(struct transfer *transfer);
