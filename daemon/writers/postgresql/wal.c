#include "writers/postgresql/wal.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/cleanup.h"
#include "base/str.h"

bool wal_lsn_parse(const char *text, uint64_t *ret_lsn)
{
    unsigned high, low;
    char end;
    if (!text || strspn(text, "0123456789ABCDEFabcdef/") != strlen(text) ||
        sscanf(text, "%8X/%8X%c", &high, &low, &end) != 2)
        return false;
    *ret_lsn = (uint64_t)high << 32 | low;
    return true;
}

uint64_t wal_segment_of(uint64_t lsn, uint64_t segment_size)
{
    return lsn / segment_size;
}

uint64_t wal_segment_before(uint64_t lsn, uint64_t segment_size)
{
    return lsn ? (lsn - 1) / segment_size : 0;
}

char *wal_segment_name(uint32_t timeline, uint64_t segment, uint64_t segment_size, char ret[WAL_NAME_SIZE])
{
    uint64_t per_id = 0x100000000ULL / segment_size;
    snprintf(ret, WAL_NAME_SIZE, "%08X%08X%08X", timeline, (uint32_t)(segment / per_id), (uint32_t)(segment % per_id));
    return ret;
}

bool wal_label_timeline(const char *label, uint32_t *ret_timeline)
{
    const char *file = label ? strstr(label, "(file ") : NULL;
    return file && sscanf(file, "(file %8X", ret_timeline) == 1 && *ret_timeline > 0;
}

/* The long page header that begins a segment (PostgreSQL source, access/xlog_internal.h), in the machine's byte order.
 */
struct wal_header {
    uint16_t magic, info;
    uint32_t timeline;
    uint64_t page_address;
    uint32_t remaining, padding;
    uint64_t system_identifier;
    uint32_t segment_size, block_size;
};
_Static_assert(sizeof(struct wal_header) == 40, "XLogLongPageHeaderData");

static int copy_bytes(int from, int to, uint64_t size)
{
    enum { CHUNK = 256 * 1024 };
    AUTO_FREE char *buffer = mem_new(CHUNK);
    for (uint64_t done = 0; done < size;) {
        ssize_t got = read(from, buffer, CHUNK);
        if (got < 0 && errno == EINTR)
            continue;
        if (got <= 0) {
            errno = got < 0 ? errno : ENODATA;
            return -1;
        }
        for (ssize_t put = 0; put < got;) {
            ssize_t n = write(to, buffer + put, (size_t)(got - put));
            if (n < 0 && errno != EINTR)
                return -1;
            put += n > 0 ? n : 0;
        }
        done += (uint64_t)got;
    }
    return 0;
}

int wal_segment_copy(const struct wal_segment *segment, struct err *err)
{
    AUTO_FD int from = open(segment->from, O_RDONLY | O_CLOEXEC);
    struct stat stat_of;
    if (from < 0 || fstat(from, &stat_of) != 0)
        return err_errno(err, VSS_E_WRITERERROR_RETRYABLE, errno,
                         "max_slot_wal_keep_size may be too small for this backup.", "WAL segment %s", segment->from);
    if ((uint64_t)stat_of.st_size != segment->size)
        return err_set(err, VSS_E_WRITERERROR_RETRYABLE, NULL, "WAL segment %s: has %lld bytes instead of %llu",
                       segment->from, (long long)stat_of.st_size, (unsigned long long)segment->size);
    AUTO_FD int to = open(segment->to, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
    if (to < 0 || copy_bytes(from, to, segment->size) != 0)
        return err_errno(err, errno == ENOSPC ? VSS_E_WRITERERROR_OUTOFRESOURCES : VSS_E_WRITERERROR_RETRYABLE, errno,
                         "The staging directory needs room for the WAL written during the backup.",
                         "cannot copy WAL segment to %s", segment->to);
    struct wal_header header;
    if (pread(to, &header, sizeof(header), 0) != sizeof(header) ||
        header.page_address != segment->number * segment->size ||
        header.system_identifier != segment->system_identifier)
        return err_set(err, VSS_E_WRITERERROR_RETRYABLE, "max_slot_wal_keep_size may be too small for this backup.",
                       "WAL segment %s: was recycled before it could be copied", segment->from);
    return 0;
}
