#include "api/tally.h"

#include <stdlib.h>

#include "base/str.h"

enum { CLASSES = 6 }; /* of statuses, by their first digit */

struct tally {
    uint64_t (*counts)[CLASSES]; /* by index of the route; the last row is of no operation */
};

struct tally *tally_new(void)
{
    struct tally *tally = mem_new(sizeof(*tally));

    tally->counts = mem_new((api_n_routes + 1) * sizeof(*tally->counts));
    return tally;
}

void tally_free(struct tally *tally)
{
    if (!tally)
        return;
    free(tally->counts);
    free(tally);
}

void tally_count(struct tally *tally, const struct api_route *route, int status)
{
    int class = status / 100;

    if (class > 0 && class < CLASSES)
        tally->counts[route ? (size_t)(route - api_routes) : api_n_routes][class]++;
}

/* What never happened is left out: there are a hundred operations. */
void tally_write(const struct tally *tally, struct openmetrics *text)
{
    static const char *const classes[CLASSES] = {"", "1xx", "2xx", "3xx", "4xx", "5xx"};

    openmetrics_family(text, OPENMETRICS_COUNTER, "quiesced_http_requests", "Requests that were answered, by operation of the contract and class of the status.");
    for (size_t i = 0; i <= api_n_routes; i++)
        for (int class = 1; class < CLASSES; class ++) {
            const struct openmetrics_label labels[] = {{"operation", i < api_n_routes ? api_routes[i].operation_id : "none"},
                                                       {"status", classes[class]}};
            if (tally->counts[i][class] > 0)
                openmetrics_value(text, labels, 2, (double)tally->counts[i][class]);
        }
}
