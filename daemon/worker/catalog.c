/* What is done with repositories outside of a session: each is one verb of a mover child. */
#include "base/cleanup.h"
#include "base/jsonspec.h"
#include "base/str.h"
#include "worker/context.h"
#include "worker/mover_client.h"

static int run_verb(struct worker *worker, const char *verb, const json_t *args, json_t **ret_done, struct err *err)
{
    const json_t *repository = json_object_get(args, "repository");
    if (!json_is_object(repository))
        return err_set(err, VSS_E_UNEXPECTED, NULL, "%s: the repository is missing", verb);
    AUTO_JSON json_t *request = json_deep_copy(args);
    json_put(request, "verb", json_string(verb));
    json_put(request, "mover", json_string(json_str(repository, "mover", "archive")));
    worker_phase(worker, verb);
    return mover_client_run(worker, request, verb, ret_done, err);
}

static int run_into(struct worker *worker, const char *verb, const json_t *args, json_t *result, struct err *err)
{
    AUTO_JSON json_t *done = NULL;
    if (run_verb(worker, verb, args, &done, err) < 0)
        return -1;
    if (json_is_object(done))
        json_object_update(result, done);
    return 0;
}

int operation_restore(struct worker *worker, const json_t *args, json_t *result, struct err *err)
{
    AUTO_JSON json_t *confined = json_copy((json_t *)args);
    json_put(confined, "roots", worker_restore_roots(worker));
    if (run_into(worker, "restore", confined, result, err) < 0) {
        json_put(confined, "mover", json_string(json_str(json_object_get(args, "repository"), "mover", "archive")));
        mover_client_tidy(worker, confined);
        return -1;
    }
    if (wait_look(&worker->wait))
        return worker_stopped(worker, err);
    json_put(result, "target", json_string(json_str(args, "target", "")));
    return 0;
}

int operation_verify(struct worker *worker, const json_t *args, json_t *result, struct err *err)
{
    return run_into(worker, "verify", args, result, err);
}

/* Each backup by itself: one repository that is away must not keep the others from knowing. */
int operation_seal(struct worker *worker, const json_t *args, json_t *result, struct err *err)
{
    json_t *sealed = json_array(), *failed = json_array();
    size_t i;
    const json_t *backup;
    json_put(result, "sealed", sealed);
    json_put(result, "failed", failed);
    json_array_foreach (json_object_get(args, "backups"), i, backup) {
        AUTO_JSON json_t *done = NULL;
        struct err cause = {0};
        const char *id = json_str(backup, "backup_id", "");
        if (run_verb(worker, "seal", backup, &done, &cause) == 0)
            json_add(sealed, json_string(id));
        else if (wait_stopped(&worker->wait))
            return worker_stopped(worker, err);
        else
            json_add(failed, json_pack("{s:s, s:s, s:s}", "backup_id", id, "hresult", hresult_name(cause.hr), "reason",
                                       cause.text));
    }
    return 0;
}

/* No job that could be cancelled: a repository that does not answer must not keep its caller, and one of few places, for ever. */
int operation_list_backup_files(struct worker *worker, const json_t *args, json_t *result, struct err *err)
{
    AUTO_JSON json_t *request = json_copy((json_t *)args), *done = NULL;
    json_put(request, "verb", json_string("files"));
    json_put(request, "mover", json_string(json_str(json_object_get(args, "repository"), "mover", "archive")));
    if (mover_client_ask(worker, request, "files", &done, err) < 0)
        return -1;
    json_object_update(result, done);
    return 0;
}

int operation_remove_backup(struct worker *worker, const json_t *args, json_t *result, struct err *err)
{
    return run_into(worker, "remove", args, result, err);
}

int operation_open_repository(struct worker *worker, const json_t *args, json_t *result, struct err *err)
{
    return run_into(worker, "open", args, result, err);
}

int operation_scan(struct worker *worker, const json_t *args, json_t *result, struct err *err)
{
    AUTO_JSON json_t *done = NULL;
    if (run_verb(worker, "list", args, &done, err) < 0)
        return -1;
    json_t *items = json_is_array(done) ? done : json_object_get(done, "items");
    json_put(result, "items", json_is_array(items) ? json_incref(items) : json_array());
    return 0;
}
