#include "cli/near.h"

#include <limits.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/str.h"
#include "cli/ctl.h"
#include "cli/options.h"

enum { LETTERS_MAX = 24, FAR = LETTERS_MAX, NEAR = 2 };

/* How many letters have to be put in, left out, changed, or exchanged with their neighbour (optimal string alignment). */
static int distance(const char *a, const char *b)
{
    int rows[LETTERS_MAX + 1][LETTERS_MAX + 1];
    size_t n = strlen(a), m = strlen(b);
    if (n > LETTERS_MAX || m > LETTERS_MAX)
        return FAR;
    for (size_t i = 0; i <= n; i++)
        for (size_t k = 0; k <= m; k++) {
            int best = (int)(i + k); /* of an empty word */
            if (i && k) {
                best = rows[i - 1][k - 1] + (a[i - 1] != b[k - 1]);
                best = rows[i - 1][k] + 1 < best ? rows[i - 1][k] + 1 : best;
                best = rows[i][k - 1] + 1 < best ? rows[i][k - 1] + 1 : best;
            }
            if (i > 1 && k > 1 && a[i - 1] == b[k - 2] && a[i - 2] == b[k - 1] && rows[i - 2][k - 2] + 1 < best)
                best = rows[i - 2][k - 2] + 1;
            rows[i][k] = best;
        }
    return rows[n][m];
}

bool command_is_group(const char *word)
{
    for (size_t t = 0; command_tables[t]; t++)
        for (size_t i = 0; i < command_tables[t]->n; i++)
            if (command_tables[t]->rows[i].name && str_eq(command_tables[t]->rows[i].group, word))
                return true;
    return false;
}

/* -1: the words are too far from it. A word that is right counts more than the order of the table. */
static int strangeness(const struct command *row, int argc, char **argv)
{
    enum { FIRST = 4, ALONE = 1, UNLIKE = 3 };
    int first = distance(argv[0], row->group), second = row->name && argc > 1 ? distance(argv[1], row->name) : 0;
    bool unlike = second > NEAR || (second && 2 * second >= (int)strlen(argv[1]));
    if (first > NEAR || 2 * first >= (int)strlen(argv[0]) || (first == 0 && (argc == 1 || unlike || !row->name)))
        return -1;
    return FIRST * first + (!row->name ? 0 : argc == 1 ? ALONE : unlike ? UNLIKE : second);
}

char *command_near(int argc, char **argv)
{
    const struct command *found = NULL;
    int least = INT_MAX;
    for (size_t t = 0; command_tables[t]; t++)
        for (size_t i = 0; i < command_tables[t]->n; i++) {
            int strange = strangeness(&command_tables[t]->rows[i], argc, argv);
            if (strange < 0 || strange >= least)
                continue;
            least = strange;
            found = &command_tables[t]->rows[i];
        }
    return found ? command_name(found) : NULL;
}
