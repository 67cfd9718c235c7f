/* What a problem's `type` points to: cause and cure of each code, for people with a browser as HTML, for programs as JSON. */
#include <stdlib.h>
#include <string.h>

#include "api/accept.h"
#include "api/handlers/handlers.h"
#include "api/reply.h"
#include "base/cleanup.h"
#include "base/hresult.h"
#include "base/str.h"

static const char *const html[] = {"text/html", NULL};

/* Who does not ask for a page by name gets JSON. */
static bool wants_page(const struct exchange *exchange)
{
    const char *accept = http_header(exchange->http, "Accept");

    return accept && strstr(accept, html[0]) && accept_allows(accept, html);
}

/* --- as HTML --- */

struct page {
    char *text;
    size_t used, room;
};

static void add(struct page *page, const char *text)
{
    size_t size = strlen(text);

    if (page->used + size + 1 > page->room) {
        page->room = 2 * (page->used + size + 1);
        page->text = mem_resize(page->text, page->room);
    }
    memcpy(page->text + page->used, text, size + 1);
    page->used += size;
}

static void add_escaped(struct page *page, const char *text)
{
    static const struct {
        char c;
        const char *entity;
    } entities[] = {{'&', "&amp;"}, {'<', "&lt;"}, {'>', "&gt;"}, {'"', "&quot;"}};

    for (; *text; text++) {
        const char one[] = {*text, '\0'}, *written = one;
        for (size_t i = 0; i < ELEMENTS(entities); i++)
            if (entities[i].c == *text)
                written = entities[i].entity;
        add(page, written);
    }
}

static void add_paragraph(struct page *page, const char *heading, const char *text)
{
    add(page, "<h2>");
    add(page, heading);
    add(page, "</h2><p>");
    add_escaped(page, text);
    add(page, "</p>\n");
}

static void send_page(struct exchange *exchange, const char *title, const struct page *body)
{
    AUTO_FREE char *text = str_new("<!doctype html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>%s - quiesced</title></head><body>\n%s</body></html>\n",
                                   title, body->text);

    reply_header(exchange, "Vary", "Accept");
    reply_header(exchange, "Content-Security-Policy", "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'");
    reply_text_copy(exchange, "text/html; charset=utf-8", text);
    exchange_send(exchange);
}

static void page_of(struct exchange *exchange, uint32_t hr)
{
    struct page page = {0};
    char hex[11];
    hresult_hex(hr, hex);
    AUTO_FREE char *facts = str_new("%s, HTTP status %d", hex, hresult_http(hr));

    add(&page, "<h1>");
    add(&page, hresult_name(hr));
    add(&page, "</h1><p>");
    add_escaped(&page, hresult_meaning(hr));
    add(&page, "</p>\n");
    add_paragraph(&page, "Cause", hresult_cause(hr));
    add_paragraph(&page, "Cure", hresult_cure(hr));
    add_paragraph(&page, "Code", facts);
    add(&page, "<p><a href=\"/problems\">All problems</a></p>\n");
    send_page(exchange, hresult_name(hr), &page);
    free(page.text);
}

static void page_of_all(struct exchange *exchange)
{
    struct page page = {0};

    add(&page, "<h1>Problems</h1>\n<ul>\n");
    for (size_t i = 0; i < hresult_count(); i++) {
        const char *name = hresult_name(hresult_at(i));
        AUTO_FREE char *link = str_new("<li><a href=\"/problems/%s\">%s</a> ", name, name);
        add(&page, link);
        add_escaped(&page, hresult_meaning(hresult_at(i)));
        add(&page, "</li>\n");
    }
    add(&page, "</ul>\n");
    send_page(exchange, "Problems", &page);
    free(page.text);
}

/* --- as JSON --- */

static json_t *view(uint32_t hr)
{
    char hex[11];
    AUTO_FREE char *type = str_new("/problems/%s", hresult_name(hr));

    hresult_hex(hr, hex);
    return json_pack("{s:s, s:s, s:s, s:i, s:s, s:s, s:s}", "type", type, "hresult", hresult_name(hr), "code", hex, "status",
                     hresult_http(hr), "title", hresult_meaning(hr), "cause", hresult_cause(hr), "cure", hresult_cure(hr));
}

static void send_json(struct exchange *exchange, json_t *body /* taken */)
{
    reply_header(exchange, "Vary", "Accept");
    reply_json(exchange, 200, body);
    json_decref(body);
    exchange_send(exchange);
}

/* --- the calls --- */

static void problem_get(struct exchange *exchange)
{
    const char *name = exchange->match.params[0];
    uint32_t hr;

    if (!hresult_by_name(name, &hr)) {
        AUTO_FREE char *text = str_new("problem %s: no such problem; GET /problems lists them", name);
        reply_not_found(exchange, text);
        exchange_send(exchange);
    } else if (wants_page(exchange)) {
        page_of(exchange, hr);
    } else {
        send_json(exchange, view(hr));
    }
}

static void problem_list(struct exchange *exchange)
{
    if (wants_page(exchange)) {
        page_of_all(exchange);
        return;
    }
    json_t *items = json_array();
    for (size_t i = 0; i < hresult_count(); i++)
        json_add(items, view(hresult_at(i)));
    send_json(exchange, json_pack("{s:o, s:n}", "items", items, "next_cursor"));
}

static const struct handler rows[] = {
    {"problemList", .own = problem_list},
    {"problemGet", .own = problem_get},
};
const struct handler_table handlers_problems = {rows, ELEMENTS(rows)};
