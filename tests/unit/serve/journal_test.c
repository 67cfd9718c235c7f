#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/log.h"
#include "base/str.h"
#include "serve/journal.h"

/* What the journal gets of a line. */
static const char *sent(const char *line)
{
    static char datagram[16384];
    int pair[2];
    assert_int_equal(socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, pair), 0);
    struct journal journal = {.fd = pair[0]};
    assert_true(journal_send(&journal, line, strlen(line)));
    ssize_t n = recv(pair[1], datagram, sizeof(datagram) - 1, MSG_DONTWAIT);
    assert_true(n > 0);
    datagram[n] = '\0';
    close(pair[0]);
    close(pair[1]);
    return datagram;
}

static void a_line_of_ours_has_its_fields(void **state)
{
    (void)state;
    assert_string_equal(sent("<3>core error\x1fsession=s1\x1fjob=j1\x1frequest=r1\x1ftrace=t1\x1fwriter=\"my \\\"one\\\"\"\x1f"
                             "code=VSS_E_UNEXPECTED\x1eit broke: x=1"),
                        "PRIORITY=3\nSYSLOG_IDENTIFIER=quiesced\nQUIESCED_ROLE=core\nSESSION_ID=s1\nJOB_ID=j1\nREQUEST_ID=r1\nTRACE_ID=t1\n"
                        "QUIESCED_WRITER=my \"one\"\nQUIESCED_CODE=VSS_E_UNEXPECTED\nMESSAGE=core: it broke: x=1\n");
    assert_string_equal(sent("<6>front info\x1eready"), "PRIORITY=6\nSYSLOG_IDENTIFIER=quiesced\nQUIESCED_ROLE=front\nMESSAGE=front: ready\n");
}

static void a_text_that_looks_like_a_field_is_none(void **state)
{
    (void)state;
    assert_string_equal(sent("<4>core warning\x1e""job=forged session=forged it says"),
                        "PRIORITY=4\nSYSLOG_IDENTIFIER=quiesced\nQUIESCED_ROLE=core\nMESSAGE=core: job=forged session=forged it says\n");
    assert_null(strstr(sent("<4>core warning\x1funknown=1\x1enothing"), "unknown"));
}

static void what_others_write_is_a_message(void **state)
{
    (void)state;
    assert_string_equal(sent("free(): invalid pointer"), "PRIORITY=6\nSYSLOG_IDENTIFIER=quiesced\nMESSAGE=free(): invalid pointer\n");
    assert_string_equal(sent("<2"), "PRIORITY=6\nSYSLOG_IDENTIFIER=quiesced\nMESSAGE=<2\n");
    assert_string_equal(sent("<2>short"), "PRIORITY=2\nSYSLOG_IDENTIFIER=quiesced\nMESSAGE=short\n");
}

static void the_longest_line_fits(void **state)
{
    (void)state;
    char line[LOG_BYTES_MAX + 1];
    memset(line, 'x', LOG_BYTES_MAX);
    line[LOG_BYTES_MAX] = '\0';
    memcpy(line, "<3>core error\x1fwriter=\"", strlen("<3>core error\x1fwriter=\""));
    line[2000] = '"';
    line[2001] = LOG_TEXT;
    const char *datagram = sent(line);
    assert_int_equal(datagram[strlen(datagram) - 1], '\n');
    assert_non_null(strstr(datagram, "\nMESSAGE=core: xxx"));
    assert_int_equal(strlen(strstr(datagram, "\nMESSAGE=core: ") + strlen("\nMESSAGE=core: ")), LOG_BYTES_MAX - 2002 + 1);
}

static void for_people_the_marks_are_spaces(void **state)
{
    (void)state;
    char line[] = "<3>core error\x1fsession=s1\x1eit broke";
    journal_plain(line, strlen(line));
    assert_string_equal(line, "<3>core error session=s1 it broke");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_line_of_ours_has_its_fields),  cmocka_unit_test(a_text_that_looks_like_a_field_is_none),
        cmocka_unit_test(what_others_write_is_a_message), cmocka_unit_test(the_longest_line_fits),
        cmocka_unit_test(for_people_the_marks_are_spaces),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
