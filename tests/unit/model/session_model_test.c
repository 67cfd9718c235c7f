/* Every operation against every state, as vss-model 2.3 and design section 4 have it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "base/cleanup.h"
#include "model/session_model.h"

enum { A = VERDICT_ALLOWED, I = VERDICT_IGNORED, B = VERDICT_BAD_STATE, P = VERDICT_IN_PROGRESS };

/* Written out again on purpose, as the reader would: columns initialized, identified, set_open, prepared, snapshotted,
 * snapshot_failed, completed, aborted. Facts: writers involved, gathered from identified on, backup state set, a snapshot needed. */
static const struct {
    enum session_operation operation;
    int verdict[8];
} backup_matrix[] = {
    {SESSION_OP_SET_CONTEXT, {A, B, B, B, B, B, B, B}},
    {SESSION_OP_WRITER_FILTER, {A, I, I, I, I, I, I, I}},
    {SESSION_OP_SET_BACKUP_STATE, {A, A, A, B, B, B, B, B}},
    {SESSION_OP_GATHER_METADATA, {A, B, B, B, B, B, B, B}},
    {SESSION_OP_ADD_COMPONENT, {B, A, A, B, B, B, B, B}},
    {SESSION_OP_SET_OPTIONS, {B, A, A, B, B, B, B, B}},
    {SESSION_OP_SET_SUCCEEDED, {B, B, B, B, A, B, B, B}},
    {SESSION_OP_START_SNAPSHOT_SET, {B, A, P, P, B, B, B, B}},
    {SESSION_OP_ADD_TO_SNAPSHOT_SET, {B, B, A, B, B, B, B, B}},
    {SESSION_OP_PREPARE, {B, B, A, B, B, B, B, B}},
    {SESSION_OP_SNAPSHOT, {B, B, B, A, B, B, B, B}},
    {SESSION_OP_COPY, {B, B, B, B, A, B, B, B}},
    {SESSION_OP_COMPLETE, {B, B, B, B, A, B, B, B}},
    {SESSION_OP_GATHER_STATUS, {B, A, A, A, A, A, A, A}},
    {SESSION_OP_SAVE_DOCUMENT, {B, B, B, A, A, A, A, A}},
    {SESSION_OP_ABORT, {A, A, A, A, A, A, I, I}},
    {SESSION_OP_SET_RESTORE_STATE, {B, B, B, B, B, B, B, B}},
    {SESSION_OP_SELECT, {B, B, B, B, B, B, B, B}},
    {SESSION_OP_SET_RESTORE_OPTIONS, {B, B, B, B, B, B, B, B}},
    {SESSION_OP_ADD_NEW_TARGET, {B, B, B, B, B, B, B, B}},
    {SESSION_OP_SET_RANGES_FILE, {B, B, B, B, B, B, B, B}},
    {SESSION_OP_PRE_RESTORE, {B, B, B, B, B, B, B, B}},
    {SESSION_OP_RESTORE_FILES, {B, B, B, B, B, B, B, B}},
    {SESSION_OP_SET_FILE_STATUS, {B, B, B, B, B, B, B, B}},
    {SESSION_OP_POST_RESTORE, {B, B, B, B, B, B, B, B}},
};
static const enum session_state backup_states[8] = {SESSION_INITIALIZED, SESSION_IDENTIFIED,      SESSION_SET_OPEN,  SESSION_PREPARED,
                                                    SESSION_SNAPSHOTTED, SESSION_SNAPSHOT_FAILED, SESSION_COMPLETED, SESSION_ABORTED};

static struct session_facts facts_in(enum session_state state)
{
    return (struct session_facts){.kind = SESSION_BACKUP, .state = state, .writers_involved = true, .gathered = state != SESSION_INITIALIZED,
                                  .backup_state_set = true, .snapshot_needed = true};
}

static void every_backup_operation_in_every_state_has_the_documented_verdict(void **unused)
{
    (void)unused;
    assert_int_equal(ELEMENTS(backup_matrix), SESSION_OP_COUNT);
    for (size_t row = 0; row < ELEMENTS(backup_matrix); row++) {
        for (size_t column = 0; column < 8; column++) {
            struct err err = {0};
            struct session_facts facts = facts_in(backup_states[column]);
            int verdict = (int)session_judge(backup_matrix[row].operation, &facts, &err);
            if (verdict != backup_matrix[row].verdict[column])
                fail_msg("%s in %s: verdict %d, expected %d", session_operation_name(backup_matrix[row].operation),
                         session_state_name(backup_states[column]), verdict, backup_matrix[row].verdict[column]);
            if (verdict == VERDICT_BAD_STATE) {
                assert_int_equal(err.hr, (uint32_t)VSS_E_BAD_STATE);
                assert_non_null(strstr(err.text, session_operation_name(backup_matrix[row].operation)));
            }
        }
    }
}

/* vss-model 2.4; columns initialized, identified, pre_restored, completed, aborted. */
static const struct {
    enum session_operation operation;
    int verdict[5];
} restore_matrix[] = {
    {SESSION_OP_SET_CONTEXT, {B, B, B, B, B}},
    {SESSION_OP_WRITER_FILTER, {A, I, I, I, I}},
    {SESSION_OP_SET_BACKUP_STATE, {B, B, B, B, B}},
    {SESSION_OP_GATHER_METADATA, {A, B, B, B, B}},
    {SESSION_OP_ADD_COMPONENT, {B, B, B, B, B}},
    {SESSION_OP_SET_OPTIONS, {B, B, B, B, B}},
    {SESSION_OP_SET_SUCCEEDED, {B, B, B, B, B}},
    {SESSION_OP_START_SNAPSHOT_SET, {B, B, B, B, B}},
    {SESSION_OP_ADD_TO_SNAPSHOT_SET, {B, B, B, B, B}},
    {SESSION_OP_PREPARE, {B, B, B, B, B}},
    {SESSION_OP_SNAPSHOT, {B, B, B, B, B}},
    {SESSION_OP_COPY, {B, B, B, B, B}},
    {SESSION_OP_COMPLETE, {B, B, B, B, B}},
    {SESSION_OP_GATHER_STATUS, {B, A, A, A, A}},
    {SESSION_OP_SAVE_DOCUMENT, {A, A, A, A, A}},
    {SESSION_OP_ABORT, {I, I, I, I, I}},
    {SESSION_OP_SET_RESTORE_STATE, {A, A, B, B, B}},
    {SESSION_OP_SELECT, {B, A, B, B, B}},
    {SESSION_OP_SET_RESTORE_OPTIONS, {A, A, B, B, B}},
    {SESSION_OP_ADD_NEW_TARGET, {A, A, B, B, B}},
    {SESSION_OP_SET_RANGES_FILE, {A, A, A, B, B}},
    {SESSION_OP_PRE_RESTORE, {B, A, B, B, B}},
    {SESSION_OP_RESTORE_FILES, {B, B, A, B, B}},
    {SESSION_OP_SET_FILE_STATUS, {B, B, A, B, B}},
    {SESSION_OP_POST_RESTORE, {B, B, A, B, B}},
};

static void every_restore_operation_in_every_state_has_the_documented_verdict(void **unused)
{
    (void)unused;
    static const enum session_state states[] = {SESSION_INITIALIZED, SESSION_IDENTIFIED, SESSION_PRE_RESTORED, SESSION_COMPLETED, SESSION_ABORTED};
    assert_int_equal(ELEMENTS(restore_matrix), SESSION_OP_COUNT);
    for (size_t row = 0; row < ELEMENTS(restore_matrix); row++) {
        for (size_t column = 0; column < ELEMENTS(states); column++) {
            struct err err = {0};
            struct session_facts facts = facts_in(states[column]);
            facts.kind = SESSION_RESTORE;
            int verdict = (int)session_judge(restore_matrix[row].operation, &facts, &err);
            if (verdict != restore_matrix[row].verdict[column])
                fail_msg("%s in %s: verdict %d, expected %d", session_operation_name(restore_matrix[row].operation),
                         session_state_name(states[column]), verdict, restore_matrix[row].verdict[column]);
        }
    }
}

static void a_pending_job_blocks_every_change_but_abort(void **unused)
{
    (void)unused;
    for (int operation = 0; operation < SESSION_OP_COUNT; operation++) {
        struct err err = {0};
        struct session_facts facts = facts_in(SESSION_SNAPSHOTTED);
        facts.pending_job = "0197-job";
        enum session_verdict verdict = session_judge((enum session_operation)operation, &facts, &err);
        bool passes = operation == SESSION_OP_ABORT || operation == SESSION_OP_SAVE_DOCUMENT;
        assert_int_equal(verdict, passes ? VERDICT_ALLOWED : VERDICT_BAD_STATE);
        if (!passes)
            assert_non_null(strstr(err.text, "0197-job"));
    }
}

static void contexts_without_writers_skip_to_the_set_and_refuse_writer_calls(void **unused)
{
    (void)unused;
    struct err err;
    struct session_facts facts = facts_in(SESSION_INITIALIZED);
    facts.writers_involved = false;
    assert_int_equal(session_judge(SESSION_OP_START_SNAPSHOT_SET, &facts, &err), VERDICT_ALLOWED);
    facts = facts_in(SESSION_SET_OPEN);
    facts.writers_involved = false;
    assert_int_equal(session_judge(SESSION_OP_SNAPSHOT, &facts, &err), VERDICT_ALLOWED);
    assert_int_equal(session_judge(SESSION_OP_PREPARE, &facts, &err), VERDICT_BAD_STATE);
    facts = facts_in(SESSION_SNAPSHOTTED);
    facts.writers_involved = false;
    assert_int_equal(session_judge(SESSION_OP_COMPLETE, &facts, &err), VERDICT_BAD_STATE);
    assert_int_equal(session_judge(SESSION_OP_GATHER_STATUS, &facts, &err), VERDICT_ALLOWED);
    facts.gathered = false;
    assert_int_equal(session_judge(SESSION_OP_GATHER_STATUS, &facts, &err), VERDICT_BAD_STATE);
}

static void complete_without_a_snapshot_is_allowed_only_when_nothing_needs_one(void **unused)
{
    (void)unused;
    struct err err;
    struct session_facts facts = facts_in(SESSION_PREPARED);
    assert_int_equal(session_judge(SESSION_OP_COMPLETE, &facts, &err), VERDICT_BAD_STATE);
    facts.snapshot_needed = false;
    assert_int_equal(session_judge(SESSION_OP_COMPLETE, &facts, &err), VERDICT_ALLOWED);
}

static void prepare_needs_the_backup_state_and_context_is_set_once(void **unused)
{
    (void)unused;
    struct err err;
    struct session_facts facts = facts_in(SESSION_SET_OPEN);
    facts.backup_state_set = false;
    assert_int_equal(session_judge(SESSION_OP_PREPARE, &facts, &err), VERDICT_BAD_STATE);
    facts = facts_in(SESSION_INITIALIZED);
    facts.context_set = true;
    assert_int_equal(session_judge(SESSION_OP_SET_CONTEXT, &facts, &err), VERDICT_BAD_STATE);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_backup_operation_in_every_state_has_the_documented_verdict),
        cmocka_unit_test(every_restore_operation_in_every_state_has_the_documented_verdict),
        cmocka_unit_test(a_pending_job_blocks_every_change_but_abort),
        cmocka_unit_test(contexts_without_writers_skip_to_the_set_and_refuse_writer_calls),
        cmocka_unit_test(complete_without_a_snapshot_is_allowed_only_when_nothing_needs_one),
        cmocka_unit_test(prepare_needs_the_backup_state_and_context_is_set_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
