#include "model/job_model.h"

#include "base/hresult.h"
#include "base/str.h"

struct job_row {
    const char *name;
    bool terminal;
    int hresult;      /* 0 = the operation's own */
    unsigned to;      /* bit set of the states that may follow */
};

#define TO(state) (1u << (state))

static const struct job_row rows[JOB_STATE_COUNT] = {
    [JOB_PENDING] = {"pending", false, VSS_S_ASYNC_PENDING,
                     TO(JOB_RUNNING) | TO(JOB_CANCELLING) | TO(JOB_SUCCEEDED) | TO(JOB_FAILED) | TO(JOB_CANCELLED)},
    [JOB_RUNNING] = {"running", false, VSS_S_ASYNC_PENDING, TO(JOB_CANCELLING) | TO(JOB_SUCCEEDED) | TO(JOB_FAILED)},
    /* A 202 to DELETE means that it ends cancelled, never succeeded (design, section 4); a crash makes it interrupted. */
    [JOB_CANCELLING] = {"cancelling", false, VSS_S_ASYNC_PENDING, TO(JOB_CANCELLED) | TO(JOB_FAILED)},
    [JOB_SUCCEEDED] = {"succeeded", true, VSS_S_ASYNC_FINISHED, 0},
    [JOB_FAILED] = {"failed", true, 0, 0},
    [JOB_CANCELLED] = {"cancelled", true, VSS_S_ASYNC_CANCELLED, 0},
};

const char *job_state_name(enum job_state state)
{
    return rows[state].name;
}

bool job_state_by_name(const char *name, enum job_state *ret_state)
{
    for (int i = 0; i < JOB_STATE_COUNT; i++) {
        if (str_eq(name, rows[i].name)) {
            *ret_state = (enum job_state)i;
            return true;
        }
    }
    return false;
}

bool job_state_terminal(enum job_state state)
{
    return rows[state].terminal;
}

bool job_transition(enum job_state from, enum job_state to)
{
    return (rows[from].to & TO(to)) != 0;
}

uint32_t job_hresult(enum job_state state, uint32_t failed_hr)
{
    return rows[state].hresult ? (uint32_t)rows[state].hresult : failed_hr;
}
