#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/jsonspec.h"
#include "base/str.h"
#include "conf/conf.h"
#include "conf/listen.h"
#include "conf/yaml_load.h"

/* Reads YAML text through a file named "quiesced.yaml" in a directory of its own. */
static int read_config(const char *text, json_t **ret, json_t **ret_faults)
{
    char directory[] = "/tmp/conf-test-XXXXXX";

    assert_non_null(mkdtemp(directory));
    assert_int_equal(chdir(directory), 0);
    FILE *file = fopen("quiesced.yaml", "w");
    assert_non_null(file);
    assert_true(fputs(text, file) >= 0);
    assert_int_equal(fclose(file), 0);
    int result = conf_read("quiesced.yaml", ret, ret_faults);
    assert_int_equal(unlink("quiesced.yaml"), 0);
    assert_int_equal(chdir("/"), 0);
    assert_int_equal(rmdir(directory), 0);
    return result;
}

static void expect_faults(const char *text, const char *const *faults, size_t n)
{
    AUTO_JSON json_t *config = NULL;
    AUTO_JSON json_t *found = NULL;

    assert_int_equal(read_config(text, &config, &found), -1);
    for (size_t i = 0; i < json_array_size(found) && i < n; i++)
        assert_string_equal(json_string_value(json_array_get(found, i)), faults[i]);
    assert_int_equal(json_array_size(found), n);
}
#define EXPECT_FAULTS(text, ...)                                                                                       \
    do {                                                                                                               \
        const char *const expected_[] = {__VA_ARGS__};                                                                 \
        expect_faults((text), expected_, ELEMENTS(expected_));                                                         \
    } while (0)

static void an_empty_file_is_the_default(void **state)
{
    AUTO_JSON json_t *config = NULL;
    AUTO_JSON json_t *faults = NULL;
    AUTO_JSON json_t *defaults = conf_default();

    (void)state;
    assert_int_equal(read_config("# nothing\n", &config, &faults), 0);
    assert_true(json_equal(config, defaults));
    assert_int_equal(
        json_int(json_object_get(json_object_get(config, "limits"), "writer_seconds"), "prepare_backup", 0), 300);
}

static void the_default_passes_its_own_validator(void **state)
{
    AUTO_JSON json_t *defaults = conf_default();
    conf_place(defaults, "/var/lib/quiesced");
    AUTO_JSON json_t *faults = conf_faults(defaults, NULL, NULL);

    (void)state;
    assert_int_equal(json_array_size(faults), 0);
    assert_string_equal(json_str(json_object_get(json_object_get(defaults, "providers"), "copy"), "staging", ""),
                        "/var/lib/quiesced/staging");
}

static void the_design_example_is_accepted_and_keeps_what_it_says(void **state)
{
    AUTO_JSON json_t *config = NULL;
    AUTO_JSON json_t *faults = NULL;

    (void)state;
    assert_int_equal(
        read_config(
            "listen: [\"127.0.0.1:8877\"]\n"
            "tls: {certificate: /a, key: /b, client_ca: /c, hostnames: [backup1.example.org]}\n"
            "log: {file: /var/log/q}\n"
            "state_dir: /var/lib/quiesced\n"
            "writers:      [{name: recorder, type: exec, command: [/usr/lib/x/writer, --flag], user: nobody, "
            "environment: {K: v}},\n"
            "  {name: pg-main, type: postgresql, connection: \"host=/run/postgresql port=5432\", user: postgres},\n"
            "  {name: shop, type: mariadb, socket: /run/mysqld/mysqld.sock, user: mysql},\n"
            "  {name: cache, type: redis, host: 127.0.0.1, port: 6379},\n"
            "  {name: app, type: sqlite, databases: [/srv/app/app.db]}]\n"
            "providers:    {copy: {staging: /var/lib/quiesced/staging}}\n"
            "repositories: [{name: main, mover: archive, path: /srv/backups}, {name: off, mover: restic, url: "
            "\"rest:http://127.0.0.1:8000/\", password_file: /p}]\n"
            "restore: {roots: [/srv]}\n"
            "run_as: {front: quiesced-front, core: quiesced}\n"
            "limits:       {freeze_seconds: 30}\n",
            &config, &faults),
        0);
    assert_int_equal(json_int(json_object_get(config, "limits"), "freeze_seconds", 0), 30);
    assert_int_equal(json_int(json_object_get(config, "limits"), "lease_seconds", 0), 1800);
    assert_int_equal(json_array_size(json_object_get(config, "listen")), 1);
}

static void all_faults_come_at_once_with_lines_and_hints(void **state)
{
    (void)state;
    EXPECT_FAULTS("limits:\n"
                  "  freeze_secs: 60\n"
                  "  lease_seconds: soon\n"
                  "writers:\n"
                  "  - name: app\n"
                  "    type: sqlite\n"
                  "    databases: /srv/app.db\n"
                  "  - name: app\n"
                  "    type: mysql\n",
                  "quiesced.yaml:2: limits.freeze_secs: unknown member (did you mean \"freeze_seconds\"?)",
                  "quiesced.yaml:3: limits.lease_seconds: must be an integer from 5 to 86400",
                  "quiesced.yaml:7: writers[0].databases: must be an array (write a list: [a, b])",
                  "quiesced.yaml:9: writers[1].type: must be one of: exec, mariadb, postgresql, redis, sqlite",
                  "quiesced.yaml:8: writers[1].name: the name is taken by an entry above (names must be unique)");
}

static void rules_between_members_are_checked(void **state)
{
    (void)state;
    EXPECT_FAULTS(
        "tls: {certificate: /a}\n"
        "repositories: [{name: r, mover: restic, password_file: /p}]\n"
        "principals:\n"
        "- {name: a, role: viewer}\n"
        "run_as: {front: q, core: q}\n"
        "listen: ['localhost:80']\n"
        "writers: [{name: p, type: postgresql, connection: 'password=x'}, {name: e, type: exec, command: [ls]},\n"
        "  {name: m, type: mariadb, user: mysql}, {name: c, type: redis, socket: /s, host: h}]\n",
        "quiesced.yaml:6: listen[0]: localhost:80: not a listening address (Write ADDRESS:PORT with a numeric "
        "address, for example 0.0.0.0:8877 or [::1]:8877.)",
        "quiesced.yaml:1: tls.certificate: needs tls.key (give both, or neither to use the private CA)",
        "quiesced.yaml:7: writers[0].connection: must hold no password and be no URL (use keywords; secrets only "
        "by reference: passfile=/path, or peer authentication with user)",
        "quiesced.yaml:7: writers[1].command[0]: must be an absolute path (no shell and no PATH search is "
        "involved)",
        "quiesced.yaml:8: writers[2]: needs exactly one of socket and host (a server of this machine is best reached "
        "by its socket)",
        "quiesced.yaml:8: writers[3]: needs exactly one of socket and host (a server of this machine is best reached "
        "by its socket)",
        "quiesced.yaml:2: repositories[0]: needs exactly one of path, url and url_file (url: what follows restic's -r; url_file: a file "
        "that holds it)",
        "quiesced.yaml:4: principals[0]: needs exactly one of token_sha256, certificate, user and group",
        "quiesced.yaml:5: run_as.core: is the same user as run_as.front (each role needs a user of its own)");
    EXPECT_FAULTS("run_as: {front: a, core: b, courier: a}\n"
                  "webhooks:\n"
                  "  allow_private: [10.0.0.0/8, 'fd00::/8', 10.0.0.0/64, intranet]\n"
                  "  retry_seconds: [5, -1]\n",
                  "quiesced.yaml:4: webhooks.retry_seconds[1]: must be an integer from 0 to 604800",
                  "quiesced.yaml:1: run_as.courier: is the user of another role (each role needs a user of its own)",
                  "quiesced.yaml:3: webhooks.allow_private[2]: must be an address or a block of addresses (for example 10.0.0.0/8)",
                  "quiesced.yaml:3: webhooks.allow_private[3]: must be an address or a block of addresses (for example 10.0.0.0/8)");
}

static void what_yaml_allows_but_we_do_not_is_refused_with_its_line(void **state)
{
    (void)state;
    EXPECT_FAULTS("a: &x [1]\nb: *x\n",
                  "quiesced.yaml:1: anchors and aliases are not supported (Write the value out.)");
    EXPECT_FAULTS("log: {file: /x}\nlog: {file: /y}\n",
                  "quiesced.yaml:2: log: given twice, first on line 1 (Keep one of the two.)");
    EXPECT_FAULTS("limits: !!map {}\n", "quiesced.yaml:1: tags are not supported (Leave it out.)");
    EXPECT_FAULTS("log: {}\n---\nlog: {}\n", "quiesced.yaml:2: a second document (Use one file for each.)");
    EXPECT_FAULTS("log: {file: \"/a\\0b\"}\n", "quiesced.yaml:1: a NUL character in a value");
    EXPECT_FAULTS("- a\n", "quiesced.yaml:1: must be an object");
}

static void deep_nesting_and_broken_text_are_refused(void **state)
{
    AUTO_JSON json_t *config = NULL;
    AUTO_JSON json_t *faults = NULL;
    char deep[256] = "a: ";

    (void)state;
    memset(deep + 3, '[', 100);
    assert_int_equal(read_config(deep, &config, &faults), -1);
    assert_string_equal(json_string_value(json_array_get(faults, 0)), "quiesced.yaml:1: nested deeper than 32 levels");
    json_decref(faults);
    faults = NULL;
    assert_int_equal(read_config("a: \xff\xfe\n", &config, &faults), -1);
    assert_int_equal(json_array_size(faults), 1);
    json_decref(faults);
    faults = NULL;
    assert_int_equal(read_config("limits: {\n", &config, &faults), -1);
    assert_int_equal(json_array_size(faults), 1);
    json_decref(faults);
    faults = NULL;
    assert_int_equal(conf_read("/nonexistent/q.yaml", &config, &faults), -1);
    assert_non_null(strstr(json_string_value(json_array_get(faults, 0)), "No such file"));
}

static void plain_scalars_become_what_yaml_1_2_says(void **state)
{
    AUTO_JSON json_t *value = NULL;
    AUTO_JSON json_t *lines = NULL;
    struct err err;
    static const char text[] =
        "[1, -2, 0x10, 0o17, 1.5, 1e3, true, False, yes, '1', ~, 1.2.3, 99999999999999999999, .inf]";

    (void)state;
    assert_int_equal(yaml_load(text, strlen(text), "t", &value, &lines, &err), 0);
    AUTO_JSON json_t *expected = json_pack("[iiiiffbbssnsss]", 1, -2, 16, 15, 1.5, 1000.0, 1, 0, "yes", "1", "1.2.3",
                                           "99999999999999999999", ".inf");
    /* An integer too large for 64 bits is no integer; as a real it would lose digits, but it is a number all the same.
     */
    json_array_set_new(expected, 12, json_real(99999999999999999999.0));
    assert_true(json_equal(value, expected));
}

static void load_puts_all_faults_into_one_error(void **state)
{
    json_t *config = NULL;
    struct err err = {0};

    (void)state;
    assert_int_equal(conf_load("/nonexistent/q.yaml", &config, &err), -1);
    assert_int_equal(err.hr, (uint32_t)E_INVALIDARG);
    assert_non_null(strstr(err.text, "/nonexistent/q.yaml: No such file or directory"));
}

static void repositories_are_what_their_movers_can_be(void **state)
{
    (void)state;
    EXPECT_FAULTS(
        "repositories:\n"
        "- {name: a, mover: archive, path: /srv/a, encrypt: true}\n"
        "- {name: b, mover: borg, path: /srv/b, password_file: /p, limits: {bandwidth_bytes_per_second: 5000}}\n"
        "- {name: c, mover: borg, url: 'rest:http://h/', password_file: /p}\n"
        "- {name: d, mover: restic, url: 'rest:http://u:p@h/', password_file: /p}\n"
        "- {name: e, mover: archive, path: /srv/e, limits: {io_class: idle, io_priority: 2}}\n",
        "quiesced.yaml:2: repositories[0].encrypt: archives are not encrypted (use the mover restic or borg: they encrypt all that they "
        "store)",
        "quiesced.yaml:3: repositories[1].limits.bandwidth_bytes_per_second: needs a url (borg limits only what it sends elsewhere; for a "
        "disk of this host there is io_class)",
        "quiesced.yaml:4: repositories[2].url: must be ssh://[user@]host[:port]/path (a repository on this host is a path)",
        "quiesced.yaml:5: repositories[3].url: must hold no password (secrets only by reference: restic's url_file, or ssh keys)",
        "quiesced.yaml:6: repositories[4].limits.io_priority: means nothing with io_class idle (leave it out, or take best-effort)");
}

static void redaction_takes_secrets_out_and_leaves_the_rest(void **state)
{
    AUTO_JSON json_t *config =
        json_pack("{s[{ssssssss}],s[{ss s{ss}}],s[{ssss}]}", "repositories", "name", "off", "mover", "restic", "url",
                  "rest:http://u:secret1@host:8000/", "password_file", "/p", "writers", "name", "e", "environment", "K",
                  "secret2", "principals", "name", "n", "token_sha256", "secret3");
    assert_non_null(config);
    AUTO_JSON json_t *copy = conf_redacted(config);
    AUTO_FREE char *text = json_dumps(copy, 0);

    (void)state;
    assert_null(strstr(text, "secret"));
    assert_non_null(strstr(text, "@host:8000/"));
    assert_non_null(strstr(text, "\"password_file\": \"/p\""));
    assert_string_equal(
        json_str(json_object_get(json_array_get(json_object_get(config, "writers"), 0), "environment"), "K", ""),
        "secret2");
}

static void listening_addresses_are_read_and_written_back(void **state)
{
    static const char *const good[] = {"127.0.0.1:8877", "[::1]:0", "0.0.0.0:65535", "[::]:1"};
    static const char *const bad[] = {"",       ":80",   "127.0.0.1", "127.0.0.1:65536",
                                      "::1:80", "[::1]", "host:80",   "127.0.0.1:"};
    struct listen_address address;
    struct err err;
    char text[64];

    (void)state;
    for (size_t i = 0; i < ELEMENTS(good); i++) {
        assert_int_equal(listen_parse(good[i], &address, &err), 0);
        listen_format(&address.address, false, text);
        assert_string_equal(text, good[i]);
    }
    for (size_t i = 0; i < ELEMENTS(bad); i++)
        assert_int_equal(listen_parse(bad[i], &address, &err), -1);
    assert_int_equal(listen_parse("[::]:5", &address, &err), 0);
    listen_format(&address.address, true, text);
    assert_string_equal(text, "[::1]:5");
}

static void the_packaged_example_is_valid_with_and_without_its_comments(void **state)
{
    const char *source = getenv("QUIESCED_SOURCE");
    AUTO_FREE char *path = str_new("%s/packaging/quiesced.yaml", source ? source : ".");
    AUTO_JSON json_t *config = NULL;
    AUTO_JSON json_t *faults = NULL;
    char line[512];
    FILE *file = fopen(path, "r");
    AUTO_FREE char *text = mem_new(65536);

    (void)state;
    assert_non_null(file);
    assert_int_equal(conf_read(path, &config, &faults), 0);
    while (fgets(line, sizeof(line), file)) /* "#member" and "#  member" are examples, "# Text" is prose */
        if (line[0] == '#' && (line[1] != ' ' || line[2] == ' '))
            strcat(text, line + 1);
    fclose(file);
    json_decref(config);
    config = NULL;
    int result = read_config(text, &config, &faults);
    if (result != 0)
        print_error("%s\n", json_string_value(json_array_get(faults, 0)));
    assert_int_equal(result, 0);
    assert_int_equal(json_array_size(json_object_get(config, "writers")), 5);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_empty_file_is_the_default),
        cmocka_unit_test(the_default_passes_its_own_validator),
        cmocka_unit_test(the_design_example_is_accepted_and_keeps_what_it_says),
        cmocka_unit_test(all_faults_come_at_once_with_lines_and_hints),
        cmocka_unit_test(rules_between_members_are_checked),
        cmocka_unit_test(what_yaml_allows_but_we_do_not_is_refused_with_its_line),
        cmocka_unit_test(deep_nesting_and_broken_text_are_refused),
        cmocka_unit_test(plain_scalars_become_what_yaml_1_2_says),
        cmocka_unit_test(load_puts_all_faults_into_one_error),
        cmocka_unit_test(repositories_are_what_their_movers_can_be),
        cmocka_unit_test(redaction_takes_secrets_out_and_leaves_the_rest),
        cmocka_unit_test(listening_addresses_are_read_and_written_back),
        cmocka_unit_test(the_packaged_example_is_valid_with_and_without_its_comments),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
