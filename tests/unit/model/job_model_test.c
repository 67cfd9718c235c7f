/* IVssAsync's states: terminal ones never change, a cancel that was accepted ends cancelled. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "base/hresult.h"
#include "model/job_model.h"

static void terminal_states_never_change(void **unused)
{
    (void)unused;
    for (int from = 0; from < JOB_STATE_COUNT; from++) {
        for (int to = 0; to < JOB_STATE_COUNT; to++) {
            if (job_state_terminal((enum job_state)from))
                assert_false(job_transition((enum job_state)from, (enum job_state)to));
        }
    }
}

static void a_cancelling_job_never_succeeds(void **unused)
{
    (void)unused;
    assert_false(job_transition(JOB_CANCELLING, JOB_SUCCEEDED));
    assert_true(job_transition(JOB_CANCELLING, JOB_CANCELLED));
    assert_false(job_transition(JOB_CANCELLING, JOB_RUNNING));
}

static void the_hresult_follows_the_state(void **unused)
{
    (void)unused;
    assert_int_equal(job_hresult(JOB_PENDING, 0), VSS_S_ASYNC_PENDING);
    assert_int_equal(job_hresult(JOB_RUNNING, 0), VSS_S_ASYNC_PENDING);
    assert_int_equal(job_hresult(JOB_CANCELLING, 0), VSS_S_ASYNC_PENDING);
    assert_int_equal(job_hresult(JOB_SUCCEEDED, 0), VSS_S_ASYNC_FINISHED);
    assert_int_equal(job_hresult(JOB_CANCELLED, 0), VSS_S_ASYNC_CANCELLED);
    assert_int_equal(job_hresult(JOB_FAILED, (uint32_t)VSS_E_UNEXPECTED_WRITER_ERROR), (uint32_t)VSS_E_UNEXPECTED_WRITER_ERROR);
}

static void names_go_both_ways(void **unused)
{
    (void)unused;
    for (int state = 0; state < JOB_STATE_COUNT; state++) {
        enum job_state back;
        assert_true(job_state_by_name(job_state_name((enum job_state)state), &back));
        assert_int_equal(back, state);
    }
    enum job_state untouched = JOB_FAILED;
    assert_false(job_state_by_name("finished", &untouched));
    assert_int_equal(untouched, JOB_FAILED);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(terminal_states_never_change),
        cmocka_unit_test(a_cancelling_job_never_succeeds),
        cmocka_unit_test(the_hresult_follows_the_state),
        cmocka_unit_test(names_go_both_ways),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
