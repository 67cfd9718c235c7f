/* The rules: each finds plans that would hang or lie, and says the way out. */
#include <string.h>

#include "base/cleanup.h"
#include "base/hresult.h"
#include "base/jsonspec.h"
#include "base/str.h"
#include "model/planner_private.h"

enum severity { WARNING, REFUSAL };

struct rule;
struct work {
    const struct planner_input *input;
    struct planner_plan *plan;
    const struct rule *rule;
};

struct rule {
    const char *name;
    enum severity severity;
    uint32_t code; /* what AddToSnapshotSet and jobs answer when they are refused by it; S_OK: a warning */
    void (*test)(struct work *work); /* calls found once per fault */
    const char *hint;
};

static void found(struct work *work, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
static void found(struct work *work, const char *fmt, ...)
{
    AUTO_FREE char *detail = NULL;
    va_list args;
    va_start(args, fmt);
    int length = vasprintf(&detail, fmt, args);
    va_end(args);
    if (length < 0)
        abort();
    bool refusal = work->rule->severity == REFUSAL;
    json_t *entry = json_pack("{s:s, s:s, s:s}", "rule", work->rule->name, "detail", detail, "hint", work->rule->hint);
    if (refusal)
        json_put(entry, "hresult", json_string(hresult_name(work->rule->code)));
    json_add(refusal ? work->plan->refusals : work->plan->warnings, entry);
}

static const struct planner_volume *chosen(const struct work *work, size_t i)
{
    return planner_chosen(work->input, work->plan, i);
}

/* Does a need say that this path is to be carried: the path lies beneath it, and no exclusion leaves it out? */
static const struct planner_need *carried_by(const struct planner_input *input, const char *path)
{
    if (planner_listed(path, input->excludes, input->n_excludes))
        return NULL;
    for (size_t i = 0; i < input->n_needs; i++)
        if (path_beneath(path, input->needs[i].path))
            return &input->needs[i];
    return NULL;
}

static bool same_component(const struct planner_need *a, const struct planner_need *b)
{
    return a->component && str_eq(a->writer, b->writer) && str_eq(a->component, b->component);
}

static void rule_unsupported_file_system(struct work *work)
{
    static const struct {
        const char *type;
        bool by_copy; /* the copy provider may read it */
    } types[] = {{"proc", false},    {"sysfs", false},   {"devtmpfs", false}, {"devpts", false},     {"cgroup", false},
                 {"cgroup2", false}, {"debugfs", false}, {"tracefs", false},  {"securityfs", false}, {"tmpfs", true},
                 {"ramfs", true},    {"nfs", true},      {"nfs4", true},      {"cifs", true},        {"smb3", true},
                 {"ceph", true},     {"9p", true}};
    for (size_t v = 0; v < work->input->n_volumes; v++) {
        const struct planner_volume *volume = &work->input->volumes[v];
        if (!volume->provider) {
            found(work, "%s (%s): %s", volume->path, volume->fs_type,
                  volume->reason ? volume->reason : "no provider fits");
            continue;
        }
        for (size_t i = 0; i < ELEMENTS(types); i++)
            if (str_eq(types[i].type, volume->fs_type) && !(types[i].by_copy && str_eq(volume->provider, "copy")))
                found(work, "%s (%s): provider %s cannot snapshot this file system", volume->path, volume->fs_type,
                      volume->provider);
    }
}

/* Every pair of a volume that is frozen and one whose provider has to write, within the window, where that blocks. */
static void blocked_writes(struct work *work, enum planner_freeze freeze)
{
    for (size_t i = 0; i < work->plan->n_volumes; i++)
        for (size_t j = 0; j < work->plan->n_volumes; j++) {
            const struct planner_volume *a = chosen(work, i), *b = chosen(work, j);
            const char *writes = b->writes ? b->writes : freeze == PLANNER_FREEZE_FORBIDDEN ? b->superblock : NULL;
            if (a->freeze == PLANNER_FREEZE_WANTED && b->freeze == freeze && writes &&
                planner_blocked_by(work->input, writes, a->superblock))
                found(work, "%s (%s) would freeze the file system on which the snapshot of %s (%s) must be written",
                      a->path, a->provider, b->path, b->provider);
        }
}

static void rule_fifreeze(struct work *work)
{
    blocked_writes(work, PLANNER_FREEZE_FORBIDDEN);
}

static void rule_copy_onto_frozen(struct work *work)
{
    blocked_writes(work, PLANNER_FREEZE_NOT_NEEDED);
}

static void rule_same_superblock_twice(struct work *work)
{
    for (size_t i = 0; i < work->plan->n_volumes; i++)
        for (size_t j = 0; j < work->plan->n_volumes; j++) {
            const struct planner_volume *outer = chosen(work, i), *inner = chosen(work, j);
            if (i == j || !str_eq(outer->superblock, inner->superblock) || !path_beneath(inner->path, outer->path) ||
                planner_listed(inner->path, outer->nested, outer->n_nested))
                continue;
            if (str_eq(outer->path, inner->path) && i > j) /* said already */
                continue;
            found(work, "%s (%s) lies in %s (%s): its files would be captured twice, at two instants", inner->path,
                  inner->provider, outer->path, outer->provider);
        }
}

/* Are two volumes of the set captured at one instant: the same one, or all frozen together? */
static bool same_instant(const struct work *work, size_t a, size_t b)
{
    return a == b ||
           (chosen(work, a)->freeze == PLANNER_FREEZE_WANTED && chosen(work, b)->freeze == PLANNER_FREEZE_WANTED);
}

/* Reports a component once, at its first need that is not at the same instant as the ones before. */
static void split(struct work *work, enum planner_hold hold)
{
    const struct planner_input *input = work->input;
    for (size_t i = 0; i < input->n_needs; i++) {
        const struct planner_need *need = &input->needs[i];
        size_t first = i;
        bool reported = false, apart = false;
        if (need->hold != hold || !need->component || work->plan->need_choice[i] == SIZE_MAX)
            continue;
        for (size_t j = 0; j < i; j++)
            if (same_component(need, &input->needs[j]) && work->plan->need_choice[j] != SIZE_MAX) {
                first = first == i ? j : first;
                reported = reported || (j != first && !same_instant(work, work->plan->need_choice[j],
                                                                    work->plan->need_choice[first]));
            }
        apart = !same_instant(work, work->plan->need_choice[first], work->plan->need_choice[i]);
        const struct planner_volume *volume = chosen(work, work->plan->need_choice[i]);
        if (apart && !reported)
            found(work, "%s/%s has %s on %s and %s on %s, which no snapshot captures at one instant", need->writer,
                  need->component, input->needs[first].path, chosen(work, work->plan->need_choice[first])->path,
                  need->path, volume->path);
        else if (first == i && !volume->atomic)
            found(work, "%s/%s: provider %s copies %s file by file, not at one instant", need->writer, need->component,
                  volume->provider, volume->path);
    }
}

static void rule_split_database(struct work *work)
{
    split(work, PLANNER_HOLD_NONE);
}

static void rule_split_database_logged(struct work *work)
{
    split(work, PLANNER_HOLD_LOG);
}

static void rule_nested_missing(struct work *work)
{
    for (size_t i = 0; i < work->plan->n_volumes; i++) {
        const struct planner_volume *volume = chosen(work, i);
        for (size_t k = 0; k < volume->n_nested; k++) {
            const struct planner_need *need = carried_by(work->input, volume->nested[k]);
            bool covered = false;
            for (size_t j = 0; j < work->plan->n_volumes && !covered; j++)
                covered = j != i && (path_beneath(volume->nested[k], chosen(work, j)->path) &&
                                     !path_beneath(volume->path, chosen(work, j)->path));
            if (need && !covered)
                found(work, "%s is a volume of its own beneath %s and would be missing from %s", volume->nested[k],
                      need->path, volume->path);
        }
    }
}

static void rule_repository_beneath_source(struct work *work)
{
    for (size_t i = 0; i < work->input->n_repositories; i++) {
        const struct planner_need *need = carried_by(work->input, work->input->repositories[i]);
        if (need)
            found(work, "the repository %s lies beneath %s, which is to be backed up", work->input->repositories[i],
                  need->path);
    }
}

static void rule_own_files(struct work *work)
{
    for (size_t i = 0; i < work->input->n_own; i++) {
        const struct planner_need *need = carried_by(work->input, work->input->own[i]);
        if (need)
            found(work, "%s, the daemon's own directory, lies beneath %s", work->input->own[i], need->path);
    }
}

static void rule_own_store(struct work *work)
{
    if (work->plan->parked)
        found(work,
              "the daemon's own store or log lies on a file system that is frozen: from freeze to thaw, calls that "
              "need it wait");
}

static void rule_window(struct work *work)
{
    if (work->input->freeze_limit_ms > 0 && work->plan->budget_ms > work->input->freeze_limit_ms)
        found(work, "the snapshots are expected to take %lld ms, but writers are held for %lld ms at most",
              (long long)work->plan->budget_ms, (long long)work->input->freeze_limit_ms);
}

static const struct rule rules[] = {
    {"unsupported-file-system", REFUSAL, (uint32_t)VSS_E_VOLUME_NOT_SUPPORTED, rule_unsupported_file_system,
     "Leave the path out, or move the data to a file system that a provider supports."},
    {"fifreeze-with-btrfs-or-reflink", REFUSAL, (uint32_t)VSS_E_VOLUME_NOT_SUPPORTED_BY_PROVIDER, rule_fifreeze,
     "Use one kind of provider for all volumes of this file system: the snapshot would hang until the thaw."},
    {"copy-onto-frozen", REFUSAL, (uint32_t)VSS_E_VOLUME_NOT_SUPPORTED_BY_PROVIDER, rule_copy_onto_frozen,
     "Set providers.copy.staging to a directory on a file system that is not frozen, or back that path up by itself."},
    {"same-superblock-twice", REFUSAL, (uint32_t)VSS_E_VOLUME_NOT_SUPPORTED_BY_PROVIDER, rule_same_superblock_twice,
     "Use the same provider for both, or leave the inner path out: the outer snapshot holds it already."},
    {"split-database", REFUSAL, (uint32_t)VSS_E_VOLUME_NOT_SUPPORTED, rule_split_database,
     "Put data and log of the database on one volume with atomic snapshots, or use a writer that handles it."},
    {"split-database-logged", WARNING, S_OK, rule_split_database_logged,
     "The writer's log makes up for it: keep the log files that it adds together with the data."},
    {"nested-volume-missing", REFUSAL, (uint32_t)VSS_E_VOLUME_NOT_SUPPORTED, rule_nested_missing,
     "Add the nested volume to the backup, or exclude it by name."},
    {"repository-beneath-source", REFUSAL, (uint32_t)VSS_E_VOLUME_NOT_SUPPORTED, rule_repository_beneath_source,
     "Exclude the repository's path by name, or move the repository elsewhere."},
    {"own-files-beneath-source", WARNING, S_OK, rule_own_files,
     "Its files change while the backup runs; exclude it by name if they are not wanted."},
    {"own-store-frozen", WARNING, S_OK, rule_own_store,
     "Nothing is lost; put state_dir (and log.file) on another file system if clients must not wait."},
    {"window-over-budget", WARNING, S_OK, rule_window,
     "Raise limits.freeze_seconds, back up less at once, or use a file system with atomic snapshots."},
};

const char *const planner_rule_names[] = {"unsupported-file-system",  "fifreeze-with-btrfs-or-reflink",
                                          "copy-onto-frozen",         "same-superblock-twice",
                                          "split-database",           "split-database-logged",
                                          "nested-volume-missing",    "repository-beneath-source",
                                          "own-files-beneath-source", "own-store-frozen",
                                          "window-over-budget",       NULL};
_Static_assert(ELEMENTS(planner_rule_names) == ELEMENTS(rules) + 1, "every rule has its name in the list");

void planner_judge(const struct planner_input *input, struct planner_plan *plan)
{
    struct work work = {.input = input, .plan = plan};
    plan->refusals = json_array();
    plan->warnings = json_array();
    for (size_t i = 0; i < ELEMENTS(rules); i++) {
        work.rule = &rules[i];
        rules[i].test(&work);
    }
}
