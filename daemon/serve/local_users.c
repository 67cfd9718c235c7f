#include "serve/local_users.h"

#include <errno.h>
#include <grp.h>
#include <pthread.h>
#include <pwd.h>
#include <stdlib.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/jsonspec.h"
#include "base/str.h"
#include "serve/patience.h"

#define USER_KEY "user:"
#define GROUP_KEY "group:"

enum { BUFFER_FIRST = 1024, BUFFER_MAX = 1024 * 1024 }; /* a group brings its members along */

int64_t local_users_find(const char *key)
{
    bool group = str_starts(key, GROUP_KEY);
    const char *name = strchr(key, ':') + 1;
    int result = ERANGE;
    int64_t number = LOCAL_USERS_NOBODY;

    for (size_t size = BUFFER_FIRST; result == ERANGE && size <= BUFFER_MAX; size *= 4) {
        AUTO_FREE char *buffer = mem_new(size);
        struct passwd passwd, *user = NULL;
        struct group entry, *found = NULL;
        result = group ? getgrnam_r(name, &entry, buffer, size, &found) : getpwnam_r(name, &passwd, buffer, size, &user);
        number = user ? (int64_t)user->pw_uid : found ? (int64_t)found->gr_gid : LOCAL_USERS_NOBODY;
    }
    return result == 0 || number >= 0 || result == ENOENT || result == ESRCH ? number : LOCAL_USERS_UNKNOWN;
}

/* --- one round of questions; whoever comes last, the thread or who waits for it, frees --- */

struct question {
    char *key;
    bool answered;
    int64_t number;
};

struct round {
    pthread_mutex_t lock;
    pthread_cond_t ended;
    bool done, abandoned;
    local_users_find_fn find;
    size_t n;
    struct question questions[];
};

static char *key_of(const json_t *entry)
{
    const char *user = json_str(entry, "user", NULL), *group = json_str(entry, "group", NULL);

    return user ? str_new(USER_KEY "%s", user) : group ? str_new(GROUP_KEY "%s", group) : NULL;
}

static struct round *round_new(const json_t *principals, local_users_find_fn find)
{
    struct round *round = mem_new(sizeof(*round) + json_array_size(principals) * sizeof(round->questions[0]));
    size_t i;
    const json_t *entry;

    pthread_mutex_init(&round->lock, NULL);
    pthread_cond_init(&round->ended, NULL);
    round->find = find;
    json_array_foreach(principals, i, entry)
    {
        char *key = key_of(entry);
        if (key)
            round->questions[round->n++] = (struct question){.key = key};
    }
    return round;
}

static void round_free(struct round *round)
{
    for (size_t i = 0; i < round->n; i++)
        free(round->questions[i].key);
    pthread_cond_destroy(&round->ended);
    pthread_mutex_destroy(&round->lock);
    free(round);
}

static void *ask(void *arg)
{
    struct round *round = arg;
    bool abandoned = false;

    for (size_t i = 0; i < round->n && !abandoned; i++) {
        int64_t number = round->find(round->questions[i].key);
        pthread_mutex_lock(&round->lock);
        round->questions[i].number = number;
        round->questions[i].answered = number != LOCAL_USERS_UNKNOWN;
        abandoned = round->abandoned;
        pthread_mutex_unlock(&round->lock);
    }
    pthread_mutex_lock(&round->lock);
    round->done = true;
    abandoned = round->abandoned;
    pthread_cond_signal(&round->ended);
    pthread_mutex_unlock(&round->lock);
    if (abandoned)
        round_free(round);
    return NULL;
}

size_t local_users_look_up(json_t *known, const json_t *principals, local_users_find_fn find, int patience_ms)
{
    struct round *round = round_new(principals, find);
    size_t missing = round->n;

    if (round->n == 0 || !patience_start(ask, round)) {
        round_free(round);
        return missing;
    }
    pthread_mutex_lock(&round->lock);
    bool done = patience_wait(&round->ended, &round->lock, &round->done, patience_ms);
    for (size_t i = 0; i < round->n; i++) {
        if (!round->questions[i].answered)
            continue;
        json_put(known, round->questions[i].key, json_integer(round->questions[i].number));
        missing--;
    }
    round->abandoned = !done;
    pthread_mutex_unlock(&round->lock);
    if (done)
        round_free(round);
    return missing;
}

int64_t local_users_number(const json_t *known, const json_t *entry)
{
    AUTO_FREE char *key = key_of(entry);

    return key ? json_int(known, key, LOCAL_USERS_UNKNOWN) : LOCAL_USERS_UNKNOWN;
}
