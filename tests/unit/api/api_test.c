/* Requests through the whole of api/ (core_main, libmicrohttpd, routes, checks, answers) with a fake engine. */
#include "tests/unit/api/client.h"

/* --- routes --- */

static void a_session_is_read_by_its_id(void **state)
{
    AUTO_ANSWER got = call("viewer", "GET", "/sessions/some%2Did", NULL);

    (void)state;
    assert_int_equal(got->status, 200);
    assert_string_equal(json_str(got->json, "call", ""), "session_get");
    assert_string_equal(json_str(got->json, "id", ""), "some-id");
    assert_string_equal(json_str(got->json, "principal", ""), "viewer");
    assert_string_equal(head_value(got, "Cache-Control"), "no-store");
    assert_string_equal(head_value(got, "X-Content-Type-Options"), "nosniff");
}

static void two_path_parameters_reach_the_engine(void **state)
{
    AUTO_ANSWER got = call("viewer", "GET", "/sessions/a/components/b", NULL);

    (void)state;
    assert_string_equal(json_str(got->json, "id", ""), "a");
    assert_string_equal(json_str(got->json, "sub_id", ""), "b");
}

static void odd_spellings_of_a_path_match_nothing(void **state)
{
    static const char *const targets[] = {"//sessions",
                                          "/sessions/",
                                          "/sessions//x",
                                          "/sessions/x/../y",
                                          "/sessions/..",
                                          "/sessions/%2e%2e",
                                          "/sessions/a%2Fb",
                                          "/sessions/a%00",
                                          "/sessions%00x",
                                          "/health/live%00x",
                                          "/sessions/%ff",
                                          "/sessions/%zz",
                                          "/sessions/%4",
                                          "/%73essions",
                                          "/Sessions",
                                          "/nowhere",
                                          "ftp://h/sessions",
                                          "https:///sessions",
                                          "https://user@h/sessions",
                                          "https://h/Sessions"};

    (void)state;
    for (size_t i = 0; i < ELEMENTS(targets); i++) {
        AUTO_ANSWER got = call("admin", "GET", targets[i], NULL);
        assert_problem(got, 404, "VSS_E_OBJECT_NOT_FOUND");
    }
}

static void another_method_is_405_and_names_those_allowed(void **state)
{
    AUTO_ANSWER got = call("admin", "DELETE", "/sessions", NULL);
    AUTO_ANSWER odd = call("admin", "BREW", "/jobs/x", NULL);

    (void)state;
    assert_problem(got, 405, "E_NOTIMPL");
    assert_string_equal(head_value(got, "Allow"), "GET, HEAD, POST, OPTIONS");
    assert_problem(odd, 405, "E_NOTIMPL");
    assert_string_equal(head_value(odd, "Allow"), "GET, HEAD, DELETE, OPTIONS");
}

static void options_answers_with_the_methods_allowed(void **state)
{
    AUTO_ANSWER got = call("viewer", "OPTIONS", "/sessions/x", NULL);

    (void)state;
    assert_int_equal(got->status, 204);
    assert_string_equal(head_value(got, "Allow"), "GET, HEAD, DELETE, OPTIONS");
}

static void head_is_get_without_the_body(void **state)
{
    AUTO_FD int fd = connect_plain();

    (void)state;
    send_request(fd, "HEAD /version HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer secret-viewer\r\n\r\n");
    AUTO_ANSWER head = read_answer(fd, true);
    assert_int_equal(head->status, 200);
    assert_true(strtoul(head_value(head, "Content-Length"), NULL, 10) > 0);
    send_request(fd, "GET /version HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer secret-viewer\r\n\r\n");
    AUTO_ANSWER next = read_answer(fd, false); /* the next reply follows at once: no body was sent */
    assert_string_equal(json_str(next->json, "name", ""), "quiesced");
}

/* --- who calls --- */

static void nobody_is_told_anything_without_authentication(void **state)
{
    static const char *const targets[] = {"/sessions", "/nowhere", "/openapi.yaml", "/health/ready", "/sessions/x"};

    (void)state;
    for (size_t i = 0; i < ELEMENTS(targets); i++) {
        AUTO_ANSWER got = call("wrong", "GET", targets[i], NULL);
        assert_problem(got, 401, "E_ACCESSDENIED");
        assert_true(str_starts(head_value(got, "WWW-Authenticate"), "Bearer"));
    }
}

static void liveness_and_the_ca_are_public(void **state)
{
    AUTO_ANSWER live = call("wrong", "GET", "/health/live", NULL);
    AUTO_ANSWER ca = call("wrong", "GET", "/ca.pem", NULL);

    (void)state;
    assert_int_equal(live->status, 200);
    assert_int_equal(ca->status, 200);
    assert_true(str_starts(ca->body, "-----BEGIN"));
}

static struct answer *whoami_with(const struct preface *preface, const char *more)
{
    AUTO_FD int fd = connect_with(preface);

    send_request(fd, "GET /whoami HTTP/1.1\r\nHost: h\r\n%s\r\n", more);
    return read_answer(fd, false);
}

static void a_certificate_of_our_ca_is_known_by_its_name(void **state)
{
    struct preface preface = plain_preface();

    (void)state;
    preface.has_certificate = preface.issued_by_us = 1;
    str_copy(preface.names[1], PREFACE_NAME_SIZE, "URI:urn:quiesced:principal:admin");
    AUTO_ANSWER got = whoami_with(&preface, "");
    assert_int_equal(got->status, 200);
    assert_string_equal(json_str(got->json, "principal", ""), "admin");
    assert_string_equal(json_str(got->json, "authentication", ""), "certificate");
    AUTO_ANSWER token = whoami_with(&preface, "Authorization: Bearer wrong\r\n");
    assert_problem(token, 401, "E_ACCESSDENIED");
}

static void a_certificate_of_another_ca_cannot_be_admin_by_name(void **state)
{
    struct preface preface = plain_preface();

    (void)state;
    preface.has_certificate = 1;
    str_copy(preface.names[0], PREFACE_NAME_SIZE, "URI:urn:quiesced:principal:admin");
    str_copy(preface.names[1], PREFACE_NAME_SIZE, "DNS:admin");
    str_copy(preface.common_name, PREFACE_NAME_SIZE, "admin");
    AUTO_ANSWER got = whoami_with(&preface, "");
    assert_problem(got, 401, "E_ACCESSDENIED");
}

static void a_configured_name_is_known_from_a_certificate_of_the_client_ca(void **state)
{
    struct preface preface = plain_preface();

    (void)state;
    preface.has_certificate = 1;
    str_copy(preface.names[0], PREFACE_NAME_SIZE, "DNS:console.example.org");
    AUTO_ANSWER got = whoami_with(&preface, "");
    assert_string_equal(json_str(got->json, "principal", ""), "console");
    assert_string_equal(json_str(got->json, "role", ""), "operator");
    preface.issued_by_us = 1; /* our CA gives no such names */
    AUTO_ANSWER other = whoami_with(&preface, "");
    assert_problem(other, 401, "E_ACCESSDENIED");
}

static void a_role_opens_what_it_includes_and_no_more(void **state)
{
    static const struct {
        const char *who, *method, *target, *body;
        int status;
    } rows[] = {
        {"viewer", "POST", "/sessions", "{}", 403},
        {"operator", "POST", "/sessions", "{}", 201},
        {"restorer", "POST", "/sessions", "{}", 201},
        {"restorer", "POST", "/sessions/1/prepare", "{}", 403},
        {"restorer", "POST", "/backups/1/restore", "{\"target\":\"/srv/x\"}", 200},
        {"operator", "POST", "/backups/1/restore", "{\"target\":\"/srv/x\"}", 403},
        {"operator", "DELETE", "/repositories/main", NULL, 403},
        {"admin", "DELETE", "/repositories/main", NULL, 200},
        {"restorer", "GET", "/backups", NULL, 200},
        {"viewer", "POST", "/sessions", "{\"kind\":1}", 400},
    };

    (void)state;
    for (size_t i = 0; i < ELEMENTS(rows); i++) {
        AUTO_ANSWER got = call(rows[i].who, rows[i].method, rows[i].target, rows[i].body);
        assert_int_equal(got->status, rows[i].status);
    }
}

static void new_principals_are_in_force_after_a_reload(void **state)
{
    AUTO_JSON json_t *msg = start_message("reload");

    (void)state;
    json_add(json_object_get(msg, "principals"), token_principal("late", "viewer"));
    assert_int_equal(ipc_send(the_core.control, msg, NULL, 0, NULL), 0);
    control_expect("ready");
    AUTO_ANSWER got = call("late", "GET", "/whoami", NULL);
    assert_string_equal(json_str(got->json, "principal", ""), "late");
}

/* --- arguments --- */

static void a_wrong_member_is_named_by_its_pointer(void **state)
{
    static const struct {
        const char *target, *body, *pointer;
    } rows[] = {
        {"/sessions", "{\"lease_seconds\":4}", "/lease_seconds"},
        {"/sessions", "{\"surprise\":1}", "/surprise"},
        {"/sessions/1/complete", "{\"force\":true}", "/force"},
        {"/sessions/1/components", "{\"instance_id\":\"x\"}", "/name"},
        {"/sessions/1/snapshot-set/volumes", "{\"path\":\"relative\"}", "/path"},
        {"/backups",
         "{\"repository\":\"r\",\"components\":[{\"writer\":\"w\",\"name\":\"n\"},{\"writer\":\"w\",\"name\":7}]}",
         "/components/1/name"},
        {"/sessions", "[]", ""},
        {"/sessions", "{\"label\":\"a\",\"label\":\"b\"}", NULL},
        {"/sessions", "{\"label\":", NULL},
        {"/sessions", "{} {}", NULL},
        {"/sessions/1/copy", "", ""},
    };

    (void)state;
    for (size_t i = 0; i < ELEMENTS(rows); i++) {
        AUTO_ANSWER got = call("admin", "POST", rows[i].target, rows[i].body);
        assert_problem(got, 400, "E_INVALIDARG");
        if (rows[i].pointer)
            assert_string_equal(only_fault(got), rows[i].pointer);
    }
}

static void every_fault_is_reported_at_once(void **state)
{
    AUTO_ANSWER got = call("admin", "POST", "/sessions?x=1", "{\"kind\":\"other\",\"lease_seconds\":\"long\"}");

    (void)state;
    assert_problem(got, 400, "E_INVALIDARG");
    assert_int_equal(json_array_size(json_object_get(got->json, "errors")), 3);
}

static void a_document_nested_too_deep_is_refused(void **state)
{
    char body[512] = "{\"kind\":\"restore\",\"document\":";
    size_t used = strlen(body);

    (void)state;
    for (int i = 0; i < 40; i++)
        used += (size_t)snprintf(body + used, sizeof(body) - used, "{\"a\":");
    used += (size_t)snprintf(body + used, sizeof(body) - used, "1");
    for (int i = 0; i < 41; i++)
        used += (size_t)snprintf(body + used, sizeof(body) - used, "}");
    AUTO_ANSWER got = call("admin", "POST", "/sessions", body);
    assert_problem(got, 400, "E_INVALIDARG");
}

static void an_empty_body_is_an_empty_object_where_no_argument_is_needed(void **state)
{
    AUTO_ANSWER got = call("admin", "POST", "/sessions/1/prepare", NULL);

    (void)state;
    assert_int_equal(got->status, 200);
    assert_true(json_is_object(json_object_get(got->json, "body")));
}

static void a_body_where_none_is_taken_is_refused(void **state)
{
    AUTO_ANSWER got = call("admin", "GET", "/sessions/1", "{}");

    (void)state;
    assert_problem(got, 400, "E_INVALIDARG");
}

static void query_parameters_are_checked_by_name_and_value(void **state)
{
    static const struct {
        const char *target, *pointer;
    } rows[] = {
        {"/sessions?limit=0", "?limit"},
        {"/sessions?limit=x", "?limit"},
        {"/sessions?limit=1&limit=2", "?limit"},
        {"/sessions?state=odd", "?state"},
        {"/sessions?colour=red", "?colour"},
        {"/sessions?sort=created_at", "?sort"},
        {"/sessions?sort=", "?sort"},
        {"/sessions?sort=id&sort=id", "?sort"},
        {"/tokens?sort=id", "?sort"},
        {"/jobs/1?wait=61", "?wait"},
        {"/jobs/1?wait=-1", "?wait"},
        {"/sessions?label=%ff", "?"},
        {"/sessions?label=a%00b", "?"},
        {"/sessions?limit", "?limit"},
        {"/sessions/1?validate_only=true", "?validate_only"},
    };

    (void)state;
    for (size_t i = 0; i < ELEMENTS(rows); i++) {
        AUTO_ANSWER got = call("admin", "GET", rows[i].target, NULL);
        assert_problem(got, 400, "E_INVALIDARG");
        assert_string_equal(only_fault(got), rows[i].pointer);
    }
}

/* Each page's cursor leads to the next one, with the same filters; the engine gets its own word for the place back. */
static void a_list_carries_the_link_to_its_next_page(void **state)
{
    static const char target[] = "/sessions?limit=2&label=a%20b+c";
    AUTO_ANSWER first = call("admin", "GET", target, NULL);
    const char *cursor = json_str(first->json, "next_cursor", "");
    AUTO_FREE char *next = str_new("%s&cursor=%s", target, cursor), *link = str_new("<%s>; rel=\"next\"", next);
    AUTO_FREE char *other = str_new("/sessions?limit=2&label=a&cursor=%s", cursor);

    (void)state;
    assert_int_equal(first->status, 200);
    assert_string_equal(head_value(first, "Link"), link);
    AUTO_ANSWER second = call("admin", "GET", next, NULL);
    assert_int_equal(second->status, 200);
    assert_string_equal(head_value(second, "Link"), link);
    const json_t *query = json_object_get(second->json, "query");
    assert_string_equal(json_str(query, "cursor", ""), "c2");
    assert_string_equal(json_str(query, "label", ""), "a b c");
    assert_int_equal(json_int(query, "limit", 0), 2);
    AUTO_ANSWER refused = call("admin", "GET", other, NULL);
    assert_problem(refused, 400, "E_INVALIDARG");
    assert_string_equal(only_fault(refused), "?cursor");
}

static void expect_page(const char *target, const char *cursor, bool taken)
{
    AUTO_FREE char *whole = str_new("%s&cursor=%s", target, cursor);
    AUTO_ANSWER got = call("admin", "GET", whole, NULL);

    if (taken) {
        assert_int_equal(got->status, 200);
        return;
    }
    assert_problem(got, 400, "E_INVALIDARG");
    assert_string_equal(only_fault(got), "?cursor");
}

/* The default said is the default unsaid; the other order has cursors of its own, and its Link leads on in that order. */
static void a_cursor_belongs_to_its_order(void **state)
{
    AUTO_ANSWER unsaid = call("admin", "GET", "/sessions?limit=2", NULL);
    AUTO_ANSWER said = call("admin", "GET", "/sessions?limit=2&sort=-id", NULL);
    AUTO_ANSWER other = call("admin", "GET", "/sessions?limit=2&sort=id", NULL);
    const char *newest = json_str(unsaid->json, "next_cursor", ""), *oldest = json_str(other->json, "next_cursor", "");
    AUTO_FREE char *link = str_new("</sessions?limit=2&sort=id&cursor=%s>; rel=\"next\"", oldest);

    (void)state;
    assert_string_equal(newest, json_str(said->json, "next_cursor", ""));
    assert_string_not_equal(newest, oldest);
    assert_string_equal(head_value(other, "Link"), link);
    expect_page("/sessions?limit=2", newest, true);
    expect_page("/sessions?sort=-id", newest, true);
    expect_page("/sessions?sort=id", newest, false);
    expect_page("/sessions?sort=id", oldest, true);
    expect_page("/sessions?limit=2", oldest, false);
    expect_page("/sessions?sort=-id", oldest, false);
}

static struct answer *post_as(const char *type, const char *method, const char *target)
{
    AUTO_FD int fd = connect_plain();

    send_request(fd, "%s %s HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer secret-admin\r\n%sContent-Length: 2\r\n\r\n{}",
                 method, target, type);
    return read_answer(fd, false);
}

static void a_body_that_is_not_declared_as_json_is_415(void **state)
{
    static const struct {
        const char *type, *method, *target;
        int status;
    } rows[] = {
        {"", "POST", "/sessions", 415},
        {"Content-Type: application/x-www-form-urlencoded\r\n", "POST", "/sessions", 415},
        {"Content-Type: application/jsonp\r\n", "POST", "/sessions", 415},
        {"Content-Type: application/json; charset=latin1\r\n", "POST", "/sessions", 415},
        {"Content-Type: application/json\r\nContent-Encoding: gzip\r\n", "POST", "/sessions", 415},
        {"Content-Type: application/merge-patch+json\r\n", "POST", "/sessions", 415},
        {"Content-Type: application/json; charset=utf-8\r\n", "POST", "/sessions", 201},
        {"Content-Type: Application/JSON \r\n", "POST", "/sessions", 201},
        {"Content-Type: application/merge-patch+json\r\n", "PATCH", "/sessions/1/components/2", 200},
        {"Content-Type: application/json\r\n", "PATCH", "/sessions/1/components/2", 200},
    };

    (void)state;
    for (size_t i = 0; i < ELEMENTS(rows); i++) {
        AUTO_ANSWER got = post_as(rows[i].type, rows[i].method, rows[i].target);
        assert_int_equal(got->status, rows[i].status);
    }
}

static void a_body_beyond_the_limit_is_413_before_it_is_read(void **state)
{
    AUTO_FD int fd = connect_plain();

    (void)state;
    send_request(
        fd,
        "POST /sessions HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer secret-admin\r\nContent-Type: application/json\r\n"
        "Content-Length: 99999999\r\n\r\n");
    AUTO_ANSWER got = read_answer(fd, false);
    assert_problem(got, 413, "E_INVALIDARG");
}

static void a_chunked_body_beyond_the_limit_is_413(void **state)
{
    AUTO_FD int fd = connect_plain();

    (void)state;
    send_request(fd,
                 "POST /sessions/1/complete HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer secret-admin\r\n"
                 "Content-Type: application/json\r\nTransfer-Encoding: chunked\r\n\r\n800\r\n%2048s\r\n0\r\n\r\n",
                 " ");
    AUTO_ANSWER got = read_answer(fd, false);
    assert_problem(got, 413, "E_INVALIDARG");
}

static void a_chunked_body_is_taken(void **state)
{
    AUTO_FD int fd = connect_plain();

    (void)state;
    send_request(
        fd,
        "POST /sessions HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer secret-admin\r\nContent-Type: application/json\r\n"
        "Transfer-Encoding: chunked\r\n\r\n9\r\n{\"label\":\r\n4\r\n\"x\"}\r\n0\r\n\r\n");
    AUTO_ANSWER got = read_answer(fd, false);
    assert_int_equal(got->status, 201);
    assert_string_equal(json_str(got->json, "label", ""), "x");
}

static void a_refused_body_of_ordinary_size_leaves_the_connection_usable(void **state)
{
    AUTO_FD int fd = connect_plain();

    (void)state;
    send_request(
        fd,
        "POST /nowhere HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer secret-admin\r\nContent-Length: 5\r\n\r\nabcde");
    AUTO_ANSWER refused = read_answer(fd, false);
    assert_problem(refused, 404, "VSS_E_OBJECT_NOT_FOUND");
    send_request(fd, "GET /health/live HTTP/1.1\r\nHost: h\r\n\r\n");
    AUTO_ANSWER next = read_answer(fd, false);
    assert_int_equal(next->status, 200);
}

/* --- answers --- */

static void a_request_id_is_taken_over_when_it_is_sane(void **state)
{
    static const struct {
        const char *sent;
        bool taken;
    } rows[] = {{"abc-123", true}, {"has space", false}, {"quote\"", false}, {"", false}};

    (void)state;
    for (size_t i = 0; i < ELEMENTS(rows); i++) {
        AUTO_FD int fd = connect_plain();
        send_request(fd, "GET /health/live HTTP/1.1\r\nHost: h\r\nX-Request-Id: %s\r\n\r\n", rows[i].sent);
        AUTO_ANSWER got = read_answer(fd, false);
        assert_int_equal(str_eq(head_value(got, "X-Request-Id"), rows[i].sent), rows[i].taken);
    }
}

static void a_created_resource_and_a_job_are_located(void **state)
{
    AUTO_ANSWER session = call("admin", "POST", "/sessions", "{}");
    AUTO_ANSWER job = call("admin", "POST", "/sessions/1/complete", NULL);
    AUTO_ANSWER released = call("admin", "POST", "/jobs/1/release", NULL);

    (void)state;
    assert_int_equal(session->status, 201);
    assert_string_equal(head_value(session, "Location"), "/sessions/1");
    assert_int_equal(job->status, 202);
    assert_string_equal(head_value(job, "Location"), "/jobs/1");
    assert_string_equal(head_value(job, "Retry-After"), "1");
    assert_int_equal(released->status, 204);
}

static void the_engines_refusals_become_problems(void **state)
{
    AUTO_ANSWER missing = call("admin", "GET", "/sessions/missing", NULL);
    AUTO_ANSWER busy = call("admin", "POST", "/sessions/busy/prepare", NULL);

    (void)state;
    assert_problem(missing, 404, "VSS_E_OBJECT_NOT_FOUND");
    assert_string_equal(json_str(missing->json, "hint", ""), "Look again.");
    assert_string_equal(json_str(missing->json, "instance", ""), "/sessions/missing");
    assert_problem(busy, 409, "VSS_E_BAD_STATE");
    assert_string_equal(json_str(busy->json, "code", ""), "0x80042301");
    assert_string_equal(json_str(busy->json, "session_state", ""), "prepared");
}

static void an_answer_may_come_later(void **state)
{
    AUTO_ANSWER got = call("admin", "GET", "/sessions/later", NULL);

    (void)state;
    assert_int_equal(got->status, 200);
    assert_string_equal(json_str(got->json, "call", ""), "later");
}

static void the_contract_is_served_as_it_is(void **state)
{
    AUTO_ANSWER yaml = call("viewer", "GET", "/openapi.yaml", NULL);
    AUTO_ANSWER json = call("viewer", "GET", "/openapi.json", NULL);

    (void)state;
    assert_true(str_starts(yaml->body, "openapi: 3.1"));
    assert_string_equal(json_str(json->json, "openapi", ""), "3.1.1");
}

static int later_count(const char *which)
{
    AUTO_ANSWER got = call("admin", "GET", "/health/ready", NULL);

    return (int)json_int(got->json, which, -1);
}

static void a_request_outlives_a_client_that_left(void **state)
{
    int begun = later_count("later_begun");
    int fd = connect_plain();

    (void)state;
    send_request(fd, "GET /sessions/later HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer secret-admin\r\n\r\n");
    while (later_count("later_begun") == begun)
        usleep(1000);
    close(fd);
    while (later_count("later_done") <= begun) /* its answer finds nobody, and harms nobody */
        usleep(1000);
    assert_int_equal(later_count("later_done"), begun + 1);
}

/* --- waiting --- */

static int wait_for(const char *job, const char *wait, const char *more)
{
    int fd = connect_plain();

    send_request(fd, "GET /jobs/%s%s HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer secret-viewer\r\n%s\r\n", job, wait,
                 more);
    return fd;
}

static int job_reads(const char *job)
{
    AUTO_FREE char *target = str_new("/jobs/%s", job);
    AUTO_ANSWER got = call("viewer", "GET", target, NULL);

    return (int)json_int(got->json, "reads", 0);
}

static void a_thousand_waiters_wake_with_one_reading_of_the_job(void **state)
{
    enum { WAITERS = 1000 };
    static int fds[WAITERS];

    (void)state;
    for (int i = 0; i < WAITERS; i++)
        fds[i] = wait_for("crowd", "?wait=60", "");
    int reads = 0, mine = 0;
    while ((reads = job_reads("crowd")) - ++mine < WAITERS) /* each has read once, then waits */
        usleep(1000);
    AUTO_ANSWER ended = call("admin", "DELETE", "/jobs/crowd", NULL);
    assert_int_equal(ended->status, 202);
    for (int i = 0; i < WAITERS; i++) {
        AUTO_ANSWER got = read_answer(fds[i], false);
        assert_int_equal(got->status, 200);
        assert_string_equal(json_str(got->json, "state", ""), "succeeded");
        assert_int_equal(json_int(got->json, "reads", 0), reads + 1);
        close(fds[i]);
    }
}

static void a_wait_that_ends_first_is_still_200(void **state)
{
    AUTO_FD int fd = wait_for("slow", "?wait=1", "");
    AUTO_ANSWER got = read_answer(fd, false);

    (void)state;
    assert_int_equal(got->status, 200);
    assert_string_equal(json_str(got->json, "state", ""), "running");
    assert_int_equal(json_int(got->json, "reads", 0), 2);
}

static void a_preference_is_applied_and_said_so(void **state)
{
    AUTO_FD int fd = wait_for("slow", "", "Prefer: respond-async, Wait = 1; x=y\r\n");
    AUTO_ANSWER got = read_answer(fd, false);
    AUTO_FD int zero = wait_for("slow", "?wait=0", "Prefer: wait=30\r\n");
    AUTO_ANSWER at_once = read_answer(zero, false);

    (void)state;
    assert_string_equal(head_value(got, "Preference-Applied"), "wait=1");
    assert_int_equal(at_once->status, 200);
    assert_null(head_value(at_once, "Preference-Applied"));
}

static void waiting_for_what_is_not_there_is_404_at_once(void **state)
{
    AUTO_FD int fd = wait_for("missing", "?wait=60", "");
    AUTO_ANSWER got = read_answer(fd, false);

    (void)state;
    assert_problem(got, 404, "VSS_E_OBJECT_NOT_FOUND");
}

static void a_waiter_whose_client_left_is_dropped(void **state)
{
    int fd = wait_for("left", "?wait=60", ""), mine = 0;

    (void)state;
    while (job_reads("left") - ++mine < 1)
        usleep(1000);
    close(fd);
    while (job_reads("left") - ++mine < 2) /* the wait is over: the job was read a second time for it */
        usleep(1000);
}

/* --- connections --- */

/* Sizes as front counts them: the head, and 64 bytes for each header. */
static void every_head_that_front_passes_is_served(void **state)
{
    static const char start[] = "GET /version HTTP/1.1\r\nHost: h\r\n", name[] = "X-Filler: ";
    const int fixed = (int)(strlen(start) + strlen(name) + strlen("\r\n\r\n")) + 2 * 64;

    (void)state;
    for (int size = 100; size <= HEAD_BYTES_MAX - fixed; size = size < 6000 ? size + 97 : size + 1) {
        AUTO_FD int fd = connect_plain();
        send_request(fd, "%s%s%0*d\r\n\r\n", start, name, size, 0);
        AUTO_ANSWER got = read_answer(fd, false);
        assert_problem(got, 401, "E_ACCESSDENIED"); /* the largest head of all refusals */
        send_request(fd, "GET /health/live HTTP/1.1\r\nHost: h\r\n\r\n");
        AUTO_ANSWER next = read_answer(fd, false);
        assert_int_equal(next->status, 200);
    }
}

/* Front would not have passed it: libmicrohttpd says by itself what it makes of it. */
static void a_head_that_libmicrohttpd_gives_up_harms_nobody_else(void **state)
{
    (void)state;
    for (int size = 7000; size < 20000; size += size < 8300 ? 7 : 97) {
        AUTO_FD int fd = connect_plain();
        send_request(fd, "GET /health/live HTTP/1.1\r\nHost: h\r\nX-Filler: %0*d\r\n\r\n", size, 0);
        char byte;
        assert_true(recv(fd, &byte, 1, 0) >= 0);
    }
    char cookies[4096] = "";
    for (int i = 0; i < 300; i++)
        str_format(cookies + strlen(cookies), sizeof(cookies) - strlen(cookies), "c%d=v; ", i);
    AUTO_FD int fd = connect_plain();
    send_request(fd, "GET /health/live HTTP/1.1\r\nHost: h\r\nCookie: %s\r\n\r\n", cookies);
    assert_true(recv(fd, cookies, 1, 0) >= 0);
    AUTO_ANSWER next = call("viewer", "GET", "/version", NULL);
    assert_int_equal(next->status, 200);
}

static void a_malformed_handover_is_dropped(void **state)
{
    struct preface preface = plain_preface();
    char byte;

    (void)state;
    preface.version = 99;
    AUTO_FD int fd = connect_with(&preface);
    struct pollfd poller = {fd, POLLIN, 0};
    assert_int_equal(poll(&poller, 1, PATIENCE_MS), 1);
    assert_int_equal(recv(fd, &byte, 1, 0), 0);
    AUTO_ANSWER got = call("viewer", "GET", "/version", NULL);
    assert_int_equal(got->status, 200);
}

static void draining_answers_who_waits_refuses_new_work_and_closes(void **state)
{
    AUTO_FD int idle = connect_plain();
    AUTO_FD int waiter = wait_for("drained", "?wait=60", "");
    int mine = 0;
    char byte;

    (void)state;
    send_request(idle, "GET /health/live HTTP/1.1\r\nHost: h\r\n\r\n");
    AUTO_ANSWER first = read_answer(idle, false);
    assert_int_equal(first->status, 200);
    while (job_reads("drained") - ++mine < 1)
        usleep(1000);
    control_send("drain", NULL, 0);
    AUTO_ANSWER woken = read_answer(waiter, false);
    assert_string_equal(json_str(woken->json, "state", ""), "running");
    assert_string_equal(head_value(woken, "Connection"), "close");
    control_expect("drained");
    assert_int_equal(recv(idle, &byte, 1, 0), 0);
    AUTO_ANSWER refused = call("admin", "POST", "/sessions", "{}");
    assert_problem(refused, 503, "VSS_E_WRITER_INFRASTRUCTURE");
    assert_non_null(head_value(refused, "Retry-After"));
    AUTO_ANSWER readiness = call("admin", "GET", "/health/ready", NULL);
    assert_int_equal(readiness->status, 503);
    AUTO_ANSWER read = call("admin", "GET", "/sessions/1", NULL);
    assert_int_equal(read->status, 200);
}

static void a_core_that_ends_drops_what_waits(void **state)
{
    (void)state;
    core_start(NULL);
    AUTO_FD int waiter = wait_for("dropped", "?wait=60", "");
    int mine = 0;
    while (job_reads("dropped") - ++mine < 1)
        usleep(1000);
    core_stop(NULL);
    AUTO_ANSWER nothing = read_answer(waiter, false);
    assert_int_equal(nothing->status, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_session_is_read_by_its_id),
        cmocka_unit_test(two_path_parameters_reach_the_engine),
        cmocka_unit_test(odd_spellings_of_a_path_match_nothing),
        cmocka_unit_test(another_method_is_405_and_names_those_allowed),
        cmocka_unit_test(options_answers_with_the_methods_allowed),
        cmocka_unit_test(head_is_get_without_the_body),
        cmocka_unit_test(nobody_is_told_anything_without_authentication),
        cmocka_unit_test(liveness_and_the_ca_are_public),
        cmocka_unit_test(a_certificate_of_our_ca_is_known_by_its_name),
        cmocka_unit_test(a_certificate_of_another_ca_cannot_be_admin_by_name),
        cmocka_unit_test(a_configured_name_is_known_from_a_certificate_of_the_client_ca),
        cmocka_unit_test(a_role_opens_what_it_includes_and_no_more),
        cmocka_unit_test(new_principals_are_in_force_after_a_reload),
        cmocka_unit_test(a_wrong_member_is_named_by_its_pointer),
        cmocka_unit_test(every_fault_is_reported_at_once),
        cmocka_unit_test(a_document_nested_too_deep_is_refused),
        cmocka_unit_test(an_empty_body_is_an_empty_object_where_no_argument_is_needed),
        cmocka_unit_test(a_body_where_none_is_taken_is_refused),
        cmocka_unit_test(query_parameters_are_checked_by_name_and_value),
        cmocka_unit_test(a_list_carries_the_link_to_its_next_page),
        cmocka_unit_test(a_cursor_belongs_to_its_order),
        cmocka_unit_test(a_body_that_is_not_declared_as_json_is_415),
        cmocka_unit_test(a_body_beyond_the_limit_is_413_before_it_is_read),
        cmocka_unit_test(a_chunked_body_beyond_the_limit_is_413),
        cmocka_unit_test(a_chunked_body_is_taken),
        cmocka_unit_test(a_refused_body_of_ordinary_size_leaves_the_connection_usable),
        cmocka_unit_test(a_request_id_is_taken_over_when_it_is_sane),
        cmocka_unit_test(a_created_resource_and_a_job_are_located),
        cmocka_unit_test(the_engines_refusals_become_problems),
        cmocka_unit_test(an_answer_may_come_later),
        cmocka_unit_test(the_contract_is_served_as_it_is),
        cmocka_unit_test(a_request_outlives_a_client_that_left),
        cmocka_unit_test(a_thousand_waiters_wake_with_one_reading_of_the_job),
        cmocka_unit_test(a_wait_that_ends_first_is_still_200),
        cmocka_unit_test(a_preference_is_applied_and_said_so),
        cmocka_unit_test(waiting_for_what_is_not_there_is_404_at_once),
        cmocka_unit_test(a_waiter_whose_client_left_is_dropped),
        cmocka_unit_test(every_head_that_front_passes_is_served),
        cmocka_unit_test(a_head_that_libmicrohttpd_gives_up_harms_nobody_else),
        cmocka_unit_test(a_malformed_handover_is_dropped),
        cmocka_unit_test(
            draining_answers_who_waits_refuses_new_work_and_closes), /* last but for those with a core of their own */
    };
    const struct CMUnitTest own_core[] = {
        cmocka_unit_test(a_core_that_ends_drops_what_waits),
    };
    return cmocka_run_group_tests(tests, core_start, core_stop) + cmocka_run_group_tests(own_core, NULL, NULL);
}
