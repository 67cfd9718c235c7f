#pragma once
/* Arithmetic of the write-ahead log: positions and segment files. Knows no server. */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "base/err.h"

enum { WAL_NAME_SIZE = 25 /* 24 hexadecimal digits */ };

/* "16/B374D848" -> 64 bits; false when it is none. */
bool wal_lsn_parse(const char *text, uint64_t *ret_lsn);
/* Number of the segment that holds the byte at lsn. segment_size: a power of two from 1 MiB to 1 GiB. */
uint64_t wal_segment_of(uint64_t lsn, uint64_t segment_size);
/* Number of the segment that holds the last byte before lsn: the last segment a recovery to lsn needs. */
uint64_t wal_segment_before(uint64_t lsn, uint64_t segment_size);
/* "000000010000000000000002" (PostgreSQL source, XLogFileName). Returns ret. */
char *wal_segment_name(uint32_t timeline, uint64_t segment, uint64_t segment_size, char ret[WAL_NAME_SIZE]);
/* The timeline in a backup label ("START WAL LOCATION: 0/2000028 (file 000000010000000000000002)"); false when absent.
 */
bool wal_label_timeline(const char *label, uint32_t *ret_timeline);
/* Copies a segment that is complete, with mode 0600, and checks that the copy is that segment of that cluster
 * (page address, system identifier): a recycled file keeps its old content under a new name. */
struct wal_segment {
    const char *from, *to; /* paths */
    uint64_t number, size, system_identifier;
};
int wal_segment_copy(const struct wal_segment *segment, struct err *err);
