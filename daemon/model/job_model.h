#pragma once
/* IVssAsync as a state machine (vss-model 3.2): terminal states never change. */
#include <stdbool.h>
#include <stdint.h>

enum job_state { JOB_PENDING, JOB_RUNNING, JOB_CANCELLING, JOB_SUCCEEDED, JOB_FAILED, JOB_CANCELLED, JOB_STATE_COUNT };

const char *job_state_name(enum job_state state);
bool job_state_by_name(const char *name, enum job_state *ret_state);
bool job_state_terminal(enum job_state state);
/* May a job go from one state to the other? The one rule that every compare-and-set asks. */
bool job_transition(enum job_state from, enum job_state to);
/* What IVssAsync::QueryStatus would say; failed_hr is the operation's own code (used when failed). */
uint32_t job_hresult(enum job_state state, uint32_t failed_hr);
