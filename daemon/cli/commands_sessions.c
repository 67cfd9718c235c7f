/* quiescectl session …: the verbs of IVssBackupComponents, one row each. */
#include <stdio.h>
#include <string.h>

#include "base/cleanup.h"
#include "base/jsonspec.h"
#include "base/str.h"
#include "cli/answer.h"
#include "cli/watch.h"

/* "{}" of a path is the component, whose id is the word behind the session's; body: NAME=VALUE follow. */
static const struct verb {
    const char *name, *method, *path;
    bool body, job;
} verbs[] = {
    {"show", "GET", "", false, false},
    {"set-state", "PUT", "/backup-state", true, false},
    {"set-restore-state", "PUT", "/restore-state", true, false},
    {"set-context", "PUT", "/context", true, false},
    {"filter-writers", "PUT", "/writer-filter", true, false},
    {"metadata", "POST", "/metadata", false, true},
    {"writers", "GET", "/writers", false, false},
    {"components", "GET", "/components", false, false},
    {"add-component", "POST", "/components", true, false},
    {"show-component", "GET", "/components/{}", false, false},
    {"set-component", "PATCH", "/components/{}", true, false},
    {"add-subcomponent", "POST", "/components/{}/subcomponents", true, false},
    {"add-new-target", "POST", "/components/{}/new-targets", true, false},
    {"add-alternate-location", "POST", "/components/{}/alternate-locations", true, false},
    {"start-set", "POST", "/snapshot-set", true, false},
    {"add-volume", "POST", "/snapshot-set/volumes", true, false},
    {"add-set-components", "POST", "/snapshot-set/components", false, false},
    {"release-set", "POST", "/snapshot-set/release", true, false},
    {"prepare", "POST", "/prepare", false, true},
    {"snapshot", "POST", "/snapshot", false, true},
    {"copy", "POST", "/copy", true, true},
    {"complete", "POST", "/complete", false, true},
    {"status", "POST", "/status", false, true},
    {"writer-status", "GET", "/writer-status", false, false},
    {"pre-restore", "POST", "/pre-restore", false, true},
    {"restore-files", "POST", "/restore-files", true, true},
    {"post-restore", "POST", "/post-restore", false, true},
    {"document", "GET", "/document", false, false},
    {"renew", "POST", "/renew", false, false},
    {"abort", "POST", "/abort", false, false},
    {"release", "DELETE", "", false, true},
};

static int run_verb(struct ctl *ctl, const struct verb *verb, int argc, char **argv)
{
    const char *component = strstr(verb->path, "{}");
    int from = component ? 2 : 1;
    if (argc < from || (!verb->body && argc > from))
        return ctl_usage("session %s takes SESSION%s%s", verb->name, component ? " COMPONENT" : "", verb->body ? " NAME=VALUE…" : "");
    AUTO_JSON json_t *body = verb->body ? arguments_object(argc, argv, from) : NULL;
    if (verb->body && !body)
        return CTL_USAGE;
    AUTO_FREE char *session = client_escape(argv[0]), *id = client_escape(component ? argv[1] : "");
    AUTO_FREE char *path = component ? str_new("/sessions/%s%.*s%s%s", session, (int)(component - verb->path), verb->path, id, component + strlen("{}"))
                                     : str_new("/sessions/%s%s", session, verb->path);
    return verb->job ? watch_call(ctl, verb->method, path, body) : answer_call(ctl, verb->method, path, body, NULL);
}

/* argv[-1] is the verb's name. */
static int by_name(struct ctl *ctl, int argc, char **argv)
{
    for (size_t i = 0; i < ELEMENTS(verbs); i++)
        if (str_eq(verbs[i].name, argv[-1]))
            return run_verb(ctl, &verbs[i], argc, argv);
    return CTL_USAGE;
}

static int list(struct ctl *ctl, int argc, char **argv)
{
    static const char *const columns[] = {"id", "kind", "label", "state", "pending_job", "owner", "@created_at", NULL};
    AUTO_JSON json_t *filters = arguments_object(argc, argv, 0);
    return filters ? answer_list(ctl, "/sessions", filters, columns) : CTL_USAGE;
}

static int create(struct ctl *ctl, int argc, char **argv)
{
    AUTO_JSON json_t *body = arguments_object(argc, argv, 0);
    return body ? answer_call(ctl, "POST", "/sessions", body, NULL) : CTL_USAGE;
}

static const struct command rows[] = {
    {"session", "list", "[state=… kind=… label=… sort=…]", "sessions, newest first", list},
    {"session", "create", "kind=backup|restore [label=… …]", "InitializeForBackup, InitializeForRestore", create},
    {"session", "show", "SESSION", "one session", by_name},
    {"session", "set-state", "SESSION component_mode=true type=full …", "SetBackupState", by_name},
    {"session", "set-restore-state", "SESSION type=…", "SetRestoreState", by_name},
    {"session", "set-context", "SESSION context=… [attributes=[…]]", "SetContext", by_name},
    {"session", "filter-writers", "SESSION …", "EnableWriterClasses and its kin", by_name},
    {"session", "metadata", "SESSION", "GatherWriterMetadata", by_name},
    {"session", "writers", "SESSION", "what the writers offer", by_name},
    {"session", "components", "SESSION", "what is chosen", by_name},
    {"session", "add-component", "SESSION instance_id=… name=… …", "AddComponent", by_name},
    {"session", "show-component", "SESSION COMPONENT", "one of them", by_name},
    {"session", "set-component", "SESSION COMPONENT succeeded=true …", "SetBackupSucceeded and its kin", by_name},
    {"session", "add-subcomponent", "SESSION COMPONENT name=… [logical_path=…]", "AddRestoreSubcomponent", by_name},
    {"session", "add-new-target", "SESSION COMPONENT path=… new_path=… …", "AddNewTarget", by_name},
    {"session", "add-alternate-location", "SESSION COMPONENT path=… alternate_path=… …", "AddAlternativeLocationMapping", by_name},
    {"session", "start-set", "SESSION", "StartSnapshotSet", by_name},
    {"session", "add-volume", "SESSION path=… [provider=…]", "AddToSnapshotSet", by_name},
    {"session", "add-set-components", "SESSION", "AddComponent for all that the set holds", by_name},
    {"session", "prepare", "SESSION", "PrepareForBackup", by_name},
    {"session", "snapshot", "SESSION", "DoSnapshotSet: frozen and thawed in here", by_name},
    {"session", "release-set", "SESSION …", "the outside snapshot is taken: thaw (provider external)", by_name},
    {"session", "copy", "SESSION repository=…", "copy the snapshot into a repository", by_name},
    {"session", "complete", "SESSION", "BackupComplete", by_name},
    {"session", "status", "SESSION", "GatherWriterStatus", by_name},
    {"session", "writer-status", "SESSION", "GetWriterStatus", by_name},
    {"session", "pre-restore", "SESSION", "PreRestore", by_name},
    {"session", "restore-files", "SESSION [components=[…] backup_id=… …]", "the files, from the repository", by_name},
    {"session", "post-restore", "SESSION", "PostRestore", by_name},
    {"session", "document", "SESSION", "the Backup Components Document", by_name},
    {"session", "renew", "SESSION", "its lease", by_name},
    {"session", "abort", "SESSION", "AbortBackup", by_name},
    {"session", "release", "SESSION", "end and forget it", by_name},
};
const struct command_table commands_sessions = {rows, ELEMENTS(rows)};
