/* Who is who on this machine, when the one who knows does not answer. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <grp.h>
#include <pthread.h>
#include <pwd.h>
#include <stdlib.h>

#include "base/cleanup.h"
#include "base/jsonspec.h"
#include "base/str.h"
#include "serve/local_users.h"

enum { PATIENCE_MS = 60000, SHORT_MS = 50 }; /* the first is a bound for hanging */

static const char named[] = "[{\"user\":\"quick\"},{\"certificate\":\"x\"},{\"group\":\"slow\"},{\"user\":\"slow\"}]";
static pthread_mutex_t gate = PTHREAD_MUTEX_INITIALIZER; /* held: "slow" is not answered */
static int64_t next;

static int64_t find(const char *key)
{
    if (str_eq(key, "user:quick"))
        return 7;
    pthread_mutex_lock(&gate);
    int64_t number = str_eq(key, "group:slow") ? next : LOCAL_USERS_NOBODY;
    pthread_mutex_unlock(&gate);
    return number;
}

static int64_t number_at(const json_t *known, const json_t *principals, size_t i)
{
    return local_users_number(known, json_array_get(principals, i));
}

static void what_was_known_counts_while_there_is_no_answer(void **state)
{
    AUTO_JSON json_t *principals = json_loads(named, 0, NULL), *known = json_object();
    (void)state;
    pthread_mutex_lock(&gate);
    next = 8;
    assert_int_equal(local_users_look_up(known, principals, find, SHORT_MS), 2);
    assert_int_equal(number_at(known, principals, 0), 7);
    assert_int_equal(number_at(known, principals, 2), LOCAL_USERS_UNKNOWN);
    pthread_mutex_unlock(&gate);
    assert_int_equal(local_users_look_up(known, principals, find, PATIENCE_MS), 0);
    assert_int_equal(number_at(known, principals, 2), 8);
    assert_int_equal(number_at(known, principals, 3), LOCAL_USERS_NOBODY);
    pthread_mutex_lock(&gate);
    next = 9;
    assert_int_equal(local_users_look_up(known, principals, find, SHORT_MS), 2);
    assert_int_equal(number_at(known, principals, 2), 8);
    pthread_mutex_unlock(&gate);
    assert_int_equal(local_users_look_up(known, principals, find, PATIENCE_MS), 0);
    assert_int_equal(number_at(known, principals, 2), 9);
}

static void this_machine_knows_its_users_and_groups(void **state)
{
    (void)state;
    const struct passwd *user = getpwnam("daemon");
    assert_non_null(user);
    assert_int_equal(local_users_find("user:daemon"), user->pw_uid);
    const struct group *group = getgrnam("daemon");
    assert_non_null(group);
    assert_int_equal(local_users_find("group:daemon"), group->gr_gid);
    assert_int_equal(local_users_find("user:no-such-user-here"), LOCAL_USERS_NOBODY);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_was_known_counts_while_there_is_no_answer),
        cmocka_unit_test(this_machine_knows_its_users_and_groups),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
