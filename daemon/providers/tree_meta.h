#pragma once
/* The metadata of one inode, carried from a source to its copy. Each returns 0 or an errno value. */
#include <stdbool.h>
#include <sys/stat.h>

/* Owner, extended attributes, mode and times, in the order that keeps set-user-ID bits, capabilities and ACL masks. */
int tree_meta_fd(int source_fd, int copy_fd, const struct statx *stat);
/* The same for what cannot be opened: symbolic links, sockets, FIFOs, devices; source_dir -1 leaves the attributes out.
 */
int tree_meta_at(int source_dir, int copy_dir, const char *name, const struct statx *stat);
